"""Reports: that they say what the statistics say, escape what users write, and need no network."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
import synthetic_results

from dcnn import stats
from dcnn.base.text import number_text
from dcnn.results import effects, figures, records, report, storage, summary
from dcnn.results.records import Point, Result, Row, Table

HOSTILE = synthetic_results.HOSTILE
UNITS = synthetic_results.UNITS


def made(seeds=10, factor=2.0, tables=True, config=None, **skill):
  """Arms a and b; b has `factor` times the error of a with every seed."""
  rows = []
  for arm, ratio in (("a", 1.0), ("b", factor)):
    for seed in range(seeds):
      values = {"energy_loss": 0.02 * ratio * 1.1**seed, "force_loss": 0.05 * ratio * 1.1**seed,
                "energy_skill": 0.9, "force_skill": 0.9} | skill
      rows += [Row("trial", arm, seed, "test", name, UNITS[name], value, 10, "finished")
               for name, value in values.items()]
  asked = (Table("Trial", "a", ("a", "b")),) if tables else ()
  measures = synthetic_results.listed(synthetic_results.MEASURES)
  return Result({"measures": measures, **(config or {})}, tuple(rows), (), asked, {})


def asking(*tables):
  return dataclasses.replace(made(), tables=tables)


def ending(result, arm, seeds, status, cause=""):
  return dataclasses.replace(result, rows=tuple(
      row._replace(status=status, cause=cause) if row.arm == arm and row.seed in seeds else row
      for row in result.rows))


def failing(result, arm, seeds):
  return ending(result, arm, seeds, "diverged@7", "energy+forces")


def remembering(result, arm, seed):
  """With three validations, the last of which is not finite."""
  return dataclasses.replace(result, history=tuple(
      Point(arm, seed, step, "valid", metric, value)
      for step, scale in ((3, 2.0), (6, 1.0), (9, np.nan))
      for metric, value in (("energy_loss", 0.03 * scale), ("force_loss", 0.05 * scale))))


def written(result, directory):
  """The texts of the two reports and the summary."""
  storage.save(result, directory)
  report.write(directory)
  page, text = ((directory / f"report.{kind}").read_text() for kind in ("html", "md"))
  return page, text, json.loads((directory / "summary.json").read_text())


@pytest.fixture(scope="module")
def main_job(tmp_path_factory):
  """Directory and result of a small run of the main job, with hostile names everywhere."""
  directory = tmp_path_factory.mktemp("main_job")
  result = synthetic_results.result(seeds=5, chunks=4, frames=20)
  config = json.loads(json.dumps(result.config))
  config["config"] |= {"question": f"Why {HOSTILE}? So {HOSTILE}.", "dataset": HOSTILE}
  config["environment"]["device"] = HOSTILE
  config["command"] = f"dcnn --workdir='{HOSTILE}'"
  tables = (*result.tables[:2], result.tables[2]._replace(title=HOSTILE))
  result = dataclasses.replace(result, config=config, tables=tables)
  return directory, result, *written(result, directory)


class Tags(html.parser.HTMLParser):
  """Collects tags, attributes and text of a page, and checks that tags are closed in order."""

  VOID = {"meta", "br", "wbr"}

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.attributes, self.text = [], set(), [], []
    self.scripts, self.titles = [], []

  def handle_starttag(self, tag, attrs):
    self.handle_startendtag(tag, attrs)
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.add(tag)
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    kinds = {"script": self.scripts, "title": self.titles}
    kinds.get(self.open[-1] if self.open else "", self.text).append(data)


def parsed(page):
  tags = Tags()
  tags.feed(page)
  tags.close()
  assert tags.open == []
  return tags


# What the reports say.


def test_a_verdict_is_a_sentence_in_both_reports(tmp_path):
  page, text, _ = written(made(), tmp_path)
  sentence = ("is worse than a on force_loss: 2.00 times the error "
              "(95 % interval 2.00 to 2.00, p = 0.002).")
  assert f"- **b** {sentence}" in text
  shown = "".join(parsed(page).text).replace("\N{NO-BREAK SPACE}", " ")
  assert f"b {sentence}" in shown


@pytest.mark.parametrize(("factor", "relation"), [
    (0.5, "is better than"), (2.0, "is worse than"), (1.01, "is equivalent (within 12 %) to")])
def test_relations(factor, relation, tmp_path):
  assert f"**b** {relation} a on energy_loss" in written(made(factor=factor), tmp_path)[1]


def test_errors_are_in_meV(tmp_path):
  _, text, _ = written(made(seeds=2), tmp_path)
  assert "energy_loss (meV)" in text and "force_loss (meV/Å)" in text
  assert "| a | 21.0 " in text


def test_summary_holds_the_statistics(main_job):
  _, result, _, _, summary = main_job
  for table, entry in zip(result.tables, summary["tables"], strict=True):
    assert (entry["title"], entry["baseline"]) == (table.title, table.baseline)
    for metric, contrasts in entry["contrasts"].items():
      errors = result.errors(metric)
      listed = {arm: errors[arm] for arm in records.with_baseline(table)}
      for each in stats.compare(listed, table.baseline):
        arm = summary["arms"][each.arm]
        assert (arm["n"], arm["failed"]) == (each.n, each.failed)
        assert arm["failure_rate"] == each.failure_rate._asdict()
        assert {name: arm["metrics"][metric][name]
                for name in ("centre", "low", "high")} == each.error._asdict()
        if each.contrast:
          assert contrasts[each.arm] == each.contrast._asdict()


def test_summary_names_failed_runs(main_job):
  summary = main_job[-1]
  assert summary["arms"]["c=1.0"]["failures"] == {
      "3": {"status": "diverged@900", "cause": "forces"}}
  assert summary["seeds"] == list(range(5))


def test_skill_is_one_minus_the_mean_ratio_to_the_constant_predictor():
  metrics = summary.arm_metrics(made(seeds=2, energy_skill=0.84, force_skill=-0.5))
  assert metrics["a"]["energy_skill"]["centre"] == pytest.approx(0.84)
  assert metrics["a"]["energy_skill"]["no_better_than_constant"] == 0
  assert metrics["b"]["force_skill"]["no_better_than_constant"] == 2


def test_interval_of_the_skill_holds_its_centre(main_job):
  skill = main_job[-1]["arms"]["c=0.5"]["metrics"]["energy_skill"]
  assert skill["low"] < skill["centre"] < skill["high"] < 1


@pytest.mark.parametrize(("result", "note"), [
    (made(seeds=3), "With 3 seeds no test can reach significance"),
    (made(seeds=1), "With 1 seed no test can reach significance"),
    (failing(made(), "b", (1, 2)), "2 runs of 20 became non-finite: b (2: seed 1 at step 7, "
     "energy+forces; seed 2 at step 7, energy+forces)."),
    (failing(made(), "b", range(9)), "seed 3 at step 7, energy+forces; and 5 more)."),
    (remembering(failing(made(), "b", (1,)), "b", 1), "became non-finite: b (1: seed 1 at step 7, "
     "energy+forces, last finite 30.0 meV and 50.0 meV/Å at step 6)."),
    (ending(made(), "b", (1, 2), "patience@5"), "2 runs ended early because validation no longer "
     "improved (patience): b (2)."),
    (ending(made(), "b", (1, 2), "interrupted@5"), "Interrupted: 2 runs unfinished, of b (2)."),
    (ending(made(), "a", (1, 2), "interrupted@5"), "Interrupted: 2 runs unfinished, of a (2)."),
    (made(force_skill=-0.1), "predictor of forces, 20 runs: a (10); b (10)."),
    (made(tables=False), "Against a: 1 worse."),
    (asking(Table("T", "a", ("b", "gone"))), "No results for: gone."),
    (asking(Table("T", "a", ("a",))), "In no table, but in summary.json: b."),
    (asking(Table("T", "gone", ("a",))), "No results for: gone.")],
    ids=["three", "one", "failed", "many-failed", "last-finite", "patience", "interrupted",
         "no-baseline-yet", "skill", "no-tables", "arm", "left", "baseline"])
def test_notes(result, note, tmp_path):
  page, text, _ = written(result, tmp_path)
  assert note.lower() in text.lower()
  parsed(page)


def test_curves_of_what_is_unfinished(tmp_path):
  """An interrupted sweep without one finished run still shows how far it came."""
  history = tuple(
      Point(arm, seed, step, "valid", metric, 0.1) for arm in ("a", "b") for seed in range(2)
      for step in (5, 10)[:seed + 1] for metric in ("energy_loss", "force_loss"))
  result = dataclasses.replace(made(seeds=2), history=history)
  for arm, status in (("a", "interrupted@10"), ("b", "interrupted@10")):
    result = ending(result, arm, range(2), status)
  page, text, summary = written(result, tmp_path)
  assert "learning_curves_1.svg" in text and "| arm |" not in text
  assert summary["arms"] == {} and summary["tables"][0]["contrasts"] == {}
  parsed(page)


def test_curve_of_a_run_out_of_patience_goes_on_at_its_last_error():
  points = [Point("a", seed, step, "valid", "force_loss", 0.1 * step)
            for seed in range(2) for step in (1, 2, 3)[:3 - seed]]
  result = dataclasses.replace(made(seeds=2), history=tuple(points))
  result = ending(result, "a", (1,), "patience@2")
  panel = figures.curve_panel(
      result, effects.validation_curves(result), Table("", "a", ("a",)), "force_loss")
  np.testing.assert_allclose(panel.curves[0].errors, [[100, 200, 300], [100, 200, 200]])


@pytest.mark.parametrize(("seeds", "relation"), [
    pytest.param(6, "is worse than", id="six-seeds"),
    pytest.param(5, "has too few seeds for a verdict against", id="five-seeds"),
])
def test_an_effect_in_every_seed_is_found_among_many_arms(tmp_path, seeds, relation):
  base = made(seeds=seeds)
  rows = base.rows + tuple(
      row._replace(arm=f"b{i}") for i in range(12) for row in base.rows if row.arm == "b")
  table = Table("Trial", "a", ("a", "b", *(f"b{i}" for i in range(12))))
  text = written(dataclasses.replace(base, rows=rows, tables=(table,)), tmp_path)[1]
  assert all(f"- **b{i}** {relation} a on force_loss" in text for i in range(12))


def test_an_arm_of_failed_runs_only(tmp_path):
  page, text, summary = written(failing(made(), "b", range(10)), tmp_path)
  assert "**b** is worse than a on force_loss: in no pair did both runs finish" in text
  assert "10 of 10 runs of b failed" in text
  assert summary["arms"]["b"]["metrics"]["force_loss"]["centre"] is None
  assert "nan" not in "".join(parsed(page).text).split()


def exact(result, arm, seeds):
  return dataclasses.replace(result, rows=tuple(
      row._replace(value=1.0 if row.unit == "1" else 0.0)
      if row.arm == arm and row.seed in seeds else row for row in result.rows))


@pytest.mark.parametrize(("result", "words"), [
    (exact(made(), "b", range(10)), ["**b** is better than a on force_loss: 0.00 times",
                                     "b (exact in 10 of 10 runs)"]),
    (exact(made(), "a", range(10)), ["**b** is worse than a on force_loss: an error and an exact 0",
                                     "a is exact in 10 of 10 runs"]),
    (exact(made(), "b", range(3)), ["exact in 3 of 10 runs"]),
    (exact(exact(made(), "b", range(10)), "a", range(10)),
     ["**b** is equivalent (within 12 %) to a", "1.00"]),
    (exact(exact(made(), "b", range(10)), "a", range(4)), ["exact in 4 of 10", "b (exact in 10"]),
    (exact(failing(made(), "b", range(5)), "b", range(5, 10)), ["5 of 10 runs of b failed"]),
    (exact(made(seeds=1), "b", range(1)), ["exact in 1 of 1 runs"]),
    (exact(exact(made(seeds=1), "b", range(1)), "a", range(1)), ["exact in 1 of 1 runs"]),
    (made(energy_skill=np.nan, force_skill=np.nan), ["predictor of forces is exact on the test"])],
    ids=["arm", "baseline", "some", "both", "both-some", "failed", "one-seed", "one-seed-both",
         "constant"])
@pytest.mark.filterwarnings("error")
def test_exact_runs(result, words, tmp_path):
  history = tuple(Point(row.arm, row.seed, step, "valid", row.metric, row.value)
                  for row in result.rows for step in (5, 10) if row.metric in result.compared)
  page, text, summary = written(dataclasses.replace(result, history=history), tmp_path)
  assert all(word in text for word in words)
  for told in (text, "".join(parsed(page).text)):
    assert not {"nan", "inf"} & set(re.split(r"[^a-z]+", told.split("Definitions")[0]))
  figures = {path.stem for path in (tmp_path / "figures").iterdir()}
  assert figures - {"effects"} == {"errors", "learning_curves_1"}  # effects, where there are ratios
  json.loads((tmp_path / "summary.json").read_text(), parse_constant=lambda word: 1 / 0)
  for arm, entry in summary["arms"].items():
    errors = result.errors("force_loss")[arm]
    assert entry["metrics"]["force_loss"].get("exact", 0) == np.sum(errors == 0)


@pytest.mark.parametrize("broken", ["strip_plot", "svg"])
def test_a_figure_that_cannot_be_drawn_is_left_out_and_named(broken, tmp_path, monkeypatch):
  def fail(*arguments):
    raise RuntimeError("no latex\n<b>here</b>")

  monkeypatch.setattr(figures.plots, broken, fail)
  with pytest.warns(UserWarning, match="Without figures .errors.*RuntimeError: no latex"):
    page, text, summary = written(made(), tmp_path)
  assert "Without figures (errors)" in text and "&lt;b&gt;" in text
  assert "Without figures (errors)" in "".join(parsed(page).text)
  assert "errors.svg" not in text and summary["arms"]


def test_a_report_without_matplotlib(tmp_path, monkeypatch):
  def fail():
    raise UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "matplotlibrc")

  monkeypatch.setattr(report, "load_figures", fail)
  with pytest.warns(UserWarning, match="Without figures .all.*matplotlibrc"):
    _, text, _ = written(made(), tmp_path)
  assert "is worse than a" in text


def test_tuned_learning_rates(tmp_path):
  tuning = {"learning_rates": [1e-3, 3e-3], "seeds": [100], "chosen": {"a": 1e-3, "b": 3e-3},
            "scores": {"a": [1.0, float("inf")], "b": [2.0, 1.5]}}
  page, text, _ = written(made(config={"tuning": tuning}), tmp_path)
  assert "| arm | 0.001 | 0.003 |\n|:--|--:|--:|\n| a | **1.00** | inf |\n| b |" in text
  assert "<b>1.50</b>" in page


def test_where_and_how_it_ran(main_job):
  text = main_job[3]
  for part in ("900 train, 100 valid, 1,000 test", "| compile time | 14.2 s |",
               "| train time | 3 min 52 s |", "python 3.11.9, jax 0.10.1", "| batch size | 10 |"):
    assert part in text


def test_nothing_is_invented(tmp_path):
  page, text, _ = written(made(), tmp_path)
  where = text.split("## Where and how it ran")[1].split("## Definitions")[0]
  assert re.findall(r"^\| ([a-z].*?) \|", where, re.MULTILINE) == ["seeds"]
  assert not list((tmp_path / "figures").glob("learning*"))
  assert "Learning curves" not in page and "Prediction against" not in page


def test_the_first_screen_answers_before_anything_else(main_job):
  page, text = main_job[2:4]
  for told in (text, page):
    places = [told.index(mark) for mark in ("Answer", "errors", "Test errors<" if told is page
                                            else "## Test errors", "The verdict on every arm")]
    assert places == sorted(places)
  sentences = [line for line in text.split("## Test errors")[0].splitlines()
               if line.startswith("- *")]
  assert len(sentences) == 6  # one for each table and compared metric
  assert "**is" not in text.split("## Test errors")[0]


def test_words_of_arms_are_defined_and_the_baseline_is_told_in_full(tmp_path):
  config = {"glossary": [[HOSTILE, f"means {HOSTILE}"], ["c", "The factor."]],
            "arm_settings": {"a": {"steps": "5", "init": HOSTILE}}}
  page, text, _ = written(made(config=config), tmp_path)
  shown = " ".join("".join(parsed(page).text).split()).replace("\N{NO-BREAK SPACE}", " ")
  assert f"means {HOSTILE}" in shown and "The factor." in shown
  assert f"Baseline a: steps 5, init {HOSTILE}" in shown
  assert "<script" not in text.replace("    dcnn", "") and "The factor." in text


@pytest.mark.parametrize(("result", "there"), [
    (made(), False), (failing(made(), "b", (1,)), True)], ids=["none failed", "one failed"])
def test_a_column_of_zeros_is_left_out(result, there, tmp_path):
  page, text, _ = written(result, tmp_path)
  assert ("| failed |" in text) == there == ("failed / runs" in page)
  assert ("none of which failed" in text) != there


@pytest.mark.parametrize(("share", "there"), [(0.0, False), (0.5, True)])
def test_a_share_of_zero_everywhere_is_left_out(share, there, tmp_path):
  page, text, _ = written(made(efwt=share), tmp_path)
  assert ("EFwT" in text) == there == ("EFwT" in page)


@pytest.mark.parametrize(("looks", "planned", "words"), [
    ([], 1, "This is look 1 of 1 planned: tests have the level 0.045."),
    ([{"seeds": 6}, {"seeds": 10}], 1,
     "This is look 2, with 1 planned: tests have the level 0.0025."),
    ([{"seeds": 8}, {"seeds": 10}], 4, "This is look 2 of 4 planned: tests have the level 0.013.")],
    ids=["first", "not planned", "planned"])
def test_the_report_says_which_look_it_is(looks, planned, words, tmp_path):
  config = {"looks": looks, "config": {"looks": planned}}
  assert words in written(made(config=config), tmp_path)[1]


def test_how_the_data_were_split_is_told(tmp_path):
  split = {"method": "blocks", "train": 9, "valid": 1, "test": None, "gap": 20, "per_seed": False}
  text = written(made(config={"config": {"split": split}}), tmp_path)[1]
  assert "| 9 train, 1 valid, the rest test; method blocks, gap 20, per seed no |" in text


def test_a_factorial_has_its_map_and_its_sentence(tmp_path):
  base = made(seeds=6)
  rows = tuple(row._replace(arm=row.arm + column, value=row.value * factor)
               for row in base.rows for column, factor in (("1", 1.0), ("2", 3.0)))
  table = Table("Crossed", "a1", ("a1", "a2", "b1", "b2"),
                {"labels": ("x", "x", "y", "y"), "c": ("1", "2", "1", "2")})
  rows = tuple(row._replace(value=0.9) if row.unit == "1" else row for row in rows)
  page, text, _ = written(dataclasses.replace(base, rows=rows, tables=(table,)), tmp_path)
  assert "crossed: labels: from 0.71" in text and "c: from 0.58" in text
  assert "The effect of labels is the same within 12 % at all levels of c." in text
  assert (tmp_path / "figures/factorial_1.svg").exists() and "factorial_1.svg" in text
  (found,) = json.loads((tmp_path / "summary.json").read_text())["tables"]
  for metric, record in found["factorial"].items():
    assert record["sentence"] in text.replace("\\", ""), metric
    assert record["columns"]["2"]["centre"] == pytest.approx(3**0.5)
    assert record["interaction"]["x"]["1"]["centre"] == pytest.approx(1)
  parsed(page)


# Files and escapes.


def test_figures(main_job):
  directory, _, page, text, _ = main_job
  names = {path.stem for path in (directory / "figures").iterdir()}
  assert names == {
      "errors", "effects", "learning_curves_1", "learning_curves_2", "learning_curves_3", "parity"}
  # Two metrics in each, and three tables in the effects; parity has two panels.
  assert page.count("<svg") == 2 * len(names) + 4
  assert set(re.findall(r"\(figures/(\w+)\.svg\)", text)) == names


def test_the_page_stands_alone(main_job):
  page = main_job[2]
  tags = parsed(page)
  assert tags.tags.isdisjoint({"link", "iframe", "img", "base", "form", "object", "embed"})
  links = [value for name, value in tags.attributes if name in ("href", "src", "xlink:href")]
  assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
  assert "@import" not in page and not re.search(r"url\((?!#)", page)
  assert "prefers-color-scheme: dark" in page


def test_the_policy_of_the_page_allows_one_script_by_its_hash_and_nothing_else(main_job):
  page = main_job[2]
  tags = parsed(page)
  (script,) = tags.scripts
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  meta = re.search('<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
  assert meta and meta[1] == (
      f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
      "img-src data:; base-uri 'none'; form-action 'none'")
  assert meta.start() < page.index("<style") and page.count("<script") == 1
  assert not [name for name, _ in tags.attributes if name.startswith("on")]
  assert script == SCRIPT.read_text()


def test_every_run_is_told_under_the_pointer(main_job):
  """Once in each table that has its arm, whatever the arm is called; failed runs beside a row."""
  directory, result, page = main_job[:3]
  titles = parsed(page).titles
  for row in result.rows:
    if row.split == "test" and row.metric in result.compared:
      value = f"{number_text(1000 * row.value)} {'meV' if row.unit == 'eV' else 'meV/Å'}"
      told = value if row.status == "finished" else "diverged@900, forces"
      tables = sum(row.arm in records.with_baseline(table) for table in result.tables)
      metrics = 1 if row.status == "finished" else 2  # of which nothing tells them apart
      assert titles.count(f"{row.arm}, seed {row.seed}: {told}") == tables * metrics
  for path in (directory / "figures").iterdir():
    assert "<title" not in path.read_text() and "_titled_" not in path.read_text()


def test_a_run_that_ended_early_is_told_with_its_status():
  titles = figures.run_titles(ending(made(), "b", (1,), "patience@5"), "energy_loss")
  assert titles["b"][:2] == ["b, seed 0: 40.0 meV", "b, seed 1: 44.0 meV, patience@5"]


def test_curves_and_effects_are_told_under_the_pointer(main_job):
  titles = parsed(main_job[2]).titles
  for arm in (HOSTILE, "min_max"):
    assert titles.count(arm) == 4  # two metrics, in the curves and in the effects
  assert titles.count("c=1.0 (1 of 5 failed)") == 2


def test_what_figures_share_by_an_identifier_is_the_same(main_job):
  found = {}
  for identifier, shape in re.findall(r'<(?:path|clipPath) id="(\w+)"(.*?)>', main_job[2], re.S):
    assert found.setdefault(identifier, shape) == shape
  assert found


SCRIPT = pathlib.Path(report.__file__).parent / "templates" / "report.js"
SORTING = """
const document = { querySelectorAll: () => [] };
%s
const kinds = { arm: ".name", verdict: ".word", number: "" };
const rows = (kind, texts) => texts.map((text) => ({ cells: [{
  dataset: text === "" ? { sort: "1" } : {}, textContent: text,
  matches: (selector) => kind !== "number" && selector.includes(kinds[kind]) }] }));
