"""Arms against a baseline, paired by seed: ratios, tests and verdicts."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dcnn.stats.intervals import Interval, geometric_mean, log_errors, mean_log_interval, wilson
from dcnn.stats.permutation import (
    SIGNIFICANCE,
    holm,
    log_ratios,
    max_t,
    paired_p,
    signed_scores,
    smallest_p,
)

TOO_FEW_SEEDS = "too few seeds"


class Contrast(NamedTuple):
  """An arm against the baseline, paired by seed.

  Attributes:
    ratio: Geometric mean of error / baseline error over those pairs in which both runs finished and
      neither or both are exact; below 1 where the arm has the smaller error. It is 0 where the arm
      is exact in all pairs and the baseline is not, and nan where no pair has a ratio.
    low: Lower end of the 95 % interval of the ratio, computed as in `geometric_mean`. It is
      pointwise: of 20 such intervals, one is expected to miss its ratio.
    high: Upper end of that interval.
    p: Two-sided sign-flip p of this contrast alone; see `compare`.
    p_adjusted: The p adjusted by max-T for all contrasts of the table.
    pairs: Number of pairs in which both runs finished.
    verdict: `better` (the arm has the smaller error), `worse`, `equivalent` (within 12 %),
      `undecided` or `too few seeds`.
    p_holm: Wilcoxon's signed-rank p after Holm's correction for all contrasts of the table, by
      which the verdicts of former versions were given.
  """

  ratio: float
  low: float
  high: float
  p: float
  p_adjusted: float
  pairs: int
  verdict: str
  p_holm: float = np.nan


class ArmSummary(NamedTuple):
  """One line of a comparison table.

  Attributes:
    arm: Name of the arm.
    n: Number of runs, including the failed ones.
    failed: Number of failed runs.
    failure_rate: Share of failed runs, with its Wilson interval.
    error: Geometric mean over the finished runs in the unit of the errors; see `geometric_mean`.
    contrast: Comparison with the baseline; None for the baseline itself.
    exact: Number of runs whose error is exactly 0.
  """

  arm: str
  n: int
  failed: int
  failure_rate: Interval
  error: Interval
  contrast: Contrast | None
  exact: int = 0


def verdict(
    ratio: Interval, p_adjusted: float, *, seeds: int | None = None, level: float = SIGNIFICANCE,
    margin_dex: float = 0.05,
) -> str:
  """The verdict on a contrast in a word or three, from its ratio, interval and adjusted p.

  Args:
    ratio: The ratio of error to baseline error, with its 95 % interval.
    p_adjusted: The adjusted p of the same contrast.
    seeds: The number of seeds of the table; None where there are enough for any verdict.
    level: The level of the test; see `look_level`.
    margin_dex: Half width of the band of practical equivalence, which extends from 10^-margin to
      10^margin; 0.05 is 12 %.

  Returns:
    `equivalent` if the whole interval lies inside the band; otherwise `better` (smaller error) or
    `worse` if the interval excludes 1 and p_adjusted < level; otherwise `too few seeds` where not
    even an effect of the same sign in all seeds could be significant, 2 / 2^seeds >= level;
    otherwise `undecided`. Only `better` and `worse` are held to the level over the whole table:
    `equivalent` rests on the interval of this contrast alone.

  Raises:
    ValueError: If `margin_dex` is not positive.

  >>> verdict(Interval(0.8, 0.7, 0.9), p_adjusted=0.01)
  'better'
  >>> verdict(Interval(0.3, 0.2, 0.4), p_adjusted=0.0625, seeds=5)
  'too few seeds'
  """
  if not margin_dex > 0:
    raise ValueError(f"expected a positive margin_dex, got {margin_dex}")
  if 10**-margin_dex < ratio.low and ratio.high < 10**margin_dex:
    return "equivalent"
  if p_adjusted < level and ratio.high < 1:
    return "better"
  if p_adjusted < level and ratio.low > 1:
    return "worse"
  return _no_verdict(seeds, level)


def _no_verdict(seeds: int | None, level: float) -> str:
  """Why there is no verdict: too few seeds for any, or not enough evidence for this one."""
  return TOO_FEW_SEEDS if seeds is not None and smallest_p(seeds) >= level else "undecided"


def compare(
    errors: Mapping[str, Float[np.ndarray, " seeds"]], baseline: str, level: float = SIGNIFICANCE
) -> list[ArmSummary]:
  """Table of arms, each against the baseline, with p adjusted by max-T over all of them.

  A contrast enters the test by its log ratios, or, where a run failed or is exact in one arm only,
  by the signed ranks of its pairs, in which these pairs rank last: a failed run is worse than any
  finite error, an exact one better. Where both runs of a pair failed, there is no difference. See
  `max_t` and `signed_scores`.

  The verdict is that of `verdict` where each seed finished in both arms or failed in both, and is
  exact in both or in neither. Where a seed failed or is exact in one arm only, the ratio describes
  the other pairs alone, and the verdict follows the ranks of all pairs: `better` or `worse` needs
  p_adjusted < level, the rank sum on that side, and support either from the other pairs (their own
  verdict) or from the pairs in question (more of them on that side). `equivalent` is then not
  possible.

  Args:
    errors: Errors of each arm (seeds) with the same seeds in the same order, not negative; inf or
      nan marks a failed run, 0 an exact one.
    baseline: Name of the arm to compare with.
    level: The level of the verdicts; see `look_level`.

  Returns:
    One summary for each arm, in the order of `errors`.

  Raises:
    ValueError: If the baseline is not among the arms, if the arms differ in their number of seeds,
      or if an error is negative.

  >>> base = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
  >>> for line in compare({"base": base, "half": base / 2}, baseline="base"):
  ...   print(line.arm, line.contrast and line.contrast.verdict)
  base None
  half better
  """
  scores = _scores(errors, baseline)
  plain, adjusted = max_t(np.array(list(scores.values())).reshape(-1, len(errors[baseline])))
  former = holm(np.array([paired_p(errors[arm], errors[baseline]) for arm in scores]))
  contrasts = {
      arm: _contrast(errors[arm], errors[baseline], scores[arm], p=float(p),
                     p_adjusted=float(p_adjusted), p_holm=float(p_holm), level=level)
      for arm, p, p_adjusted, p_holm in zip(scores, plain, adjusted, former, strict=True)}
  return [_summary(arm, values, contrasts.get(arm)) for arm, values in errors.items()]


def joint_p(
    errors: Mapping[str, Mapping[str, Float[np.ndarray, " seeds"]]], baseline: str
) -> dict[str, dict[str, float]]:
  """Adjusted p of every arm on several metrics, by max-T over all contrasts of all of them.

  For claims that rest on several metrics at once: the chance of any false one among them stays
  below the level. Within one metric alone, `compare` adjusts.

  Args:
    errors: By metric the errors of each arm, as `compare` takes them; all metrics have the same
      seeds in the same order.
    baseline: Name of the arm to compare with.

  Returns:
    By metric and arm the adjusted p; the baseline has none.

  Raises:
    ValueError: As for `compare`, or if the metrics differ in their number of seeds.

  >>> base = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
  >>> table = {"base": base, "half": base / 2}
  >>> joint_p({"energy": table, "force": table}, baseline="base")
  {'energy': {'half': 0.03125}, 'force': {'half': 0.03125}}
  """
  scores = {metric: _scores(arms, baseline) for metric, arms in errors.items()}
  seeds = {metric: len(arms[baseline]) for metric, arms in errors.items()}
  if len(set(seeds.values())) > 1:
    raise ValueError(f"expected the same seeds for every metric, got "
                     f"{', '.join(f'{n} for {metric!r}' for metric, n in seeds.items())}")
  listed = [each for arms in scores.values() for each in arms.values()]
  adjusted = iter(max_t(np.array(listed))[1].tolist() if listed else [])
  return {metric: {arm: next(adjusted) for arm in arms} for metric, arms in scores.items()}


def _scores(
    errors: Mapping[str, Float[np.ndarray, " seeds"]], baseline: str
) -> dict[str, Float[np.ndarray, " seeds"]]:
  """Scores of each arm against the baseline, which is not among them; checks the errors."""
  if baseline not in errors:
    raise ValueError(f"unknown baseline {baseline!r}; the arms are {', '.join(errors) or 'none'}")
  for arm, values in errors.items():
    if values.shape != errors[baseline].shape:
      raise ValueError(
          f"expected errors of the same seeds for every arm, got shape {values.shape} for {arm!r} "
          f"and {errors[baseline].shape} for the baseline {baseline!r}")
    try:
      log_errors(values)
    except ValueError as error:
      raise ValueError(f"arm {arm!r}: {error}") from error
  return {arm: signed_scores(log_ratios(errors[arm], errors[baseline]))
          for arm in errors if arm != baseline}


def _summary(
    arm: str, errors: Float[np.ndarray, " seeds"], contrast: Contrast | None
) -> ArmSummary:
  n = len(errors)
  failed = n - int(np.isfinite(errors).sum())
  return ArmSummary(arm, n, failed, wilson(failed, n), geometric_mean(errors), contrast,
                    int(np.sum(errors == 0)))


def _contrast(
    errors: Float[np.ndarray, " seeds"], baseline_errors: Float[np.ndarray, " seeds"],
    scores: Float[np.ndarray, " seeds"], *,
    p: float, p_adjusted: float, p_holm: float, level: float,
) -> Contrast:
  differences = log_ratios(errors, baseline_errors)
  both = np.isfinite(errors) & np.isfinite(baseline_errors)
  one_is_exact = np.all(errors[both] == 0) != np.all(baseline_errors[both] == 0)
  kept = np.isneginf if one_is_exact else np.isfinite
  ratio = mean_log_interval(differences[both & kept(differences)])
  word = verdict(ratio, p_adjusted, seeds=len(errors), level=level)
  if np.any(np.isinf(differences)):
    word = _verdict_by_ranks(word, differences, scores, p_adjusted, level)
  return Contrast(*ratio, p=p, p_adjusted=p_adjusted, pairs=int(np.sum(both)), verdict=word,
                  p_holm=p_holm)


def _verdict_by_ranks(
    finite: str, differences: Float[np.ndarray, " seeds"], scores: Float[np.ndarray, " seeds"],
    p_adjusted: float, level: float,
) -> str:
  """The verdict that `compare` describes where log ratios are infinite.

  Args:
    finite: The verdict of the other pairs.
    differences: The log ratios (seeds).
    scores: Their signed ranks (seeds).
    p_adjusted: The adjusted p of the contrast.
    level: The level of the test.
  """
  more_worse = np.isposinf(differences).sum() - np.isneginf(differences).sum()
  if p_adjusted < level and scores.sum() < 0 and (finite == "better" or more_worse < 0):
    return "better"
  if p_adjusted < level and scores.sum() > 0 and (finite == "worse" or more_worse > 0):
    return "worse"
  return _no_verdict(len(scores), level)
