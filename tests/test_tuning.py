"""The choice of learning rates, and the trainings that are stopped on the way to it."""

import contextlib
import json
import math
import warnings

import commands
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from dcnn import configs, jobs, sweeps
from dcnn.configs import build
from dcnn.jobs import dry_run, tuning
from dcnn.sweeps import halving, plans, sweep
from dcnn.sweeps.plans import Halving, Key

RATES = (1e-9, 1e-2, 1e-3, 1e-8, 1e-1)
# Four validations, of which the first and the second are rungs: five rates, three, two.
OPTIONS = {"steps": 8, "chunk": 2, "seeds": 1, "arms": ({}, {"activation.c": 0.25}),
           "optimizer__schedule": "constant"}


def config(factor=2, rates=RATES, seeds=(7, 8), **options):
  made = tiny.mlp(**{**OPTIONS, **options})
  made.tuning.learning_rates, made.tuning.seeds, made.tuning.halving = rates, seeds, factor
  return made


def run(made, **options):
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of an optimum at an edge
    return jobs.run(jobs.prepare(made), **options)


def tuned(made, **options):
  return run(made, **options).result.config["tuning"]


@pytest.fixture(scope="module")
def whole():
  return tuned(config(0))


@pytest.fixture(scope="module")
def halved():
  return run(config())


# When how many go on.


@pytest.mark.parametrize(("arms", "factor", "steps", "chunk", "expected"), [
    (8, 2, 1000, 1, ((250, 4), (500, 2))), (5, 2, 8, 2, ((2, 3), (4, 2))),
    (9, 3, 900, 10, ((100, 3), (300, 2))), (3, 2, 1000, 300, ((600, 2),)),
    (2, 2, 1000, 1, ()), (1, 2, 1000, 1, ()), (8, 2, 1000, 1000, ()), (8, 2, 8, 6, ((6, 2),))],
    ids=["8", "5", "thirds", "next-validation", "two", "one", "one-validation", "same-validation"])
def test_rungs(arms, factor, steps, chunk, expected):
  assert halving.rungs(arms, factor, steps=steps, chunk=chunk) == expected


@given(st.integers(1, 40), st.integers(2, 10), st.integers(1, 5000), st.integers(1, 800))
def test_rungs_are_validations_at_which_fewer_go_on(arms, factor, steps, chunk):
  found = halving.rungs(arms, factor, steps=steps, chunk=chunk)
  reached, left = [0, *(step for step, _ in found)], [arms, *(number for _, number in found)]
  assert all(b > a for a, b in zip(reached, reached[1:], strict=False)) and reached[-1] < steps
  assert all(step % chunk == 0 for step in reached)
  assert all(2 <= b < a and b >= a / factor for a, b in zip(left, left[1:], strict=False) if (
      steps > chunk * factor ** len(left)))
  assert left[-1] >= min(arms, 2)


# Who is stopped.


def plan_of(races, rungs, seeds=(0, 1)):
  plan = build.build(made := tiny.mlp(seeds=seeds), build.load(made))
  return plan._replace(seeds=seeds, halving=Halving(races, rungs))


def losers(scores, lost=(), rungs=((2, 2),), step=2, keys=None):
  """Arms that lose; `scores` by arm, one for each of two seeds."""
  plan = plan_of((tuple(scores),), rungs)
  keys = keys or tuple(Key(arm, seed) for arm in scores for seed in (0, 1))
  found = halving.losers(plan, halving.Standing(
      keys, np.array([scores[arm][seed] for arm, seed in keys], np.float32),
      np.array([arm in lost for arm, _ in keys])), step)
  return [arm for arm in scores if all(found[i] for i, key in enumerate(keys) if key.arm == arm)]


