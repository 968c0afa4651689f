"""Sign-flip tests adjusted by max-T: laws, failed and exact runs, error rates and power."""

import itertools

import numpy as np
import pytest
import scipy.stats

from dcnn import stats

NAN, INF = float("nan"), float("inf")
SPREAD = 0.094 / np.sqrt(2)  # of the log error of an arm of the main job


def normal(rng, shape):
  return rng.normal(size=shape)


def heavy(rng, shape):
  return rng.standard_t(4, size=shape)


def log_ratios(rng, contrasts, seeds, effects=0.0, draw=normal):
  """Arms against one baseline; the first ones have the effects."""
  errors = SPREAD * draw(rng, (contrasts + 1, seeds))
  errors[1:1 + np.size(effects)] += np.reshape(effects, (-1, 1))
  return errors[1:] - errors[0]


# Against a plain implementation.


def all_flips(scores):
  """Statistics |mean| / (sd / sqrt(n)) after each of the 2^n flips (flips, contrasts)."""
  n = scores.shape[1]
  signs = np.array(list(itertools.product([1, -1], repeat=n)))
  flipped = signs[:, None, :] * scores
  with np.errstate(divide="ignore", invalid="ignore"):
    statistic = np.abs(flipped.mean(axis=2)) / (flipped.std(axis=2, ddof=1) / np.sqrt(n))
  return np.nan_to_num(statistic, nan=0.0, posinf=np.inf)


def plain_max_t(scores):
  """Step-down max-T word by word."""
  statistics = all_flips(scores)
  observed, order = statistics[0], np.argsort(-statistics[0], kind="stable")
  plain = np.mean(statistics >= observed * (1 - 1e-9), axis=0)
  adjusted, least = np.zeros(len(order)), 0.0
  for place, contrast in enumerate(order):
    largest = statistics[:, order[place:]].max(axis=1)
    least = max(least, np.mean(largest >= observed[contrast] * (1 - 1e-9)))
    adjusted[contrast] = least
  return plain, adjusted


@pytest.mark.parametrize("contrasts, seeds", [(2, 2), (2, 8), (4, 3), (5, 8), (13, 9)])
def test_max_t_is_that_of_all_flips(contrasts, seeds):
  scores = log_ratios(np.random.default_rng(seeds), contrasts, seeds, effects=[-0.1, 0.2])
  np.testing.assert_allclose(stats.max_t(scores), plain_max_t(scores), rtol=1e-12)


