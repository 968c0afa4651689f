"""The natural scales of quantum chemistry, which tell wrong units from right ones.

The size of forces tells little, because it depends on the temperature. Three quantities have a
scale of their own. Nearest atoms are as far apart as the sum of their covalent radii. The force
along a bond changes with its length by 20-80 eV/A^2, which depends on the bond alone. The total
energy of all electrons is that of the free atoms, up to a few parts in a thousand.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dcnn.base import HARTREE
from dcnn.data import neighbours
from dcnn.data.raw import Raw, take
from dcnn.data.units import LENGTH_UNITS, Units

MILLIDYNE_PER_ANGSTROM = 6.241509  # eV/A^2
MOST_FRAMES = 400  # that are looked at, evenly over the set
FEW_ATOMS = 300  # up to this number all pairs are looked at, without the import of vesin
MOST_ATOMS = 2000  # larger frames are not looked at for bonds
MOST_KINDS = 20  # compositions whose bonds are followed from frame to frame
FEWEST_LENGTHS = 5  # frames in which the length of a bond must be known
BONDED = 1.25  # atoms up to this many sums of covalent radii apart are bonded
SMALLEST_SPREAD = 2e-3  # relative spread of the lengths of a bond; relaxed geometries have less
# Bounds of the usual: spacing is 0.90-1.03 in molecules, stiffness 1.05-1.47, see BUILD_NOTES.md.
# The bounds of spacing are less than bohr and angstrom apart (1.89), those of stiffness less than
# kJ/mol and kcal/mol (4.18), so that at most one of two units can be right.
SPACING = (0.75, 1.37)
STIFFNESS = (0.62, 2.5)
TOTAL_ENERGY = (0.94, 1.06)
NOBLE = (2, 10, 18, 36, 54, 86)

# Largest number of bonds of an atom; boron is left out because it shares hydrogen.
MOST_BONDS = {1: 1, 6: 4, 7: 4, 8: 3, 9: 1, 14: 6, 15: 6, 16: 6, 17: 4}

# Periods of the elements whose bonds Badger's rule describes, and its d_ij in angstrom.
_PERIODS = {1: 0, **dict.fromkeys((5, 6, 7, 8, 9), 1), **dict.fromkeys((14, 15, 16, 17), 2)}
_BADGER = {(0, 0): 0.025, (0, 1): 0.335, (0, 2): 0.585, (1, 1): 0.68, (1, 2): 0.9, (2, 2): 1.18}


class Scales(NamedTuple):
  """How numbers in some units compare with the usual ones; nan where it is not known.

  Attributes:
    spacing: Distance of nearest atoms over the sum of their covalent radii, median over atoms.
    stiffness: Stiffness of bonds over that of Badger's rule, median over bonds.
    total: Energy over that of the free atoms with all electrons, median over frames.
  """

  spacing: float
  stiffness: float
  total: float


def scales(raw: Raw, unit: Units) -> Scales:
  """The scales of a set if its numbers are in `unit`."""
  sample = _sample(raw)
  bonds = _bonds(sample, unit.length)
  force = unit.force / unit.length
  free_atoms = HARTREE * atomic_energies(sample.species).sum(axis=1)
  return Scales(
      spacing=bonds.spacing,
      stiffness=force * bonds.stiffness,
      total=float(np.median(sample.energy / free_atoms)) * unit.energy)


def contradicts(found: Scales) -> bool:
  """Whether scales that were computed for some units show that the numbers are not in these."""
  if is_beyond(found.spacing, SPACING):
    return True
  # Total energies do not count here: some files have sums of other things under this name.
  return is_beyond(found.stiffness, STIFFNESS)


def confirms(found: Scales) -> bool:
  """Whether one of the scales shows that the numbers are in these units."""
  if contradicts(found):
    return False
  return bool(np.isfinite(found.stiffness)) or _is_within(found.total, TOTAL_ENERGY)


def fitting_units(raw: Raw, known: Iterable[Units]) -> list[str]:
  """Names of those units that the scales of a set confirm."""
  return [unit.name for unit in known if confirms(scales(raw, unit))]


def fitting_lengths(raw: Raw) -> list[str]:
  """Names of the lengths in which nearest atoms are as far apart as bonded ones."""
  sample = _sample(raw)
  if (sample.species > 0).sum(axis=1).max() < 3:  # two atoms may be pulled apart
    return []
  return [name for name, length in LENGTH_UNITS.items()
          if _is_within(_bonds(sample, length).spacing, SPACING)]


def odd_bonds(raw: Raw) -> float:
  """Share of atoms without a neighbour at the distance of a bond, or with more than they can bind.

  Only molecules of three atoms or more are looked at, of the elements of Badger's rule except
  boron; the share is nan where there are none.

  Args:
    raw: The numbers in eV and angstrom.
  """
  odd, judged = 0, 0
  for kind in _kinds(_sample(raw)):
    frame = take(kind, _typical_frame(kind))
    species = frame.species[0]
    atoms = int((species > 0).sum())
    if not 3 <= atoms <= MOST_ATOMS or not np.isin(species, [0, *MOST_BONDS]).all():
      continue
    pairs = _near_pairs(frame, 1.0)
    spacing = np.array(_spacings(species, pairs))
    bonds = np.zeros(len(species), int)
    bonded = _bonded_pairs(species, pairs)
    np.add.at(bonds, bonded.first, 1)
    np.add.at(bonds, bonded.second, 1)
    most = np.array([MOST_BONDS.get(int(element), 0) for element in species])
    too_many = (bonds > most)[species > 0]
    odd += len(kind.species) * int((too_many | (np.abs(np.log(spacing)) > np.log(1.25))).sum())
    judged += len(kind.species) * atoms
  return odd / judged if judged else np.nan


def is_symmetric(raw: Raw, frame: int) -> bool:
  """Whether the atoms of a periodic frame have their neighbours evenly around them.

  Args:
    raw: The numbers in any unit of length.
    frame: Number of the frame.
  """
  assert raw.cell is not None
  real = np.flatnonzero(raw.species[frame] > 0)
  positions, cell = raw.positions[frame][real], raw.cell[frame]
  volume = abs(float(np.linalg.det(neighbours.complete_cell(cell))))
  reach = 1.7 * (volume / len(real)) ** (1 / 3)
  try:
    pairs = neighbours.pairs_within(positions, cell, reach)
  except ValueError:
    return False
  vectors = positions[pairs.second] - positions[pairs.first] + pairs.shifts @ cell
  total = np.zeros_like(positions)
  np.add.at(total, pairs.first, vectors / pairs.distance[:, None] ** 4)
  np.add.at(total, pairs.second, -vectors / pairs.distance[:, None] ** 4)
  return bool(np.abs(total).max(initial=0.0) < 1e-3 * reach**-3)


def _is_within(value: float, bounds: tuple[float, float]) -> bool:
  return bool(bounds[0] <= value <= bounds[1])


def is_beyond(value: float, bounds: tuple[float, float]) -> bool:
  """Whether a scale is known and lies outside its bounds."""
  return bool(np.isfinite(value)) and not _is_within(value, bounds)


def _sample(raw: Raw) -> Raw:
  """Frames that have forces, evenly over the set."""
  there = np.flatnonzero(np.isfinite(raw.forces).all(axis=(1, 2)))
  there = there if len(there) else np.arange(len(raw.species))
  return take(raw, there[np.linspace(0, len(there) - 1, min(len(there), MOST_FRAMES)).astype(int)])


def atomic_energies(species: Int[np.ndarray, "*frames"]) -> Float[np.ndarray, "*frames"]:
  """Energies of free neutral atoms with all electrons, hartree, to 1 % from beryllium on.

  E(Z) = -0.7687 Z^(7/3) + Z^2 / 2 - 0.2699 Z^(5/3), zero for Z = 0.

  References:
    J. Schwinger, Thomas-Fermi model: the second correction, Phys. Rev. A 24 (1981) 2353.
  """
  charge = species.astype(float)
  return -0.7687 * charge ** (7 / 3) + charge**2 / 2 - 0.2699 * charge ** (5 / 3)


class _Bonds(NamedTuple):
  """Scales of bonds.

  Attributes:
    spacing: The same as in `Scales`.
    stiffness: Force per length in the units of the file over that of Badger's rule in eV/A^2.
  """

  spacing: float
  stiffness: float


def _bonds(raw: Raw, length: float) -> _Bonds:
  spacings: list[float] = []
  ratios: list[float] = []
  pooled: dict[tuple[int, int], list[np.ndarray]] = {}
  for kind in _kinds(raw):
    first = take(kind, _typical_frame(kind))
    if (first.species > 0).sum() > MOST_ATOMS:
      continue
    pairs = _near_pairs(first, length)
    spacings += _spacings(first.species[0], pairs)
    bonded = _bonded_pairs(first.species[0], pairs)
    if not len(bonded.first):
      continue
    lengths, forces = _bond_forces(kind, bonded)
    if len(kind.species) >= FEWEST_LENGTHS:
      elements = np.stack([first.species[0][bonded.first], first.species[0][bonded.second]], 1)
      ratios += [
          ratio for ratio in map(functools.partial(_stiffness, length=length), lengths.T, forces.T,
                                 elements) if np.isfinite(ratio)]
    else:
      _pool(pooled, first.species[0], bonded, lengths, forces)
  if not ratios:
    gathered = {pair: np.concatenate(parts, axis=1) for pair, parts in pooled.items()}
    ratios = [_stiffness(both[0], both[1], np.array(pair), length=length)
              for pair, both in gathered.items()]
    ratios = [ratio for ratio in ratios if np.isfinite(ratio)]
  median = [float(np.median(values)) if values else np.nan for values in (spacings, ratios)]
  return _Bonds(*median)


def _kinds(raw: Raw) -> Iterator[Raw]:
  """The frames of each list of species, the most frequent first."""
  _, place, count = np.unique(raw.species, axis=0, return_inverse=True, return_counts=True)
  order = np.argsort(-count, kind="stable")
  limit = MOST_KINDS if count.max() >= FEWEST_LENGTHS else len(order)
  for kind in order[:limit]:
    yield take(raw, np.flatnonzero(place.reshape(-1) == kind))


def _typical_frame(kind: Raw) -> Int[np.ndarray, " 1"]:
  """The number of the frame of median forces, in which probably no bond is broken."""
  with np.errstate(invalid="ignore"):
    sizes = np.square(kind.forces).sum(axis=(1, 2))
  return np.argsort(sizes)[[len(sizes) // 2]]


def _near_pairs(frame: Raw, length: float) -> neighbours.Pairs:
  """Pairs of the one frame of `frame` that might be bonded, distances in angstrom."""
  real = np.flatnonzero(frame.species[0] > 0)
  positions = frame.positions[0][real] * length
  reach = 2 * BONDED * SPACING[1] * float(radii(frame.species[0][real]).max())
  if frame.cell is None and len(real) <= FEW_ATOMS:
    first, second = np.triu_indices(len(real), 1)
    distance = np.linalg.norm(positions[second] - positions[first], axis=1)
    near = distance < reach
    return neighbours.Pairs(
        real[first[near]], real[second[near]], np.zeros((near.sum(), 3), int), distance[near])
  cell = None if frame.cell is None else frame.cell[0] * length
  try:
    pairs = neighbours.pairs_within(positions, cell, reach)
  except ValueError:  # too flat, too large or too many: not in these units
    none = np.zeros(0, int)
    return neighbours.Pairs(none, none, np.zeros((0, 3), int), np.zeros(0))
  return pairs._replace(first=real[pairs.first], second=real[pairs.second])


def radii(species: Int[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
  """Covalent radii of atoms in angstrom, from ASE's table.

  References:
    B. Cordero et al., Covalent radii revisited, Dalton Trans. 2008, 2832.
  """
  from ase.data import covalent_radii

  return covalent_radii[species]


def _spacings(species: Int[np.ndarray, " atoms"], pairs: neighbours.Pairs) -> list[float]:
  """Distance of each atom, except noble gases, to its nearest one over the sum of their radii."""
  ratio = pairs.distance / (radii(species)[pairs.first] + radii(species)[pairs.second])
  nearest = np.full(len(species), np.inf)
  np.minimum.at(nearest, pairs.first, ratio)
  np.minimum.at(nearest, pairs.second, ratio)
  judged = (species > 0) & ~np.isin(species, NOBLE)
  if judged.sum() < 2:
    return []
  # Without a neighbour in reach an atom counts as very far away.
  return [float(min(value, 10.0)) for value in nearest[judged]]


def _bonded_pairs(
    species: Int[np.ndarray, " atoms"], pairs: neighbours.Pairs) -> neighbours.Pairs:
  """Those pairs that are bonds which Badger's rule describes."""
  sizes = radii(species)
  described = np.isin(species, list(_PERIODS))
  keep = (pairs.distance < BONDED * (sizes[pairs.first] + sizes[pairs.second])) & (
      described[pairs.first] & described[pairs.second])
  return neighbours.Pairs(*(np.asarray(values)[keep] for values in pairs))


