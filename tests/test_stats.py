"""Intervals, paired tests, Holm's correction, failure rates and verdicts."""

import itertools

import jaxtyping
import numpy as np
import pytest
import scipy.stats

from dcnn import stats

NAN = float("nan")
INF = float("inf")


def log_normal(seed, shape=10, spread=0.3):
  return np.exp(np.random.default_rng(seed).normal(scale=spread, size=shape))


# Closed forms and extremes.


def test_geometric_mean_of_powers_of_ten():
  assert stats.geometric_mean(np.array([1.0, 100.0])).centre == pytest.approx(10.0)


@pytest.mark.parametrize("n", [10, 30])
def test_interval_is_scipys_bca_at_hesterbergs_level(n):
  errors = log_normal(1, n)
  student = scipy.stats.t.ppf(0.975, n - 1)
  level = float(1 - 2 * scipy.stats.norm.cdf(-np.sqrt(n / (n - 1)) * student))
  expected = scipy.stats.bootstrap(
      (np.log(errors),), np.mean, confidence_level=level, n_resamples=100_000,
      rng=np.random.default_rng(123)).confidence_interval
  interval = stats.geometric_mean(errors)
  assert interval.centre == pytest.approx(scipy.stats.gmean(errors))
  # Each end carries the Monte-Carlo error of 20,000 resamples, 1.4 % of the width at ten seeds.
  tolerance = 0.07 * (expected.high - expected.low)
  assert np.log(interval[1:]) == pytest.approx([expected.low, expected.high], abs=tolerance)


def test_hesterbergs_level_at_ten_runs_is_wider_than_plain_bca():
  errors = log_normal(2)
  plain = scipy.stats.bootstrap(
      (np.log(errors),), np.mean, rng=np.random.default_rng(0)).confidence_interval
  interval = stats.geometric_mean(errors)
  widening = np.log(interval.high / interval.low) / (plain.high - plain.low)
  # t_{0.975, 9} sqrt(10/9) / 1.96 = 1.217 for a normal bootstrap distribution.
  assert 1.1 < widening < 1.35


@pytest.mark.parametrize("n", [2, 3, 5])
def test_interval_of_few_runs_is_students(n):
  logs = np.log(log_normal(3, n))
  half = scipy.stats.t.ppf(0.975, n - 1) * logs.std(ddof=1) / np.sqrt(n)
  expected = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
  np.testing.assert_allclose(stats.geometric_mean(np.exp(logs)), expected, rtol=1e-10)


@pytest.mark.parametrize("errors, expected", [
    pytest.param([INF, NAN, INF], (NAN, NAN, NAN), id="none-finished"),
    pytest.param([INF, 0.3, NAN], (0.3, NAN, NAN), id="one-finished"),
    pytest.param([0.3, 0.3, INF], (0.3, 0.3, 0.3), id="two-equal"),
    pytest.param([0.3] * 10, (0.3, 0.3, 0.3), id="all-equal"),
    pytest.param([0.3] * 9 + [np.nextafter(0.3, 1)], (0.3, 0.3, 0.3), id="equal-to-rounding"),
    pytest.param([1e-300] * 10, (1e-300, 1e-300, 1e-300), id="tiny"),
    pytest.param([0.0] * 10, (0, 0, 0), id="all-exact"),
    pytest.param([0.0, INF], (0, NAN, NAN), id="one-exact"),
    pytest.param([0.0, 0.3, 0.3], (0.3, 0.3, 0.3), id="some-exact"),
    pytest.param([1e-308, 1e308], (1, 0, INF), id="beyond-float64"),
])
@pytest.mark.filterwarnings("error")
def test_degenerate_intervals(errors, expected):
  np.testing.assert_allclose(stats.geometric_mean(np.array(errors)), expected, rtol=1e-10)


@pytest.mark.filterwarnings("error")
def test_one_outlier_among_equal_runs_has_a_finite_interval():
  interval = stats.geometric_mean(np.array([1.0] * 9 + [10.0]))
  assert 1 <= interval.low < interval.centre < interval.high <= 10


def paired_ratio(errors, baseline):
  contrast = stats.compare({"arm": errors, "base": baseline}, "base")[0].contrast
  return stats.Interval(*contrast[:3])


