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


class Sweep:
  """The command in a process group of its own; its output goes to a file."""

  def __init__(self, experiment: pathlib.Path, workdir: pathlib.Path) -> None:
    self.workdir, self.log = workdir, workdir.with_suffix(".log")
    with self.log.open("wb") as log:
      self.process = subprocess.Popen(
          [sys.executable, "-m", "dcnn", f"--config={experiment}", f"--workdir={workdir}"],
          stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

  def saved(self) -> list[str]:
    return sorted(path.relative_to(self.workdir).as_posix()
                  for path in self.workdir.glob("checkpoints/*/*"))

  def wait_for(self, condition) -> None:
    """Returns when the condition holds, or the process has ended by itself."""
    while self.process.poll() is None and not condition():
      time.sleep(0.002)

  def kill(self) -> str:
    """Kills the whole group, and tells what it said last and what it had saved."""
    os.killpg(self.process.pid, signal.SIGKILL)
    assert self.process.wait() == -signal.SIGKILL, "it ended before it was killed"
    said = self.log.read_text().splitlines() or ["nothing yet"]
    return f"{said[-1]!r}, {' '.join(self.saved())}"

  def finish(self) -> None:
    assert self.process.wait(timeout=300) == 0, self.log.read_text()


def wait(sweep: Sweep, moment: str, moments: random.Random) -> None:
  """Until a random time within a phase."""
  before, results = set(sweep.saved()), sweep.workdir / "results.csv"
  if moment == "start":
    time.sleep(moments.uniform(0.2, 3))
  elif moment == "saving":
    sweep.wait_for(lambda: any(
        "unfinished" in path for path in set(sweep.saved()) - before))
  elif moment == "training":
    sweep.wait_for(lambda: set(sweep.saved()) - before)
    time.sleep(moments.uniform(0, 1.5))
  elif moment == "report":
    results.unlink(missing_ok=True)
    sweep.wait_for(results.exists)
    time.sleep(moments.uniform(0, 1.5))
  else:
    sweep.wait_for(lambda: moment in sweep.log.read_text())
    time.sleep(moments.uniform(0, 1.5))


FEW = ("compiling", "saving", "evaluating")
MANY = ("start", "compiling", "training", "saving") * 4 + (
    "evaluating", "report", "report", "report")


@pytest.mark.parametrize("kills, steps", [
    (FEW, 2000), pytest.param(MANY, 200_000, marks=pytest.mark.nightly)], ids=["few", "many"])
def test_killed_at_random_moments(tmp_path, kills, steps):
  """The order of the phases is fixed, the moment within each is not."""
  experiment = tmp_path / "experiment.py"
  experiment.write_text(EXPERIMENT.replace("STEPS", str(steps)))
  Sweep(experiment, tmp_path / "straight").finish()
  seed = random.randrange(10**6)
  moments = random.Random(seed)
  for number, moment in enumerate(kills):
    sweep = Sweep(experiment, tmp_path / "killed")
    wait(sweep, moment, moments)
    print(f"seed {seed}, kill {number}, {moment}: {sweep.kill()}", flush=True)
  Sweep(experiment, tmp_path / "killed").finish()
  for name in ("results.csv", "summary.json", "history.csv", "predictions.npz"):
    assert (tmp_path / "killed" / name).read_bytes() == (
        tmp_path / "straight" / name).read_bytes(), (name, seed)
