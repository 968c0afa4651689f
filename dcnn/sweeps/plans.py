"""What a sweep consists of: arms, runs and groups, and their data as the engine wants it.

A run is an arm and a seed. Arms of equal structure form a group, which compiles once. The runs of
a group lie on one axis, `runs`; where memory asks for it they are cut into launches of equal size
that reuse the same compiled program.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from dcnn.base import Dataset, Labels, System
from dcnn.data import Indices
from dcnn.labels import LabelTransform
from dcnn.sweeps import engine, training
from dcnn.sweeps.training import Program
from dcnn.tasks.forcefield import Batch

# At most, at once in an evaluation; they bound its memory.
EVALUATION_BATCH = 100  # configurations
EVALUATION_ATOMS = 4000


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
    dataset: float64, physical units; with neighbour lists, complete up to the largest cutoff of
      the arms, where networks take them.
    arms: with distinct names.
    seeds: shared by all arms.
    splits: of each seed, in the order of `seeds`.
    steps: of a run.
    chunk: steps between two validations.
    max_memory: bytes that one launch may take on a device; None for 80 % of the device.
    devices_per_run: devices that share the batch of a run; divides their number and every batch.
    stop_on_divergence: whether a run that becomes non-finite ends the sweep.
    checkpoint_every: seconds between two saves of a launch under way.
  """

  name: str
  dataset: Dataset
  arms: tuple[Arm, ...]
  seeds: tuple[int, ...]
  splits: tuple[Indices, ...]
  steps: int
  chunk: int
  max_memory: float | None
  devices_per_run: int
  stop_on_divergence: bool
  checkpoint_every: float


class Key(NamedTuple):
  """What tells a run from all others of its sweep."""

  arm: str
  seed: int


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

  @property
  def key(self) -> Key:
    """Name of the arm, and the seed."""
    return Key(self.arm.name, self.seed)


class Group(NamedTuple):
  """All runs of the arms that share a program; arms in order, and seeds in order within an arm."""

  program: Program
  runs: tuple[Run, ...]


class Launch(NamedTuple):
  """Runs that train together, filled up with copies of the first to a fixed number."""

  real: tuple[Run, ...]
  filled: tuple[Run, ...]

  @property
  def keys(self) -> tuple[Key, ...]:
    """Of the real runs."""
    return tuple(each.key for each in self.real)


def arms_by_structure(arms: Sequence[Arm]) -> list[tuple[Arm, ...]]:
  """Arms of equal structure together, in the order of their first appearance."""
  alike: dict[Hashable, list[Arm]] = {}
  for arm in arms:
    alike.setdefault(arm.structure, []).append(arm)
  return [tuple(arms) for arms in alike.values()]


def grouped(plan: Plan) -> tuple[Group, ...]:
  """All runs of a plan, with their labels fitted.

  Raises:
    ValueError: if labels cannot be scaled.
  """
  return tuple(
      Group(arms[0].make_program(), tuple(
          _make_run(plan, arm, i) for arm in arms for i in range(len(plan.seeds))))
      for arms in arms_by_structure(plan.arms))


def _make_run(plan: Plan, arm: Arm, index: int) -> Run:
  splits = plan.splits[index]
  train = plan.dataset.take(splits.train)
  transform = arm.fit_labels(train.labels, train.systems.species)
  shift = np.broadcast_to(
      np.asarray(transform.shift_of(plan.dataset.systems.species), np.float64),
      (len(plan.dataset),))
  return Run(arm, plan.seeds[index], splits, transform, shift)


def launches(runs: Sequence[Run], size: int) -> Iterator[Launch]:
  """The runs in launches of `size`."""
  for start in range(0, len(runs), size):
    real = tuple(runs[start:start + size])
    yield Launch(real, real + (real[0],) * (size - len(real)))


def shared_data(dataset: Dataset) -> tuple[System, np.ndarray]:
  """What every run sees alike, in float32: systems and forces."""
  systems = dataset.systems._replace(species=np.asarray(dataset.systems.species, np.int32))
  return jax.tree.map(_in_single_precision, (systems, dataset.labels.forces))


def _in_single_precision(array: Any) -> np.ndarray:
  array = np.asarray(array)
  return array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array


def take(data: tuple[tuple[System, Any], Any], indices: Int[Any, " batch"]) -> Batch:
  """Picks configurations from a run's data: ((systems, forces), energies of this run)."""
  (systems, forces), energy = data
  return Batch(
      jax.tree.map(lambda leaf: leaf[indices], systems),
      Labels(energy[indices], forces[indices]))


def energies(
    runs: Sequence[Run], dataset: Dataset, frames: Int[np.ndarray, " frames"] | slice
) -> Float[np.ndarray, "runs frames"]:
  """What each run alone sees of these frames: energies relative to its shift, float32, eV."""
  energy = np.asarray(dataset.labels.energy, np.float64)[frames]
  return np.stack([(energy - each.shift[frames]).astype(np.float32) for each in runs])


def stacked(runs: Sequence[Run]) -> engine.Runs:
  """The arguments of the runs of a launch, but for their data."""
  numbers = [hypers(each) for each in runs]
  return engine.Runs(
      hypers={
          name: np.array([mine[name] for mine in numbers], np.float32) for name in numbers[0]},
      key=jax.vmap(jax.random.key)(np.array([each.seed for each in runs], np.uint32)))


def hypers(run: Run) -> dict[str, float]:
  """All numbers of a run: those of its arm, and the scale of its labels."""
  return {**run.arm.hypers, "scale": float(run.transform.scale)}


def evaluation_batch(plan: Plan) -> int:
  """Configurations in a batch of evaluation: as many for every split as validation fills."""
  few = max(1, EVALUATION_ATOMS // plan.dataset.systems.species.shape[1])
  size = min(EVALUATION_BATCH, few, len(plan.splits[0].valid))
  return -(-size // plan.devices_per_run) * plan.devices_per_run


def scored_batches(run: Run, plan: Plan) -> dict[str, Int[np.ndarray, "batches batch"]]:
  """The batches of evaluation of each split, the last of each filled up with -1."""
  size = evaluation_batch(plan)
  return {
      name: training.filled_batches(indices, size)
      for name, indices in run.splits._asdict().items()}


def chunk_batches(
    runs: Sequence[Run], plan: Plan, batch_size: int, start: int
) -> Int[np.ndarray, "runs steps batch"]:
  """The batches of the chunk that begins at step `start`; each seed's are computed once."""
  steps = min(plan.chunk, plan.steps - start)
  orders: dict[int, np.ndarray] = {}
  for each in runs:
    if each.seed not in orders:
      orders[each.seed] = training.batch_order(
          each.seed, each.splits.train, batch_size=batch_size, start=start, steps=steps)
  return np.stack([orders[each.seed] for each in runs])
