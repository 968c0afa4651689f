"""`dcnn.sweep` as a notebook calls it: progress, work directory, interrupts, trained variables."""

import ast
import asyncio
import concurrent.futures
import contextvars
import json
import pathlib
import pickle
import re
import signal
import warnings

import jax
import numpy as np
import pytest
import tiny

import dcnn
from dcnn import configs, sweeps
from dcnn.base import wording
from dcnn.configs import build
from dcnn.jobs import workdirs
from dcnn.labels import LabelTransform
from dcnn.sweeps import sweep

PACKAGE = pathlib.Path(dcnn.__file__).parent
ARMS = ({}, {"activation.c": 0.25})


@pytest.fixture(scope="module")
def straight():
  return dcnn.sweep(tiny.mlp(arms=ARMS), None)


def assert_same_variables(one, two):
  assert list(one) == list(two)
  for name in one:
    held = [(each.seeds, each.variables, each.last, each.transform, each.metrics, each.domain)
            for each in (one[name], two[name])]
    assert jax.tree.structure(held[0]) == jax.tree.structure(held[1])
    jax.tree.map(np.testing.assert_array_equal, *held)


def interrupt_after(visits: int):
  """A display that presses the stop button of the notebook."""
  told = iter(range(1, 10**9))
  return lambda progress: (
      signal.raise_signal(signal.SIGINT)
      if progress.phase == sweeps.TRAINING and next(told) == visits else None)


def test_progress_is_shown_by_default_and_can_be_silenced(capsys):
  config = tiny.mlp(steps=2, chunk=2, seeds=1)
  dcnn.sweep(config)
  assert "100%, 2 of 2 steps of all runs" in capsys.readouterr().out
  dcnn.sweep(config, None)
  assert capsys.readouterr() == ("", "")
  phases = []
  dcnn.sweep(config, lambda progress: phases.append(progress.phase))
  assert capsys.readouterr() == ("", "") and phases[-1] == sweeps.TRAINING


def test_a_work_directory_is_what_the_command_line_leaves(straight, tmp_path):
  """Also where a loop of events runs, as in a notebook; the same call reads all back."""
  config = tiny.mlp(arms=ARMS)

  async def cell():
    return dcnn.sweep(config, None, workdir=tmp_path / "w")

  for _ in range(2):
    result = asyncio.run(cell())
    assert repr(result.rows) == repr(straight.rows)
    assert_same_variables(result.trained, straight.trained)
  assert {path.name for path in (tmp_path / "w").iterdir()} == {
      *workdirs.FILES, "figures", "checkpoints", ".lock"} - {"trackers.json"}
  assert_same_variables(result.trained, dcnn.load(tmp_path / "w"))


def test_an_interrupt_returns_what_there_is(straight, tmp_path):
  """In the second of two launches; with a work directory the same call goes on."""
  before = signal.getsignal(signal.SIGINT), list(warnings.filters), jax.config.values.copy()
  with pytest.MonkeyPatch.context() as patch:
    tiny.let_runs_fit(patch, 1)
    patch.setattr(sweep, "SEGMENT_SECONDS", 0.0)
    for workdir, words in ((None, "only with a workdir"), (tmp_path, "the same call continues")):
      with pytest.warns(UserWarning, match=f"interrupted: . runs are unfinished; {words}"):
        result = dcnn.sweep(tiny.mlp(arms=ARMS), interrupt_after(11), workdir=workdir)
      assert result.unfinished == {"c=0.25": 2}
      ended = [row for row in result.rows if row.arm == "base"]
      for row, other in zip(ended, straight.rows, strict=False):
        assert row[:5] == other[:5]
        np.testing.assert_allclose(row.value, other.value, rtol=2e-5, atol=2e-5)
      assert list(result.trained) == ["base"] and result.trained["base"].seeds == (0, 1)
    assert "Interrupted" in (tmp_path / "report.md").read_text()
    result = dcnn.sweep(tiny.mlp(arms=ARMS), None, workdir=tmp_path)
  assert not result.unfinished and list(result.trained) == ["base", "c=0.25"]
  assert (signal.getsignal(signal.SIGINT), list(warnings.filters)) == before[:2]
  assert jax.config.values == before[2]


def test_a_second_interrupt_is_one():
  def twice(progress):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)

  before = signal.getsignal(signal.SIGINT)
  with pytest.raises(KeyboardInterrupt):
    dcnn.sweep(tiny.mlp(), twice)
  assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("change", [
    {"steps": 4}, pytest.param({"seeds": 1}, marks=pytest.mark.nightly),
    pytest.param({"arms": ({},)}, marks=pytest.mark.nightly), {"optimizer__eps": 1.0}],
    ids=["steps", "seeds", "arms", "setting"])
