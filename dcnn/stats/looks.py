"""The level of each look at a comparison to which seeds are added until it is decided.

Whoever looks at a table, adds seeds where it is undecided, and looks again, has one chance more
each time to find an effect that is none: four looks at the level 0.05 find one in 12 % of tables.
"""

import functools
from collections.abc import Sequence

import numpy as np
import scipy  # loads its parts, which take a second, when they are first used

from dcnn.stats.permutation import smallest_p

# Together `SIGNIFICANCE`: for the looks that were planned, and for those that nobody planned.
_PLANNED, _UNPLANNED = 0.045, 0.005
# The level for one contrast is too high for many: their largest statistics at two looks belong to
# different contrasts more often, and depend less on each other. With 50 contrasts, four looks at
# the level for one give 5.9 % for 5 %, after equal numbers of further seeds.
_CONTRASTS = 50
# Correlation of successive looks where the seeds double in between; with fewer it is larger.
_CORRELATION = np.sqrt(0.5)
_MOST_LOOKS = 100
_NODES = 128


def look_level(look: int, planned: int = 1) -> float:
  """The level of one look at a comparison, so that all looks together have a level of 5 %.

  The looks that were planned beforehand share 4.5 % at equal levels, as Pocock's do, computed for
  looks between which the seeds double and for a table of 50 contrasts; this is safe for fewer
  contrasts and for fewer further seeds, equal numbers among them.
  Of the 0.5 % that remain, each further look gets half of what is left, so that their number need
  not be known: 0.25 %, 0.125 %, ... From the seventh of these on the level is below the smallest p
  of drawn flips, see `max_t`, and nothing more can be decided.

  Args:
    look: The number of the look, from 1.
    planned: How many looks were planned before the first.

  Returns:
    The level by which the adjusted p of this look is judged.

  Raises:
    ValueError: If `look` or `planned` is below 1, or if more than 100 looks are planned.

  References:
    Pocock, Group Sequential Methods in the Design and Analysis of Clinical Trials, Biometrika 64
    (1977).
    Armitage, McPherson and Rowe, Repeated Significance Tests on Accumulating Data, JRSS A 132
    (1969), for the recursion.

  >>> look_level(1), look_level(2), round(look_level(1, planned=4), 4)
  (0.045, 0.0025, 0.0125)
  """
  if look < 1:
    raise ValueError(f"expected the number of a look, from 1, got {look}")
  if not 1 <= planned <= _MOST_LOOKS:
    raise ValueError(f"expected from 1 to {_MOST_LOOKS} planned looks, got {planned}")
  if look > planned:
    return _UNPLANNED / 2 ** (look - planned)
  return _PLANNED if planned == 1 else _pocock_level(planned)


def look_number(seeds: Sequence[int], planned: int = 1) -> int:
  """The number of the present look, counting those before it that could have found anything.

  A look with too few seeds for any effect at its level cannot find a false one either, and is free:
  a pilot of three seeds leaves the whole level to the look that follows.

  Args:
    seeds: The number of seeds at each look, in order, the present one last.
    planned: How many looks were planned before the first.

  Returns:
    The number for `look_level`, from 1.

  Raises:
    ValueError: If there is no look, or if `planned` is out of range; see `look_level`.

  >>> look_number([3, 10]), look_number([10, 20]), look_number([6, 8, 12])
  (1, 2, 2)
  """
  if not len(seeds):
    raise ValueError("expected the number of seeds at one look at least, got none")
  number = 1
  for each in seeds[:-1]:
    number += smallest_p(each) < look_level(number, planned)
  return number


@functools.cache
def _pocock_level(looks: int) -> float:
  """The level of each of several looks at independent contrasts that together have 4.5 %."""
  each = _level_of_one(_PLANNED)
  bound = scipy.optimize.brentq(lambda bound: _crossing(bound, looks) - each, 1.0, 10.0)
  return float(1 - (1 - 2 * scipy.special.ndtr(-bound)) ** _CONTRASTS)


def _level_of_one(level: float) -> float:
  """The level of each contrast if any of all is to be significant with probability `level`."""
  return 1 - (1 - level) ** (1 / _CONTRASTS)


def _crossing(bound: float, looks: int) -> float:
  """Probability that a normal statistic exceeds the bound on either side at any of the looks."""
  nodes, weights = np.polynomial.legendre.leggauss(_NODES)
  places, own = bound * nodes, np.sqrt(1 - _CORRELATION**2)
  # Of the statistics that have stayed inside: the weighted density at each place.
  inside = _normal_density(places) * weights * bound
  step = _normal_density((places[:, None] - _CORRELATION * places) / own) / own
  for _ in range(looks - 1):
    inside = step @ inside * weights * bound
  return float(1 - inside.sum())


def _normal_density(places: np.ndarray) -> np.ndarray:
  return np.exp(-0.5 * places**2) / np.sqrt(2 * np.pi)
