"""Where a result came from: versions, device, precision, and the state of the source."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
from typing import Any

import jax

from dcnn.base import processes, version

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")
# Settings of JAX from which numbers follow; each is a variable of the environment in capitals.
SETTINGS = (
    "jax_compiler_enable_remat_pass", "jax_cpu_enable_async_dispatch", "jax_default_prng_impl",
    "jax_disable_jit", "jax_disable_most_optimizations", "jax_enable_custom_prng",
    "jax_exec_time_optimization_effort", "jax_memory_fitting_effort", "jax_memory_fitting_level",
    "jax_numpy_dtype_promotion", "jax_optimization_level", "jax_random_seed_offset",
    "jax_softmax_custom_jvp", "jax_threefry_gpu_kernel_lowering", "jax_threefry_partitionable",
    "jax_use_direct_linearize", "jax_use_shardy_partitioner")
# Other variables of the environment that do.
VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE",
             "TF_CUDNN_DETERMINISTIC", "XLA_FLAGS")
# Flags of XLA that change no number; the number of devices is recorded by itself.
_HARMLESS_FLAGS = ("--xla_force_host_platform_device_count", "--xla_dump", "--xla_gpu_dump",
                   "--xla_hlo_profile", "--xla_log", "--xla_gpu_force_compilation_parallelism",
                   "--xla_gpu_per_fusion_autotune_cache_dir")


def environment() -> dict:
  """What a reader needs to know of the machine and the program, ready for JSON."""
  device = jax.devices()[0]
  settings: Any = jax.config
  return {
      "versions": {
          "python": platform.python_version(), "dcnn": version.__version__,
          **{name: importlib.metadata.version(name) for name in PACKAGES}},
      "device": device.device_kind if device.platform != "cpu" else _processor(),
      "platform": device.platform,
      "devices": jax.device_count(),
      "processes": jax.process_count(),
      "cores": processes.usable_cores(),
      "loop_threads": _loop_threads(device.platform),
      "matmul_precision": settings.jax_default_matmul_precision or "default",
      "float64": bool(settings.jax_enable_x64),
      "settings": {name: _plain(getattr(settings, name)) for name in SETTINGS
                   if hasattr(settings, name)},
      "variables": _variables(),
      "git": version.revision(),
      "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
  }


def _loop_threads(platform_name: str) -> int:
  """Threads over which XLA spreads a loop on a CPU: how it is cut decides how sums are rounded.

  Where each core has a device of its own, loops are not spread (see `engine`), and neither are
  they by the host of an accelerator.
  """
  cores = processes.usable_cores()
  if platform_name != "cpu":
    return 1
  return 1 if jax.local_device_count() * processes.on_this_machine() >= cores else cores


def _variables() -> dict[str, str]:
  """What is set of the variables, without the flags that change no number."""
  found = {name: os.environ.get(name, "").strip() for name in VARIABLES}
  flags = sorted(flag for flag in _words(found["XLA_FLAGS"])
                 if not flag.startswith(_HARMLESS_FLAGS))
  return {name: value for name, value in {**found, "XLA_FLAGS": " ".join(flags)}.items() if value}


def _words(text: str) -> list[str]:
  try:
    return shlex.split(text)
  except ValueError:  # a quotation without end
    return text.split()


def _plain(value: Any) -> str | int | float | bool | None:
  """A setting that fits into JSON; some are members of an enumeration."""
  value = getattr(value, "value", value)
  return value if isinstance(value, str | int | float | bool | None) else str(value)


def _processor() -> str:
  """The CPU's name, where the system tells it."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor() or platform.machine()
  names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
  return names[0] if names else platform.machine()
