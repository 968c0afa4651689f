"""The experiment trackers in which curves can be watched: TensorBoard, Weights & Biases, MLflow.

Each is a function that takes a sweep and returns the function that opens its runs. A run has the
same identity whenever its work directory is logged, so that nothing is logged twice: TensorBoard's
files are ours and written anew, the others are asked what they have. What is logged, and when, is
`tracking.py`'s to say.
"""

import hashlib
import importlib.util
import os
import pathlib
import platform
import re
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from dcnn.base import text
from dcnn.results.records import INTERRUPTED, is_failed

Values = Mapping[str, float]  # by `split/metric`


class Sweep(NamedTuple):
  """A sweep that is logged.

  Attributes:
    directory: Its work directory.
    experiment: The name of the experiment.
    identity: What no other work directory has.
    settings: The settings of each arm as text, by arm and dotted key.
  """

  directory: pathlib.Path
  experiment: str
  identity: str
  settings: Mapping[str, Mapping[str, str]]

  def hyperparameters(self, arm: str, seed: int) -> dict[str, Any]:
    """What a tracker lists and sorts runs by: arm, seed, and the arm's settings as numbers."""
    settings = self.settings.get(arm, {})
    return {"arm": arm, "seed": seed, **{key: _number(value) for key, value in settings.items()}}

  def run_identity(self, arm: str, seed: int) -> str:
    """The same for a run of this sweep at any time, and no other's."""
    name = f"{self.identity}\n{arm}\n{seed}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(name).hexdigest()[:16]


class Writer(Protocol):
  """A run in a tracker."""

  def log(self, curve: Mapping[int, Values]) -> None:
    """Adds points of the curves, by step; those that are there already are left out."""

  def end(self, status: str, step: int, results: Values) -> None:
    """Writes down how the run ended, as results.csv does, and closes it."""


OpenRun = Callable[[str, int], Writer]  # of an arm and a seed


class Tracker(NamedTuple):
  """A tracker.

  Attributes:
    package: What must be installed; the extra has the name of the tracker.
    start: From a sweep to the function that opens its runs.
    place: Where the runs of a work directory are found, for the user.
    check: Finds out before training what else would keep it from working.
  """

  package: str
  start: Callable[[Sweep], OpenRun]
  place: Callable[[pathlib.Path], str]
  check: Callable[[], None] = lambda: None


def check(names: tuple[str, ...]) -> None:
  """Makes sure that trackers can be used.

  Raises:
    ValueError: If there is none of a name, or it is not set up.
    ModuleNotFoundError: If one is not installed, naming the extra.
  """
  for name in names:
    if name not in TRACKERS:
      raise ValueError(text.unknown("tracker", name, TRACKERS))
    package = TRACKERS[name].package
    if importlib.util.find_spec(package.partition("-")[0]) is None:
      raise ModuleNotFoundError(
          f"logging to {name} needs {package}: pip install 'dcnn[{name}]'", name=package)
    TRACKERS[name].check()


def _number(value: str) -> str | int | float:
  for kind in (int, float):
    try:
      return kind(value)
    except ValueError:
      continue
  return value


# TensorBoard: DIR/tensorboard/ARM/seed=N holds one file of events, in the format of TFRecord.

_EVENTS = "events.out.tfevents."
_OURS = ".dcnn"  # the end of their names: only such files are ever deleted
_LONGEST_NAME = 120  # of a folder; file systems take 255 bytes


def _tensorboard(sweep: Sweep) -> OpenRun:
  import tensorboardX  # noqa: F401  what is missing in it shows before the first run

  folder = sweep.directory / "tensorboard"
  return lambda arm, seed: _EventFile(
      folder / folder_name(arm) / f"seed={seed}", arm, sweep.hyperparameters(arm, seed))


