"""Records of a sweep: errors by arm and seed, text for readers, and files that read back equal."""

import dataclasses
import doctest
import os

import numpy as np
import pytest
import synthetic_results

from dcnn import stats
from dcnn.base import files
from dcnn.base.text import display_unit, number_text
from dcnn.results import measures, records, storage
from dcnn.results.records import Point, Result, Row, Table
from dcnn.results.text import error_text, markdown_text, p_text, ratio_text

NAN, INF = float("nan"), float("inf")


def row(arm, seed, value, *, metric="force_loss", split="test", status="finished", unit="eV/A"):
  return Row("trial", arm, seed, split, metric, unit, value, 10, status)


def small(tables=(), config=None, history=(), predictions=None):
  """Two arms, six seeds; b has twice the error of a."""
  rows = [row(arm, seed, factor * 0.01 * (1 + 0.1 * seed))
          for arm, factor in (("a", 1.0), ("b", 2.0)) for seed in range(6)]
  return Result(config or {}, tuple(rows), tuple(history), tuple(tables), predictions or {})


def changed(result, arm, seed, **fields):
  rows = tuple(
      each._replace(**fields) if (each.arm, each.seed) == (arm, seed) else each
      for each in result.rows)
  return dataclasses.replace(result, rows=rows)


# Errors.


def test_errors_by_arm_in_the_order_of_rows_and_seeds():
  errors = small().errors("force_loss")
  assert list(errors) == ["a", "b"]
  np.testing.assert_array_equal(errors["b"], 2 * errors["a"])


@pytest.mark.parametrize("fields", [
    {"status": "diverged@7"}, {"value": NAN}, {"value": -INF}], ids=["status", "nan", "inf"])
def test_failed_runs_have_infinite_error(fields):
  errors = changed(small(), "b", 3, **fields).errors("force_loss")
  assert errors["b"][3] == INF
  assert np.isfinite(errors["b"]).sum() == 5


def test_a_diverged_run_needs_no_row_of_the_metric():
  result = changed(small(), "b", 3, status="diverged@7", split="train")
  assert result.errors("force_loss")["b"][3] == INF


def test_errors_of_a_run_that_is_missing():
  result = dataclasses.replace(small(), rows=small().rows[:-1])
  with pytest.raises(ValueError, match="arm 'b', seed 5"):
    result.errors("force_loss")


def test_arms_with_unfinished_runs_are_no_results_yet():
  result = changed(small(), "b", 3, status="interrupted@5", split="valid")
  assert result.arms == tuple(arm for arm in small().arms if arm != "b")
  assert result.unfinished == {"b": 1} and "b" not in result.errors("force_loss")


def test_errors_of_unknown_metric_list_the_known():
  with pytest.raises(ValueError, match="known: force_loss on test"):
    small().errors("energy_loss")


def test_compare_puts_an_unlisted_baseline_first():
  summaries = small().compare(Table("", "b", ("a", "gone")), "force_loss")
  assert [summary.arm for summary in summaries] == ["b", "a"]
  assert summaries[1].contrast.ratio == pytest.approx(0.5)


# Text.


def test_table_states_units_ratio_and_verdict():
  lines = small([Table("Trial", "a", ("a", "b"))]).table(metrics=("force_loss",)).splitlines()
  assert lines[0] == "Trial: force_loss"
  assert "force_loss (meV/Å)" in lines[2]
  assert "baseline" in lines[4]
  assert all(part in lines[5] for part in ("2.00 [2.00, 2.00]", "0.031", "worse"))
  assert len({len(line) for line in lines[2:]}) == 1


def test_table_against_a_given_baseline():
  assert "0.50 [0.50, 0.50]" in small().table(baseline="b", metrics=("force_loss",))


@pytest.mark.parametrize(("baseline", "message"), [
    (None, "expected a baseline"), ("c", "unknown baseline 'c'")], ids=["none", "unknown"])
def test_table_without_a_baseline(baseline, message):
  with pytest.raises(ValueError, match=message):
    small().table(baseline, metrics=("force_loss",))


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0.00"), (18.25, "18.2"), (0.01234, "0.0123"), (999.6, "1000"), (4209.4, "4209"),
    (-0.369, "-0.369"), (3.2e7, "3.20e+07"), (NAN, "–"), (INF, "inf")])
def test_numbers_have_three_significant_figures(value, text):
  assert number_text(value) == text


@pytest.mark.parametrize(("p", "text"), [
    (1.0, "1.00"), (0.0994, "0.099"), (0.0996, "0.10"), (0.031, "0.031"), (0.0009, "< 0.001")])
