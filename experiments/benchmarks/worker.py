"""The process that holds one contender, so that its memory and its threads are its own.

It reads a line of JSON for each request and answers with one, and sleeps in between.
"""

import importlib
import json
import os
import pathlib
import resource
import sys
import time
import traceback
from typing import Any, TextIO

from experiments.benchmarks.cases import Case, Contender
from experiments.benchmarks.contenders.base import Missing, Trainer


def main() -> None:
  """Builds what the first line asks for, then serves until the input ends."""
  channel = _private_channel()
  request = json.loads(sys.stdin.readline())
  _pin(request["cores"])
  try:
    serve = _make_server(request)
    for line in sys.stdin:
      _send(channel, {"answer": serve(**json.loads(line))})
  except (ImportError, Missing) as error:
    _send(channel, {"missing": str(error)})
  except Exception:  # what went wrong is for the parent to tell
    _send(channel, {"failed": traceback.format_exc()})


def _make_server(request: dict[str, Any]):
  case = Case(**request["case"])
  if request["task"] == "data":
    ours = importlib.import_module("experiments.benchmarks.contenders.ours")
    return lambda: ours.write_data(case, request["data"])
  contender = Contender(**request["contender"])
  module = importlib.import_module(f"experiments.benchmarks.contenders.{contender.module}")
  trainer = module.build(case, contender, request["data"])
  return lambda do, **options: _REQUESTS[do](trainer, **options)


def _describe(trainer: Trainer) -> dict[str, Any]:
  return {"parameters": trainer.parameters, "compile_seconds": trainer.compile_seconds,
          "versions": trainer.versions, "device": trainer.device}


def _advance(trainer: Trainer, steps: int) -> dict[str, float]:
  return _time(lambda: trainer.advance(steps))


def _products(
    trainer: Trainer, rows: int, inputs: int, outputs: int, repeats: int) -> dict[str, float]:
  return _time(lambda: trainer.products(rows, inputs, outputs, repeats))


def _time(function) -> dict[str, float]:
  started, processed = time.perf_counter(), time.process_time()
  function()
  return {"seconds": time.perf_counter() - started,
          "cpu_seconds": time.process_time() - processed}


def _fit(trainer: Trainer, steps: int, window: int) -> float:
  return trainer.fit(steps, window)


def _peak_memory(trainer: Trainer) -> float:
  """The most bytes that this process has held.

  `ru_maxrss` of a child that has not yet outgrown its parent is the parent's on Linux, so that
  the high-water mark of the process itself is read where the system tells it.
  """
  del trainer
  status = pathlib.Path("/proc/self/status")
  if status.exists():
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return 1024.0 * int(lines["VmHWM"].split()[0])
  unit = 1 if sys.platform == "darwin" else 1024
  return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


_REQUESTS = {
    "describe": _describe, "advance": _advance, "products": _products, "fit": _fit,
    "peak_memory": _peak_memory}


def _pin(cores: list[int]) -> None:
  """Pins this process to cores, before anything that makes threads is imported."""
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, cores)


def _private_channel() -> TextIO:
  """The standard output, for answers alone: what libraries print goes to the standard error."""
  channel = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  return channel


def _send(channel: TextIO, message: dict[str, Any]) -> None:
  channel.write(json.dumps(message) + "\n")
  channel.flush()


if __name__ == "__main__":
  main()
