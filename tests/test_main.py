"""The command line, as a user types it.

Processes start slowly, so that only some mistakes are made in one; the others go through the same
entry in this process.
"""

import errno
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import commands
import numpy as np
import pytest
from commands import assert_mistake

from dcnn import configs, jobs
from dcnn.base import processes
from dcnn.cli import arguments, main
from dcnn.data import generation
from dcnn.results import records, storage
from dcnn.sweeps import checkpoints

ROOT = pathlib.Path(__file__).parents[1]
ABLATIONS = "experiments/ablations.py"
NIGHTLY = pytest.mark.nightly  # each has its twin in this process
TINY = """
from dcnn import configs

def get_config(arg=""):
  if arg not in ("", "again"):
    raise ValueError(f"unknown variant {arg!r}; known are again")
  config = configs.default()
  config.experiment = "tiny"
  config.arms = ({"activation.c": 0.5}, {"activation.c": 1.0})
  config.model.name, config.model.hidden = "MLP", (4,)
  config.split.train, config.split.valid, config.split.test = 20, 10, 20
  config.steps, config.chunk, config.batch_size, config.seeds = 4, 2, 4, 2
  return config
"""
FILES = {
    "config.json", "results.csv", "history.csv", "predictions.npz", "summary.json", "report.html",
    "report.md", "figures", "checkpoints", ".lock"}


@pytest.fixture
def tiny(tmp_path) -> str:
  """An experiment file of two arms and two seeds."""
  path = tmp_path / "tiny.py"
  path.write_text(TINY)
  return str(path)


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
  return tmp_path / "results" / "tiny"


@pytest.fixture
def call(monkeypatch, capsys):
  """The entry in this process; returns status, output, errors."""
  return functools.partial(commands.call, monkeypatch, capsys)


def process(*argv, **changes) -> subprocess.CompletedProcess[str]:
  """`dcnn ARGV` from the root of the repository."""
  environment = {**os.environ, **changes}
  return subprocess.run(
      [sys.executable, "-m", "dcnn", *map(str, argv)], cwd=ROOT, env=environment,
      capture_output=True, text=True, timeout=300)


# In processes: what must hold of the interpreter's exit status and of all its output.


@pytest.mark.parametrize("argv, words", [
    ((f"--config={ABLATIONS}:smoke", "--wrkdir=x"), ("--wrkdir", "did you mean '--workdir'?")),
    pytest.param((f"--config={ABLATIONS}:smoke",), ("--workdir is missing",), marks=NIGHTLY),
    (("--config=experiments/ablation.py", "--workdir=WORKDIR"),
     ("no such file", f"did you mean {ABLATIONS!r}?")),
    pytest.param((f"--config={ABLATIONS}:smok", "--workdir=WORKDIR"),
                 ("variant 'smok'", "smoke, grid"), marks=NIGHTLY),
    pytest.param((f"--config={ABLATIONS}:smoke", "--workdir=WORKDIR",
                  "--config.activation.nme=gelu"),
                 ("activation.nme", "did you mean 'activation.name'?", "activation.offset"),
                 marks=NIGHTLY),
    pytest.param((f"--config={ABLATIONS}:smoke", "--workdir=WORKDIR", "--config.steps=1.5"),
                 ("--config.steps=1.5: expected an integer",), marks=NIGHTLY),
    pytest.param((f"--config={ABLATIONS}:smoke", "--workdir=WORKDIR",
                  "--config.activation.name=irelo"),
                 ("'irelo'", "did you mean 'irelu'?", "tanh"), marks=NIGHTLY),
    ((f"--config={ABLATIONS}:smoke", "--workdir=WORKDIR", "--config.dataset=ethanl"),
     ("'ethanl'", "did you mean 'ethanol'?", "uracil")),
], ids=["flag", "no_workdir", "no_file", "variant", "key", "type", "choice", "data"])
def test_mistake_in_a_process(workdir, argv, words):
  told = process(*(word.replace("WORKDIR", str(workdir)) for word in argv))
  assert_mistake(told.returncode, told.stderr, *words)
  assert not workdir.parent.exists()