def test_paired_ratio_uses_pairs_in_which_both_finished():
  errors, baseline = np.array([2.0, INF, 3.0, 8.0]), np.array([1.0, 1.0, NAN, 1.0])
  expected = stats.geometric_mean(np.array([2.0, 8.0]))
  np.testing.assert_allclose(paired_ratio(errors, baseline), expected)


def test_a_constant_ratio_is_known_exactly():
  baseline = log_normal(4)
  np.testing.assert_allclose(paired_ratio(0.8 * baseline, baseline), 0.8, rtol=1e-10)


@pytest.mark.parametrize("n", [1, 5, 10, 30])
def test_p_is_scipys_exact_wilcoxon(n):
  errors, baseline = log_normal(5, n), log_normal(6, n, spread=0.6)
  expected = scipy.stats.wilcoxon(np.log(errors / baseline), method="exact")[1]
  assert stats.paired_p(errors, baseline) == pytest.approx(expected, rel=1e-9)


def positive_rank_sum(differences):
  return scipy.stats.rankdata(np.abs(differences))[differences > 0].sum()


def test_p_with_ties_and_zeros_is_that_of_all_sign_patterns():
  log_ratios = np.array([0, 1, 1, -1, 2, 2, -2, 3, 0, 4.0])
  differences = log_ratios[log_ratios != 0]
  expected = scipy.stats.permutation_test(
      (differences,), positive_rank_sum, permutation_type="samples", n_resamples=2**8).pvalue
  assert stats.paired_p(np.exp(log_ratios), np.ones(10)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sizes", [
    pytest.param([1, 2, 3, 4, 5, 6, 7, 8], id="distinct"),
    pytest.param([1, 1, 1, 2, 3, 3, INF, INF], id="ties-and-failures"),
])
def test_p_is_valid_under_the_null(sizes):
  # All 2^8 sign patterns are equally likely: p <= x in at most a fraction x of them.
  patterns = np.array(list(itertools.product([-1, 1], repeat=8)))
  arm = np.exp(np.where(patterns > 0, sizes, 0.0))
  baseline = np.exp(np.where(patterns < 0, sizes, 0.0))
  p_values = np.sort([stats.paired_p(*pair) for pair in zip(arm, baseline, strict=True)])
  fraction_at_most = np.searchsorted(p_values, p_values, side="right") / len(p_values)
  assert np.all(fraction_at_most <= p_values + 1e-12)


@pytest.mark.parametrize("n", [1, 5, 6, 10, 60])
def test_smallest_p_is_reached_when_all_pairs_agree(n):
  baseline = log_normal(7, n)
  expected = min(1.0, 2.0 ** (1 - n))
  assert stats.smallest_p(n) == expected
  assert stats.paired_p(0.9 * baseline, baseline) == pytest.approx(expected)
  assert stats.paired_p(np.full(n, INF), baseline) == pytest.approx(expected)


@pytest.mark.parametrize("failed, stand_in", [
    pytest.param([7], [1e9], id="arm-fails-once"),
    pytest.param([2, 7], [1e9, 1e9], id="arm-fails-twice-tied"),
])
def test_failed_runs_rank_worst(failed, stand_in):
  errors, baseline = log_normal(8), np.ones(10)
  worst = errors.copy()
  errors[failed], worst[failed] = NAN, stand_in
  assert stats.paired_p(errors, baseline) == stats.paired_p(worst, baseline)
  assert stats.paired_p(baseline, errors) == stats.paired_p(baseline, worst)


def test_pairs_in_which_both_failed_count_as_no_difference():
  errors, baseline = log_normal(9), log_normal(10)
  errors[[1, 2]], baseline[[1, 2]] = INF, NAN
  kept = np.isfinite(errors)
  assert stats.paired_p(errors, baseline) == stats.paired_p(errors[kept], baseline[kept])


@pytest.mark.parametrize("errors, baseline", [
    pytest.param(np.ones(10), np.ones(10), id="equal"),
    pytest.param(np.full(10, INF), np.full(10, NAN), id="all-failed"),
    pytest.param(0.1 * np.array([3.0, 1, 7]), np.array([3.0, 1, 7]) / 10, id="equal-to-rounding"),
])
def test_p_is_one_without_differences(errors, baseline):
  assert stats.paired_p(errors, baseline) == 1.0


