"""`dcnn plan`: what it says of a pilot is what `stats` computes of it."""

import functools
import re

import commands
import numpy as np
import pytest
from commands import assert_mistake

from dcnn import stats
from dcnn.base.measures import Measures, Metric
from dcnn.jobs import plan
from dcnn.results import measures, storage
from dcnn.results.records import Result, Row, Table

METRICS = ("width_loss", "height_loss")


def pilot(arms=4, seeds=8, spread=0.1, looks=None, planned=1, change=lambda row: row):
  """A sweep whose log errors are normal, without any effect."""
  rng = np.random.default_rng(1)
  names = ["base", *(f"arm{i}" for i in range(arms))]
  rows = tuple(
      change(Row("trial", arm, seed, "test", metric, "mm",
                 float(np.exp(spread / np.sqrt(2) * rng.normal())), 9, "finished"))
      for arm in names for seed in range(seeds) for metric in METRICS)
  listed = measures.to_record(Measures(
      tuple(Metric(name, "mm", "error", compared=True) for name in METRICS), METRICS[0]))
  record = {
      "config": {"experiment": "trial", "arms": [{"activation.name": name} for name in names],
                 "looks": planned}, "seeds": list(range(seeds)), "measures": listed,
      "dataset": {"name": "d", "checksum": "0"}, "environment": {}, "timing": {},
      "looks": [{"seeds": n} for n in looks or (seeds,)]}
  tables = (Table("All", "base", tuple(names[1:])), Table("Pair", "arm0", ("base", "arm1")))
  return Result(record, rows, (), tables, {})


@pytest.fixture
def run(monkeypatch, capsys):
  """`dcnn` in this process: status, output, errors."""
  return functools.partial(commands.call, monkeypatch, capsys)


@pytest.mark.parametrize(("looks", "planned", "present", "next_look"), [
    ((8,), 1, 1, 2), ((6, 8), 1, 2, 2), ((8,), 2, 1, 2)], ids=["first", "second", "planned"])
def test_forecasts_are_those_of_stats(looks, planned, present, next_look):
  """Eight seeds could find nothing at a second look that nobody planned: it is free."""
  result = pilot(looks=looks, planned=planned)
  lines = plan.forecasts(result, 0.9, 0.8)
  assert [(line.title, line.metric, line.arms) for line in lines] == [
      (title, metric, arms) for title, arms in (("All", 4), ("Pair", 2)) for metric in METRICS]
  for line, table in zip(lines, np.repeat(np.arange(2), 2), strict=True):
    asked, errors = result.tables[table], result.errors(line.metric)
    logs = np.array([np.log(errors[arm] / errors[asked.baseline]) for arm in asked.arms])
    levels = [stats.look_level(look, planned) for look in (present, next_look, 1)]
    assert line.finds == pytest.approx(stats.detectable_ratio(logs, 8, 0.8, levels[0]))
    assert line.here == stats.seeds_needed(logs, 0.9, 0.8, levels[1])
    assert line.anew == stats.seeds_needed(logs, 0.9, 0.8, levels[2])
    assert line.spread == pytest.approx(np.median(logs.std(axis=1, ddof=1)))


def test_more_is_asked_of_smaller_effects_larger_spreads_and_more_arms():
  def needed(ratio=0.9, power=0.8, **options):
    return plan.forecasts(pilot(**options), ratio, power)[0].anew

  assert needed(0.8) < needed() < needed(0.95)
  assert needed(spread=0.05) < needed() < needed(spread=0.2)
  assert needed() < needed(arms=16) and needed(power=0.5) < needed() < needed(power=0.95)


def fails(row):
  """Seed 3 of arm1 fails, and all of arm2."""
  failed = (row.arm, row.seed) == ("arm1", 3) or row.arm == "arm2"
  return row._replace(value=float("nan"), status="diverged@3") if failed else row


@pytest.mark.parametrize(("result", "ratio", "words"), [
    (pilot(), 0.9, [r"8 seeds find", r"\| All +\| width_loss +\| 4 +\| \d", "level 4.5 %"]),
    (pilot(), 0.999, ["> 1,000"]),
    (pilot(spread=0.001), 0.9, ["8, at hand"]),
    (pilot(seeds=2), 0.9, [r"2 seeds find", "nothing"]),
    (pilot(seeds=1), 0.9, ["1 seed finds", "unknown"]),
    (pilot(change=fails), 0.9, ["pairs of runs, of which one failed"]),
    (pilot(arms=1), 0.9, [r"\| 1 +\|"])],
    ids=["plain", "tiny", "clear", "two", "one", "failed", "pair"])
def test_text(result, ratio, words):
  text = plan.plan_text(result, "results/pilot", ratio, 0.8)
  assert all(re.search(word, text) for word in words), text
  assert not {"nan", "None", "inf"} & set(re.findall(r"\w+", text))
  assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1


def test_command(run, tmp_path):
  storage.save(pilot(), tmp_path / "a")
  before = sorted(tmp_path.rglob("*"))
  status, output, errors = run("plan", tmp_path / "a", "--ratio=0.8", "--power=0.9")
  assert (status, errors) == (0, "") and sorted(tmp_path.rglob("*")) == before
  assert output == plan.plan_text(pilot(), str(tmp_path / "a"), 0.8, 0.9) + "\n"


@pytest.mark.parametrize(("argv", "words"), [
    ((), ["expected one directory"]), (("a", "b"), ["expected one directory"]),
    (("a", "--ratio=1.1"), ["--ratio=1.1", "between 0 and 1"]),
    (("a", "--ratio=0"), ["--ratio=0"]), (("a", "--ratio=nan"), ["--ratio=nan"]),
    (("a", "--power=1"), ["--power=1"]), (("a", "--power=80"), ["between 0 and 1, such as 0.8"]),
    (("a", "--ratio=x"), ["--ratio=x"]), (("a", "--rato=0.9"), ["did you mean '--ratio'?"])],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_mistakes(run, argv, words):
  assert_mistake(*run("plan", *argv)[::2], *words)


def test_a_sweep_of_one_arm(run, tmp_path):
  storage.save(pilot(arms=0), tmp_path / "a")
  assert_mistake(*run("plan", tmp_path / "a")[::2], "nothing to plan with")
