"""Records and units that every other module shares.

Inside the package energies are in eV, lengths in angstrom, forces in eV/angstrom.
"""

import dataclasses
import html
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

KCAL_PER_MOL = 4184.0 / (6.02214076e23 * 1.602176634e-19)  # eV; exact since the SI of 2019
HARTREE = 27.211386245988  # eV, CODATA 2018
BOHR = 0.529177210903  # angstrom, CODATA 2018


def rounding(energy: Float[np.ndarray, " frames"]) -> float:
  """The largest difference, in eV, that equal float64 energies may have by rounding."""
  return float(64 * np.finfo(np.float64).eps * np.max(np.abs(energy)))


class Neighbours(NamedTuple):
  """Pairs of atoms within a radius, each once, in arrays of a fixed length.

  A pair is an atom and an image of an atom: between them lies the vector
  positions[second] + shifts @ cell - positions[first]. What fills the arrays up is marked as a
  pair of an atom with itself, which is no pair unless a shift makes the second an image.

  Attributes:
    first: The number of the first atom of each pair.
    second: The number of the second atom of each pair.
    shifts: The whole lattice vectors by which the second atom is moved.
    positions: The positions for which the list was made, angstrom.
    cell: The cell for which it was made, angstrom, with unit vectors in place of directions that
      are not periodic; None for molecules.
    radius: The distance up to which the list is complete for those positions, angstrom. It stays
      complete up to a smaller cutoff while the atoms move by less than half the difference.
  """

  first: Int[Array | np.ndarray, "*frames pairs"]
  second: Int[Array | np.ndarray, "*frames pairs"]
  shifts: Int[Array | np.ndarray, "*frames pairs 3"]
  positions: Float[Array | np.ndarray, "*frames atoms 3"]
  cell: Float[Array | np.ndarray, "*frames 3 3"] | None
  radius: Float[Array | np.ndarray, "*frames"]


class System(NamedTuple):
  """One configuration of atoms, or many of them with a leading `frames` axis.

  A pytree, from which fields that are None are absent. Map over it with `jax.tree.map`.

  Attributes:
    positions: Positions, angstrom.
    species: Atomic numbers; 0 marks a padded atom, which interacts with nothing.
    cell: Lattice vectors in rows, angstrom; a row of zeros is a direction that is not periodic.
      None: molecules in free space.
    neighbours: The pairs that interact, see `data.neighbour_list`. None: all pairs of atoms.
  """

  positions: Float[Array | np.ndarray, "*frames atoms 3"]
  species: Int[Array | np.ndarray, "*frames atoms"]
  cell: Float[Array | np.ndarray, "*frames 3 3"] | None = None
  neighbours: Neighbours | None = None


class Labels(NamedTuple):
  """Reference energy and forces of a configuration, or of many.

  Attributes:
    energy: Energies, eV per configuration.
    forces: Forces, eV/angstrom, F = -dE/dx; zero on padded atoms, nan in frames without forces.
  """

  energy: Float[Array | np.ndarray, "*frames"]
  forces: Float[Array | np.ndarray, "*frames atoms 3"]


def known_forces(
    forces: Float[Array | np.ndarray, "*frames atoms 3"],
    species: Int[Array | np.ndarray, "*frames atoms"],
) -> Bool[Array | np.ndarray, "*frames atoms 3"]:
  """Which force components are labels: those of real atoms in frames that have forces.

  Args:
    forces: Forces in eV/angstrom, nan where they are not known; NumPy or JAX.
    species: Atomic numbers, 0 on padded atoms.

  Returns:
    A mask; a frame without forces has no true entry.
  """
  return (species > 0)[..., None] & (forces == forces)  # only nan differs from itself


_OF = " taken of "


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Labelled configurations, padded to one number of atoms; float64 NumPy.

  Attributes:
    name: The name for tables and messages.
    systems: All configurations, with a leading axis `frames`.
    labels: Their energies and forces.
    source: Where they came from and how they were made, in a sentence.
    checksum: The SHA-256 of the file that they were read from, hexadecimal.
    summary: What was read and what was left out, in a line.
    references: Energies of free atoms in eV by atomic number, where the file has them.
  """

  name: str
  systems: System
  labels: Labels
  source: str
  checksum: str
  summary: str = ""
  references: Mapping[int, float] = dataclasses.field(default_factory=dict)

  def __repr__(self) -> str:
    """What was read, in a line, instead of the arrays."""
    return f"<Dataset {self.name!r}: {self.summary or f'{len(self):,} frames'}>"

  def _repr_html_(self) -> str:
    """The same for a notebook, with one line for each part."""
    head, *parts = (self.summary or f"{self.name}; {len(self):,} frames").split("; ")
    lines = "".join(f"<li>{html.escape(part)}</li>" for part in parts)
    return f"<b>{html.escape(head)}</b><ul>{lines}</ul>"

  def __len__(self) -> int:
    """Number of frames."""
    return len(self.labels.energy)

  def take(self, frames: Int[np.ndarray, " kept"]) -> "Dataset":
    """The listed frames, in the order listed."""
    return dataclasses.replace(
        self,
        summary=f"{len(frames):,} frames{_OF}{self.summary.rpartition(_OF)[2] or self.name}",
        systems=jax.tree.map(lambda array: array[frames], self.systems),
        labels=jax.tree.map(lambda array: array[frames], self.labels))