@pytest.mark.parametrize("n", [2, 7, 10])
def test_p_of_one_contrast_is_scipys(n):
  scores = np.random.default_rng(n).normal(0.5, size=n)
  expected = scipy.stats.permutation_test(
      (scores,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
  assert stats.max_t(scores[None])[0].item() == pytest.approx(expected, rel=1e-12)


def test_drawn_flips_are_those_of_all_flips_within_their_error():
  scores = log_ratios(np.random.default_rng(0), 3, 16, effects=[-0.05])
  signs = 1.0 - 2.0 * (np.arange(2**15)[:, None] >> np.arange(16) & 1)
  units = scores / np.linalg.norm(scores, axis=1, keepdims=True)
  sums = np.abs(signs @ units.T)
  expected = np.mean(sums >= sums[0] * (1 - 1e-12), axis=0)
  error = np.sqrt(expected * (1 - expected) / 20_000)
  assert np.all(np.abs(stats.max_t(scores)[0] - expected) < 4 * error)


# Laws.


@pytest.mark.parametrize("seeds", [1, 2, 5, 6, 10, 15])
@pytest.mark.parametrize("contrasts", [1, 30])
def test_the_smallest_p_does_not_depend_on_the_number_of_contrasts(contrasts, seeds):
  scores = log_ratios(np.random.default_rng(1), contrasts, seeds)
  scores[0] = 0.3
  plain, adjusted = stats.max_t(scores)
  assert plain[0] == adjusted[0] == stats.smallest_p(seeds) == 2 / 2**seeds
  assert plain.min() >= stats.smallest_p(seeds)


def test_drawn_flips_have_the_observed_signs_among_them():
  assert stats.max_t(np.ones((2, 40)))[1].tolist() == [1 / 20_000] * 2


@pytest.mark.parametrize("change", [
    pytest.param(lambda scores: -scores, id="negative"),
    pytest.param(lambda scores: scores * np.array([[1e-3], [1.0], [7.0], [1e250]]), id="scale"),
    pytest.param(lambda scores: scores * 1e-300, id="tiny"),
    pytest.param(lambda scores: scores[:, ::-1].copy(), id="order-of-seeds"),
    pytest.param(lambda scores: scores * (-1) ** np.arange(4)[:, None], id="sides"),
])
def test_what_leaves_every_p_as_it_is(change):
  scores = log_ratios(np.random.default_rng(2), 4, 9, effects=[-0.1, 0.1])
  for before, after in zip(stats.max_t(scores), stats.max_t(change(scores)), strict=True):
    np.testing.assert_array_equal(before, after)


def test_reordering_the_contrasts_reorders_the_p():
  scores = log_ratios(np.random.default_rng(3), 8, 8, effects=[-0.1, 0.1, 0.05])
  order = np.random.default_rng(4).permutation(8)
  for before, after in zip(stats.max_t(scores), stats.max_t(scores[order]), strict=True):
    np.testing.assert_array_equal(before[order], after)


def test_a_contrast_listed_twice_counts_once():
  scores = log_ratios(np.random.default_rng(5), 5, 9, effects=[-0.1])
  once, twice = stats.max_t(scores)[1], stats.max_t(np.repeat(scores, 3, axis=0))[1]
  np.testing.assert_array_equal(np.repeat(once, 3), twice)


@pytest.mark.parametrize("seeds", [6, 16])
def test_adjusted_p_are_at_least_plain_and_in_their_order(seeds):
  scores = log_ratios(np.random.default_rng(6), 12, seeds, effects=[-0.2, 0.1, -0.1])
  plain, adjusted = stats.max_t(scores)
  assert np.all(adjusted >= plain)
  assert np.all(adjusted <= 1)
  statistic = np.abs(scores.mean(axis=1)) / scores.std(axis=1)
  assert np.all(np.diff(adjusted[np.argsort(-statistic)]) >= 0)


@pytest.mark.parametrize("seeds", [3, 5])
def test_p_is_exact_when_all_flips_are_equally_likely(seeds):
  # Over all flips of the data the smallest adjusted p is at most x in at most a share x of them.
  scores = np.random.default_rng(7).normal(size=(4, seeds))
  scores[1, 0], scores[2] = 0, np.sign(scores[2])
  signs = np.array(list(itertools.product([1, -1], repeat=seeds)))
  smallest = np.sort([stats.max_t(scores * flip)[1].min() for flip in signs])
  shares = np.searchsorted(smallest, smallest, side="right") / len(smallest)
  assert np.all(shares <= smallest + 1e-12)


# Extremes.


def test_no_contrast_has_no_p():
  assert [each.shape for each in stats.max_t(np.ones((0, 4)))] == [(0,), (0,)]


@pytest.mark.parametrize("scores, expected", [
    pytest.param([[0.0] * 6], 1.0, id="zero"),
    pytest.param([[0.1] * 6], 1 / 32, id="constant"),
    pytest.param([[0.3]], 1.0, id="one-seed"),
    pytest.param([[0.0] * 5 + [0.1]], 1.0, id="one-seed-differs"),
    pytest.param([[0.1, 0.2, 0.3, 0.1 + 0.2, 0.3, 0.2]], 1 / 32, id="ties-to-rounding"),
    pytest.param([[1e308, 1e308, 5e307]], 0.25, id="huge"),
    pytest.param([[5e-324] * 6], 1 / 32, id="smallest-number"),
    pytest.param([[1.0, -1.0] * 4], 1.0, id="balanced"),
])
@pytest.mark.filterwarnings("error")
def test_degenerate_contrasts(scores, expected):
  plain, adjusted = stats.max_t(np.array(scores))
  assert plain.item() == adjusted.item() == expected


def test_rounding_decides_no_tie():
  # 0.1 + 0.2 - 0.3 is not 0 in floating point; as ties all flips count.
  scores = np.array([[0.1, 0.2, -0.3], [0.1 + 0.2, -0.1, -0.2]])
  np.testing.assert_allclose(stats.max_t(scores)[0], [1.0, 1.0])
  scaled = stats.max_t(scores * 3)[1]
  np.testing.assert_array_equal(stats.max_t(scores)[1], scaled)


@pytest.mark.parametrize("scores, message", [
    pytest.param(np.ones((2, 0)), "at least one seed", id="no-seeds"),
    pytest.param(np.array([[1.0, 2.0], [1.0, INF]]), "got inf for contrast 1, seed 1", id="inf"),
    pytest.param(np.array([[NAN, 2.0]]), "got nan for contrast 0, seed 0", id="nan"),
])
def test_max_t_refuses(scores, message):
  with pytest.raises(ValueError, match=message):
    stats.max_t(scores)


@pytest.mark.parametrize("level, seeds", [(0.05, 6), (0.045, 6), (0.03, 7), (2 / 64, 7), (1.0, 2)])
def test_fewest_seeds(level, seeds):
  assert stats.fewest_seeds(level) == seeds
  assert stats.smallest_p(seeds) < level <= stats.smallest_p(seeds - 1)


@pytest.mark.parametrize("level", [0.0, -1.0, 1.5, NAN])
def test_fewest_seeds_refuses(level):
  with pytest.raises(ValueError, match="level above 0"):
    stats.fewest_seeds(level)


# Failed and exact runs.


def test_signed_scores_of_infinite_log_ratios_are_ranks():
  scores = stats.signed_scores(np.array([0.2, -INF, NAN, 0.1, INF, -0.1, 0.0]))
  np.testing.assert_array_equal(scores, [3, -4.5, 0, 1.5, 4.5, -1.5, 0])


@pytest.mark.parametrize("values", [
    pytest.param([0.2, -0.1, NAN, 1e-15, 3.0], id="finite"),
    pytest.param([0.2, -INF, NAN, 1e-15, INF], id="infinite"),
])
def test_scores_of_the_negative_are_negative(values):
  values = np.array(values)
  np.testing.assert_array_equal(stats.signed_scores(-values), -stats.signed_scores(values))


def table(seeds=10, arms=12, **special):
  """A baseline, null arms, and the arms given as functions of the baseline's errors."""
  rng = np.random.default_rng(seeds)
  base = np.exp(SPREAD * rng.normal(size=seeds))
  nulls = {f"null{i}": np.exp(SPREAD * rng.normal(size=seeds)) for i in range(arms)}
  return {"base": base, **nulls, **{name: make(base) for name, make in special.items()}}


def failing(factor, failures):
  """Errors that are a factor of the baseline's, the first runs failed."""
  def make(base):
    return np.where(np.arange(len(base)) < failures, INF,
                    factor * base * np.linspace(0.98, 1.02, len(base)))
  return make


@pytest.mark.parametrize("seeds, factor, failures, expected", [
    pytest.param(6, 1.0, 6, "worse", id="fails-everywhere"),
    pytest.param(6, 0.3, 0, "better", id="a-factor-of-0.3-in-six-seeds"),
    pytest.param(5, 0.3, 0, "too few seeds", id="a-factor-of-0.3-in-five-seeds"),
    pytest.param(5, 1.0, 5, "too few seeds", id="fails-everywhere-in-five-seeds"),
    pytest.param(5, 1.0, 0, "equivalent", id="equal-in-five-seeds"),
    pytest.param(10, 0.5, 3, "undecided", id="fails-in-3-and-is-better-elsewhere"),
    pytest.param(10, 2.0, 3, "worse", id="fails-in-3-and-is-worse-elsewhere"),
    pytest.param(10, 0.5, 0, "better", id="half-the-error"),
    pytest.param(10, 0.5, 5, "undecided", id="fails-in-5-and-is-better-elsewhere"),
    pytest.param(10, 0.5, 8, "worse", id="fails-in-8-and-is-better-elsewhere"),
    pytest.param(1, 0.5, 0, "too few seeds", id="one-seed"),
])
def test_verdict_among_twelve_null_arms(seeds, factor, failures, expected):
  lines = stats.compare(table(seeds, arm=failing(factor, failures)), "base")
  assert lines[-1].contrast.verdict == expected


def test_an_effect_that_holm_could_not_find_is_found():
  lines = stats.compare(table(8, arms=12, arm=failing(0.25, 0)), "base")
  contrast = lines[-1].contrast
  assert contrast.p_adjusted == stats.smallest_p(8)
  assert contrast.p_holm == pytest.approx(13 * stats.smallest_p(8)) and contrast.p_holm > 0.05
  assert contrast.verdict == "better"


def test_verdicts_are_those_of_the_level_given():
  errors = table(10, arm=failing(0.25, 0))
  p = stats.compare(errors, "base")[-1].contrast.p_adjusted
  for level, expected in ((p, "too few seeds"), (1.01 * p, "better")):
    assert stats.compare(errors, "base", level)[-1].contrast.verdict == expected


def test_joint_p_is_max_t_over_all_contrasts():
  tables = {"energy": table(9, 3), "force": table(9, 2, arm=failing(0.8, 0))}
  found = stats.joint_p(tables, "base")
  scores = [np.log(errors[arm] / errors["base"]) for errors in tables.values() for arm in errors
            if arm != "base"]
  assert [p for arms in found.values() for p in arms.values()] == stats.max_t(
      np.array(scores))[1].tolist()
  assert [list(arms) for arms in found.values()] == [
      [arm for arm in errors if arm != "base"] for errors in tables.values()]


@pytest.mark.parametrize("tables, expected", [
    pytest.param({}, {}, id="no-metrics"),
    pytest.param({"a": {"base": np.ones(3)}}, {"a": {}}, id="no-contrasts"),
])
def test_joint_p_of_nothing(tables, expected):
  assert stats.joint_p(tables, "base") == expected


def test_joint_p_refuses_different_seeds():
  with pytest.raises(ValueError, match="same seeds for every metric, got 9 for 'a', 8 for 'b'"):
    stats.joint_p({"a": table(9, 1), "b": table(8, 1)}, "base")


# Error rates and power.


def false_verdicts(repeats, draw, contrasts, seeds):
  """Number of tables, half of whose contrasts are real, in which a null one is significant."""
  rng, real = np.random.default_rng(8), contrasts // 2
  return sum(
      stats.max_t(log_ratios(rng, contrasts, seeds, np.full(real, np.log(0.5)), draw))[1][real:]
      .min() < stats.SIGNIFICANCE for _ in range(repeats))


DRAWS = pytest.mark.parametrize("draw", [normal, heavy])


@DRAWS
def test_family_wise_error_quick(draw, repeats=400):
  # A rate of 5 % would exceed this number with probability 0.1 %.
  most = scipy.stats.binom.isf(0.001, repeats, 0.05)
  assert 0 < false_verdicts(repeats, draw, 13, 8) <= most


@pytest.mark.nightly
@DRAWS
@pytest.mark.parametrize("contrasts, seeds", [(13, 8), (22, 10)])
def test_family_wise_error(draw, contrasts, seeds, repeats=10_000):
  rate = false_verdicts(repeats, draw, contrasts, seeds) / repeats
  print(f"family-wise error, {draw.__name__}, {seeds} seeds, {contrasts} contrasts: {rate:.4f}")
  assert 0.040 <= rate <= 0.055


@pytest.mark.nightly
@pytest.mark.parametrize("failure_rate", [0.1, 0.3])
def test_family_wise_error_with_failed_runs(failure_rate, repeats=5000):
  rng, rejected = np.random.default_rng(9), 0
  for _ in range(repeats):
    errors = np.exp(rng.normal(size=(9, 10)))
    errors[rng.random(errors.shape) < failure_rate] = INF
    scores = [stats.signed_scores(stats.log_ratios(row, errors[0])) for row in errors[1:]]
    rejected += stats.max_t(np.array(scores))[1].min() < stats.SIGNIFICANCE
  print(f"family-wise error, {failure_rate:.0%} of runs fail: {rejected / repeats:.4f}")
  assert 0.030 <= rejected / repeats <= 0.055


def found(repeats, ratio, contrasts, seeds):
  """Shares of the real contrasts, half of all, found by max-T and by Wilcoxon with Holm."""
  rng, real = np.random.default_rng(10), contrasts // 2
  by_max_t, by_holm = [], []
  for _ in range(repeats):
    differences = log_ratios(rng, contrasts, seeds, np.full(real, np.log(ratio)))
    by_max_t.append(stats.max_t(differences)[1][:real])
    p_values = [stats.paired_p(np.exp(each), np.ones(seeds)) for each in differences]
    by_holm.append(stats.holm(np.array(p_values))[:real])
  return tuple(float(np.mean(np.array(p) < stats.SIGNIFICANCE)) for p in (by_max_t, by_holm))


@pytest.mark.nightly
@pytest.mark.parametrize("ratio, contrasts, seeds, by_max_t, by_holm", [
    (0.9, 13, 8, 0.33, 0.0), (0.9, 22, 10, 0.45, 0.27),
    (0.3, 13, 8, 1.0, 0.0), (0.3, 22, 10, 1.0, 1.0)])
def test_power(ratio, contrasts, seeds, by_max_t, by_holm, repeats=1000):
  shares = found(repeats, ratio, contrasts, seeds)
  print(f"power for {ratio}, {seeds} seeds, {contrasts} contrasts: max-T {shares[0]:.3f}, "
        f"Holm {shares[1]:.3f}")
  assert shares == pytest.approx((by_max_t, by_holm), abs=0.04)
