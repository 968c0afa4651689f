"""Checks on the numbers of a set, each naming the frames at fault.

Bounds are on medians over frames, or on one frame against the median: what a single frame holds
decides nothing about the others.
"""

import warnings

import numpy as np

from dcnn.base import HARTREE, KCAL_PER_MOL
from dcnn.base.wording import option
from dcnn.data import neighbours, physics
from dcnn.data.raw import Raw, named_frames
from dcnn.data.units import KJ_PER_MOL, UNITS, Units, rare_units

COINCIDENT = 0.1  # angstrom; no two nuclei come this close in any calculation of use
PAIRS_AT_ONCE = 500_000
MANY_ATOMS = 200  # from here on not all pairs of atoms are looked at
FAR = 3.0  # angstrom; what tells a wrong unit of length is shorter
LARGEST = 1e30  # eV, angstrom; sums of squares stay far from the end of float64


def check_finite(raw: Raw) -> None:
  """ValueError naming the first frame with a NaN, an infinity, or what float32 makes one."""
  for name in ("positions", "energy", "forces", "cell"):
    array = getattr(raw, name)
    if array is None:
      continue
    bad = ~(np.abs(array) <= LARGEST).reshape(len(array), -1).all(axis=1)
    bad &= ~absent_forces(raw) if name == "forces" else True
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
        f"({bad.size} such frames). Remove such frames, or set {option('units')} if positions are "
        "not in the unit of length that was assumed")


# Of the root mean square force: molecules near a minimum up to those at some thousand kelvin or
# with strained bonds; in the usual sets at 300-1200 K it is 0.5-3 eV/A.
FORCE_BAND = (0.01, 20.0)  # eV/A
SHORTEST_BOND = 0.6  # angstrom; H2 at rest is 0.74
# Thomas-Fermi: a neutral atom of nuclear charge Z has energy -0.7687 Z^(7/3) hartree. True atoms
# lie above this up to Z = 92 or so, and relativity adds under 5 % beyond; bonds add a few eV.
ATOMIC_BOUND = 1.2 * 0.7687 * HARTREE  # eV
# The factor of labels in kcal/mol that were divided by 0.0434 where they must be multiplied.
INVERTED = KCAL_PER_MOL**-2
# A frame beside the others: sizes of forces and bonds as factors of the median.
LARGEST_FACTOR = 25.0
LEAST_STRAIN = 1.0  # eV
SMALLEST_STEP, CLOSE_RATIO = 4.0, 1.25  # of forces in two units
DISTANCE_FACTORS = (0.55, 1.6)
FEW = 0.2  # of all frames; more are no exception
FEWEST_FRAMES = 5  # below this there is no telling an exception
# Energies far from the others: in robust standard deviations, and at least so many eV an atom.
FAR_ENERGY = (30.0, 0.3)
LEAST_RESOLUTION = 2e-4  # eV, that is worth a word
REPEATED = 3  # frames of one exact energy, where energies otherwise differ
ODD_BONDS = 0.05  # share of atoms


def force_sizes(raw: Raw) -> np.ndarray:
  """Root mean square force component of each frame, eV/A; nan in frames without forces."""
  real = (raw.species > 0)[..., None]
  squares = np.square(np.where(real, raw.forces, 0.0)).sum(axis=(1, 2))
  return np.sqrt(squares / (3 * real.sum(axis=(1, 2))))


def absent_forces(raw: Raw) -> np.ndarray:
  """Mask of frames for which the file has no forces."""
  real = (raw.species > 0)[..., None]
  return np.all(np.where(real, np.isnan(raw.forces), True), axis=(1, 2))


def constant_forces(raw: Raw) -> np.ndarray:
  """Mask of frames of which all force components are one number, such as 0, that stands for none.

  They are frames of several atoms, in sets where others have forces. A set in which all frames are
  so is another matter: see `check_band`. Crystals in which symmetry holds every atom where it is
  have forces of 0.

  Args:
    raw: as the file has it.
  """
  real = (raw.species > 0)[..., None]
  several = real.sum(axis=(1, 2)) > 1
  same = np.where(real, raw.forces == raw.forces[:, :1, :1], True).all(axis=(1, 2)) & several
  if same[several].all():
    return np.zeros(len(same), bool)
  for frame in np.flatnonzero(same) if raw.cell is not None else ():
    same[frame] = raw.forces[frame, 0, 0] != 0 or not physics.is_symmetric(raw, int(frame))
  return same