@pytest.mark.nightly
def test_runs_twice_alike(tiny, workdir, call):
  """Real runs: all files, the same numbers again, and then a report and a refusal."""
  command = (f"--config={tiny}", f"--workdir={workdir}", "--config.seeds=0,7")
  first = process(*command, XLA_FLAGS="", FORCE_COLOR="1")
  assert first.returncode == 0, first.stderr
  assert {path.name for path in workdir.iterdir()} == FILES
  assert "100%, 16 of 16 steps of all runs" in first.stdout
  assert "4 runs: compiled in" in first.stdout and "\x1b" not in first.stdout
  assert str(workdir / "report.html") in first.stdout

  written = json.loads((workdir / "config.json").read_text())
  assert written["config"]["seeds"] == [0, 7]
  assert written["command"] == " ".join(["dcnn", *command])
  assert written["environment"]["matmul_precision"] == "highest"
  assert written["environment"]["devices"] == processes.usable_cores()

  again = process(*command[:1], f"--workdir={workdir.parent / 'again'}", *command[2:])
  assert again.returncode == 0
  names = ("results.csv", "history.csv", "summary.json")
  before = {name: (workdir / name).read_bytes() for name in names}
  for name, content in before.items():
    assert (workdir.parent / "again" / name).read_bytes() == content

  (workdir / "report.html").unlink()
  assert call("report", workdir) == (0, f"report: {workdir / 'report.html'}\n", "")
  assert (workdir / "report.html").stat().st_size > 1000

  status, _, errors = call(*command, "--config.steps=6")
  assert_mistake(status, errors, "of config.steps=4, and 6 is asked for", "--fresh")
  status, output, _ = call(*command)  # nothing left to train
  assert status == 0 and "4 runs: compiled in" in output
  for name, content in before.items():
    assert (workdir / name).read_bytes() == content
  status, output, _ = call(*command, "--fresh")
  assert status == 0 and f"moved {workdir} to {workdir}.1" in output
  assert (workdir.with_name("tiny.1") / "results.csv").read_bytes() == before["results.csv"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupt_before_anything_is_trained(tiny, workdir):
  with started(tiny, workdir) as running:
    heard(running, "0%, compiling")
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=10) == 130
    assert running.stderr.read() == (
        "dcnn: SIGINT: saving what there is; a second Ctrl-C stops at once\n")
  assert not workdir.exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupt_in_training(tiny, workdir, call):
  """In between, a second process on the same directory is refused."""
  long = ("--config.steps=1000000000", "--config.checkpoint_every=1000")
  with started(tiny, workdir, *long) as running:
    heard(running, "steps/s")
    assert_mistake(*call(f"--config={tiny}", f"--workdir={workdir}", *long)[::2],
                   f"{workdir} is in use by process {running.pid} on ")
    asked = time.monotonic()
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=20) == 143 and time.monotonic() - asked < 10
    output = running.stdout.read()
  assert "4 runs are unfinished; the same command continues them" in output
  assert f"report so far: {workdir / 'report.html'}" in output
  rows = (workdir / "results.csv").read_text().splitlines()[1:]
  assert len(rows) == 8 and all(",interrupted@" in row and ",valid," in row for row in rows)
  assert "Interrupted: 4 runs unfinished" in (workdir / "report.md").read_text()
  (workdir / "report.md").unlink()
  assert call("report", workdir)[0] == 0 and (workdir / "report.md").exists()
  state = checkpoints.running(workdir / "checkpoints")
  assert state is not None and state.record["step"] >= 2
  with started(tiny, workdir, *long) as running:
    heard(running, "steps/s")
    running.kill()
  assert "Interrupted" in (workdir / "report.md").read_text()
  assert str(running.pid) in (workdir / ".lock").read_text()  # of a dead process, and no obstacle
  assert_mistake(*call(f"--config={tiny}", f"--workdir={workdir}")[::2], "and 4 is asked for")