def _bond_forces(
    kind: Raw, bonds: neighbours.Pairs
) -> tuple[Float[np.ndarray, "frames bonds"], Float[np.ndarray, "frames bonds"]]:
  """Lengths of bonds and the forces that stretch them (frames bonds), in the units of the file."""
  between = kind.positions[:, bonds.second] - kind.positions[:, bonds.first]
  if kind.cell is not None:
    between = between + np.einsum("bi,fij->fbj", bonds.shifts.astype(float), kind.cell)
  lengths = np.linalg.norm(between, axis=-1)
  forces = (kind.forces[:, bonds.second] - kind.forces[:, bonds.first]) / 2
  with np.errstate(divide="ignore", invalid="ignore"):
    return lengths, np.sum(forces * between, axis=-1) / lengths


def _stiffness(
    lengths: Float[np.ndarray, "*frames"], forces: Float[np.ndarray, "*frames"],
    elements: Int[np.ndarray, " 2"], *, length: float,
) -> float:
  """Spread of the force over spread of the length, over Badger's force constant in eV/A^2.

  Spreads are taken instead of a slope because they do not depend on which forces belong to which
  frame; `consistency` judges that. Lengths far from the median are those of a broken bond, or of a
  wrapped atom.
  """
  middle = np.median(lengths)
  kept = np.isfinite(forces) & (np.abs(lengths - middle) < 0.25 * middle)
  if kept.sum() < FEWEST_LENGTHS:
    return np.nan
  lengths, forces = lengths[kept], forces[kept]
  if lengths.std() < SMALLEST_SPREAD * middle or not forces.std():
    return np.nan
  return float(forces.std() / lengths.std() / badger(float(middle) * length, elements))


