"""`dcnn compare`: sweeps run apart and joined are the sweep that ran together, or are refused."""

import dataclasses
import functools
import json
import re
import shutil
from xml.etree import ElementTree

import commands
import pytest
from commands import TINY, assert_mistake, call

from dcnn import configs, stats
from dcnn.jobs import compare, pairing
from dcnn.results import joining, report, storage
from dcnn.results.records import ALL_ARMS, Point, Result, Row, Table

ARMS = '({"activation.c": 0.5}, {"activation.c": 1.0}, {"labels": "min_max"}, {"labels": "robust"})'
TABLES = """({"title": "C", "baseline": "c=0.5", "arms": ("c=0.5", "c=1.0")},
                   {"title": "Rest", "baseline": "c=0.5", "arms": ("min_max", "robust")})"""
SEEDS = 8


def experiment(arms=ARMS, tables="()"):
  """The tiny experiment with these arms and tables, as source text."""
  return TINY.replace("  return config", f"""  config.arms = {arms}
  config.tables = {tables}
  config.seeds = {SEEDS}
  return config""")


HALVES = {
    "whole": experiment(tables=TABLES),
    "a": experiment('({"activation.c": 0.5}, {"activation.c": 1.0})',
                    '({"title": "C", "baseline": "c=0.5", "arms": ("c=0.5", "c=1.0")},)'),
    "b": experiment('({"activation.c": 0.5}, {"labels": "min_max"}, {"labels": "robust"})',
                    '({"title": "Rest", "baseline": "c=0.5", "arms": ("min_max", "robust")},)')}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """An ablation that ran together, and its two halves, run apart, all by the command."""
  folder = tmp_path_factory.mktemp("trained")
  capture = type("Capture", (), {"readouterr": lambda self: ("", "")})()
  with pytest.MonkeyPatch.context() as patch:
    for name, text in HALVES.items():
      (folder / f"{name}.py").write_text(text)
      assert call(patch, capture, f"--config={folder / name}.py",
                  f"--workdir={folder / name}")[0] == 0
  return folder


@pytest.fixture
def folder(trained, tmp_path):
  """A copy to change."""
  return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture
def run(monkeypatch, capsys):
  """`dcnn` in this process: status, output, errors."""
  return functools.partial(commands.call, monkeypatch, capsys)


def change(directory, key, value):
  """Changes config.json: dotted keys; None removes."""
  path = directory / storage.CONFIG_FILE
  content = json.loads(path.read_text())
  *parents, last = key.split(".")
  place = functools.reduce(lambda record, name: record[name], parents, content)
  if value is None:
    del place[last]
  else:
    place[last] = value
  path.write_text(json.dumps(content))


def tables(page):
  """A report in Markdown without where, when and how it ran."""
  return re.sub(r"## Where and how it ran.*?(?=## Definitions)", "", page, flags=re.DOTALL).replace(
      re.search(r"(?m)^.* · .*$", page)[0], "")


# The law.


def test_two_halves_joined_are_the_whole(run, folder):
  """Byte for byte: the statistics, the numbers, the curves, and the report but for its times."""
  status, output, errors = run("compare", folder / "a", folder / "b", f"--out={folder / 'out'}")
  assert (status, errors) == (0, "") and "4 arms, 8 seeds each" in output
  whole, out = folder / "whole", folder / "out"
  for name in ("summary.json", "results.csv", "history.csv"):
    assert (out / name).read_bytes() == (whole / name).read_bytes(), name
  assert tables((out / "report.md").read_text()) == tables((whole / "report.md").read_text())
  assert storage.load(whole).table() in output
  held, made = (json.loads((each / storage.CONFIG_FILE).read_text()) for each in (whole, out))
  for key in held.keys() - {"environment", "timing", "command"}:
    assert made[key] == held[key], key
  assert len(made["joined"]) == 2 and made["timing"]["runs"] == 4 * SEEDS
  one, other = (storage.load(each).predictions for each in (whole, out))
  assert {name: array.tolist() for name, array in one.items()} == {
      name: array.tolist() for name, array in other.items()}