def started(tiny, workdir, *flags) -> subprocess.Popen[str]:
  return subprocess.Popen(
      [sys.executable, "-m", "dcnn", f"--config={tiny}", f"--workdir={workdir}", *flags],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0"})  # or compiling is soon over


def heard(process: subprocess.Popen[str], words: str) -> None:
  """Waits for a line."""
  assert process.stdout is not None
  for line in process.stdout:
    if words in line:
      return
  raise AssertionError(f"{words!r} never came: {process.stderr.read()}")


# In this process.


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",), ("help",)])
def test_usage(call, argv):
  status, output, errors = call(*argv)
  assert (status, errors) == (0, "")
  assert "dcnn --config=ablations --workdir=results/ablations" in output
  assert max(map(len, output.splitlines())) <= 100


def test_version(call):
  assert call("--version")[1].startswith("dcnn 0.")


@pytest.mark.parametrize("argv, words", [
    (("generte",), ("'generte'", "did you mean 'generate'?", "report, log, compare")),
    ((ABLATIONS,), ("unknown command", "--config=NAME --workdir=DIR")),
    (("--workdir=WORKDIR",), ("--config is missing",)),
    (("--config=TINY", "--workdir="), ("--workdir is missing",)),
    (("--config=TINY", "--workdir"), ("Missing value for flag --workdir",)),
    (("--config=TINY", "--workdir=TINY"), ("is a file, expected a directory",)),
    (("--config=TINY", "--workdir=TINY/x"), ("is a file, expected a directory",)),
    (("--config=TINY", "--workdir=WORKDIR", "now"), ("unexpected argument 'now'",)),
    (("--config=TINY", "--workdir=WORKDIR", "--config.seeds", "10"), ("unexpected argument '10'",)),
    (("--config=TINY:agan", "--workdir=WORKDIR"), ("line 6", "variant 'agan'", "again")),
    (("--config=TMP", "--workdir=WORKDIR"), ("no such file",)),
    (("report",), ("expected one directory",)),
    (("report", "TMP", "TMP"), ("expected one directory",)),
    (("report", "WORKDIR"), ("no such directory",)),
    (("report", "TMP"), ("config.json",)),
    (("report", "--all"), ("unknown flag --all",)),
    (("generate", "--out=TMP/a.npz"), ("--smiles is missing",)),
    (("generate", "--smiles=O"), ("--out is missing",)),
    (("generate", "--smiles=O", "--out=TMP/a.xyz"), ("ends in .npz",)),
    (("generate", "--smiles=O", "--out=WORKDIR/a.npz"), ("is no directory",)),
    (("generate", "--smiles=O", "--out=TMP/a.npz", "--frames=0"), ("--frames=0: expected a pos",)),
    (("generate", "--smiles=O", "--out=TMP/a.npz", "--frames=x"), ("--frames=x: expected a pos",)),
    (("generate", "--smiles=O", "--out=TMP/a.npz", "--seed=-1"), ("--seed=-1: expected an int",)),
    (("generate", "--smiles=O", "--out=TMP/a.npz", "--temperature=nan"), ("kelvin",)),
    (("generate", "--smiles=O", "--out=TMP/a.npz", "--temp=9"), ("--temp:", "--frames")),
    (("generate", "O", "--out=TMP/a.npz"), ("unexpected argument 'O'",)),
], ids=lambda value: " ".join(value) if value and value[0] in ("report", "generate") else None)
def test_mistake(call, tiny, workdir, tmp_path, argv, words):
  places = {"WORKDIR": str(workdir), "TINY": tiny, "TMP": str(tmp_path)}
  for name, place in places.items():
    argv = [word.replace(name, place) for word in argv]
  status, _, errors = call(*argv)
  assert_mistake(status, errors, *words)
  assert [path.name for path in tmp_path.iterdir()] == ["tiny.py"]


def test_a_directory_that_cannot_be_written_to(call, tiny, workdir, monkeypatch):
  """Who runs the tests may write everywhere."""
  monkeypatch.setattr(os, "access", lambda path, mode: False)
  status, _, errors = call(f"--config={tiny}", f"--workdir={workdir}")
  assert_mistake(status, errors, f"--workdir={workdir}: ", "cannot be written to")
  assert not workdir.parent.exists()


@pytest.mark.parametrize("override, words", [
    ("--config.zzz=3", ("unknown setting --config.zzz: known are activation, ",)),
    ("--config.features=3", ("did you mean 'model.features'?",)),
    ("--config.model.featurs=3", ("did you mean 'model.features'?", "model.radial")),
    ("--config.model.features.x=3", ("unknown setting --config.model.features.x",)),
    ("--config.a.b.c.d=3", ("unknown setting --config.a.b.c.d",)),
    ("--config.model=3", ("--config.model is a group of settings", "model.features")),
    ("--config.model={'features': 3}", ("--config.model is a group of settings",)),
    ("--config.=3", ("unknown flag --config.",)),
    ("--config.steps", ("Missing value for flag --config.steps",)),
    ("--config.steps=many", ("--config.steps=many: expected an integer",)),
    ("--config.optimizer.learning_rate=fast", ("learning_rate=fast: expected a number",)),
    ("--config.split.per_seed=maybe", ("per_seed=maybe: expected true or false",)),
    ("--config.split.test=x", ("--config.split.test=x: expected an integer",)),
    ("--config.steps=-1", ("steps", "-1")),
    ("--config.seeds=3,3", ("seeds", "3")),
    ("--config.labels=min_mx", ("min_mx", "min_max")),
    ("--config.split.train=5000", ("5000", "2000")),
])
def test_bad_override(call, tiny, workdir, override, words):
  status, _, errors = call(f"--config={tiny}", f"--workdir={workdir}", override)
  assert_mistake(status, errors, *words)
  assert not workdir.parent.exists()


@pytest.mark.parametrize("text, words", [
    ("def get_config(arg=''\n  return 1\n", ("line 1: SyntaxError",)),
    ("import nosuch\n", ("line 1: ModuleNotFoundError: No module named 'nosuch'",)),
    ("x = 1\n", ("expected a function get_config(arg='')",)),
    ("def get_config(arg=''):\n  pass\n", ("must return configs.default()", "NoneType")),
    ("def get_config(arg=''):\n  return {}['a']\n", ("line 2: KeyError: a",)),
    ("from dcnn import configs\n\ndef get_config(arg=''):\n  config = configs.default()\n"
     "  config.stps = 3\n", ("line 5: AttributeError", '"steps" instead of "stps"')),
    ("from dcnn import configs\n\ndef get_config(arg=''):\n  config = configs.default()\n"
     "  config.steps = 'x'\n", ("line 5: TypeError", "int")),
    ("def get_config(arg=''):\n  raise ValueError('first\\n  second')\n",
     ("line 2: first second",)),
    ("\x00", ("null bytes",)),
], ids=["syntax", "import", "no_get_config", "none", "raises", "key", "type", "lines", "binary"])
def test_bad_experiment_file(call, workdir, tmp_path, text, words):
  path = tmp_path / "broken.py"
  path.write_text(text)
  status, _, errors = call(f"--config={path}", f"--workdir={workdir}")
  assert_mistake(status, errors, str(path), *words)
  assert len(errors) < 400
  assert [path.name for path in tmp_path.iterdir()] == ["broken.py"]


@pytest.mark.parametrize("given, seeds", [
    ("10", tuple(range(10))), ("0,1,2", (0, 1, 2)), ("[1,2]", (1, 2)), ("(5,)", (5,))])
def test_seeds(tiny, given, seeds):
  config = arguments.load_config(tiny)
  arguments.override(config, [f"--config.seeds={given}"])
  assert configs.seeds(config) == seeds


def test_overrides(tiny):
  config = arguments.load_config(f"{tiny}:again")
  arguments.override(config, [
      "--config.steps", "7", "--config.split.per_seed", "--config.optimizer.learning_rate=1",
      "--config.labels=min_max", "--config.model.hidden=8,9", "--noconfig.data.check_units"])
  assert (config.steps, config.split.per_seed, config.labels) == (7, True, "min_max")
  assert config.optimizer.learning_rate == 1.0 and config.model.hidden == (8, 9)
  assert config.data.check_units is False and config.is_locked


def test_an_experiment_that_comes_with_dcnn_is_found_by_its_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("ablations", "ablations:smoke", "ablations:grid", "rmd17"):
    stem, colon, variant = name.partition(":")
    by_path = arguments.load_config(f"{ROOT / 'experiments' / stem}.py{colon}{variant}")
    assert configs.to_dict(arguments.load_config(name)) == configs.to_dict(by_path)


@pytest.mark.parametrize("file, argument", [
    ("ablations", "ablations:again"), ("ablations.py", "ablations.py:again"),
    ("experiments/ablations.py", "experiments/ablations.py:again")])
def test_a_file_comes_before_a_name(tmp_path, monkeypatch, file, argument):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / file
  path.parent.mkdir(exist_ok=True)
  path.write_text(commands.TINY)
  assert arguments.load_config(argument).experiment == "tiny"


@pytest.mark.parametrize("argument, words", [
    ("ablation", ("no such experiment", "did you mean 'ablations'?",
                  "ablations, advection, molecules, official, paper, rmd17")),
    ("Ablations:smoke", ("did you mean 'ablations'?",)),
    ("experiments/ablations.py:smoke", ("no such file", "did you mean 'ablations'?")),
    ("rmd17.py", ("no such file", "did you mean 'rmd17'?")),
    ("mine.py", ("no such file", "--config=FILE.py")),
    ("my", ("no such experiment", "ablations, advection, molecules, official, paper, rmd17")),
    ("my/min.py", ("no such file", "did you mean 'my/mine.py'?")),
    (":smoke", ("no such experiment", "ablations, advection, molecules, official, paper, rmd17"))])
def test_an_unknown_experiment(tmp_path, monkeypatch, argument, words):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "my").mkdir()
  (tmp_path / "my" / "mine.py").write_text(commands.TINY)
  (tmp_path / "ablations").mkdir()  # no file
  with pytest.raises(arguments.Stop) as told:
    arguments.load_config(argument)
  assert all(word in str(told.value) for word in words), str(told.value)


