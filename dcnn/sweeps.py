"""All runs of an experiment: arms of equal structure compile once and train as one program.

A run is an arm and a seed. The runs of a group lie on one axis, `runs`; where memory asks for it
they are cut into launches of equal size that reuse the same compiled program.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from dcnn import engine, metrics, training
from dcnn.base import Dataset, Labels, System
from dcnn.data import Indices
from dcnn.labels import LabelTransform
from dcnn.results import Point, Row
from dcnn.tasks.forcefield import Batch
from dcnn.training import NOT_DIVERGED, Program, RunState

EVALUATION_BATCH = 100  # configurations; bounds the memory of an evaluation


class Arm(NamedTuple):
  """One setting under comparison.

  Attributes:
    name: what differs from the base configuration.
    structure: equal for arms that can share a program.
    make_program: builds that program; called once a group.
    hypers: the numbers of the arm, but for `scale`, which the labels of each seed decide.
    fit_labels: from training labels (float64) and species to the arm's transform.
  """

  name: str
  structure: Hashable
  make_program: Callable[[], Program]
  hypers: Mapping[str, float]
  fit_labels: Callable[[Labels, Any], LabelTransform]


class Plan(NamedTuple):
  """A whole experiment, ready to run.

  Attributes:
    name: of the experiment.
    dataset: float64, physical units.
    arms: with distinct names.
    seeds: shared by all arms.
    splits: of each seed, in the order of `seeds`.
    steps: of a run.
    chunk: steps between two validations.
    max_memory: bytes that one launch may take on a device; None for 80 % of the device.
  """

  name: str
  dataset: Dataset
  arms: tuple[Arm, ...]
  seeds: tuple[int, ...]
  splits: tuple[Indices, ...]
  steps: int
  chunk: int
  max_memory: float | None = None


class Run(NamedTuple):
  """One training: an arm and a seed, and the labels as this run sees them.

  Attributes:
    arm: of the plan.
    seed: of the plan.
    splits: of the seed.
    transform: fitted on the training labels.
    shift: (frames), what the transform takes off each energy, float64, eV.
  """

  arm: Arm
  seed: int
  splits: Indices
  transform: LabelTransform
  shift: Float[np.ndarray, " frames"]


class Progress(NamedTuple):
  """Where a sweep stands, for a display.

  Attributes:
    done, total: steps of single runs, over all groups and launches.
    force_loss: the latest validation force_loss of each arm, eV/A: the geometric mean of its
      finite runs, nan where there is none.
    diverged: runs that have become non-finite so far.
    compile_seconds: so far.
  """

  done: int
  total: int
  force_loss: dict[str, float]
  diverged: int
  compile_seconds: float


class Trained(NamedTuple):
  """The runs of a group after training.

  Attributes:
    program: of the group.
    runs: one for each entry of the leading axis of the variables.
    best: variables that validation chose, NumPy.
    last: variables after the last step, or where the run diverged, NumPy; where a moving average
      is kept, with the averaged parameters.
  """

  program: Program
  runs: tuple[Run, ...]
  best: Any
  last: Any


class Outcome(NamedTuple):
  """What a sweep leaves behind.

  Attributes:
    rows: the results, in the order arm, seed, split, metric.
    history: the curves, in the order arm, seed, step.
    groups: trained variables.
    parity: predictions on its test split of one run: of the arm with the lowest median validation
      force_loss, the median run. Empty if no run finished.
    timing: seconds by phase, and counts.
  """

  rows: tuple[Row, ...]
  history: tuple[Point, ...]
  groups: tuple[Trained, ...]
  parity: dict[str, np.ndarray]
  timing: dict[str, float]


def grouped(arms: Sequence[Arm]) -> list[tuple[Arm, ...]]:
  """Arms of equal structure together, in the order of their first appearance."""
  groups: dict[Hashable, list[Arm]] = {}
  for arm in arms:
    groups.setdefault(arm.structure, []).append(arm)
  return [tuple(group) for group in groups.values()]


def run(plan: Plan, on_progress: Callable[[Progress], None] = lambda progress: None) -> Outcome:
  """Trains and evaluates every arm with every seed.

  Args:
    plan: what to run.
    on_progress: called after every chunk.

  Returns:
    Results, curves, trained variables and timings.

  Raises:
    ValueError: if not even one run fits in memory, or labels cannot be scaled.
  """
  meter = _Meter(
      len(plan.arms) * len(plan.seeds) * plan.steps, on_progress,
      {arm.name: float("nan") for arm in plan.arms})
  groups = [_prepare(plan, arms) for arms in grouped(plan.arms)]  # mistakes show before training
  finished = [_run_group(plan, group, meter) for group in groups]
  order = {arm.name: i for i, arm in enumerate(plan.arms)}
  records = sorted(
      (record for group in finished for record in group.records),
      key=lambda record: order[record.run.arm.name])
  return Outcome(
      rows=tuple(row for record in records for row in record.rows),
      history=tuple(point for record in records for point in record.history),
      groups=tuple(group.trained for group in finished),
      parity=_parity(plan, finished),
      timing={**meter.seconds, "groups": len(finished), "launches": meter.launches,
              "runs": len(records)},
  )


def by_arm(groups: Sequence[Trained]) -> dict[str, dict[str, Any]]:
  """Trained variables with what their use needs, by the arm's name; `/` in a name becomes `:`.

  Args:
    groups: of an outcome.

  Returns:
    For each arm `best` and `last` (variables, leading axis `seeds`), `seed`, and `shift` and
    `scale` of its labels: energy = scale * network + shift, in eV. `shift` is that of the first
    frame; a scheme with atomic references has another for each composition.
  """
  arms: dict[str, dict[str, Any]] = {}
  for group in groups:
    for name in dict.fromkeys(each.arm.name for each in group.runs):
      rows = np.array([i for i, each in enumerate(group.runs) if each.arm.name == name])
      runs = [group.runs[i] for i in rows]
      arms[name.replace("/", ":")] = {
          "best": jax.tree.map(lambda leaf, rows=rows: leaf[rows], group.best),
          "last": jax.tree.map(lambda leaf, rows=rows: leaf[rows], group.last),
          "seed": np.array([each.seed for each in runs]),
          "shift": np.array([each.shift[0] for each in runs]),
          "scale": np.array([float(each.transform.scale) for each in runs]),
      }
  return arms


@dataclasses.dataclass
class _Meter:
  """Adds up times and steps over groups and launches, and tells the display."""

  total: int
  on_progress: Callable[[Progress], None]
  force_loss: dict[str, float]
  done: int = 0
  diverged: int = 0
  launches: int = 0
  seconds: dict[str, float] = dataclasses.field(default_factory=lambda: {
      "compile_seconds": 0.0, "train_seconds": 0.0, "evaluate_seconds": 0.0})

  def report(self, diverged: int) -> None:
    self.on_progress(Progress(
        self.done, self.total, self.force_loss, self.diverged + diverged,
        self.seconds["compile_seconds"]))


class _Record(NamedTuple):
  """What is written down of one run."""

  run: Run
  rows: tuple[Row, ...]
  history: tuple[Point, ...]


class _Finished(NamedTuple):
  """A group after its last launch."""

  trained: Trained
  records: tuple[_Record, ...]


class _Launch(NamedTuple):
  """Runs that train together, filled up with copies of the first to a fixed number."""

  real: tuple[Run, ...]
  filled: tuple[Run, ...]


def _prepare(plan: Plan, arms: tuple[Arm, ...]) -> tuple[Program, tuple[Run, ...]]:
  runs = tuple(_make_run(plan, arm, i) for arm in arms for i in range(len(plan.seeds)))
  return arms[0].make_program(), runs


def _run_group(
    plan: Plan, group: tuple[Program, tuple[Run, ...]], meter: _Meter
) -> _Finished:
  program, runs = group
  started = time.monotonic()
  built, size = _fitting_engine(plan, program, runs, shared_data(plan.dataset))
  shared = built.share(shared_data(plan.dataset))
  meter.seconds["compile_seconds"] += time.monotonic() - started
  records, best, last = [], [], []
  for launch in _launches(runs, size):
    meter.launches += 1
    arguments = built.place(_stack(launch.filled, plan))
    state, history = _train(plan, program, built, launch, arguments, shared, meter)
    records += _evaluate(plan, built, launch, arguments, shared, state, history, meter)
    best.append(_first(state.best.variables, len(launch.real)))
    last.append(_first(training.evaluated_variables(program, state), len(launch.real)))
  stack = functools.partial(jax.tree.map, lambda *parts: np.concatenate(parts))
  return _Finished(Trained(program, runs, stack(*best), stack(*last)), tuple(records))


def _make_run(plan: Plan, arm: Arm, index: int) -> Run:
  splits = plan.splits[index]
  train = plan.dataset.take(splits.train)
  transform = arm.fit_labels(train.labels, train.systems.species)
  shift = np.broadcast_to(
      np.asarray(transform.shift_of(plan.dataset.systems.species), np.float64),
      (len(plan.dataset),))
  return Run(arm, plan.seeds[index], splits, transform, shift)


def shared_data(dataset: Dataset) -> tuple[System, np.ndarray]:
  """What every run sees alike, in float32: systems and forces."""
  systems = System(
      np.asarray(dataset.systems.positions, np.float32),
      np.asarray(dataset.systems.species, np.int32))
  return systems, np.asarray(dataset.labels.forces, np.float32)


def take(data: tuple[tuple[System, Any], Any], indices: Int[Any, " batch"]) -> Batch:
  """Picks configurations from a run's data: ((systems, forces), energies of this run)."""
  (systems, forces), energy = data
  return Batch(
      System(systems.positions[indices], systems.species[indices]),
      Labels(energy[indices], forces[indices]))


