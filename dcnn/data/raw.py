"""What the readers of files return, before units and checks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MOST_ATOMS = 10_000


class Frame(NamedTuple):
  """One configuration as a file has it.

  Attributes:
    positions: `(atoms, 3)`.
    species: `(atoms,)`.
    energy: a number.
    forces: `(atoms, 3)`.
    cell: `(3, 3)`, lattice vectors in rows, zeros for directions that are not periodic; None for
      a molecule in free space.
  """

  positions: np.ndarray
  species: np.ndarray
  energy: float
  forces: np.ndarray
  cell: np.ndarray | None


class Raw(NamedTuple):
  """All configurations of a file, rectangular, in the units of the file.

  Attributes:
    positions: `(frames, atoms, 3)`, zero on padded atoms.
    species: `(frames, atoms)`, 0 on padded atoms.
    energy: `(frames,)`.
    forces: `(frames, atoms, 3)`, zero on padded atoms.
    units: name in `units.UNITS` of the units these numbers are in.
    source: kind of file and, where it says so, how it was made.
    cell: `(frames, 3, 3)`, zeros for molecules; None if all are molecules.
  """

  positions: np.ndarray
  species: np.ndarray
  energy: np.ndarray
  forces: np.ndarray
  units: str
  source: str
  cell: np.ndarray | None = None


def check_atoms(atoms: int) -> None:
  """ValueError on frames that would fill the memory: all are padded to the largest."""
  if atoms > MOST_ATOMS:
    raise ValueError(
        f"frames of {atoms} atoms: at most {MOST_ATOMS} are read, because all frames are padded to "
        "the largest; cut out smaller pieces")


def stack(frames: Sequence[Frame], *, units: str, source: str) -> Raw:
  """Pads all frames to the largest number of atoms."""
  if not frames:
    raise ValueError("no frames in this file")
  atoms = max(len(frame.species) for frame in frames)
  check_atoms(atoms)
  positions = np.zeros((len(frames), atoms, 3))
  species = np.zeros((len(frames), atoms), np.int32)
  forces = np.zeros((len(frames), atoms, 3))
  for i, frame in enumerate(frames):
    real = slice(len(frame.species))
    positions[i, real], species[i, real], forces[i, real] = (
        frame.positions, frame.species, frame.forces)
  energy = np.array([frame.energy for frame in frames], np.float64)
  cell = None
  if any(frame.cell is not None for frame in frames):
    cell = np.stack([np.zeros((3, 3)) if frame.cell is None else frame.cell for frame in frames])
  return Raw(positions, species, energy, forces, units, source, cell)


def frame(
    index: int, *, positions: np.ndarray, species: np.ndarray, energy: Any, forces: np.ndarray,
    cell: np.ndarray | None,
) -> Frame:
  """Checks the shapes of frame number `index` and that all its atoms are elements."""
  for name, array in (("positions", positions), ("forces", forces)):
    if array.shape != (len(species), 3):
      raise ValueError(
          f"frame {index}: {name} have shape {array.shape}, expected ({len(species)}, 3) for "
          f"{len(species)} atoms")
  unknown = np.flatnonzero((species < 1) | (species > 118))
  if unknown.size:
    raise ValueError(
        f"frame {index}: atom {unknown[0]} has species {species[unknown[0]]}, expected an atomic "
        "number from 1 to 118")
  return Frame(positions, species, _number(energy, index), forces, cell)


def find(key: str, places: Iterable[Mapping[str, Any]], index: int) -> Any:
  """The value of `key` in the first place that has it; the error lists the keys there are."""
  places = list(places)
  for place in places:
    if key in place:
      return place[key]
  known = sorted({str(name) for place in places for name in place} - {"numbers", "positions"})
  raise ValueError(
      f"frame {index} has no {key!r}; it has: {brief(', '.join(known) or 'nothing else')}. Choose "
      "with energy_key= and forces_key=, or remove the frame")


def brief(said: object) -> str:
  """What a file holds or a library says of it, in one line of at most 200 characters."""
  return " ".join(str(said).split())[:200] or type(said).__name__


def periodic_cell(index: int, *, vectors: Any, periodic: Any) -> np.ndarray | None:
  """The cell of frame number `index`.

  Args:
    index: for messages.
    vectors: lattice vectors in rows; None where the file has none.
    periodic: for each of the three directions, or for all.

  Returns:
    `(3, 3)` with zeros for directions that are not periodic; None if none is.
  """
  flags = np.asarray(periodic)
  if flags.dtype.kind not in "biu" or flags.shape not in ((), (3,)):
    raise ValueError(
        f"frame {index}: pbc must be T or F, or three of them, got {brief(periodic)[:60]!r}")
  flags = np.broadcast_to(flags != 0, (3,))
  if not flags.any():
    return None
  advice = 'or write pbc="F F F" if it is a molecule in free space'
  if vectors is None:
    raise ValueError(f"frame {index} is periodic (pbc {periodic}) and has no cell: give it its "
                     f"lattice vectors, {advice}")
  cell = np.asarray(vectors)
  if cell.shape != (3, 3) or cell.dtype.kind not in "iuf":
    raise ValueError(f"frame {index}: its cell must be three vectors of three numbers, got "
                     f"{brief(vectors)[:60]!r}")
  empty = np.flatnonzero(flags & ~cell.any(axis=1))
  if empty.size:
    raise ValueError(f"frame {index} is periodic (pbc {periodic}) and its lattice vector "
                     f"{empty[0]} is zero: give it a length, {advice}")
  return np.where(flags[:, None], cell.astype(np.float64), 0.0)


def _number(value: Any, index: int) -> float:
  array = np.asarray(value)
  if array.size != 1 or array.dtype.kind not in "iuf":
    raise ValueError(f"frame {index}: energy must be one number, got {str(value)[:60]!r}")
  return float(array.reshape(()))
