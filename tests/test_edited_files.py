"""Files of a work directory that people edited: a report, or one line that names the file."""

import csv
import io
import json
import math
import shutil

import hypothesis
import numpy as np
import pytest
from commands import TINY, call
from hypothesis import strategies as st

from dcnn.jobs import workdirs
from dcnn.results import report, storage

GONE = object()
VALUES = (
    GONE, None, [], ["x"], [None], [1], "x", "", "\ud800", "\x1b[2J\u202e|`<script>", 0, -1, 2.5,
    True, {}, {"a": None}, {"a": [1]}, math.nan, math.inf, 10**30, 10**400, 1e308, [[[[]]]])
CELLS = ("", "x", "-1", "nan", "-inf", "1e999", "9" * 400, "2.5", "\x1b[2J", "a|b", "\u202e", "٣",
         "diverged", "diverged@", "interrupted@3", "patience@-1", "test", "valid", "energy_loss")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A work directory of two arms and a learning rate tuned, as the command leaves it."""
  folder = tmp_path_factory.mktemp("finished")
  extra = """  config.arms = ({}, {"labels": "standardize"})
  config.tuning.learning_rates, config.tuning.seeds = (1e-3, 3e-3, 1e-2), (7,)
  config.tuning.halving = 3
  return config"""
  (folder / "tiny.py").write_text(TINY.replace("  return config", extra))
  with pytest.MonkeyPatch.context() as patch:
    capture = type("Capture", (), {"readouterr": lambda self: ("", "")})()
    status, *_ = call(patch, capture, f"--config={folder / 'tiny.py'}",
                      f"--workdir={folder / 'out'}")
  assert status == 0
  return folder / "out"


@pytest.fixture
def edited(finished, tmp_path, monkeypatch):
  """A copy of it, whose report is drawn without figures, which no case here needs."""
  monkeypatch.setattr(report, "_drawings", lambda *arguments: ({}, []))
  return shutil.copytree(finished, tmp_path / "out", dirs_exist_ok=True)


def paths(node, path=()):
  """The place of every value in nested records and lists; of a list the first item."""
  if path:
    yield path
  items = node.items() if isinstance(node, dict) else (
      list(enumerate(node))[:1] if isinstance(node, list) else ())
  for key, value in items:
    yield from paths(value, (*path, key))


def replaced(content, path, value):
  """JSON text of the content with one value replaced, or gone."""
  content = json.loads(json.dumps(content))
  holder = content
  for key in path[:-1]:
    holder = holder[key]
  if value is GONE:
    del holder[path[-1]]
  else:
    holder[path[-1]] = value
  return json.dumps(content)


def assert_drawn_or_told(directory, name, monkeypatch, capsys):
  """`dcnn report` succeeds without a word of error, or says in one line which file is wrong."""
  status, _, errors = call(monkeypatch, capsys, "report", directory)
  if status == 0:
    assert not errors
    told = (directory / "report.md").read_text().split("## Definitions")[0]
    assert told.replace("\n", "").isprintable()
    json.loads((directory / "summary.json").read_text(), parse_constant=lambda word: 1 / 0)
  else:
    (line,) = errors.splitlines()
    assert status == 2 and str(directory / name) in line and line.isprintable()


def assert_continues_or_told(directory, manifest):
  try:
    workdirs.check(directory, manifest)
  except ValueError as error:
    assert str(directory) in str(error) and "\n" not in str(error)


def check_config(directory, path, value, monkeypatch, capsys):
  original = (directory / storage.CONFIG_FILE).read_text()
  manifest = json.loads(original)
  text = replaced(manifest, path, value)
  (directory / storage.CONFIG_FILE).write_text(text)
  assert_drawn_or_told(directory, storage.CONFIG_FILE, monkeypatch, capsys)
  told = (directory / "report.md").read_text().split("## Definitions")[0]
  assert not {"None", "nan"} & set(told.split())
  (directory / storage.CONFIG_FILE).write_text(text)
  assert_continues_or_told(directory, manifest)
  (directory / storage.CONFIG_FILE).write_text(original)


_QUIET = {"deadline": None, "suppress_health_check": list(hypothesis.HealthCheck)}


@pytest.mark.filterwarnings("ignore:.*results of both stand")
@hypothesis.settings(max_examples=60, **_QUIET)
@hypothesis.given(st.data())
def test_config(edited, monkeypatch, capsys, data):
  manifest = json.loads((edited / storage.CONFIG_FILE).read_text())
  path = data.draw(st.sampled_from(list(paths(manifest))))
  check_config(edited, path, data.draw(st.sampled_from(VALUES)), monkeypatch, capsys)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:.*results of both stand")
@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:12])
def test_config_at_every_key(edited, monkeypatch, capsys, value):
  for path in paths(json.loads((edited / storage.CONFIG_FILE).read_text())):
    check_config(edited, path, value, monkeypatch, capsys)


@pytest.mark.parametrize(("path", "value", "told"), [
    (("timing", "train_seconds"), None, "timing like"),
    (("config", "split"), [], "config.split like {}, got []"),
    (("environment", "versions"), "x", "environment.versions like"),
    (("tuning", "chosen"), {}, "a choice for each arm"),
    (("tuning", "scores", "base"), [1.0], "a score for each arm and learning rate"),
    (("tuning", "stopped", 0, "arm"), "gone", "what was stopped is one of these"),
    (("tuning", "stopped", 0, "learning_rate"), 0.5, "what was stopped is one of these"),
    (("tuning", "stopped", 0, "step"), -1, "tuning.stopped like"),
    (("config", "steps"), 10**400, "numbers within 1e300"),
    (("environment", "device"), "\ud800", "half a character"),
    (("environment", "deep"), json.loads("[" * 90 + "]" * 90), "32 deep")],
    ids=["time", "split", "versions", "chosen", "scores", "stopped arm", "stopped rate",
         "stopped step", "huge", "surrogate", "deep"])
def test_config_is_refused_by_its_part(edited, monkeypatch, capsys, path, value, told):
  file = edited / storage.CONFIG_FILE
  file.write_text(replaced(json.loads(file.read_text()), path, value))
  status, _, errors = call(monkeypatch, capsys, "report", edited)
  assert status == 2 and told in errors and str(file) in errors and errors.count("\n") == 1


@pytest.mark.parametrize("part", ["checksum", "name"])
def test_what_continuing_needs_is_missed_by_name(edited, part):
  file = edited / storage.CONFIG_FILE
  manifest = json.loads(file.read_text())
  file.write_text(replaced(manifest, ("dataset", part), GONE))
  with pytest.raises(ValueError, match=f"{file} .*no 'dataset.{part}' in it"):
    workdirs.check(edited, manifest)


def lines_of(file):
  return list(csv.reader(io.StringIO(file.read_text())))


def rewrite(file, lines):
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(lines)
  file.write_text(text.getvalue())


@pytest.mark.parametrize("name", [storage.ROWS_FILE, storage.HISTORY_FILE])
@hypothesis.settings(max_examples=40, **_QUIET)
@hypothesis.given(st.data())
def test_tables(edited, monkeypatch, capsys, name, data):
  original = (edited / name).read_text()
  lines = lines_of(edited / name)
  row = data.draw(st.integers(0, len(lines) - 1))
  column = data.draw(st.integers(0, len(lines[0]) - 1))
  kind = data.draw(st.sampled_from(("cell", "cell", "cell", "column", "line gone", "line twice",
                                    "column gone", "cut")))
  if kind == "cell":
    lines[row][column] = data.draw(st.sampled_from(CELLS))
  elif kind == "column":
    cell = data.draw(st.sampled_from(CELLS))
    lines[1:] = [[*line[:column], cell, *line[column + 1:]] for line in lines[1:]]
  elif kind == "line gone":
    del lines[row]
  elif kind == "line twice":
    lines.append(lines[row])
  elif kind == "column gone":
    lines = [[*line[:column], *line[column + 1:]] for line in lines]
  else:
    lines = lines[:row]
  rewrite(edited / name, lines)
  assert_drawn_or_told(edited, name, monkeypatch, capsys)
  (edited / name).write_text(original)


@pytest.mark.parametrize(("name", "column", "cell", "told"), [
    ("results.csv", "seed", "x", "invalid literal"),
    ("results.csv", "seed", "-1", "seed: expected"),
    ("results.csv", "split", "tset", "split: expected train, valid, test, got 'tset'"),
    ("results.csv", "unit", "", "unit: expected a unit"),
    ("results.csv", "value", "-1.0", "value: expected no negative error"),
    ("results.csv", "step", "-5", "step: expected"),
    ("results.csv", "step", "9" * 30, "step: expected"),
    ("results.csv", "status", "done", "status: expected finished"),
    ("results.csv", "metric", "", "metric: expected the name"),
    ("history.csv", "step", "-5", "step: expected"), ("history.csv", "seed", "1.5", "invalid"),
    ("history.csv", "split", "", "split: expected"), ("history.csv", "value", "x", "could not")])
def test_cells_are_refused_by_their_column(edited, monkeypatch, capsys, name, column, cell, told):
  lines = lines_of(edited / name)
  lines[1][lines[0].index(column)] = cell
  rewrite(edited / name, lines)
  status, _, errors = call(monkeypatch, capsys, "report", edited)
  assert status == 2 and f"{edited / name}, line 2" in errors and told in errors
  assert errors.count("\n") == 1


@pytest.mark.parametrize("name", [storage.ROWS_FILE, storage.HISTORY_FILE])
def test_a_line_twice(edited, monkeypatch, capsys, name):
  lines = lines_of(edited / name)
  rewrite(edited / name, [*lines, lines[1]])
  status, _, errors = call(monkeypatch, capsys, "report", edited)
  assert status == 2 and f"line {len(lines) + 1}" in errors and "got 'a second'" in errors


@pytest.mark.parametrize("changes", [
    {"energy_true": np.ones(3)}, {"energy_true": np.ones((2, 2))}, {"energy_true": np.array(1.0)},
    {"forces_true": np.array(["x"])}, {"forces_true": np.ones(0)}, {"arm": np.ones(3)},
    {"seed": np.array("x")}, {"forces_predicted": np.ones(3, complex)}],
    ids=["length", "square", "scalar", "text", "empty", "arm", "seed", "complex"])
def test_predictions(edited, monkeypatch, capsys, changes):
  file = edited / storage.PREDICTIONS_FILE
  with np.load(file) as arrays:
    np.savez(file, **{**arrays, **changes})
  assert_drawn_or_told(edited, storage.PREDICTIONS_FILE, monkeypatch, capsys)
  status, _, errors = call(monkeypatch, capsys, "report", edited)
  assert status == 2 and str(file) in errors


@pytest.mark.parametrize("content", ["", "[]", "nonsense", '{"arms": 3}'])
def test_the_summary_is_written_not_read(edited, monkeypatch, capsys, content):
  before = (edited / storage.SUMMARY_FILE).read_text()
  (edited / storage.SUMMARY_FILE).write_text(content)
  assert call(monkeypatch, capsys, "report", edited)[0] == 0
  assert (edited / storage.SUMMARY_FILE).read_text() == before