def test_p_values(p, text):
  assert p_text(p) == text


@pytest.mark.parametrize(("interval", "text"), [
    ((1.823, 1.7, 1.949), "1.82 [1.70, 1.95]"), ((0.9712, 0.93, 1.0), "0.97 [0.93, 1.00]"),
    ((0.0312, 0.03, 0.0451), "0.0312 [0.0300, 0.0451]"),
    ((18.23, 17.0, 19.55), "18.2 [17.0, 19.6]"), ((1.5, NAN, NAN), "1.50"),
    ((0.24, 0.0014, 24.18), "0.24 [0.00140, 24.2]"), ((NAN, NAN, NAN), "–")])
def test_ratios(interval, text):
  assert str(ratio_text(stats.Interval(*interval))) == text


def test_ends_have_the_decimals_of_the_error():
  text = error_text(stats.Interval(0.0325, 0.0308, 0.1), 1000.0)
  assert str(text) == "32.5 [30.8, 100.0]"


@pytest.mark.parametrize(("unit", "values", "expected"), [
    ("eV", [0.1, 1.0, INF], (1000.0, "meV")), ("eV/A", [0.1], (1000.0, "meV/Å")),
    ("eV", [4000.0], (1.0, "eV")), ("1", [0.5], (1.0, "1")), ("eV/A", [], (1.0, "eV/Å"))])
def test_small_values_are_shown_in_meV(unit, values, expected):
  assert display_unit(unit, np.array(values)) == expected


@pytest.mark.parametrize(("text", "written"), [
    ("c=0.1,init_matched", "c=0.1,init_matched"), ("<b>", "&lt;b&gt;"), ("a|b", "a\\|b"),
    ("\x1b[2J\u202e", "\\\\x1b\\[2J\\\\u202e"), ("_a_ b_c", "\\_a\\_ b_c"), ("# a", "\\# a"),
    ("- a", "\\- a"), ("1. a", "1\\. a"), ("-1.5", "-1.5"), ("---", "\\---"), ("===", "\\==="),
    ("`x` *y* [z](w)", "\\`x\\` \\*y\\* \\[z\\](w)"), ("a\n# b", "a # b")])
def test_markdown_text(text, written):
  assert markdown_text(text) == written


# In notebooks.


def exact(result, arm):
  return dataclasses.replace(result, rows=tuple(
      each._replace(value=0.0) if each.arm == arm else each for each in result.rows))


HOSTILE = "\x1b[2J<script>\n" * 200


@pytest.mark.parametrize(("result", "words"), [
    (small(), ["'trial'", "2 arms", "6 seeds", "12 runs"]),
    (changed(small(), "b", 3, status="interrupted@5"), ["1 unfinished"]),
    (changed(small(), "b", 3, status="diverged@5"), ["1 failed"]),
    (exact(small(), "b"), ["2 arms"]),
    (Result({}, (), (), (), {}), ["0 seeds", "splits none"]),
    (dataclasses.replace(small(), rows=(row(HOSTILE, 0, 1.0)._replace(experiment=HOSTILE),)), []),
    (synthetic_results.result(seeds=8, chunks=2, frames=5), ["24 arms", "2 failed"])],
    ids=["plain", "unfinished", "failed", "exact", "empty", "hostile", "large"])
@pytest.mark.filterwarnings("error")
def test_a_result_says_in_short_what_it_is(result, words):
  for text in (repr(result), str(result)):
    assert len(text) < 400 and text.isprintable() and all(word in text for word in words)
    assert ".table(" in text


@pytest.mark.parametrize(("result", "words"), [
    (small(), ["ratio to a", "2.00 [2.00, 2.00]", "worse"]),
    (changed(small(), "b", 3, status="interrupted@5"), ["1 unfinished", "baseline"]),
    (changed(small(), "a", 3, status="interrupted@5"), ["1 unfinished"]),
    (changed(small(), "b", 3, status="diverged@5"), ["1 failed"]),
    (exact(small(), "b"), ["exact in 6 of 6 runs", "better"]),
    (exact(small(), "a"), ["exact in 6 of 6 runs", "worse", "–"]),
    (Result({}, (), (), (), {}), ["0 seeds"]),
    (dataclasses.replace(small(), rows=(row(HOSTILE, 0, 1.0),)), ["&lt;script&gt;"])],
    ids=["plain", "unfinished", "no-baseline", "failed", "exact", "exact-baseline", "empty",
         "hostile"])
