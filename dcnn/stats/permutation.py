"""Tests by sign flips of the seeds: max-T over many contrasts, and Wilcoxon's test with Holm's.

Each seed gives a difference between an arm and its baseline. If the two are equal, the difference
is as likely as its negative, whatever its distribution: flipping its sign changes nothing. All
arms of a table share their seeds, so a seed's differences are flipped together.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import scipy  # loads scipy.stats, which takes a second, when it is first used
from jaxtyping import Float

from dcnn.stats.intervals import DECIMALS, log_errors

SIGNIFICANCE = 0.05

# Up to 15 seeds all flips are taken, as without their mirror images they are fewer than the draws.
_MOST_ENUMERATED, _DRAWS = 15, 20_000
# Bounds the memory: as many flips are held at a time.
_BLOCK = 2048
# Statistics are shares of their largest value, and equal up to rounding where they differ by less.
_TIE = 1e-9


def max_t(
    scores: Float[np.ndarray, "contrasts seeds"]
) -> tuple[Float[np.ndarray, " contrasts"], Float[np.ndarray, " contrasts"]]:
  """Two-sided sign-flip p of each contrast, plain and adjusted by step-down max-T.

  The statistic of a contrast is |mean| / (sd / sqrt(n)) over its n seeds. A flip turns the signs
  of all scores of some seeds; under the null hypothesis it leaves their joint distribution as it
  is. The plain p is the share of the flips whose statistic is at least the observed one. For the
  adjusted p the contrasts are ordered from the largest statistic down, and each is compared with
  the largest statistic among itself and those after it; no adjusted p is below that of a contrast
  before it. The family-wise error is then at most the level, whichever hypotheses are true,
  exactly so for joint distributions symmetric about 0, and the dependence of the contrasts is
  used: two equal ones count as one.

  Up to 15 seeds all 2^n flips are taken, beyond that 20,000, drawn from a fixed seed, with the
  observed signs among them. The smallest p is 2 / 2^n (5e-5 where they are drawn), whatever the
  number of contrasts. A contrast whose scores are all equal has the statistic inf, or 0 if they
  are 0. Statistics that are equal up to rounding are ties.

  Args:
    scores: One score of each contrast and seed (contrasts, seeds), finite: log ratios or any other
      numbers whose sign says which side has the smaller error; see `signed_scores`. There may be no
      contrast.

  Returns:
    The plain and the adjusted p (contrasts), in the order given.

  Raises:
    ValueError: If there is no seed, or if a score is not finite.

  References:
    Westfall and Young, Resampling-Based Multiple Testing (1993), algorithm 2.8.
    Hemerik and Goeman, Exact Testing with Random Permutations, TEST 27 (2018), on drawn flips.

  >>> plain, adjusted = max_t(np.array([[1.0, 2, 3, 4, 5, 6], [1.0, -2, 3, -4, 5, -6]]))
  >>> plain.tolist(), adjusted.tolist()
  ([0.03125, 0.84375], [0.0625, 0.84375])
  """
  if not scores.shape[1]:
    raise ValueError(f"expected the scores of at least one seed, got shape {scores.shape}")
  if not np.all(np.isfinite(scores)):
    contrast, seed = np.argwhere(~np.isfinite(scores))[0]
    raise ValueError(f"expected finite scores, got {scores[contrast, seed]} for contrast "
                     f"{contrast}, seed {seed}; signed_scores makes scores of infinite log ratios")
  if not len(scores):
    return np.ones(0), np.ones(0)
  units = _units(scores)
  observed = np.abs(units.sum(axis=1))
  order = np.argsort(-observed, kind="stable")
  units, least = units[order], observed[order] - _TIE * np.sqrt(scores.shape[1])
  plain, adjusted, flips = np.zeros(len(scores)), np.zeros(len(scores)), 0
  for signs in _sign_blocks(scores.shape[1]):
    flipped = np.abs(units @ signs.T)
    largest = np.zeros(len(signs))  # of this contrast and those after it
    for contrast in reversed(range(len(units))):
      plain[contrast] += np.count_nonzero(flipped[contrast] >= least[contrast])
      np.maximum(largest, flipped[contrast], out=largest)
      adjusted[contrast] += np.count_nonzero(largest >= least[contrast])
    flips += len(signs)
  back = np.argsort(order)
  return (plain / flips)[back], np.maximum.accumulate(adjusted / flips)[back]


def _units(scores: Float[np.ndarray, "contrasts seeds"]) -> Float[np.ndarray, "contrasts seeds"]:
  """Scores of unit length, or 0.

  The length of a contrast's scores does not change when signs flip, and with it fixed the
  statistic |mean| / (sd / sqrt(n)) grows with |sum|, for all contrasts alike:
  t^2 = (n - 1) sum^2 / (n length^2 - sum^2).
  """
  # Relative to the largest, so that no square overflows.
  largest = np.max(np.abs(scores), axis=1, keepdims=True)
  relative = scores / np.where(largest > 0, largest, 1.0)
  length = np.linalg.norm(relative, axis=1, keepdims=True)
  return relative / np.where(length > 0, length, 1.0)


def count_flips(seeds: int) -> int:
  """Number of flips that `max_t` takes of this many seeds, one of each flip and its mirror image.

  >>> count_flips(6), count_flips(30)
  (32, 20000)
  """
  return 2 ** (seeds - 1) if seeds <= _MOST_ENUMERATED else _DRAWS


def _sign_blocks(seeds: int) -> Iterator[Float[np.ndarray, "flips seeds"]]:
  """Signs in blocks of flips, one of each flip and its mirror image; the first flips nothing."""
  if seeds <= _MOST_ENUMERATED:
    bits = np.arange(seeds - 1)
    for first in range(0, count_flips(seeds), _BLOCK):
      flips = np.arange(first, min(first + _BLOCK, count_flips(seeds)))
      signs = 1.0 - 2.0 * (flips[:, None] >> bits & 1)
      yield np.concatenate([np.ones((len(flips), 1)), signs], axis=1)
    return
  rng = np.random.default_rng(0)
  for first in range(0, _DRAWS, _BLOCK):
    signs = 1.0 - 2.0 * rng.integers(0, 2, size=(min(_BLOCK, _DRAWS - first), seeds))
    if not first:
      signs[0] = 1.0
    yield signs


def signed_scores(log_ratios: Float[np.ndarray, " seeds"]) -> Float[np.ndarray, " seeds"]:
  """What a contrast enters a sign-flip test with: its log ratios, or their signed ranks.

  Log ratios that are all finite are taken as they are. An infinite one, where one of the two runs
  failed or is exact, has no mean: the contrast then enters by Wilcoxon's signed ranks of its pairs,
  in which infinite ones rank last, and ties share their mean rank. Where both failed there is no
  difference, and the score is 0 either way. The scores of the negative log ratios are the negative
  scores, so a sign-flip test stays exact.

  Args:
    log_ratios: Log error minus log baseline error (seeds), +-inf where one of the two failed or is
      exact, nan where both failed.

  Returns:
    Finite scores (seeds).

  >>> signed_scores(np.array([-0.1, np.inf, 0.3, np.nan])).tolist()
  [-1.0, 3.0, 2.0, 0.0]
  """
  differences = np.nan_to_num(log_ratios, nan=0.0, posinf=np.inf, neginf=-np.inf)
  differences = np.round(differences, DECIMALS)
  return differences if np.all(np.isfinite(differences)) else _signed_ranks(differences)


def _signed_ranks(differences: Float[np.ndarray, " seeds"]) -> Float[np.ndarray, " seeds"]:
  """Wilcoxon's ranks of the absolute differences, with their signs, ties sharing the mean rank.

  Those that are 0 have no rank; their score is 0.
  """
  ranks = np.zeros(len(differences))
  differ = differences != 0
  ranks[differ] = scipy.stats.rankdata(np.abs(differences[differ]))
  return np.sign(differences) * ranks


def log_ratios(
    errors: Float[np.ndarray, "*shape"], baseline_errors: Float[np.ndarray, "*other"]
) -> Float[np.ndarray, " seeds"]:
  """Log error minus log baseline error, one for each seed.

  Args:
    errors: Errors of the arm (seeds), not negative; inf or nan marks a failed run, 0 an exact one.
    baseline_errors: Errors of the baseline (seeds) with the same seeds in the same order, in the
      same unit.

  Returns:
    The differences (seeds): +-inf where one of the two runs failed or is exact, 0 where both are
    exact, and nan where both failed.

  Raises:
    ValueError: If the two differ in length, or if one has a negative error.

  >>> log_ratios(np.array([1.0, np.inf, 0.0]), np.array([1.0, 2.0, 2.0])).tolist()
  [0.0, inf, -inf]
  """
  if errors.shape != baseline_errors.shape:
    raise ValueError(f"expected errors of the same seeds for the arm and its baseline, got shapes "
                     f"{errors.shape} and {baseline_errors.shape}")
  with np.errstate(invalid="ignore"):  # inf - inf
    differences = log_errors(errors) - log_errors(baseline_errors)
  return np.where((errors == 0) & (baseline_errors == 0), 0.0, differences)


def paired_p(errors: Float[np.ndarray, " seeds"],
             baseline_errors: Float[np.ndarray, " seeds"]) -> float:
  """Two-sided Wilcoxon signed-rank p of the log ratios, failed runs ranked worst, exact runs best.

  A pair in which only the arm failed is a difference larger than any finite one; only the
  baseline, smaller than any; both failed, no difference. A pair in which only the arm is exact is
  a difference smaller than any finite one, and so on. Pairs without difference are left out. The p
  is exact for any number of pairs, ties included: all sign patterns of the ranks are equally
  likely. With n pairs that differ it is never below 2^(1-n); see `smallest_p`.

  Args:
    errors: Errors of the arm (seeds), not negative; inf or nan marks a failed run, 0 an exact one.
    baseline_errors: Errors of the baseline (seeds) with the same seeds in the same order, in the
      same unit.

  Returns:
    A probability in (0, 1]; 1 where no pair differs.

  Raises:
    ValueError: If the two differ in length, or if one has a negative error.

  References:
    Wilcoxon, Individual Comparisons by Ranking Methods, Biometrics Bulletin 1 (1945).
    Lachin, Worst-Rank Score Analysis, Controlled Clinical Trials 20 (1999).

  >>> baseline = np.arange(1.0, 7.0)
  >>> paired_p(0.5 * baseline, baseline)  # all six pairs on one side
  0.03125
  """
  differences = log_ratios(errors, baseline_errors)
  differences = np.nan_to_num(differences, nan=0.0, posinf=np.inf, neginf=-np.inf)
  ranks = _signed_ranks(np.round(differences, DECIMALS))
  ranks = ranks[ranks != 0]
  doubled = np.rint(2 * np.abs(ranks)).astype(int)  # tied ranks are half integers
  probability = np.zeros(doubled.sum() + 1)  # of each sum of the doubled positive ranks
  probability[0] = 1.0
  for rank in doubled:
    probability[rank:] += probability[:-rank].copy()
    probability /= 2
  observed = doubled[ranks > 0].sum()
  tail = min(probability[:observed + 1].sum(), probability[observed:].sum())
  return float(min(1.0, 2 * tail))


def smallest_p(seeds: int) -> float:
  """Smallest two-sided sign-flip p that this many seeds can give: 2 / 2^seeds.

  It is 0.0625 for five seeds, 0.031 for six and 0.002 for ten, for one contrast or for many:
  all seeds agree in sign, which only two of the flips do.

  Args:
    seeds: Number of seeds.

  Returns:
    A probability in (0, 1].

  Raises:
    ValueError: If `seeds` is negative.

  >>> smallest_p(5)
  0.0625
  """
  if seeds < 0:
    raise ValueError(f"expected a number of seeds >= 0, got {seeds}")
  return min(1.0, 2.0 ** (1 - seeds))


def fewest_seeds(level: float = SIGNIFICANCE) -> int:
  """Smallest number of seeds with which any effect can be significant: 2 / 2^seeds < level.

  Args:
    level: The level of the test, above 0 and at most 1.

  Returns:
    A number of seeds; 6 for the level 0.05.

  Raises:
    ValueError: If the level is not above 0 and at most 1.

  >>> fewest_seeds(), fewest_seeds(0.01)
  (6, 8)
  """
  if not 0 < level <= 1:
    raise ValueError(f"expected a level above 0 and at most 1, got {level}")
  return next(seeds for seeds in itertools.count(1) if smallest_p(seeds) < level)


def holm(p_values: Float[np.ndarray, " arms"]) -> Float[np.ndarray, " arms"]:
  """Holm's step-down adjusted p values, which hold the family-wise error below any level.

  For p_(1) <= ... <= p_(m): adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)).

  Args:
    p_values: The p values (arms) of all contrasts of one table; there may be none.

  Returns:
    The adjusted p values (arms), in the order given.

  Raises:
    ValueError: If a p value lies outside 0 to 1.

  References:
    Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Stat. 6 (1979).

  >>> holm(np.array([0.5, 0.01])).tolist()
  [0.5, 0.02]
  """
  if not np.all((p_values >= 0) & (p_values <= 1)):
    raise ValueError(f"expected p values from 0 to 1, got {p_values}")
  order = np.argsort(p_values, kind="stable")
  factors = np.arange(len(p_values), 0, -1)
  adjusted = np.empty(len(p_values))
  adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p_values[order]))
  return adjusted