def without_energy(raw: Raw, unit: Units) -> np.ndarray:
  """Mask of frames whose energy is a number that stands for none, in sets where others are real.

  It is one number in several frames that are not alike, and in many more than the rounding of the
  file makes equal anyway; or it is far from all others, and repeated or a whole number, as -999 is.

  Args:
    raw: in eV and angstrom.
    unit: that the file has.
  """
  values, place, count = np.unique(raw.energy, return_inverse=True, return_counts=True)
  place = place.reshape(-1)
  if len(values) < FEWEST_FRAMES:
    return np.zeros(len(place), bool)
  whole = _is_whole(values / unit.energy)
  if whole[place].all():
    return np.zeros(len(place), bool)
  # How often rounding makes energies equal is seen from the second most frequent one.
  usual = np.sort(count)[-2]
  often = (count == count.max()) & (count >= REPEATED * usual)
  often |= whole & (count >= REPEATED * count[~whole].max())
  for value in np.flatnonzero(often):
    often[value] = _differ(raw, place == value)
  return often[place] | far_energies(raw) & ((count[place] > usual) | whole[place])


def _is_whole(energy: np.ndarray) -> np.ndarray:
  return np.abs(energy - np.round(energy)) <= 1e-12 * np.abs(energy)


def _differ(raw: Raw, frames: np.ndarray) -> bool:
  """Whether frames of one energy are different ones, and not turned, repeated or equivalent.

  Equivalent frames have the same sizes of forces, whatever the order of their atoms.
  """
  sizes = np.sort(np.linalg.norm(np.nan_to_num(raw.forces[frames]), axis=-1), axis=1)
  return bool(np.ptp(sizes, axis=0).max() > 1e-3 * sizes.max())


def far_energies(raw: Raw) -> np.ndarray:
  """Mask of the few frames whose energy is far from that of all others of like composition."""
  residual = energy_residuals(raw)
  atoms = (raw.species > 0).sum(axis=1)
  judged = np.isfinite(residual)
  none = np.zeros(len(residual), bool)
  if judged.sum() < FEWEST_FRAMES:
    return none
  scale = 1.4826 * np.median(np.abs(residual[judged]))
  far = judged & (np.abs(residual) > np.maximum(FAR_ENERGY[0] * scale, FAR_ENERGY[1] * atoms))
  return far if far.mean() <= FEW else none


def energy_residuals(raw: Raw) -> np.ndarray:
  """Energies less what is usual for their composition, eV; nan where nothing says what is usual.

  That is the median over the frames of the composition where they are five or more. If most frames
  are of rarer ones, it is for these a reference for each element, fitted to them by least squares.
  Single atoms, which no bond holds, are judged by others of their kind alone.
  """
  counts = compositions(raw.species)
  _, place, number = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
  place = place.reshape(-1)
  residual = np.full(len(place), np.nan)
  for kind in np.flatnonzero(number >= FEWEST_FRAMES):
    frames = place == kind
    residual[frames] = raw.energy[frames] - np.median(raw.energy[frames])
  rare = (number[place] < FEWEST_FRAMES) & (counts.sum(axis=1) > 1)
  if rare.mean() > 0.5:
    references, *_ = np.linalg.lstsq(counts[rare], raw.energy[rare], rcond=None)
    residual[rare] = raw.energy[rare] - counts[rare] @ references
  return residual


def compositions(species: np.ndarray) -> np.ndarray:
  """How many atoms of each element that occurs a frame has: `(frames, elements)`."""
  return np.stack([(species == element).sum(axis=1)
                   for element in np.unique(species[species > 0])], axis=1).astype(float)


