"""Units of files: the usual sets, those that a file declares, and what a mixture looks like."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from dcnn.base import BOHR, HARTREE, KCAL_PER_MOL
from dcnn.base.text import suggestion
from dcnn.base.wording import option
from dcnn.data.raw import Raw

KJ_PER_MOL = KCAL_PER_MOL / 4.184

ENERGY_UNITS = {
    "eV": 1.0, "meV": 1e-3, "kcal/mol": KCAL_PER_MOL, "kJ/mol": KJ_PER_MOL, "hartree": HARTREE,
    "rydberg": HARTREE / 2}
LENGTH_UNITS = {"angstrom": 1.0, "bohr": BOHR, "nm": 10.0, "pm": 0.01}
COMMON_ENERGIES = ("eV", "kcal/mol", "kJ/mol", "hartree")
# Other spellings in files, in lower case and without blanks.
_SPELLINGS = {
    **dict.fromkeys(("ev", "electronvolt", "electronvolts"), "eV"),
    "mev": "meV",
    **dict.fromkeys(("kcal/mol", "kcalmol-1", "kcal", "kcal/mole", "kcal_mol"), "kcal/mol"),
    **dict.fromkeys(("kj/mol", "kjmol-1", "kj", "kj/mole", "kj_mol"), "kJ/mol"),
    **dict.fromkeys(("hartree", "hartrees", "ha", "eh", "au"), "hartree"),
    **dict.fromkeys(("rydberg", "rydbergs", "ry"), "rydberg"),
    **dict.fromkeys(("angstrom", "angstroms", "ang", "a", "å", "aa"), "angstrom"),
    **dict.fromkeys(("bohr", "bohrs", "a0", "b"), "bohr"),
    **dict.fromkeys(("nm", "nanometer", "nanometers"), "nm"),
    "pm": "pm"}


_MARKS = str.maketrans("", "", "^*·.")  # signs of products and powers: kcal mol^-1, kcal·mol**-1


class Units(NamedTuple):
  """Units of a file.

  Attributes:
    name: The unit of the forces; positions are in its length, or in the length after a `+`.
    energy: The unit of energies in eV.
    length: The unit of positions in angstrom.
    force: The unit of forces in eV/angstrom.
  """

  name: str
  energy: float
  length: float
  force: float


def _compose(energy: str, length: str, positions: str) -> Units:
  """The units with forces in energy/length, and positions in a length that may be another."""
  name = f"{energy}/{length}" + (f"+{positions}" if positions != length else "")
  return Units(name, ENERGY_UNITS[energy], LENGTH_UNITS[positions],
               ENERGY_UNITS[energy] / LENGTH_UNITS[length])


# The usual units, which are also those that numbers of unknown units are tried in.
UNITS = {unit.name: unit for unit in (
    _compose("eV", "angstrom", "angstrom"),
    _compose("kcal/mol", "angstrom", "angstrom"),
    _compose("kJ/mol", "angstrom", "angstrom"),
    _compose("kJ/mol", "nm", "nm"),
    _compose("hartree", "angstrom", "angstrom"),
    _compose("hartree", "bohr", "bohr"),
    _compose("hartree", "bohr", "angstrom"),
)}


def rare_units() -> list[Units]:
  """All combinations of units that occur in files, including those that are not in `UNITS`."""
  return [_compose(energy, length, positions) for energy in (*COMMON_ENERGIES, "meV")
          for length in ("angstrom", "bohr", "nm") for positions in ("angstrom", "bohr", "nm")]


FORCE_UNITS = {name: unit.force for name, unit in UNITS.items() if "+" not in name}
CLOSE_SLOPE = 1.07


def parse(name: str) -> Units:
  """The units of a name such as `kcal/mol/angstrom` or `hartree/bohr+angstrom`.

  Args:
    name: The unit ENERGY/LENGTH of the forces, with names of `ENERGY_UNITS` and `LENGTH_UNITS`,
      and, after a `+`, the length of the positions where it is another.

  Raises:
    ValueError: With the known names and the closest one, if the name is not known.
  """
  forces, _, positions = name.partition("+")
  energy, _, length = forces.rpartition("/")
  positions = positions or length
  if energy in ENERGY_UNITS and length in LENGTH_UNITS and positions in LENGTH_UNITS:
    return _compose(energy, length, positions)
  meant = f"{_full_name(energy)}/{_full_name(length)}"  # of spellings that files have, as eV/A
  raise ValueError(
      f"unknown units {name!r}: {suggestion(meant, UNITS)}Known are {', '.join(UNITS)}, and any "
      f"ENERGY/LENGTH of {', '.join(ENERGY_UNITS)} and {', '.join(LENGTH_UNITS)}")


def _full_name(spelling: str) -> str:
  """The name of the unit with a spelling; any other text as it is."""
  return _SPELLINGS.get("".join(spelling.split()).lower().translate(_MARKS), spelling)


def declared_units(energy: object, length: object, force: object, default: Units) -> Units:
  """The units that a file declares.

  Args:
    energy: The declared unit of energies, as text or bytes; None where the file does not say.
    length: The declared unit of positions; None likewise.
    force: The declared unit of forces; None for energy / length.
    default: The units of the file's convention, for what the file does not say.

  Raises:
    ValueError: On a unit that is not known, with the known ones and the closest.
  """
  usual = default.name.rpartition("/")[0]
  if energy is None and force is not None:
    usual = _unit_name(
        _text(force).rpartition("/")[0], ENERGY_UNITS, "forces (as ENERGY/LENGTH)", "")
  energy_name = _unit_name(energy, ENERGY_UNITS, "energies", usual)
  positions = _unit_name(length, LENGTH_UNITS, "positions", "angstrom")
  if force is None:
    return _compose(energy_name, positions, positions)
  of_force, _, per_length = _text(force).rpartition("/")
  force_energy = _unit_name(of_force, ENERGY_UNITS, "forces (as ENERGY/LENGTH)", "")
  force_length = _unit_name(per_length, LENGTH_UNITS, "forces (as ENERGY/LENGTH)", "")
  if force_energy == energy_name:
    return _compose(energy_name, force_length, positions)
  return Units(f"{force_energy}/{force_length} with energies in {energy_name}",
               ENERGY_UNITS[energy_name], LENGTH_UNITS[positions],
               ENERGY_UNITS[force_energy] / LENGTH_UNITS[force_length])


def split_unit(units: object, length: object) -> tuple[object, object, object]:
  """Units of energy, length and force from one word that a file declares, `eV/A` or `kcal/mol`.

  Args:
    units: The word: the unit of forces where it ends in a length, else that of energies.
    length: The unit of positions where the file declares it separately; else None.
  """
  text = _text(units)
  energy, slash, per_length = text.rpartition("/")
  if slash and "".join(per_length.split()).lower() in {
      spelling for spelling, unit in _SPELLINGS.items() if unit in LENGTH_UNITS}:
    return energy, length or per_length, text
  return text, length, None


def _text(value: object) -> str:
  """Text of a string, of bytes, or of an array that holds one of either."""
  if isinstance(value, np.ndarray) and value.size == 1:
    value = value.reshape(-1)[0]
  return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _unit_name(value: object, known: Mapping[str, float], what: str, default: str) -> str:
  """The name of a unit that a file declares for some quantity; the default where it is silent."""
  if value is None:
    return default
  text = "".join(_text(value).split())
  name = text if text in known else _full_name(text)
  if name in known:
    return name
  spellings = [spelling for spelling, unit in _SPELLINGS.items() if unit in known]
  hint = suggestion(text, known) or suggestion(text.lower(), spellings)
  raise ValueError(
      f"the file declares the unit {' '.join(_text(value).split())[:40]!r} for {what}, which is "
      f"not known; {hint}known are {', '.join(known)}: correct it, or say what is right with "
      f"{option('units')}")


def convert(raw: Raw, unit: Units) -> Raw:
  """Positions, energies and forces in angstrom, eV and eV/angstrom."""
  return raw._replace(
      positions=raw.positions * unit.length,
      cell=None if raw.cell is None else raw.cell * unit.length,
      energy=raw.energy * unit.energy,
      free_energy=None if raw.free_energy is None else raw.free_energy * unit.energy,
      forces=raw.forces * unit.force)


def likely_mix(now: Units, slope: float, fits: Callable[[Units], bool]) -> str:
  """The units that may explain why energies change by `slope` times the work against the forces.

  Numbers in other units than assumed have a known slope: 23.06 for energies in kcal/mol beside
  forces in eV/angstrom, both read as eV. The function tries, in this order, one quantity in another
  unit, the sets of `UNITS`, and energies and forces in two other units, and names the first that
  agrees within 7 %.

  Args:
    now: The units that were assumed.
    slope: Change of energy over work against the forces, as read; positive.
    fits: Says whether the set may be in some other units, as far as its bonds tell.
  """
  energies = {f"energies in {name}": now._replace(energy=ENERGY_UNITS[name])
              for name in COMMON_ENERGIES}
  forces = {f"forces in {name}": now._replace(force=unit) for name, unit in FORCE_UNITS.items()}
  positions = {f"positions in {name}": now._replace(length=unit)
               for name, unit in LENGTH_UNITS.items()}
  both = {f"{one} and {other}": now._replace(energy=energy.energy, force=force.force)
          for one, energy in energies.items() for other, force in forces.items()}
  sets = {f"all in {name}": unit for name, unit in UNITS.items()}
  for guess, unit in (energies | forces | positions | sets | both).items():
    if abs(np.log(_work(unit) / _work(now) / slope)) < np.log(CLOSE_SLOPE) and fits(unit):
      names = [name for name, known in UNITS.items() if known[1:] == unit[1:]]
      fix = (f"set {option('units', names[0])}" if names
             else f"convert them in the file, read as {now.name}")
      return f"{guess}? Then {fix}"
  return "energies and forces of other methods, frames or units? Then make them anew, together"


def _work(unit: Units) -> float:
  """The unit of work, force times length, in units of energy: 1 where they belong together."""
  return unit.force * unit.length / unit.energy