def _fitting_engine(
    plan: Plan, program: Program, runs: tuple[Run, ...], shared: Any
) -> tuple[engine.Engine, int]:
  """Compiles for all runs at once, or for as many as fit in memory; and says how many."""
  mesh = engine.local_mesh(len(runs))
  devices = mesh.size
  budget = plan.max_memory or engine.device_memory(mesh.devices.flat[0])
  per_device = math.ceil(len(runs) / devices)
  while True:
    launch = next(_launches(runs, per_device * devices))
    built = engine.build(
        program, _stack(launch.filled, plan), shared,
        _batches(launch.filled, plan, program.batch_size, 0), mesh)
    if built.bytes_needed <= budget:
      return built, per_device * devices
    if per_device == 1:
      raise ValueError(
          f"one run needs {built.bytes_needed / 1e6:.3f} MB on a device and "
          f"{budget / 1e6:.3f} MB are allowed: take a smaller batch or network, or raise "
          "max_memory")
    per_device = max(1, min(per_device - 1, int(per_device * budget / built.bytes_needed)))


def _launches(runs: tuple[Run, ...], size: int) -> Iterator[_Launch]:
  for start in range(0, len(runs), size):
    real = runs[start:start + size]
    yield _Launch(real, real + (runs[0],) * (size - len(real)))


