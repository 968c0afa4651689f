"""Checks on the numbers of a set, each naming the frame at fault."""

import math
import warnings

import numpy as np

from dcnn.data import neighbours, units
from dcnn.data.raw import Raw

COINCIDENT = 0.1  # angstrom; no two nuclei come this close in any calculation of use
# Bounds of the finite-difference check; its docstring says what for.
NEAR = 0.1  # angstrom
MOST_FRAMES = 2000
FEWEST_PAIRS = 50
OPPOSED, STRONG = 0.5, 0.9  # sizes of correlations
FARTHEST_SLOPE = 1.5
PAIRS_AT_ONCE = 500_000
MANY_ATOMS = 2000  # from here on not all pairs of atoms are looked at
FAR = 3.0  # angstrom; what tells a wrong unit of length is shorter
LARGEST = 1e30  # eV, angstrom; sums of squares stay far from the end of float64


def check_finite(raw: Raw) -> None:
  """ValueError naming the first frame with a NaN, an infinity, or what float32 makes one."""
  for name in ("positions", "energy", "forces", "cell"):
    array = getattr(raw, name)
    if array is None:
      continue
    bad = ~(np.abs(array) <= LARGEST).reshape(len(array), -1).all(axis=1)
    if bad.any():
      raise ValueError(
          f"frame {np.argmax(bad)}: {name} not finite, or beyond {LARGEST:.0e} "
          f"({bad.sum()} such frames); remove them")


