"""A trained force field as a calculator of ASE, with the seeds as an ensemble."""

import warnings
from collections.abc import Sequence
from typing import Any

import ase
import jax
import numpy as np
from ase.calculators import calculator
from ase.stress import full_3x3_to_voigt_6_stress

from dcnn import data
from dcnn.base import System
from dcnn.tasks import forcefield
from dcnn.use.forcefields import ForceField, lengthened, stress_of

ROOM = 1.2  #: Times the pairs of a configuration, for those of the next


class Calculator(calculator.Calculator):
  """Energies, forces and stresses by the mean over all seeds of an arm.

  `results` holds, beside what ASE asks for, what each seed says and how far they agree, under the
  names that MACE uses: `energy_comm` (seeds) in eV, `energy_var` in eV^2, `forces_comm`
  (seeds atoms 3) in eV/angstrom and `forces_var` (atoms 3). Stresses are there of cells that are
  periodic in all directions; `stress_comm` (seeds 6) and `stress_var` (6) beside them.

  One neighbour list serves while atoms move by less than half of its skin. A program is compiled
  for the first configuration, and again where a larger one comes, with room for twice as many
  atoms, so that few programs serve configurations of many sizes.

  Warns, once for each subject, of configurations that are far from the training data.

  Raises:
    ValueError: in calculations, on an element that training has not seen, on a periodic
      configuration that the network cannot take, and on results that are not finite.

  Example:
    >>> atoms.calc = dcnn.load("results/mine")["standardize"].calculator()  # doctest: +SKIP
    >>> atoms.get_forces()  # doctest: +SKIP
  """

  implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (of ASE)

  def __init__(self, field: ForceField, *, skin: float = 0.5) -> None:
    """A calculator of a trained force field.

    Args:
      field: The force field, with its seeds.
      skin: Distance in angstrom that neighbour lists reach beyond the cutoff; 0 or more.
    """
    super().__init__()
    self.field = field
    self.skin = skin
    self._atoms = self._pairs = 0  # sizes of the compiled program
    self._listed: System | None = None  # the configuration whose list serves
    self._told: set[str] = set()

  def calculate(
      self, atoms: ase.Atoms | None = None, properties: Sequence[str] = ("energy",),
      system_changes: Sequence[str] = tuple(calculator.all_changes),
  ) -> None:
    """Computes all properties of a configuration; ASE calls it where something has changed."""
    super().calculate(atoms, properties, system_changes)
    assert self.atoms is not None
    is_periodic = bool(self.atoms.pbc.all())
    if "stress" in properties and not is_periodic:
      raise calculator.PropertyNotImplementedError(
          "a stress needs a cell that is periodic in all directions: set atoms.pbc and atoms.cell")
    system = _system_of(self.atoms)
    data.require_elements(self.field.domain, system.species, self.atoms.get_chemical_formula())
    count = len(system.species)
    response, system = self._respond(self._padded(system))
    self._warn(system)
    energy, forces, virial = response
    energy = energy.astype(np.float64) + self.field.shift(system.species)
    self.results = {**_ensemble("energy", energy), **_ensemble("forces", forces[:, :count])}
    self.results["energy"] = float(self.results["energy"])
    self.results["free_energy"] = self.results["energy"]
    if is_periodic:
      stress = stress_of(virial[None], np.asarray(self.atoms.cell)[None])
      assert stress is not None
      self.results |= _ensemble("stress", full_3x3_to_voigt_6_stress(stress[0]))

  def _padded(self, system: System) -> System:
    """With atoms of species 0 up to the size of the compiled program, which may have to grow."""
    self._atoms = _grown(self._atoms, len(system.species))
    missing = self._atoms - len(system.species)
    return system._replace(
        positions=np.pad(system.positions, ((0, missing), (0, 0))),
        species=np.pad(system.species, (0, missing)))

  def _respond(self, system: System) -> tuple[tuple[Any, Any, Any], System]:
    """Responses of all seeds, and the configuration with the list that gave them.

    Raises:
      ValueError: If they are not finite.
    """
    if self._may_serve(system):
      assert self._listed is not None
      kept = system._replace(neighbours=self._listed.neighbours)
      response = self._compute(kept)
      if np.isfinite(response[0]).all():  # otherwise the list is not complete any more
        return response, kept
    fresh = self._with_list(system)
    response = self._compute(fresh)
    if not all(np.isfinite(each).all() for each in response[:2]):
      raise ValueError("energies or forces are not finite: the configuration is too far from "
                       "anything that the network has seen")
    return response, fresh

  def _may_serve(self, system: System) -> bool:
    return self._listed is not None and np.array_equal(
        self._listed.species, system.species) and (
            (self._listed.cell is None) == (system.cell is None))

  def _with_list(self, system: System) -> System:
    """With a new neighbour list, if there is to be one, as long as the compiled program takes."""
    listed = self.field.with_neighbours(system, skin=self.skin)
    near = listed.neighbours
    if near is None:
      return listed
    count = int(np.sum((near.first != near.second) | near.shifts.any(axis=-1)))
    near = lengthened(near, _grown(self._pairs, count, ROOM))
    self._pairs = len(near.first)
    self._listed = listed._replace(neighbours=near)
    return self._listed

  def _compute(self, system: System) -> tuple[Any, Any, Any]:
    """The responses of all seeds to one configuration: the first of a batch of one."""
    # Far from the origin float32 has fewer digits left for distances.
    origin = system.positions[system.species > 0].mean(axis=0)
    near = system.neighbours
    centred = system._replace(
        positions=system.positions - origin,
        neighbours=near and near._replace(positions=near.positions - origin))
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], centred)
    response = jax.device_get(self.field.respond(
        self.field.variables, forcefield.in_single_precision(batch)))
    return tuple(None if each is None else each[0] for each in response)  # pyright: ignore

  def _warn(self, system: System) -> None:
    for subject, sentence in data.remarks(self.field.domain, system).items():
      if subject not in self._told:
        self._told.add(subject)
        warnings.warn(f"{sentence}: predictions there are guesses, of which the spread over the "
                      "seeds need not tell", stacklevel=5)


def _system_of(atoms: ase.Atoms) -> System:
  """A configuration of ASE, with zeros in place of lattice vectors that are not periodic."""
  cell = np.where(atoms.pbc[:, None], np.asarray(atoms.cell), 0.0) if atoms.pbc.any() else None
  return System(np.asarray(atoms.positions, np.float64), np.asarray(atoms.numbers), cell)


def _ensemble(name: str, values: Any) -> dict[str, Any]:
  """Mean, members and variance over the seeds of a property, whose first axis they are."""
  return {name: values.mean(axis=0), f"{name}_comm": values, f"{name}_var": values.var(axis=0)}


def _grown(held: int, needed: int, room: float = 1.0) -> int:
  """The size of a program: at least twice the former one, where that is too small."""
  return held if needed <= held else max(round(room * needed), 2 * held)
