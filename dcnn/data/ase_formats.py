"""Reads whatever ASE reads from a local file: its trajectories, databases, outputs of codes.

Databases of LMDB need the extra `lmdb`. Nothing is ever unpickled.
"""

import os
import pathlib
import sqlite3
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dcnn.base.text import suggestion
from dcnn.data.raw import (
  FREE_ENERGY,
  Frame,
  Keys,
  Raw,
  first_value,
  frame,
  periodic_cell,
  require_key,
  short_text,
  stack,
)

# ASE would open a connection for these, by the file's extension alone.
SERVERS = ("mysql", "postgresql")
# Read row by row, because `ase.io.read` leaves out the user's own keys and data.
DATABASES = ("db", "json", "aselmdb")
LMDB_MAGIC = slice(16, 20), b"\xde\xc0\xef\xbe"  # of its first page, after the header of a page
ZLIB = b"\x78"  # the first byte of a compressed value
PICKLES = (
    "its values are pickled Python objects, as in the LMDB files of OC20 and OC22; unpickling can "
    "run code and is never done. Take the trajectories (.traj) that OC22 publishes beside them, "
    "which are read as they are; or convert it where you trust it: read it with LmdbDataset of "
    "fairchem-core 1, make ase.Atoms with energy and forces of each entry, and write them with "
    "ase.db.connect('FILE.aselmdb').write(atoms)")
ADVICE = ("Write it as extended XYZ, or as .npz with positions, species, energy and forces in eV "
          "and angstrom")
# What ASE itself puts into every frame.
_OWN = frozenset({"numbers", "positions", "unique_id", "data", "key_value_pairs", "tags",
                  "initial_magmoms", "momenta"})


def read_ase(path: str | os.PathLike, keys: Keys, kind: str | None = None) -> Raw:
  """All frames of a file in a format that ASE knows.

  ASE keeps labels in different places: `energy` and `forces` of most files in a calculator, other
  names in `info` and `arrays`, those of a database in `key_value_pairs` and `data`. All are
  searched; an entry of that very name in `info` or `arrays` comes first.

  Args:
    path: The file, which is not changed.
    keys: Names of energy, forces, positions and species, where they are not those of ASE.
    kind: Name of ASE's format; by default the format that ASE recognises.

  Raises:
    ValueError: On an unknown format, a damaged file, or a frame without energy.
  """
  import ase.io
  from ase.io.formats import UnknownFileTypeError, filetype, ioformats

  keys = Keys(keys.energy or "energy", keys.forces or "forces", keys.positions or "positions",
              keys.species or "numbers")
  path = os.path.abspath(path)  # ASE does not take '-' and others for files
  if kind is None and _is_lmdb(path):
    kind = "aselmdb"
  if kind is not None and kind not in (*ioformats, *DATABASES):
    raise ValueError(f"unknown format {kind!r}: {suggestion(kind, ioformats)}Known are npz, "
                     "extxyz, qm9 and the names of ASE's formats, as `ase info --formats` lists "
                     "them")
  if kind == "aselmdb":
    _require_no_pickles(path)
  try:
    kind = kind or filetype(path)
    if kind in SERVERS or kind not in DATABASES and (
        kind not in ioformats or not ioformats[kind].can_read):
      raise UnknownFileTypeError(kind)
    if kind in DATABASES:
      images = [row.toatoms(add_additional_information=True) for row in _rows(path, kind)]
    else:
      images = ase.io.read(path, index=":", format=kind, do_not_split_by_at_sign=True)
  except UnknownFileTypeError as error:
    raise ValueError(
        f"neither .npz nor a format that ASE reads ({short_text(error)}). {ADVICE}") from error
  except Exception as error:  # sixty parsers, each with its own ways to fail
    raise ValueError(
        f"ASE cannot read it: {type(error).__name__}: {short_text(error)}. {ADVICE}") from error
  images = images if isinstance(images, list) else [images]
  frames = [_frame(i, atoms, keys) for i, atoms in enumerate(images)]
  first = {**images[0].info, **_entries(images[0].info.get("key_value_pairs"))} if images else {}
  return stack(frames, source="read through ASE", keys=keys, first=first)


