"""From a name or a file to a `Dataset` in float64, eV and angstrom."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dcnn.base import Dataset, Labels, System
from dcnn.base.text import one_line, suggestion
from dcnn.base.wording import option
from dcnn.data import (
    ase_formats,
    checks,
    consistency,
    embedded,
    fetching,
    named,
    npz,
    qm9,
    raw,
    xyz,
)
from dcnn.data import units as units_lib
from dcnn.data.named import NamedSet
from dcnn.data.units import UNITS, Units

# The ways to treat frames that lack forces.
INCOMPLETE = ("refuse", "skip", "energies", "references")
# Files larger than this of which less than this share was written are incomplete copies.
LARGE = 10_000_000  # bytes
WRITTEN = 0.01
SPREAD = 1e-3  # eV; two energies whose difference spreads by less are the same up to a constant


class _Place(NamedTuple):
  """Where data are, and what is known of them beforehand.

  Attributes:
    path: The file.
    published: What it is, if it is a published set that was asked for by name.
    name: That name; else empty.
  """

  path: pathlib.Path
  published: NamedSet | None = None
  name: str = ""


class _File(NamedTuple):
  """The contents of a file.

  Attributes:
    raw: The numbers, in the units of the file.
    unit: These units.
    origin: How the units are known, in words.
    guessed: The family of an archive by whose keys alone its units were guessed; else empty.
    converted: Whether ASE has read the file, which keeps eV and angstrom.
  """

  raw: raw.Raw
  unit: Units
  origin: str
  guessed: str = ""
  converted: bool = False


def load(
    name_or_path: str | os.PathLike,
    *,
    units: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    positions_key: str | None = None,
    species_key: str | None = None,
    format: str | None = None,
    incomplete: str = "refuse",
    check_units: bool = True,
) -> Dataset:
  """Labelled configurations of an embedded molecule or of a file.

  The function reads `.npz` archives with the keys of MD17 (`R, E, F, z`, kcal/mol), of rMD17
  (`coords, energies, forces, nuclear_charges`, kcal/mol) or of `dcnn generate` (`positions, energy,
  forces, species`, eV); extended XYZ (`.xyz`, `.extxyz`); and every other format of ASE, including
  databases. Frames with fewer atoms than the largest are padded with species 0 and zero forces.
  Periodic frames keep their cell, in whichever directions they are periodic; where none are, the
  cell of a file is only a box and left out.

  The units that an archive declares (`e_unit`, `r_unit`, `f_unit`) are used. Those of MD17 and
  rMD17 are taken to be kcal/mol only if the bonds or the total energies of the set confirm it (see
  `physics`). Where a file has `energy` and `free_energy`, the one that the forces belong to is
  taken. `Dataset.summary` says what was read and what was left out.

  Args:
    name_or_path: `aspirin`, `benzene`, `ethanol`, `malonaldehyde`, `naphthalene`,
      `salicylic_acid`, `toluene`, `uracil`, or a file (`./ethanol` for a file of such a name). `~`
      is the home directory. Where there is no such file, one of `data.PUBLISHED`, such as
      `rmd17/ethanol`: it is fetched once, into the folder that the environment variable
      `DCNN_DATA` names, by default `dcnn/data` in the user's folder of caches.
    units: Units of the file, such as `kcal/mol/angstrom`: a name in `data.UNITS` or another
      ENERGY/LENGTH of the forces; by default those that the file declares, or those of its
      convention.
    energy_key: Name of the energy in the file, where it is not the usual one.
    forces_key: Name of the forces in the file, where it is not the usual one.
    positions_key: Name of the positions in the file, where it is not the usual one.
    species_key: Name of the species in the file, where it is not the usual one.
    format: `npz`, `extxyz`, `qm9` or the name of a format of ASE; by default the name of the file
      tells the format.
    incomplete: How to treat frames that lack forces, or whose labels are a placeholder: `refuse`
      the file; `skip` such frames; keep them for their `energies` alone, with forces that are nan;
      or take single atoms as `references` for the energies of their elements.
    check_units: Whether labels must be as quantum chemistry makes them: forces of usual size, bonds
      of usual length and stiffness, energies that the electrons can bind, and no frame far from all
      others. Give `False` for sets that are different, such as relaxed geometries and toy models.

  Returns:
    The frames in the order of the file, in eV and angstrom.

  Raises:
    ValueError: On an unknown name, a file that cannot be read, missing keys, shapes that disagree,
      NaN, coincident atoms, missing labels, or numbers in the wrong units; the message names file
      and frame.
    OSError: If the file is absent or not a file, or a published set cannot be fetched.
    ModuleNotFoundError: If a published set is asked for without the extra `data`.

  >>> ethanol = load("ethanol")
  >>> ethanol
  <Dataset 'ethanol': ethanol.npz: 2,000 frames of 9 atoms (H, C, O); read energy, forces, ...>
  >>> ethanol.labels.forces.shape
  (2000, 9, 3)
  """
  unit = None if units is None else units_lib.parse(units)
  if incomplete not in INCOMPLETE:
    raise ValueError(f"unknown {option('incomplete', incomplete)}: "
                     f"{suggestion(incomplete, INCOMPLETE)}Known are {', '.join(INCOMPLETE)}")
  keys = raw.Keys(energy_key, forces_key, positions_key, species_key)
  with _locate(os.path.expanduser(os.fspath(name_or_path))) as place:
    path = place.path
    try:
      with _name_in_warnings(path):
        # Numbers near the end of the range overflow in many places; the checks name them.
        with np.errstate(over="ignore", invalid="ignore"):
          file = _open(place, keys, format, unit)
          if file.guessed and not check_units:
            file = file._replace(origin=f"as {file.guessed} has them, unchecked")
          found, distances, references = _check_and_convert(file, keys, incomplete, check_units)
    except ValueError as error:
      raise ValueError(f"{path}: {error}") from error
    except MemoryError as error:
      raise ValueError(f"{path}: too large for this machine's memory; take fewer frames") from error
    return Dataset(
        name=path.stem,
        systems=System(found.positions, found.species, found.cell),
        labels=Labels(found.energy, found.forces),
        source=_source(place, found.source, file.unit),
        checksum=checksum(path),
        summary=_summary(path, file, found, distances, references),
        references=references)


def load_unlabelled(
    name_or_path: str | os.PathLike,
    *,
    units: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    positions_key: str | None = None,
    species_key: str | None = None,
    format: str | None = None,
) -> Dataset:
  """Configurations of which labels may be missing, for predictions: labels are nan there.

  Reads what `load` reads, with the same meaning of the arguments. Labels are taken as they are:
  what is predicted need not be like what is trained on. A warning says where they look as if they
  were in other units.

  Args:
    name_or_path: As for `load`.
    units: Units of the file; by default those that it declares, or those of its convention.
    energy_key: Name of the energy in the file, where it is not the usual one.
    forces_key: Name of the forces in the file, where it is not the usual one.
    positions_key: Name of the positions in the file, where it is not the usual one.
    species_key: Name of the species in the file, where it is not the usual one.
    format: `npz`, `extxyz` or the name of a format of ASE.

  Returns:
    The frames in the order of the file, in eV and angstrom.

  Raises:
    ValueError: On an unknown name, a file that cannot be read, positions that are not finite or
      coincide; the message names file and frame.
    OSError: If the file is absent or not a file.

  >>> load_unlabelled("ethanol").systems.positions.shape
  (2000, 9, 3)
  """
  unit = None if units is None else units_lib.parse(units)
  keys = raw.Keys(energy_key, forces_key, positions_key, species_key)
  with _locate(os.path.expanduser(os.fspath(name_or_path))) as place:
    path = place.path
    try:
      with _name_in_warnings(path), np.errstate(over="ignore", invalid="ignore"):
        file = _open(place, keys, format, unit)
        _warn_of_scales(file)
        found = units_lib.convert(file.raw, file.unit)
        checks.check_finite(found._replace(
            energy=np.zeros(len(found.energy)), forces=np.zeros_like(found.forces)))
        distances, pairs = checks.closest_pairs(found)
        checks.check_distances(distances, pairs)
    except ValueError as error:
      raise ValueError(f"{path}: {error}") from error
    return Dataset(
        name=path.stem, systems=System(found.positions, found.species, found.cell),
        labels=Labels(found.energy, found.forces), source=path.name, checksum=checksum(path),
        summary=_summary(path, file, found, distances, {}))


def _warn_of_scales(file: _File) -> None:
  """Warns of labels that look as if they were in other units."""
  known = np.isfinite(file.raw.energy) & ~checks.frames_without_forces(file.raw)
  if known.any():
    try:
      checks.check_scales(
          raw.take(file.raw, known), file.unit, guessed="", known=file.converted)
    except ValueError as error:
      warnings.warn(f"the labels may be in other units: {error}", stacklevel=3)


@contextlib.contextmanager
def _name_in_warnings(path: pathlib.Path) -> Iterator[None]:
  """Puts the name of the file in front of warnings within this context."""
  caught: list[warnings.WarningMessage] = []
  try:
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter("always")
      warnings.simplefilter("ignore", DeprecationWarning)  # of libraries, for their developers
      yield
  finally:  # also of what is refused: a warning may tell the reason
    for warning in caught:
      ours = warning.category is UserWarning
      warnings.warn(f"{path}: {warning.message}" if ours else warning.message, warning.category,
                    stacklevel=4)


def join(first: Dataset, second: Dataset) -> Dataset:
  """Two sets as one, the frames of the second after those of the first.

  Both are padded to the larger number of atoms, and molecules get a cell of zeros if the other set
  is periodic. The checksum is that of the two checksums.

  Args:
    first: The set whose frames come first.
    second: The set whose frames follow.

  >>> both = join(load("ethanol"), load("benzene"))
  >>> both.name, both.systems.species.shape
  ('ethanol+benzene', (4000, 12))
  """
  atoms = max(part.systems.species.shape[1] for part in (first, second))
  periodic = any(part.systems.cell is not None for part in (first, second))
  parts = [_pad(part, atoms, periodic) for part in (first, second)]
  together = hashlib.sha256((first.checksum + second.checksum).encode()).hexdigest()
  return Dataset(
      name=f"{first.name}+{second.name}",
      systems=jax.tree.map(lambda *arrays: np.concatenate(arrays), *(p.systems for p in parts)),
      labels=jax.tree.map(lambda *arrays: np.concatenate(arrays), *(p.labels for p in parts)),
      source=f"{first.source}; {second.source}",
      checksum=together,
      summary="; ".join(filter(None, (first.summary, second.summary))),
      references={**second.references, **first.references})


def _pad(dataset: Dataset, atoms: int, periodic: bool) -> Dataset:
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
  """SHA-256 of the bytes of a file, hexadecimal.

  >>> import os
  >>> checksum(os.devnull)[:8]  # of no bytes
  'e3b0c442'
  """
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locate(name: str) -> Iterator[_Place]:
  """Gives the place of an embedded or published set, or of an existing file that is not empty."""
  if name in embedded.NAMES:
    with embedded.archive_path(name) as path:
      yield _Place(path)
    return
  path = pathlib.Path(name)
  if not path.exists() or name in named.SETS and not path.is_file():
    yield _published(name)
    return
  if not path.is_file():
    raise OSError(f"{path} is a directory or device, expected a file of configurations")
  status = path.stat()
  if status.st_size == 0:
    raise ValueError(f"{path}: the file is empty: copy or write it again")
  if status.st_size > LARGE and 512 * status.st_blocks < WRITTEN * status.st_size:
    with path.open("rb") as file:  # some file systems count the blocks of an intact file late
      start = file.read(4096)
    if not start.strip(b"\0"):
      raise ValueError(f"{path}: of its {status.st_size:,} bytes almost none were ever written: "
                       "copy or write it again")
  yield _Place(path)


def _published(name: str) -> _Place:
  """The place of a published set, which is fetched where the cache has none.

  Raises:
    ValueError: On a name that is none, with those that may be meant.
    FileNotFoundError: On what looks like a path.
    OSError: If the set cannot be fetched.
  """
  if name in named.SETS:
    published = named.SETS[name]
    return _Place(fetching.fetch(published.file), published, name)
  missing = named.explain_missing(name)
  if missing:
    raise ValueError(missing)
  path = pathlib.Path(name)
  if path.suffix or len(path.parts) != 1:
    raise FileNotFoundError(f"{path}: no such file")
  known = (*embedded.NAMES, *named.SETS)  # a bare word is meant as a set
  families = dict.fromkeys(each.partition("/")[0] for each in named.SETS)
  raise ValueError(
      f"unknown data set {name!r}: {suggestion(name.lower(), known)}Embedded are "
      f"{', '.join(embedded.NAMES)}; published are those of {', '.join(families)}; anything else "
      "must be an existing file")


def _open(place: _Place, keys: raw.Keys, kind: str | None, unit: Units | None) -> _File:
  """A file with the units that the user gives, or those that are declared, and no idle padding."""
  published = place.published
  file = _read(place.path, keys, kind or (published.format if published else None))
  if unit is not None:
    file = file._replace(
        unit=unit, origin=f"as {option('units')} says", guessed="", converted=False)
  elif published is not None:
    file = file._replace(unit=units_lib.parse(published.units), guessed="", converted=False,
                         origin=f"as {place.name} is published")
  else:
    file = _apply_declared_units(file)
  used = (file.raw.species > 0).any(axis=0)  # others are padding in every frame
  return file._replace(raw=file.raw._replace(
      positions=file.raw.positions[:, used], species=file.raw.species[:, used],
      forces=file.raw.forces[:, used]))


def _read(path: pathlib.Path, keys: raw.Keys, kind: str | None) -> _File:
  """The numbers of a file in its own units, and these units."""
  suffix = path.suffix.lower()
  kind = kind or {".npz": "npz", ".xyz": "extxyz", ".extxyz": "extxyz"}.get(suffix)
  if kind == "npz":
    archive = npz.read_npz(path, keys)
    if archive.family == "dcnn":
      return _File(archive.raw, archive.units, "the convention of such archives")
    origin = f"as {archive.family} has them, which the numbers confirm"
    return _File(archive.raw, archive.units, origin, guessed=archive.family)
  unit = UNITS["eV/angstrom"]
  if kind == "extxyz":
    return _File(xyz.read_xyz(path, keys), unit, "the convention of extended XYZ")
  if kind == "qm9":
    return _File(qm9.read_qm9(path, keys), UNITS["hartree/angstrom"], "as QM9 is published")
  numbers = ase_formats.read_ase(path, keys, kind)
  return _File(numbers, unit, "as ASE keeps them", converted=True)


def _apply_declared_units(file: _File) -> _File:
  """The file with the units that it declares, where it does.

  A length alone leaves the unit of energies as it was, known or guessed.
  """
  said = {name.lower(): value for name, value in file.raw.units.items()}

  def of(keys: Iterable[str]) -> object:
    return next((said[key] for key in keys if key in said), None)

  energy, force, every = (of(keys) for keys in (
      raw.ENERGY_UNIT_KEYS, raw.FORCE_UNIT_KEYS, raw.ALL_UNIT_KEYS))
  length = of(raw.LENGTH_UNIT_KEYS)
  if not said:
    return file
  if energy is None and force is None and every is not None:
    energy, length, force = units_lib.split_unit(every, length)
  unit = units_lib.declared_units(energy, length, force, file.unit)
  if energy is None and force is None:
    return file._replace(unit=unit)
  return file._replace(unit=unit, origin="as the file declares", guessed="", converted=False)


def _check_and_convert(
    file: _File, keys: raw.Keys, incomplete: str, check_units: bool
) -> tuple[raw.Raw, np.ndarray, dict[int, float]]:
  """The numbers of a file in eV and angstrom, once all checks have passed.

  Args:
    file: The contents of the file.
    keys: The names that the user has chosen.
    incomplete: One of `INCOMPLETE`.
    check_units: Whether labels must be as quantum chemistry makes them.

  Returns:
    The numbers, the shortest distance of each frame (frames) in angstrom, and energies of free
    atoms in eV by atomic number.
  """
  numbers = file.raw
  if keys.energy is None:
    numbers = _match_energy_to_forces(numbers, file.unit)
  numbers, references = _labelled_frames(numbers, file.unit, incomplete, check_units)
  if check_units:
    checks.check_sizes(numbers, file.unit)
    checks.check_scales(numbers, file.unit, guessed=file.guessed, known=file.converted)
  found = units_lib.convert(numbers, file.unit)
  distances, pairs = checks.closest_pairs(found)
  checks.check_distances(distances, pairs)
  if check_units:
    checks.check_band(found, float(np.median(distances)), file.unit, known=file.converted)
    checks.warn_of_exceptions(found, distances, pairs)
    checks.warn_of_fixed_atoms(found)
    checks.warn_of_species(found)
  consistency.warn_if_inconsistent(found, file.unit, physical=check_units)
  checks.warn_of_digits(numbers, file.unit)
  return found, distances, references


def _labelled_frames(
    numbers: raw.Raw, unit: Units, incomplete: str, check_units: bool
) -> tuple[raw.Raw, dict[int, float]]:
  """The frames that have labels, and references in eV by atomic number from single atoms.

  Args:
    numbers: The numbers of the file, in its units.
    unit: These units.
    incomplete: One of `INCOMPLETE`.
    check_units: Whether to look for placeholders of missing labels.

  Raises:
    ValueError: Naming the frames that are refused.
  """
  references: dict[int, float] = {}
  if incomplete == "skip":
    whole = np.isfinite(numbers.energy) & np.isfinite(numbers.positions).all(axis=(1, 2)) & (
        np.isfinite(numbers.forces).all(axis=(1, 2)) | checks.frames_without_forces(numbers))
    if not (whole & ~checks.frames_without_forces(numbers)).any():
      raise ValueError(f"none of the {len(whole):,} frames has energy and forces")
    numbers = raw.take(numbers, whole)
  elif numbers.unlabelled is not None:
    try:
      raw.require_key(None, str(numbers.keys.energy), "energy", numbers.unlabelled,
                      raw.frames_text(np.flatnonzero(np.isnan(numbers.energy))))
    except ValueError as error:
      if np.isnan(numbers.energy).all():
        raise
      raise ValueError(f"{error}, or leave such frames out with "
                       f"{option('incomplete', 'skip')}") from error
  checks.check_finite(units_lib.convert(numbers, unit))
  if incomplete == "references":
    numbers, references = _take_references(numbers, unit)
  no_forces = checks.frames_without_forces(numbers)
  no_energy = np.zeros(len(no_forces), bool)
  if check_units:
    no_forces = no_forces | checks.constant_forces(numbers)
    no_energy = checks.frames_without_energy(units_lib.convert(numbers, unit), unit)
  if incomplete == "skip":
    kept = ~(no_forces | no_energy)
    if not kept.any():
      raise ValueError(f"none of the {len(kept):,} frames has energy and forces")
    return raw.take(numbers, kept), references
  if no_energy.any():
    value = numbers.energy[np.argmax(no_energy)]
    raise ValueError(
        f"{raw.frames_text(np.flatnonzero(no_energy))} of {len(no_energy):,}: the energy is "
        f"{value:.10g} in the file, a number that stands for an energy which is missing. Compute "
        f"it, remove such frames, or leave them out with {option('incomplete', 'skip')}")
  if incomplete == "energies":
    real = (numbers.species > 0)[..., None]
    missing = no_forces[:, None, None] & real
    return numbers._replace(forces=np.where(missing, np.nan, numbers.forces)), references
  if no_forces.any():
    raise ValueError(_missing_forces_text(numbers, no_forces))
  return numbers, references


def _take_references(numbers: raw.Raw, unit: Units) -> tuple[raw.Raw, dict[int, float]]:
  """The frames of several atoms, and the energies of the single atoms in eV by atomic number."""
  single = _single_atoms(numbers)
  if single.all() or not single.any():
    raise ValueError(f"{option('incomplete', 'references')} takes frames of single atoms as "
                     f"references for the other frames, got {single.sum()} such frames of "
                     f"{len(single):,}")
  references: dict[int, float] = {}
  for frame in np.flatnonzero(single):
    element, energy = int(numbers.species[frame].max()), float(numbers.energy[frame]) * unit.energy
    if abs(references.setdefault(element, energy) - energy) > SPREAD:
      raise ValueError(f"frame {frame}: a single atom of atomic number {element} has the energy "
                       f"{energy:.8g} eV, an earlier one {references[element]:.8g} eV: remove one")
  return raw.take(numbers, ~single), references


def _single_atoms(numbers: raw.Raw) -> Bool[np.ndarray, " frames"]:
  """Mask of frames of one atom in free space."""
  single = (numbers.species > 0).sum(axis=1) == 1
  return single if numbers.cell is None else single & ~numbers.cell.any(axis=(1, 2))


def _missing_forces_text(numbers: raw.Raw, missing: Bool[np.ndarray, " frames"]) -> str:
  """The message that refuses frames without forces, with the ways out."""
  absent = checks.frames_without_forces(numbers)
  alone = (f"train on energies alone with {option('incomplete', 'energies')} and a force weight of "
           "0")
  if absent.all():
    key, names = str(numbers.keys.forces), numbers.left_out
    likely = raw.likely_key("forces", "forces", names)
    hint = (f"; did you mean {likely!r}? Then set {option('forces_key', likely)}" if likely
            else f". Choose with {option('forces_key')}")
    there = raw.short_text(", ".join(names) or "nothing else")
    return f"no array {key!r} in any frame; there is {there}{hint}, or {alone}"
  frames = f"{raw.frames_text(np.flatnonzero(missing))} of {len(missing):,}"
  single = _single_atoms(numbers)[missing]
  right = ""
  if absent[missing].all():
    what = "no forces" if not single.all() else "single atoms without forces"
  else:
    value = numbers.forces[np.argmax(missing & ~absent), 0, 0]
    what = (f"all force components are {value:g}, a number that stands for forces which are "
            "missing")
    right = f", or set {option('check_units', False)} if they are right"
  references = (f", or take them as references for the energies of their elements with "
                f"{option('incomplete', 'references')}" if single.all() else "")
  return (f"{frames}: {what}. Compute the forces, leave such frames out with "
          f"{option('incomplete', 'skip')}, or use their energies alone with "
          f"{option('incomplete', 'energies')}{references}{right}")


def _match_energy_to_forces(numbers: raw.Raw, unit: Units) -> raw.Raw:
  """The numbers with that of two energies which the forces are the gradient of.

  Codes that smear the occupation of states write two energies: one that is extrapolated to no
  smearing, and a free energy, whose gradient the forces are. Near frames decide between the two;
  without near frames the free energy is taken.

  Args:
    numbers: The numbers of the file, in its units.
    unit: These units.
  """
  free = numbers.free_energy
  if free is None or not np.any(free != numbers.energy) or not np.ptp(free[np.isfinite(free)]):
    return numbers
  missing = np.isnan(free)
  chosen = numbers._replace(
      energy=free, keys=numbers.keys._replace(energy=raw.FREE_ENERGY), unlabelled=None,
      left_out=tuple(sorted({*numbers.left_out, "energy"} - {raw.FREE_ENERGY})))
  if np.isnan(numbers.energy).all():
    return chosen._replace(left_out=tuple(sorted({*numbers.left_out} - {raw.FREE_ENERGY})))
  if missing.any():
    warnings.warn(f"{raw.frames_text(np.flatnonzero(missing))} of {len(free):,}: no free_energy, "
                  "which other frames have beside energy, so that energy is taken. Set "
                  f"{option('energy_key')} to choose", stacklevel=4)
    return numbers
  apart = float(np.nanstd(free - numbers.energy)) * unit.energy
  misfits = []  # median differences in eV between the change of energy and the work, if known
  for energy in (numbers.energy, free):
    pairs = consistency.near_pairs(units_lib.convert(numbers._replace(energy=energy), unit))
    known = len(pairs.work) >= consistency.FEWEST_PAIRS
    misfits.append(float(np.median(np.abs(pairs.change + pairs.work))) if known else 0.0)
  name = "energy" if misfits[0] < 0.8 * misfits[1] else raw.FREE_ENERGY
  if apart > SPREAD:
    warnings.warn(
        f"energy and free_energy differ from frame to frame by {1000 * apart:.3g} meV (standard "
        f"deviation), and forces are the gradient of one of them: {name} is taken. Set "
        f"{option('energy_key')} to choose", stacklevel=4)
  return numbers if name == "energy" else chosen


def _summary(
    path: pathlib.Path, file: _File, found: raw.Raw, distances: Float[np.ndarray, " frames"],
    references: Mapping[int, float],
) -> str:
  """What was read, in one line, for the user to see before the training."""
  frames, whole = len(found.energy), len(file.raw.energy)
  counts = (found.species > 0).sum(axis=1)
  atoms = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
  sizes = checks.force_sizes(found)
  known = np.isfinite(sizes)
  absent = int(len(known) - known.sum())
  parts = [
      (f"{frames:,} of {whole:,} frames" if whole != frames else f"{frames:,} frames")
      + f" of {atoms} atoms ({', '.join(symbols(found.species))})",
      f"read {', '.join(map(str, found.keys))}",
      f"left out {raw.short_text(', '.join(found.left_out))}" if found.left_out else "",
      f"{file.unit.name}, {file.origin}",
      f"{absent:,} frame{'s' if absent > 1 else ''} without forces" if absent else "",
      f"RMS force {np.sqrt(np.mean(np.square(sizes[known]))):.3g} eV/A" if known.any() else "",
      f"closest atoms {distances.min():.3g} A apart" if np.isfinite(distances).any() else "",
      f"{len(references)} atomic references" if references else "",
  ]
  return one_line(f"{path.name}: {'; '.join(part for part in parts if part)}")


def symbols(species: Int[np.ndarray, "*frames"]) -> list[str]:
  """Symbols of the elements that occur, in the order of their numbers."""
  from ase.data import chemical_symbols

  return [chemical_symbols[element] for element in np.unique(species[species > 0])]


def _source(place: _Place, source: str, unit: Units) -> str:
  """Where data came from and how they were made, in a sentence."""
  cited = f"{place.name} ({place.published.reference}), " if place.published else ""
  return f"{cited}{place.path.name}: {_sentence(source)}, read as {unit.name}"


def _sentence(source: str) -> str:
  """`dcnn archive; {JSON}` in words, where `generation` has written the JSON."""
  kind, _, text = source.partition("; ")
  try:
    made = json.loads(text)
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"{made['method']}, {made['sampling']}, seed {made['seed']} ({versions})"
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    return kind
