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

from dcnn.base import Dataset, Labels, System
from dcnn.base.text import one_line, suggestion
from dcnn.base.wording import option
from dcnn.data import ase_formats, checks, consistency, embedded, npz, raw, xyz
from dcnn.data import units as units_lib
from dcnn.data.units import UNITS, Units

# What to do with frames that lack forces.
INCOMPLETE = ("refuse", "skip", "energies", "references")
# Of a file that is larger than this the system says how much of it was ever written.
LARGE = 10_000_000  # bytes
WRITTEN = 0.01
# Two energies of one spread are the same but for a constant.
SPREAD = 1e-3  # eV


class _File(NamedTuple):
  """What a file holds.

  Attributes:
    raw: its numbers.
    unit: that they are in.
    origin: how that is known, in words.
    guessed: the family of an archive whose keys alone tell its units; else empty.
    converted: whether ASE has read them, which keeps eV and angstrom.
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

  Read are `.npz` archives with the keys of MD17 (`R, E, F, z`, kcal/mol), of rMD17 (`coords,
  energies, forces, nuclear_charges`, kcal/mol) or of `dcnn generate` (`positions, energy, forces,
  species`, eV); extended XYZ (`.xyz`, `.extxyz`); and every other format of ASE, databases
  included. Frames with fewer atoms than the largest are padded with species 0 and zero forces.
  Periodic frames keep their cell, in whichever directions they are periodic; where none are, the
  cell of a file is only a box and left out.

  Units that an archive declares (`e_unit`, `r_unit`, `f_unit`) hold. Those of MD17 and rMD17 are
  taken to be kcal/mol only if the bonds or the total energies of the set confirm it (see
  `physics`). Of a file with `energy` and `free_energy` the one is taken that the forces belong to.
  Whatever is left out, and what was found, stands in `Dataset.summary`.

  Args:
    name_or_path: `aspirin`, `benzene`, `ethanol`, `malonaldehyde`, `naphthalene`,
      `salicylic_acid`, `toluene`, `uracil`, or a file (`./ethanol` for a file of such a name). `~`
      is the home directory.
    units: units of the file, as `kcal/mol/angstrom`; a name in `data.UNITS` or another
      ENERGY/LENGTH of the forces; by default those that the file declares, or those of its
      convention.
    energy_key: name of the energy in the file, where it is not the usual one.
    forces_key: name of the forces.
    positions_key: name of the positions.
    species_key: name of the species.
    format: `npz`, `extxyz` or the name of a format of ASE; by default what the name of the file
      says.
    incomplete: what to do with frames that lack forces, or whose labels are a number that stands
      for none: `refuse` them all; `skip` such frames; keep them for their `energies` alone, with
      forces that are nan; or take single atoms as `references` for the energies of their elements.
    check_units: whether labels must look as quantum chemistry makes them: forces of usual size,
      bonds of usual length and stiffness, energies within what the electrons can bind, and no frame
      far from all others. `False` for sets that are really otherwise, such as relaxed geometries
      and toy models.

  Returns:
    The frames in the order of the file.

  Raises:
    ValueError: on an unknown name, a file that cannot be read, missing keys, shapes that disagree,
      NaN, coincident atoms, missing labels, or numbers in the wrong units; the message names file
      and frame.
    OSError: if the file is absent or not a file.
  """
  unit = None if units is None else units_lib.parsed(units)
  _require_known(incomplete, INCOMPLETE, "incomplete")
  keys = raw.Keys(energy_key, forces_key, positions_key, species_key)
  with _located(os.path.expanduser(os.fspath(name_or_path))) as path:
    try:
      with _named(path):
        # Numbers near the end of the range overflow in many places; the checks name them.
        with np.errstate(over="ignore", invalid="ignore"):
          file = _read(path, keys, format)
          file = _declared(file) if unit is None else file._replace(
              unit=unit, origin=f"as {option('units')} says", guessed="", converted=False)
          if file.guessed and not check_units:
            file = file._replace(origin=f"as {file.guessed} has them, unchecked")
          found, distances, references = _checked(file, keys, incomplete, check_units)
    except ValueError as error:
      raise ValueError(f"{path}: {error}") from error
    except MemoryError as error:
      raise ValueError(f"{path}: too large for this machine's memory; take fewer frames") from error
    return Dataset(
        name=path.stem,
        systems=System(found.positions, found.species, found.cell),
        labels=Labels(found.energy, found.forces),
        source=f"{path.name}: {_sentence(found.source)}, read as {file.unit.name}",
        checksum=checksum(path),
        summary=_summary(path, file, found, distances, references),
        references=references)


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
  """Warnings within this context begin with the name of the file."""
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