const [kind, direction, texts] = JSON.parse(process.argv[1]);
console.log(JSON.stringify(sorted(rows(kind, texts), 0, direction).map(
  (row) => row.cells[0].textContent)));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.parametrize(("kind", "direction", "texts", "expected"), [
    ("number", 1, ["10.0 [9, 11]", "inf", "2.10e+06", "–", "(1.5)", "-0.50", "9.5"],
     ["-0.50", "(1.5)", "9.5", "10.0 [9, 11]", "2.10e+06", "inf", "–"]),
    ("number", -1, ["inf", "0.50", "", "1.20"], ["1.20", "", "0.50", "inf"]),
    ("number", 0, ["2", "1"], ["2", "1"]), ("number", 1, ["1 b", "1 a", "0"], ["0", "1 b", "1 a"]),
    ("arm", 1, ["c=0.5", "base", "10"], ["10", "base", "c=0.5"]),
    ("verdict", -1, ["better", "worse"], ["worse", "better"])],
    ids=["numbers", "down, baseline 1", "as it was", "ties", "arms", "verdicts"])
def test_rows_are_sorted(kind, direction, texts, expected):
  told = subprocess.run(
      ["node", "-e", SORTING % SCRIPT.read_text(), json.dumps([kind, direction, texts])],
      capture_output=True, text=True, timeout=60)
  assert told.returncode == 0, told.stderr
  assert json.loads(told.stdout) == expected


