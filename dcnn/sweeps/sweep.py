"""Trains all runs of an experiment, launch after launch, and can be stopped and continued.

Between two visits of the host a launch trains for about a second, so that a request to stop is
heard soon. How the training is cut into such segments does not change its result, and neither
does a stop: what is saved is all that a run carries.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from dcnn.base import processes, wording
from dcnn.base.measures import Metric
from dcnn.results.records import Point, Row, is_failed
from dcnn.sweeps import (
    checkpoints,
    halving,
    memory,
    outcomes,
    plans,
    snapshots,
    streaming,
    training,
)
from dcnn.sweeps.checkpoints import Nothing, Store
from dcnn.sweeps.memory import Compiled, Placement
from dcnn.sweeps.outcomes import Curves
from dcnn.sweeps.plans import Group, Key, Launch, Plan, Training
from dcnn.sweeps.snapshots import Begun, Ended
from dcnn.sweeps.training import NEVER, RunState

SEGMENT_SECONDS = 1.0  # of training between two visits of the host
TIMES = ("compile_seconds", "train_seconds", "evaluate_seconds", "total_seconds")
COMPILING, TRAINING, EVALUATING = "compiling", "training", "evaluating"

OnResults = Callable[[Sequence[Point], Sequence[Row]], None]


class Interrupted(Exception):
  """A sweep was asked to stop and has saved what it had."""


class Diverged(Exception):
  """A run became non-finite in a sweep that stops for that; it has saved what it had."""


class Progress(NamedTuple):
  """Where a sweep stands, for a display.

  Attributes:
    phase: `compiling`, `training` or `evaluating`. A stop is heard only while training.
    done: Steps of single runs so far, over all groups and launches; those that an ended run does
      not take count as done.
    total: Steps of single runs in all.
    reused: How many of those done were read from checkpoints.
    watched: The latest validation error of each arm: the geometric mean of its finite runs, nan
      where there is none.
    metric: Which error that is.
    diverged: The number of runs that have become non-finite so far.
    compile_seconds: The seconds spent compiling in this session so far.
    placement: How many runs train together, once that is known of a group.
  """

  phase: str
  done: int
  total: int
  reused: int
  watched: dict[str, float]
  metric: Metric
  diverged: int
  compile_seconds: float
  placement: Placement | None = None


class Outcome(NamedTuple):
  """What a sweep leaves behind.

  Attributes:
    rows: The results, in the order arm, seed, split, metric.
    history: The curves, in the order arm, seed, step.
    ended: What is kept of each run, in the order arm, seed.
    predictions: Predictions on its test split of one run: the median run of the arm with the
      lowest median validation error. Empty if no run finished, or nothing is reported.
    calibrations: What the spread over the seeds is worth as an uncertainty, by arm and quantity;
      see `outcomes.calibrations`. Arms for which that cannot be said are left out.
    timing: Seconds by phase, and counts.
  """

  rows: tuple[Row, ...]
  history: tuple[Point, ...]
  ended: dict[Key, Ended]
  predictions: dict[str, np.ndarray]
  calibrations: dict[str, dict[str, dict[str, Any]]]
  timing: dict[str, float]


@dataclasses.dataclass
class _Session:
  """What goes along with a sweep: its caller's wishes, its clock and its counts."""

  plan: Plan
  on_progress: Callable[[Progress], None]
  store: Store | Nothing
  should_stop: Callable[[], bool]
  on_results: OnResults | None
  watched: dict[str, float]
  ended: dict[Key, Ended] = dataclasses.field(default_factory=dict)
  begun: Begun | None = None
  seconds: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(TIMES, 0.0))
  seconds_before: Mapping[str, float] = dataclasses.field(default_factory=dict)
  launches: int = 0
  reused: int = 0
  placement: Placement | None = None
  started: float = dataclasses.field(default_factory=time.monotonic)
  saved: float = dataclasses.field(default_factory=time.monotonic)

  @contextlib.contextmanager
  def timer(self, phase: str) -> Iterator[None]:
    """Adds the time that the context lasts to that of a phase."""
    started = time.monotonic()
    yield
    self.seconds[phase] += time.monotonic() - started

  def counts(self) -> dict[str, Any]:
    """Times and counts, those of earlier sessions included."""
    spent = {**self.seconds, "total_seconds": time.monotonic() - self.started}
    return {
        "seconds": {name: self.seconds_before.get(name, 0.0) + spent[name] for name in TIMES},
        "launches": self.launches}

  def resume_counts(self, counts: Mapping[str, Any]) -> None:
    """Goes on counting where an earlier session stopped."""
    self.seconds_before = counts["seconds"]
    self.launches = counts["launches"] - (self.begun is not None)  # that one is counted again

  def report(self, phase: str, launch_steps: int = 0, diverged: int = 0) -> None:
    """Reports progress; `launch_steps` and `diverged` are those of the launch under way."""
    plan = self.plan
    failed = sum(is_failed(ended.rows[0].status) for ended in self.ended.values())
    measures = plan.problem.measures
    self.on_progress(Progress(
        phase, len(self.ended) * plan.steps + launch_steps,
        len(plan.arms) * len(plan.seeds) * plan.steps, self.reused, dict(self.watched),
        measures.metric(measures.watched), failed + diverged, self.seconds["compile_seconds"],
        self.placement))