def check_sizes(raw: Raw, unit: Units) -> None:
  """Refuses frames whose forces are of another size than those of all others.

  Strained frames, whose energies are as far above the others, are as they must be.

  Args:
    raw: as the file has it.
    unit: that the numbers are taken to be in.

  Raises:
    ValueError: naming the few frames with forces 25 times as large as in the median frame, or the
      frames in another unit, where there are more.
  """
  sizes = force_sizes(raw) * unit.force
  middle = float(np.nanmedian(sizes)) if np.isfinite(sizes).any() else 0.0
  if len(sizes) < FEWEST_FRAMES or not middle > 0:
    return
  _check_mixture(sizes)
  residual = np.nan_to_num(energy_residuals(raw)) * unit.energy
  strained = residual > max(LEAST_STRAIN, 10 * 1.4826 * float(np.median(np.abs(residual))))
  odd = (sizes > LARGEST_FACTOR * middle) & ~strained
  if not 0 < odd.mean() <= FEW:
    return
  worst = int(np.nanargmax(np.where(odd, sizes, 0)))
  raise ValueError(
      f"{named_frames(np.flatnonzero(odd))} of {len(sizes):,}: the force components have a root "
      f"mean square of up to {sizes[worst]:.3g} eV/A (frame {worst}), {sizes[worst] / middle:.3g} "
      f"times that of the median frame, {middle:.3g} eV/A, and their energies are as the others. "
      f"Remove what failed to converge, or set {option('check_units', False)} if it is right")


def _check_mixture(sizes: np.ndarray) -> None:
  """Refuses forces of two sizes that are as far apart as two units are, with nothing between."""
  known = np.flatnonzero(sizes > 0)
  order = known[np.argsort(sizes[known])]
  steps = np.diff(np.log(sizes[order]))
  if len(order) < 2 * FEWEST_FRAMES or steps.max() < np.log(SMALLEST_STEP):
    return
  cut = int(np.argmax(steps)) + 1
  groups = order[:cut], order[cut:]
  fewer = min(groups, key=len)
  ratio = float(np.median(sizes[groups[1]]) / np.median(sizes[groups[0]]))
  units = [name for name, other in UNITS.items() if name != "eV/angstrom"
           and abs(np.log(ratio * min(other.force, 1 / other.force))) < np.log(CLOSE_RATIO)]
  if units and len(fewer) > 1:
    raise ValueError(
        f"the forces are of two sizes, {ratio:.3g} times apart with nothing between: in "
        f"{named_frames(sorted(fewer))} of {len(sizes):,} they are "
        f"{'smaller' if fewer is groups[0] else 'larger'}. Two units in one file, such as "
        f"{units[0]} and eV/angstrom? Convert them, or set {option('check_units', False)} if "
        "they are right")


def warn_of_exceptions(raw: Raw, distances: np.ndarray, pairs: np.ndarray) -> None:
  """Warns of the few frames that differ from all others by more than configurations do.

  They have energies far from the others, or nearest atoms much closer or farther apart.

  Args:
    raw: in eV and angstrom.
    distances: shortest of each frame, angstrom.
    pairs: the two atoms that are so close, `(frames, 2)`.
  """
  far = np.flatnonzero(far_energies(raw))
  if far.size:
    residual = energy_residuals(raw)
    worst = far[np.argmax(np.abs(residual[far]))]
    warnings.warn(
        f"{named_frames(far)} of {len(residual):,}: the energy is up to {residual[worst]:+.4g} eV "
        f"(frame {worst}) away from the other frames of its composition: a calculation that "
        "failed, or another method?", stacklevel=4)
  frames = np.arange(len(distances))
  bonds = distances / physics.radii(raw.species[frames[:, None], pairs]).sum(axis=1)
  if len(bonds) >= FEWEST_FRAMES and np.isfinite(bonds).all():
    factors = bonds / np.median(bonds)
    odd = np.flatnonzero((factors < DISTANCE_FACTORS[0]) | (factors > DISTANCE_FACTORS[1]))
    if 0 < len(odd) <= FEW * len(factors):
      worst = odd[np.argmax(np.abs(np.log(factors[odd])))]
      warnings.warn(
          f"{named_frames(odd)} of {len(factors):,}: the closest atoms are "
          f"{distances[worst]:.3g} A apart (frame {worst}), {bonds[worst]:.2g} times the sum of "
          f"their covalent radii, in the median frame {np.median(bonds):.2g} times: positions in "
          "another unit, or a calculation that failed?", stacklevel=4)


def warn_of_fixed_atoms(raw: Raw) -> None:
  """Warns of atoms without any force in all frames, as constraints leave them."""
  several = (raw.species > 0).sum(axis=1) > 1
  fixed = (raw.species > 0).all(axis=0) & (raw.forces[several] == 0).all(axis=(0, 2))
  if 0 < fixed.sum() < len(fixed) and several.sum() >= FEWEST_FRAMES:
    warnings.warn(f"atoms {', '.join(map(str, np.flatnonzero(fixed)[:5]))} ({fixed.sum()} in all) "
                  "have forces of exactly zero in every frame: were they held fixed? Their forces "
                  "are then missing, and would be learnt as zero", stacklevel=4)


