"""Successive halving: of the arms that race against one another the worse are stopped on the way.

A race is decided by the scores that validation has given so far, at fixed numbers of steps, and
among runs of one launch alone: the same runs are stopped on every machine and after every
interruption. Runs that go on train exactly as they would have without it.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from dcnn.sweeps import engine
from dcnn.sweeps.plans import Key, Launch, Plan, Run

FINALISTS = 2  # of each race are trained to the end, so that the choice is made at full length


class Standing(NamedTuple):
  """Where the runs of a launch stand at a validation.

  Attributes:
    keys: The names of the runs.
    scores: The best score of each so far; inf where it has failed.
    lost: Whether it has been stopped before.
  """

  keys: tuple[Key, ...]
  scores: Float[np.ndarray, " runs"]
  lost: Bool[np.ndarray, " runs"]


def rungs(arms: int, factor: int, *, steps: int, chunk: int) -> tuple[tuple[int, int], ...]:
  """When how many arms of a race go on: 1 / factor of them, each time that steps grow by factor.

  Args:
    arms: The number of arms in the race.
    factor: The factor, at least 2.
    steps: Steps of a whole training.
    chunk: Steps between two validations.

  Returns:
    `(step, left)`, the steps in increasing order and each a validation before the last. The last
    leaves two arms, or as many as there are if there are fewer.

  >>> rungs(8, 2, steps=1000, chunk=100)
  ((300, 4), (500, 2))
  """
  left = []
  while arms > FINALISTS:
    arms = max(FINALISTS, math.ceil(arms / factor))
    left.append(arms)
  fewest: dict[int, int] = {}
  for position, number in enumerate(left):
    step = math.ceil(steps / (factor ** (len(left) - position) * chunk)) * chunk
    if step < steps:
      fewest[step] = number  # of two at one validation the later one holds
  return tuple(fewest.items())


def share(plan: Plan) -> float:
  """The share of the time of whole trainings that a plan takes: 1 where nothing is saved.

  A device that trains all its runs at once, as an accelerator does, works as long for those that
  stand still.
  """
  if plan.halving is None or not engine.one_after_another(engine.mesh_for(1)):
    return 1.0
  arms = len(plan.halving.races[0])
  taken, done, going = 0, 0, arms
  for step, left in (*plan.halving.rungs, (plan.steps, 0)):
    taken += (step - done) * going
    done, going = step, left
  return taken / (arms * plan.steps)


def losers(plan: Plan, standing: Standing, step: int) -> Bool[np.ndarray, " runs"]:
  """The runs of a launch that are to be stopped at a validation.

  Args:
    plan: The plan of the sweep.
    standing: Where its runs stand.
    step: The number of steps taken.

  Returns:
    Which runs belong to arms that have lost their race, here or before. A race of which a run is
    in another launch stops nobody.
  """
  left = dict(plan.halving.rungs).get(step) if plan.halving else None
  if plan.halving is None or left is None:
    return standing.lost
  place = {key: i for i, key in enumerate(standing.keys)}
  lost = standing.lost.copy()
  for race in plan.halving.races:
    runs = [[place.get(Key(arm, seed)) for seed in plan.seeds] for arm in race]
    if any(i is None for arm in runs for i in arm):
      continue
    positions = np.array(runs)
    going = positions[~standing.lost[positions].any(axis=1)]
    with np.errstate(divide="ignore", invalid="ignore"):  # an exact run; and one that has failed
      means = np.log(np.float64(standing.scores[going])).mean(axis=1)
    means[np.isnan(means)] = np.inf  # of both: a failure is the worst
    lost[going[np.argsort(means, kind="stable")[left:]]] = True
  return lost


def launches(plan: Plan, runs: Sequence[Run], size: int, devices: int) -> Iterator[Launch]:
  """The runs in launches of `size`, as `plans.launches`; races stay whole where they fit.

  Args:
    plan: The plan of the sweep.
    runs: The runs of a group; those of a race follow one another.
    size: The number of runs that train together.
    devices: The number of devices over which these are spread.
  """
  whole = size
  if plan.halving:
    race = len(plan.halving.races[0]) * len(plan.seeds)
    whole = size // race * race or size
    if race > size:
      warnings.warn(f"tuning.halving stops nobody: the {race} runs of an arm would have to train "
                    f"together, and {size} fit in memory; raise max_memory if there is more",
                    stacklevel=2)
  for start in range(0, len(runs), whole):
    real = tuple(runs[start:start + whole])
    if plan.halving:
      # Dealt to the devices in turns, so that none is left with those that are stopped.
      real = tuple(run for device in range(devices) for run in real[device::devices])
    yield Launch(real, real + (real[0],) * (size - len(real)))
