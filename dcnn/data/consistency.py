"""Checks that energies, forces and positions belong together, by laws that right labels obey."""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dcnn.data import physics
from dcnn.data.raw import Raw, frames_text, take
from dcnn.data.units import Units, likely_mix

# Root mean square distance over coordinates, angstrom, up to which frames are near. Molecules that
# were turned onto each other have more small distances, and the quotient is good at larger ones.
NEAR, NEAR_ALIGNED = 0.1, 0.13
MOST_FRAMES = 2000
FEWEST_PAIRS = 50
# Correlations of work and change of energy: right sets have 0.94 and more, wrong ones 0.43 at most.
RELATED, STRONG, OPPOSED = 0.7, 0.9, 0.8
FARTHEST_SLOPE = 1.5
# Net force in eV/A and torque in eV of a molecule in free space, root mean square over components:
# right sets have 0.004 and less, those of other frames or atoms 1 and more.
BALANCE = 0.1
RELATIVE_BALANCE = 0.05  # of what the same forces would give in random directions
FEW = 0.25  # share of all frames; a larger share is a property of the set
SAME_ENERGY = 1e-3  # eV
FAR_OFF = 15.0  # robust standard deviations that a single frame may lie off
MOST_BAD = 0.1  # share of pairs; a larger share is no exception


class Pairs(NamedTuple):
  """Near frames, and how the energy changes between them.

  Attributes:
    first: Number of the first frame of each pair.
    second: Number of the second frame.
    change: Change of the energy from the first to the second frame in eV.
    work: Work of the forces on the way in eV: minus the change, up to third order in the distance.
    distance: Root mean square distance over coordinates in angstrom.
  """

  first: Int[np.ndarray, " pairs"]
  second: Int[np.ndarray, " pairs"]
  change: Float[np.ndarray, " pairs"]
  work: Float[np.ndarray, " pairs"]
  distance: Float[np.ndarray, " pairs"]


def near_pairs(raw: Raw, *, free: bool = True) -> Pairs:
  """The near frames of a set, with the changes of their energies.

  Between two near frames the energy changes by minus the work of the forces,

    E_2 - E_1 = -(F_1 + F_2) . (x_2 - x_1) / 2

  up to third order in the distance: a finite difference with the frames of the set as points.
  At most 2,000 frames are taken, in segments over the set, and each is paired with the frame
  nearest to it, if the two are within 0.1 A of each other (root mean square over coordinates) and
  have the same atoms in the same order and the same cell. If there are fewer than 50 such pairs,
  molecules in free space are first moved and turned onto each other, with their forces.

  Args:
    raw: The numbers in eV and angstrom.
    free: Whether molecules may be turned, because nothing outside holds them.
  """
  taken = _segments(len(raw.energy))
  some = take(raw, taken)
  pairs = _pairs(some, NEAR)
  if len(pairs.work) < FEWEST_PAIRS and raw.cell is None and free:
    pairs = _pairs(_align(some), NEAR_ALIGNED)
  return pairs._replace(first=taken[pairs.first], second=taken[pairs.second])


