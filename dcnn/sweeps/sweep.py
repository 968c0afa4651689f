"""Trains all runs of an experiment, launch after launch, and can be stopped and continued.

Between two visits of the host a launch trains for about a second, so that a request to stop is
heard soon. How the training is cut into such stretches does not change its result, and neither
does a stop: what is saved is all that a run carries.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dcnn.base import processes, wording
from dcnn.base.measures import Metric
from dcnn.results.records import Point, Row, is_failed
from dcnn.sweeps import checkpoints, engine, memory, outcomes, snapshots, streaming, training
from dcnn.sweeps.checkpoints import Memory, Store
from dcnn.sweeps.outcomes import Curves
from dcnn.sweeps.plans import Group, Key, Launch, Plan, Run, grouped, launches, stacked
from dcnn.sweeps.snapshots import Begun, Ended
from dcnn.sweeps.training import NEVER, Program, RunState

STRETCH_SECONDS = 1.0  # of training between two visits of the host
TIMES = ("compile_seconds", "train_seconds", "evaluate_seconds", "total_seconds")
COMPILING, TRAINING, EVALUATING = "compiling", "training", "evaluating"


class Interrupted(Exception):
  """A sweep was asked to stop and has saved what it had."""


class Diverged(Exception):
  """A run became non-finite in a sweep that stops for that; it has saved what it had."""


class Progress(NamedTuple):
  """Where a sweep stands, for a display.

  Attributes:
    phase: `compiling`, `training` or `evaluating`; only in training there is something to lose.
    done, total: steps of single runs, over all groups and launches; those that an ended run does
      not take count as done.
    reused: of those done, how many were read from checkpoints.
    watched: The latest validation error of each arm: the geometric mean of its finite runs, nan
      where there is none.
    metric: Which error that is.
    diverged: runs that have become non-finite so far.
    compile_seconds: in this session so far.
    choice: how many runs train together, once that is known of a group.
  """

  phase: str
  done: int
  total: int
  reused: int
  watched: dict[str, float]
  metric: Metric
  diverged: int
  compile_seconds: float
  choice: memory.Choice | None = None


class Trained(NamedTuple):
  """The runs of a group after training.

  Attributes:
    program: of the group.
    runs: one for each entry of the leading axis of the variables.
    best: variables that validation chose, NumPy.
    last: variables after the last step, or where the run ended, NumPy; where a moving average is
      kept, with the averaged parameters.
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


@dataclasses.dataclass
class _Session:
  """What goes along with a sweep: its callers' wishes, its clock and its counts."""

  plan: Plan
  on_progress: Callable[[Progress], None]
  store: Store | Memory | None
  should_stop: Callable[[], bool]
  ended: dict[Key, Ended] = dataclasses.field(default_factory=dict)
  begun: Begun | None = None
  seconds: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(TIMES, 0.0))
  seconds_before: Mapping[str, float] = dataclasses.field(default_factory=dict)
  launches: int = 0
  reused: int = 0
  force_loss: dict[str, float] = dataclasses.field(default_factory=dict)
  choice: memory.Choice | None = None
  started: float = dataclasses.field(default_factory=time.monotonic)
  saved: float = dataclasses.field(default_factory=time.monotonic)

  @contextlib.contextmanager
  def timed(self, phase: str) -> Iterator[None]:
    """Adds the time that the context lasts to that of a phase."""
    started = time.monotonic()
    yield
    self.seconds[phase] += time.monotonic() - started

  def so_far(self) -> dict[str, Any]:
    """Times and counts, those of earlier sessions included."""
    spent = {**self.seconds, "total_seconds": time.monotonic() - self.started}
    return {
        "seconds": {name: self.seconds_before.get(name, 0.0) + spent[name] for name in TIMES},
        "launches": self.launches}

  def take_up(self, so_far: Mapping[str, Any]) -> None:
    """Goes on counting where an earlier session left off."""
    self.seconds_before = so_far["seconds"]
    self.launches = so_far["launches"] - (self.begun is not None)  # that one is counted again

  def tell(self, phase: str, launch_steps: int = 0, diverged: int = 0) -> None:
    """Reports progress; `launch_steps` and `diverged` are of the launch under way."""
    plan = self.plan
    failed = sum(is_failed(each.rows[0].status) for each in self.ended.values())
    self.on_progress(Progress(
        phase, len(self.ended) * plan.steps + launch_steps,
        len(plan.arms) * len(plan.seeds) * plan.steps, self.reused, dict(self.force_loss),
        Metric("force_loss", "eV/A", "error"), failed + diverged, self.seconds["compile_seconds"],
        self.choice))