def test_a_table_says_what_its_rows_are_sorted_and_filtered_by(tmp_path):
  """The script finds tables of arms, columns of words, and the baseline's ratio of 1."""
  page = written(made(), tmp_path)[0]
  (table,) = re.findall(r'<table class="arms">.*?</table>', page, re.S)
  heads = re.findall(r"<tr>(?:(?!<tr).)*</tr>\s*</thead>", table, re.S)[0].count("<th")
  rows = re.findall(r"<tr[^>]*><th.*?</tr>", table.split("<tbody>")[1], re.S)
  assert [len(re.findall("<t[hd]", row)) for row in rows] == [heads, heads]
  assert 'class="baseline"' in rows[0] and rows[0].count('data-sort="1"') == 2
  assert "data-sort" not in rows[1] and rows[1].count('<td class="word">') == 2


def test_what_users_write_shows_as_text(main_job):
  _, _, page, text, _ = main_job
  shown = " ".join("".join(parsed(page).text).split())
  assert f"Why {HOSTILE}?" in shown and f"So {HOSTILE}." in shown
  assert f"dcnn --workdir='{HOSTILE}'" in shown
  assert f"{HOSTILE} is " in shown
  outside_code = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
  assert "<script" not in outside_code and "$\\frac" not in outside_code


def test_markdown_tables_have_equal_rows(main_job):
  lines = [line for line in main_job[3].splitlines() if line.startswith("|")]
  for line, following in zip(lines, lines[1:], strict=False):
    if following.startswith("|:--"):
      cells = following.count("|")
    count = len(re.findall(r"(?<!\\)\|", line))
    assert count == cells
  assert len(lines) > 24


