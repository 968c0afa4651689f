"""From trained states to what is written down: curves, rows of results.csv, and predictions."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dcnn.base import Labels
from dcnn.results.records import DIVERGED, FINISHED, PATIENCE, Point, Row, is_failed
from dcnn.sweeps import plans, training
from dcnn.sweeps.plans import Key, Plan, Run
from dcnn.sweeps.training import NEVER, RunState, Validation
from dcnn.tasks import metrics
from dcnn.tasks.base import Task


class Curves(NamedTuple):
  """Training loss terms and validation errors of the runs of a launch.

  Attributes:
    steps: at which they were validated.
    values: by `split.metric`; nan from where a run diverged.
    counts: points of each run; one that has ended gets no more.
  """

  steps: Int[np.ndarray, " points"]
  values: dict[str, Float[np.ndarray, "points runs"]]
  counts: Int[np.ndarray, " runs"]


class Ending(NamedTuple):
  """How a run ended: `status` and `cause` of its rows."""

  status: str
  cause: str


def no_curves(runs: int) -> Curves:
  """Those of runs that have not been validated yet."""
  return Curves(np.zeros(0, np.int64), {}, np.zeros(runs, np.int64))


def extended(
    curves: Curves, validation: Validation, step: int, *, running: Bool[np.ndarray, " runs"],
    failed: Bool[np.ndarray, " runs"],
) -> Curves:
  """Curves with one more validation.

  Args:
    curves: so far.
    validation: of the runs.
    step: number of steps taken.
    running: which runs had not ended at the validation before.
    failed: which runs have diverged; their curve ends with nan, not with their last error.
  """
  values = {
      f"train.loss_{name}": np.asarray(term, np.float64)
      for name, term in validation.terms.items()}
  values |= {
      f"valid.{name}": np.asarray(error, np.float64)
      for name, error in metrics.mean_absolute_errors(validation.valid).items()}
  none = np.zeros((0, len(running)))
  return Curves(
      np.append(curves.steps, step),
      {name: np.concatenate([curves.values.get(name, none), np.where(failed, np.nan, new)[None]])
       for name, new in values.items()},
      curves.counts + running)


def points(curves: Curves, keys: Sequence[Key]) -> list[tuple[Point, ...]]:
  """The curves of each run as lines of history.csv."""
  named = [(*name.split(".", 1), values) for name, values in curves.values.items()]
  return [
      tuple(
          Point(*key, int(curves.steps[k]), split, metric, float(values[k, i]))
          for k in range(curves.counts[i]) for split, metric, values in named)
      for i, key in enumerate(keys)]


def latest_force_loss(curves: Curves, keys: Sequence[Key]) -> dict[str, float]:
  """Geometric mean over the finite runs of each arm at their last validation; nan without any.

  Exact runs are left out of the mean; it is 0 where all finite runs are exact.
  """
  errors = curves.values.get("valid.force_loss")
  latest: dict[str, list[float]] = {}
  for i, key in enumerate(keys):
    last = errors[curves.counts[i] - 1, i] if errors is not None and curves.counts[i] else math.nan
    latest.setdefault(key.arm, []).append(last)
  return {arm: _geometric_mean(np.array(values)) for arm, values in latest.items()}


def _geometric_mean(errors: np.ndarray) -> float:
  finite = errors[np.isfinite(errors)]
  positive = finite[finite > 0]
  if not positive.size:
    return 0.0 if finite.size else math.nan
  return float(np.exp(np.mean(np.log(positive))))


def ending(state: RunState, run: int, steps: int) -> Ending:
  """How a run of a launch ended.

  Args:
    state: of the launch, on the host.
    run: its place.
    steps: that a run takes if nothing ends it.
  """
  if state.diverged_at[run] != NEVER:
    return diverged(
        state.diverged_at[run], [name for name, flags in state.culprits.items() if flags[run]])
  if np.isinf(state.best.score[run]):  # it has no checkpoint but its start
    return Ending(f"{DIVERGED}@{steps}", "validation")
  if state.stopped_at[run] != NEVER and state.stopped_at[run] < steps:
    return Ending(f"{PATIENCE}@{state.stopped_at[run]}", "")
  return Ending(FINISHED, "")


def diverged(step: Any, culprits: Sequence[str]) -> Ending:
  """The ending of a run that became non-finite.

  Args:
    step: at which it did.
    culprits: what was not finite then, see `training.RunState`. The cause is the loss terms among
      them; where those were finite, the gradient or the new parameters.
  """
  terms = [name for name in culprits if name not in ("gradient", "parameters")]
  return Ending(f"{DIVERGED}@{step}", "+".join(terms or culprits[:1]) or "loss")


def constant_errors(plan: Plan, run: Run) -> dict[str, dict[str, float]]:
  """Errors of the constant predictor on each split of a run: the same for all arms of a seed."""
  energy, forces = plan.dataset.labels
  species = plan.dataset.systems.species
  mean_energy = float(np.mean(energy[run.splits.train]))
  return {
      split: metrics.constant_predictor(
          Labels(energy[frames], forces[frames]), species[frames], mean_energy)
      for split, frames in run.splits._asdict().items()}


def rows(
    plan: Plan, run: Run, sums: Mapping[str, Float[np.ndarray, " batches"]], *,
    constant: Mapping[str, Mapping[str, float]], step: int, ended: Ending,
) -> tuple[Row, ...]:
  """The lines of results.csv of one run.

  Args:
    plan: of the sweep.
    run: that was evaluated.
    sums: of each batch of `groups.scored_batches`.
    constant: from `constant_errors`.
    step: of the checkpoint that was evaluated.
    ended: how the run ended.
  """
  lines, start = [], 0
  for split, batches in plans.scored_batches(run, plan).items():
    part = slice(start, start + len(batches))
    start = part.stop
    values = metrics.finish({name: value[part] for name, value in sums.items()}, constant[split])
    lines += [
        Row(plan.name, *run.key, split, metric, metrics.UNITS[metric], value, step, *ended)
        for metric, value in values.items()]
  return tuple(lines)


def _valid_error(lines: Sequence[Row]) -> float:
  """The validation force_loss among the rows of a run; energy_loss where no forces are known."""
  errors = {row.metric: row.value for row in lines if row.split == "valid"}
  return errors.get("force_loss", errors["energy_loss"])


def median_run(rows_of_runs: Sequence[Sequence[Row]]) -> int | None:
  """The run to show: of the arm of the lowest median validation force_loss the median run.

  Args:
    rows_of_runs: of each run.

  Returns:
    Its place; None if all failed.
  """
  arms: dict[str, list[tuple[float, int]]] = {}
  for i, lines in enumerate(rows_of_runs):
    if not is_failed(lines[0].status):
      arms.setdefault(lines[0].arm, []).append((_valid_error(lines), i))
  medians = [sorted(runs)[(len(runs) - 1) // 2] for runs in arms.values()]
  return min(medians)[1] if medians else None


def predictions(plan: Plan, task: Task, run: Run, variables: Any) -> dict[str, np.ndarray]:
  """Reference and prediction on the test split of one run, for the parity plot."""
  test = plan.dataset.take(run.splits.test)
  predict = jax.jit(functools.partial(task.predict, variables, plans.hypers(run)))
  parts = []
  # Batch by batch: the test frames may be more than a device holds.
  for batch in training.filled_batches(np.arange(len(test)), plans.evaluation_batch(plan)):
    systems, _ = plans.shared_data(test.take(np.maximum(batch, 0)))
    parts.append(jax.device_get(predict(systems)))
  predicted = Labels(*(np.concatenate(part)[:len(test)] for part in zip(*parts, strict=True)))
  known = np.asarray(metrics.known_forces(test.labels.forces, test.systems.species))
  return {
      "energy_true": np.asarray(test.labels.energy),
      "energy_predicted": (
          np.asarray(predicted.energy, np.float64) + run.shift[run.splits.test]),
      "forces_true": np.asarray(test.labels.forces)[known],
      "forces_predicted": np.asarray(predicted.forces, np.float64)[known],
      "arm": np.array(run.arm.name),
      "seed": np.array(run.seed),
  }