def warn_of_digits(raw: Raw, unit: Units) -> None:
  """Warns where energies are known to fewer digits than a network can learn.

  Args:
    raw: as the file has it.
    unit: of its numbers.
  """
  residual = energy_residuals(raw)
  residual = residual[np.isfinite(residual)]
  if not residual.size or not np.ptp(raw.energy):
    return
  step, how = _resolution(raw.energy)
  known, spread = step * unit.energy, float(np.std(residual)) * unit.energy
  if known > max(LEAST_RESOLUTION, 1e-4 * spread):
    warnings.warn(
        f"energies of {np.median(raw.energy) * unit.energy:,.6g} eV are known to "
        f"{1000 * known:.2g} meV, because {how}; no network can learn more. Write them as float64, "
        "or with more digits",
        stacklevel=4)


def _resolution(energy: np.ndarray) -> tuple[float, str]:
  """Steps between energies that can be told apart, and why they are no smaller."""
  for dtype in (np.float16, np.float32):
    with np.errstate(over="ignore"):
      rounded = energy.astype(dtype)
    if (rounded == energy).all():
      return float(np.spacing(np.median(np.abs(rounded)))), f"they are of type {np.dtype(dtype)}"
  rounding = 4 * np.finfo(np.float64).eps * np.abs(energy)
  for decimals in range(6):
    if (np.abs(energy - np.round(energy, decimals)) <= rounding).all():
      return 10.0**-decimals, f"they are written with {decimals} decimals"
  return 0.0, ""


def warn_of_species(raw: Raw) -> None:
  """Warns where bonds are not those of the elements: species in another order than positions."""
  share = physics.odd_bonds(raw)
  if share > ODD_BONDS:
    warnings.warn(
        f"{100 * share:.0f} % of the atoms have no neighbour at the distance of a bond between "
        "their elements, or are hydrogen with several: are species in the order of positions?",
        stacklevel=4)


def check_scales(raw: Raw, unit: Units, *, guessed: str, known: bool) -> None:
  """Refuses units that the bonds or the total energies of a set contradict (see `physics`).

  Args:
    raw: as the file has it.
    unit: that the numbers are taken to be in.
    guessed: the family of archives whose keys alone tell the units; these must be confirmed. Empty
      where the user, the file or its format tells.
    known: whether ASE has read the file, which keeps eV and angstrom: no other unit is proposed.

  Raises:
    ValueError: naming the units that fit.
  """
  found = physics.scales(raw, unit)
  if physics.confirms(found) if guessed else not physics.contradicts(found):
    return
  others = physics.fitting(raw, UNITS.values())
  if not others and (guessed or physics.beyond(found.spacing, physics.SPACING)):
    others = physics.fitting(raw, rare_units())
  if guessed:
    reason = (f"read as {unit.name}, {_contradiction(found)}" if physics.contradicts(found)
              else f"nothing in these numbers tells {unit.name} from other units")
    fix = _say_units(others) if others else (
        f"Say which they are with {option('units')}: {', '.join(UNITS)}")
    raise ValueError(
        f"an archive with the keys of {guessed} that does not declare its units, which may be "
        f"{unit.name} or others such as eV/angstrom; {reason}. {fix}")
  if unit.name in others:
    return
  unchecked = f"set {option('check_units', False)} if the numbers are right"
  if known and others:
    raise ValueError(f"{_contradiction(found)}. ASE keeps eV and angstrom, and whoever wrote this "
                     f"file did not: write it again in these, or {unchecked}")
  if others:
    raise ValueError(f"read as {unit.name}, {_contradiction(found)}. {_say_units(others)}, or "
                     f"{unchecked}")
  lengths = physics.fitting_lengths(raw) if physics.beyond(found.spacing, physics.SPACING) else []
  if lengths and not known:
    raise ValueError(
        f"read as {unit.name}, {_contradiction(found)}. Positions fit {' and '.join(lengths)}: say "
        f"the units with {option('units')}, or {unchecked}")


