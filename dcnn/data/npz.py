"""Reads NumPy archives: MD17, rMD17, and those of `dcnn generate`. Never unpickles."""

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from dcnn.base.wording import option
from dcnn.data.raw import (
  FREE_ENERGY,
  UNIT_KEYS,
  Keys,
  Raw,
  check_atoms,
  likely_key,
  require_key,
  short_text,
)
from dcnn.data.units import UNITS, Units


class Convention(NamedTuple):
  """The keys of one family of archives, and the units that they usually have.

  Attributes:
    family: Name of the family, for messages.
    positions: Key of the positions.
    species: Key of the species.
    energy: Key of the energies.
    forces: Key of the forces.
    units: Name of the usual units, in `units.UNITS`.
  """

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

# Arrays that tell of periodic frames.
PERIODIC = {"cell", "lattice", "pbc"}
# Deflate shrinks nothing but zeros and repeats by this factor; files made to fill the memory do.
LARGEST_RATIO = 200
LARGE = 10_000_000  # bytes
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Archive(NamedTuple):
  """The contents of an archive.

  Attributes:
    raw: The arrays of the archive.
    units: The usual units of its convention.
    family: Name of its convention.
  """

  raw: Raw
  units: Units
  family: str


def read_npz(path: str | os.PathLike, keys: Keys) -> Archive:
  """Reads an archive in any of `CONVENTIONS`.

  Args:
    path: The archive.
    keys: Keys that override those of the convention.

  Raises:
    ValueError: On anything but such an archive, or on arrays whose shapes disagree.
  """
  with _open_archive(path) as archive:
    convention = _convention(archive.files, keys)
    positions, species, energy, forces = (
        _numbers(archive, key) if key in archive.files else None for key in convention[1:5])
    assert positions is not None and species is not None and energy is not None
    cell = _cell(archive, convention, len(positions) if positions.ndim else 0)
    used = {key: _array(archive, key) for key in archive.files if key.lower() in UNIT_KEYS}
    free_energy = (_numbers(archive, FREE_ENERGY)
                   if convention.energy == "energy" and FREE_ENERGY in archive.files else None)
    source = _source(archive, convention)
    left_out = sorted({*archive.files} - {*convention[1:5], *used, "provenance", "cell"})
  if forces is None:
    forces = np.full(positions.shape, np.nan)
  _check_shapes(convention, positions=positions, species=species, energy=energy, forces=forces)
  if free_energy is not None and free_energy.size != energy.size:
    free_energy = None
  elements = _elements(species, convention, positions.shape[:2])
  # Padded atoms carry no numbers, whatever the file holds there (zeros, NaN).
  positions, forces = (np.where((elements > 0)[..., None], array.astype(np.float64), 0.0)
                       for array in (positions, forces))
  raw = Raw(
      positions, elements, energy.astype(np.float64).reshape(-1), forces, source,
      Keys(convention.energy, convention.forces, convention.positions, convention.species),
      tuple(left_out), cell,
      None if free_energy is None else free_energy.astype(np.float64).reshape(-1), None, used)
  return Archive(raw, UNITS[convention.units], convention.family)


@contextmanager
def _open_archive(path: str | os.PathLike) -> Iterator[np.lib.npyio.NpzFile]:
  if not zipfile.is_zipfile(path):
    with open(path, "rb") as file:
      start = file.read(8)
    raise ValueError(f"not an .npz archive, or one cut short (it begins with {start!r}): copy it "
                     "again, or save it with numpy.savez")
  try:
    archive = np.load(path, allow_pickle=False)
  except Exception as error:  # a damaged archive fails in many ways, all of them bad input
    raise ValueError(f"damaged .npz archive, copy it again: {short_text(error)}") from error
  with archive:
    yield archive


def _convention(files: Sequence[str], keys: Keys) -> Convention:
  """The convention that has the names of most of the arrays, with the user's names put in."""
  chosen = {name: key for name, key in keys._asdict().items() if key}
  fitting = [convention._replace(**chosen) for convention in reversed(CONVENTIONS)]
  fitting = [each for each in fitting if {each.positions, each.species} <= set(files)]
  if not fitting:
    for role, key in (("positions", keys.positions), ("species", keys.species)):
      if key:
        require_key(key if key in files else None, key, role, files, "the archive", kind="array")
    wanted = "; ".join(f"{', '.join(c[1:5])} ({c.family})" for c in CONVENTIONS)
    likely = {role: likely_key(role, role, files) for role in Keys._fields}
    hint = f". Choose with {option('positions_key')}, {option('species_key')} and the like"
    if all(likely.values()) and len(set(likely.values())) == len(likely):
      said = " ".join(option(f"{role}_key", key) for role, key in likely.items())
      hint = f"; did you mean {said}?"
    raise ValueError(f"the archive has the arrays {short_text(', '.join(files) or 'none')}; "
                     f"expected {wanted}{hint}")
  if len(set(keys) - {None}) < len([key for key in keys if key]):
    raise ValueError(f"one array for two of positions, species, energy and forces: {keys}")
  best = max(fitting, key=lambda each: len({each.energy, each.forces} & set(files)))
  require_key(best.energy if best.energy in files else None, best.energy, "energy", files,
              "the archive", kind="array")
  if keys.forces:
    require_key(best.forces if best.forces in files else None, best.forces, "forces", files,
                "the archive", kind="array")
  return best


def _cell(
    archive: np.lib.npyio.NpzFile, convention: Convention, frames: int
) -> Float[np.ndarray, "frames 3 3"] | None:
  """Lattice vectors of each frame (frames 3 3); only the convention of dcnn has a key for them."""
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
    raise ValueError(f"array {key!r} cannot be read: {short_text(error)}") from error
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


def _source(archive: np.lib.npyio.NpzFile, convention: Convention) -> str:
  kind = f"{convention.family} archive"
  if "provenance" not in archive.files:
    return kind
  return f"{kind}; {_array(archive, 'provenance')}"


def _check_shapes(
    convention: Convention, *, positions: Num[np.ndarray, "*positions"],
    species: Num[np.ndarray, "*species"], energy: Num[np.ndarray, "*energy"],
    forces: Num[np.ndarray, "*forces"],
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
    species: Num[np.ndarray, "*frames atoms"], convention: Convention, shape: tuple[int, ...]
) -> Int[np.ndarray, "all_frames atoms"]:
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
