"""Checks on the numbers of a set, each naming the frames at fault.

Bounds are on medians over frames, or on one frame against the median: what a single frame holds
decides nothing about the others.
"""

import warnings

import numpy as np
from jaxtyping import Bool, Float, Int

from dcnn.base import HARTREE, KCAL_PER_MOL
from dcnn.base.systems import known_forces
from dcnn.base.wording import option
from dcnn.data import neighbours, physics
from dcnn.data.raw import Raw, frames_text
from dcnn.data.units import KJ_PER_MOL, UNITS, Units, rare_units

COINCIDENT = 0.1  # angstrom; no two nuclei come this close in any calculation of use
PAIRS_AT_ONCE = 500_000
MANY_ATOMS = 200  # above this, pairs of atoms are found by neighbour lists
FAR = 3.0  # angstrom; the distances that show a wrong unit of length are shorter
LARGEST = 1e30  # eV, angstrom; sums of squares stay far from the end of float64


def check_finite(raw: Raw) -> None:
  """Refuses NaN, infinities and numbers that float32 makes infinite.

  Raises:
    ValueError: Naming the first such frame.
  """
  for name in ("positions", "energy", "forces", "cell"):
    array = getattr(raw, name)
    if array is None:
      continue
    bad = ~(np.abs(array) <= LARGEST).reshape(len(array), -1).all(axis=1)
    bad &= ~frames_without_forces(raw) if name == "forces" else True
    if bad.any():
      raise ValueError(
          f"frame {np.argmax(bad)}: {name} not finite, or beyond {LARGEST:.0e} "
          f"({bad.sum()} such frames); remove them")


def closest_pairs(
    raw: Raw) -> tuple[Float[np.ndarray, " frames"], Int[np.ndarray, "frames 2"]]:
  """Shortest distance of each frame, and the two atoms or images that it lies between.

  Returns:
    Distances (frames) in angstrom, infinite for a single atom, and pairs of atoms (frames 2). In
    periodic and in large frames distances beyond `FAR` count as infinite.
  """
  frames, atoms = raw.species.shape
  distances, pairs = np.full(frames, np.inf), np.zeros((frames, 2), int)
  if raw.cell is not None or atoms > MANY_ATOMS:
    for i in range(frames):
      near = neighbours.frame_pairs(
          i, raw.positions[i], raw.species[i], None if raw.cell is None else raw.cell[i], FAR)
      if len(near.distance):
        closest = near.distance.argmin()
        distances[i] = near.distance[closest]
        pairs[i] = near.first[closest], near.second[closest]
    return distances, pairs
  first, second = np.triu_indices(atoms, 1)
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


def check_distances(
    distances: Float[np.ndarray, " frames"], pairs: Int[np.ndarray, "frames 2"]) -> None:
  """Refuses frames with two atoms in one place.

  Args:
    distances: Shortest distance of each frame (frames) in angstrom.
    pairs: The two atoms (frames 2) that it lies between.

  Raises:
    ValueError: Naming the first such frame and its atoms.
  """
  bad = np.flatnonzero(distances < COINCIDENT)
  if bad.size:
    i = bad[0]
    raise ValueError(
        f"frame {i}: atoms {pairs[i, 0]} and {pairs[i, 1]} are {distances[i]:.3g} A apart "
        f"({bad.size} such frames). Remove such frames, or set {option('units')} if positions are "
        "not in the unit of length that was assumed")


# Bounds of the root mean square force, from molecules near a minimum to those at some thousand
# kelvin or with strained bonds; in the usual sets at 300-1200 K it is 0.5-3 eV/A.
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
FEWEST_FRAMES = 5  # below this, exceptions cannot be told
# Energies far from the others: in robust standard deviations, and at least so many eV an atom.
FAR_ENERGY = (30.0, 0.3)
LEAST_RESOLUTION = 2e-4  # eV; finer steps are not worth a warning
REPEATED = 3  # frames of one exact energy, where energies otherwise differ
ODD_BONDS = 0.05  # share of atoms


def force_sizes(raw: Raw) -> Float[np.ndarray, " frames"]:
  """Root mean square force component of each frame, in eV/A; nan in frames without forces."""
  real = (raw.species > 0)[..., None]
  squares = np.square(np.where(real, raw.forces, 0.0)).sum(axis=(1, 2))
  return np.sqrt(squares / (3 * real.sum(axis=(1, 2))))


def frames_without_forces(raw: Raw) -> Bool[np.ndarray, " frames"]:
  """Mask of frames for which the file has no forces."""
  return ~np.any(known_forces(raw.forces, raw.species), axis=(1, 2))


