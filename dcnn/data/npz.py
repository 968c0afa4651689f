"""Reads NumPy archives: MD17, rMD17, and those of `dcnn generate`. Never unpickles."""

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from dcnn.data.raw import Raw, brief, check_atoms


class Convention(NamedTuple):
  """The keys of one family of archives, and its units."""

  family: str
  positions: str
  species: str
  energy: str
  forces: str
  units: str


CONVENTIONS = (
    Convention("MD17", "R", "z", "E", "F", "kcal/mol/angstrom"),
    Convention("rMD17", "coords", "nuclear_charges", "energies", "forces", "kcal/mol/angstrom"),
    Convention("dcnn", "positions", "species", "energy", "forces", "eV/angstrom"),
)

# The MD17 family may say its units in `e_unit` and `r_unit`.
DECLARED = {
    ("kcal/mol", "ang"): "kcal/mol/angstrom",
    ("kj/mol", "ang"): "kJ/mol/angstrom",
    ("ev", "ang"): "eV/angstrom",
    ("hartree", "ang"): "hartree/angstrom",
    ("hartree", "bohr"): "hartree/bohr",
    ("eh", "bohr"): "hartree/bohr",
}

# Arrays that tell of periodic frames.
PERIODIC = {"cell", "lattice", "pbc"}
# Deflate shrinks nothing but zeros and repeats this far; a file made to fill the memory does.
LARGEST_RATIO = 200
LARGE = 10_000_000  # bytes
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(
    path: str | os.PathLike, *, units: str | None, energy_key: str | None, forces_key: str | None,
) -> Raw:
  """Reads an archive in any of `CONVENTIONS`.

  Args:
    path: the archive.
    units: overrides those of the convention.
    energy_key: overrides that of the convention.
    forces_key: likewise.

  Raises:
    ValueError: on anything but such an archive, or arrays whose shapes disagree.
  """
  with _opened(path) as archive:
    convention = _convention(archive.files, energy_key, forces_key)
    positions, species, energy, forces = (_numbers(archive, key) for key in convention[1:5])
    cell = _cell(archive, convention, len(positions) if positions.ndim else 0)
    units = units or _declared_units(archive, convention)
    source = _source(archive, convention)
  _check_shapes(convention, positions=positions, species=species, energy=energy, forces=forces)
  return _masked(Raw(
      positions.astype(np.float64), _elements(species, convention, positions.shape[:2]),
      energy.astype(np.float64).reshape(-1), forces.astype(np.float64), units, source, cell))


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[np.lib.npyio.NpzFile]:
  if not zipfile.is_zipfile(path):
    with open(path, "rb") as file:
      start = file.read(8)
    raise ValueError(f"not an .npz archive, or one cut short (it begins with {start!r}): copy it "
                     "again, or save it with numpy.savez")
  try:
    archive = np.load(path, allow_pickle=False)
  except Exception as error:  # a damaged archive fails in many ways, all of them bad input
    raise ValueError(f"damaged .npz archive, copy it again: {brief(error)}") from error
  with archive:
    yield archive


def _convention(
    keys: Sequence[str], energy_key: str | None, forces_key: str | None) -> Convention:
  for convention in CONVENTIONS:
    if {convention.positions, convention.species} <= set(keys):
      break
  else:
    wanted = "; ".join(f"{', '.join(c[1:5])} ({c.family})" for c in CONVENTIONS)
    held = brief(", ".join(keys) or "none")
    raise ValueError(f"the archive has the arrays {held}; expected {wanted}")
  convention = convention._replace(
      energy=energy_key or convention.energy, forces=forces_key or convention.forces)
  for key, option in ((convention.energy, "energy_key"), (convention.forces, "forces_key")):
    if key not in keys:
      raise ValueError(
          f"no array {key!r} in the archive; it has {brief(', '.join(keys))}. Choose with "
          f"{option}=")
  return convention


def _cell(
    archive: np.lib.npyio.NpzFile, convention: Convention, frames: int) -> np.ndarray | None:
  """Lattice vectors of each frame; other conventions have no word for them."""
  held = sorted(PERIODIC & set(archive.files))
  if not held:
    return None
  if convention.family != "dcnn" or held != ["cell"]:
    raise ValueError(
        f"the archive has {', '.join(held)}: a periodic set needs the names of dcnn (positions, "
        "species, energy, forces) and `cell`, lattice vectors in rows, with zeros for directions "
        "that are not periodic; remove the array if these are molecules in free space")
  cell = _numbers(archive, "cell").astype(np.float64)
  if cell.shape not in ((3, 3), (frames, 3, 3)):
    raise ValueError(f"cell must have shape (3, 3) or ({frames}, 3, 3), got {cell.shape}")
  return np.broadcast_to(cell, (frames, 3, 3)).copy() if cell.any() else None


