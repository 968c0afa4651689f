"""TensorBoard: DIR/tensorboard/ARM/seed=N holds one file of events, which is a TFRecord file.

tensorboardX has the messages and the checksum. Its writers keep a file open, and a sweep may have
more runs than a process may open files; number by number, they also take nine times as long.
"""

import functools
import pathlib
import platform
import re
import struct
import time
import types
from collections.abc import Mapping
from typing import Any

from dcnn.jobs.trackers.base import OpenRun, Sweep, Values, digest
from dcnn.results.records import INTERRUPTED, is_failed

_NAME = "events.out.tfevents."
_OURS = ".dcnn"  # ends the names of our files, which alone are ever deleted
_LONGEST_FOLDER = 120  # characters; file systems take 255


def start(sweep: Sweep) -> OpenRun:
  """From a sweep to the function that opens its runs; a run is written anew."""
  folder = pathlib.Path(place(sweep.directory))
  return lambda arm, seed: _EventFile(
      folder / folder_name(arm) / f"seed={seed}", arm, sweep.hyperparameters(arm, seed))


def place(directory: pathlib.Path) -> str:
  """The folder to show to TensorBoard."""
  return str(directory / "tensorboard")


def folder_name(arm: str) -> str:
  """The name of an arm as that of a folder: `c=0.5,standardize` as it is, `a/b` as `a%2Fb`.

  What may mean something to a file system becomes the % codes of its bytes, and a name that is too
  long is cut, and ends in a digest of the whole.
  """
  name = re.sub(r"^[. ]|[. ]$|[^A-Za-z0-9_=,.+() -]", _percent_codes, arm)
  if len(name) <= _LONGEST_FOLDER:
    return name
  return f"{name[:_LONGEST_FOLDER - 17]}-{digest(arm)}"


def _percent_codes(found: re.Match[str]) -> str:
  return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


class _EventFile:
  """The events of a run, in a file that is closed between two visits."""

  def __init__(self, folder: pathlib.Path, arm: str, hyperparameters: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{_NAME}*{_OURS}"):
      old.unlink()
    self._path = folder / f"{_NAME}{int(time.time()):010d}.{platform.node()}{_OURS}"
    log = _messages().SessionLog
    self._append(
        _event(file_version="brain.Event:2"),
        # A TensorBoard that has read the file before this one forgets its points.
        _event(session_log=log(status=log.START)),
        _event(summary=_session_start(arm, hyperparameters)))

  def log(self, curve: Mapping[int, Values]) -> None:
    self._append(*(_event(step=step, summary=_scalars(values)) for step, values in curve.items()))

  def end(self, status: str, step: int, results: Values) -> None:
    if not status.startswith(INTERRUPTED):  # it goes on, and is written anew then
      self._append(_event(step=step, summary=_scalars(results)),
                   _event(step=step, summary=_session_end(status)))

  def _append(self, *events: bytes) -> None:
    with self._path.open("ab") as file:
      file.write(b"".join(map(_record, events)))


@functools.cache
def _messages() -> Any:
  """The messages that event files are made of; the modules make them when they are imported."""
  from tensorboardX.proto import api_pb2, event_pb2, plugin_hparams_pb2, summary_pb2

  return types.SimpleNamespace(**{
      **vars(api_pb2), **vars(event_pb2), **vars(plugin_hparams_pb2), **vars(summary_pb2)})


def _record(content: bytes) -> bytes:
  """A record of a TFRecord file: length and content, each with its masked CRC-32C."""
  length = struct.pack("<Q", len(content))
  return length + _checksum(length) + content + _checksum(content)


def _checksum(part: bytes) -> bytes:
  from tensorboardX.crc32c import crc32c

  crc = crc32c(part)
  return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _event(**content: Any) -> bytes:
  return _messages().Event(wall_time=time.time(), **content).SerializeToString()


def _scalars(values: Values) -> Any:
  """Numbers in float32, the form that every reader of event files takes."""
  make = _messages().Summary
  return make(value=[make.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def _session_start(arm: str, hyperparameters: Mapping[str, Any]) -> Any:
  """What the table of hyperparameters shows of a run; it groups runs by their arm."""
  session = _messages().SessionStartInfo(group_name=arm, start_time_secs=time.time())
  for name, value in hyperparameters.items():
    if isinstance(value, str):
      session.hparams[name].string_value = value
    else:
      session.hparams[name].number_value = value
  return _hyperparameter_summary("session_start_info", session)


def _session_end(status: str) -> Any:
  messages = _messages()
  ending = messages.STATUS_FAILURE if is_failed(status) else messages.STATUS_SUCCESS
  return _hyperparameter_summary("session_end_info", messages.SessionEndInfo(
      status=ending, end_time_secs=time.time()))


def _hyperparameter_summary(kind: str, message: Any) -> Any:
  messages = _messages()
  content = messages.HParamsPluginData(**{kind: message}).SerializeToString()
  metadata = messages.SummaryMetadata(
      plugin_data=messages.SummaryMetadata.PluginData(plugin_name="hparams", content=content))
  return messages.Summary(
      value=[messages.Summary.Value(tag=f"_hparams_/{kind}", metadata=metadata)])
