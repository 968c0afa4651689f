"""Factorial analysis, and comparisons combined over strata."""

import numpy as np
import pytest
import scipy.stats

from dcnn import stats

NAN, INF = float("nan"), float("inf")
ROWS, COLUMNS = np.array([-0.5, 0.1, 0.4]), np.array([-0.2, 0.2])
INTERACTION = np.array([[0.1, -0.1], [-0.3, 0.3], [0.2, -0.2]])


def cells(seeds, noise=0.0, seed=0):
  """Log errors of known effects, with a part that the cells of a seed share."""
  rng = np.random.default_rng(seed)
  effects = 1.0 + ROWS[:, None] + COLUMNS + INTERACTION
  return (effects[:, :, None] + rng.normal(size=seeds)
          + noise * rng.normal(size=(3, 2, seeds)))


def centres(intervals):
  return np.log([interval.centre for interval in intervals])


def test_known_effects_are_recovered():
  found = stats.factorial(cells(8))
  np.testing.assert_allclose(centres(found.rows), ROWS, atol=1e-12)
  np.testing.assert_allclose(centres(found.columns), COLUMNS, atol=1e-12)
  np.testing.assert_allclose(list(map(centres, found.interaction)), INTERACTION, atol=1e-12)
  assert set(found.p_rows + found.p_columns + sum(found.p_interaction, ())) == {2 / 2**8}
  assert (found.seeds, found.left_out) == (8, 0)


def test_additive_effects_have_no_interaction():
  found = stats.factorial(cells(8) - INTERACTION[:, :, None])
  assert all(interval == pytest.approx((1, 1, 1)) for row in found.interaction for interval in row)
  assert sum(found.p_interaction, ()) == (1.0,) * 6


def test_factors_may_be_exchanged():
  noisy = cells(7, noise=0.2)
  one, other = stats.factorial(noisy), stats.factorial(noisy.transpose(1, 0, 2))
  assert (one.p_rows, one.p_columns) == (other.p_columns, other.p_rows)
  np.testing.assert_allclose(one.rows, other.columns, rtol=1e-9)
  np.testing.assert_allclose(one.interaction, np.swapaxes(other.interaction, 0, 1), rtol=1e-9)


def test_effects_of_a_family_multiply_to_one():
  found = stats.factorial(cells(7, noise=0.2))
  for family in (found.rows, found.columns, *found.interaction, *zip(*found.interaction,
                                                                      strict=True)):
    assert centres(family).sum() == pytest.approx(0, abs=1e-11)


@pytest.mark.parametrize("value", [INF, -INF, NAN], ids=str)
def test_a_seed_with_a_failed_or_exact_cell_is_left_out(value):
  noisy = cells(8, noise=0.2)
  holed = noisy.copy()
  holed[1, 0, 3] = value
  expected = stats.factorial(np.delete(noisy, 3, axis=2))._replace(left_out=1)
  assert stats.factorial(holed) == expected


@pytest.mark.parametrize("seeds", [0, 1, 3])
@pytest.mark.filterwarnings("error")
def test_without_a_whole_seed_nothing_is_known(seeds):
  log_errors = cells(seeds)
  log_errors[0, 0] = INF
  found = stats.factorial(log_errors)
  assert (found.seeds, found.left_out) == (0, seeds)
  assert np.all(np.isnan(found.rows)) and np.all(np.isnan(found.interaction))
  assert found.p_rows == (1.0,) * 3


def test_one_seed_has_ratios_and_no_interval():
  found = stats.factorial(cells(1))
  np.testing.assert_allclose(centres(found.rows), ROWS, atol=1e-12)
  assert np.isnan(found.rows[0].low) and found.p_rows == (1.0,) * 3


@pytest.mark.parametrize("shape", [(1, 2, 5), (2, 1, 5), (0, 2, 5)])
def test_one_level_is_no_factor(shape):
  with pytest.raises(ValueError, match="at least two levels of each factor"):
    stats.factorial(np.ones(shape))


def factorial_coverage(repeats, seeds):
  """Share of intervals that hold their effects: of the first row, column and cell."""
  hits = np.zeros(3)
  for seed in range(repeats):
    found = stats.factorial(cells(seeds, noise=0.1, seed=seed))
    for i, (interval, effect) in enumerate((
        (found.rows[0], ROWS[0]), (found.columns[0], COLUMNS[0]),
        (found.interaction[0][0], INTERACTION[0, 0]))):
      hits[i] += interval.low <= np.exp(effect) <= interval.high
  return hits / repeats


