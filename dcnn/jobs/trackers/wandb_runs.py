"""Weights & Biases: a project an experiment, a group an arm; its own variables come first."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from dcnn.jobs.trackers.base import OpenRun, Sweep, Values, Writer
from dcnn.results.records import INTERRUPTED, is_failed

_LONGEST = 128  # characters that a project, a group or a name may have


def start(sweep: Sweep) -> OpenRun:
  """From a sweep to the function that opens its runs; a run that the server has is resumed.

  Offline nothing is known of it: another folder of the same run is written, with the whole of it.
  """
  wandb = _quiet_wandb()
  chosen = {} if os.environ.get("WANDB_PROJECT") else {
      "project": re.sub(r"[/\\#?%:]", "-", sweep.experiment)[:_LONGEST]}
  # Nothing of the process is recorded, which all runs share.
  settings = wandb.Settings(
      silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True,
      save_code=False)

  def open_run(arm: str, seed: int) -> Writer:
    ending = f" seed={seed}"
    return _WandbRun(wandb.init(
        **chosen, id=sweep.run_identity(arm, seed), resume="allow", reinit="create_new",
        dir=place(sweep.directory), group=arm[:_LONGEST],
        name=f"{arm[:_LONGEST - len(ending)]}{ending}",
        config=sweep.hyperparameters(arm, seed), settings=settings))

  return open_run


def place(directory: pathlib.Path) -> str:
  """The folder in which wandb makes its own; what is there offline is uploaded by `wandb sync`."""
  return os.environ.get("WANDB_DIR") or str(directory)


def check() -> None:
  """Makes sure that wandb has a key, which it would ask for in the middle of the training.

  Raises:
    ValueError: If it has none and needs one.
  """
  wandb = _quiet_wandb()
  needs_key = wandb.setup().settings.mode in ("online", "shared")
  if needs_key and not wandb.login(prompt=False, verify=False):
    raise ValueError("wandb has no key: give it one by `wandb login`, or set WANDB_MODE=offline "
                     "and upload the runs later by `wandb sync`")


def _quiet_wandb() -> Any:
  import wandb  # pyright: ignore[reportMissingImports]  (an extra)

  wandb.setup(settings=wandb.Settings(silent=True))
  return wandb


class _WandbRun:
  def __init__(self, run: Any) -> None:
    self._run, self._next = run, run.step  # the latter is 0 unless the server knows the run

  def log(self, curve: Mapping[int, Values]) -> None:
    for step, values in curve.items():
      if step >= self._next:
        self._run.log(dict(values), step=step)

  def end(self, status: str, step: int, results: Values) -> None:
    best = {**results, "best_step": step} if results else {}
    self._run.summary.update({**best, "status": status})
    self._run.finish(exit_code=int(is_failed(status) or status.startswith(INTERRUPTED)))
