"""Units of files, and the check that catches those read in the wrong ones."""

import difflib
from typing import NamedTuple

import numpy as np

from dcnn.base import BOHR, HARTREE, KCAL_PER_MOL
from dcnn.data.raw import Raw

KJ_PER_MOL = KCAL_PER_MOL / 4.184


class Units(NamedTuple):
  """Units of a file: energy in eV, length in angstrom, force in eV/angstrom."""

  energy: float
  length: float
  force: float


# The name is the unit of the forces; positions are in its length, except where `+` says otherwise.
UNITS = {
    "eV/angstrom": Units(1.0, 1.0, 1.0),
    "kcal/mol/angstrom": Units(KCAL_PER_MOL, 1.0, KCAL_PER_MOL),
    "kJ/mol/angstrom": Units(KJ_PER_MOL, 1.0, KJ_PER_MOL),
    "kJ/mol/nm": Units(KJ_PER_MOL, 10.0, KJ_PER_MOL / 10),
    "hartree/angstrom": Units(HARTREE, 1.0, HARTREE),
    "hartree/bohr": Units(HARTREE, BOHR, HARTREE / BOHR),
    "hartree/bohr+angstrom": Units(HARTREE, 1.0, HARTREE / BOHR),
}

# What mixed files are made of.
ENERGY_UNITS = {"eV": 1.0, "kcal/mol": KCAL_PER_MOL, "kJ/mol": KJ_PER_MOL, "hartree": HARTREE}
LENGTH_UNITS = {"angstrom": 1.0, "bohr": BOHR, "nm": 10.0}
FORCE_UNITS = {name: unit.force for name, unit in UNITS.items() if "+" not in name}
CLOSE_SLOPE = 1.07

# Molecules near a minimum up to those at some thousand kelvin or with strained bonds; in the
# usual sets at 300-1200 K this is 0.5-3 eV/A.
FORCE_BAND = (0.05, 20.0)  # eV/A, root mean square over components
TYPICAL_FORCE = 1.0  # eV/A
SHORTEST_BOND = 0.6  # angstrom; H2 at rest is 0.74
TYPICAL_BOND = 1.1  # angstrom; between X-H and C-C
# Thomas-Fermi: a neutral atom of nuclear charge Z has energy -0.7687 Z^(7/3) hartree. True atoms
# lie above this up to Z = 92 or so, and relativity adds under 5 % beyond; bonds add a few eV.
ATOMIC_BOUND = 1.2 * 0.7687 * HARTREE  # eV
# The factor of labels in kcal/mol that were divided by 0.0434 where they must be multiplied.
INVERTED = KCAL_PER_MOL**-2


def check_name(name: str) -> None:
  """ValueError with the known names, unless `name` is one of them."""
  if name not in UNITS:
    close = difflib.get_close_matches(name, UNITS, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"unknown units {name!r}; did you mean {close!r}? Known: {', '.join(UNITS)}")


def convert(raw: Raw) -> Raw:
  """Positions, energies and forces in angstrom, eV and eV/angstrom."""
  unit = UNITS[raw.units]
  return raw._replace(
      positions=raw.positions * unit.length,
      cell=None if raw.cell is None else raw.cell * unit.length,
      energy=raw.energy * unit.energy,
      forces=raw.forces * unit.force)


def check_band(raw: Raw, closest: float) -> None:
  """Refuses labels that no quantum chemistry gives, and names the likely mistake.

  Three bounds, each blind to what the others see: the root mean square force component lies in
  0.05-20 eV/A; the median over frames of the shortest distance between two atoms is at least
  0.6 A; no |energy| exceeds 1.2 times what Thomas-Fermi atoms hold, 25 eV sum_a Z_a^(7/3)
  (all-electron energies reach 75-95 % of that bound without the 1.2, valence-only and atomisation
  energies far less).

  Args:
    raw: converted to eV and angstrom from `raw.units`.
    closest: median over frames of the shortest distance, angstrom; infinite for single atoms.

  Raises:
    ValueError: outside a bound.
  """
  force = float(np.sqrt(np.mean(np.square(raw.forces[raw.species > 0]))))
  if force == 0:
    raise ValueError(
        "all forces are zero: were they computed? Pass check_units=False if this is right")
  low, high = FORCE_BAND
  if not low <= force <= high:
    raise ValueError(
        f"force components have a root mean square of {force:.3g} eV/A, expected {low:g} to "
        f"{high:g}. {_likely(raw.units, force, closest)}")
  if closest < SHORTEST_BOND:
    raise ValueError(
        f"the closest atoms of a frame are {closest:.3g} A apart (median over frames), expected "
        f"at least {SHORTEST_BOND} A. {_likely(raw.units, force, closest)}")
  _check_energy(raw)


