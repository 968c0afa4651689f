"""What a sweep consists of: arms, runs, groups and launches.

A run is an arm and a seed. Arms of equal structure form a group, which compiles once. The runs of
a group lie on one axis, `runs`; where memory asks for it they are cut into launches of equal size
that reuse the same compiled program.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from dcnn.base.splits import Frames, Indices
from dcnn.sweeps.training import Program
from dcnn.tasks.base import Fitted, Problem


class Arm(NamedTuple):
  """One setting under comparison.

  Attributes:
    name: What differs from the base configuration.
    structure: Equal for arms that can share a program.
    make_program: Builds that program; called once a group.
    hypers: The numbers of the arm, without those that each run fits to its training frames.
    fit: `(train) -> Fitted`: what a run makes of its training frames, float64.
  """

  name: str
  structure: Hashable
  make_program: Callable[[], Program]
  hypers: Mapping[str, float]
  fit: Callable[[Frames], Fitted]


class Halving(NamedTuple):
  """Races between arms, whose losers are stopped on the way; see `halving`.

  Attributes:
    races: The names of the arms that race against one another, as many in each race.
    rungs: `(step, left)`: after so many steps so many arms of each race go on.
  """

  races: tuple[tuple[str, ...], ...]
  rungs: tuple[tuple[int, int], ...]


class Plan(NamedTuple):
  """A whole experiment, ready to run.

  Attributes:
    name: The name of the experiment.
    problem: The data, and what is reported of them.
    arms: The settings under comparison, with distinct names.
    seeds: The seeds, shared by all arms.
    splits: The splits of each seed, in the order of `seeds`.
    steps: Steps of a run.
    chunk: Steps between two validations.
    max_memory: Bytes that one launch may take on a device; None for 80 % of the device.
    devices_per_run: Devices that share the batch of a run; divides their number and every batch.
    stop_on_divergence: Whether a run that becomes non-finite ends the sweep.
    checkpoint_every: Seconds between two saves of a launch under way.
    halving: Which runs are stopped on the way; None where all are trained to their end.
    reported: Whether predictions and calibrations are wanted, which a tuning does not need.
  """

  name: str
  problem: Problem
  arms: tuple[Arm, ...]
  seeds: tuple[int, ...]
  splits: tuple[Indices, ...]
  steps: int
  chunk: int
  max_memory: float | None
  devices_per_run: int
  stop_on_divergence: bool
  checkpoint_every: float
  halving: Halving | None = None
  reported: bool = True


class Key(NamedTuple):
  """The name of a run within its sweep: an arm and a seed."""

  arm: str
  seed: int


class Run(NamedTuple):
  """One training: an arm and a seed, and what they make of the data.

  Attributes:
    arm: The arm.
    seed: The seed.
    splits: The splits of the seed.
    fitted: What was fitted to the training frames.
  """

  arm: Arm
  seed: int
  splits: Indices
  fitted: Fitted

  @property
  def key(self) -> Key:
    """The name of the arm, and the seed."""
    return Key(self.arm.name, self.seed)

  @property
  def hypers(self) -> dict[str, float]:
    """All numbers of the run: those of its arm, and those that were fitted."""
    return {**self.arm.hypers, **self.fitted.hypers}


class Training(NamedTuple):
  """What the runs of a launch differ in, stacked along a leading `runs` axis.

  Attributes:
    hypers: The numbers of each run.
    key: The key of each run's seed; initialisation and training fold in different numbers.
  """

  hypers: dict[str, Float[Array | np.ndarray, " runs"]]
  key: Array


class Group(NamedTuple):
  """All runs of the arms that share a program; arms in order, and seeds in order within an arm."""

  program: Program
  runs: tuple[Run, ...]


class Launch(NamedTuple):
  """Runs that train together.

  Attributes:
    real: The runs.
    padded: The same, padded with copies of the first to a fixed number.
  """

  real: tuple[Run, ...]
  padded: tuple[Run, ...]

  @property
  def keys(self) -> tuple[Key, ...]:
    """The names of the real runs."""
    return tuple(run.key for run in self.real)


def make_groups(plan: Plan) -> tuple[Group, ...]:
  """All runs of a plan, with what each fits to its training frames.

  Args:
    plan: What to run.

  Returns:
    The groups, in the order in which their first arms are listed.

  Raises:
    ValueError: if an arm cannot be fitted to the data.
  """
  alike: dict[Hashable, list[Arm]] = {}
  for arm in plan.arms:
    alike.setdefault(arm.structure, []).append(arm)
  return tuple(
      Group(arms[0].make_program(), tuple(
          Run(arm, seed, splits, arm.fit(splits.train))
          for arm in arms for seed, splits in zip(plan.seeds, plan.splits, strict=True)))
      for arms in alike.values())


def splits_differ(plan: Plan) -> bool:
  """Whether the seeds have splits of their own."""
  first, *others = plan.splits
  return any(not np.array_equal(mine, theirs)
             for other in others for mine, theirs in zip(first, other, strict=True))


def launches(runs: Sequence[Run], size: int) -> Iterator[Launch]:
  """The runs in launches of `size`."""
  for start in range(0, len(runs), size):
    real = tuple(runs[start:start + size])
    yield Launch(real, real + (real[0],) * (size - len(real)))


def own_data(runs: Sequence[Run], frames: Frames) -> Any:
  """What each run alone sees of these frames: a tree of arrays (runs frames ...)."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *(run.fitted.own(frames) for run in runs))


def stack(runs: Sequence[Run]) -> Training:
  """What the runs of a launch differ in, apart from their data."""
  numbers = [run.hypers for run in runs]
  return Training(
      hypers={name: np.array([mine[name] for mine in numbers], np.float32) for name in numbers[0]},
      key=jax.vmap(jax.random.key)(np.array([run.seed for run in runs], np.uint32)))