@pytest.mark.filterwarnings("error")
def test_a_result_shows_its_tables_in_a_notebook(result, words):
  page = result._repr_html_()
  assert all(word in page for word in words) and page.isprintable()
  assert not {"nan", "inf"} & set(page.replace("<", " ").replace(">", " ").split())
  assert "<script" not in page and "color" not in page  # those of the notebook, light or dark
  assert page.count("<table>") == page.count("</table>")


# Files.


@pytest.fixture(scope="module")
def made():
  return synthetic_results.result(seeds=3, chunks=2, frames=5)


def test_files_read_back_equal(made, tmp_path):
  odd = (row('say "a", b\n|ü', 0, NAN), row("= 1", 1, INF), row("x", 2, 0.1 + 0.2))
  result = dataclasses.replace(
      made, rows=made.rows + odd, history=(*made.history, Point("x", 1, 2, "valid", "m", -INF)))
  storage.save(result, tmp_path / "new" / "folder")
  loaded = storage.load(tmp_path / "new" / "folder")
  assert repr(loaded.rows) == repr(result.rows)
  assert repr(loaded.history) == repr(result.history)
  assert loaded.tables == result.tables
  assert loaded.config["environment"] == result.config["environment"]
  assert set(loaded.predictions) == set(result.predictions)
  for name, array in result.predictions.items():
    np.testing.assert_array_equal(loaded.predictions[name], array)


def test_equal_results_give_equal_bytes(made, tmp_path):
  for name in ("one", "two"):
    storage.save(made, tmp_path / name)
  for file in sorted(path.name for path in (tmp_path / "one").iterdir()):
    assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_loaded_results_are_saved_to_equal_bytes(made, tmp_path):
  storage.save(made, tmp_path / "one")
  storage.save(storage.load(tmp_path / "one"), tmp_path / "two")
  for file in (storage.CONFIG_FILE, storage.ROWS_FILE, storage.HISTORY_FILE):
    assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_csv_holds_repr_of_floats(tmp_path):
  result = dataclasses.replace(small(), rows=(
      row("a", 0, 0.1 + 0.2), row("a", 1, NAN), row("a", 2, INF), row("a", 3, np.float32(0.5))))
  storage.save(result, tmp_path)
  lines = (tmp_path / "results.csv").read_text().splitlines()
  assert lines[0] == "experiment,arm,seed,split,metric,unit,value,step,status,cause"
  assert [line.split(",")[6] for line in lines[1:]] == ["0.30000000000000004", "nan", "inf", "0.5"]


def test_curves_and_predictions_may_be_missing(made, tmp_path):
  storage.save(made, tmp_path)
  (tmp_path / storage.HISTORY_FILE).unlink()
  (tmp_path / storage.PREDICTIONS_FILE).unlink()
  loaded = storage.load(tmp_path)
  assert (loaded.history, loaded.predictions) == ((), {})


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
  path = tmp_path / "file"
  files.write_file(path, b"old")

  def broken(source, target):
    raise OSError("disk full")

  monkeypatch.setattr(os, "replace", broken)
  with pytest.raises(OSError, match="disk full"):
    files.write_file(path, b"new")
  assert [each.name for each in tmp_path.iterdir()] == ["file"]
  assert path.read_bytes() == b"old"


@pytest.mark.parametrize(("file", "content", "message"), [
    ("results.csv", "arm,seed\n", "expected the header experiment,arm"),
    ("results.csv",
     "experiment,arm,seed,split,metric,unit,value,step,status,cause\ne,a,x,s,m,u,1,2,f,\n",
     "line 2: expected 10 cells"),
    ("history.csv", "arm,seed,step,split,metric,value\na,1\n", "line 2: expected 6 cells"),
    ("config.json", "{", "config.json: expected JSON"),
    ("config.json", "[]", "expected a JSON object, got list"),
    ("config.json", "[" * 100_000, "config.json: expected JSON"),
    ("config.json", '{"config": {"tables": [{"title": "t"}]}}', "title, baseline and arms"),
    ("config.json", '{"config": {"tables": [{"title": 1, "baseline": [], "arms": 2}]}}',
     "title, baseline and arms"),
    ("config.json", '{"config": {"tables": 3}}', r"config.tables like \[{}\], got 3"),
    ("config.json", '{"config": {"steps": "x"}}', 'config.steps like 1, got "x"'),
    ("config.json", '{"config": []}', r"expected config like {}, got \[\]"),
    ("config.json", '{"timing": true}', "expected timing like {}, got true"),
    ("config.json", '{"seeds": [true]}', r"expected seeds like \[0\], got \[true\]"),
    ("results.csv", "", "results.csv, line 1: expected the header .*, got nothing"),
    ("results.csv", b"\xe9", "results.csv: expected UTF-8 text"),
    ("history.csv", b"\xe9", "history.csv: expected UTF-8 text"),
    ("history.csv", "arm,seed,step,split,metric,value\n" + "x" * 200_000,
     "history.csv, line 2: expected 6 cells .*field larger"),
    ("predictions.npz", b"", "predictions.npz: expected the predictions"),
    ("predictions.npz", b"garbage" * 99, "predictions.npz: expected the predictions"),
    ("predictions.npz", b"PK\x03\x04" + b"x" * 99, "predictions.npz: expected the predictions")],
    ids=["header", "number", "short", "json", "list", "deep", "table", "types", "tables", "steps",
         "config", "timing", "seeds", "no header", "latin rows", "latin curves", "wide", "empty",
         "garbage", "zip"])