def _likely(units: str, force: float, closest: float) -> str:
  """The reading of the same numbers that gives the most usual forces and bond lengths."""
  now = UNITS[units]

  def distance(name: str) -> float:
    return _strangeness(force * UNITS[name].force / now.force,
                        closest * UNITS[name].length / now.length)

  best = min(UNITS, key=distance)
  if _strangeness(force / INVERTED, closest) < distance(best):
    return ("This is 532 times too large if kcal/mol was divided by 0.0434 where it must be "
            "multiplied: divide energies and forces by 531.8 in the file, or pass "
            "check_units=False if they are right")
  if best == units:
    return "Pass units= if the file has others, or check_units=False if they are right"
  value = force * UNITS[best].force / now.force
  return (f"Read as {best} it would be {value:.3g} eV/A: pass units={best!r}, or "
          "check_units=False if the numbers are right")


def _strangeness(force: float, closest: float) -> float:
  length = abs(np.log(closest / TYPICAL_BOND)) if np.isfinite(closest) else 0.0
  return float(abs(np.log(force / TYPICAL_FORCE)) + length)


def likely_mix(units: str, slope: float) -> str:
  """What may explain that energies change by `slope` times the work against the forces.

  The slope of numbers that are in other units than those assumed is known: 23.06 for energies in
  kcal/mol beside forces in eV/angstrom, both read as eV. Tried are, in this order, one quantity in
  another unit, the sets of `UNITS`, and energies and forces in two other units; the first within
  7 % is named.

  Args:
    units: name of those assumed.
    slope: size of the change of energy over the work against the forces, as read.
  """
  now = UNITS[units]
  energies = {f"energies in {name}": now._replace(energy=unit)
              for name, unit in ENERGY_UNITS.items()}
  forces = {f"forces in {name}": now._replace(force=unit) for name, unit in FORCE_UNITS.items()}
  positions = {f"positions in {name}": now._replace(length=unit)
               for name, unit in LENGTH_UNITS.items()}
  both = {f"{one} and {other}": now._replace(energy=energy.energy, force=force.force)
          for one, energy in energies.items() for other, force in forces.items()}
  sets = {f"all in {name}": unit for name, unit in UNITS.items()}
  for guess, unit in (energies | forces | positions | sets | both).items():
    if abs(np.log(_work(unit) / _work(now) / slope)) < np.log(CLOSE_SLOPE):
      names = [name for name, known in UNITS.items() if known == unit]
      fix = f"pass units={names[0]!r}" if names else f"convert them in the file, read as {units}"
      return f"{guess}? Then {fix}"
  return "energies and forces of other methods, frames or units? Then make them anew, together"


def _work(unit: Units) -> float:
  """Unit of force times length in units of energy: 1 where they belong together."""
  return unit.force * unit.length / unit.energy


def _check_energy(raw: Raw) -> None:
  bound = ATOMIC_BOUND * np.sum(raw.species.astype(float) ** (7 / 3), axis=1)
  excess = np.abs(raw.energy) / bound
  worst = int(np.argmax(excess))
  if excess[worst] <= 1:
    return
  factors = {"kcal/mol": KCAL_PER_MOL, "kJ/mol": KJ_PER_MOL,
             "kcal/mol divided by 0.0434 where it must be multiplied": 1 / INVERTED}
  fitting = [name for name, factor in factors.items() if excess[worst] * factor <= 1]
  guess = f"Are the energies in {fitting[0]}? " if fitting else ""
  raise ValueError(
      f"frame {worst}: energy {raw.energy[worst]:.6g} eV; all electrons of its atoms bind at most "
      f"{bound[worst]:.4g} eV. {guess}Pass units=, or check_units=False if they are right")
