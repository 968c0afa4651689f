"""Looks at a sweep to which seeds are added: what is recorded, and the level that it leaves."""

import json

import pytest
from commands import TINY, assert_mistake, call

from dcnn import stats
from dcnn.jobs import looks
from dcnn.results import storage
from dcnn.results.records import Result, Row, Table


def seen(seeds, had=None, planned=None):
  """A result of two arms, of which half has half the error, after the looks that it had."""
  rows = tuple(Row("trial", arm, seed, "test", "width_loss", "mm", value * (1 + 0.1 * seed), 9,
                   "finished") for arm, value in (("whole", 2.0), ("half", 1.0))
               for seed in range(seeds))
  config = {} if planned is None else {"looks": planned}
  return Result({"config": config} | ({} if had is None else {"looks": had}), rows, (),
                (Table("T", "whole", ("half",)),), {})


@pytest.mark.parametrize(("had", "seeds", "after"), [
    (None, 5, [5]), ([], 5, [5]), ([5], 10, [5, 10]), ([5], 5, [5]), ([10], 5, [10]),
    ([5, 10], 11, [5, 10, 11])], ids=["old", "first", "more", "again", "fewer", "third"])
def test_only_more_seeds_are_another_look(had, seeds, after):
  record = {} if had is None else {"looks": [{"seeds": n} for n in had]}
  new = looks.with_look(record, seeds)
  assert [look["seeds"] for look in new["looks"]] == after
  assert looks.with_look(new, seeds) == new


@pytest.mark.parametrize(("had", "seeds", "planned", "look"), [
    (None, 8, None, 1), ([8], 8, 1, 1), ([6, 8], 8, 1, 2), ([6], 8, 1, 2), ([7], 8, 2, 2),
    ([6, 6, 10], 10, 1, 2), ([6, 10, 12], 12, 1, 3), ([3], 8, 1, 1)],
    ids=["old", "first", "second", "not-finished", "planned", "joined", "third", "free"])
def test_a_result_is_judged_at_the_level_of_its_look(had, seeds, planned, look):
  result = seen(seeds, had and [{"seeds": n} for n in had], planned)
  assert result.looks == (look, planned or 1)
  assert result.level == stats.look_level(look, planned or 1)
  errors = result.errors("width_loss")
  assert result.compare(result.tables[0], "width_loss") == stats.compare(
      errors, "whole", result.level)


def test_looks_that_nobody_planned_cost_a_verdict():
  """2 / 2^8 = 0.0078: enough at the first look, not at a second that was not planned."""
  verdicts = {}
  for had, planned in (((), 1), ((4,), 1), ((7,), 1), ((7,), 2)):
    result = seen(8, [{"seeds": n} for n in had], planned)
    verdicts[had, planned] = result.compare(result.tables[0], "width_loss")[1].contrast.verdict
  assert verdicts == {((), 1): "better", ((4,), 1): "better", ((7,), 1): "too few seeds",
                      ((7,), 2): "better"}


ARMS = '  config.arms = ({}, {"activation.c": 1.0})\n  return config'


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
  """`dcnn` on the tiny experiment with two arms: status, output and errors."""
  def run(*flags, arms=ARMS):
    (tmp_path / "tiny.py").write_text(TINY.replace("  return config", arms))
    return call(monkeypatch, capsys, f"--config={tmp_path / 'tiny.py'}",
                f"--workdir={tmp_path / 'out'}", *flags)
  return run


def recorded(tmp_path):
  config = json.loads((tmp_path / "out" / storage.CONFIG_FILE).read_text())
  return [look["seeds"] for look in config.get("looks", [])]


@pytest.mark.nightly
def test_looks_of_a_sweep_that_grows(command, tmp_path, monkeypatch, capsys):
  """By seeds alone: not by the same command, not by a report, not by an arm; and they outlive."""
  assert command()[0] == 0 and recorded(tmp_path) == [1]
  assert command()[0] == 0 and recorded(tmp_path) == [1]
  assert call(monkeypatch, capsys, "report", tmp_path / "out")[0] == 0
  assert recorded(tmp_path) == [1]
  more = ARMS.replace("1.0}", '1.0}, {"activation.c": 0.1}')
  assert command(arms=more)[0] == 0 and recorded(tmp_path) == [1]

  def stop(*arguments, **options):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:  # as good as a kill in training
    patch.setattr("dcnn.jobs.run", stop)
    command("--config.seeds=2", arms=more)
  assert recorded(tmp_path) == [1]
  assert command("--config.seeds=2", arms=more)[0] == 0 and recorded(tmp_path) == [1, 2]
  assert storage.load(tmp_path / "out").looks == (1, 1)  # one seed could find nothing
  assert json.loads((tmp_path / "out" / "summary.json").read_text())["seeds"] == [0, 1]


def test_the_plan_of_looks_is_settled_by_the_first(command, tmp_path):
  assert command()[0] == 0
  status, _, errors = command("--config.looks=3", "--config.seeds=2")
  assert_mistake(status, errors, "looks=1, and looks=3 is asked for", "before the first report")
  assert recorded(tmp_path) == [1]


def test_a_directory_of_before_looks_goes_on(command, tmp_path):
  assert command()[0] == 0
  path = tmp_path / "out" / storage.CONFIG_FILE
  config = json.loads(path.read_text())
  del config["looks"], config["config"]["looks"]
  path.write_text(json.dumps(config))
  assert command("--config.seeds=2")[0] == 0 and recorded(tmp_path) == [2]
