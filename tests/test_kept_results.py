"""Numbers in README and in the experiments are those of the results that are kept."""

import json
import pathlib
import re

import daily
import numpy as np
import pytest
import tiny

import dcnn
from dcnn.base import files
from dcnn.jobs import compare
from dcnn.results import report, storage, strata
from dcnn.results.records import Result, Row
from experiments import ablations
from experiments.results import answers, choices, ensemble

ROOT = pathlib.Path(__file__).parents[1]
KEPT = ROOT / "experiments" / "results"
NAMES = sorted(path.parent.name for path in KEPT.glob("*/config.json"))
SWEEPS = sorted(str(path.parent.relative_to(KEPT)) for path in KEPT.rglob("results.csv"))
GROUPS = sorted(path.parent.name for path in KEPT.glob("*/config.json")
                if not (path.parent / "results.csv").exists())


def test_the_answers_are_kept():
  assert {"converged", "tuned", "grid", "molecules"} <= set(NAMES)
  assert set(answers.RESULTS) == set(NAMES)


def test_the_readme_says_what_the_results_say():
  section = re.search(f"{re.escape(answers.BEGIN)}\n(.*?){re.escape(answers.END)}",
                      (ROOT / "README.md").read_text(), flags=re.S)
  assert section, f"README.md lacks {answers.BEGIN}"
  assert section.group(1).strip() == answers.readme_section().strip()


def test_the_page_of_results_says_what_they_say():
  assert (KEPT / "README.md").read_text().strip() == answers.page().strip()


@pytest.mark.parametrize("experiment", answers.OUTCOMES)
def test_docstrings_say_what_the_results_say(experiment):
  text = (ROOT / "experiments" / f"{experiment}.py").read_text()
  assert " ".join(answers.OUTCOMES[experiment]().split()) in " ".join(text.split())


def test_the_main_job_speaks_of_the_converged_answer():
  assert ablations.CONVERGED == answers.converged_line()
  assert ablations.get_config().question.endswith(ablations.CONVERGED)


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_result_is_whole_small_and_of_no_machine(name):
  files = [path for path in (KEPT / name).rglob("*") if path.is_file()]
  assert {"results.csv", "summary.json", "config.json", "report.md"} <= {
      path.name for path in files}
  assert any(path.suffix == ".svg" for path in files)
  assert sum(path.stat().st_size for path in files) < 3e6
  for path in files:
    assert not re.search(r"(?<![\w./])/(home|root|tmp|work|Users|mnt|var|usr)/", path.read_text())


@pytest.mark.parametrize("name", daily.only(("ablations", "rmd17", "paper_batch_norm"), SWEEPS))
def test_a_kept_summary_is_that_of_its_rows(name, tmp_path):
  """Statistics are computed anew; figures, which another Matplotlib draws otherwise, are not."""
  result = storage.load(KEPT / name)
  storage.save(result, tmp_path)
  report.write(tmp_path)
  kept, drawn = (json.loads((folder / "summary.json").read_text())
                 for folder in (KEPT / name, tmp_path))
  assert list(leaves(drawn)) == list(leaves(kept))


@pytest.mark.parametrize("name", GROUPS)
def test_a_kept_comparison_is_that_of_its_sweeps(name, tmp_path):
  by = json.loads((KEPT / name / "config.json").read_text())["by"]
  kept = json.loads((KEPT / name / "summary.json").read_text())
  # The bootstrap draws from one sweep after the other, so that their order is that of the page.
  sources = compare.read([str(KEPT / name / value) for value in kept["seeds"]])
  results = compare.by_groups(sources, by)
  again = strata.summary(results, by, strata.common_tables(results))
  files.write_json(tmp_path / "summary.json", again)
  drawn = json.loads((tmp_path / "summary.json").read_text())
  assert dict(leaves(drawn)) == dict(leaves(kept))


def leaves(record, path=""):
  """The leaves of a record with their paths; numbers match up to rounding."""
  items = record.items() if isinstance(record, dict) else enumerate(record)
  for key, value in items:
    if isinstance(value, dict | list):
      yield from leaves(value, f"{path}/{key}")
    else:
      yield f"{path}/{key}", pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


def test_the_mean_of_the_seeds_is_taken_of_what_they_predict(tmp_path):
  """Each seed's errors are those of its results; those of the mean are below their mean."""
  workdir = tmp_path / "w"
  result = dcnn.sweep(tiny.mlp(seeds=3), None, workdir=workdir)
  found = ensemble.residuals(workdir, "base")
  for part, metric in zip(found, ("energy_loss", "force_loss"), strict=True):
    each = np.mean(np.abs(part), axis=tuple(range(1, part.ndim)))
    np.testing.assert_allclose(each, result.errors(metric)["base"], rtol=1e-4)
    assert np.mean(np.abs(np.mean(part, axis=0))) < np.mean(each)
  with pytest.raises(ValueError, match="no arm 'silu': there are base"):
    ensemble.residuals(workdir, "silu")


def test_what_validation_says_of_a_search(tmp_path):
  """By hand: the second arm has half the force error, and comes first."""
  def rows(arm, force):
    errors = (("energy_loss", "eV", 0.002), ("force_loss", "eV/A", force))
    return [Row("search", arm, seed, "valid", metric, unit, value * (1 + seed), 10, "finished")
            for seed in (0, 1) for metric, unit, value in errors]

  lines = choices.table(Result({}, (*rows("base", 0.02), *rows("half", 0.01)), (), (), {}))
  assert lines[2:] == ["| half | 2.83 | 14.1 | 0.50 (0.50 to 0.50) |",
                       "| base | 2.83 | 28.3 | 1.00 (1.00 to 1.00) |"]
  with pytest.raises(ValueError, match="those of test data alone"):
    choices.table(storage.load(KEPT / "rmd17_refine"))
