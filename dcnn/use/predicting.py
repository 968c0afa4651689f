"""Predictions for the configurations of a file, and their errors where it has labels."""

import os
import pathlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ase
import ase.io
import jax
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from jaxtyping import Float

from dcnn import data
from dcnn.base import Dataset, System, files, known_forces
from dcnn.use.forcefields import ForceField, Predictions, lengthened

MOST_REMARKS = 5  #: The most remarks that are told.
_CHUNK = 1000  # frames that are predicted and written at a time


class Report(NamedTuple):
  """What was predicted of a file.

  Attributes:
    frames: Number of configurations.
    seeds: Seeds that predicted them.
    labelled: Numbers of configurations with energies and with forces.
    errors: Mean absolute errors of each seed, and in the last row of the mean over the seeds:
      (seeds + 1, 2), energies in eV and force components in eV/angstrom; nan without labels.
    spread: Root mean square over the configurations of the standard deviation over the seeds, of
      energies in eV and of force components in eV/angstrom.
    factors: What the spreads are to be multiplied by to be calibrated on validation data, where
      that is known; see `stats.calibrate`.
    remarks: How many configurations are far from the training data in which way.
  """

  frames: int
  seeds: tuple[int, ...]
  labelled: tuple[int, int]
  errors: Float[np.ndarray, "rows 2"]
  spread: tuple[float, float]
  factors: dict[str, float]
  remarks: dict[str, int]

  def lines(self, out: str) -> list[str]:
    """The report in words and a table, for a terminal.

    Args:
      out: The file that was written.
    """
    energies, forces = self.labelled
    text = [f"{out}: {self.frames:,} configurations by the mean of {len(self.seeds)} seeds"]
    if energies or forces:
      text += [
          f"mean absolute errors over {energies:,} configurations with energies and {forces:,} "
          "with forces:", "",
          "| seed | energy_loss (meV) | force_loss (meV/A) |", "|:--|--:|--:|"]
      names = [*map(str, self.seeds), "their mean"]
      text += [f"| {name} | {_milli(error[0])} | {_milli(error[1])} |"
               for name, error in zip(names, self.errors, strict=True)]
      text.append("")
    if len(self.seeds) > 1:
      text.append(f"the seeds differ by {_milli(self.spread[0])} meV and "
                  f"{_milli(self.spread[1])} meV/A (standard deviation, root mean square)")
    if self.factors:
      factors = " and ".join(f"{factor:.3g} for {name}" for name, factor in self.factors.items())
      text.append(f"multiply the standard deviations by {factors}: these factors were calibrated "
                  "on validation data")
    shown = sorted(self.remarks.items(), key=lambda each: -each[1])
    text += [f"note: {count:,} configuration{'s are' if count > 1 else ' is'} far from the "
             f"training data in {subject}"
             for subject, count in shown[:MOST_REMARKS]]
    if shown[MOST_REMARKS:]:
      text.append(f"note: and in {len(shown) - MOST_REMARKS} more ways")
    return text


class _Sums:
  """Sums over configurations, of errors of each seed and of their mean, and of variances."""

  def __init__(self, seeds: int) -> None:
    self.errors, self.counts = np.zeros((seeds + 1, 2)), np.zeros(2, int)
    self.squares, self.components = np.zeros(2), np.zeros(2, int)
    self.labelled = np.zeros(2, int)

  def add(self, part: Dataset, found: Predictions) -> None:
    real = np.asarray(part.systems.species) > 0
    energy, forces = (np.asarray(each) for each in part.labels)
    known = np.asarray(known_forces(forces, part.systems.species))
    has_energy = np.isfinite(energy)
    with_mean = [np.concatenate([each, each.mean(axis=1, keepdims=True)], axis=1)
                 for each in (found.energy, found.forces.astype(np.float64))]
    off = np.abs(with_mean[0] - energy[:, None])[has_energy].sum(axis=0)
    apart = np.where(known[:, None], np.abs(with_mean[1] - forces[:, None]), 0.0)
    self.errors += np.stack([off, apart.sum(axis=(0, 2, 3))], axis=1)
    self.counts += [has_energy.sum(), known.sum()]
    self.labelled += [has_energy.sum(), known.any(axis=(1, 2)).sum()]
    self.squares += [found.energy.var(axis=1).sum(),
                     (found.forces.astype(np.float64).var(axis=1) * real[..., None]).sum()]
    self.components += [len(real), 3 * real.sum()]