def test_damaged_files_are_named(made, tmp_path, file, content, message):
  storage.save(made, tmp_path)
  (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(ValueError, match=message) as error:
    storage.load(tmp_path)
  *_, place = error.traceback
  assert place.frame.f_globals["__name__"] == "dcnn.results.storage"  # so `main` tells it in a line


def test_a_folder_without_results(tmp_path):
  with pytest.raises(ValueError, match="with config.json, got .* has none"):
    storage.load(tmp_path)


# What a task reports.


def test_measures_read_back_equal(tmp_path):
  result = synthetic_results.advection(seeds=2)
  storage.save(result, tmp_path)
  assert storage.load(tmp_path).measures == result.measures == synthetic_results.ADVECTION
  assert storage.load(tmp_path).compared == ("solution_error", "residual")


def test_measures_of_an_old_directory_are_guessed_by_name(tmp_path):
  result = synthetic_results.result(seeds=1, chunks=1, frames=2)
  old = dataclasses.replace(result, config={})
  storage.save(old, tmp_path)
  loaded = storage.load(tmp_path)
  for guessed, metric in zip(
      loaded.measures.metrics, synthetic_results.MEASURES.metrics, strict=True):
    assert guessed[:4] == metric[:4] and guessed.of == metric.of
  assert loaded.measures.watched == "force_loss" and loaded.compared == result.compared
  assert [picture.title for picture in loaded.measures.pictures] == ["energy", "forces"]
  assert loaded.table("c=0.5") == result.table("c=0.5")


@pytest.mark.parametrize(("name", "kind", "compared", "of"), [
    ("x_loss", "error", True, ""), ("x_rmse", "error", False, ""), ("x_skill", "skill", False,
     "x_loss"), ("loss", "share", False, ""), ("_loss", "share", False, ""),
    ("efwt", "share", False, "")])
def test_metrics_are_guessed_by_the_ends_of_their_names(name, kind, compared, of):
  metric = measures.metric_of(name, "m")
  assert (metric.name, metric.unit, metric.kind, metric.compared, metric.of) == (
      name, "m", kind, compared, of)


def test_errors_of_a_misspelt_metric_name_the_right_one():
  with pytest.raises(ValueError, match="did you mean 'force_loss'"):
    small().errors("force_los")


def test_a_metric_without_a_unit_is_shown_without_one():
  table = synthetic_results.advection().table("tanh")
  assert "| solution_error    " in table and "residual (mm/s)" in table


def test_only_errors_may_not_be_negative(tmp_path):
  result = synthetic_results.advection(seeds=1)
  for metric, refused in (("within", False), ("solution_skill", False), ("largest", True)):
    storage.save(dataclasses.replace(result, rows=tuple(
        each._replace(value=-1.0) if each.metric == metric else each
        for each in result.rows)), tmp_path)
    if refused:
      with pytest.raises(ValueError, match="no negative error"):
        storage.load(tmp_path)
    else:
      storage.load(tmp_path)


def damaged(**changes):
  entry = synthetic_results.listed(synthetic_results.ADVECTION)
  return {**entry, **changes}


METRIC = synthetic_results.listed(synthetic_results.ADVECTION)["metrics"][0]
PICTURE = synthetic_results.listed(synthetic_results.ADVECTION)["pictures"][0]


@pytest.mark.parametrize(("listed", "part"), [
    ([], "measures like"), (damaged(metrics=3), "measures.metrics like"),
    (damaged(metrics=[{"name": "a"}]), "measures.metrics like"),
    (damaged(metrics=[METRIC | {"kind": "mean"}]), "measures.metrics like"),
    (damaged(metrics=[METRIC | {"compared": 1}]), "measures.metrics like"),
    (damaged(metrics=[METRIC | {"unit": ""}]), "measures.metrics like"),
    (damaged(metrics=[METRIC, METRIC]), "different names"),
    (damaged(watched="gone"), "watched one of these"),
    (damaged(metrics=[METRIC | {"of": "gone"}], watched=""), "a skill is of an error"),
    (damaged(pictures=[PICTURE | {"kind": "film"}]), "measures.pictures like"),
    (damaged(pictures=[PICTURE | {"arrays": {"true": "u_true"}}]), "measures.pictures like"),
    (damaged(pictures=[PICTURE | {"axes": ["x"]}]), "measures.pictures like"),
    (damaged(caption=None), "measures.caption like"), ({"watched": ""}, "measures like")],
    ids=["list", "number", "short", "kind", "flag", "unit", "twice", "watched", "of", "picture",
         "arrays", "axes", "caption", "no metrics"])
def test_measures_are_refused_by_their_part(tmp_path, listed, part):
  storage.save(dataclasses.replace(small(), config={"measures": listed}), tmp_path)
  with pytest.raises(ValueError, match=part):
    storage.load(tmp_path)


def test_measures_of_a_later_version_are_read(tmp_path):
  listed = damaged(metrics=[METRIC | {"colour": "red"}], watched="", colours=3)
  storage.save(dataclasses.replace(small(), config={"measures": listed}), tmp_path)
  assert storage.load(tmp_path).measures.metrics == synthetic_results.ADVECTION.metrics[:1]


@pytest.mark.parametrize(("changes", "message"), [
    ({"u_true": np.ones(5)}, "'u_true' to be a matrix of numbers"),
    ({"u_true": np.ones((30, 20))}, "to have the shape \\(20, 30\\)"),
    ({"x": np.ones((2, 2))}, "'x' to be a list of numbers"),
    ({"x": np.zeros(30)}, "each larger than the last"),
    ({"x": np.array([2, 1], np.uint8)}, "each larger than the last"),
    ({"t": np.full(20, NAN)}, "'t' to hold at least two coordinates"),
    ({"t": None}, "expected 't' beside the other arrays of 'solution u'"),
    ({"u_predicted": np.full((20, 30), "x")}, "'u_predicted' to be a matrix"),
    ({"arm": np.ones(3)}, "arm to be one text"), ({"unknown": np.full((2, 2), "x")}, ""),
    (dict.fromkeys(("u_true", "u_predicted", "x", "t")), "")],
    ids=["list", "transposed", "matrix", "equal", "falling", "nan", "missing", "text", "arm",
         "of no picture", "none"])
def test_arrays_are_checked_by_the_pictures(tmp_path, changes, message):
  result = synthetic_results.advection(seeds=1)
  arrays = {name: array for name, array in {**result.predictions, **changes}.items()
            if array is not None}
  storage.save(dataclasses.replace(result, predictions=arrays), tmp_path)
  if message:
    with pytest.raises(ValueError, match=message):
      storage.load(tmp_path)
  else:
    assert set(storage.load(tmp_path).predictions) == set(arrays)


@pytest.mark.parametrize("module", [records, storage], ids=["records", "storage"])
def test_examples_in_docstrings(module):
  outcome = doctest.testmod(module)
  assert outcome.attempted and not outcome.failed


def test_a_frame_holds_the_lines_of_results_csv(made, tmp_path):
  pandas = pytest.importorskip("pandas")
  storage.save(made, tmp_path)
  written = pandas.read_csv(tmp_path / "results.csv", keep_default_na=False)
  found = made.frame()
  assert list(found.columns) == list(written.columns)
  np.testing.assert_array_equal(found["value"], written["value"].astype(float))
  assert (found["arm"] == written["arm"]).all()


def test_a_plot_is_that_of_the_report(made):
  """Of the watched error by default; of another by its name."""
  shown = made.plot(), made.plot("energy_loss")
  for figure, metric in zip(shown, ("force_loss", "energy_loss"), strict=True):
    assert metric in " ".join(axes.get_xlabel() for axes in figure.axes)
    assert metric in figure._repr_svg_()  # what a notebook shows, without pyplot
  with pytest.raises(ValueError, match="unknown error 'forces': did you mean 'force_loss'"):
    made.plot("forces")
  with pytest.raises(ValueError, match="no test results yet"):
    dataclasses.replace(made, rows=()).plot()