def badger(length: float, elements: Sequence[int] | Int[np.ndarray, " 2"]) -> float:
  """Force constant of a bond from its length by Badger's rule, eV/A^2.

  k = 1.86 / (r - d)^3 in mdyn/A, where d depends on the periods of the two elements.

  Args:
    length: Length of the bond in angstrom.
    elements: The two atomic numbers, of hydrogen, boron to fluorine or silicon to chlorine.

  References:
    R. M. Badger, J. Chem. Phys. 2 (1934) 128; 3 (1935) 710.
  """
  periods = sorted(_PERIODS[int(element)] for element in elements)
  excess = max(length - _BADGER[periods[0], periods[1]], 0.05)
  return 1.86 / excess**3 * MILLIDYNE_PER_ANGSTROM


def _pool(
    pooled: dict[tuple[int, int], list[Float[np.ndarray, "2 _"]]],
    species: Int[np.ndarray, " atoms"], bonds: neighbours.Pairs,
    lengths: Float[np.ndarray, "frames bonds"], forces: Float[np.ndarray, "frames bonds"],
) -> None:
  """Adds the bonds to hydrogen of one frame, which are alike in all molecules, to the pool."""
  for i, pair in enumerate(zip(bonds.first, bonds.second, strict=True)):
    one, other = sorted(int(species[atom]) for atom in pair)
    if one == 1:
      pooled.setdefault((one, other), []).append(np.stack([lengths[:, i], forces[:, i]]))