def folder_name(arm: str) -> str:
  """The name of an arm as that of a folder: `c=0.5,standardize` as it is, `a/b` as `a%2Fb`.

  What may mean something to a file system or a shell becomes the % code of its bytes. A name that
  is too long is cut, and ends in a digest of the whole.
  """
  name = "".join(
      mark if re.fullmatch(r"[\w=,.+() -]", mark, re.ASCII) else
      "".join(f"%{byte:02X}" for byte in mark.encode("utf-8", "surrogatepass")) for mark in arm)
  name = re.sub(r"^[. ]|[. ]$", lambda end: f"%{ord(end[0]):02X}", name)
  if len(name) <= _LONGEST_NAME:
    return name
  digest = hashlib.sha256(arm.encode("utf-8", "surrogatepass")).hexdigest()[:8]
  return f"{name[:_LONGEST_NAME - 9]}-{digest}"


class _EventFile:
  """The events of a run. Between two visits it is closed: a sweep may have more runs than handles.

  tensorboardX's own writers keep a file open, and take nine times as long, number by number.
  """

  def __init__(self, folder: pathlib.Path, arm: str, hyperparameters: Mapping[str, Any]) -> None:
    from tensorboardX.proto import event_pb2

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{_EVENTS}*{_OURS}"):
      old.unlink()
    self._path = folder / f"{_EVENTS}{int(time.time()):010d}.{platform.node()}{_OURS}"
    log = event_pb2.SessionLog
    self._append([
        self._event(file_version="brain.Event:2"),
        # A TensorBoard that has read the file before this one forgets its points.
        self._event(session_log=log(status=log.START)),
        self._event(summary=_session_start(arm, hyperparameters))])

  def log(self, curve: Mapping[int, Values]) -> None:
    self._append([
        self._event(step=step, summary=_scalars(values)) for step, values in curve.items()])

  def end(self, status: str, step: int, results: Values) -> None:
    if not status.startswith(INTERRUPTED):  # what goes on is written anew
      self._append([self._event(step=step, summary=_scalars(results)),
                    self._event(step=step, summary=_session_end(status))])

  def _event(self, **content: Any) -> bytes:
    from tensorboardX.proto import event_pb2

    return event_pb2.Event(wall_time=time.time(), **content).SerializeToString()

  def _append(self, events: list[bytes]) -> None:
    with self._path.open("ab") as file:
      file.write(b"".join(map(_record, events)))


def _record(content: bytes) -> bytes:
  """A record of a TFRecord file: length, content, and the masked CRC-32C of both."""
  from tensorboardX.crc32c import crc32c

  def checksum(part: bytes) -> bytes:
    crc = crc32c(part)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

  length = struct.pack("<Q", len(content))
  return length + checksum(length) + content + checksum(content)


