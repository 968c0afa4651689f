"""MLflow: an experiment is one, and its runs have arm and seed as parameters and tags."""

import os
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

from dcnn.jobs.trackers.base import OpenRun, Sweep, Values, Writer
from dcnn.results.records import INTERRUPTED, is_failed

_IDENTITY = "dcnn.run"  # the tag by which a run is found again
_BATCH = 1000  # metrics that a server takes at a time
_LONGEST_PARAMETER = 500  # characters


def start(sweep: Sweep) -> OpenRun:
  """From a sweep to the function that opens its runs; a run that the server has is gone on with."""
  uri = _address(sweep.directory)
  if uri.startswith("file:"):  # without a database, which mlflow-skinny does not bring
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
  import mlflow  # pyright: ignore[reportMissingImports]  (an extra)

  client = mlflow.MlflowClient(tracking_uri=uri)
  name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or sweep.experiment
  found = client.get_experiment_by_name(name)
  experiment = found.experiment_id if found else client.create_experiment(name)

  def open_run(arm: str, seed: int) -> Writer:
    identity = sweep.run_identity(arm, seed)
    runs = client.search_runs([experiment], f"tags.`{_IDENTITY}` = '{identity}'", max_results=1)
    run = runs[0] if runs else client.create_run(
        experiment, run_name=f"{arm} seed={seed}",
        tags={_IDENTITY: identity, "arm": arm, "seed": str(seed)})
    return _MlflowRun(client, run, sweep.hyperparameters(arm, seed))

  return open_run


def place(directory: pathlib.Path) -> str:
  """The address of the server, or of the files that stand in for one; for the user's eyes."""
  return re.sub(r"//[^/@]*@", "//", _address(directory))  # a password is nobody else's


def _address(directory: pathlib.Path) -> str:
  return os.environ.get("MLFLOW_TRACKING_URI") or (directory / "mlruns").absolute().as_uri()


class _MlflowRun:
  def __init__(self, client: Any, run: Any, hyperparameters: Mapping[str, Any]) -> None:
    from mlflow.entities import Param  # pyright: ignore[reportMissingImports]  (an extra)

    self._client, self._id = client, run.info.run_id
    self._known = {(name, point.step) for name in run.data.metrics
                   for point in client.get_metric_history(self._id, name)}
    client.update_run(self._id, status="RUNNING")
    if not run.data.params:
      client.log_batch(self._id, params=[
          Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in hyperparameters.items()])

  def log(self, curve: Mapping[int, Values]) -> None:
    from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]  (an extra)

    now = int(1000 * time.time())
    points = [Metric(name, value, now, step) for step, values in curve.items()
              for name, value in values.items() if (name, step) not in self._known]
    for first in range(0, len(points), _BATCH):
      self._client.log_batch(self._id, metrics=points[first:first + _BATCH])

  def end(self, status: str, step: int, results: Values) -> None:
    self.log({step: results})
    self._client.set_tag(self._id, "status", status)
    ending = "FAILED" if is_failed(status) else "FINISHED"
    self._client.set_terminated(
        self._id, "KILLED" if status.startswith(INTERRUPTED) else ending)