@pytest.mark.nightly
def test_it_is_written_again_and_read_again(run, folder):
  flags = (folder / "a", folder / "b", f"--out={folder / 'out'}")
  assert run("compare", *flags)[0] == 0
  first = (folder / "out" / "summary.json").read_bytes()
  assert run("compare", *flags)[0] == 0
  assert (folder / "out" / "summary.json").read_bytes() == first
  assert run("report", folder / "out")[0] == 0
  status, output, _ = run("compare", folder / "out", folder / "a")  # as a directory to compare
  assert status == 0 and storage.load(folder / "whole").table() in output


def test_all_against_an_arm(run, folder):
  status, output, _ = run("compare", folder / "a", folder / "b", "--baseline=robust")
  assert status == 0 and storage.load(folder / "whole").table("robust") in output
  status, _, errors = run("compare", folder / "a", folder / "b", "--baseline=robst")
  assert_mistake(
      status, errors, "--baseline=robst: no such arm", "did you mean 'robust'?", "min_max")


# Results made up: what joining is, without training.


def made(arms, seeds=range(6), experiment="trial", tables=(), **config):
  """A result whose errors follow from arm and seed."""
  rows = tuple(Row(experiment, arm, seed, "test", "width_loss", "mm",
                   (1 + len(arm)) * (1 + 0.01 * seed), 9, "finished") for arm in arms
               for seed in seeds)
  points = tuple(Point(arm, seed, 9, "valid", "width_loss", 1.0) for arm in arms for seed in seeds)
  record = {"config": {"arms": [{"x": arm} for arm in arms], "seeds": list(seeds),
                       "experiment": experiment}, "seeds": list(seeds),
            "environment": {}, "timing": {"train_seconds": 2.0}, **config}
  return Result(record, rows, points, tables, {})


def test_arms_and_seeds_stand_in_the_order_given():
  whole = made(("a", "bb", "ccc"))
  joined = joining.join({"1": made(("a", "bb")), "2": made(("a", "ccc"))})
  assert (joined.rows, joined.history) == (whole.rows, whole.history)
  assert joined.tables == (Table(ALL_ARMS, "a", ("a", "bb", "ccc")),)
  assert joined.config["config"]["arms"] == whole.config["config"]["arms"]
  assert joined.config["timing"] == {"train_seconds": 4.0, "runs": 18}


def test_seeds_run_apart_are_joined_and_are_further_looks():
  halves = {"1": made(("a", "bb"), range(6)), "2": made(("a", "bb"), range(6, 12))}
  joined, whole = joining.join(halves), made(("a", "bb"), range(12))
  assert joined.rows == whole.rows and joined.table("a") == dataclasses.replace(
      whole, config={**whole.config, "looks": joined.config["looks"]}).table("a")
  assert joined.config["seeds"] == list(range(12))
  assert [look["seeds"] for look in joined.config["looks"]] == [6, 6, 12]
  assert joined.looks == (2, 1)  # six seeds could find nothing at the second level


@pytest.mark.parametrize(("looks", "look"), [
    (([6], [6]), 1), (([6, 8], [8]), 2), (([], [6]), 1)], ids=["one", "two", "old"])
def test_arms_run_apart_have_had_the_looks_of_the_one_looked_at_most(looks, look):
  one, other = (made((arm,), looks=[{"seeds": n} for n in had])
                for arm, had in zip(("a", "bb"), looks, strict=True))
  assert joining.join({"1": one, "2": other}).looks == (look, 1)


@pytest.mark.parametrize(("names", "name"), [
    (("x", "x"), "x"), (("x:a", "x:b"), "x"), (("x", "x:b"), "x"), (("x", "y"), "x + y")])
def test_experiments_are_named_by_what_they_have_in_common(names, name):
  parts = {str(i): made(("a" * (i + 1),), experiment=each) for i, each in enumerate(names)}
  joined = joining.join(parts)
  assert {row.experiment for row in joined.rows} == {name}
  assert joined.config["config"]["experiment"] == name


def test_tables_of_one_title_and_baseline_are_one():
  def asked(*arms, **factors):
    return (Table("T", "a", arms, factors),)

  one = made(("a", "bb"), tables=asked("a", "bb", f=("1", "1"), g=("1", "2")))
  other = made(("ccc", "dddd"), tables=(*asked("ccc", "dddd", f=("2", "2"), g=("1", "2")),
                                        Table("U", "ccc", ("dddd",))))
  joined = joining.join({"1": one, "2": other})
  assert joined.tables == (
      *asked("a", "bb", "ccc", "dddd", f=("1", "1", "2", "2"), g=("1", "2", "1", "2")),
      Table("U", "ccc", ("dddd",)))
  third = made(("eeeee",), tables=asked("eeeee", f=("3",), g=("1",)))
  assert joining.join({"1": one, "3": third}).tables == asked("a", "bb", "eeeee")