def test_holm_by_hand():
  # Sorted: 4 x 0.005 = 0.020, 3 x 0.010 = 0.030, 2 x 0.030 = 0.060, 1 x 0.040 raised to 0.060.
  adjusted = stats.holm(np.array([0.010, 0.040, 0.030, 0.005]))
  np.testing.assert_allclose(adjusted, [0.030, 0.060, 0.060, 0.020])


@pytest.mark.parametrize("p_values, expected", [
    pytest.param([], [], id="empty"),
    pytest.param([0.04], [0.04], id="one"),
    pytest.param([0.9, 0.5], [1.0, 1.0], id="capped"),
    pytest.param([0.02, 0.02, 0.02], [0.06, 0.06, 0.06], id="tied"),
])
def test_holm_extremes(p_values, expected):
  np.testing.assert_allclose(stats.holm(np.array(p_values, dtype=float)), expected)


@pytest.mark.parametrize("failures, n", [(0, 10), (3, 10), (10, 10), (1, 1), (7, 200)])
def test_wilson_closed_form(failures, n):
  z, rate = 1.959963984540054, failures / n
  centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
  half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
  expected = (rate, centre - half, centre + half)
  np.testing.assert_allclose(stats.wilson(failures, n), expected, atol=1e-12)


def test_no_failure_in_ten_still_allows_28_percent():
  assert stats.wilson(0, 10) == pytest.approx((0, 0, 0.27753), abs=1e-5)


@pytest.mark.parametrize("low, high, p, expected", [
    pytest.param(0.5, 0.9, 0.01, "better", id="better"),
    pytest.param(1.1, 1.9, 0.01, "worse", id="worse"),
    pytest.param(0.5, 0.9, 0.05, "undecided", id="p-at-the-level"),
    pytest.param(0.5, 1.1, 0.01, "undecided", id="interval-holds-1"),
    pytest.param(0.90, 1.10, 1.0, "equivalent", id="inside"),
    pytest.param(1.01, 1.02, 0.001, "equivalent", id="significant-but-inside"),
    pytest.param(0.88, 1.10, 1.0, "undecided", id="below-the-band"),
    pytest.param(0.90, 1.13, 1.0, "undecided", id="above-the-band"),
    pytest.param(1.0, 1.0, 1.0, "equivalent", id="same-run"),
    pytest.param(NAN, NAN, 0.001, "undecided", id="no-interval"),
])
def test_verdict(low, high, p, expected):
  assert stats.verdict(stats.Interval(1.0, low, high), p) == expected


def test_verdict_takes_the_margin_given():
  ratio = stats.Interval(1.0, 0.88, 1.10)
  assert stats.verdict(ratio, 1.0, margin_dex=0.1) == "equivalent"


def contrast_of(errors, baseline="base", arm="arm"):
  summary = next(line for line in stats.compare(errors, baseline) if line.arm == arm)
  assert summary.contrast is not None
  return summary.contrast


@pytest.mark.parametrize("ratio, arm_failures, baseline_failures, expected", [
    pytest.param(1.0, 20, 0, "worse", id="arm-always-fails"),
    pytest.param(1.0, 0, 20, "better", id="baseline-always-fails"),
    pytest.param(1.0, 20, 20, "undecided", id="both-always-fail"),
    pytest.param(0.5, 1, 0, "better", id="half-the-error-one-failure"),
    pytest.param(0.5, 10, 0, "undecided", id="half-the-error-half-fail"),
    pytest.param(0.5, 16, 0, "worse", id="half-the-error-most-fail"),
    pytest.param(1.0, 12, 0, "worse", id="equal-error-most-fail"),
    pytest.param(1.0, 0, 12, "better", id="equal-error-most-of-the-baseline-fail"),
    pytest.param(1.0, 1, 0, "undecided", id="equivalent-but-for-one-failure"),
    pytest.param(0.97, 1, 0, "undecided", id="within-the-band-and-one-failure"),
    pytest.param(1.0, 3, 3, "equivalent", id="same-seeds-fail"),
    pytest.param(0.5, 3, 3, "better", id="half-the-error-same-seeds-fail"),
])
def test_verdict_with_failed_runs_of_20(ratio, arm_failures, baseline_failures, expected):
  errors = {"arm": ratio * log_normal(11, 20, spread=0.01), "base": log_normal(12, 20, spread=0.01)}
  errors["arm"][20 - arm_failures:] = INF
  errors["base"][20 - baseline_failures:] = INF
  assert contrast_of(errors).verdict == expected