def constant_forces(raw: Raw) -> Bool[np.ndarray, " frames"]:
  """Mask of frames whose force components are all one number, such as 0, for missing forces.

  Only frames of several atoms are marked, and only in sets where other frames have forces: sets in
  which all frames have constant forces are left to `check_band`. Crystals in which every atom is at
  rest by symmetry are not marked: their forces are 0.

  Args:
    raw: The numbers of the file, in its units.
  """
  real = (raw.species > 0)[..., None]
  several = real.sum(axis=(1, 2)) > 1
  same = np.where(real, raw.forces == raw.forces[:, :1, :1], True).all(axis=(1, 2)) & several
  if same[several].all():
    return np.zeros(len(same), bool)
  for frame in np.flatnonzero(same) if raw.cell is not None else ():
    same[frame] = raw.forces[frame, 0, 0] != 0 or not physics.is_symmetric(raw, int(frame))
  return same


def frames_without_energy(raw: Raw, unit: Units) -> Bool[np.ndarray, " frames"]:
  """Mask of frames whose energy is a placeholder for a missing one, such as -999.

  A placeholder is one number in several frames that are not alike, and in many more frames than the
  rounding of the file makes equal; or it is far from all other energies, and is repeated or a whole
  number.

  Args:
    raw: The numbers in eV and angstrom.
    unit: The units that the file has.
  """
  values, place, count = np.unique(raw.energy, return_inverse=True, return_counts=True)
  place = place.reshape(-1)
  if len(values) < FEWEST_FRAMES:
    return np.zeros(len(place), bool)
  written = values / unit.energy
  whole = np.abs(written - np.round(written)) <= 1e-12 * np.abs(written)
  if whole[place].all():
    return np.zeros(len(place), bool)
  # How often rounding makes energies equal is seen from the second most frequent one.
  usual = np.sort(count)[-2]
  often = (count == count.max()) & (count >= REPEATED * usual)
  often |= whole & (count >= REPEATED * count[~whole].max())
  for value in np.flatnonzero(often):
    # Frames that a rotation or the order of their atoms sets apart have the same sizes of forces.
    sizes = np.linalg.norm(np.nan_to_num(raw.forces[place == value]), axis=-1)
    often[value] = np.ptp(np.sort(sizes, axis=1), axis=0).max() > 1e-3 * sizes.max()
  return often[place] | far_energies(raw) & ((count[place] > usual) | whole[place])


def far_energies(raw: Raw) -> Bool[np.ndarray, " frames"]:
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


def energy_residuals(raw: Raw) -> Float[np.ndarray, " frames"]:
  """Energies less the usual energy of their composition; nan where the usual energy is not known.

  The usual energy is the median over the frames of a composition with five frames or more. If most
  frames have rarer compositions, it is for these the sum of one reference for each element, fitted
  by least squares. Single atoms have no bonds: they are compared only with atoms of their element.
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


def compositions(species: Int[np.ndarray, "frames atoms"]) -> Float[np.ndarray, "frames elements"]:
  """Number of atoms of each element that occurs, for each frame (frames elements)."""
  return np.stack([(species == element).sum(axis=1)
                   for element in np.unique(species[species > 0])], axis=1).astype(float)


def check_sizes(raw: Raw, unit: Units) -> None:
  """Refuses frames whose forces are of another size than those of all others.

  Strained frames are accepted: their energies, too, lie far above the others.

  Args:
    raw: The numbers of the file, in its units.
    unit: The units that the numbers are taken to be in.

  Raises:
    ValueError: Naming the few frames with forces 25 times as large as in the median frame, or, if
      there are more of them, the frames in another unit.
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
      f"{frames_text(np.flatnonzero(odd))} of {len(sizes):,}: the force components have a root "
      f"mean square of up to {sizes[worst]:.3g} eV/A (frame {worst}), {sizes[worst] / middle:.3g} "
      f"times that of the median frame, {middle:.3g} eV/A, and their energies are as the others. "
      f"Remove what failed to converge, or set {option('check_units', False)} if it is right")


def _check_mixture(sizes: Float[np.ndarray, " frames"]) -> None:
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
        f"{frames_text(sorted(fewer))} of {len(sizes):,} they are "
        f"{'smaller' if fewer is groups[0] else 'larger'}. Two units in one file, such as "
        f"{units[0]} and eV/angstrom? Convert them, or set {option('check_units', False)} if "
        "they are right")