class _Current(NamedTuple):
  """The launch under way.

  Attributes:
    launch: Its runs.
    compiled: The engine and what it was compiled for.
    arguments: What the runs differ in, on the devices.
    feed: Their data.
    evaluated: From the states of the runs to the variables that validation sees.
  """

  launch: Launch
  compiled: Compiled
  arguments: Training
  feed: streaming.Feed
  evaluated: Callable[[RunState], Any]

  @property
  def runs(self) -> int:
    """The number of runs, without padding."""
    return len(self.launch.real)


def run(
    plan: Plan,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    store: Store | Nothing | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_results: OnResults | None = None,
) -> Outcome:
  """Trains and evaluates every arm with every seed.

  Args:
    plan: What to run.
    on_progress: Called after every segment of training.
    store: Where checkpoints go, and where those of an earlier, equal sweep are taken from; none
      are kept without it. Of several processes all have one, and that of the first is written.
    should_stop: Asked after every segment; of several processes any may ask for it.
    on_results: Called with what has become known, lines of history.csv and of results.csv: first
      with all that checkpoints hold, then after every validation, and when runs have ended.

  Returns:
    Results, curves, trained variables and timings.

  Raises:
    ValueError: if not even one run fits in memory, an arm cannot be fitted to the data, or no
      checkpoint of those there are can be read.
    OSError: if a checkpoint cannot be saved.
    Interrupted: when asked to stop.
    Diverged: if a run became non-finite and the plan says to stop then.
    Lost: if another process is gone.
  """
  groups = plans.make_groups(plan)  # mistakes show before training
  session = _Session(
      plan, on_progress, store or Nothing(), should_stop, on_results,
      watched={arm.name: math.nan for arm in plan.arms})
  _restore(session)
  for group in groups:
    _run_group(session, group)
  session.store.flush()
  return _outcome(plan, groups, session)


def _outcome(plan: Plan, groups: Sequence[Group], session: _Session) -> Outcome:
  """Everything in the order of the plan, whatever the order in which it was computed."""
  keys = [Key(arm.name, seed) for arm in plan.arms for seed in plan.seeds]
  ended = {key: session.ended[key] for key in keys}
  predictions, calibrations = {}, {}
  if plan.reported:
    session.report(EVALUATING)
    with session.timer("evaluate_seconds"):
      predictions, calibrations = _predictions(plan, groups, ended)
    session.report(TRAINING)
  return Outcome(
      rows=tuple(row for each in ended.values() for row in each.rows),
      history=tuple(point for each in ended.values() for point in each.history),
      ended=ended,
      predictions=predictions,
      calibrations=calibrations,
      timing={**session.counts()["seconds"], "groups": len(groups),
              "launches": session.launches, "runs": len(keys)},
  )