def test_flags_in_any_order_and_form():
  asked = arguments.parse_train(
      ["--config.steps=3", "--workdir", "a b", "-config=x.py:y", "--fresh", "--config.seeds=1"])
  assert asked == arguments.Training(
      "x.py:y", pathlib.Path("a b"), True, None, ["--config.steps=3", "--config.seeds=1"])


def test_a_report_of_a_sweep_that_has_just_ended(call, tiny, workdir, monkeypatch):
  """What it has read of the sweep under way does not replace the results."""
  flags = (f"--config={tiny}", f"--workdir={workdir}")
  assert call(*flags)[0] == 0
  before = (workdir / "results.csv").read_bytes()
  answers = iter([True, False])
  monkeypatch.setattr(main.workdirs, "is_unfinished", lambda directory: next(answers))
  assert call("report", workdir)[0] == 0
  assert (workdir / "results.csv").read_bytes() == before
  assert "timing" in json.loads((workdir / "config.json").read_text())


@pytest.fixture
def finished(monkeypatch) -> None:
  """Makes `running.run` return at once."""
  timing = {"runs": 4, "compile_seconds": 1.0, "train_seconds": 2.0, "evaluate_seconds": 3.0}
  result = records.Result({"config": {}, "timing": timing}, (), (), (), {})
  monkeypatch.setattr(
      jobs, "run", lambda *args, **options: jobs.Finished(result, ()))