def run(
    plan: Plan,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    store: Store | Memory | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
  """Trains and evaluates every arm with every seed.

  Args:
    plan: what to run.
    on_progress: called after every stretch of training.
    store: where checkpoints go, and where those of an earlier, equal sweep are taken from; none
      are kept without it. Of several processes all have one, and that of the first is written.
    should_stop: asked after every stretch; of several processes any may ask for it.

  Returns:
    Results, curves, trained variables and timings.

  Raises:
    ValueError: if not even one run fits in memory, labels cannot be scaled, or no checkpoint of
      those there are can be read.
    OSError: if a checkpoint cannot be saved.
    Interrupted: when asked to stop.
    Diverged: if a run became non-finite and the plan says to stop then.
    Lost: if another process is gone.
  """
  groups = grouped(plan)  # mistakes show before training
  session = _Session(plan, on_progress, store, should_stop)
  session.force_loss = {arm.name: math.nan for arm in plan.arms}
  if store is not None:
    _restore(session, store)
  for group in groups:
    _run_group(session, group)
  if store is not None:
    store.flush()
  return _outcome(plan, groups, session)


def _outcome(plan: Plan, groups: Sequence[Group], session: _Session) -> Outcome:
  """Everything in the order of the plan, whatever the order in which it was computed."""
  by_key = {each.key: (group, each) for group in groups for each in group.runs}
  keys = [Key(arm.name, seed) for arm in plan.arms for seed in plan.seeds]
  ended = [session.ended[key] for key in keys]
  shown = outcomes.median_run([each.rows for each in ended])
  parity = {}
  if shown is not None:
    group, each = by_key[keys[shown]]
    parity = outcomes.predictions(plan, group.program.task, each, ended[shown].best)
  return Outcome(
      rows=tuple(row for each in ended for row in each.rows),
      history=tuple(point for each in ended for point in each.history),
      groups=tuple(_trained(group, session.ended) for group in groups),
      parity=parity,
      timing={**session.so_far()["seconds"], "groups": len(groups),
              "launches": session.launches, "runs": len(keys)},
  )


def _trained(group: Group, ended: dict[Key, Ended]) -> Trained:
  mine = [ended[each.key] for each in group.runs]
  best, last = (
      jax.tree.map(lambda *leaves: np.stack(leaves), *variables)
      for variables in zip(*((each.best, each.last) for each in mine), strict=True))
  return Trained(group.program, group.runs, best, last)


def _run_group(session: _Session, group: Group) -> None:
  """Trains what has not ended yet: first the launch that was begun, if it is of this group."""
  pending = [each for each in group.runs if each.key not in session.ended]
  if not pending:
    return
  plan, program, begun = session.plan, group.program, None
  if session.begun and session.begun.keys[0] in {each.key for each in pending}:
    begun, session.begun = session.begun, None
  keys = begun.keys if begun else ()
  by_key = {each.key: each for each in pending}
  first = [by_key[key] for key in keys]
  rest = [each for each in pending if each.key not in keys]
  if session.store is not None:
    session.store.flush()  # nobody waits for a compilation, so nothing may be left to lose
  session.tell(COMPILING)
  with session.timed("compile_seconds"):
    fit = memory.fitted(plan, program, pending, begun=begun.size if begun else None)
    shared = streaming.whole(plan, fit.layout, fit.engine)
  session.choice = fit.choice
  if session.store is not None:
    session.store.check()
  for launch in (*launches(first, fit.size), *launches(rest, fit.size)):
    session.launches += 1
    arguments = fit.engine.place(stacked(launch.filled))
    feed = streaming.feed(plan, launch, fit.layout, fit.engine, shared)
    state, curves = _train(session, program, fit.engine, launch, arguments, feed, begun)
    _finish(session, program, fit.engine, launch, arguments, feed, state, curves)
    begun = None


def _train(
    session: _Session, program: Program, built: engine.Engine, launch: Launch,
    arguments: engine.Runs, feed: streaming.Feed, begun: Begun | None,
) -> tuple[RunState, Curves]:
  """Trains one launch to its end; returns its states and the curves of its runs."""
  plan, runs = session.plan, len(launch.real)
  state, curves, done = built.init(arguments), outcomes.no_curves(runs), 0
  if begun:
    state = built.place(snapshots.refilled(begun.state, state, len(launch.filled)))
    curves, done = begun.curves, begun.step
  pace = _Pace()
  with (contextlib.closing(feed.training(done)) as stretches,
        contextlib.closing(feed.validation()) as valid):
    while done < plan.steps and not _ended(state, runs).all():
      start = done - done % plan.chunk
      end = min(start + plan.chunk, plan.steps)
      while done < end:
        with session.timed("train_seconds"):
          part = next(stretches)
        while done < min(end, part.first + part.rows):
          # Clocks differ between processes.
          steps = int(processes.from_all(pace.steps(part.first + part.rows - done))[0])
          with session.timed("train_seconds"), pace.measured(steps):
            state = built.train(state, arguments, part.window, done - part.first, steps)
            jax.block_until_ready(state.step)
          done = end if _ended(state, runs).all() else done + steps
          if done < end:
            _visit(session, launch, state, curves, done)
      with session.timed("train_seconds"):
        sums = _sums(built, training.evaluated_variables(program, state), arguments, valid)
        state, validation = built.validate(state, arguments, sums, end - start)
        curves = _with_validation(curves, state, validation, launch, start=start, end=end)
      session.force_loss |= outcomes.latest_force_loss(curves, launch.keys)
      _visit(session, launch, state, curves, done)
  return state, curves


def _sums(
    built: engine.Engine, variables: Any, arguments: engine.Runs, parts: Iterator[streaming.Part]
) -> dict[str, np.ndarray]:
  """Sums and counts of the batches of one evaluation, (runs batches)."""
  found: list[dict[str, np.ndarray]] = []
  for part in parts:
    sums = processes.gathered(built.evaluate(variables, arguments, part.window, part.rows))
    found.append({name: values[:, :part.rows] for name, values in sums.items()})
    if not part.left:
      break
  return {name: np.concatenate([sums[name] for sums in found], axis=1) for name in found[0]}


def _visit(
    session: _Session, launch: Launch, state: RunState, curves: Curves, done: int
) -> None:
  """Between two stretches: tells how far it is, saves if it is time, and stops if asked to."""
  plan, runs = session.plan, len(launch.real)
  diverged = processes.gathered(state.diverged_at)[:runs] != NEVER
  session.tell(TRAINING, done * runs, int(diverged.sum()))
  stop, due = _agreed(
      session.should_stop(), time.monotonic() - session.saved >= plan.checkpoint_every)
  refused = plan.stop_on_divergence and diverged.any()
  if stop or refused or due:
    _save_running(session, launch, state, curves, done)
  if session.store is not None and (stop or refused):
    session.store.flush()
  if refused:
    raise Diverged(_refusal(launch, _on_host(state, runs), diverged, plan.steps))
  if stop:
    raise Interrupted


def _agreed(stop: bool, due: bool) -> tuple[bool, bool]:
  """Any process may ask to stop; the first alone knows when it is time to save."""
  wishes = processes.from_all(np.array([stop, due]))
  return bool(wishes[:, 0].any()), bool(wishes[0, 1])


def _refusal(launch: Launch, state: RunState, diverged: np.ndarray, steps: int) -> str:
  first = int(np.argmax(diverged))
  run, ended = launch.real[first], outcomes.ending(state, first, steps)
  others = f" and {diverged.sum() - 1} more" if diverged.sum() > 1 else ""
  return (f"arm {run.arm.name!r}, seed {run.seed}{others}: {ended.status} (not finite: "
          f"{ended.cause}), and on_divergence is stop. Everything is saved; "
          f"{wording.option('config.on_divergence', 'record')} goes on with the others")


def _with_validation(
    curves: Curves, state: RunState, validation: training.Validation, launch: Launch, *,
    start: int, end: int,
) -> Curves:
  """The curves after the chunk from `start` to `end`; runs that ended before it get no point."""
  runs = len(launch.real)
  diverged_at, stopped_at, validation = jax.tree.map(
      lambda leaf: leaf[:runs],
      processes.gathered((state.diverged_at, state.stopped_at, validation)))
  diverged = diverged_at != NEVER
  before = diverged & (diverged_at < start) | (stopped_at != NEVER) & (stopped_at <= start)
  return outcomes.extended(curves, validation, end, running=~before, failed=diverged)


def _finish(
    session: _Session, program: Program, built: engine.Engine, launch: Launch,
    arguments: engine.Runs, feed: streaming.Feed, state: RunState, curves: Curves,
) -> None:
  """Scores the chosen checkpoint of each run of a launch, and saves the launch as ended."""
  plan, runs = session.plan, len(launch.real)
  _save_running(session, launch, state, curves, plan.steps)
  if session.store is not None:
    session.store.flush()  # nor for an evaluation
  session.tell(EVALUATING, plan.steps * runs)
  with session.timed("evaluate_seconds"), contextlib.closing(feed.scored()) as parts:
    sums = _sums(built, state.best.variables, arguments, parts)
  host = _on_host(state, runs)
  last = training.evaluated_variables(program, host)
  histories = outcomes.points(curves, launch.keys)
  by_seed = {each.seed: each for each in launch.real}
  constant = {seed: outcomes.constant_errors(plan, each) for seed, each in by_seed.items()}
  for i, each in enumerate(launch.real):
    session.ended[each.key] = Ended(
        outcomes.rows(
            plan, each, {name: values[i] for name, values in sums.items()},
            constant=constant[each.seed], step=int(host.best.step[i]),
            ended=outcomes.ending(host, i, plan.steps)),
        histories[i], *(snapshots.of_run(tree, i) for tree in (host.best.variables, last)))
  if session.store is not None:
    ended = [session.ended[key] for key in launch.keys]
    session.store.save_finished(snapshots.from_ended(launch, ended, curves, session.so_far()))
    session.saved = time.monotonic()
  session.tell(TRAINING)


def _save_running(
    session: _Session, launch: Launch, state: RunState, curves: Curves, step: int
) -> None:
  session.saved = time.monotonic()
  if session.store is not None:
    leaves = snapshots.named(_on_host(state, len(launch.real)))
    begun = Begun(launch.keys, len(launch.filled), step, leaves, curves)
    session.store.save_running(snapshots.from_begun(begun, session.so_far()))


def _restore(session: _Session, store: Store | Memory) -> None:
  """Takes up what the checkpoints of an earlier sweep hold."""
  plan = session.plan
  wanted = {Key(arm.name, seed) for arm in plan.arms for seed in plan.seeds}
  saved, running = processes.from_first(
      lambda: (store.finished(), store.running()), checkpoints.packed, checkpoints.unpacked)
  for checkpoint in saved:
    ended = snapshots.to_ended(checkpoint)
    session.ended |= {key: each for key, each in ended.items() if key in wanted}
  if running and Key(*running.record["runs"][0]) not in session.ended:
    session.begun = snapshots.to_begun(running)
    saved.append(running)
  if saved:
    session.take_up(saved[-1].record)
  session.reused = len(session.ended) * plan.steps
  if session.begun:
    session.reused += session.begun.step * len(session.begun.keys)


def _on_host(state: RunState, runs: int) -> RunState:
  """A copy of the first runs: the device will write over its own."""
  return jax.tree.map(lambda leaf: np.array(leaf[:runs]), processes.gathered(state))


def _ended(state: RunState, runs: int) -> np.ndarray:
  """Which of the first runs stand still."""
  diverged_at, stopped_at = processes.gathered((state.diverged_at, state.stopped_at))
  return training.has_ended(state._replace(diverged_at=diverged_at, stopped_at=stopped_at))[:runs]


class _Pace:
  """How many steps fit into a stretch, learnt from the stretch before."""

  def __init__(self) -> None:
    self._seconds_per_step = math.inf

  def steps(self, left: int) -> int:
    """Steps of the next stretch: one at first, and no more than `left`."""
    return max(1, min(left, int(STRETCH_SECONDS / self._seconds_per_step)))

  @contextlib.contextmanager
  def measured(self, steps: int) -> Iterator[None]:
    """Learns from a stretch of so many steps."""
    started = time.monotonic()
    yield
    self._seconds_per_step = max(time.monotonic() - started, 1e-9) / steps