def test_coverage_of_the_effects_quick(repeats=100):
  slack = 3.1 * np.sqrt(0.05 * 0.95 / repeats)
  assert np.all(np.abs(factorial_coverage(repeats, 5) - 0.95) < slack)


@pytest.mark.nightly
def test_coverage_of_the_effects(repeats=1000):
  shares = factorial_coverage(repeats, 10)
  print("coverage of row, column and cell at ten seeds:", *shares)
  assert np.all((shares >= 0.93) & (shares <= 0.97))


# Strata.


def test_one_stratum_is_a_geometric_mean():
  for n in (2, 5, 6, 12):
    logs = np.random.default_rng(n).normal(size=n)
    np.testing.assert_allclose(
        stats.combined_ratio([logs]), stats.geometric_mean(np.exp(logs)), rtol=1e-9)


def test_strata_have_equal_weight():
  strata = [np.full(9, np.log(0.5)), np.full(3, np.log(2.0)), np.array([0.0, INF, 0.0])]
  np.testing.assert_allclose(stats.combined_ratio(strata), 1.0, rtol=1e-11)


def test_two_strata_of_two_seeds_have_welchs_interval():
  strata = [np.array([0.1, 0.3]), np.array([1.0, 1.8])]
  variances = np.array([0.02, 0.32]) / 2
  freedom = variances.sum()**2 / np.sum(variances**2)
  half = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(variances.sum()) / 2
  np.testing.assert_allclose(
      stats.combined_ratio(strata), np.exp([0.8, 0.8 - half, 0.8 + half]), rtol=1e-9)


@pytest.mark.parametrize("strata, expected", [
    pytest.param([np.array([0.0, 0.0]), np.array([INF, NAN])], (NAN, NAN, NAN), id="none-finite"),
    pytest.param([np.array([0.0, 0.0]), np.array([0.0, NAN])], (1, NAN, NAN), id="one-finite"),
    pytest.param([np.array([-INF, -INF]), np.zeros(2)], (NAN, NAN, NAN), id="exact"),
])
def test_strata_without_an_interval(strata, expected):
  np.testing.assert_array_equal(stats.combined_ratio(strata), expected)


def strata_coverage(repeats, sizes):
  rng, hits = np.random.default_rng(1), 0
  for _ in range(repeats):
    strata = [i + 0.1 * (1 + i) * rng.normal(size=n) for i, n in enumerate(sizes)]
    interval = stats.combined_ratio(strata)
    hits += interval.low <= np.exp(np.mean(np.arange(len(sizes)))) <= interval.high
  return hits / repeats


def test_coverage_over_strata_quick(repeats=80):
  assert abs(strata_coverage(repeats, (5, 5, 5)) - 0.95) < 3.1 * np.sqrt(0.05 * 0.95 / repeats)


@pytest.mark.nightly
@pytest.mark.parametrize("sizes", [(5,) * 8, (3, 5, 10), (10, 10)], ids=str)
def test_coverage_over_strata(sizes, repeats=1000):
  share = strata_coverage(repeats, sizes)
  print(f"coverage over strata of {sizes} seeds: {share:.4f}")
  assert 0.93 <= share <= 0.97


def test_combined_p_of_one_stratum_is_max_t():
  logs = np.random.default_rng(2).normal(size=(4, 8))
  np.testing.assert_array_equal(stats.combined_p([logs]), stats.max_t(logs)[1])


def test_an_effect_in_every_stratum_has_the_smallest_p_of_all_seeds():
  nulls = np.random.default_rng(3).normal(size=(3, 6))
  strata = [np.vstack([np.full((1, 3), shift), nulls[:, i:i + 3]])
            for i, shift in ((0, -0.3), (3, -0.3))]
  assert stats.combined_p(strata)[0] == 2 / 2**6


def test_combined_p_ranks_failed_runs_over_all_strata():
  strata = [np.array([[0.1, INF, 0.2]]), np.array([[0.4, -0.3, NAN]])]
  expected = stats.max_t(np.array([[1.0, 5.0, 2.0, 4.0, -3.0, 0.0]]))[1]
  np.testing.assert_array_equal(stats.combined_p(strata), expected)


@pytest.mark.parametrize("strata, message", [
    pytest.param([], "at least one seed each", id="none"),
    pytest.param([np.ones((2, 0))], "at least one seed each", id="no-seeds"),
    pytest.param([np.ones((2, 3)), np.ones((1, 3))], "same contrasts", id="contrasts"),
])
def test_combined_p_refuses(strata, message):
  with pytest.raises(ValueError, match=message):
    stats.combined_p(strata)


def test_no_stratum_has_no_ratio():
  with pytest.raises(ValueError, match="at least one stratum"):
    stats.combined_ratio([])