def _array(archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
  try:
    _check_member(archive, key)
    array = archive[key]
  except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds on damaged bytes
    if "allow_pickle" in str(error):
      raise ValueError(
          f"array {key!r} is a pickled Python object; unpickling can run code and is never done. "
          "Save it again as numbers") from error
    raise ValueError(f"array {key!r} cannot be read: {brief(error)}") from error
  if not isinstance(array, np.ndarray):
    raise ValueError(f"{key!r} in the archive is not a NumPy array")
  return array


def _check_member(archive: np.lib.npyio.NpzFile, key: str) -> None:
  """Refuses what NumPy would take memory for before it finds the bytes missing."""
  assert archive.zip is not None  # open
  member = archive.zip.getinfo(key if key in archive.zip.namelist() else f"{key}.npy")
  if member.file_size > max(LARGE, LARGEST_RATIO * member.compress_size):
    raise ValueError(
        f"{member.compress_size} bytes would become {member.file_size}; save it uncompressed if it "
        "is right")
  with archive.zip.open(member) as file:
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
      raise ValueError(f"version {version} of .npy is for structured arrays; save plain numbers")
    shape, _, dtype = HEADERS[version](file)
    announced, held = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
  if not dtype.hasobject and (min(shape, default=0) < 0 or announced != held):
    raise ValueError(f"shape {shape} of {dtype} is {announced} bytes, the archive holds {held}: "
                     "damaged; save it again")


def _numbers(archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
  array = _array(archive, key)
  if array.dtype.kind not in "iuf":
    raise ValueError(f"array {key!r} must hold real numbers, got dtype {array.dtype}")
  return array


def _declared_units(archive: np.lib.npyio.NpzFile, convention: Convention) -> str:
  if convention.family != "MD17" or "e_unit" not in archive.files:
    return convention.units
  energy = str(_array(archive, "e_unit")).lower()
  length = str(_array(archive, "r_unit")).lower() if "r_unit" in archive.files else "ang"
  length = {"angstrom": "ang", "a": "ang"}.get(length, length)
  if (energy, length) not in DECLARED:
    raise ValueError(
        f"e_unit {energy[:40]!r} with r_unit {length[:40]!r} is not known: pass units=")
  return DECLARED[energy, length]


def _source(archive: np.lib.npyio.NpzFile, convention: Convention) -> str:
  kind = f"{convention.family} archive"
  if "provenance" not in archive.files:
    return kind
  return f"{kind}; {_array(archive, 'provenance')}"


def _check_shapes(
    convention: Convention, *, positions: np.ndarray, species: np.ndarray, energy: np.ndarray,
    forces: np.ndarray,
) -> None:
  shapes = (f"{convention.positions} {positions.shape}, {convention.species} {species.shape}, "
            f"{convention.energy} {energy.shape}, {convention.forces} {forces.shape}")
  if positions.ndim != 3 or positions.shape[2] != 3:
    raise ValueError(f"{convention.positions} must have shape (frames, atoms, 3); got {shapes}")
  frames, atoms = positions.shape[:2]
  check_atoms(atoms)
  if not frames or not atoms:
    raise ValueError(f"no frames or no atoms, expected at least one of each: {shapes}")
  if (forces.shape != positions.shape or energy.shape not in ((frames,), (frames, 1))
      or species.shape not in ((atoms,), (frames, atoms))):
    raise ValueError(
        f"shapes disagree: expected {frames} frames of {atoms} atoms throughout, got {shapes}")


def _elements(
    species: np.ndarray, convention: Convention, shape: tuple[int, ...]) -> np.ndarray:
  """Atomic numbers of each frame; 0 is padding, and allowed where frames have their own."""
  lowest = 1 if species.ndim == 1 else 0
  with np.errstate(invalid="ignore"):
    whole = (species >= lowest) & (species <= 118) & (species == np.floor(species))
  if not whole.all():
    place = tuple(np.argwhere(~whole)[0])
    where = "" if species.ndim == 1 else f"frame {place[0]}, "
    raise ValueError(
        f"{where}atom {place[-1]}: {convention.species} holds {species[place]}, expected atomic "
        f"numbers from {lowest} to 118")
  full = np.array(np.broadcast_to(species, shape), np.int32)
  empty = ~(full > 0).any(axis=1)
  if empty.any():
    raise ValueError(f"frame {np.argmax(empty)} has no atoms: all its species are 0")
  return full


def _masked(raw: Raw) -> Raw:
  """Padded atoms carry no numbers, whatever the file holds there (zeros, NaN)."""
  real = (raw.species > 0)[..., None]
  return raw._replace(
      positions=np.where(real, raw.positions, 0.0), forces=np.where(real, raw.forces, 0.0))