def closest_pairs(raw: Raw) -> tuple[np.ndarray, np.ndarray]:
  """Shortest distance of each frame, and between which atoms or their images.

  Returns:
    Distances `(frames,)` in angstrom, infinite for a single atom, and atom pairs `(frames, 2)`.
    In periodic and in large frames distances beyond `FAR` count as infinite.
  """
  frames, atoms = raw.species.shape
  if raw.cell is not None or atoms > MANY_ATOMS:
    return _closest_listed(raw)
  first, second = np.triu_indices(atoms, 1)
  distances = np.full(frames, np.inf)
  pairs = np.zeros((frames, 2), int)
  if not len(first):
    return distances, pairs
  chunk = max(1, PAIRS_AT_ONCE // len(first))
  for start in range(0, frames, chunk):
    part = slice(start, start + chunk)
    squares = np.square(raw.positions[part, first] - raw.positions[part, second]).sum(-1)
    real = (raw.species[part, first] > 0) & (raw.species[part, second] > 0)
    squares = np.where(real, squares, np.inf)
    nearest = squares.argmin(axis=1)
    distances[part] = np.sqrt(squares.min(axis=1))
    pairs[part] = np.stack([first[nearest], second[nearest]], axis=1)
  return distances, pairs


def _closest_listed(raw: Raw) -> tuple[np.ndarray, np.ndarray]:
  distances = np.full(len(raw.species), np.inf)
  pairs = np.zeros((len(raw.species), 2), int)
  for i, (positions, species) in enumerate(zip(raw.positions, raw.species, strict=True)):
    real = np.flatnonzero(species > 0)
    try:
      near = neighbours.pairs_within(
          positions[real], None if raw.cell is None else raw.cell[i], FAR)
    except ValueError as error:
      raise ValueError(f"frame {i}: {error}") from error
    if len(near.distance):
      closest = near.distance.argmin()
      distances[i] = near.distance[closest]
      pairs[i] = real[near.first[closest]], real[near.second[closest]]
  return distances, pairs


def check_distances(distances: np.ndarray, pairs: np.ndarray) -> None:
  """ValueError naming the first frame with two atoms on top of each other, and the atoms."""
  bad = np.flatnonzero(distances < COINCIDENT)
  if bad.size:
    i = bad[0]
    raise ValueError(
        f"frame {i}: atoms {pairs[i, 0]} and {pairs[i, 1]} are {distances[i]:.3g} A apart "
        f"({bad.size} such frames). Remove such frames, or pass units= if positions are not in "
        "the unit of length that was assumed")


def warn_if_inconsistent(raw: Raw) -> None:
  """Warns where forces are not minus the gradient of the energies, and names the likely mistake.

  Between two near frames the energy changes by minus the work of the forces,

    E_2 - E_1 = -(F_1 + F_2) . (x_2 - x_1) / 2

  up to third order in the distance: a finite difference with the frames of the set as points.
  Taken are the first 2,000 frames, each with the one nearest to it, as far as the two are within
  0.1 A of each other (root mean square over coordinates) and have the same atoms in the same
  order and the same cell. Fewer than 50 such pairs are not judged. Correct sets then have
  correlations of 0.95 and more and slopes of 0.9-1.1, also those in random order.

  Warned of are a correlation below -0.5 (gradients instead of forces; pure chance passes this
  bound in one of 5,000 sets of 50 pairs) and, where the correlation exceeds 0.9 in size, a slope
  beyond 2/3 to 3/2 (energies and forces in units that do not belong together; the least such
  factor, of bohr and angstrom, is 1.9). The slope is the ratio of the standard deviations, which,
  unlike that of least squares, errors of the work do not make smaller.

  Args:
    raw: converted to eV and angstrom from `raw.units`.
  """
  first, second = _near_frames(raw)
  if len(first) < FEWEST_PAIRS:
    return
  forces = raw.forces[first] + raw.forces[second]
  work = np.sum(forces * (raw.positions[second] - raw.positions[first]), axis=(1, 2)) / 2
  change = raw.energy[second] - raw.energy[first]
  work_size, change_size = np.linalg.norm(work), np.linalg.norm(change)
  if not (work_size > 0 and change_size > 0):
    return
  correlation = float(-work @ change / (work_size * change_size))
  slope = float(change_size / work_size)
  mistakes = []
  if correlation < -OPPOSED:
    mistakes.append("gradients instead of forces? Then change the sign of the forces in the file")
  if abs(correlation) > STRONG and not 1 / FARTHEST_SLOPE <= slope <= FARTHEST_SLOPE:
    mistakes.append(units.likely_mix(raw.units, slope))
  if mistakes:
    warnings.warn(
        f"between {len(first)} pairs of near frames the energy changes by "
        f"{math.copysign(slope, correlation):.3g} times the work against the forces (correlation "
        f"{correlation:.2f}), expected 1: {'; and '.join(mistakes)}", stacklevel=3)


def _near_frames(raw: Raw) -> tuple[np.ndarray, np.ndarray]:
  """Pairs of different frames within `NEAR` of each other, each frame with its nearest one."""
  species = raw.species[:MOST_FRAMES]
  kind = species if raw.cell is None else np.concatenate(
      [species, raw.cell[:MOST_FRAMES].reshape(len(species), 9)], axis=1)
  points = raw.positions[:MOST_FRAMES].reshape(len(species), -1)
  points = points - points.mean(axis=0)  # less cancellation in the next lines
  lengths = np.square(points).sum(axis=1)
  squares = lengths[:, None] + lengths - 2 * points @ points.T
  _, composition = np.unique(kind, axis=0, return_inverse=True)
  squares[composition.reshape(-1, 1) != composition.reshape(-1)] = np.inf
  np.fill_diagonal(squares, np.inf)
  pairs = np.unique(np.sort([np.arange(len(points)), squares.argmin(axis=1)], axis=0), axis=1)
  coordinates = 3 * (species[pairs[0]] > 0).sum(axis=1)
  steps = points[pairs[0]] - points[pairs[1]]
  distances = np.sqrt(np.square(steps).sum(axis=1) / coordinates)
  same = (kind[pairs[0]] == kind[pairs[1]]).all(axis=1)
  first, second = pairs[:, same & (distances > 0) & (distances < NEAR)]
  return first, second