def test_the_same_files_give_the_same_report(tmp_path):
  result = synthetic_results.result(seeds=2, chunks=2, frames=5)
  written(dataclasses.replace(result, tables=result.tables[2:]), tmp_path)
  before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
  report.write(tmp_path)
  assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_errors_of_all_metrics_agree_with_the_rows(main_job):
  _, result, _, _, summary = main_job
  values = result.errors("efwt")["min_max"]
  entry = summary["arms"]["min_max"]["metrics"]["efwt"]
  assert entry["statistic"] == "median and range"
  assert entry["centre"] == pytest.approx(np.median(values))


# Bad input.


def test_a_folder_without_results(tmp_path):
  with pytest.raises(ValueError, match="expected the work directory of a run"):
    report.write(tmp_path)


def test_an_unfinished_sweep(tmp_path):
  storage.save(dataclasses.replace(made(), rows=made().rows[:-4]), tmp_path)
  with pytest.raises(ValueError, match="arm 'b', seed 9"):
    report.write(tmp_path)


# Any task.


@pytest.fixture(scope="module")
def other_task(tmp_path_factory):
  """Reports of a made-up task that has a field, a residual, and metrics without a unit."""
  directory = tmp_path_factory.mktemp("advection")
  return directory, *written(synthetic_results.advection(), directory)


