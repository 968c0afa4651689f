"""Checks on the numbers of a set, each naming the frame at fault."""

import warnings

import numpy as np

from dcnn.data.raw import Raw

COINCIDENT = 0.1  # angstrom; no two nuclei come this close in any calculation of use
# Frames this near to each other (root mean square displacement, angstrom) share enough of the
# energy surface for the trapezoidal work of the forces to follow the change of energy.
NEIGHBOURS = 0.3
FEWEST_NEIGHBOURS = 50
PAIRS_AT_ONCE = 500_000


def check_finite(raw: Raw) -> None:
  """ValueError naming the first frame with a NaN or an infinity."""
  for name in ("positions", "energy", "forces"):
    array = getattr(raw, name)
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
      raise ValueError(
          f"frame {np.argmax(bad)}: {name} not finite ({bad.sum()} such frames); remove them")


def closest_pairs(raw: Raw) -> tuple[np.ndarray, np.ndarray]:
  """Shortest distance of each frame, and between which atoms; infinite for a single atom.

  Returns:
    Distances `(frames,)` in angstrom and atom pairs `(frames, 2)`.
  """
  frames, atoms = raw.species.shape
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


def check_distances(distances: np.ndarray, pairs: np.ndarray) -> None:
  """ValueError naming the first frame with two atoms on top of each other, and the atoms."""
  bad = np.flatnonzero(distances < COINCIDENT)
  if bad.size:
    i = bad[0]
    raise ValueError(
        f"frame {i}: atoms {pairs[i, 0]} and {pairs[i, 1]} are {distances[i]:.3g} A apart "
        f"({bad.size} such frames). Remove such frames, or pass units= if positions are not in "
        "the unit of length that was assumed")


def warn_if_opposed(raw: Raw) -> None:
  """Warns where forces point uphill: gradients given as forces.

  Between two near frames the energy changes by minus the work of the forces,
  E_2 - E_1 = -(F_1 + F_2) . (x_2 - x_1) / 2 up to third order. The sign of the correlation over
  all consecutive frames that are near tells forces from gradients; shuffled sets have no such
  frames and are not judged.
  """
  if len(raw.energy) <= FEWEST_NEIGHBOURS:
    return
  steps = np.diff(raw.positions, axis=0)
  near = (np.sqrt(np.square(steps).mean(axis=(1, 2))) < NEIGHBOURS)
  near &= (raw.species[1:] == raw.species[:-1]).all(axis=1)
  if near.sum() < FEWEST_NEIGHBOURS:
    return
  work = np.sum((raw.forces[1:] + raw.forces[:-1]) * steps, axis=(1, 2))[near] / 2
  change = np.diff(raw.energy)[near]
  if work.std() == 0 or change.std() == 0:
    return
  correlation = np.corrcoef(-work, change)[0, 1]
  if correlation < -0.2:
    warnings.warn(
        "the energy rises along the forces between neighbouring frames (correlation "
        f"{correlation:.2f}): gradients instead of forces? Then change their sign", stacklevel=3)