def _rows(path: str, kind: str) -> list[Any]:
  """The rows of a database of ASE, which is opened for reading only.

  ASE adds its tables to any SQLite file that lacks them, so that a mistyped path would change a
  user's own database.
  """
  import ase.db
  from ase.db.sqlite import SQLite3Database

  if kind == "aselmdb":
    database: Any = ase.db.connect(path, type=kind, use_lock_file=False, readonly=True)
    with database:
      return list(database.select())
  if kind != "db":
    return list(ase.db.connect(path, type=kind, use_lock_file=False, serial=True).select())
  address = f"{pathlib.Path(path).as_uri()}?mode=ro"
  connection = sqlite3.connect(address, uri=True)
  try:
    tables = {name for (name,) in connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table'")}
  finally:
    connection.close()
  if not {"systems", "information"} <= tables:
    raise ValueError(f"this SQLite file is no database of ASE: it has the tables "
                     f"{', '.join(sorted(tables)) or 'none'}")

  opened: list[sqlite3.Connection] = []

  class ReadOnly(SQLite3Database):
    def _connect(self) -> sqlite3.Connection:
      opened.append(sqlite3.connect(address, uri=True, timeout=20))
      return opened[-1]

  try:
    return list(ReadOnly(path, use_lock_file=False, serial=True).select())
  finally:
    for connection in opened:  # ASE leaves this to the garbage collector
      connection.close()


def _is_lmdb(path: str) -> bool:
  """Whether a file is a database of LMDB, whatever is in it."""
  place, magic = LMDB_MAGIC
  with open(path, "rb") as file:
    return file.read(place.stop)[place] == magic


def _require_no_pickles(path: str) -> None:
  """Refuses a database of LMDB whose values are not those of ASE, by their first bytes alone.

  Raises:
    ValueError: With the way to convert it; or if the file is damaged.
    ModuleNotFoundError: Without the extra `lmdb`.
  """
  try:
    import ase_db_backends.aselmdb  # noqa: F401
    import lmdb
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{path}: an LMDB database needs ase-db-backends: pip install 'dcnn[lmdb]'",
        name="ase_db_backends") from error
  try:
    with lmdb.open(path, subdir=False, readonly=True, lock=False) as opened:
      with opened.begin() as reading:
        _, value = next(reading.cursor().iternext(), (b"", ZLIB))
  except lmdb.Error as error:
    raise ValueError(f"not a whole LMDB database, copy it again: {short_text(error)}") from error
  if value[:1] != ZLIB:
    raise ValueError(PICKLES)


def _frame(index: int, atoms: Any, keys: Keys) -> Frame:
  results = _entries(getattr(atoms.calc, "results", None))
  data = _entries(atoms.info.get("data"))
  pairs = _entries(atoms.info.get("key_value_pairs"))
  places = [atoms.info, pairs, data, results]
  of_atoms = [atoms.arrays, data, results]
  forces, positions, species = (
      first_value(str(key), of_atoms) for key in (keys.forces, keys.positions, keys.species))
  names = frozenset(map(str, {*atoms.info, *pairs, *data, *results, *atoms.arrays}))
  for value, key, role in (
      (positions, keys.positions, "positions"), (species, keys.species, "species")):
    require_key(value, str(key), role, atoms.arrays, f"frame {index}", kind="array")
  return frame(
      index,
      positions=_floats(positions, index, str(keys.positions)),
      species=_numbers(species, index, str(keys.species)),
      energy=first_value(str(keys.energy), places),
      forces=None if forces is None else _floats(forces, index, str(keys.forces)),
      cell=periodic_cell(index, vectors=atoms.cell.array, periodic=atoms.pbc),
      free_energy=first_value(FREE_ENERGY, places) if keys.energy == "energy" else None,
      names=names - _OWN)


def _numbers(species: Any, index: int, key: str) -> Int[np.ndarray, " atoms"]:
  """Atomic numbers (atoms) from numbers or symbols."""
  from ase.data import atomic_numbers

  array = np.asarray(species)
  if array.dtype.kind in "US":
    array = np.array([atomic_numbers.get(str(text), 0) for text in array.reshape(-1)])
  if array.dtype.kind not in "iuf" or array.ndim != 1:
    raise ValueError(f"frame {index}: {key} must hold atomic numbers or symbols, one of each atom")
  return array.astype(np.int32)


def _entries(value: Any) -> Mapping[str, Any]:
  return value if isinstance(value, Mapping) else {}


def _floats(value: Any, index: int, key: str) -> Float[np.ndarray, "*shape"]:
  try:
    return np.asarray(value, np.float64)
  except (TypeError, ValueError) as error:
    raise ValueError(f"frame {index}: {key} must be numbers: {short_text(error)}") from error