def _require_known(value: str, known: tuple[str, ...], name: str) -> None:
  if value not in known:
    raise ValueError(f"unknown {option(name, value)}: {suggestion(value, known)}Known are "
                     f"{', '.join(known)}")


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
      checksum=together,
      summary="; ".join(filter(None, (first.summary, second.summary))),
      references={**second.references, **first.references})


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
  status = path.stat()
  if status.st_size == 0:
    raise ValueError(f"{path}: the file is empty: copy or write it again")
  if status.st_size > LARGE and 512 * status.st_blocks < WRITTEN * status.st_size and _is_blank(
      path):  # some file systems count the blocks of a sound file late
    raise ValueError(f"{path}: of its {status.st_size:,} bytes almost none were ever written: copy "
                     "or write it again")
  yield path


def _is_blank(path: pathlib.Path) -> bool:
  """Whether a file begins with nothing but zeros."""
  with path.open("rb") as file:
    return not file.read(4096).strip(b"\0")


def _missing(path: pathlib.Path, name: str) -> Exception:
  """A bare word is taken for the name of a set, anything else for a file."""
  if path.suffix or len(path.parts) != 1:
    return FileNotFoundError(f"{path}: no such file")
  return ValueError(
      f"unknown data set {name!r}: {suggestion(name.lower(), embedded.NAMES)}Embedded are "
      f"{', '.join(embedded.NAMES)}; anything else must be an existing file")


def _read(path: pathlib.Path, keys: raw.Keys, kind: str | None) -> _File:
  """The numbers of a file as they are, and what is known of their units."""
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
  numbers = ase_formats.read_ase(path, keys, kind)
  return _File(numbers, unit, "as ASE keeps them", converted=True)


def _declared(file: _File) -> _File:
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
    energy, length, force = units_lib.of_one_word(every, length)
  unit = units_lib.declared(energy, length, force, file.unit)
  if energy is None and force is None:
    return file._replace(unit=unit)
  return file._replace(unit=unit, origin="as the file declares", guessed="", converted=False)


def _checked(
    file: _File, keys: raw.Keys, incomplete: str, check_units: bool
) -> tuple[raw.Raw, np.ndarray, dict[int, float]]:
  """What a file holds in eV and angstrom, once all checks have passed.

  Returns:
    The numbers, the shortest distance of each frame, and atomic references in eV.
  """
  numbers = _without_padding(file.raw)
  if keys.energy is None:
    numbers = _with_matching_energy(numbers, file.unit)
  numbers, references = _complete(numbers, file.unit, incomplete, check_units)
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


def _without_padding(numbers: raw.Raw) -> raw.Raw:
  """Without the atoms that are padding in every frame: a network must not see them."""
  used = (numbers.species > 0).any(axis=0)
  return numbers._replace(
      positions=numbers.positions[:, used], species=numbers.species[:, used],
      forces=numbers.forces[:, used])


def _complete(
    numbers: raw.Raw, unit: Units, incomplete: str, check_units: bool
) -> tuple[raw.Raw, dict[int, float]]:
  """The frames that have labels, and references in eV by atomic number where atoms are taken so.

  Args:
    numbers: as the file has them.
    unit: of these.
    incomplete: one of `INCOMPLETE`.
    check_units: whether numbers that stand for missing labels are looked for.

  Raises:
    ValueError: naming the frames, where they are refused.
  """
  references: dict[int, float] = {}
  if incomplete == "skip":
    whole = np.isfinite(numbers.energy) & np.isfinite(numbers.positions).all(axis=(1, 2)) & (
        np.isfinite(numbers.forces).all(axis=(1, 2)) | checks.absent_forces(numbers))
    if not (whole & ~checks.absent_forces(numbers)).any():
      raise ValueError(f"none of the {len(whole):,} frames has energy and forces")
    numbers = raw.take(numbers, whole)
  elif numbers.unlabelled is not None:
    try:
      raw.require_key(None, str(numbers.keys.energy), "energy", numbers.unlabelled,
                      raw.named_frames(np.flatnonzero(np.isnan(numbers.energy))))
    except ValueError as error:
      if np.isnan(numbers.energy).all():
        raise
      raise ValueError(f"{error}, or leave such frames out with "
                       f"{option('incomplete', 'skip')}") from error
  checks.check_finite(units_lib.convert(numbers, unit))
  if incomplete == "references":
    numbers, references = _without_single_atoms(numbers, unit)
  no_forces = checks.absent_forces(numbers)
  no_energy = np.zeros(len(no_forces), bool)
  if check_units:
    no_forces = no_forces | checks.constant_forces(numbers)
    no_energy = checks.without_energy(units_lib.convert(numbers, unit), unit)
  if incomplete == "skip":
    kept = ~(no_forces | no_energy)
    if not kept.any():
      raise ValueError(f"none of the {len(kept):,} frames has energy and forces")
    return raw.take(numbers, kept), references
  if no_energy.any():
    value = numbers.energy[np.argmax(no_energy)]
    raise ValueError(
        f"{raw.named_frames(np.flatnonzero(no_energy))} of {len(no_energy):,}: the energy is "
        f"{value:.10g} in the file, a number that stands for an energy which is missing. Compute "
        f"it, remove such frames, or leave them out with {option('incomplete', 'skip')}")
  if incomplete == "energies":
    real = (numbers.species > 0)[..., None]
    missing = no_forces[:, None, None] & real
    return numbers._replace(forces=np.where(missing, np.nan, numbers.forces)), references
  if no_forces.any():
    raise ValueError(_missing_forces(numbers, no_forces))
  return numbers, references