def check_band(raw: Raw, closest: float, unit: Units, *, known: bool) -> None:
  """Refuses labels that no quantum chemistry gives, and names the likely mistake.

  Three bounds, each blind to what the others see: the median over frames of the root mean square
  force component lies in 0.01-20 eV/A; that of the shortest distance between two atoms is at least
  0.6 A; that of |energy| is at most 1.2 times what Thomas-Fermi atoms hold, 25 eV sum_a Z_a^(7/3)
  (all-electron energies reach 75-95 % of that bound without the 1.2, valence-only and atomisation
  energies far less).

  Args:
    raw: in eV and angstrom.
    closest: median over frames of the shortest distance, angstrom; infinite for single atoms.
    unit: that it was converted from.
    known: whether there is no doubt about these.

  Raises:
    ValueError: outside a bound.
  """
  unchecked = f"set {option('check_units', False)} if the numbers are right"
  sizes = force_sizes(raw)
  several = (raw.species > 0).sum(axis=1) > 1
  judged = sizes[several & np.isfinite(sizes)]
  force = float(np.median(judged)) if judged.size else np.nan
  if force == 0:
    raise ValueError("all forces are zero, or most: were they computed? Compute them, or "
                     f"{unchecked}")
  low, high = FORCE_BAND
  if force < low or force > high:
    raise ValueError(
        f"force components have a root mean square of {force:.3g} eV/A (median over frames), "
        f"expected {low:g} to {high:g}. {_described(raw, unit, force, known)}, or {unchecked}")
  if closest < SHORTEST_BOND:
    raise ValueError(
        f"the closest atoms of a frame are {closest:.3g} A apart (median over frames), expected "
        f"at least {SHORTEST_BOND} A. "
        + (f"{unchecked[0].upper()}{unchecked[1:]}" if known else
           f"Set {option('units')} if positions are in another unit, or {unchecked}"))
  _check_energy(raw, known)


def _say_units(names: list[str]) -> str:
  if len(names) == 1:
    rest = names[0].removeprefix("hartree")
    rydberg = f" (or rydberg{rest}, which is half of it)" if rest != names[0] else ""
    return f"They fit {names[0]}{rydberg}: set {option('units', names[0])}"
  return f"They fit {' and '.join(names)}: say which with {option('units')}"


def _contradiction(found: physics.Scales) -> str:
  """What is wrong with numbers that are read in some units."""
  parts = []
  if physics.beyond(found.spacing, physics.SPACING):
    parts.append(f"nearest atoms are {found.spacing:.3g} times as far apart as the sum of their "
                 "covalent radii")
  if physics.beyond(found.stiffness, physics.STIFFNESS):
    parts.append(f"bonds are {found.stiffness:.3g} times as stiff as bonds of their length usually "
                 "are")
  return " and ".join(parts)


def _described(raw: Raw, unit: Units, force: float, known: bool) -> str:
  """What a set may be whose forces are not as usual and whose bonds tell of no other unit."""
  if force > FORCE_BAND[1] and FORCE_BAND[0] < force / INVERTED < FORCE_BAND[1] and (
      not physics.contradicts(physics.scales(raw, Units("", 1.0, 1.0, 1 / INVERTED)))):
    return ("This is about 532 times too large: if kcal/mol was divided by 0.0434 where it must be "
            "multiplied, divide energies and forces by 531.8 in the file; if labels are in meV, "
            f"set {option('units', 'meV/angstrom')}")
  kind = "relaxed geometries" if force < FORCE_BAND[0] else "broken calculations"
  if known:
    return f"These may be {kind} or a toy model: choose other frames"
  return (f"These may be {kind} or a toy model, or units other than {unit.name}: set "
          f"{option('units')}")


def _check_energy(raw: Raw, known: bool) -> None:
  bound = ATOMIC_BOUND * np.sum(raw.species.astype(float) ** (7 / 3), axis=1)
  excess = np.abs(raw.energy) / bound
  if np.median(excess) <= 1:
    return
  worst = int(np.argmax(excess))
  factors = {"kcal/mol": KCAL_PER_MOL, "kJ/mol": KJ_PER_MOL,
             "kcal/mol divided by 0.0434 where it must be multiplied": 1 / INVERTED}
  fitting = [name for name, factor in factors.items() if excess[worst] * factor <= 1]
  guess = f"Are the energies in {fitting[0]}? " if fitting else ""
  raise ValueError(
      f"frame {worst}: energy {raw.energy[worst]:.6g} eV; all electrons of its atoms bind at most "
      f"{bound[worst]:.4g} eV. {guess}Set "
      + ("" if known else f"{option('units')}, or ") + f"{option('check_units', False)} if they "
      "are right")
