"""A force field as it was trained: energies, forces and stresses of new configurations."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from dcnn import data, derivatives, stats
from dcnn.base import Neighbours, System
from dcnn.labels import LabelTransform
from dcnn.tasks import forcefield
from dcnn.tasks.base import Variables

if TYPE_CHECKING:
  from dcnn.use import predicting
  from dcnn.use.calculator import Calculator

UNITS: Mapping[str, str] = MappingProxyType(
    {"energy": "eV", "forces": "eV/angstrom", "stress": "eV/angstrom^3", "length": "angstrom"})
LABELS = "labels"  # the collection of variables that holds the scale of the label transform


class Predictions(NamedTuple):
  """What all seeds of an arm predict of some configurations; NumPy.

  Attributes:
    energy: Energies (frames seeds) in eV, float64, shift included.
    forces: Forces (frames seeds atoms 3) in eV/angstrom, float32; those of padding are 0.
    stress: Stresses (frames seeds 3 3) in eV/angstrom^3 of configurations that are periodic in all
      directions, with the sign of ASE; None of others.
  """

  energy: Float[np.ndarray, "frames seeds"]
  forces: Float[np.ndarray, "frames seeds atoms 3"]
  stress: Float[np.ndarray, "frames seeds 3 3"] | None


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ForceField:
  """The force fields that the seeds of an arm have learnt.

  Attributes:
    name: The name of the arm.
    seeds: The seeds of its runs; those that failed are not among them.
    energy_fn: `(variables, system) -> energy` of one configuration by one seed, in eV and less the
      shift of the label transform; pure, for `jax.vmap` and `dcnn.derivatives`. Energies of all
      seeds are `jax.vmap(energy_fn, (0, None))(variables, system)`, to which `shift` is added in
      float64: float32 would lose what is learnt beside it.
    variables: The variables that validation chose, with a leading axis `seeds`. The collection
      `labels` holds the scale of the label transform in eV.
    last: The variables after the last step, likewise.
    transform: The label transform, with a leading axis `seeds`; float64 NumPy.
    cutoff: Distance in angstrom beyond which atoms do not interact; None of a network without one.
    listed: Whether the network reads neighbour lists, as periodic configurations need.
    domain: What the training data had: elements, closest distances and compositions.
    metrics: Errors by split and metric, each of shape (seeds,), in the units of results.csv.
    calibration: What the spread over the seeds is worth as an uncertainty, of `energy` and
      `forces`; see `stats.calibrate`. Empty where that is not known; see `Runs`.
    settings: The settings of the arm that its program reads, by dotted key.
  """

  name: str
  seeds: tuple[int, ...]
  energy_fn: derivatives.EnergyFn
  variables: Variables
  last: Variables
  transform: LabelTransform
  cutoff: float | None
  listed: bool
  domain: data.Domain
  metrics: Mapping[str, Mapping[str, Float[np.ndarray, " seeds"]]]
  calibration: Mapping[str, stats.Calibration]
  settings: Mapping[str, Any]

  def __getstate__(self) -> dict[str, Any]:
    """What a pickle holds: all but the compiled program."""
    return {name: value for name, value in self.__dict__.items() if name != "respond"}

  @property
  def elements(self) -> tuple[int, ...]:
    """The atomic numbers that training has seen."""
    return tuple(self.domain.elements.tolist())

  def __repr__(self) -> str:
    """What it is, in a line."""
    from ase.data import chemical_symbols

    symbols = ", ".join(chemical_symbols[element] for element in self.elements)
    return (f"<ForceField {self.name!r}: {self.settings['model.name']} for {symbols}, seeds "
            f"{', '.join(map(str, self.seeds))}>")

  def shift(
      self, species: Int[Array | np.ndarray, "*frames atoms"]
  ) -> Float[np.ndarray, "*frames seeds"]:
    """What is added to the energies of `energy_fn`, in eV, float64.

    Args:
      species: Atomic numbers; 0 is padding.
    """
    shifts = []
    for i in range(len(self.seeds)):
      transform = jax.tree.map(lambda leaf, i=i: leaf[i], self.transform)
      shifts.append(np.broadcast_to(transform.shift_of(np.asarray(species)), species.shape[:-1]))
    return np.stack(shifts, axis=-1)

  def predict(self, systems: System) -> Predictions:
    """Energies, forces and stresses of configurations by all seeds.

    Neighbour lists are made where they are needed and missing. Configurations far from the training
    data are predicted like any other: `remarks` says which they are.

    Args:
      systems: Configurations with a leading axis `frames`, float64 NumPy.

    Returns:
      The predictions, one axis for the seeds; the mean over it is a prediction of its own, and the
      spread says how far the seeds agree.

    Raises:
      ValueError: If there is an element that training has not seen, or the network cannot take the
        configurations.
    """
    species = np.asarray(systems.species)
    data.require_elements(self.domain, species, "a configuration")
    listed = self.with_neighbours(systems) if systems.neighbours is None else systems
    parts = [self._respond(part) for part in _parts(listed)]
    energy, forces, stress = (
        None if leaves[0] is None else np.concatenate(leaves)[:len(species)]
        for leaves in zip(*parts, strict=True))
    assert energy is not None and forces is not None
    return Predictions(energy + self.shift(species), forces, stress)

  def remarks(self, system: System) -> dict[str, str]:
    """In what one configuration is far from the training data: a sentence by its subject."""
    return data.remarks(self.domain, self.with_neighbours(system))

  def with_neighbours(self, systems: System, *, skin: float = 0.0) -> System:
    """Configurations, or one, with neighbour lists if they are large or periodic.

    Args:
      systems: One configuration, or many with a leading axis `frames`.
      skin: Distance in angstrom that a list reaches beyond the cutoff.

    Raises:
      ValueError: If they are periodic and the network reads no lists.
    """
    if systems.cell is not None and not self.listed:
      raise ValueError(
          f"{self.settings['model.name']} reads no neighbour lists, so that it cannot predict "
          "periodic configurations: take SchNet, PaiNN or GridACE, or set pbc to False if they are "
          "molecules in free space")
    if not forcefield.needs_list(systems) or not self.listed or self.cutoff is None:
      return systems._replace(neighbours=None)
    return systems._replace(neighbours=data.neighbour_list(systems, self.cutoff, skin=skin))

  def calculator(self, *, skin: float = 0.5) -> "Calculator":
    """A calculator of ASE, which predicts with the mean of all seeds; see `use.calculator`.

    Args:
      skin: Distance in angstrom that neighbour lists reach beyond the cutoff, so that one serves
        while atoms move by half of it.
    """
    from dcnn.use.calculator import Calculator  # ASE takes a while to import

    return Calculator(self, skin=skin)

  def predict_file(
      self, path: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any,
  ) -> "predicting.Report":
    """Predicts the configurations of a file; see `use.predicting.predict_file`."""
    from dcnn.use import predicting  # ASE takes a while to import

    return predicting.predict_file(self, path, out, **options)

  def export(self, out: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Writes a program that JAX alone runs, without dcnn; see `use.exporting.export`."""
    from dcnn.use import exporting

    return exporting.export(self, out, **options)

  @functools.cached_property
  def respond(self) -> Any:
    """`(variables, systems) -> (energy, forces, virial)`, compiled; axes (frames, seeds, ...).

    In float32 and eV less the shift, as `energy_fn`. The virial is None of molecules.
    """
    def respond_fn(variables: Variables, systems: System) -> tuple[Any, Any, Any]:
      def one(variables: Variables, system: System) -> tuple[Any, Any, Any]:
        if system.cell is None:
          energy, forces = derivatives.energy_and_forces(self.energy_fn)(variables, system)
          return energy, forces, None
        return derivatives.energy_forces_and_virial(self.energy_fn)(variables, system)

      with jax.default_matmul_precision("highest"):
        return jax.vmap(jax.vmap(one, (None, 0)), (0, None), 1)(variables, systems)

    return jax.jit(respond_fn)

  def _respond(self, systems: System) -> tuple[Any, Any, Any]:
    """Energies less the shift, forces and stresses of a batch; NumPy."""
    energy, forces, virial = jax.device_get(
        self.respond(self.variables, forcefield.in_single_precision(systems)))
    return energy.astype(np.float64), forces, stress_of(virial, systems.cell)