def _without_single_atoms(numbers: raw.Raw, unit: Units) -> tuple[raw.Raw, dict[int, float]]:
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


def _single_atoms(numbers: raw.Raw) -> np.ndarray:
  """Mask of frames of one atom in free space."""
  single = (numbers.species > 0).sum(axis=1) == 1
  return single if numbers.cell is None else single & ~numbers.cell.any(axis=(1, 2))


def _missing_forces(numbers: raw.Raw, missing: np.ndarray) -> str:
  """What to do about frames without forces."""
  absent = checks.absent_forces(numbers)
  alone = (f"train on energies alone with {option('incomplete', 'energies')} and a force weight of "
           "0")
  if absent.all():
    key, names = str(numbers.keys.forces), numbers.left_out
    likely = raw.likely_key("forces", "forces", names)
    hint = (f"; did you mean {likely!r}? Then set {option('forces_key', likely)}" if likely
            else f". Choose with {option('forces_key')}")
    there = raw.brief(", ".join(names) or "nothing else")
    return f"no array {key!r} in any frame; there is {there}{hint}, or {alone}"
  frames = f"{raw.named_frames(np.flatnonzero(missing))} of {len(missing):,}"
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


def _with_matching_energy(numbers: raw.Raw, unit: Units) -> raw.Raw:
  """Of two energies the one that the forces are the gradient of.

  Codes that smear the occupation of states write an energy extrapolated to none and a free energy,
  whose gradient the forces are. Where near frames tell, they decide, else the definition.

  Args:
    numbers: as the file has them.
    unit: of these.
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
    warnings.warn(f"{raw.named_frames(np.flatnonzero(missing))} of {len(free):,}: no free_energy, "
                  "which other frames have beside energy, so that energy is taken. Set "
                  f"{option('energy_key')} to choose", stacklevel=4)
    return numbers
  apart = float(np.nanstd(free - numbers.energy)) * unit.energy
  misfits = [_misfit(units_lib.convert(numbers._replace(energy=energy), unit))
             for energy in (numbers.energy, free)]
  name = "energy" if misfits[0] < 0.8 * misfits[1] else raw.FREE_ENERGY
  if apart > SPREAD:
    warnings.warn(
        f"energy and free_energy differ from frame to frame by {1000 * apart:.3g} meV (standard "
        f"deviation), and forces are the gradient of one of them: {name} is taken. Set "
        f"{option('energy_key')} to choose", stacklevel=4)
  return numbers if name == "energy" else chosen


def _misfit(found: raw.Raw) -> float:
  """Median of what is left of the change of energy once the work is taken off, eV; 0 if unknown."""
  pairs = consistency.near_pairs(found)
  if len(pairs.work) < consistency.FEWEST_PAIRS:
    return 0.0
  return float(np.median(np.abs(pairs.change + pairs.work)))


def _summary(
    path: pathlib.Path, file: _File, found: raw.Raw, distances: np.ndarray,
    references: Mapping[int, float],
) -> str:
  """What was read, in a line: what a user must know before an hour of training."""
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
      f"left out {raw.brief(', '.join(found.left_out))}" if found.left_out else "",
      f"{file.unit.name}, {file.origin}",
      f"{absent:,} frame{'s' if absent > 1 else ''} without forces" if absent else "",
      f"RMS force {np.sqrt(np.mean(np.square(sizes[known]))):.3g} eV/A" if known.any() else "",
      f"closest atoms {distances.min():.3g} A apart" if np.isfinite(distances).any() else "",
      f"{len(references)} atomic references" if references else "",
  ]
  return one_line(f"{path.name}: {'; '.join(part for part in parts if part)}")


def symbols(species: np.ndarray) -> list[str]:
  """Symbols of the elements that occur, in the order of their numbers."""
  from ase.data import chemical_symbols

  return [chemical_symbols[element] for element in np.unique(species[species > 0])]


def _sentence(source: str) -> str:
  """`dcnn archive; {JSON}` in words, where the JSON is that of `generation`."""
  kind, _, text = source.partition("; ")
  try:
    made = json.loads(text)
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"{made['method']}, {made['sampling']}, seed {made['seed']} ({versions})"
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    return kind