def test_compare_collects_the_parts_in_the_order_given():
  errors = {"b": log_normal(13), "base": log_normal(14), "a": 0.5 * log_normal(15)}
  errors["b"][3] = NAN
  lines = stats.compare(errors, "base")
  assert [line.arm for line in lines] == ["b", "base", "a"]
  assert [(line.n, line.failed) for line in lines] == [(10, 1), (10, 0), (10, 0)]
  assert lines[1].contrast is None
  ratios = [stats.signed_scores(stats.log_ratios(errors[arm], errors["base"])) for arm in "ba"]
  plain, adjusted = stats.max_t(np.array(ratios))
  former = stats.holm(np.array([stats.paired_p(errors[arm], errors["base"]) for arm in "ba"]))
  for line, *p_values in zip((lines[0], lines[2]), plain, adjusted, former, strict=True):
    assert line.error == stats.geometric_mean(errors[line.arm])
    assert line.failure_rate == stats.wilson(line.failed, 10)
    assert line.contrast is not None
    ratios = errors[line.arm] / errors["base"]
    np.testing.assert_allclose(
        line.contrast[:3], stats.geometric_mean(ratios[np.isfinite(ratios)]), rtol=1e-9)
    assert [line.contrast.p, line.contrast.p_adjusted, line.contrast.p_holm] == p_values
    assert line.contrast.pairs == 10 - line.failed


def test_compare_of_the_baseline_alone():
  assert [line.contrast for line in stats.compare({"base": np.ones(2)}, "base")] == [None]


# Laws.


@pytest.mark.parametrize("factor", [1000.0, 0.0433641153107705], ids=["meV", "kcal/mol"])
def test_units_change_no_ratio_and_no_p(factor):
  errors = {"arm": log_normal(16), "base": log_normal(17)}
  errors["arm"][2] = INF
  errors["arm"][4] = errors["base"][4]
  converted = {arm: factor * values for arm, values in errors.items()}
  before, after = contrast_of(errors), contrast_of(converted)
  np.testing.assert_allclose(after[:3], before[:3], rtol=1e-9)
  assert after[3:] == before[3:]
  means = [stats.geometric_mean(table["base"]) for table in (errors, converted)]
  # A resampled mean that equals the mean up to rounding may count on either side of it.
  np.testing.assert_allclose(means[1], factor * np.array(means[0]), rtol=1e-3)


def test_reordering_the_seeds_changes_only_bootstrap_noise():
  errors = {"arm": log_normal(18), "base": log_normal(19)}
  errors["base"][7] = INF
  order = np.random.default_rng(20).permutation(10)
  before = contrast_of(errors)
  after = contrast_of({arm: values[order] for arm, values in errors.items()})
  assert after.ratio == pytest.approx(before.ratio, rel=1e-10)
  assert after[3:] == before[3:]
  width = np.log(before.high / before.low)
  assert np.log(after[1:3]) == pytest.approx(np.log(before[1:3]), abs=0.07 * width)


@pytest.mark.parametrize("n", [3, 10, 31])
def test_swapping_arm_and_baseline_inverts_the_ratio(n):
  errors = {"arm": 0.6 * log_normal(21, n), "base": log_normal(22, n)}
  errors["base"][0] = INF
  forward, backward = contrast_of(errors), contrast_of(errors, baseline="arm", arm="base")
  np.testing.assert_allclose([1 / backward.ratio, 1 / backward.high, 1 / backward.low],
                             forward[:3], rtol=1e-3)
  assert (backward.p, backward.pairs) == (forward.p, forward.pairs)
  opposite = {"better": "worse", "worse": "better"}
  assert backward.verdict == opposite.get(forward.verdict, forward.verdict)