def _predictions(
    plan: Plan, groups: Sequence[Group], ended: Mapping[Key, Ended]
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
  """Predictions of the run that is shown, and by arm what the spread of its runs is worth."""
  keys = list(ended)
  place = outcomes.median_run([each.rows for each in ended.values()], plan.problem.measures)
  shown = None if place is None else keys[place]
  predictions, calibrations = {}, {}
  for group in groups:
    predict = outcomes.predictor(plan.problem, group.program.task)
    for arm in dict.fromkeys(run.arm.name for run in group.runs):
      sound = [(run, ended[run.key].best) for run in group.runs
               if run.arm.name == arm and not is_failed(ended[run.key].rows[0].status)]
      calibrations[arm] = outcomes.calibrations(plan, predict, sound)
      for run, variables in sound:
        if run.key == shown:
          predictions = outcomes.predictions(plan, predict, run, variables)
  return predictions, {arm.name: calibrations[arm.name] for arm in plan.arms
                       if calibrations[arm.name]}


def _run_group(session: _Session, group: Group) -> None:
  """Trains what has not ended yet: first the launch that was begun, if it is of this group."""
  pending = {run.key: run for run in group.runs if run.key not in session.ended}
  if not pending:
    return
  plan, program, begun = session.plan, group.program, None
  if session.begun and session.begun.keys[0] in pending:
    begun, session.begun = session.begun, None
  first = [pending.pop(key) for key in begun.keys] if begun else []
  session.store.flush()  # compilation cannot be interrupted, so nothing may be left to lose
  session.report(COMPILING)
  with session.timer("compile_seconds"):
    compiled = memory.compile_group(
        plan, program, [*first, *pending.values()], begun=begun.size if begun else None)
    shared = streaming.resident_data(plan, compiled.layout, compiled.engine)
  session.placement = compiled.placement
  evaluated = functools.partial(training.evaluated_variables, program)
  if program.evaluated is not None:  # otherwise it picks leaves, whatever their leading axes
    evaluated = jax.jit(jax.vmap(evaluated))
  session.report(TRAINING, begun.step * len(begun.keys) if begun else 0)
  session.store.check()
  spread = compiled.placement.devices // compiled.placement.devices_per_run
  for launch in (*plans.launches(first, compiled.size),
                 *halving.launches(plan, tuple(pending.values()), compiled.size, spread)):
    session.launches += 1
    current = _Current(
        launch, compiled, compiled.engine.shard(plans.stack(launch.padded)),
        streaming.make_feed(plan, launch, compiled.layout, compiled.engine, shared), evaluated)
    state, curves = _train(session, current, begun)
    _finish(session, current, state, curves)
    begun = None


def _train(
    session: _Session, current: _Current, begun: Begun | None
) -> tuple[RunState, Curves]:
  """Trains one launch to its end; returns its states and the curves of its runs."""
  plan, engine = session.plan, current.compiled.engine
  state, curves, done = engine.init(current.arguments), outcomes.empty_curves(current.runs), 0
  if begun:
    state = engine.shard(
        snapshots.restore_state(begun.state, state, len(current.launch.padded)))
    curves, done = begun.curves, begun.step
  pace = _Pace()
  with (contextlib.closing(current.feed.training(done)) as parts,
        contextlib.closing(current.feed.validation()) as valid):
    while done < plan.steps and not _has_ended(state, current.runs).all():
      start = done - done % plan.chunk
      end = min(start + plan.chunk, plan.steps)
      segments = _train_chunk(session, current, state, done, end, parts, pace)
      for state, done in segments:
        if done < end:
          _visit(session, current, state, curves, done)
      with session.timer("train_seconds"):
        sums = _sums(current, current.evaluated(state), valid)
        state, validation = engine.validate(state, current.arguments, sums, end - start)
        curves = _with_validation(session, current, curves, state, validation, start, end)
        if session.on_results:
          session.on_results(_latest_points(curves, current.launch.keys), ())
        state = _without_losers(plan, current, state, done)
      session.watched |= outcomes.latest_errors(
          curves, current.launch.keys, plan.problem.measures.watched)
      _visit(session, current, state, curves, done)
  return state, curves


def _without_losers(plan: Plan, current: _Current, state: RunState, step: int) -> RunState:
  """The states after a validation, in which runs that have lost their race stand still."""
  if plan.halving is None:
    return state
  diverged_at, stopped_at, scores = processes.to_host(
      (state.diverged_at, state.stopped_at, state.best.score))
  real = slice(current.runs)
  lost = halving.losers(plan, halving.Standing(
      current.launch.keys, np.where(diverged_at == NEVER, scores, np.inf)[real],
      stopped_at[real] < NEVER), step)
  lost = np.append(lost, np.full(len(stopped_at) - current.runs, lost[0]))  # padding: as the first
  ended = (diverged_at != NEVER) | (stopped_at != NEVER)
  if (ended | ~lost).all():
    return state
  return state._replace(stopped_at=current.compiled.engine.shard(
      np.where(lost & ~ended, np.int32(training.lost_at(step)), stopped_at)))


def _train_chunk(
    session: _Session, current: _Current, state: RunState, done: int, end: int,
    parts: Iterator[streaming.Part], pace: "_Pace",
) -> Iterator[tuple[RunState, int]]:
  """Trains up to a validation; yields states and steps done after each segment."""
  engine = current.compiled.engine
  while done < end:
    with session.timer("train_seconds"):
      part = next(parts)
    last = part.first + part.rows
    while done < min(end, last):
      # Clocks differ between processes.
      steps = int(processes.all_gather(pace.steps(last - done))[0])
      with session.timer("train_seconds"), pace.measure(steps):
        state = engine.train(state, current.arguments, part.window, done - part.first, steps)
        jax.block_until_ready(state.step)
      done = end if _has_ended(state, current.runs).all() else done + steps
      yield state, done


def _sums(
    current: _Current, variables: Any, parts: Iterator[streaming.Part]
) -> dict[str, np.ndarray]:
  """Sums and counts of the batches of one evaluation, (runs batches)."""
  found: list[dict[str, np.ndarray]] = []
  for part in parts:
    sums = processes.to_host(current.compiled.engine.evaluate(
        variables, current.arguments, part.window, part.rows))
    found.append({name: values[:, :part.rows] for name, values in sums.items()})
    if not part.left:
      break
  return {name: np.concatenate([sums[name] for sums in found], axis=1) for name in found[0]}


def _visit(
    session: _Session, current: _Current, state: RunState, curves: Curves, done: int
) -> None:
  """Between two segments: reports progress, saves if it is time, and stops if asked to."""
  plan = session.plan
  diverged = processes.to_host(state.diverged_at)[:current.runs] != NEVER
  session.report(TRAINING, done * current.runs, int(diverged.sum()))
  wishes = processes.all_gather(np.array([
      session.should_stop(), time.monotonic() - session.saved >= plan.checkpoint_every]))
  # Any process may ask to stop; the first alone knows when it is time to save.
  stop, due = bool(wishes[:, 0].any()), bool(wishes[0, 1])
  refused = plan.stop_on_divergence and diverged.any()
  if stop or refused or due:
    _save_running(session, current, state, curves, done)
  if stop or refused:
    session.store.flush()
  if refused:
    raise Diverged(_refusal(current.launch, _to_host(state, current.runs), diverged, plan.steps))
  if stop:
    raise Interrupted


def _refusal(
    launch: Launch, state: RunState, diverged: Bool[np.ndarray, " runs"], steps: int
) -> str:
  first = int(np.argmax(diverged))
  run, ended = launch.real[first], outcomes.ending(state, first, steps)
  others = f" and {diverged.sum() - 1} more" if diverged.sum() > 1 else ""
  return (f"arm {run.arm.name!r}, seed {run.seed}{others}: {ended.status} (not finite: "
          f"{ended.cause}), and on_divergence is stop. Everything is saved; "
          f"{wording.option('config.on_divergence', 'record')} goes on with the others")


def _with_validation(
    session: _Session, current: _Current, curves: Curves, state: RunState,
    validation: training.Validation, start: int, end: int,
) -> Curves:
  """The curves after the chunk from `start` to `end`; runs that ended before it get no point."""
  diverged_at, stopped_at, validation = jax.tree.map(
      lambda leaf: leaf[:current.runs],
      processes.to_host((state.diverged_at, state.stopped_at, validation)))
  diverged = diverged_at != NEVER
  before = diverged & (diverged_at < start) | (stopped_at != NEVER) & (stopped_at <= start)
  return outcomes.append_validation(
      curves, validation, session.plan.problem, end, running=~before, failed=diverged)


def _latest_points(curves: Curves, keys: Sequence[Key]) -> list[Point]:
  """The lines of history.csv of the last validation."""
  return list(itertools.chain(*outcomes.points(curves, keys, len(curves.steps) - 1)))


def _finish(session: _Session, current: _Current, state: RunState, curves: Curves) -> None:
  """Scores the chosen checkpoint of each run of a launch, and saves the launch as ended."""
  plan, launch = session.plan, current.launch
  _save_running(session, current, state, curves, plan.steps)
  session.store.flush()  # evaluation cannot be interrupted either
  session.report(EVALUATING, plan.steps * current.runs)
  with (session.timer("evaluate_seconds"),
        contextlib.closing(current.feed.scored()) as parts):
    sums = _sums(current, state.best.variables, parts)
  host = _to_host(state, current.runs)
  last = current.evaluated(host)
  histories = outcomes.points(curves, launch.keys)
  by_seed = {run.seed: run for run in launch.real}
  baseline = {seed: outcomes.baseline_errors(plan, run) for seed, run in by_seed.items()}
  for i, run in enumerate(launch.real):
    ending = outcomes.ending(host, i, plan.steps)
    session.ended[run.key] = Ended(
        outcomes.rows(
            plan, run, {name: values[i] for name, values in sums.items()},
            baseline=baseline[run.seed], step=int(host.best.step[i]), ended=ending),
        histories[i], snapshots.of_run(host.best.variables, i), snapshots.of_run(last, i),
        math.inf if is_failed(ending.status) else float(host.best.score[i]), run.fitted.kept)
  session.store.save_finished(snapshots.from_ended(
      launch, [session.ended[key] for key in launch.keys], curves, session.counts()))
  session.saved = time.monotonic()
  if session.on_results:
    session.on_results((), [row for key in launch.keys for row in session.ended[key].rows])
  session.report(TRAINING)


def _save_running(
    session: _Session, current: _Current, state: RunState, curves: Curves, step: int
) -> None:
  session.saved = time.monotonic()
  if not session.store.keeps:
    return  # the state need not leave the device
  leaves = snapshots.leaves_by_path(_to_host(state, current.runs))
  begun = Begun(current.launch.keys, len(current.launch.padded), step, leaves, curves)
  session.store.save_running(snapshots.from_begun(begun, session.counts()))


def _restore(session: _Session) -> None:
  """Continues from what the checkpoints of an earlier sweep hold."""
  plan, store = session.plan, session.store
  wanted = {Key(arm.name, seed) for arm in plan.arms for seed in plan.seeds}
  saved, running = processes.broadcast(
      lambda: (store.finished(), store.running()), checkpoints.pack, checkpoints.unpack)
  for checkpoint in saved:
    ended = snapshots.to_ended(checkpoint)
    session.ended |= {key: each for key, each in ended.items() if key in wanted}
  if running and Key(*running.record["runs"][0]) not in session.ended:
    session.begun = snapshots.to_begun(running)
    saved.append(running)
  if saved:
    session.resume_counts(saved[-1].record)
  session.reused = len(session.ended) * plan.steps
  if session.begun:
    session.reused += session.begun.step * len(session.begun.keys)
  if session.on_results:
    begun = session.begun
    curves = outcomes.points(begun.curves, begun.keys) if begun else []
    ended = session.ended.values()
    session.on_results(
        list(itertools.chain(*(each.history for each in ended), *curves)),
        [row for each in ended for row in each.rows])


def _to_host(state: RunState, runs: int) -> RunState:
  """A copy of the first runs: the device will write over its own."""
  return jax.tree.map(lambda leaf: np.array(leaf[:runs]), processes.to_host(state))


def _has_ended(state: RunState, runs: int) -> np.ndarray:
  """Which of the first runs stand still."""
  diverged_at, stopped_at = processes.to_host((state.diverged_at, state.stopped_at))
  return training.has_ended(state._replace(diverged_at=diverged_at, stopped_at=stopped_at))[:runs]


class _Pace:
  """How many steps fit into a segment, learnt from the segment before."""

  def __init__(self) -> None:
    self._seconds_per_step = math.inf

  def steps(self, left: int) -> int:
    """Steps of the next segment: one at first, and no more than `left`."""
    return max(1, min(left, int(SEGMENT_SECONDS / self._seconds_per_step)))

  @contextlib.contextmanager
  def measure(self, steps: int) -> Iterator[None]:
    """Learns from a segment of so many steps."""
    started = time.monotonic()
    yield
    self._seconds_per_step = max(time.monotonic() - started, 1e-9) / steps