def test_every_metric_of_a_task_has_its_place(other_task):
  _, page, text, summary = other_task
  assert ("| arm | solution_error | ratio | p | verdict | residual (mm/s) "
          "| ratio | p | verdict | skill, solution | within 1 % |") in text
  assert "**irelu** is better than tanh on residual: 0.47 times the error" in text
  shown = " ".join("".join(parsed(page).text).split())
  for metric in synthetic_results.ADVECTION.metrics:
    assert metric.meaning in shown
  assert "1 − error / error of the constant predictor. Shown" in shown
  statistics = {name: entry["statistic"] for name, entry in
                summary["arms"]["tanh"]["metrics"].items()}
  assert statistics == {
      "solution_error": "geometric mean", "residual": "geometric mean",
      "largest": "geometric mean", "solution_skill": "1 - geometric mean of 1 - skill",
      "within": "median and range"}
  assert set(summary["tables"][0]["contrasts"]) == {"solution_error", "residual"}


def test_a_field_has_its_figure_and_its_caption(other_task):
  directory, page, text, _ = other_task
  assert {path.stem for path in (directory / "figures").iterdir()} == {
      "errors", "effects", "learning_curves_1", "predictions"}
  for told in (text.replace("\\", ""), " ".join("".join(parsed(page).text).split())):
    assert "Test split of one run: tanh, seed 1." in told
    assert "The equation is u_t + u_x = 0." in told
  figure = (directory / "figures" / "predictions.svg").read_text()
  assert all(word in figure for word in (">solution u<", ">x<", ">t (s)<", ">reference<"))