def test_full_disk_in_the_report(call, tiny, workdir, finished, monkeypatch):
  def save(result, directory):
    raise OSError(errno.ENOSPC, "No space left on device", str(directory))

  monkeypatch.setattr(storage, "save", save)
  status, _, errors = call(f"--config={tiny}", f"--workdir={workdir}")
  assert (status, errors) == (1, f"dcnn: error: No space left on device: {workdir}\n")


@pytest.mark.parametrize("limit, hidden, where", [
    (12_000, 96, "checkpoints"),
    pytest.param(30_000, 4, "report", marks=pytest.mark.nightly)], ids=["checkpoints", "report"])
def test_full_disk(call, tiny, workdir, limit, hidden, where):
  """A limit on the size of files stands for the disk; then there is room again."""
  code = ("import resource, sys; from dcnn.cli import main; "
          f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); sys.exit(main.entry())")
  flags = [f"--config={tiny}", f"--workdir={workdir}", "--config.checkpoint_every=1e-9",
           f"--config.model.hidden=({hidden},)"]
  # JAX would warn of programs that it cannot keep.
  told = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True,
                        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"})
  assert told.returncode == 1
  (line,) = told.stderr.splitlines()
  assert line.startswith("dcnn: error: ") and "File too large" in line
  assert (where in line) if where == "checkpoints" else (workdir / "results.csv").exists()
  assert call(*flags)[0] == 0 and (workdir / "report.html").exists()


