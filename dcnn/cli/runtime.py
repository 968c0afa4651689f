"""What the command line sets for the whole process: JAX, XLA's flags, libraries, silence."""

import logging
import os
import pathlib
import re
import shlex
import subprocess
import sys
import warnings
from typing import Any

import jax

from dcnn.base import processes
from dcnn.cli.messages import FAILURE, Stop
from dcnn.jobs import display

CACHE_BYTES = 2**30  # of compiled programs, the oldest of which go first; one takes 1 to 3 MB
WORTH_KEEPING_SECONDS = 0.1
_VARIABLES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES",
              "JAX_CUDA_VISIBLE_DEVICES")


def configure_jax(*, alone: bool = True) -> None:
  """Makes the global settings of JAX; call it before JAX makes its first array.

  Args:
    alone: Whether there are no other processes. If there are, JAX's own settings say what is kept,
      because on GPUs a process that compiles waits for those that found the program in their
      cache.
  """
  # A sweep spreads its runs over devices, and a CPU is one device unless told otherwise.
  if "JAX_NUM_CPU_DEVICES" not in os.environ and (
      "host_platform_device_count" not in os.environ.get("XLA_FLAGS", "")):
    jax.config.update("jax_num_cpu_devices", processes.usable_cores())
  if alone:
    _keep_compiled_programs()


def check_xla_flags() -> None:
  """Makes sure that XLA takes the flags in its variable, if there are any.

  XLA aborts a process that gives it others, so another process tries them, for a second or two.

  Raises:
    Stop: With what XLA says of the first flag that it does not take.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  if not flags.strip():
    return
  tried = subprocess.run(
      [sys.executable, "-c", "import jax; jax.devices('cpu')"], capture_output=True, text=True,
      errors="replace", env={**os.environ, "JAX_PLATFORMS": "cpu"})
  if tried.returncode:
    lines = [line for line in tried.stderr.splitlines() if "flag" in line.lower()] or [""]
    reason = re.sub(r"^[A-Z]\d{4} .*?\] ", "", lines[0])[:200]
    raise Stop(
        f"XLA_FLAGS={shlex.quote(flags)}: XLA refuses it ({reason or 'it ends at once'}): correct "
        "or unset XLA_FLAGS", FAILURE)


def check_devices() -> None:
  """Starts JAX's devices, so that a failure is told before anything else is done.

  Raises:
    Stop: With the values of the environment variables that JAX reads.
  """
  try:
    jax.devices()
  except Exception as error:  # JAX raises RuntimeError, AssertionError and others
    values = [
        f"{name}={shlex.quote(os.environ[name])}" for name in _VARIABLES if name in os.environ]
    reason = (str(error).strip().splitlines() or ["it gives no reason"])[0][:300]
    advice = ("correct it, or unset it for the devices that JAX finds by itself" if values else
              "set JAX_PLATFORMS=cpu to compute on the CPU")
    raise Stop(
        f"{' '.join(values) or 'JAX'}: JAX finds no device to compute on ({reason}): {advice}",
        FAILURE) from error


def quieten_libraries() -> None:
  """Silences what libraries say of failures that the command tells in a line of its own.

  Orbax and asyncio would describe each array of a save that failed. Matplotlib would describe a
  font cache that it cannot write, which only saves time, and settings of the user, which are not
  used. MLflow's client would describe each try to reach a server that is away.
  """
  for name in ("absl", "asyncio", "matplotlib", "urllib3"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  _say_what_is_fetched()
  hook = sys.unraisablehook

  def unraisable(raised: Any) -> None:
    if str(raised.exc_value) != "Event loop is closed":
      hook(raised)

  sys.unraisablehook = unraisable


class _Said(logging.Handler):
  """Says what is logged."""

  def emit(self, record: logging.LogRecord) -> None:
    display.say(record.getMessage())


def _say_what_is_fetched() -> None:
  """A download of a gigabyte must not look like a command that hangs."""
  log = logging.getLogger("dcnn.data.fetching")
  log.handlers, log.propagate = [_Said()], False
  log.setLevel(logging.INFO)


def silence() -> None:
  """Silences a process for which another one speaks; its errors are told all the same."""
  sys.stdout = open(os.devnull, "w")
  warnings.simplefilter("ignore")


def _keep_compiled_programs() -> None:
  """Keeps compiled programs for the next process, unless JAX's own settings say where."""
  settings: Any = jax.config
  try:
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(cache) / "dcnn" / "compiled"  # for JAX alone, which deletes in it
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # there is no home, or none to write to
    return
  if settings.jax_compilation_cache_dir or not os.access(folder, os.W_OK):
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING_SECONDS)
  # The cache only saves time: on a full disk it is the checkpoints that the user must hear of.
  warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
