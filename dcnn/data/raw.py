"""What the readers of files return, before units and checks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MOST_ATOMS = 2000


class Frame(NamedTuple):
  """One configuration as a file has it: `(atoms, 3)`, `(atoms,)`, a number, `(atoms, 3)`."""

  positions: np.ndarray
  species: np.ndarray
  energy: float
  forces: np.ndarray


class Raw(NamedTuple):
  """All configurations of a file, rectangular, in the units of the file.

  Attributes:
    positions: `(frames, atoms, 3)`, zero on padded atoms.
    species: `(frames, atoms)`, 0 on padded atoms.
    energy: `(frames,)`.
    forces: `(frames, atoms, 3)`, zero on padded atoms.
    units: name in `units.UNITS` of the units these numbers are in.
    source: kind of file and, where it says so, how it was made.
  """

  positions: np.ndarray
  species: np.ndarray
  energy: np.ndarray
  forces: np.ndarray
  units: str
  source: str


def check_atoms(atoms: int) -> None:
  """ValueError on molecules whose pairs of atoms would fill the memory, here and in a network."""
  if atoms > MOST_ATOMS:
    raise ValueError(
        f"frames of {atoms} atoms: at most {MOST_ATOMS} are read, because all pairs of atoms are "
        "looked at; cut out smaller pieces")


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
  return Raw(positions, species, energy, forces, units, source)


def frame(
    index: int, *, positions: np.ndarray, species: np.ndarray, energy: Any, forces: np.ndarray,
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
  return Frame(positions, species, _number(energy, index), forces)


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


def refuse_periodic(periodic: Any, index: int) -> None:
  """Cells are ignored, so a frame that needs its cell must not pass."""
  if np.any(periodic):
    raise ValueError(
        f"frame {index} is periodic (pbc {periodic}); only molecules in free space are read. "
        'Write pbc="F F F" if the cell is only a box around a molecule')


def _number(value: Any, index: int) -> float:
  array = np.asarray(value)
  if array.size != 1 or array.dtype.kind not in "iuf":
    raise ValueError(f"frame {index}: energy must be one number, got {str(value)[:60]!r}")
  return float(array.reshape(()))