CASES = {
    "geometric mean": ({"a": (1, 100), "b": (11, 11), "c": (9, 9)}, ["b"]),  # 10, 11, 9
    "a failed seed": ({"a": (1e-9, math.inf), "b": (5, 5), "c": (9, 9)}, ["a"]),
    "all failed": ({"a": (math.inf,) * 2, "b": (math.inf,) * 2, "c": (math.inf,) * 2}, ["c"]),
    "exact and failed": ({"a": (0, math.inf), "b": (5, 5), "c": (9, 9)}, ["a"]),
    "exact": ({"a": (5, 5), "b": (0, 9), "c": (4, 4)}, ["a"]),
    "tie": ({"a": (1, 1), "b": (2, 2), "c": (2, 2)}, ["c"]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_worst_of_a_race_are_stopped(case):
  scores, expected = CASES[case]
  assert losers(scores) == expected
  assert losers(scores, step=4) == []  # no rung


def test_who_was_stopped_stays_so_and_is_not_counted_again():
  scores = {"a": (1, 1), "b": (2, 2), "c": (3, 3), "d": (0.5, 0.5)}
  assert losers(scores, lost=("d",), rungs=((4, 2),), step=4) == ["c", "d"]


def test_a_race_of_which_a_run_is_elsewhere_stops_nobody():
  scores = {"a": (1, 1), "b": (2, 2), "c": (3, 3)}
  keys = tuple(Key(arm, seed) for arm in scores for seed in (0, 1))
  assert losers(scores, keys=keys[::-1]) == ["c"]  # in whatever order
  assert losers(scores, keys=keys[1:]) == []


@pytest.mark.parametrize("size, cut", [(12, [12]), (8, [6, 6]), (6, [6, 6]), (4, [4, 4, 4])])
def test_launches_hold_whole_races_where_they_fit(size, cut):
  races = (("a", "b", "c"), ("d", "e", "f"))
  plan = plan_of(races, ((2, 2),))
  (group,) = plans.make_groups(plan._replace(arms=tuple(
      plan.arms[0]._replace(name=name) for race in races for name in race)))
  told = pytest.warns(UserWarning, match="the 6 runs of an arm would have to train together, and 4")
  with told if size < 6 else contextlib.nullcontext():
    found = list(halving.launches(plan, group.runs, size, 2))
  assert [len(launch.real) for launch in found] == cut
  assert all(len(launch.padded) == size for launch in found)
  assert sorted(key for launch in found for key in launch.keys) == sorted(
      run.key for run in group.runs)
  if len(cut) == 1:  # and each device has a seed of each arm
    assert {key.arm for key in found[0].keys[:6]} == {key.arm for key in found[0].keys[6:]}


# A tuning.


@pytest.mark.nightly
def test_without_halving_nothing_is_new(whole):
  assert set(whole) == {"learning_rates", "seeds", "scores", "chosen"}
  plan = tuning.make_plan(config(0), build.load(config(0)), configs.arm_settings(config(0)))
  assert plan.halving is None


def test_finalists_are_those_of_whole_trainings_and_so_is_the_choice(whole, halved):
  found = halved.result.config["tuning"]
  stopped = {(each["arm"], each["learning_rate"]): each for each in found["stopped"]}
  assert sorted(each["step"] for each in found["stopped"]) == [2] * 4 + [4] * 2
  for arm, scores in found["scores"].items():
    for rate, score, full in zip(RATES, scores, whole["scores"][arm], strict=True):
      if (arm, rate) in stopped:
        assert stopped[arm, rate]["score"] == score >= full
      else:
        assert score == full
    finalists = {rate: score for rate, score in zip(RATES, whole["scores"][arm], strict=True)
                 if (arm, rate) not in stopped}
    assert len(finalists) == 2 and found["chosen"][arm] == min(finalists, key=finalists.get)
    assert max(finalists.values()) <= min(
        each["score"] for each in found["stopped"] if each["arm"] == arm)
  assert not [row for row in halved.result.rows if "lost" in row.status]


def test_the_record_is_json_and_the_summary_has_a_line_for_each_rate(halved):
  found = json.loads(json.dumps(halved.result.config["tuning"]))
  heading, *lines, last = tuning.summary(found).splitlines()
  assert heading == "learning rates, chosen on seeds 7, 8:"
  assert last == "  6 of 10 pairs of arm and rate were stopped early"
  told = {arm: float(line.partition(":")[0]) for line in lines
          for arm in line.partition(": ")[2].split(", ")}
  assert told == found["chosen"] and len(lines) == len(set(told.values()))


@pytest.mark.nightly
def test_a_tuning_with_halving_is_continued(halved, tmp_path, monkeypatch):
  """Stopped after every step, before the rungs, at them and after them."""
  monkeypatch.setattr(sweep, "SEGMENT_SECONDS", 0.0)
  sessions = 0
  while True:
    asked = iter([False] + [True] * 99)
    try:
      finished = run(config(), directory=tmp_path, should_stop=lambda asked=asked: next(asked))
      break
    except sweeps.Interrupted:
      sessions += 1
  assert sessions >= 4
  assert finished.result.config["tuning"] == halved.result.config["tuning"]
  assert finished.result.rows == halved.result.rows


def test_stopped_runs_take_no_more_steps(tmp_path, monkeypatch):
  """Nor do their curves go on."""
  made = config()
  plan = tuning.make_plan(made, build.load(made), configs.arm_settings(made))
  outcome = sweeps.run(plan)
  steps = {key: ended.rows[0].status.partition("@")[2] for key, ended in outcome.ended.items()}
  for key, stopped in steps.items():
    points = [point.step for point in outcome.history if (point.arm, point.seed) == key]
    assert max(points) == int(stopped or 8)
  assert halving.share(plan) == pytest.approx((2 * 5 + 2 * 3 + 4 * 2) / (8 * 5))
  assert sorted(map(int, filter(None, steps.values()))) == [2] * 8 + [4] * 4


def test_launches_of_an_arm_each_choose_the_same(halved, monkeypatch):
  """As one launch of both; equal to rounding, because XLA rounds another program otherwise."""
  tiny.let_runs_fit(monkeypatch, 5)  # on each of two devices
  found, expected = tuned(config()), halved.result.config["tuning"]
  names = [{name: each[name] for name in ("arm", "learning_rate", "step")}
           for each in found["stopped"]]
  assert names == [{name: each[name] for name in ("arm", "learning_rate", "step")}
                   for each in expected["stopped"]]
  for arm, scores in expected["scores"].items():
    np.testing.assert_allclose(found["scores"][arm], scores, rtol=2e-5)


def test_a_rate_that_was_stopped_is_taken_only_where_all_finalists_fail():
  rates = (1.0, 2.0, 3.0)
  assert tuning._best(rates, (5.0, 4.0, 4.0), (False, True, False)) == 3.0
  assert tuning._best(rates, (math.inf, 4.0, 3.0), (False, True, True)) == 3.0
  assert tuning._best(rates, (math.inf,) * 3, (True, False, False)) == 2.0
  assert tuning._best(rates, (2.0, 1.0, 1.0), (False,) * 3) == 2.0
  with pytest.warns(UserWarning, match="trained to the end have failed for a, .* tuning.halving"):
    tuning._warn({"a": 2.0}, rates, [{"arm": "a", "learning_rate": 2.0}])


def test_a_run_that_diverges_has_no_score():
  """Though it had a finite one before."""
  found = tuned(config(0, rates=(1e-2, 1e11), arms=({},), steps=4, chunk=1))
  assert found["scores"]["base"][1] == math.inf and found["chosen"] == {"base": 1e-2}


@pytest.mark.parametrize("changes, words", [
    ({"factor": 1}, "tuning.halving must be 0 for none, or a whole number within 2 and 10, got 1"),
    ({"factor": -2}, "got -2"), ({"factor": 11}, "got 11"),
    ({"rates": (), "seeds": ()}, "tuning.halving without tuning.learning_rates tunes nothing")],
    ids=["one", "negative", "large", "no-rates"])
def test_mistakes(changes, words):
  with pytest.raises(ValueError, match=words):
    configs.validate(config(**changes))


def test_an_estimate_leaves_out_what_is_stopped():
  """To the factor that the steps say."""
  stages = [dry_run.estimate_stages(jobs.prepare(config(factor)))[0].estimate
            for factor in (0, 2)]
  for estimate, share in zip(stages, (1.0, 0.6), strict=True):
    np.testing.assert_allclose(
        estimate.train_seconds, share * 8 * estimate.runs * estimate.step_seconds)


# The command.


def test_the_command_prints_what_was_chosen_and_warns_of_the_edge(monkeypatch, capsys, tmp_path):
  (tmp_path / "tiny.py").write_text(commands.TINY.replace("  return config", """
  config.arms = ({}, {"activation.c": 0.25})
  config.tuning.learning_rates, config.tuning.seeds = (1e-9, 1e-2), (7, 8)
  return config"""))
  edge = "edge of the grid for base, c=0.25: widen tuning.learning_rates"
  with pytest.warns(UserWarning, match=edge):
    status, output, _ = commands.call(
        monkeypatch, capsys, f"--config={tmp_path / 'tiny.py'}", f"--workdir={tmp_path / 'w'}")
  assert status == 0
  assert "learning rates, chosen on seeds 7, 8:\n  0.01: base, c=0.25\n" in output
  written = json.loads((tmp_path / "w" / "config.json").read_text())
  assert written["tuning"]["chosen"] == {"base": 1e-2, "c=0.25": 1e-2}
  assert {line.split(",")[2] for line in (
      tmp_path / "w" / "results.csv").read_text().splitlines()[1:]} == {"0"}