def test_what_does_not_continue_is_refused_in_python_words(straight, tmp_path, change):
  dcnn.sweep(tiny.mlp(arms=ARMS), None, workdir=tmp_path)
  before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
  with pytest.raises(ValueError, match="Choose another workdir, or move this one aside") as error:
    dcnn.sweep(tiny.mlp(**{"arms": ARMS, **change}), None, workdir=tmp_path)
  assert "--" not in str(error.value)
  assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_other_surroundings_are_refused(straight, tmp_path):
  dcnn.sweep(tiny.mlp(arms=ARMS), None, workdir=tmp_path)
  record = json.loads((tmp_path / "config.json").read_text())
  record["environment"]["devices"] += 1
  (tmp_path / "config.json").write_text(json.dumps(record))
  with pytest.raises(ValueError, match="with 3 devices, and this is with 2 devices: set JAX_NUM"):
    dcnn.sweep(tiny.mlp(arms=ARMS), None, workdir=tmp_path)


COMMAND_LINE = {*(PACKAGE / "cli").glob("*.py"), PACKAGE / "base" / "wording.py",
                PACKAGE / "results" / "schemas.py"}


@pytest.mark.parametrize(
    "path", sorted(set(PACKAGE.rglob("*.py")) - COMMAND_LINE),
    ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages_name_no_flags_to_who_writes_python(path):
  """Flags stand in the command's own modules, or in the wording for a command, and nowhere else."""
  texts = {node.value for node in ast.walk(ast.parse(path.read_text()))
           if isinstance(node, ast.Constant) and isinstance(node.value, str)}
  allowed = {keyword.value.value for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) for keyword in node.keywords
             if keyword.arg == "command" and isinstance(keyword.value, ast.Constant)}
  flags = [text for text in texts - allowed if re.search(r"--(workdir|fresh|config\b)", text)]
  docstrings = {node.body[0].value.value for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and node.body
                and isinstance(node.body[0], ast.Expr)
                and isinstance(node.body[0].value, ast.Constant)}
  assert set(flags) <= docstrings


def test_wording_follows_the_context_into_threads():
  assert wording.workdir() == "workdir" and wording.again() == "make the same call again"
  with wording.options_under("--"):
    assert wording.workdir() == "--workdir" and wording.again() == "give the same command again"
    with wording.options_under("config."):
      assert wording.option("steps", 3) == "--config.steps=3"
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
      context = contextvars.copy_context()
      assert threads.submit(context.run, wording.workdir).result() == "--workdir"
  assert wording.option("steps", 3) == "steps=3"


def test_a_result_is_pickled_and_compared_without_its_variables(straight):
  copy = pickle.loads(pickle.dumps(straight))
  assert_same_variables(copy.trained, straight.trained)
  assert "trained" not in repr(straight)[:200_000]


@pytest.mark.nightly
def test_a_network_with_atomic_references_serves_other_compositions(tmp_path):
  """Energies, in eV, of the loaded network are those that the sweep evaluated, frame by frame."""
  rng = np.random.default_rng(0)
  frames = 60
  species = np.where(np.arange(frames)[:, None] % 3, [[8, 1, 1, 0]], [[8, 8, 1, 1]])
  positions = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [0.5, 0.7, 1.2]])
  positions = positions + 0.05 * rng.normal(size=(frames, 4, 3))
  references = np.array([0.0, -13.0, 0, 0, 0, 0, 0, 0, -2041.0])
  energy = references[species].sum(axis=1) + 0.1 * rng.normal(size=frames)
  forces = rng.normal(size=(frames, 4, 3)) * (species > 0)[..., None]
  np.savez(tmp_path / "w.npz", positions=positions, species=species, energy=energy, forces=forces)
  config = tiny.config(dataset=str(tmp_path / "w.npz"), data__check_units=False,
                       labels="atomic_reference", seeds=1)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    result = dcnn.sweep(config, None, workdir=tmp_path / "w")
    sources = build.load(config)
    plan, dataset = build.build(config, sources), sources.dataset
  arm = dcnn.load(tmp_path / "w")["base"]
  assert isinstance(arm.transform, LabelTransform)
  test = dataset.take(plan.splits[0].test)
  kinds = np.unique(test.systems.species, axis=0)
  assert len(kinds) == 2  # so that one of them is not that of the first frame
  predicted = arm.predict(test.systems).energy[:, 0]
  np.testing.assert_allclose(predicted, result.predictions["energy_predicted"], rtol=0, atol=1e-3)
  errors = np.abs(predicted - test.labels.energy)
  np.testing.assert_allclose(errors.mean(), result.errors("energy_loss")["base"][0], rtol=1e-3)
  assert configs.seeds(config) == (0,)
