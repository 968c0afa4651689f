"""Reports of the real command: obstacles, the user's matplotlib, errors of 0, hostile text."""

import json
import os

import pytest
from commands import TINY, assert_mistake, call

from dcnn import jobs
from dcnn.cli import main
from dcnn.results import storage

ATOMS = "".join(
    "1\nProperties=species:S:1:pos:R:3:forces:R:3 "
    f"energy={energy} pbc=\"F F F\"\n{element} 0.0 0.0 0.0 0.0 0.0 0.0\n"
    for element, energy in (("H", -10.70000001), ("C", -48.50000001), ("O", -103.00000001)))


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
  """`dcnn` on the tiny experiment, its text changed: status, output and errors."""
  def run(*flags, change=lambda text: text):
    (tmp_path / "tiny.py").write_text(change(TINY))
    return call(monkeypatch, capsys, f"--config={tmp_path / 'tiny.py'}",
                f"--workdir={tmp_path / 'out'}", *flags)
  return run


# Obstacles.

FILES = ("config.json", "results.csv", "history.csv", "predictions.npz", "summary.json",
         "report.html", "report.md", ".lock")
FOLDERS = ("figures", "checkpoints", "tuning")


def folder(path):
  path.mkdir()


def file(path):
  path.write_text("mine")


def dangling(path):
  path.symlink_to("nowhere")


def pipe(path):
  os.mkfifo(path)


@pytest.mark.parametrize(("name", "make"), [
    *((name, folder) for name in (*FILES, "figures/errors.svg")),
    *((name, file) for name in FOLDERS), ("figures", dangling), ("results.csv", pipe),
    ("checkpoints", pipe)],
    ids=lambda value: getattr(value, "__name__", value))
def test_what_is_in_the_way_is_found_before_training(command, tmp_path, monkeypatch, name, make):
  monkeypatch.setattr(jobs, "run", lambda *arguments, **options: pytest.fail("trained"))
  (tmp_path / "out" / name).parent.mkdir(parents=True)
  make(tmp_path / "out" / name)
  before = sorted(path.name for path in (tmp_path / "out").iterdir())
  status, _, errors = command()
  assert_mistake(status, errors, str(tmp_path / "out" / name), "in the way", "--workdir")
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A work directory that the command has finished."""
  folder = tmp_path_factory.mktemp("finished")
  capture = type("Capture", (), {"readouterr": lambda self: ("", "")})()
  (folder / "tiny.py").write_text(TINY)
  with pytest.MonkeyPatch.context() as patch:
    assert call(patch, capture, f"--config={folder / 'tiny.py'}",
                f"--workdir={folder / 'out'}")[0] == 0
  return folder / "out"


def test_the_same_report_wherever_it_is_drawn(finished, tmp_path, monkeypatch, capsys):
  before = {path: path.read_bytes() for path in finished.rglob("*.svg")}
  assert before
  (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsavefig.dpi: 3\n")
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("MPLBACKEND", "bogus")
  status, _, errors = call(monkeypatch, capsys, "report", finished)
  assert (status, errors) == (0, "")
  assert {path: path.read_bytes() for path in finished.rglob("*.svg")} == before


def test_a_report_without_figures_is_a_report(finished, monkeypatch, capsys):
  def fail():
    raise RuntimeError("no font\x1b[2J")

  monkeypatch.setattr("dcnn.results.report.load_figures", fail)
  with pytest.warns(UserWarning, match="Without figures .all.*no font") as caught:
    status, *_ = call(monkeypatch, capsys, "report", finished)
  (warning,) = caught
  line = main.format_warning(warning.message, warning.category, "", 0)
  assert status == 0 and line.startswith("dcnn: warning: ") and line[:-1].isprintable()
  assert "Without figures (all)" in (finished / "report.md").read_text()


# Errors of exactly 0.


@pytest.mark.parametrize("seeds", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_single_atoms(command, tmp_path, seeds):
  """Their forces are 0 for every network, and so is the error."""
  def change(text):
    return text.replace('config.model.name, config.model.hidden = "MLP", (4,)',
                        "config.model.features = config.model.radial = 4").replace(
        ", config.split.test = 20, 10, 20", " = 20, 10").replace(
        "  return config", """  config.model.blocks = 1
  config.arms = ({}, {"labels": "standardize"})
  return config""")

  (tmp_path / "atoms.xyz").write_text(ATOMS)
  flags = (f"--config.test_dataset={tmp_path / 'atoms.xyz'}", "--config.data.check_units=false",
           f"--config.seeds={seeds}")
  status, output, errors = command(*flags, change=change)
  assert status == 0 and "error" not in errors
  assert f"exact in {seeds} of {seeds} runs" in output
  out = tmp_path / "out"
  rows = [row for row in storage.load(out).rows
          if (row.split, row.metric) == ("test", "force_loss")]
  assert len(rows) == 2 * seeds and {row.value for row in rows} == {0.0}
  for name in (storage.SUMMARY_FILE, storage.CONFIG_FILE):
    json.loads((out / name).read_text(), parse_constant=lambda word: 1 / 0)
  assert command(*flags, change=change)[0] == 0  # it continues, and reports again


# Text of files.

HOSTILE = "\x1b[2J\u202e<script>alert(1)</script>`|[x](javascript:1)"


def test_hostile_text_reaches_no_terminal_and_no_page(command, tmp_path):
  def change(text):
    return text.replace("  return config", f"""  config.experiment = config.question = {HOSTILE!r}
  config.arms = ({{}}, {{"labels": "standardize"}})
  config.tables = ({{"title": {HOSTILE!r}, "baseline": "base", "arms": ("standardize",)}},)
  return config""")

  status, output, errors = command(change=change)
  assert status == 0
  for text in (output, errors, (tmp_path / "out" / "report.md").read_text(),
               (tmp_path / "out" / "report.html").read_text()):
    assert text.replace("\n", "").isprintable() or "\xa0" in text
    assert not any(mark in text for mark in "\x1b\u202e")
  page = (tmp_path / "out" / "report.html").read_text()
  assert page.count("<script") == 1 and "<script>alert" not in page


@pytest.mark.parametrize("name", ["a\x1b[2J.xyz", "a\u202e.xyz", "a\rb.npz"], ids=ascii)
def test_a_hostile_name_of_a_file(command, tmp_path, name):
  status, _, errors = command(f"--config.dataset={tmp_path / name}")
  assert status == 2 and errors.count("\n") == 1 and errors[:-1].isprintable()


@pytest.mark.parametrize("key", ["forc\x1b[2Jes", "\u202eforces", "forces\x07"], ids=ascii)
def test_a_hostile_key_in_a_data_file(command, tmp_path, key):
  (tmp_path / "a.xyz").write_text(ATOMS.replace("forces:R", f"{key}:R") * 9, "utf-8")
  status, _, errors = command(f"--config.dataset={tmp_path / 'a.xyz'}")
  assert status == 2 and errors.count("\n") == 1 and errors[:-1].isprintable()
