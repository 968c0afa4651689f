"""Neighbour lists: the pairs of atoms within a radius, images included, in arrays of fixed length.

Made on the host in float64 by vesin, at a cost linear in the number of atoms.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from dcnn.base import Neighbours, System

FLATTEST = 0.1  # angstrom; planes of a lattice lie no closer in any calculation of use
# vesin dies of a division by zero where a grid of cells as wide as the radius gets far longer.
LONGEST = 10_000  # radii
MOST_PAIRS = 50_000_000  # in a configuration; more show a mistake of units, and fill the memory


class Pairs(NamedTuple):
  """Pairs of atoms of one configuration, each once.

  Attributes:
    first: Number of the first atom of each pair.
    second: Number of the second atom.
    shifts: Whole lattice vectors that the second atom is moved by.
    distance: Distance between the two in angstrom.
  """

  first: Int[np.ndarray, " pairs"]
  second: Int[np.ndarray, " pairs"]
  shifts: Int[np.ndarray, "pairs 3"]
  distance: Float[np.ndarray, " pairs"]


def neighbour_list(
    systems: System, cutoff: float, *, skin: float = 0.0, capacity: int | None = None
) -> Neighbours:
  """The pairs of atoms within cutoff + skin, in arrays as long as the longest list.

  In a simulation a skin lets one list serve many steps: it is complete while the atoms have moved
  by less than skin / 2, which the network checks (`models.layers.is_complete`). A list that is
  built again with the same capacity needs no new compilation.

  Args:
    systems: One configuration, or many with a leading axis (frames); NumPy or JAX.
    cutoff: Cutoff of the network in angstrom.
    skin: Distance in angstrom that the list reaches beyond the cutoff.
    capacity: Length of the arrays; by default that of the longest list, rounded up.

  Returns:
    The list, in int32 and float64, for `systems._replace(neighbours=...)`.

  Raises:
    ValueError: Naming the frame, on more pairs than the capacity, and on positions or cells that
      are not finite, too flat or too large.

  >>> chain = System(np.array([[0.0, 0, 0], [1.0, 0, 0], [3.0, 0, 0]]), np.array([1, 1, 1]))
  >>> pairs = neighbour_list(chain, cutoff=2.5, capacity=3)
  >>> pairs.first.tolist(), pairs.second.tolist()  # an atom with itself fills up
  ([0, 1, 0], [1, 2, 0])
  """
  if not (cutoff > 0 and skin >= 0 and np.isfinite(cutoff + skin)):
    raise ValueError(f"cutoff must be positive and skin not negative, got {cutoff} and {skin}")
  radius = float(cutoff) + float(skin)
  single = np.ndim(systems.positions) == 2
  positions, species, cell, _ = jax.tree.map(
      lambda leaf: np.asarray(leaf)[None] if single else np.asarray(leaf),
      systems._replace(neighbours=None))
  positions = positions.astype(np.float64)
  cell = None if cell is None else cell.astype(np.float64)
  found = [
      frame_pairs(i, positions[i], species[i], None if cell is None else cell[i], radius)
      for i in range(len(positions))]
  result = Neighbours(
      *_pad(found, radius, capacity), positions=positions,
      cell=None if cell is None else np.array(list(map(complete_cell, cell))),
      radius=np.full(len(positions), radius))
  return jax.tree.map(lambda leaf: leaf[0], result) if single else result


def pairs_within(
    positions: Float[np.ndarray, "atoms 3"], cell: Float[np.ndarray, "3 3"] | None, radius: float
) -> Pairs:
  """Pairs of atoms closer than a radius, in the order of their numbers.

  Args:
    positions: Positions of real atoms (atoms 3) in angstrom; they need not lie in the cell.
    cell: Lattice vectors in rows (3 3) in angstrom; a row of zeros is a direction that is not
      periodic. None for a molecule in free space.
    radius: Largest distance in angstrom.

  Returns:
    The pairs, each once.

  Raises:
    ValueError: On numbers that are not finite, too flat a cell, or too large an extent.
  """
  import vesin  # imports torch where there is one, which takes seconds

  cell = np.zeros((3, 3)) if cell is None else cell
  _check(positions, cell, radius)
  first, second, shifts, distance = vesin.NeighborList(
      cutoff=radius, full_list=False, n_threads=1).compute(
          points=positions, box=complete_cell(cell), periodic=cell.any(axis=1), quantities="ijSd")
  order = np.lexsort((*shifts.T, second, first))
  return Pairs(
      first[order].astype(np.int32), second[order].astype(np.int32), shifts[order],
      distance[order])


def complete_cell(cell: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
  """The cell with orthogonal unit vectors in place of rows of zeros, which are not periodic."""
  missing = ~cell.any(axis=1)
  if not missing.any():
    return cell
  _, _, directions = np.linalg.svd(cell)
  full = cell.copy()
  full[missing] = directions[3 - missing.sum():]
  return full


def heights(cell: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 3"]:
  """Distances between the faces of a complete cell; 0 if its vectors lie in a plane."""
  areas = np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
  volume = abs(np.linalg.det(cell))
  return np.divide(volume, areas, out=np.zeros(3), where=areas > 0)


def frame_pairs(
    index: int, positions: Float[np.ndarray, "atoms 3"], species: Int[np.ndarray, " atoms"],
    cell: Float[np.ndarray, "3 3"] | None, radius: float,
) -> Pairs:
  """Pairs of real atoms of a frame that may be padded; see `pairs_within`.

  Args:
    index: Number of the frame, for messages.
    positions: Positions (atoms 3) in angstrom.
    species: Atomic numbers (atoms); 0 is padding.
    cell: Lattice vectors in rows (3 3) in angstrom; None for a molecule in free space.
    radius: Largest distance in angstrom.

  Raises:
    ValueError: As `pairs_within` does; the message names the frame.
  """
  real = np.flatnonzero(species > 0)
  try:
    pairs = pairs_within(positions[real], cell, radius)
  except ValueError as error:
    raise ValueError(f"frame {index}: {error}") from error
  return pairs._replace(
      first=real[pairs.first].astype(np.int32), second=real[pairs.second].astype(np.int32))


def _check(
    positions: Float[np.ndarray, "atoms 3"], cell: Float[np.ndarray, "3 3"], radius: float) -> None:
  if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
    raise ValueError("positions and cell must be finite")
  longest = max(np.abs(cell).max(), np.abs(positions).max(initial=0.0))
  if longest > LONGEST * radius:
    raise ValueError(
        f"coordinates reach {longest:.3g} A, more than {LONGEST} times the radius of {radius:g} A; "
        "wrap positions into the cell, take a smaller cell, and remove atoms that are far away")
  full = complete_cell(cell)
  flattest = heights(full).min()
  if flattest < FLATTEST:
    raise ValueError(
        f"the faces of the cell {cell.tolist()} lie {flattest:.3g} A apart, expected at least "
        f"{FLATTEST} A: take shorter lattice vectors of the same lattice, or another unit")
  if not len(positions):
    return
  # The number of pairs in a fluid of this density.
  spans = np.where(cell.any(axis=1), 1.0, np.ptp(positions @ full.T, axis=0) + radius)
  volume = abs(np.linalg.det(full)) * spans.prod()
  expected = 2 / 3 * np.pi * radius**3 * len(positions)**2 / volume
  if expected > MOST_PAIRS:
    raise ValueError(
        f"about {expected:.2g} pairs of {len(positions)} atoms in {volume:.3g} A^3 are closer than "
        f"{radius:g} A, expected at most {MOST_PAIRS:.0g}: a smaller cutoff, or another unit")


def _round_up(count: int) -> int:
  """Rounds a length up a little, so that lists of similar lengths share a compiled program."""
  step = max(8, 2 ** (count.bit_length() - 5))
  return max(1, -(-count // step)) * step


def _pad(
    found: list[Pairs], radius: float, capacity: int | None
) -> tuple[Int[np.ndarray, "frames pairs"], Int[np.ndarray, "frames pairs"],
           Int[np.ndarray, "frames pairs 3"]]:
  """The pairs of all frames as arrays of one length, which is the capacity where there is one."""
  counts = [len(pairs.first) for pairs in found] or [0]
  frame = int(np.argmax(counts))
  if capacity is None:
    capacity = _round_up(counts[frame])
  elif counts[frame] > capacity:
    raise ValueError(
        f"frame {frame} has {counts[frame]} pairs of atoms within {radius:g} A, more than the "
        f"capacity of {capacity}: pass capacity={_round_up(counts[frame])}, or none")
  first, second = np.zeros((2, len(found), capacity), np.int32)
  shifts = np.zeros((len(found), capacity, 3), np.int32)
  for i, pairs in enumerate(found):
    real = slice(len(pairs.first))
    first[i, real], second[i, real], shifts[i, real] = pairs[:3]
  return first, second, shifts
