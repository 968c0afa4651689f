"""Levels of the looks at a comparison to which seeds are added."""

import numpy as np
import pytest
import scipy.stats

from dcnn import stats
from dcnn.stats.looks import _crossing


def test_one_planned_look():
  assert stats.look_level(1) == 0.045


@pytest.mark.parametrize("planned", [1, 2, 4, 20])
def test_planned_looks_have_equal_levels_between_bonferronis_and_the_whole(planned):
  levels = [stats.look_level(look, planned) for look in range(1, planned + 1)]
  assert len(set(levels)) == 1
  assert 0.045 / planned <= levels[0] <= 0.045


@pytest.mark.parametrize("planned", [1, 4])
def test_looks_that_were_not_planned_share_half_a_percent(planned):
  levels = [stats.look_level(planned + look, planned) for look in range(1, 40)]
  assert levels[:3] == [0.0025, 0.00125, 0.000625]
  assert sum(levels) == pytest.approx(0.005, rel=1e-9)


@pytest.mark.parametrize("bound", [1.5, 2.4, 3.5])
@pytest.mark.parametrize("looks", [1, 2, 4])
def test_crossing_probability_is_that_of_the_multivariate_normal(bound, looks):
  places = np.arange(looks)
  covariance = 0.5 ** (np.abs(places[:, None] - places) / 2)  # seeds n, 2 n, 4 n, ...
  stay = scipy.stats.multivariate_normal(cov=covariance).cdf(
      np.full(looks, bound), lower_limit=np.full(looks, -bound))
  assert _crossing(bound, looks) == pytest.approx(1 - stay, abs=2e-5)


@pytest.mark.parametrize("look, planned, message", [
    (0, 1, "number of a look, from 1, got 0"), (1, 0, "from 1 to 100 planned looks, got 0"),
    (1, 101, "got 101")])
def test_refused_looks(look, planned, message):
  with pytest.raises(ValueError, match=message):
    stats.look_level(look, planned)


@pytest.mark.parametrize("seeds, planned, number", [
    pytest.param([4], 1, 1, id="one"),
    pytest.param([3, 5, 10], 1, 1, id="pilots-are-free"),
    pytest.param([6, 8, 9, 10], 1, 2, id="too-few-for-the-level-of-the-second"),
    pytest.param([6, 10, 12, 14], 1, 4, id="each-counts"),
    pytest.param([6, 7, 8], 4, 1, id="too-few-for-the-level-of-four-planned"),
    pytest.param([8, 10, 12], 4, 3, id="planned"),
])
def test_only_looks_that_can_find_anything_count(seeds, planned, number):
  assert stats.look_number(seeds, planned) == number


def test_no_look_has_no_number():
  with pytest.raises(ValueError, match="one look at least"):
    stats.look_number([])


def significant(tables, contrasts, seeds, planned):
  """Number of null tables in which any look at the growing number of seeds finds something."""
  rng, rejected = np.random.default_rng(0), 0
  for _ in range(tables):
    errors = rng.normal(size=(contrasts + 1, seeds[-1]))
    differences = errors[1:] - errors[0]
    rejected += any(
        stats.max_t(differences[:, :n])[1].min()
        < stats.look_level(stats.look_number(seeds[:look], planned), planned)
        for look, n in enumerate(seeds, 1))
  return rejected


PLANNED = pytest.mark.parametrize("planned", [1, 4], ids=["not-planned", "planned"])


@PLANNED
def test_four_looks_quick(planned, tables=200):
  # A rate of 5 % would exceed this number with probability 0.1 %.
  assert significant(tables, 13, (6, 8, 10, 12), planned) <= scipy.stats.binom.isf(
      0.001, tables, 0.05)


@pytest.mark.nightly
@PLANNED
@pytest.mark.parametrize("contrasts", [1, 13, 50])
@pytest.mark.parametrize("seeds", [(6, 8, 10, 12), (6, 12, 24, 48)], ids=str)
def test_four_looks_at_2000_null_tables(planned, contrasts, seeds, tables=2000):
  rate = significant(tables, contrasts, seeds, planned) / tables
  print(f"four looks at {seeds} seeds, {contrasts} contrasts, {planned} planned: {rate:.4f}")
  assert rate <= 0.055
