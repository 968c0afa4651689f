"""The spread of the seeds as an uncertainty: laws of the statistic, and its way to the user."""

import json

import numpy as np
import pytest
import scipy.stats
import tiny

import dcnn
from dcnn import configs, stats
from dcnn.configs import build
from dcnn.results import joining, report, storage, uncertainty

SEEDS = 4


def members(number, values, seed, scale=1.0):
  """An ensemble whose reference is `scale` times as far off as one more member would be."""
  draws = np.random.default_rng(seed).normal(size=(number + 1, values))
  return stats.ensemble(scale * draws[0], draws[1:])


@pytest.mark.parametrize("number", [3, 5, 10, 30])
def test_one_more_member_needs_the_factor_that_the_number_of_members_says(number):
  ideal = np.sqrt((number + 1) / (number - 1))
  found = stats.calibrate(members(number, 40_000, 0), members(number, 40_000, 1), number)
  assert found.factor == pytest.approx(ideal, rel=0.03)
  assert found.after < 0.01
  raw = members(number, 40_000, 1)
  known = stats.miscalibration(raw._replace(spread=ideal * raw.spread), number)
  assert known < 0.01


def test_miscalibration_is_the_area_between_two_curves():
  found, levels = members(5, 300, 2, scale=1.7), np.linspace(0, 1, 20_001)
  bounds = scipy.stats.t.ppf((1 + levels) / 2, 4)
  shares = np.mean(np.abs(found.error / found.spread)[:, None] <= bounds, axis=0)
  area = np.trapezoid(np.abs(shares - levels), levels)
  assert stats.miscalibration(found, 5) == pytest.approx(area, abs=1e-4)


def test_the_factor_follows_units_and_undoes_a_factor():
  valid, test = (members(6, 2000, seed, scale=3.0) for seed in (3, 4))
  one = stats.calibrate(valid, test, 6)
  larger = [stats.Ensemble(1000 * each.error, 1000 * each.spread) for each in (valid, test)]
  assert stats.calibrate(*larger, 6)[:3] == pytest.approx(one[:3])
  halved = stats.calibrate(*(each._replace(spread=each.spread / 2) for each in (valid, test)), 6)
  assert halved.factor == pytest.approx(2 * one.factor)
  assert halved.after == pytest.approx(one.after)


@pytest.mark.parametrize(("error", "spread", "area"), [(0.0, 0.0, 0.5), (0.0, 1.0, 0.5),
                                                       (1.0, 0.0, 0.5)])
def test_extremes(error, spread, area):
  found = stats.Ensemble(np.full(5, error), np.full(5, spread))
  assert stats.miscalibration(found, 3) == pytest.approx(area)
  assert np.isnan(stats.calibrate(found, found, 3).factor)


def test_a_spread_that_is_not_finite_is_not_calibrated():
  found = stats.Ensemble(np.ones(3), np.array([1.0, np.nan, 1.0]))
  assert np.isnan(stats.miscalibration(found, 3))
  with pytest.raises(ValueError, match="at least 3 members, got 2"):
    stats.calibrate(found, found, 2)


# A sweep.

@pytest.fixture(scope="module")
def config():
  # Of the last arm every run explodes.
  return tiny.config(arms=({}, {"labels": "power_of_ten"}, {"activation.c": 1e12}), seeds=SEEDS)


@pytest.fixture(scope="module")
def swept(config, tmp_path_factory):
  place = tmp_path_factory.mktemp("calibration") / "ethanol"
  return dcnn.sweep(config, None, workdir=place), place


def test_a_sweep_calibrates_what_its_networks_predict(config, swept):
  result, place = swept
  sources = build.load(config)
  splits = build.build(config, sources).splits[0]
  trained = dcnn.load(place)
  assert set(result.config["calibration"]) == set(trained) == {"base", "power_of_ten"}
  for name, arm in trained.items():
    assert result.trained[name].calibration == arm.calibration
    found = {}
    for split in ("valid", "test"):
      frames = sources.dataset.take(getattr(splits, split))
      predicted = arm.predict(frames.systems)
      found[split] = {
          "energy": stats.ensemble(np.asarray(frames.labels.energy), predicted.energy.T),
          "forces": stats.ensemble(np.asarray(frames.labels.forces),
                                   np.moveaxis(predicted.forces, 1, 0).astype(np.float64))}
    for quantity, calibration in arm.calibration.items():
      expected = stats.calibrate(found["valid"][quantity], found["test"][quantity], SEEDS)
      np.testing.assert_allclose(calibration, expected, rtol=1e-3)


def test_it_is_in_both_reports(swept):
  _, place = swept
  for name in storage.REPORT_FILES:
    text = (place / name).read_text()
    assert "Uncertainty from the seeds" in text and "power_of_ten" in text
  shown = uncertainty.calibrations(storage.load(place))
  assert [row["arm"] for row in shown["rows"]] == ["base", "power_of_ten"]
  assert [each["name"] for each in shown["quantities"]] == ["energy", "forces"]


@pytest.mark.parametrize(("dead", "words"), [
    (("base", "power_of_ten"), "tells no uncertainty in any arm"),
    (("base",), "(medians of 1 of 2 arms)")], ids=["all", "one"])
def test_arms_without_spread_are_told_of(swept, tmp_path, dead, words):
  result, _ = swept
  record = json.loads(json.dumps(result.config))
  for arm in dead:
    record["calibration"][arm]["energy"] |= {"factor": None, "after": None, "spread": 0.0}
  storage.save(type(result)(record, *(getattr(result, name) for name in (
      "rows", "history", "tables", "predictions"))), tmp_path)
  text = report.write(tmp_path).with_name("report.md").read_text()
  assert words in text.replace("\\", "")


def test_joined_results_keep_what_holds_for_all_seeds(swept):
  result, place = swept
  joined = joining.join({"one": storage.load(place)})
  assert joined.config["calibration"] == result.config["calibration"]
  fewer = {"one": storage.load(place)}
  fewer["one"].config["calibration"].pop("base")
  assert list(joining.join(fewer).config["calibration"]) == ["power_of_ten"]


@pytest.mark.parametrize("changes", [
    {"seeds": 2, "model__name": "MLP", "model__hidden": (4,)},
    pytest.param({"seeds": 3, "split__per_seed": True}, marks=pytest.mark.nightly)],
    ids=["two seeds", "splits of their own"])
def test_no_calibration_without_frames_that_all_seeds_have_not_seen(changes):
  result = dcnn.sweep(tiny.config(arms=({},), **changes), None)
  assert "calibration" not in result.config and not result.trained["base"].calibration


@pytest.mark.nightly
def test_solutions_of_an_equation_are_calibrated_too():
  config = configs.default("advection")
  config.steps = config.chunk = 20
  config.seeds = 3
  result = dcnn.sweep(config, None)
  assert list(result.trained["base"].calibration) == ["u"]
