"""Reads whatever ASE reads from a local file: its trajectories, databases, outputs of codes."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from dcnn.data.raw import Frame, brief, find, frame, periodic_cell

# ASE would open a connection for these, by the file's extension alone.
SERVERS = ("mysql", "postgresql")
# Read row by row, because `ase.io.read` leaves out the user's own keys and data.
DATABASES = ("db", "json")
ADVICE = ("Write it as extended XYZ, or as .npz with positions, species, energy and forces in eV "
          "and angstrom")


def read_ase(path: str | os.PathLike, *, energy_key: str, forces_key: str) -> list[Frame]:
  """All frames of a file in a format that ASE knows.

  ASE keeps labels in different places: `energy` and `forces` of most files in a calculator, other
  names in `info` and `arrays`, those of a database in `key_value_pairs` and `data`. All are
  searched; what the file holds under that very name in `info` or `arrays` comes first.

  Args:
    path: the file.
    energy_key: name of the energy.
    forces_key: name of the forces.

  Raises:
    ValueError: on an unknown format, a damaged file, or a frame without energy or forces.
  """
  return [
      _frame(i, atoms, energy_key=energy_key, forces_key=forces_key)
      for i, atoms in enumerate(_images(path))
  ]


def _images(path: str | os.PathLike) -> list[Any]:
  import ase.db
  import ase.io
  from ase.io.formats import UnknownFileTypeError, filetype, ioformats

  # An absolute path: ASE takes '-', 'postgres...' and the like for something else than a file.
  full = os.path.abspath(path)
  try:
    kind = filetype(full)
    if kind in SERVERS or kind not in ioformats or not ioformats[kind].can_read:
      raise UnknownFileTypeError(kind)
    if kind in DATABASES:
      rows = ase.db.connect(full, type=kind, use_lock_file=False, serial=True).select()
      return [row.toatoms(add_additional_information=True) for row in rows]
    images = ase.io.read(full, index=":", format=kind, do_not_split_by_at_sign=True)
    return images if isinstance(images, list) else [images]
  except UnknownFileTypeError as error:
    raise ValueError(
        f"neither .npz nor a format that ASE reads ({brief(error)}). {ADVICE}") from error
  except Exception as error:  # sixty parsers, each with its own ways to fail
    raise ValueError(
        f"ASE cannot read it: {type(error).__name__}: {brief(error)}. {ADVICE}") from error


def _frame(index: int, atoms: Any, *, energy_key: str, forces_key: str) -> Frame:
  results = _mapping(getattr(atoms.calc, "results", None))
  data = _mapping(atoms.info.get("data"))
  pairs = _mapping(atoms.info.get("key_value_pairs"))
  forces = find(forces_key, [atoms.arrays, data, results], index)
  return frame(
      index,
      positions=atoms.positions,
      species=atoms.numbers.astype(np.int32),
      energy=find(energy_key, [atoms.info, pairs, data, results], index),
      forces=_floats(forces, index, forces_key),
      cell=periodic_cell(index, vectors=atoms.cell.array, periodic=atoms.pbc))


def _mapping(value: Any) -> Mapping[str, Any]:
  return value if isinstance(value, Mapping) else {}


def _floats(value: Any, index: int, key: str) -> np.ndarray:
  try:
    return np.asarray(value, np.float64)
  except (TypeError, ValueError) as error:
    raise ValueError(f"frame {index}: {key} must be numbers: {brief(error)}") from error
