"""Where a result came from: versions, device, precision, and the state of the source."""

import datetime
import importlib.metadata
import pathlib
import platform
from typing import Any

import jax

from dcnn import processes, version

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")


def environment() -> dict:
  """What a reader needs to know of the machine and the program, ready for JSON."""
  device = jax.devices()[0]
  settings: Any = jax.config
  return {
      "versions": {"python": platform.python_version(), **_versions()},
      "device": device.device_kind if device.platform != "cpu" else _processor(),
      "platform": device.platform,
      "devices": jax.device_count(),
      "processes": jax.process_count(),
      "cores": processes.usable_cores(),
      "matmul_precision": settings.jax_default_matmul_precision or "default",
      "float64": bool(settings.jax_enable_x64),
      "git": version.revision(),
      "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
  }


def _versions() -> dict[str, str]:
  return {"dcnn": version.__version__,
          **{name: importlib.metadata.version(name) for name in PACKAGES}}


def _processor() -> str:
  """The CPU's name, where the system tells it."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor() or platform.machine()
  names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
  return names[0] if names else platform.machine()
