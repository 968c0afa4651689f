"""One comparison made in several strata, such as molecules: the ratio over all, and its test."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dcnn.stats.intervals import Interval, mean_log_interval
from dcnn.stats.permutation import max_t, signed_scores


def combined_ratio(log_ratios: Sequence[Float[np.ndarray, "..."]]) -> Interval:
  """Geometric mean of the ratios of several strata, each with equal weight.

  The interval is the BCa bootstrap of the mean of the strata's mean log ratios, stratified: the
  seeds of each stratum are drawn anew from its own. As in `geometric_mean` it is widened to
  Student's level, with the degrees of freedom of Satterthwaite, and where these are below five it
  is Student's interval itself; for a single stratum it is that of `geometric_mean`. The strata are
  fixed: the interval is that of the mean over these strata, and says nothing of others. The seeds
  of different strata are taken as independent.

  Args:
    log_ratios: For each stratum the log ratio of each seed (seeds); the strata may differ in their
      number of seeds. Those that are not finite, where a run failed or is exact, are left out.

  Returns:
    The ratio and its interval. It is nan where a stratum has no finite log ratio, and the ends are
    nan where one has a single one.

  Raises:
    ValueError: If there is no stratum.

  References:
    Satterthwaite, An Approximate Distribution of Estimates of Variance Components, Biometrics
    Bulletin 2 (1946).
    Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.2.

  >>> combined_ratio([np.log(np.full(5, 0.5)), np.log(np.full(3, 2.0))])
  Interval(centre=1.0, low=1.0, high=1.0)
  """
  if not len(log_ratios):
    raise ValueError("expected the log ratios of at least one stratum, got none")
  return mean_log_interval(*log_ratios)


def combined_p(
    log_ratios: Sequence[Float[np.ndarray, "contrasts _"]]
) -> Float[np.ndarray, " contrasts"]:
  """Adjusted p of contrasts over several strata, by max-T with joint sign flips of all seeds.

  The statistic is the studentised sum of the strata's mean log ratios, which have equal weight. The
  seeds of all strata flip independently of each other, those of one seed jointly for all contrasts;
  see `max_t`. A contrast with an infinite log ratio in any stratum enters by the signed ranks of
  its pairs in all strata together; see `signed_scores`.

  Args:
    log_ratios: For each stratum the log ratio of each contrast and seed (contrasts, seeds); the
      strata have the same contrasts and may differ in their number of seeds. +-inf where one of
      the two runs failed or is exact, nan where both failed.

  Returns:
    The adjusted p (contrasts).

  Raises:
    ValueError: If there is no stratum, if one has no seed, or if they differ in the number of
      contrasts.

  >>> combined_p([np.log(np.full((1, 4), 0.5)), np.log(np.full((1, 3), 0.7))]).tolist()
  [0.015625]
  """
  if not len(log_ratios) or any(not each.shape[1] for each in log_ratios):
    raise ValueError(f"expected strata of at least one seed each, got the shapes "
                     f"{[each.shape for each in log_ratios]}")
  if len({len(each) for each in log_ratios}) > 1:
    raise ValueError(f"expected the same contrasts in every stratum, got the shapes "
                     f"{[each.shape for each in log_ratios]}")
  weights = np.concatenate([np.full(each.shape[1], 1 / each.shape[1]) for each in log_ratios])
  joined = np.concatenate(log_ratios, axis=1)
  scores = np.array([signed_scores(each) for each in joined]).reshape(joined.shape)
  return max_t(scores * weights)[1]
