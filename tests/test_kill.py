"""A sweep that is killed and given again ends as if nothing had happened, byte for byte."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")
# Two groups; with these launches of two runs each, so that there is always something in between.
EXPERIMENT = """
from dcnn import configs

def get_config():
  config = configs.default()
  config.arms = ({}, {"activation.c": 1.0}, {"activation.name": "silu"}, {"activation.c": 1e30})
  config.model.name, config.model.hidden = "MLP", (16,)
  config.split.train, config.split.valid, config.split.test = 100, 20, 20
  config.steps, config.chunk, config.batch_size, config.seeds = STEPS, STEPS // 7, 4, 2
  config.checkpoint_every = 0.05
  return config
"""


def start(experiment: pathlib.Path, workdir: pathlib.Path, *flags: str) -> subprocess.Popen[str]:
  """The command in a process group of its own."""
  return subprocess.Popen(
      [sys.executable, "-m", "dcnn.main", f"--config={experiment}", f"--workdir={workdir}",
       *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> str:
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  return output


def kill(process: subprocess.Popen[str], workdir: pathlib.Path) -> str:
  """Kills the whole group, and tells what it said last and what it had saved."""
  os.killpg(process.pid, signal.SIGKILL)
  output, _ = process.communicate()
  saved = sorted(path.relative_to(workdir).as_posix() for path in workdir.glob("checkpoints/*/*"))
  return f"{(output.splitlines() or ['nothing yet'])[-1]!r}, {' '.join(saved)}"


@pytest.mark.parametrize("early, late, steps", [
    (2, 1, 3000), pytest.param(15, 4, 80_000, marks=pytest.mark.nightly)], ids=["few", "many"])
def test_killed_at_random_moments(tmp_path, early, late, steps):
  """`early` kills in start-up, compilation and training, one at its end, `late` in the report."""
  experiment = tmp_path / "experiment.py"
  experiment.write_text(EXPERIMENT.replace("STEPS", str(steps)))
  started = time.monotonic()
  finish(start(experiment, tmp_path / "straight"))
  duration = time.monotonic() - started

  seed = random.randrange(10**6)
  moments = random.Random(seed)
  for number in range(early + 1 + late):
    process = start(experiment, tmp_path / "killed")
    if number == early:
      assert process.stdout is not None
      while "100%, evaluating" not in process.stdout.readline():
        pass
      time.sleep(moments.uniform(0, 2))
    else:
      time.sleep(moments.uniform(2, 0.7 * duration))
    print(f"seed {seed}, kill {number}: {kill(process, tmp_path / 'killed')}")
  finish(start(experiment, tmp_path / "killed"))
  for name in ("results.csv", "summary.json", "history.csv", "predictions.npz"):
    assert (tmp_path / "killed" / name).read_bytes() == (
        tmp_path / "straight" / name).read_bytes(), (name, seed)