def test_a_run_that_is_not_the_same_is_refused():
  one, other = made(("a", "bb")), made(("a", "ccc"))
  rows = tuple(row._replace(value=7.0) if (row.arm, row.seed) == ("a", 3) else row
               for row in other.rows)
  with pytest.raises(ValueError, match="Y and X both hold the run of 'a' with seed 3.*= 7.0 mm"):
    joining.join({"X": one, "Y": dataclasses.replace(other, rows=rows)})
  nan = [dataclasses.replace(each, rows=tuple(
      row._replace(value=float("nan"), status="diverged@3", cause="loss") for row in each.rows))
      for each in (one, other)]
  assert joining.join(dict(zip("XY", nan, strict=True))).arms == ("a", "bb", "ccc")


def test_other_seeds_are_refused():
  with pytest.raises(ValueError, match="seeds differ: arm 'a' of X has no seed 5, which Y has"):
    joining.join({"X": made(("a",), range(5)), "Y": made(("bb",), range(6))})


# What may not be paired.


@pytest.mark.parametrize(("key", "value", "words"), [
    ("dataset.checksum", "ab" * 32, ["the data are", "abababababab", "Train one of them again"]),
    ("environment.versions.jax", "0.1", ["jax is 0.1 and", "which changes numbers"]),
    ("environment.versions.numpy", None, ["numpy is not set and"]),
    ("environment.platform", "gpu", ["platform is gpu and cpu"]),
    ("environment.float64", True, ["float64 is True and False"]),
    ("environment.variables", {"XLA_FLAGS": "--a=1"}, ["XLA_FLAGS is --a=1 and not set"]),
    ("config.split.method", "blocks", ["config.split.method (the split) is blocks and random"]),
    ("config.split.seed", 3, ["config.split.seed (the split) is 3 and 0"]),
    ("config.steps", 6, ["config.steps is 6 and 4", "--by=steps"]),
    ("config.labels", "robust", ["config.labels is robust and power_of_ten"]),
    ("config.looks", 3, ["3 and 1 looks were planned"]),
    ("config.task", "advection", ["the tasks are advection and forcefield"]),
    ("timing", None, ["holds a sweep that has not ended", "give the command", "again"]),
    ("dataset", None, ["no 'dataset' in it"]),
    ("looks", [{"seeds": 0}], ["looks like"]),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_paired(run, folder, key, value, words):
  """In a line, with the directory, the reason and the way on; nothing is written."""
  change(folder / "b", key, value)
  status, output, errors = run("compare", folder / "a", folder / "b", f"--out={folder / 'out'}")
  assert_mistake(status, errors, str(folder / "b"), *words)
  assert not output and not (folder / "out").exists()


def test_an_arm_of_the_same_name_that_is_another(run, folder):
  arms = [{"activation.c": 0.5}, {"labels": "min_max"}, {"model.normaliser": "robust"}]
  change(folder / "b", "config.arms", arms)
  assert [configs.arm_name(arm) for arm in arms] == ["c=0.5", "min_max", "robust"]
  status, _, errors = run("compare", folder / "b", folder / "whole")
  assert_mistake(status, errors, "the arm 'robust' is another: its", "two different names")


def test_what_all_arms_set_need_not_agree(folder):
  """A base value that no arm keeps decides nothing."""
  sources = [pairing.Source(name, made(("a",), dataset={"name": "d", "checksum": "0"}), {
      "a": {"labels": "robust"}}) for name in "XY"]
  for source, base in zip(sources, ("identity", "robust"), strict=True):
    source.result.config["config"]["labels"] = base
  pairing.require_pairs(sources)
  kept = sources[1]._replace(arms={"a": {"labels": "robust"}, "b": {}})
  with pytest.raises(ValueError, match="config.labels is robust and identity"):
    pairing.require_pairs([sources[0], kept])


@pytest.mark.parametrize(("make", "words"), [
    (lambda path: None, "no such directory"),
    (lambda path: path.mkdir(), "holds no results"),
    (lambda path: path.write_text("mine"), "no such directory"),
    (lambda path: (path.mkdir(), (path / "config.json").write_text("[" * 9)), "expected JSON"),
    (lambda path: (path.mkdir(), (path / "config.json").write_text("{}")), "no 'config' in it"),
    (lambda path: (path.mkdir(), (path / "config.json").mkdir()), "holds no results"),
], ids=["missing", "empty", "file", "broken", "foreign", "folder"])
@pytest.mark.parametrize("command", ["compare", "plan"])
def test_directories_without_results(run, folder, command, make, words):
  make(folder / "x")
  arguments = (folder / "a",) if command == "compare" else ()
  status, _, errors = run(command, *arguments, folder / "x")
  assert_mistake(status, errors, str(folder / "x"), words)


def test_an_arm_without_lines(run, folder):
  path = folder / "b" / storage.ROWS_FILE
  path.write_text("".join(line for line in path.read_text().splitlines(True)
                          if ",robust," not in line))
  assert_mistake(*run("compare", folder / "a", folder / "b")[::2], "the arm 'robust'", "changed")


@pytest.mark.parametrize("again", ["a", "b/../a", "link"])
def test_the_same_directory_twice(run, folder, again):
  (folder / "link").symlink_to("a")
  status, _, errors = run("compare", folder / "a", folder / again)
  assert_mistake(status, errors, "are the same directory: give it once")


@pytest.mark.parametrize(("argv", "words"), [
    ((), ["expected directories"]), (("--baselin=x", "d"), ["did you mean '--baseline'?"]),
    (("--out=", "d"), ["--out is empty"]), (("--by", "d"), ["expected directories"])],
    ids=["none", "typo", "empty", "swallowed"])
def test_mistakes_in_the_command(run, argv, words):
  assert_mistake(*run("compare", *argv)[::2], *words)


def test_where_it_may_not_write(run, folder):
  (folder / "mine").mkdir()
  (folder / "mine" / "notes.txt").write_text("mine")
  (folder / "file").write_text("mine")
  for out, words in (("a", "one of the directories"), ("mine", "has not written"),
                     ("whole", "has not written"), ("file", "a file of this name")):
    before = sorted(folder.rglob("*"))
    status, _, errors = run("compare", folder / "a", folder / "b", f"--out={folder / out}")
    assert_mistake(status, errors, str(folder / out), words)
    assert sorted(folder.rglob("*")) == before


def test_help_has_an_example(run):
  for command in ("compare", "plan"):
    for argv in ((command, "--help"), (command, "x", "-h")):
      status, output, errors = run(*argv)
      assert (status, errors) == (0, "") and "Example" in output and output.count(
          f"dcnn {command} results/") >= 2
    assert f"dcnn {command} DIR" in run("--help")[1]
  assert_mistake(*run("compar", "x")[::2], "did you mean 'compare'?")


# Over the values of a setting.


@pytest.fixture
def molecules(folder):
  """Copies of the whole whose data are said to be others, with errors of their own."""
  places = []
  for i, name in enumerate(("ethanol", "uracil", "/data/my set.npz")):
    place = shutil.copytree(folder / "whole", folder / f"m{i}")
    change(place, "config.dataset", name)
    change(place, "dataset.checksum", f"{i}" * 64)
    result = storage.load(place)
    rows = tuple(
        row._replace(value=row.value * (1 + 0.1 * i * (row.seed % 3) * (row.arm != "c=0.5")))
        for row in result.rows)
    storage.save(dataclasses.replace(result, rows=rows), place)
    places.append(place)
  return places


@pytest.mark.nightly
def test_over_the_values_of_a_setting(run, molecules, tmp_path):
  status, output, errors = run("compare", *molecules, "--by=dataset", f"--out={tmp_path / 'out'}")
  assert (status, errors) == (0, "")
  for head in ("dataset=ethanol", "dataset=uracil", "over all"):
    assert head in output
  results = [storage.load(place) for place in molecules]
  written = json.loads((tmp_path / "out" / "summary.json").read_text())
  for table, asked in zip(written["tables"], results[0].tables, strict=True):
    for metric, arms in table["contrasts"].items():
      for arm, record in arms.items():
        logs = [stats.log_ratios(result.errors(metric)[arm], result.errors(metric)[asked.baseline])
                for result in results]
        centre, low, high = stats.combined_ratio(logs)
        assert record["over_all"]["centre"] == pytest.approx(centre, rel=1e-12)
        assert (record["over_all"]["low"], record["over_all"]["high"]) == (low, high)
        inside = [summary.contrast for summary in results[1].compare(asked, metric)
                  if summary.arm == arm]
        assert record["each"]["uracil"]["ratio"] == inside[0].ratio
  for name in ("ethanol", "uracil", "my_set"):
    assert (tmp_path / "out" / name / "report.html").is_file()
  assert run("compare", *molecules, "--by=dataset", f"--out={tmp_path / 'out'}")[0] == 0


@pytest.mark.nightly
def test_the_page_over_values_answers_in_words_and_a_figure(run, molecules, tmp_path):
  out = tmp_path / "out"
  assert run("compare", *molecules, "--by=dataset", f"--out={out}")[0] == 0
  page = (out / "report.md").read_text().replace("\\", "")
  over_all = json.loads((out / "summary.json").read_text())["tables"][0]["contrasts"]
  for metric, arms in over_all.items():
    for arm, record in arms.items():
      each = {name: contrast["ratio"] for name, contrast in record["each"].items()}
      least, most = min(each, key=each.get), max(each, key=each.get)
      line = next(line for line in page.splitlines()
                  if line.startswith(f"- {arm}: ") and f" times the {metric} of " in line)
      assert f"{record['over_all']['centre']:.2f}" in line
      assert f", {record['over_all']['verdict']}; " in line
      assert line.index(f"({least})") < line.index(f"({most})")
  for metric in over_all:
    figure = ElementTree.parse(out / "figures" / f"ratios_{metric}.svg").getroot()
    words = "".join(figure.itertext())
    assert "one dataset" in words and f"test {metric} relative to the baseline" in words
    assert f"(figures/ratios_{metric}.svg)" in page


def test_a_page_without_a_figure_says_why(run, molecules, tmp_path, monkeypatch):
  def fail(*_):
    raise RuntimeError("no fonts")

  monkeypatch.setattr(report, "load_figures", fail)
  out = tmp_path / "out"
  assert run("compare", *molecules, "--by=dataset", f"--out={out}")[0] == 0
  page = (out / "report.md").read_text()
  assert "could not be drawn: RuntimeError: no fonts" in page and "ratios_" not in page


def test_results_that_kept_their_test_rows_alone(run, folder):
  """As results are that are kept small; which run a picture would show is not known of them."""
  for half in ("a", "b"):
    result = storage.load(folder / half)
    rows = tuple(row for row in result.rows if row.split == "test")
    storage.save(dataclasses.replace(result, rows=rows, predictions={}), folder / half)
  assert run("compare", folder / "a", folder / "b")[::2] == (0, "")


@pytest.mark.parametrize(("by", "words"), [
    ("datset", "did you mean 'dataset'?"), ("steps", "all directories have steps=4"),
    ("labels", "has arms that set it, such as 'min_max'"), ("tables.title", "no such setting")])
def test_settings_that_cannot_be_compared_over(run, molecules, by, words):
  assert_mistake(*run("compare", *molecules, f"--by={by}")[::2], f"--by={by}: ", words)


def test_differences_beside_the_setting_are_told(run, molecules):
  change(molecules[1], "config.steps", 9)
  status, output, _ = run("compare", *molecules, "--by=dataset")
  assert status == 0 and "They differ in config.steps: 4 (" in output


def test_other_data_point_to_by(run, molecules):
  assert_mistake(*run("compare", *molecules[:2])[::2], "--by=dataset")


def test_tables_that_are_not_common(run, molecules):
  change(molecules[1], "config.tables", [])
  status, _, errors = run("compare", *molecules, "--by=dataset")
  assert_mistake(status, errors, "no table with two arms is common", "--baseline=c=0.5")
  assert run("compare", *molecules, "--by=dataset", "--baseline=c=0.5")[0] == 0


def test_finished_reads_what_arms_set(folder):
  source = compare.finished(folder / "a", "a")
  assert source.arms == {"c=0.5": {"activation.c": 0.5}, "c=1.0": {"activation.c": 1.0}}
  assert source.settings["split.train"] == 20
