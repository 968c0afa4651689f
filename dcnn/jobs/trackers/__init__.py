"""The experiment trackers in which curves can be watched: TensorBoard, Weights & Biases, MLflow.

Each is a function that takes a sweep and returns the function that opens its runs. A run has the
same identity whenever its work directory is logged, so that nothing is logged twice: TensorBoard's
files are ours and written anew, the others are asked what they have. What is logged, and when, is
said by `tracking.py`.
"""

import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from dcnn.base import text
from dcnn.jobs.trackers import event_files, mlflow_runs, wandb_runs
from dcnn.jobs.trackers.base import OpenRun, Sweep, Writer

__all__ = ["TRACKERS", "OpenRun", "Sweep", "Tracker", "Writer", "check"]


class Tracker(NamedTuple):
  """A tracker.

  Attributes:
    package: What must be installed; the extra has the name of the tracker.
    module: What it is imported as.
    start: From a sweep to the function that opens its runs.
    place: Where the runs of a work directory go, for the user.
    check: Finds out before training what else would keep it from working.
  """

  package: str
  module: str
  start: Callable[[Sweep], OpenRun]
  place: Callable[[pathlib.Path], str]
  check: Callable[[], None] = lambda: None


TRACKERS: Mapping[str, Tracker] = {
    "tensorboard": Tracker(
        "tensorboardX", "tensorboardX", event_files.start, event_files.place),
    "wandb": Tracker("wandb", "wandb", wandb_runs.start, wandb_runs.place, wandb_runs.check),
    "mlflow": Tracker("mlflow-skinny", "mlflow", mlflow_runs.start, mlflow_runs.place)}


def check(names: Sequence[str]) -> None:
  """Makes sure that trackers can be used.

  Raises:
    ValueError: If there is none of a name, or it is not set up.
    ModuleNotFoundError: If one is not installed, naming the extra.
  """
  for name in names:
    if name not in TRACKERS:
      raise ValueError(text.unknown("tracker", name, TRACKERS))
    tracker = TRACKERS[name]
    found = importlib.util.find_spec(tracker.module)
    if found is None or found.origin is None:  # nothing, or a folder of the name
      raise ModuleNotFoundError(
          f"{name} needs {tracker.package}: pip install 'dcnn[{name}]'", name=tracker.module)
    tracker.check()
