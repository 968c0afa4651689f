"""How many seeds a comparison needs, and what the seeds at hand can find."""

import numpy as np
import pytest
import scipy.stats

from dcnn import stats

NAN, INF = float("nan"), float("inf")
SPREAD = 0.094 / np.sqrt(2)  # of the log error of an arm of the main job


def pilot(contrasts, seeds=2000, seed=0):
  errors = SPREAD * np.random.default_rng(seed).normal(size=(contrasts + 1, seeds))
  return errors[1:] - errors[0]


def found(contrasts, ratio, seeds, tables):
  """Share of tables with one real contrast in which max-T finds it."""
  hits = 0
  for seed in range(tables):
    differences = pilot(contrasts, seeds, seed=[1, seed])
    differences[0] += np.log(ratio)
    hits += stats.max_t(differences)[1][0] < stats.SIGNIFICANCE
  return hits / tables


@pytest.mark.parametrize("contrasts", [13, 22])
def test_power_at_the_advised_number_quick(contrasts, tables=150):
  seeds = stats.seeds_needed(pilot(contrasts), 0.85)
  share, slack = found(contrasts, 0.85, seeds, tables), 3.1 * np.sqrt(0.16 / tables)
  assert abs(share - stats.power(pilot(contrasts), 0.85, seeds)) < slack


@pytest.mark.nightly
@pytest.mark.parametrize("contrasts", [13, 22])
def test_power_at_the_advised_number(contrasts, tables=1000):
  seeds = stats.seeds_needed(pilot(contrasts), 0.9)
  share = found(contrasts, 0.9, seeds, tables)
  print(f"{contrasts} contrasts, 10 %: {seeds} seeds advised, power {share:.3f}, "
        f"said {stats.power(pilot(contrasts), 0.9, seeds):.3f}")
  assert 0.75 <= share <= 0.85


@pytest.mark.nightly
def test_power_at_what_pilots_of_ten_seeds_advise(pilots=300):
  advised = [stats.seeds_needed(pilot(13, 10, seed=[2, i]), 0.9) for i in range(pilots)]
  shares = [stats.power(pilot(13), 0.9, seeds) for seeds in advised]
  print(f"pilots of ten seeds advise {np.quantile(advised, [0.1, 0.5, 0.9])}, mean power "
        f"{np.mean(shares):.3f}")
  assert 0.75 <= np.mean(shares) <= 0.85


@pytest.mark.parametrize("seeds", [7, 10, 30])
def test_power_of_one_contrast_is_that_of_the_t_test(seeds):
  logs = pilot(1)
  flips = min(2 ** (seeds - 1), 20_000)
  level = (np.ceil(0.05 * flips) - 1) / flips
  threshold = scipy.stats.t.isf(level / 2, seeds - 1)
  shift = -np.log(0.9) / logs.std() * np.sqrt(seeds)
  expected = scipy.stats.nct.sf(threshold, seeds - 1, shift)
  assert stats.power(logs, 0.9, seeds) == pytest.approx(expected, abs=2e-3)


def test_power_grows_with_seeds_and_effect_and_falls_with_contrasts():
  of_seeds = [stats.power(pilot(13), 0.9, seeds) for seeds in (5, 6, 8, 10, 14, 15, 16, 30, 200)]
  of_ratios = [stats.power(pilot(13), ratio, 8) for ratio in (1.0, 0.95, 0.9, 0.7, 0.3, 1e-300)]
  of_contrasts = [stats.power(pilot(contrasts), 0.9, 10) for contrasts in (50, 13, 1)]
  for values in (of_seeds, of_ratios, of_contrasts):
    assert np.all(np.diff(values) > 0) or values[-1] == 1.0 and np.all(np.diff(values) >= 0)
  assert of_seeds[0] == 0.0


def test_a_ratio_and_its_inverse_are_found_alike():
  assert stats.power(pilot(5), 0.8, 8) == pytest.approx(stats.power(pilot(5), 1 / 0.8, 8))


@pytest.mark.parametrize("ratio", [0.5, 0.8, 0.9, 1.2])
@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.95])
def test_the_advised_number_is_the_smallest(ratio, wanted):
  seeds = stats.seeds_needed(pilot(13), ratio, wanted)
  assert stats.power(pilot(13), ratio, seeds) >= wanted > stats.power(pilot(13), ratio, seeds - 1)


@pytest.mark.parametrize("seeds", [6, 10, 40])
def test_the_detectable_ratio_is_found_with_the_power_asked_for(seeds):
  ratio = stats.detectable_ratio(pilot(13), seeds, power=0.7)
  assert 0 < ratio < 1
  assert stats.power(pilot(13), ratio, seeds) == pytest.approx(0.7, abs=1e-6)


def test_the_level_of_a_look_needs_more_seeds():
  assert stats.seeds_needed(pilot(13), 0.9, level=0.0025) > stats.seeds_needed(pilot(13), 0.9)
  assert stats.power(pilot(13), 0.1, 9, level=0.0025) == 0.0
  assert stats.detectable_ratio(pilot(13), 9, level=0.0025) == 0.0


def test_the_contrast_of_median_spread_is_planned_for():
  logs = pilot(3) * np.array([[0.1], [1.0], [30.0]])
  assert stats.seeds_needed(logs, 0.9) == stats.seeds_needed(pilot(3) * np.ones((3, 1)), 0.9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("logs, power", [
    pytest.param(np.zeros((3, 5)), 1.0, id="no-spread"),
    pytest.param(np.array([[0.1, 0.2, INF], [NAN, 0.1, 0.2]]), 0.0, id="no-whole-seed"),
    pytest.param(np.array([[0.1, 0.3], [INF, INF]]), 0.0, id="an-arm-that-fails"),
])
def test_pilots_with_holes_or_without_spread(logs, power):
  assert stats.power(logs, 0.999, 8) == pytest.approx(power, abs=0.05)
  assert 0 <= stats.detectable_ratio(logs, 8) <= 1


@pytest.mark.parametrize("call, message", [
    pytest.param(lambda: stats.power(np.ones((2, 1)), 0.9, 8), "at least two pairs", id="one-seed"),
    pytest.param(lambda: stats.power(np.ones((0, 4)), 0.9, 8), "at least two pairs", id="no-arms"),
    pytest.param(lambda: stats.power(np.full((2, 4), INF), 0.9, 8), "two pairs", id="all-failed"),
    pytest.param(lambda: stats.power(pilot(2), 0.0, 8), "ratio above 0, got 0", id="ratio"),
    pytest.param(lambda: stats.power(pilot(2), NAN, 8), "ratio above 0, got nan", id="nan"),
    pytest.param(lambda: stats.power(pilot(2), 0.9, 0), "at least one seed", id="no-seeds"),
    pytest.param(lambda: stats.power(pilot(2), 0.9, 8, level=0.0), "level above 0", id="level"),
    pytest.param(lambda: stats.seeds_needed(pilot(2), 0.9, power=1.0), "below 1", id="power"),
    pytest.param(lambda: stats.seeds_needed(pilot(2), 1.0), "1,000 seeds", id="no-effect"),
    pytest.param(lambda: stats.seeds_needed(pilot(2), 0.999), "1,000 seeds", id="small-effect"),
    pytest.param(lambda: stats.detectable_ratio(pilot(2), 8, power=0.0), "above 0", id="zero"),
])
def test_power_refuses(call, message):
  with pytest.raises(ValueError, match=message):
    call()