def warn_of_exceptions(
    raw: Raw, distances: Float[np.ndarray, " frames"], pairs: Int[np.ndarray, "frames 2"]) -> None:
  """Warns of the few frames that differ from all others by more than configurations do.

  Such frames have energies far from the others, or nearest atoms much closer or farther apart.

  Args:
    raw: The numbers in eV and angstrom.
    distances: Shortest distance of each frame (frames) in angstrom.
    pairs: The two atoms (frames 2) that it lies between.
  """
  far = np.flatnonzero(far_energies(raw))
  if far.size:
    residual = energy_residuals(raw)
    worst = far[np.argmax(np.abs(residual[far]))]
    warnings.warn(
        f"{frames_text(far)} of {len(residual):,}: the energy is up to {residual[worst]:+.4g} eV "
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
          f"{frames_text(odd)} of {len(factors):,}: the closest atoms are "
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
    raw: The numbers of the file, in its units.
    unit: The units of the file.
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


def _resolution(energy: Float[np.ndarray, " frames"]) -> tuple[float, str]:
  """The smallest step between energies in the unit of the file, and the reason for it."""
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
  """Warns where bonds do not fit the elements, as with species in another order than positions."""
  share = physics.odd_bonds(raw)
  if share > ODD_BONDS:
    warnings.warn(
        f"{100 * share:.0f} % of the atoms have no neighbour at the distance of a bond between "
        "their elements, or are hydrogen with several: are species in the order of positions?",
        stacklevel=4)


def check_scales(raw: Raw, unit: Units, *, guessed: str, known: bool) -> None:
  """Refuses units that the bonds or the total energies of a set contradict (see `physics`).

  Args:
    raw: The numbers of the file, in its units.
    unit: The units that the numbers are taken to be in.
    guessed: The family of archives by whose keys alone the units were guessed, so that the numbers
      must confirm them. Empty where the user, the file or its format states the units.
    known: Whether ASE has read the file, which keeps eV and angstrom: no other unit is proposed.

  Raises:
    ValueError: Naming the units that fit.
  """
  found = physics.scales(raw, unit)
  if physics.confirms(found) if guessed else not physics.contradicts(found):
    return
  others = physics.fitting_units(raw, UNITS.values())
  if not others and (guessed or physics.is_beyond(found.spacing, physics.SPACING)):
    others = physics.fitting_units(raw, rare_units())
  if guessed:
    reason = (f"read as {unit.name}, {_contradiction(found)}" if physics.contradicts(found)
              else f"nothing in these numbers tells {unit.name} from other units")
    fix = _units_advice(others) if others else (
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
    raise ValueError(f"read as {unit.name}, {_contradiction(found)}. {_units_advice(others)}, or "
                     f"{unchecked}")
  odd_spacing = physics.is_beyond(found.spacing, physics.SPACING)
  lengths = physics.fitting_lengths(raw) if odd_spacing else []
  if lengths and not known:
    raise ValueError(
        f"read as {unit.name}, {_contradiction(found)}. Positions fit {' and '.join(lengths)}: say "
        f"the units with {option('units')}, or {unchecked}")


def check_band(raw: Raw, closest: float, unit: Units, *, known: bool) -> None:
  """Refuses labels that no quantum chemistry gives, and names the likely mistake.

  There are three bounds, each on a quantity of its own: the median over frames of the root mean
  square force component must lie in 0.01-20 eV/A; that of the shortest distance between two atoms
  must be at least 0.6 A; that of |energy| must be at most 1.2 times the energy of Thomas-Fermi
  atoms, 25 eV sum_a Z_a^(7/3). All-electron energies reach 75-95 % of that energy, valence-only and
  atomisation energies far less.

  Args:
    raw: The numbers in eV and angstrom.
    closest: Median over frames of the shortest distance in angstrom; infinite for single atoms.
    unit: The units that the numbers were converted from.
    known: Whether these units are certain.

  Raises:
    ValueError: If a number is out of its bounds.
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
        f"expected {low:g} to {high:g}. {_force_advice(raw, unit, force, known)}, or {unchecked}")
  if closest < SHORTEST_BOND:
    raise ValueError(
        f"the closest atoms of a frame are {closest:.3g} A apart (median over frames), expected "
        f"at least {SHORTEST_BOND} A. "
        + (f"{unchecked[0].upper()}{unchecked[1:]}" if known else
           f"Set {option('units')} if positions are in another unit, or {unchecked}"))
  _check_energy(raw, known)


def _units_advice(names: list[str]) -> str:
  if len(names) == 1:
    rest = names[0].removeprefix("hartree")
    rydberg = f" (or rydberg{rest}, which is half of it)" if rest != names[0] else ""
    return f"They fit {names[0]}{rydberg}: set {option('units', names[0])}"
  return f"They fit {' and '.join(names)}: say which with {option('units')}"


def _contradiction(found: physics.Scales) -> str:
  """How the scales contradict the units that the numbers were read in, in words."""
  parts = []
  if physics.is_beyond(found.spacing, physics.SPACING):
    parts.append(f"nearest atoms are {found.spacing:.3g} times as far apart as the sum of their "
                 "covalent radii")
  if physics.is_beyond(found.stiffness, physics.STIFFNESS):
    parts.append(f"bonds are {found.stiffness:.3g} times as stiff as bonds of their length usually "
                 "are")
  return " and ".join(parts)


def _force_advice(raw: Raw, unit: Units, force: float, known: bool) -> str:
  """The likely reason for forces of unusual size, where bonds show no other unit, and the fix."""
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