def test_same_errors_give_the_same_table():
  errors = {"arm": log_normal(23), "base": log_normal(24)}
  assert stats.compare(errors, "base") == stats.compare(errors, "base")


def normal(rng, shape):
  return rng.normal(size=shape)


def skewed(rng, shape):
  return rng.gamma(4.0, size=shape) - 4.0  # mean 0, skewness 1


def covered(draw, runs, repeats):
  """How often the interval of the geometric mean of ratios holds the true one, 0.7."""
  rng = np.random.default_rng(25)
  hits = 0
  for _ in range(repeats):
    interval = stats.geometric_mean(0.7 * np.exp(0.2 * draw(rng, runs)))
    hits += interval.low <= 0.7 <= interval.high
  return hits


@pytest.mark.parametrize("draw, runs", [(normal, 3), (normal, 10), (skewed, 10)],
                         ids=["normal-3", "normal-10", "skewed-10"])
def test_coverage_quick(draw, runs, repeats=500):
  # Numbers of hits that a coverage of 93 to 97 % leaves with probability 0.1 % at most.
  fewest = scipy.stats.binom.ppf(0.001, repeats, 0.93)
  most = scipy.stats.binom.isf(0.001, repeats, 0.97)
  assert fewest <= covered(draw, runs, repeats) <= most


@pytest.mark.nightly
@pytest.mark.parametrize("draw", [normal, skewed])
def test_coverage_over_2000_repeats_of_ten_seeds(draw):
  assert 0.93 <= covered(draw, 10, 2000) / 2000 <= 0.97


def family_wise_errors(repeats, failure_rate, arms=5, runs=10):
  """Number of null tables, arms against one baseline, with any adjusted p below 0.05.

  Five arms are nearly the worst case at ten runs: Holm's first threshold, 0.05 / 5, lies just
  above an attainable p, 10 / 1024.
  """
  rng = np.random.default_rng(26)
  rejected = 0
  for _ in range(repeats):
    errors = np.exp(rng.normal(size=(arms + 1, runs)))
    errors[rng.random(errors.shape) < failure_rate] = INF
    p_values = np.array([stats.paired_p(row, errors[0]) for row in errors[1:]])
    rejected += stats.holm(p_values).min() < stats.SIGNIFICANCE
  return rejected


FAILURE_RATES = pytest.mark.parametrize("failure_rate", [0.0, 0.2], ids=["none-fail", "some-fail"])


@FAILURE_RATES
def test_family_wise_error_quick(failure_rate, repeats=1000):
  # A rate of 5 % would exceed this number with probability 0.1 %.
  most = scipy.stats.binom.isf(0.001, repeats, 0.05)
  assert 0 < family_wise_errors(repeats, failure_rate) <= most


@pytest.mark.nightly
@FAILURE_RATES
def test_family_wise_error_is_below_5_percent(failure_rate, repeats=20_000):
  # Not only the measured rate: the upper end of its one-sided 99.9 % interval is below 5 %.
  rejected = int(family_wise_errors(repeats, failure_rate))
  limit = scipy.stats.binomtest(rejected, repeats).proportion_ci(0.998, method="exact").high
  assert limit < 0.05


def test_an_arm_of_half_the_error_is_found():
  errors = {"base": log_normal(27), **{f"null{i}": log_normal(30 + i) for i in range(7)}}
  errors["half"] = 0.5 * errors["base"] * log_normal(28, spread=0.1)
  contrast = contrast_of(errors, arm="half")
  assert contrast.verdict == "better"
  assert contrast.low < 0.5 < contrast.high


# Exact runs: an error of 0.

EXACT, SOME, OFF = np.zeros(8), np.array([0.0] * 3 + [0.2] * 5), np.linspace(0.1, 0.2, 8)


