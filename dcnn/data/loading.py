"""From a name or a file to a `Dataset` in float64, eV and angstrom."""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

import jax
import numpy as np

from dcnn.base import Dataset, Labels, System
from dcnn.data import ase_formats, checks, embedded, npz, raw, xyz
from dcnn.data import units as units_lib


def load(
    name_or_path: str | os.PathLike,
    *,
    units: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    check_units: bool = True,
) -> Dataset:
  """Labelled configurations of an embedded molecule or of a file.

  Read are `.npz` archives with the keys of MD17 (`R, E, F, z`, kcal/mol), of rMD17 (`coords,
  energies, forces, nuclear_charges`, kcal/mol) or of `dcnn generate` (`positions, energy, forces,
  species`, eV); extended XYZ (`.xyz`, `.extxyz`); and every other format of ASE, databases
  included. Frames with fewer atoms than the largest are padded with species 0 and zero forces.
  Periodic frames keep their cell, in whichever directions they are periodic; where none are, the
  cell of a file is only a box and left out.

  Args:
    name_or_path: `aspirin`, `benzene`, `ethanol`, `malonaldehyde`, `naphthalene`,
      `salicylic_acid`, `toluene`, `uracil`, or a file (`./ethanol` for a file of such a name).
    units: units of the file, a name in `data.UNITS`; by default those of its convention,
      eV and angstrom where there is none.
    energy_key: name of the energy in the file, where it is not the usual one.
    forces_key: name of the forces.
    check_units: refuse a root mean square force outside 0.05-20 eV/A, atoms closer than any bond,
      and energies beyond what the electrons can bind; `False` for sets that are really so, such
      as relaxed geometries.

  Returns:
    The frames in the order of the file.

  Raises:
    ValueError: on an unknown name, a file that cannot be read, missing keys, shapes that disagree,
      NaN, coincident atoms, or numbers in the wrong units; the message names file and frame.
    OSError: if the file is absent or not a file.
  """
  if units is not None:
    units_lib.check_name(units)
  with _located(os.fspath(name_or_path)) as path:
    try:
      # Numbers near the end of the range overflow in many places; the checks name them.
      with np.errstate(over="ignore", invalid="ignore"):
        found = _read(path, units=units, energy_key=energy_key, forces_key=forces_key)
        found = _checked(found, check_units)
    except ValueError as error:
      raise ValueError(f"{path}: {error}") from error
    except MemoryError as error:
      raise ValueError(f"{path}: too large for this machine's memory; take fewer frames") from error
    return Dataset(
        name=path.stem,
        systems=System(found.positions, found.species, found.cell),
        labels=Labels(found.energy, found.forces),
        source=f"{path.name}: {_sentence(found.source)}, read as {found.units}",
        checksum=checksum(path))


def join(first: Dataset, second: Dataset) -> Dataset:
  """Two sets as one, the frames of the second after those of the first.

  Both are padded to the larger number of atoms, and molecules beside crystals get a cell of zeros.
  The checksum is that of the two checksums.
  """
  atoms = max(part.systems.species.shape[1] for part in (first, second))
  periodic = any(part.systems.cell is not None for part in (first, second))
  parts = [_padded(part, atoms, periodic) for part in (first, second)]
  together = hashlib.sha256((first.checksum + second.checksum).encode()).hexdigest()
  return Dataset(
      name=f"{first.name}+{second.name}",
      systems=jax.tree.map(_concatenated, *(part.systems for part in parts)),
      labels=jax.tree.map(_concatenated, *(part.labels for part in parts)),
      source=f"{first.source}; {second.source}",
      checksum=together)


def _concatenated(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  return np.concatenate([first, second])


def _padded(dataset: Dataset, atoms: int, periodic: bool) -> Dataset:
  missing = atoms - dataset.systems.species.shape[1]
  vectors, numbers = ((0, 0), (0, missing), (0, 0)), ((0, 0), (0, missing))
  positions, species, cell, _ = dataset.systems
  energy, forces = dataset.labels
  if periodic and cell is None:
    cell = np.zeros((len(dataset), 3, 3))
  return dataclasses.replace(
      dataset,
      systems=System(np.pad(positions, vectors), np.pad(species, numbers), cell),
      labels=Labels(energy, np.pad(forces, vectors)))


def checksum(path: str | os.PathLike) -> str:
  """SHA-256 of the bytes of a file, hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _located(name: str) -> Iterator[pathlib.Path]:
  """Path of an embedded set or of an existing, non-empty file."""
  if name in embedded.NAMES:
    with embedded.opened(name) as path:
      yield path
    return
  path = pathlib.Path(name)
  if not path.exists():
    raise _missing(path, name)
  if not path.is_file():
    raise OSError(f"{path} is a directory or device, expected a file of configurations")
  if path.stat().st_size == 0:
    raise ValueError(f"{path}: the file is empty: copy or write it again")
  yield path


def _missing(path: pathlib.Path, name: str) -> Exception:
  """A bare word is taken for the name of a set, anything else for a file."""
  if path.suffix or len(path.parts) != 1:
    return FileNotFoundError(f"{path}: no such file")
  close = difflib.get_close_matches(name.lower(), embedded.NAMES, n=1, cutoff=0.4)
  hint = f"did you mean {close[0]!r}? " if close else ""
  return ValueError(
      f"unknown data set {name!r}: {hint}Embedded are {', '.join(embedded.NAMES)}; anything else "
      "must be an existing file")


def _read(
    path: pathlib.Path, *, units: str | None, energy_key: str | None, forces_key: str | None,
) -> raw.Raw:
  suffix = path.suffix.lower()
  if suffix == ".npz":
    return npz.read_npz(path, units=units, energy_key=energy_key, forces_key=forces_key)
  read, source = ((xyz.read_xyz, "extended XYZ") if suffix in (".xyz", ".extxyz")
                  else (ase_formats.read_ase, "read through ASE"))
  frames = read(path, energy_key=energy_key or "energy", forces_key=forces_key or "forces")
  return raw.stack(frames, units=units or "eV/angstrom", source=source)


def _checked(found: raw.Raw, check_units: bool) -> raw.Raw:
  found = units_lib.convert(found)
  checks.check_finite(found)
  distances, pairs = checks.closest_pairs(found)
  checks.check_distances(distances, pairs)
  if check_units:
    units_lib.check_band(found, float(np.median(distances)))
  checks.warn_if_inconsistent(found)
  return found


def _sentence(source: str) -> str:
  """`dcnn archive; {JSON}` in words, where the JSON is that of `generation`."""
  kind, _, text = source.partition("; ")
  try:
    made = json.loads(text)
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"{made['method']}, {made['sampling']}, seed {made['seed']} ({versions})"
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    return kind
