"""Checks that a test set is of the same kind as the training set."""

import warnings

import numpy as np

from dcnn.base import Dataset
from dcnn.data import physics
from dcnn.data.checks import energy_residuals
from dcnn.data.loading import symbols
from dcnn.data.raw import Keys, Raw
from dcnn.data.units import UNITS

# Within these factors bonds of two sets are equally long and stiff at any temperatures.
STIFFNESS_FACTOR = 1.6
SPACING_FACTOR = 1.2
# Standard deviations that energies of the test set may lie off, beyond the effect of temperature.
FARTHEST = 10.0
LEAST = 0.02  # eV an atom; smaller differences are not worth a warning
# Atoms at the surface of crystals, or closer together, differ by up to this energy, eV an atom.
COHESION = 1.0
FEWEST = 5  # training frames, from which usual energies can be told


def check_test_set(training: Dataset, test: Dataset, *, scales: bool = True) -> None:
  """Checks that a test set is of the kind that a network was trained on.

  Warns where its energies lie elsewhere than composition and temperature say, and where its bonds
  are longer or stiffer: both are marks of another method or another unit.

  Args:
    training: All frames of the file that training and validation frames are taken from.
    test: All frames of the file to test on.
    scales: Whether to compare energies and bonds, too, as for labels of quantum chemistry.

  Raises:
    ValueError: If the test set has an element that the training set lacks.

  >>> from dcnn.data import load
  >>> ethanol = load("ethanol")
  >>> check_test_set(ethanol, ethanol)
  >>> check_test_set(load("benzene"), ethanol)
  Traceback (most recent call last):
  ...
  ValueError: ethanol has O in 2,000 of 2,000 frames (the first is frame 0), ...
  """
  known = np.unique(np.asarray(training.systems.species))
  species = np.asarray(test.systems.species)
  new = ~np.isin(species, known) & (species > 0)
  if new.any():
    frames = np.flatnonzero(new.any(axis=1))
    raise ValueError(
        f"{test.name} has {', '.join(symbols(species[new]))} in {len(frames):,} of {len(test):,} "
        f"frames (the first is frame {frames[0]}), elements that {training.name} lacks, which has "
        f"{', '.join(symbols(known))}: a network knows only what it was trained on. Remove such "
        "frames")
  if not scales:
    return
  one, other = (physics.scales(_raw(each), UNITS["eV/angstrom"]) for each in (training, test))
  mistakes = []
  for name, limit, adjective in (
      ("stiffness", STIFFNESS_FACTOR, "as stiff"), ("spacing", SPACING_FACTOR, "as long")):
    factor = getattr(other, name) / getattr(one, name)
    if abs(np.log(factor)) > np.log(limit):
      mistakes.append(f"its bonds are {factor:.3g} times {adjective}: is it in other units?")
  mistakes += _energy_mistakes(training, test)
  if mistakes:
    warnings.warn(f"{test.name} beside {training.name}: {'; and '.join(mistakes)} Errors on it "
                  "would not be those of the network", stacklevel=3)


def _raw(dataset: Dataset) -> Raw:
  systems, labels = dataset.systems, dataset.labels
  return Raw(*map(np.asarray, (systems.positions, systems.species, labels.energy, labels.forces)),
             source="", keys=Keys(),
             cell=None if systems.cell is None else np.asarray(systems.cell))


def _energy_mistakes(training: Dataset, test: Dataset) -> list[str]:
  """Sentences on energies that lie off, less references that the training set determines."""
  species = [np.asarray(each.systems.species) for each in (training, test)]
  elements = np.unique(np.concatenate([each.ravel() for each in species]))
  elements = elements[elements > 0]
  counts = [(each[:, :, None] == elements).sum(axis=1).astype(float) for each in species]
  energies = [np.asarray(each.labels.energy) for each in (training, test)]
  if len(training) < FEWEST:
    return []
  references, *_ = np.linalg.lstsq(counts[0], energies[0], rcond=None)
  rank = np.linalg.matrix_rank(counts[0])
  judged = np.array([np.linalg.matrix_rank(np.vstack([counts[0], kind])) == rank
                     for kind in np.unique(counts[1], axis=0)])
  _, place = np.unique(counts[1], axis=0, return_inverse=True)
  kept = judged[place.reshape(-1)]
  if not kept.any():
    return []
  residual = energy_residuals(_raw(training))
  spread = float(np.nanstd(residual)) if np.isfinite(residual).any() else 0.0
  middle = np.median(energies[0] - counts[0] @ references)
  shift = float(np.median((energies[1] - counts[1] @ references)[kept]) - middle)
  atoms = float(np.median(counts[1][kept].sum(axis=1)))
  least = LEAST if training.systems.cell is None else COHESION
  thermal = _thermal_shift(training, test, spread, atoms)
  if abs(shift) <= max(FARTHEST * spread, least * atoms) + thermal:
    return []
  return [f"its energies are {shift:+.4g} eV away from those of like composition, whose standard "
          f"deviation is {spread:.3g} eV: is it of another method, or in other units?"]


def _thermal_shift(training: Dataset, test: Dataset, spread: float, atoms: float) -> float:
  """Twice the difference in eV of the mean energies of harmonic sets at two temperatures.

  The sizes of the forces tell the temperatures: potential energy and the square of the forces are
  proportional to the temperature T. The standard deviation of the energy is k T sqrt(degrees / 2),
  its mean k T degrees / 2.
  """
  forces = [np.asarray(each.labels.forces)[np.asarray(each.systems.species) > 0]
            for each in (training, test)]
  sizes = [float(np.mean(np.square(each[np.isfinite(each)]))) if np.isfinite(each).any() else 0.0
           for each in forces]
  degrees = max(3 * atoms - 6, 1.0)
  ratio = sizes[1] / sizes[0] if min(sizes) > 0 else 1.0
  return 2 * spread * float(np.sqrt(degrees / 2)) * abs(ratio - 1.0)