@pytest.mark.parametrize("errors, baseline, ratio, verdict", [
    pytest.param(EXACT, OFF, (0, 0, 0), "better", id="arm"),
    pytest.param(OFF, EXACT, (NAN, NAN, NAN), "worse", id="baseline"),
    pytest.param(EXACT, EXACT, (1, 1, 1), "equivalent", id="both"),
    pytest.param(SOME, SOME, (1, 1, 1), "equivalent", id="both-in-some"),
    pytest.param(EXACT, np.append(SOME[1:], 0.1), (0, 0, 0), "better", id="baseline-in-some"),
    pytest.param(np.append(SOME[1:], 0.1), EXACT, (NAN, NAN, NAN), "worse", id="arm-in-some"),
    pytest.param(EXACT[:1], OFF[:1], (0, NAN, NAN), "too few seeds", id="one-seed"),
    pytest.param(EXACT, np.full(8, INF), (NAN, NAN, NAN), "better", id="baseline-failed"),
    pytest.param(np.full(8, NAN), EXACT, (NAN, NAN, NAN), "worse", id="arm-failed"),
    pytest.param(np.append(EXACT[1:], INF), OFF, (0, 0, 0), "undecided", id="one-failed"),
])
@pytest.mark.filterwarnings("error")
def test_exact_runs(errors, baseline, ratio, verdict):
  summary = stats.compare({"b": baseline, "a": errors}, "b")[1]
  np.testing.assert_array_equal(summary.contrast[:3], ratio)
  assert summary.contrast.verdict == verdict
  assert summary.exact == np.sum(errors == 0)


@pytest.mark.parametrize("exact", [0, 3, 8])
@pytest.mark.parametrize("baseline_exact", [0, 3, 8])
def test_an_exact_run_ranks_as_an_error_below_all_others(exact, baseline_exact):
  errors, baseline = OFF[::-1].copy(), OFF.copy()
  errors[:exact], baseline[:baseline_exact] = 0, 0
  tiny = stats.paired_p(np.where(errors == 0, 1e-100, errors),
                        np.where(baseline == 0, 1e-100, baseline))
  assert stats.paired_p(errors, baseline) == tiny
  assert stats.paired_p(baseline, errors) == tiny


@pytest.mark.parametrize("values", [EXACT, SOME, OFF], ids=["all", "some", "none"])
def test_exact_runs_are_the_same_in_any_unit(values):
  one, other = (stats.compare({"b": factor * OFF, "a": factor * values}, "b")[1].contrast
                for factor in (1.0, 1024.0))
  assert one == other


# Bad input.


@pytest.mark.parametrize("errors, baseline, message", [
    pytest.param({"a": np.ones(3)}, "b", "unknown baseline 'b'; the arms are a", id="baseline"),
    pytest.param({}, "b", "the arms are none", id="no-arms"),
    pytest.param({"b": np.ones(3), "a": np.ones(2)}, "b", r"same seeds.*\(2,\) for 'a'",
                 id="length"),
    pytest.param({"b": np.ones(3), "a": np.array([1.0, -0.5, 1])}, "b",
                 "arm 'a': expected errors that are not negative.*got -0.5 at index 1",
                 id="negative"),
    pytest.param({"b": np.array([1.0, -INF])}, "b", "arm 'b'.*got -inf", id="minus-infinity"),
    pytest.param({"b": np.ones(0)}, "b", "at least one", id="no-seeds"),
])
def test_compare_refuses(errors, baseline, message):
  with pytest.raises(ValueError, match=message):
    stats.compare(errors, baseline)


def test_pairs_must_match():
  # The shape checker of the tests may see it first.
  with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="seeds"):
    stats.paired_p(np.ones(3), np.ones(4))


@pytest.mark.parametrize("call, message", [
    pytest.param(lambda: stats.holm(np.array([0.5, 1.5])), "from 0 to 1, got", id="p-above-1"),
    pytest.param(lambda: stats.holm(np.array([NAN])), "from 0 to 1", id="p-nan"),
    pytest.param(lambda: stats.wilson(3, 2), "failures=3, n=2", id="more-failures-than-runs"),
    pytest.param(lambda: stats.wilson(0, 0), "n >= 1", id="no-runs"),
    pytest.param(lambda: stats.smallest_p(-1), "seeds >= 0, got -1", id="negative-seeds"),
    pytest.param(lambda: stats.verdict(stats.Interval(1, 1, 1), 1.0, margin_dex=0.0),
                 "positive margin_dex", id="margin"),
])
def test_refused_arguments(call, message):
  with pytest.raises(ValueError, match=message):
    call()
