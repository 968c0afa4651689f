"""The records that the readers of files return, before units and checks."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dcnn.base.text import suggestion
from dcnn.base.wording import option

MOST_ATOMS = 10_000
MOST_PADDED, MOST_PADDING = 5_000_000, 10  # atoms with padding, and their ratio to the real atoms
MOST_NAMED = 5  # frames that a message lists
# Name of a second energy; forces may be the gradient of this one.
FREE_ENERGY = "free_energy"

# Names, in lower case, under which files declare a unit; the last ones declare all units at once.
ENERGY_UNIT_KEYS = ("e_unit", "e_units", "energy_unit", "energy_units", "energies_unit",
                    "unit_energy")
LENGTH_UNIT_KEYS = ("r_unit", "r_units", "length_unit", "length_units", "position_unit",
                    "positions_unit", "unit_length")
FORCE_UNIT_KEYS = ("f_unit", "f_units", "force_unit", "forces_unit", "force_units", "unit_forces")
ALL_UNIT_KEYS = ("units", "unit")
UNIT_KEYS = ENERGY_UNIT_KEYS + LENGTH_UNIT_KEYS + FORCE_UNIT_KEYS + ALL_UNIT_KEYS


class Keys(NamedTuple):
  """Names in a file that the user has chosen; None for the usual ones.

  Attributes:
    energy: Name of the energies.
    forces: Name of the forces.
    positions: Name of the positions.
    species: Name of the species.
  """

  energy: str | None = None
  forces: str | None = None
  positions: str | None = None
  species: str | None = None


class Frame(NamedTuple):
  """One configuration as a file has it, in the units of the file.

  Attributes:
    positions: Positions (atoms 3).
    species: Atomic numbers (atoms).
    energy: The energy; None where the file has none.
    forces: Forces (atoms 3); None where the file has none.
    cell: Lattice vectors in rows (3 3), zeros for directions that are not periodic; None for a
      molecule in free space.
    free_energy: A second energy under that name; None where there is none.
    names: All names under which the file has something for this frame.
  """

  positions: Float[np.ndarray, "atoms 3"]
  species: Int[np.ndarray, " atoms"]
  energy: float | None
  forces: Float[np.ndarray, "atoms 3"] | None
  cell: Float[np.ndarray, "3 3"] | None
  free_energy: float | None = None
  names: frozenset[str] = frozenset()


class Raw(NamedTuple):
  """All configurations of a file, padded to one number of atoms, in the units of the file.

  Attributes:
    positions: Positions (frames atoms 3), zero on padded atoms.
    species: Atomic numbers (frames atoms), 0 on padded atoms.
    energy: Energies (frames), nan in frames without one.
    forces: Forces (frames atoms 3), zero on padded atoms, nan in frames without forces.
    source: Kind of the file and, where it says so, how it was made.
    keys: Names under which the file has energy, forces, positions and species.
    left_out: Names of everything else in the file.
    cell: Lattice vectors (frames 3 3), zeros for molecules; None if all frames are molecules.
    free_energy: Second energies (frames) where the file has them beside its energies, nan in frames
      without one; else None.
    unlabelled: The names that the first frame without an energy has; None if all have an energy.
    units: The units that the file declares, by the name under which it does.
  """

  positions: Float[np.ndarray, "frames atoms 3"]
  species: Int[np.ndarray, "frames atoms"]
  energy: Float[np.ndarray, " frames"]
  forces: Float[np.ndarray, "frames atoms 3"]
  source: str
  keys: Keys
  left_out: tuple[str, ...] = ()
  cell: Float[np.ndarray, "frames 3 3"] | None = None
  free_energy: Float[np.ndarray, " frames"] | None = None
  unlabelled: frozenset[str] | None = None
  units: Mapping[str, object] = MappingProxyType({})


def take(raw: Raw, frames: Int[np.ndarray, " taken"] | Bool[np.ndarray, " frames"]) -> Raw:
  """The frames of these numbers, or those where this mask is true."""
  arrays = {name: array[frames] for name, array in raw._asdict().items()
            if isinstance(array, np.ndarray)}
  return raw._replace(**arrays)


def frames_text(frames: Iterable[Any]) -> str:
  """`3 frames (4, 7, 9)`, with the first few numbers of many."""
  numbers = [int(frame) for frame in frames]
  listed = ", ".join(map(str, numbers[:MOST_NAMED])) + (", ..." if numbers[MOST_NAMED:] else "")
  return f"frame {listed}" if len(numbers) == 1 else f"{len(numbers):,} frames ({listed})"


def check_atoms(atoms: int) -> None:
  """Refuses frames that would fill the memory: all frames are padded to the largest.

  Raises:
    ValueError: On too many atoms.
  """
  if atoms > MOST_ATOMS:
    raise ValueError(
        f"frames of {atoms} atoms: at most {MOST_ATOMS} are read, because all frames are padded to "
        "the largest; cut out smaller pieces")


def stack(
    frames: Sequence[Frame], *, source: str, keys: Keys,
    first: Mapping[str, object] = MappingProxyType({}),
) -> Raw:
  """Pads all frames to the largest number of atoms.

  Args:
    frames: The frames of a file, in its order.
    source: Kind of the file.
    keys: The four names under which energy, forces, positions and species were read.
    first: What the first frame says beside its atoms; it may declare units there.

  Raises:
    ValueError: If there are no frames, or if they are too large.
  """
  if not frames:
    raise ValueError("no frames in this file")
  sizes = [len(frame.species) for frame in frames]
  atoms = max(sizes)
  check_atoms(atoms)
  if len(frames) * atoms > max(MOST_PADDED, MOST_PADDING * sum(sizes)):
    raise ValueError(
        f"frame {np.argmax(sizes)} has {atoms:,} atoms, the median frame {np.median(sizes):,.0f}: "
        f"padded to the largest, {len(frames):,} frames would take {len(frames) * atoms:,} atoms "
        f"instead of {sum(sizes):,}. Put frames of so different sizes into files of their own")
  positions = np.zeros((len(frames), atoms, 3))
  species = np.zeros((len(frames), atoms), np.int32)
  forces = np.zeros((len(frames), atoms, 3))
  for i, frame in enumerate(frames):
    real = slice(len(frame.species))
    positions[i, real], species[i, real] = frame.positions, frame.species
    forces[i, real] = np.nan if frame.forces is None else frame.forces
  cell = None
  if any(frame.cell is not None for frame in frames):
    cell = np.stack([np.zeros((3, 3)) if frame.cell is None else frame.cell for frame in frames])
  free = [frame.free_energy for frame in frames]
  names = frozenset().union(*{frame.names for frame in frames})
  return Raw(
      positions, species,
      np.array([np.nan if frame.energy is None else frame.energy for frame in frames], np.float64),
      forces, source, keys, tuple(sorted(names - set(keys))), cell,
      np.array(free, np.float64) if any(value is not None for value in free) else None,
      next((frame.names for frame in frames if frame.energy is None), None),
      {name: value for name, value in first.items() if name.lower() in UNIT_KEYS})


def frame(
    index: int, *, positions: Float[np.ndarray, "*positions"], species: Int[np.ndarray, " atoms"],
    energy: Any, forces: Float[np.ndarray, "*forces"] | None, cell: Float[np.ndarray, "3 3"] | None,
    free_energy: Any = None, names: frozenset[str] = frozenset(),
) -> Frame:
  """The frame with number `index`, if its shapes agree and all its atoms are elements.

  Raises:
    ValueError: Naming the frame, on shapes that disagree, or on other atomic numbers.
  """
  for name, array in (("positions", positions), ("forces", forces)):
    if array is not None and array.shape != (len(species), 3):
      raise ValueError(
          f"frame {index}: {name} have shape {array.shape}, expected ({len(species)}, 3) for "
          f"{len(species)} atoms")
  unknown = np.flatnonzero((species < 1) | (species > 118))
  if unknown.size:
    raise ValueError(
        f"frame {index}: atom {unknown[0]} has species {species[unknown[0]]}, expected an atomic "
        "number from 1 to 118")
  energies = [None if value is None else _number(value, index) for value in (energy, free_energy)]
  return Frame(positions, species, energies[0], forces, cell, energies[1], names)


def first_value(key: str, places: Iterable[Mapping[str, Any]]) -> Any:
  """The value of `key` in the first place that has it; None if none does."""
  return next((place[key] for place in places if key in place), None)


def require_key(
    value: Any, key: str, role: str, known: Iterable[str], where: str, *, kind: str = ""
) -> Any:
  """The value, if there is one.

  Args:
    value: The value of `key`, or None where the file has none.
    key: The name that was looked for.
    role: The meaning of the name: `positions`, `species`, `energy` or `forces`.
    known: The names that the file has.
    where: The place that lacks the name: `frame 3`, or `the archive`.
    kind: What the names are of: `array` or `column`.

  Raises:
    ValueError: Without a value, with the names that the file has and the one that is likely meant.
  """
  if value is not None:
    return value
  names = sorted({str(name) for name in known} - {key})
  likely = likely_key(key, role, names)
  have = "have" if " frames (" in where else "has"
  have_it = "they have" if have == "have" else "it has"
  hint = f"; did you mean {likely!r}? Then set {option(role + '_key', likely)}" if likely else (
      f". Choose with {option(role + '_key')}")
  raise ValueError(f"{where} {have} no {kind + ' ' if kind else ''}{key!r}; {have_it}: "
                   f"{short_text(', '.join(names) or 'nothing else')}{hint}")


def likely_key(key: str, role: str, names: Iterable[str]) -> str:
  """The name in a file that is likely meant by `key`, the usual name of `role`; or nothing.

  The function tries, in this order, the same name in other letters, a name that has it as a word
  (`REF_energy`, `dft_forces`, `energies`), one of the field's names for the same, and the most
  similar name.
  """
  names = sorted(names, key=lambda name: not name.lower().startswith(REFERENCES))
  plain = {name: "_".join(name.lower().split("-")) for name in names}
  stems = {role, key.lower(), *_SYNONYMS.get(role, ())}
  stems |= {stem.rstrip("s") for stem in stems if len(stem) > 2}
  tests = (
      lambda name: name in stems,
      lambda name: bool(stems & {part.rstrip("s") for part in name.split("_")}
                        | stems & set(name.split("_"))),
      lambda name: any(stem in name for stem in stems if len(stem) > 3),
  )
  for test in tests:
    fitting = [name for name in names if test(plain[name]) and not _is_another(plain[name], role)]
    if fitting:
      return fitting[0]
  others = [name for name in plain.values() if not _is_another(name, role)]
  question = suggestion(key.lower(), others)
  return next((name for name in names if repr(plain[name]) in question), "")


REFERENCES = ("ref", "dft", "qm")  # names that begin so are preferred to those of predictions
_SYNONYMS = {
    "energy": ("e", "energies", "energy", "total_energy", "etot", "epot", "toten",
               "potential_energy", "u0", "pes"),
    "forces": ("f", "force", "forces", "frc"),
    "positions": ("r", "pos", "coords", "coordinates", "xyz", "positions", "geometry"),
    "species": ("z", "numbers", "atomic_numbers", "nuclear_charges", "symbols", "elements",
                "species", "atom_types"),
}


def _is_another(name: str, role: str) -> bool:
  """Whether a name that contains that of a role means something else: `e_unit`, `force_error`."""
  return any(word in name for word in ("unit", "error", "std", "weight", "mask", "shift")) or (
      role == "energy" and "atom" in name)


def short_text(said: object) -> str:
  """Text of a file or of a library in one line of at most 200 characters."""
  return " ".join(str(said).split())[:200] or type(said).__name__


def periodic_cell(index: int, *, vectors: Any, periodic: Any) -> Float[np.ndarray, "3 3"] | None:
  """The cell of frame number `index`.

  Args:
    index: Number of the frame, for messages.
    vectors: Lattice vectors in rows; None where the file has none.
    periodic: Whether each of the three directions, or all of them, are periodic.

  Returns:
    Lattice vectors (3 3) with zeros for directions that are not periodic; None if none is.

  Raises:
    ValueError: Naming the frame, on anything but a cell.
  """
  flags = np.asarray(periodic)
  if flags.dtype.kind not in "biu" or flags.shape not in ((), (3,)):
    raise ValueError(
        f"frame {index}: pbc must be T or F, or three of them, got {short_text(periodic)[:60]!r}")
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
                     f"{short_text(vectors)[:60]!r}")
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