def _segments(frames: int) -> Int[np.ndarray, " taken"]:
  """Numbers of at most `MOST_FRAMES` frames, in segments of 100 spread evenly over a longer set."""
  if frames <= MOST_FRAMES:
    return np.arange(frames)
  starts = np.linspace(0, frames - 100, MOST_FRAMES // 100).astype(int)
  return np.unique(starts[:, None] + np.arange(100))


def _pairs(raw: Raw, reach: float) -> Pairs:
  """Pairs of different frames within `reach` in angstrom, each frame with its nearest one."""
  species = raw.species
  kind = species if raw.cell is None else np.concatenate(
      [species, raw.cell.reshape(len(species), 9)], axis=1)
  points = raw.positions.reshape(len(species), -1)
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
  near = same & (distances > 0) & (distances < reach)
  (first, second), distance = pairs[:, near], distances[near]
  forces = raw.forces[first] + raw.forces[second]
  work = np.sum(forces * (raw.positions[second] - raw.positions[first]), axis=(1, 2)) / 2
  change = raw.energy[second] - raw.energy[first]
  known = np.isfinite(work) & np.isfinite(change)
  return Pairs(*(array[known] for array in (first, second, change, work, distance)))


def _align(raw: Raw) -> Raw:
  """Moves and turns all frames with one list of species onto the first of them, with their forces.

  References:
    W. Kabsch, Acta Cryst. A 32 (1976) 922.
  """
  real = (raw.species > 0)[..., None]
  centred = np.where(real, raw.positions - raw.positions.sum(axis=1, keepdims=True) / real.sum(
      axis=1, keepdims=True), 0.0)
  _, kinds = np.unique(raw.species, axis=0, return_inverse=True)
  _, first = np.unique(kinds, return_index=True)
  covariance = np.einsum("fai,faj->fij", centred, centred[first][kinds.reshape(-1)])
  left, _, right = np.linalg.svd(covariance)
  # A turn, not a mirror image.
  left[..., 2] *= np.sign(np.linalg.det(left @ right))[:, None]
  turns = left @ right
  return raw._replace(positions=centred @ turns, forces=raw.forces @ turns)


def correlation(pairs: Pairs) -> float:
  """Correlation of the change of energy with the work against the forces: 1 for right labels.

  No mean is subtracted, because both are zero on average. It is nan for fewer than 50 pairs, and
  where either is zero throughout.
  """
  sizes = np.linalg.norm(pairs.work), np.linalg.norm(pairs.change)
  if len(pairs.work) < FEWEST_PAIRS or not min(sizes) > 0:
    return math.nan
  return float(-pairs.work @ pairs.change / (sizes[0] * sizes[1]))


def warn_if_inconsistent(raw: Raw, unit: Units, *, physical: bool = True) -> None:
  """Warns where forces are not minus the gradient of the energies, and names the likely mistake.

  Fewer than 50 near pairs are not judged. Right sets have correlations of 0.94 and more and slopes
  of 0.9-1.1, also in random order. The function warns of a correlation below 0.7 (labels of other
  frames, atoms or methods; below -0.8 gradients instead of forces) and, where it exceeds 0.9 in
  size, of a slope outside 2/3 to 3/2 (energies and forces in units that do not belong together; the
  least such factor, of bohr and angstrom, is 1.9). The slope is the ratio of the standard
  deviations: unlike the slope of least squares, it is not made smaller by errors of the work.

  The function also names single frames whose energy or forces do not fit those of all their
  neighbours. The forces on a molecule in free space must neither move nor turn it, unless the
  energies follow such forces, too: then something outside holds it.

  Args:
    raw: The numbers in eV and angstrom.
    unit: The units that they were converted from.
    physical: Whether molecules are in free space.
  """
  def fits(other: Units) -> bool:
    """Whether the numbers may be in another unit, as far as bonds tell."""
    relative = other._replace(energy=other.energy / unit.energy, length=other.length / unit.length,
                              force=other.force / unit.force)
    return not physical or not physics.contradicts(physics.scales(raw, relative))

  pairs = near_pairs(raw, free=physical)
  odd = _odd_frames(pairs)
  if odd.size:
    pairs = Pairs(*(array[~np.isin(pairs.first, odd) & ~np.isin(pairs.second, odd)]
                    for array in pairs))
    warnings.warn(f"{frames_text(odd)}: energy and forces do not fit those of the frames near by: "
                  "labels of another frame, or a calculation that failed? Look at them, or remove "
                  "them", stacklevel=4)
  found = correlation(pairs)
  mistakes = _mistakes(pairs, found, unit, fits) if math.isfinite(found) else []
  if physical:
    mistakes += _imbalance_mistakes(raw, found)
  _warn_of_repeats(raw)
  if mistakes:
    warnings.warn("; and ".join(mistakes), stacklevel=4)


def _pushes(raw: Raw) -> bool:
  """Whether energies follow net forces while molecules move, as if held from outside.

  Only frames that are near without being turned onto each other tell.
  """
  some = take(raw, _segments(len(raw.energy)))
  pairs = _pairs(some, NEAR)
  if len(pairs.work) < FEWEST_PAIRS:
    return False
  real = (some.species > 0)[..., None]
  net = np.where(real, some.forces, 0.0).sum(axis=1)
  centre = some.positions.sum(axis=1) / real.sum(axis=1)
  step = centre[pairs.second] - centre[pairs.first]
  of_net = np.sum((net[pairs.first] + net[pairs.second]) / 2 * step, axis=1)
  with_net, without = (float(np.square(pairs.change + work).sum())
                       for work in (pairs.work, pairs.work - of_net))
  return without > 1.5 * with_net


def _warn_of_repeats(raw: Raw) -> None:
  """Warns of equal configurations with different energies."""
  seen: dict[bytes, int] = {}
  odd = []
  for frame, positions in enumerate(raw.positions):
    cell = b"" if raw.cell is None else raw.cell[frame].tobytes()
    first = seen.setdefault(positions.tobytes() + raw.species[frame].tobytes() + cell, frame)
    if abs(raw.energy[frame] - raw.energy[first]) > SAME_ENERGY:
      odd.append(frame)
  if odd:
    warnings.warn(f"{frames_text(odd)} repeat configurations of earlier frames with other "
                  "energies: two methods in one file, or labels of other frames?", stacklevel=5)


def _mistakes(
    pairs: Pairs, found: float, unit: Units, fits: Callable[[Units], bool]) -> list[str]:
  slope = float(np.linalg.norm(pairs.change) / np.linalg.norm(pairs.work))
  mistakes = []
  if found < -OPPOSED:
    mistakes.append("gradients instead of forces? Then change the sign of the forces in the file")
  elif found < RELATED:
    mistakes.append(
        "labels of other frames, of atoms in another order, of mirrored positions, or too noisy to "
        "learn from? Then make energies and forces anew, together")
  if abs(found) > STRONG and not 1 / FARTHEST_SLOPE <= slope <= FARTHEST_SLOPE:
    mistakes.append(likely_mix(unit, slope, fits))
  if not mistakes:
    return []
  return [f"between {len(pairs.work)} pairs of near frames the energy changes by "
          f"{math.copysign(slope, found):.3g} times the work against the forces (correlation "
          f"{found:.2f}), expected 1: {'; and '.join(mistakes)}"]


def _odd_frames(pairs: Pairs) -> Int[np.ndarray, " odd"]:
  """Numbers of the few frames that fit none of their neighbours, where most frames fit."""
  none = np.zeros(0, int)
  if len(pairs.work) < FEWEST_PAIRS:
    return none
  residual = np.abs(pairs.change + pairs.work)
  far = np.maximum(pairs.distance / np.median(pairs.distance), 1.0) ** 3  # as the error grows
  typical = max(FAR_OFF * 1.4826 * np.median(residual), np.median(np.abs(pairs.work)))
  bad = residual > np.maximum(
      typical * far, 0.75 * (np.abs(pairs.change) + np.abs(pairs.work)))
  if not 0 < bad.sum() <= MOST_BAD * len(bad):
    return none
  ends = np.stack([pairs.first, pairs.second])
  good = np.unique(ends[:, ~bad])
  odd: set[int] = set()
  left = ends[:, bad]
  while left.size:  # the frame with the most misfits first: its partners may be right
    frames, counts = np.unique(left, return_counts=True)
    counts = counts + 0.5 * ~np.isin(frames, good)
    worst = frames[counts == counts.max()]
    odd |= {int(frame) for frame in worst}
    left = left[:, ~np.isin(left, worst).any(axis=0)]
  return np.setdiff1d(sorted(odd), good)


def _imbalance_mistakes(raw: Raw, found: float) -> list[str]:
  """Names frames whose forces are not in balance, unless the energies follow such forces, too."""
  real = (raw.species > 0)[..., None]
  atoms = real.sum(axis=1)
  centre = raw.positions.sum(axis=1, keepdims=True) / atoms[:, None]
  arms = np.where(real, raw.positions - centre, 0.0)
  judged = (atoms[:, 0] > 1) & np.isfinite(raw.forces).all(axis=(1, 2))
  if raw.cell is not None:
    judged &= ~raw.cell.any(axis=(1, 2))
  forces = np.where(judged[:, None, None], raw.forces, 0.0)

  def imbalance(
      net: Float[np.ndarray, "frames 3"], parts: Float[np.ndarray, "frames atoms 3"]
  ) -> Bool[np.ndarray, " frames"]:
    size = np.sqrt(np.square(net).mean(axis=-1))
    random = np.sqrt(np.square(parts).sum(axis=(1, 2)) / 3)
    return judged & (size > BALANCE) & (size > RELATIVE_BALANCE * random)

  torques = np.cross(arms, forces)
  moved = imbalance(forces.sum(axis=1), forces)
  turned = imbalance(torques.sum(axis=1), torques)
  either = np.flatnonzero(moved | turned)
  outside = found >= STRONG and len(either) >= FEW * len(moved)
  if not either.size or outside and (not moved.any() or _pushes(raw)):
    return []
  what = " and ".join(word for word, flags in (("move", moved), ("turn", turned)) if flags.any())
  return [f"in {frames_text(either)} of {len(raw.species):,} the forces add up to something that "
          f"would {what} the molecule, which in free space they cannot: forces of another frame, "
          "of atoms in another order, of mirrored positions or of a part of the system?"]