def _scalars(values: Values) -> Any:
  """Numbers in float32, the form that every reader of event files takes."""
  from tensorboardX.proto import summary_pb2

  return summary_pb2.Summary(value=[
      summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def _session_start(arm: str, hyperparameters: Mapping[str, Any]) -> Any:
  """What the table of hyperparameters shows of a run; it groups runs by their arm."""
  from tensorboardX.proto import plugin_hparams_pb2

  session = plugin_hparams_pb2.SessionStartInfo(group_name=arm, start_time_secs=time.time())
  for name, value in hyperparameters.items():
    if isinstance(value, str):
      session.hparams[name].string_value = value
    else:
      session.hparams[name].number_value = value
  return _hparams("session_start_info", session)


def _session_end(status: str) -> Any:
  from tensorboardX.proto import api_pb2, plugin_hparams_pb2

  ending = api_pb2.STATUS_FAILURE if is_failed(status) else api_pb2.STATUS_SUCCESS
  return _hparams("session_end_info", plugin_hparams_pb2.SessionEndInfo(
      status=ending, end_time_secs=time.time()))


def _hparams(kind: str, message: Any) -> Any:
  from tensorboardX.proto import plugin_hparams_pb2, summary_pb2

  content = plugin_hparams_pb2.HParamsPluginData(**{kind: message}).SerializeToString()
  return summary_pb2.Summary(value=[summary_pb2.Summary.Value(
      tag=f"_hparams_/{kind}", metadata=summary_pb2.SummaryMetadata(
          plugin_data=summary_pb2.SummaryMetadata.PluginData(
              plugin_name="hparams", content=content)))])


# Weights & Biases: a project an experiment, a group an arm. Its own variables come first.

_LONGEST_WANDB_NAME = 128


def _check_wandb() -> None:
  """Makes sure that it need not ask for a key, which it would do in the middle of the training."""
  wandb = _quiet_wandb()
  if wandb.setup().settings.mode in ("online", "shared") and not wandb.login(prompt=False):
    raise ValueError("wandb has no key: give it one by `wandb login`, or set WANDB_MODE=offline "
                     "and upload the runs later by `wandb sync`")


def _quiet_wandb() -> Any:
  import wandb  # pyright: ignore[reportMissingImports]  (an extra)

  wandb.setup(settings=wandb.Settings(silent=True))
  return wandb


def _wandb(sweep: Sweep) -> OpenRun:
  wandb = _quiet_wandb()
  chosen = {} if os.environ.get("WANDB_PROJECT") else {
      "project": re.sub(r"[/\\#?%:]", "-", sweep.experiment)[:_LONGEST_WANDB_NAME]}

  def open_run(arm: str, seed: int) -> Writer:
    return _WandbRun(wandb.init(
        dir=_wandb_place(sweep.directory), id=sweep.run_identity(arm, seed), resume="allow",
        reinit="create_new", group=arm[:_LONGEST_WANDB_NAME],
        name=f"{arm[:_LONGEST_WANDB_NAME - 12]} seed={seed}"[:_LONGEST_WANDB_NAME],
        config=sweep.hyperparameters(arm, seed), **chosen,
        # Of the process it records nothing: one process has all runs.
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True,
                                x_disable_meta=True, disable_git=True, save_code=False)))

  return open_run


def _wandb_place(directory: pathlib.Path) -> str:
  return os.environ.get("WANDB_DIR") or str(directory)


class _WandbRun:
  def __init__(self, run: Any) -> None:
    self._run, self._next = run, run.step  # the latter is 0 unless the server knows the run

  def log(self, curve: Mapping[int, Values]) -> None:
    for step, values in curve.items():
      if step >= self._next:
        self._run.log(dict(values), step=step)

  def end(self, status: str, step: int, results: Values) -> None:
    self._run.summary.update({**results, "status": status, "step": step})
    self._run.finish(exit_code=int(is_failed(status) or status.startswith(INTERRUPTED)))


# MLflow: an experiment is one, arms and seeds are parameters and tags.

_BATCH = 1000  # metrics that a server takes at a time
_LONGEST_PARAMETER = 500


def _mlflow(sweep: Sweep) -> OpenRun:
  uri = _mlflow_place(sweep.directory)
  if uri.startswith("file:"):  # what mlflow-skinny can write without a database
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
  import mlflow  # pyright: ignore[reportMissingImports]  (an extra)

  client = mlflow.MlflowClient(tracking_uri=uri)
  name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or sweep.experiment
  found = client.get_experiment_by_name(name)
  experiment = found.experiment_id if found else client.create_experiment(name)

  def open_run(arm: str, seed: int) -> Writer:
    identity = sweep.run_identity(arm, seed)
    runs = client.search_runs([experiment], f"tags.`dcnn.run` = '{identity}'", max_results=1)
    return _MlflowRun(client, runs[0] if runs else client.create_run(
        experiment, run_name=f"{arm} seed={seed}",
        tags={"dcnn.run": identity, "arm": arm, "seed": str(seed)}),
        sweep.hyperparameters(arm, seed))

  return open_run


def _mlflow_place(directory: pathlib.Path) -> str:
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
    ending = "KILLED" if status.startswith(INTERRUPTED) else "FAILED" if is_failed(status) else (
        "FINISHED")
    self._client.set_terminated(self._id, ending)


TRACKERS: Mapping[str, Tracker] = {
    "tensorboard": Tracker(
        "tensorboardX", _tensorboard, lambda directory: str(directory / "tensorboard")),
    "wandb": Tracker("wandb", _wandb, _wandb_place, _check_wandb),
    "mlflow": Tracker("mlflow-skinny", _mlflow, _mlflow_place)}
