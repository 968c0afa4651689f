"""How many seeds a comparison needs, and what the seeds at hand can find.

The pilot is a table of log ratios, such as that of a finished sweep. What is planned for is the
contrast of median spread among them; the others are taken to be null. The power is that of the
test: the chance that the p which `max_t` adjusts over all contrasts falls below the level, on the
right side. An effect within 12 % that is known very well is called equivalent all the same.

The contrasts are normal with a common correlation, as they share the baseline. The pilot's mean
correlation is drawn towards 1/2, that of arms which spread as much as their baseline, with the
weight of five seeds; few seeds tell little of it, and little depends on it. The threshold of max-T
is then the quantile of the largest |t| of all contrasts, drawn from a fixed seed. For normal errors
the sign flips of `max_t` have the same power to within 0.03 from six seeds on.
"""

import functools

import numpy as np
import scipy  # loads scipy.stats, which takes a second, when it is first used
from jaxtyping import Float

from dcnn.stats.permutation import SIGNIFICANCE, count_flips

_MOST_SEEDS = 1000
_TABLES = 20_000  # that are drawn for a threshold
_PRIOR_CORRELATION, _PRIOR_SEEDS = 0.5, 5
_CORRELATION_STEP = 0.05  # so that tables of about the same correlation share their thresholds


def power(
    log_ratios: Float[np.ndarray, "contrasts pilot"], ratio: float, seeds: int,
    level: float = SIGNIFICANCE,
) -> float:
  """Power to find a ratio in one contrast of a table, adjusted over all of its contrasts.

  Args:
    log_ratios: Log ratios of a pilot (contrasts, seeds), at least one contrast with two finite
      ones; those that are not finite, where a run failed or is exact, are left out.
    ratio: The true ratio of error to baseline error in the contrast of median spread.
    seeds: The number of seeds planned.
    level: The level of the test.

  Returns:
    A probability; 0 where there are too few seeds for any effect.

  Raises:
    ValueError: If no contrast has two finite log ratios, or if an argument is out of range.

  >>> pilot = 0.1 * np.random.default_rng(0).normal(size=(13, 8))
  >>> power(pilot, 0.9, seeds=5), power(pilot, 0.9, seeds=8) < power(pilot, 0.9, seeds=16)
  (0.0, True)
  """
  spread = _spread(log_ratios)
  if not 0 < ratio < np.inf:
    raise ValueError(f"expected a ratio above 0, got {ratio}")
  effect = abs(float(np.log(ratio)))
  if not effect:
    return 0.0
  scale = spread / np.sqrt(max(seeds, 1))
  shift = min(effect / scale, _FAR) if scale else _FAR
  return _power_at(shift, seeds, _threshold_of(log_ratios, seeds, level))


def seeds_needed(
    log_ratios: Float[np.ndarray, "contrasts pilot"], ratio: float, power: float = 0.8,
    level: float = SIGNIFICANCE,
) -> int:
  """Smallest number of seeds with which a ratio is found with the power given.

  Args:
    log_ratios: Log ratios of a pilot (contrasts, seeds); see `power`.
    ratio: The true ratio of error to baseline error in the contrast of median spread.
    power: The power wanted, above 0 and below 1.
    level: The level of the test.

  Returns:
    A number of seeds, 1000 at most.

  Raises:
    ValueError: If 1000 seeds are not enough, or if an argument is out of range; see `power`.

  >>> seeds_needed(0.1 * np.random.default_rng(0).normal(size=(13, 8)), 0.9)
  16
  """
  _check_power(power)
  reached = functools.partial(_reached, log_ratios, ratio, power, level)
  if not reached(_MOST_SEEDS):
    raise ValueError(f"expected a ratio that {_MOST_SEEDS:,} seeds can find with a power of "
                     f"{power:g}, got {ratio:g}; plan for a ratio further from 1")
  short, enough = 0, 8
  while not reached(enough):
    short, enough = enough, min(2 * enough, _MOST_SEEDS)
  while enough - short > 1:
    middle = (short + enough) // 2
    short, enough = (short, middle) if reached(middle) else (middle, enough)
  return enough


def detectable_ratio(
    log_ratios: Float[np.ndarray, "contrasts pilot"], seeds: int, power: float = 0.8,
    level: float = SIGNIFICANCE,
) -> float:
  """The ratio nearest to 1, and below it, that a number of seeds finds with the power given.

  Args:
    log_ratios: Log ratios of a pilot (contrasts, seeds); see `power`.
    seeds: The number of seeds.
    power: The power wanted, above 0 and below 1.
    level: The level of the test.

  Returns:
    A ratio from 0 to 1: 0 where there are too few seeds for any effect, 1 where the pilot has no
    spread. The inverse of the ratio is found as well.

  Raises:
    ValueError: If no contrast has two finite log ratios, or if an argument is out of range.

  >>> round(detectable_ratio(0.1 * np.random.default_rng(0).normal(size=(13, 8)), seeds=16), 2)
  0.9
  """
  _check_power(power)
  spread, threshold = _spread(log_ratios), _threshold_of(log_ratios, seeds, level)
  if not np.isfinite(threshold):
    return 0.0
  shift = scipy.optimize.brentq(
      lambda shift: _power_at(shift, seeds, threshold) - power, -_FAR, _FAR)
  return float(np.exp(-max(shift, 0.0) * spread / np.sqrt(seeds)))