def _stack(runs: Sequence[Run], plan: Plan) -> engine.Runs:
  """The arguments of the runs of a launch."""
  hypers = [{**each.arm.hypers, "scale": float(each.transform.scale)} for each in runs]
  energy = np.asarray(plan.dataset.labels.energy, np.float64)
  scored = [np.concatenate(list(_filled_splits(each).values())) for each in runs]
  return engine.Runs(
      hypers={
          name: np.array([numbers[name] for numbers in hypers], np.float32)
          for name in hypers[0]},
      data=np.stack([(energy - each.shift).astype(np.float32) for each in runs]),
      key=jax.vmap(jax.random.key)(np.array([each.seed for each in runs], np.uint32)),
      valid=np.stack([_filled(each.splits.valid) for each in runs]),
      scored=np.stack(scored),
  )


def _filled(indices: Int[np.ndarray, " frames"]) -> Int[np.ndarray, "batches batch"]:
  return training.filled_batches(indices, min(EVALUATION_BATCH, len(indices)))


def _filled_splits(each: Run) -> dict[str, Int[np.ndarray, "batches batch"]]:
  """The batches of each split, in rows of one length."""
  size = min(EVALUATION_BATCH, max(map(len, each.splits)))
  return {
      name: training.filled_batches(indices, size)
      for name, indices in each.splits._asdict().items()}