def predict_file(
    field: ForceField, path: str | os.PathLike[str], out: str | os.PathLike[str], *,
    on_progress: Callable[[float], None] = lambda fraction: None, **options: Any,
) -> Report:
  """Predicts the configurations of a file and writes them down as extended XYZ.

  Each frame has `energy` and `forces` (and `stress` of a crystal) by the mean over the seeds, with
  `energy_std` and `forces_std`, the standard deviations over them; labels of the file are kept as
  `REF_energy` and `REF_forces`, and nothing else of it. Units are eV and angstrom.

  Args:
    field: What predicts.
    path: The file, or the name of an embedded molecule.
    out: The file to write, whole or not at all.
    on_progress: Called with the fraction that is done, 0 to 1.
    **options: How to read the file, as for `data.load_unlabelled`.

  Returns:
    What was predicted, and how well.

  Raises:
    ValueError, OSError: If the file cannot be read or predicted, naming the frame.
  """
  if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
    raise ValueError(f"{out} is the file to predict: choose another name for what is predicted")
  dataset = data.load_unlabelled(path, **options)
  data.require_elements(field.domain, dataset.systems.species, os.fspath(path))
  sums, remarks, pairs = _Sums(len(field.seeds)), {}, 0
  target = pathlib.Path(out)
  temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}{files.UNFINISHED}")
  try:
    with temporary.open("x", encoding="utf-8") as file:
      for start in range(0, len(dataset), _CHUNK):
        part = dataset.take(np.arange(start, min(start + _CHUNK, len(dataset))))
        listed = field.with_neighbours(part.systems)
        if listed.neighbours is not None:  # lists as long as any before need no new program
          near = lengthened(listed.neighbours, pairs)
          listed, pairs = listed._replace(neighbours=near), near.first.shape[-1]
        found = field.predict(listed)
        sums.add(part, found)
        for subject in _remarks(field, listed):
          remarks[subject] = remarks.get(subject, 0) + 1
        ase.io.write(file, list(_frames(part, found)), format="extxyz")
        on_progress((start + len(part)) / len(dataset))
    os.replace(temporary, target)
  finally:
    temporary.unlink(missing_ok=True)
  with np.errstate(invalid="ignore"):
    errors = sums.errors / sums.counts
  energies, forces = sums.labelled.tolist()
  spread = np.sqrt(sums.squares / sums.components).tolist()
  return Report(len(dataset), field.seeds, (energies, forces), errors, (spread[0], spread[1]),
                {name: found.factor for name, found in field.calibration.items()
                 if np.isfinite(found.factor)}, remarks)


def _remarks(field: ForceField, listed: System) -> Iterator[str]:
  """The subjects in which frames are far from the training data, once for each such frame."""
  for i in range(len(listed.species)):
    system = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], listed)
    yield from data.remarks(field.domain, system)


def _frames(part: Dataset, found: Predictions) -> Iterator[ase.Atoms]:
  """The configurations of a chunk with what is predicted of them."""
  systems, labels = part.systems, part.labels
  for i in range(len(part)):
    real = np.asarray(systems.species[i]) > 0
    cell = None if systems.cell is None else np.asarray(systems.cell[i])
    atoms = ase.Atoms(
        numbers=systems.species[i][real], positions=systems.positions[i][real], cell=cell,
        pbc=False if cell is None else cell.any(axis=1))
    forces = found.forces[i][:, real].astype(np.float64)
    results = {"energy": float(found.energy[i].mean()), "forces": forces.mean(axis=0)}
    if found.stress is not None:
      results["stress"] = found.stress[i].mean(axis=0)
    atoms.info["energy_std"] = float(found.energy[i].std())
    atoms.arrays["forces_std"] = forces.std(axis=0)
    if np.isfinite(labels.energy[i]):
      atoms.info["REF_energy"] = float(labels.energy[i])
    if np.isfinite(labels.forces[i][real]).all():
      atoms.arrays["REF_forces"] = np.asarray(labels.forces[i][real])
    atoms.calc = SinglePointCalculator(atoms, **results)
    yield atoms


def _milli(value: float) -> str:
  return "" if np.isnan(value) else f"{1000 * value:.3g}"