def _reached(
    log_ratios: Float[np.ndarray, "contrasts pilot"], ratio: float, wanted: float, level: float,
    seeds: int,
) -> bool:
  return power(log_ratios, ratio, seeds, level) >= wanted


def _check_power(wanted: float) -> None:
  if not 0 < wanted < 1:
    raise ValueError(f"expected a power above 0 and below 1, got {wanted}")


def _spread(log_ratios: Float[np.ndarray, "contrasts pilot"]) -> float:
  """Standard deviation of the log ratios in the contrast of median spread.

  The sample's is below the true one more often than above; each is divided by the median of the
  samples' for a true one of 1.
  """
  finite = [each[np.isfinite(each)] for each in log_ratios]
  spreads = [
      each.std(ddof=1) / np.sqrt(scipy.stats.chi2.median(each.size - 1) / (each.size - 1))
      for each in finite if each.size > 1]
  if not spreads:
    raise ValueError("expected a contrast with at least two pairs of finished runs, which tell how "
                     "much the ratio varies between seeds; got none")
  return float(np.median(spreads))


def _correlation(log_ratios: Float[np.ndarray, "contrasts pilot"]) -> float:
  """Correlation between contrasts, drawn towards 1/2, in steps; see the module."""
  whole = log_ratios[:, np.all(np.isfinite(log_ratios), axis=0)]
  centred = whole - whole.mean(axis=1, keepdims=True) if whole.shape[1] else whole
  lengths = np.linalg.norm(centred, axis=1)
  units = centred[lengths > 0] / lengths[lengths > 0, None]
  pairs = len(units) * (len(units) - 1)
  found = (np.sum(units.sum(axis=0) ** 2) - len(units)) / pairs if pairs else _PRIOR_CORRELATION
  drawn = ((whole.shape[1] * found + _PRIOR_SEEDS * _PRIOR_CORRELATION)
           / (whole.shape[1] + _PRIOR_SEEDS))
  return float(np.clip(round(drawn / _CORRELATION_STEP) * _CORRELATION_STEP, 0.0, 0.95))


def _threshold_of(
    log_ratios: Float[np.ndarray, "contrasts pilot"], seeds: int, level: float) -> float:
  if seeds < 1:
    raise ValueError(f"expected at least one seed, got {seeds}")
  if not 0 < level <= 1:
    raise ValueError(f"expected a level above 0 and at most 1, got {level}")
  return _threshold(len(log_ratios), seeds, _correlation(log_ratios), level)


@functools.lru_cache(maxsize=1024)
def _threshold(contrasts: int, seeds: int, correlation: float, level: float) -> float:
  """The |t| above which the adjusted p of a contrast falls below the level; inf if none does.

  The p are multiples of one over the number of flips: the largest below the level counts.
  """
  flips = count_flips(seeds)
  tail = (np.ceil(level * flips) - 1) / flips
  if tail <= 0 or seeds < 2:
    return np.inf
  if contrasts == 1:
    return float(scipy.stats.t.isf(tail / 2, seeds - 1))
  rng, shape = np.random.default_rng(0), (_TABLES, contrasts)
  # A score is sqrt(c) shared + sqrt(1 - c) own. Its mean over the seeds is normal, and given the
  # shared parts its sum of squares about the mean is noncentral chi-squared.
  shared, own = np.sqrt(correlation), np.sqrt(1 - correlation)
  means = shared * rng.normal(size=(_TABLES, 1)) + own * rng.normal(size=shape)
  along = correlation / (1 - correlation) * rng.chisquare(seeds - 1, size=(_TABLES, 1))
  squares = own**2 * rng.noncentral_chisquare(seeds - 1, along, size=shape)
  largest = np.max(means**2 / squares, axis=1)
  return float(np.sqrt(np.quantile(largest, 1 - tail) * (seeds - 1)))


_FAR = 1e3  # no threshold is that many standard errors away


def _power_at(shift: float, seeds: int, threshold: float) -> float:
  """Chance that t exceeds the threshold if the mean is that many standard errors from 0."""
  if not np.isfinite(threshold):
    return 0.0
  return float(np.mean(scipy.special.ndtr(shift - threshold * _relative_errors(seeds))))


@functools.lru_cache(maxsize=1024)
def _relative_errors(seeds: int) -> np.ndarray:
  """Estimated over true standard error, at evenly spaced quantiles of its distribution."""
  quantiles = (np.arange(500) + 0.5) / 500
  return np.sqrt(scipy.stats.chi2.ppf(quantiles, seeds - 1) / (seeds - 1))
