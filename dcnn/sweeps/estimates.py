"""What a sweep will take: launches, memory and time, measured by training for a moment.

Everything is compiled as it will be, so that memory and the time to compile are those of the sweep.
Then each group trains a few steps and validates once, on the devices, and forgets it all: nothing
is written, and no state is kept.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

import jax

from dcnn.base import processes
from dcnn.sweeps import batches, halving, memory, plans, streaming, training
from dcnn.sweeps.engine import Engine
from dcnn.sweeps.memory import Placement
from dcnn.sweeps.plans import Group, Key, Plan, Training

MEASURED_SECONDS = 0.5  # of training, in each group


class Estimate(NamedTuple):
  """What the runs of a group will take.

  Attributes:
    arms: The names of its arms.
    runs: The number of runs that are to be trained.
    placement: How many of them train together, on which devices, and the memory that they need.
    compile_seconds: Seconds to compile its program.
    step_seconds: Seconds for a step of one run: those of a launch divided by its runs.
    train_seconds: Seconds for all steps of all runs, if none ends early but by halving.
    evaluate_seconds: Seconds for all validations of all runs and for the evaluation at their end.
  """

  arms: tuple[str, ...]
  runs: int
  placement: Placement
  compile_seconds: float
  step_seconds: float
  train_seconds: float
  evaluate_seconds: float

  @property
  def seconds(self) -> float:
    """Seconds in all."""
    return self.compile_seconds + self.train_seconds + self.evaluate_seconds


def estimate(plan: Plan, ended: Container[Key] = ()) -> Iterator[Estimate]:
  """Estimates what a sweep takes, group after group; nothing is left behind.

  Args:
    plan: The plan of the sweep.
    ended: Runs that need no training, because an earlier sweep has trained them.

  Yields:
    An estimate for each group of which a run is left, as soon as it has been measured.

  Raises:
    ValueError: If not even one run fits in memory, or an arm cannot be fitted to the data.
  """
  for group in plans.make_groups(plan):
    runs = tuple(run for run in group.runs if run.key not in ended)
    if runs:
      yield _estimate_group(plan, group._replace(runs=runs))


def _estimate_group(plan: Plan, group: Group) -> Estimate:
  compiled, compile_seconds = _timed(lambda: memory.compile_group(plan, group.program, group.runs))
  launch = next(plans.launches(group.runs, compiled.size))
  engine, placement = compiled.engine, compiled.placement
  arguments = engine.shard(plans.stack(launch.padded))
  shared = streaming.resident_data(plan, compiled.layout, engine)
  feed = streaming.make_feed(plan, launch, compiled.layout, engine, shared)
  with (contextlib.closing(feed.training(0)) as parts,
        contextlib.closing(feed.validation()) as validation):
    part, window_seconds = _timed(lambda: next(parts))
    state, step_seconds = _train_for_a_moment(engine, arguments, part)
    if placement.streamed:  # the next window is made meanwhile
      step_seconds = max(step_seconds, window_seconds / part.rows)
    variables = training.evaluated_variables(group.program, state)
    _evaluate(engine, variables, arguments, validation)  # what comes first takes longer
    rows, seconds = _timed(lambda: _evaluate(engine, variables, arguments, validation))
  scored = sum(map(len, batches.evaluation_batches(group.runs[0], plan).values()))
  validations = -(-plan.steps // plan.chunk)
  return Estimate(
      arms=tuple(dict.fromkeys(run.arm.name for run in group.runs)),
      runs=len(group.runs),
      placement=placement,
      compile_seconds=compile_seconds,
      step_seconds=step_seconds / placement.runs,
      train_seconds=halving.share(plan) * placement.launches * plan.steps * step_seconds,
      evaluate_seconds=placement.launches * (validations * rows + scored) * seconds / rows)


def _train_for_a_moment(
    engine: Engine, arguments: Training, part: streaming.Part
) -> tuple[Any, float]:
  """Trains over and over on a window; returns the states and the seconds for a step of a launch."""
  state = engine.init(arguments)
  for doublings in itertools.count():
    steps = min(2**doublings, part.rows)
    started = time.monotonic()
    state = engine.train(state, arguments, part.window, 0, steps)
    jax.block_until_ready(state.step)
    seconds = time.monotonic() - started
    # The first step, which takes longer than others, is not counted.
    if doublings and (seconds > MEASURED_SECONDS / 2 or steps == part.rows):
      return state, seconds / steps
  raise AssertionError


def _evaluate(
    engine: Engine, variables: Any, arguments: Training, parts: Iterator[streaming.Part]
) -> int:
  """Evaluates a whole validation; returns the number of its batches."""
  rows = 0
  for part in parts:
    processes.to_host(engine.evaluate(variables, arguments, part.window, part.rows))
    rows += part.rows
    if not part.left:
      break
  return rows


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
  """What a function returns, and the seconds that it takes."""
  started = time.monotonic()
  return function(), time.monotonic() - started