def test_pages_of_other_tasks_know_no_force_field(other_task):
  _, page, text, _ = other_task
  for told in (text, page):
    assert not re.search(r"\b(energ(y|ies)|forces?|atoms?|m?eV)\b", told, re.IGNORECASE)


def test_a_name_of_a_metric_can_be_anything(tmp_path):
  measures = synthetic_results.ADVECTION
  hostile = [metric._replace(label=HOSTILE, subject=HOSTILE, meaning=f"{HOSTILE}\n\n{HOSTILE}")
             for metric in measures.metrics]
  measures = measures._replace(metrics=tuple(hostile), caption=HOSTILE, pictures=(
      measures.pictures[0]._replace(title=HOSTILE, axes=(HOSTILE, HOSTILE)),))
  result = synthetic_results.advection(seeds=2)
  result = dataclasses.replace(
      result, config={"measures": synthetic_results.listed(measures)})
  page, text, _ = written(result, tmp_path)
  parsed(page)
  assert page.count("<script") == 1 and "<script" not in text
  assert f"{HOSTILE} {HOSTILE}" in " ".join("".join(parsed(page).text).split())


# Directories of dcnn 0.2.0, whose config.json lists no measures.


def without_measures(result):
  return dataclasses.replace(
      result, config={key: value for key, value in result.config.items() if key != "measures"})


def test_an_old_directory_has_the_same_summary_and_figures(tmp_path):
  new = synthetic_results.result(seeds=2, chunks=2, frames=5)
  new = dataclasses.replace(new, tables=new.tables[2:])
  for name, result in (("new", new), ("old", without_measures(new))):
    _, text, _ = written(result, tmp_path / name)
    assert "skill, energy" in text
  old, new = tmp_path / "old", tmp_path / "new"
  assert (old / "summary.json").read_bytes() == (new / "summary.json").read_bytes()
  for figure in ("errors", "learning_curves_1"):
    assert (old / f"figures/{figure}.svg").read_bytes() == (
        new / f"figures/{figure}.svg").read_bytes()
  assert ">forces<" in (old / "figures/parity.svg").read_text()


@pytest.mark.parametrize("change", [lambda result: result, without_measures], ids=["new", "old"])
def test_the_error_of_the_constant_predictor_is_what_the_skill_refers_to(change):
  result = change(synthetic_results.result(seeds=3, chunks=1, frames=2))
  for metric, error in synthetic_results.CONSTANT.items():
    assert summary.constant_error(result, metric) == pytest.approx(error)
  assert np.isnan(summary.constant_error(result, "force_rmse"))