def _batches(
    runs: Sequence[Run], plan: Plan, batch_size: int, start: int
) -> Int[np.ndarray, "runs chunk batch"]:
  """The batches of the next chunk; each seed's are computed once."""
  steps = min(plan.chunk, plan.steps - start)
  orders: dict[int, np.ndarray] = {}
  for each in runs:
    if each.seed not in orders:
      rows = training.batch_order(
          each.seed, each.splits.train, batch_size=batch_size, start=start, steps=steps)
      orders[each.seed] = np.pad(rows, ((0, plan.chunk - steps), (0, 0)))
  return np.stack([orders[each.seed] for each in runs])


def _train(
    plan: Plan, program: Program, built: engine.Engine, launch: _Launch, arguments: engine.Runs,
    shared: Any, meter: _Meter,
) -> tuple[RunState, list[list[Point]]]:
  """Trains one launch to the end; returns its states and the curve of each run."""
  started = time.monotonic()
  state = built.init(arguments)
  history: list[list[Point]] = [[] for _ in launch.real]
  diverged = 0
  for start in range(0, plan.steps, plan.chunk):
    steps = min(plan.chunk, plan.steps - start)
    state, record = built.chunk(
        state, arguments, shared, _batches(launch.filled, plan, program.batch_size, start), steps)
    alive = np.asarray(state.diverged_at)[:len(launch.real)] == NOT_DIVERGED
    _write_history(history, launch.real, jax.device_get(record), start + steps, alive)
    diverged = int(np.sum(~alive))
    meter.done += steps * len(launch.real)
    meter.force_loss |= _latest_force_loss(launch.real, history)
    meter.report(diverged)
  meter.diverged += diverged
  meter.seconds["train_seconds"] += time.monotonic() - started
  return state, history


def _write_history(
    history: list[list[Point]], runs: Sequence[Run], record: training.ChunkRecord, step: int,
    alive: np.ndarray,
) -> None:
  """Adds the chunk's training terms and validation metrics to the curve of each run.

  A run that has diverged stands still; its curve goes on as nan, not as a line of its last error.
  """
  for i, (each, points) in enumerate(zip(runs, history, strict=True)):
    valid = {name: values[i] for name, values in record.valid.items()}
    points += [
        Point(each.arm.name, each.seed, step, "train", f"loss_{name}",
              float(values[i]) if alive[i] else math.nan)
        for name, values in record.terms.items()]
    points += [
        Point(each.arm.name, each.seed, step, "valid", name, value if alive[i] else math.nan)
        for name, value in metrics.mean_absolute_errors(valid).items()]


def _latest_force_loss(runs: Sequence[Run], history: list[list[Point]]) -> dict[str, float]:
  """Geometric mean over the finite runs of each arm."""
  values: dict[str, list[float]] = {}
  for each, points in zip(runs, history, strict=True):
    values.setdefault(each.arm.name, []).append(points[-1].value)
  return {arm: _geometric_mean(np.array(errors)) for arm, errors in values.items()}


def _geometric_mean(errors: np.ndarray) -> float:
  finite = errors[np.isfinite(errors) & (errors > 0)]
  return float(np.exp(np.mean(np.log(finite)))) if finite.size else float("nan")


