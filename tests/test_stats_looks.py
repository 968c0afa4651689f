"""Levels of the looks at a comparison to which seeds are added."""

import numpy as np
import pytest
import scipy.stats

from dcnn import stats


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


@pytest.mark.parametrize("looks, constant", [(2, 2.178), (3, 2.289), (4, 2.361), (5, 2.413)])
def test_crossing_probability_is_5_percent_at_pococks_constants(looks, constant):
  from dcnn.stats.looks import _crossing
  assert _crossing(constant, looks) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize("look, planned, message", [
    (0, 1, "number of a look, from 1, got 0"), (1, 0, "from 1 to 100 planned looks, got 0"),
    (1, 101, "got 101")])
def test_refused_looks(look, planned, message):
  with pytest.raises(ValueError, match=message):
    stats.look_level(look, planned)


def significant(tables, contrasts, seeds, planned):
  """Number of null tables in which any look at the growing number of seeds finds something."""
  rng, rejected = np.random.default_rng(0), 0
  for _ in range(tables):
    errors = rng.normal(size=(contrasts + 1, seeds[-1]))
    differences = errors[1:] - errors[0]
    rejected += any(
        stats.max_t(differences[:, :n])[1].min() < stats.look_level(look, planned)
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
@pytest.mark.parametrize("seeds", [(6, 8, 10, 12), (5, 10, 15, 20)], ids=str)
def test_four_looks_at_2000_null_tables(planned, contrasts, seeds, tables=2000):
  rate = significant(tables, contrasts, seeds, planned) / tables
  print(f"four looks at {seeds} seeds, {contrasts} contrasts, {planned} planned: {rate:.4f}")
  assert rate <= 0.055