def test_a_sweep_that_stops_for_a_divergence(call, tiny, workdir):
  flags = (f"--config={tiny}", f"--workdir={workdir}", "--config.optimizer.learning_rate=1e30")
  status, output, errors = call(*flags, "--config.on_divergence=stop")
  assert status == 1 and "seed 0 and 3 more: diverged@" in errors and len(errors.splitlines()) == 1
  assert "0 runs are unfinished" in output and "diverged@" in (workdir / "results.csv").read_text()
  status, output, errors = call(*flags, "--config.on_divergence=record")
  assert (status, errors) == (0, "") and "4 runs of 4 became non-finite" in (
      workdir / "report.md").read_text()


def test_our_bugs_keep_their_traceback(call, tiny, workdir, monkeypatch):
  def run(*args, **options):
    return np.broadcast_shapes((2,), (3,))  # a ValueError of a library

  monkeypatch.setattr(jobs, "run", run)
  with pytest.raises(ValueError, match="shape mismatch"):
    call(f"--config={tiny}", f"--workdir={workdir}")
  assert not workdir.exists()


@pytest.fixture
def water(monkeypatch) -> None:
  """Makes `generation.generate` return at once."""
  def generate(smiles, *, frames, seed, temperature, workers, on_progress):
    on_progress(1.0)
    return {"positions": np.zeros((frames, 3, 3)), "given": np.array([seed, temperature, workers])}

  monkeypatch.setattr(generation, "generate", generate)


def test_generate(call, water, tmp_path):
  out = tmp_path / "my water.npz"
  argv = ("generate", "--smiles=O", f"--out={out}", "--frames=5", "--seed=3", "--workers=2")
  status, output, errors = call(*argv)
  assert (status, errors) == (0, "")
  assert output.splitlines()[-1] == (
      f"wrote {out}: 5 frames of 3 atoms; train on it with '--config.dataset={out}'")
  assert np.load(out)["given"].tolist() == [3, 500, 2]
  content = out.read_bytes()
  status, _, errors = call(*argv)
  assert_mistake(status, errors, "there is such a file")
  assert out.read_bytes() == content


def test_generate_replaces_nothing_that_came_meanwhile(call, water, tmp_path, monkeypatch):
  out, generate = tmp_path / "w.npz", generation.generate

  def slow(*args, **options):
    out.write_text("mine")
    return generate(*args, **options)

  monkeypatch.setattr(generation, "generate", slow)
  status, output, errors = call("generate", "--smiles=O", f"--out={out}", "--frames=5")
  assert (status, errors) == (0, "") and out.read_text() == "mine"
  assert f"wrote {tmp_path / 'w.1.npz'}: 5 frames" in output and (tmp_path / "w.1.npz").exists()


def test_generate_does_not_replace_a_link_to_nothing(call, tmp_path):
  (tmp_path / "w.npz").symlink_to(tmp_path / "nowhere")
  status, _, errors = call("generate", "--smiles=O", f"--out={tmp_path / 'w.npz'}")
  assert_mistake(status, errors, "there is such a file")


def test_generate_without_the_extra(call, tmp_path, monkeypatch):
  monkeypatch.setattr(generation.importlib.util, "find_spec", lambda package: None)
  status, _, errors = call("generate", "--smiles=O", f"--out={tmp_path / 'a.npz'}")
  assert_mistake(status, errors, "pip install 'dcnn[xtb]'")


def test_warnings_of_ours_are_a_line():
  text = main.format_warning(UserWarning("one\n  two"), UserWarning, "file.py", 3)
  assert text == "dcnn: warning: one two\n"
  assert "file.py:3" in main.format_warning("x", RuntimeWarning, "file.py", 3)
