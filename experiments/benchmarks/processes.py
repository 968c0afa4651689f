"""Starts workers and asks them; the other end is `worker`."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]


def core_numbers() -> list[int]:
  """The numbers of the cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def start(request: dict[str, Any], cache: str | None = None) -> subprocess.Popen:
  """Starts a worker, which builds what it is asked for.

  Args:
    request: What to build: a case, the data, cores, a task and a contender.
    cache: The directory of JAX's persistent compilation cache; None for that of the environment.

  Returns:
    The process, which `ask` and `stop` take.
  """
  environment = dict(os.environ)
  environment["PYTHONPATH"] = os.pathsep.join(
      [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
  environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # workers share an accelerator
  environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as dcnn does
  if cache is not None:
    environment |= {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0"}
  process = subprocess.Popen(
      [sys.executable, "-m", "experiments.benchmarks.worker"], stdin=subprocess.PIPE,
      stdout=subprocess.PIPE, text=True, env=environment)
  _write(process, request)
  return process


def accelerator_command(function: str, *arguments: Any) -> list[str]:
  """The command that calls a function of `accelerator_worker` in a process of its own.

  Args:
    function: The name of the function.
    *arguments: Its arguments, made of what JSON can hold.
  """
  return [sys.executable, "-m", "experiments.benchmarks.accelerator_worker", function,
          json.dumps(arguments)]


def ask(process: subprocess.Popen, **request: Any) -> Any:
  """Sends a request and waits for its answer.

  Args:
    process: A worker.
    **request: What is to be done, under `do`, and its arguments.

  Returns:
    The answer, made of what JSON can hold.

  Raises:
    LookupError: If the contender cannot be measured here, with the reason.
    RuntimeError: If the worker failed, with its traceback.
  """
  _write(process, request)
  assert process.stdout is not None
  line = process.stdout.readline()
  if not line:
    raise RuntimeError(f"a worker ended with exit status {process.wait()} and no answer")
  message = json.loads(line)
  if "missing" in message:
    raise LookupError(message["missing"])
  if "failed" in message:
    raise RuntimeError(message["failed"])
  return message["answer"]


def stop(process: subprocess.Popen) -> None:
  """Ends a worker."""
  assert process.stdin is not None
  try:
    process.stdin.close()
    process.wait(timeout=10)
  except (BrokenPipeError, subprocess.TimeoutExpired):
    process.kill()
    process.wait()


def _write(process: subprocess.Popen, message: dict[str, Any]) -> None:
  assert process.stdin is not None
  try:
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
  except BrokenPipeError:
    pass  # the worker has ended, and says why on the other line