def _evaluate(
    plan: Plan, built: engine.Engine, launch: _Launch, arguments: engine.Runs, shared: Any,
    state: RunState, history: list[list[Point]], meter: _Meter,
) -> list[_Record]:
  """Scores the chosen checkpoint of each run on its training, validation and test data."""
  started = time.monotonic()
  sums = jax.device_get(built.evaluate(state.best.variables, arguments, shared))
  diverged_at, step, score = (
      np.asarray(leaf) for leaf in (state.diverged_at, state.best.step, state.best.score))
  records = []
  for i, each in enumerate(launch.real):
    # A run whose every validation was non-finite has no checkpoint but its start.
    failed_at = plan.steps if np.isinf(score[i]) else NOT_DIVERGED
    failed_at = diverged_at[i] if diverged_at[i] != NOT_DIVERGED else failed_at
    finished = failed_at == NOT_DIVERGED
    rows = _rows(
        plan, each, {name: values[i] for name, values in sums.items()}, step=int(step[i]),
        status="finished" if finished else f"diverged@{failed_at}")
    records.append(_Record(each, rows, tuple(history[i])))
  meter.seconds["evaluate_seconds"] += time.monotonic() - started
  return records


def _rows(
    plan: Plan, each: Run, sums: dict[str, np.ndarray], *, step: int, status: str
) -> tuple[Row, ...]:
  rows, start = [], 0
  mean_energy = float(np.mean(plan.dataset.labels.energy[each.splits.train]))
  for (split, batches), indices in zip(
      _filled_splits(each).items(), each.splits, strict=True):
    part = slice(start, start + len(batches))
    start = part.stop
    reference = plan.dataset.take(indices)
    constant = metrics.constant_predictor(
        reference.labels, reference.systems.species, mean_energy)
    values = metrics.finish({name: value[part] for name, value in sums.items()}, constant)
    rows += [
        Row(plan.name, each.arm.name, each.seed, split, metric, metrics.UNITS[metric], value,
            step, status)
        for metric, value in values.items()]
  return tuple(rows)


def _parity(plan: Plan, finished: Sequence[_Finished]) -> dict[str, np.ndarray]:
  """Reference and prediction on the test split, of one run that validation data choose."""
  scored = [
      (_valid_force_loss(record), group, i)
      for group in finished for i, record in enumerate(group.records)
      if record.rows[0].status == "finished"]
  if not scored:
    return {}
  by_arm: dict[str, list] = {}
  for entry in scored:
    by_arm.setdefault(entry[1].records[entry[2]].run.arm.name, []).append(entry)
  ranked = [sorted(entries, key=lambda entry: entry[0]) for entries in by_arm.values()]
  medians = [entries[(len(entries) - 1) // 2] for entries in ranked]
  _, group, index = min(medians, key=lambda entry: entry[0])
  return _predictions(plan, group.trained, index)


def _valid_force_loss(record: _Record) -> float:
  return next(row.value for row in record.rows
              if (row.split, row.metric) == ("valid", "force_loss"))


def _predictions(plan: Plan, trained: Trained, index: int) -> dict[str, np.ndarray]:
  each = trained.runs[index]
  test = plan.dataset.take(each.splits.test)
  systems, _ = shared_data(test)
  hypers = {**each.arm.hypers, "scale": float(each.transform.scale)}
  variables = jax.tree.map(lambda leaf: leaf[index], trained.best)
  batches = _filled(np.arange(len(test)))
  stacked = System(*(array[np.maximum(batches, 0)] for array in systems))
  predict = functools.partial(trained.program.task.predict, variables, hypers)
  predicted = jax.jit(functools.partial(jax.lax.map, predict))(stacked)
  count = len(test)
  energy = np.asarray(predicted.energy, np.float64).reshape(-1)[:count]
  forces = np.asarray(predicted.forces, np.float64).reshape(-1, *systems.positions.shape[1:])
  real = np.asarray(systems.species) > 0
  return {
      "energy_true": np.asarray(test.labels.energy),
      "energy_predicted": energy + each.shift[each.splits.test],
      "forces_true": np.asarray(test.labels.forces)[real].reshape(-1),
      "forces_predicted": forces[:count][real].reshape(-1),
      "arm": np.array(each.arm.name),
      "seed": np.array(each.seed),
  }


def _first(tree: Any, count: int) -> Any:
  """The first runs of stacked variables, on the host."""
  return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], tree)