def scaled_energy(network: forcefield.Network, variables: Variables, system: System) -> Array:
  """The energy of one configuration in eV, less the shift; of a network its scaled energy."""
  return variables[LABELS]["scale"] * network.apply(variables, system)


def stress_of(
    virial: Float[np.ndarray, "frames seeds 3 3"] | None,
    cell: Float[Array | np.ndarray, "frames 3 3"] | None,
) -> Float[np.ndarray, "frames seeds 3 3"] | None:
  """Stresses in eV/angstrom^3; None where a direction is not periodic."""
  if virial is None or cell is None or not np.asarray(cell).any(axis=-1).all():
    return None
  return np.asarray(derivatives.stress(
      virial, np.broadcast_to(np.asarray(cell)[:, None], virial.shape)))


def lengthened(near: Neighbours, pairs: int) -> Neighbours:
  """Neighbour lists filled up to a length, so that a program that has been compiled serves them.

  Args:
    near: The list of one configuration, or of many.
    pairs: The length, where they are shorter.
  """
  missing = max(0, pairs - near.first.shape[-1])

  def fill(array: Array | np.ndarray, axis: int) -> np.ndarray:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return np.pad(array, widths)

  return near._replace(first=fill(near.first, -1), second=fill(near.second, -1),
                       shifts=fill(near.shifts, -2))


def _parts(systems: System) -> Iterator[System]:
  """Batches of a size that depends on the atoms alone, so that one program serves all of them.

  The last is filled up with its last configuration.
  """
  frames, atoms = systems.species.shape
  size = max(1, min(forcefield.EVALUATION_BATCH, forcefield.EVALUATION_ATOMS // atoms))
  for start in range(0, frames, size):
    chosen = np.minimum(np.arange(start, start + size), frames - 1)
    yield jax.tree.map(lambda leaf, chosen=chosen: np.asarray(leaf)[chosen], systems)
