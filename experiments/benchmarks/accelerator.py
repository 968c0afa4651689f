"""How does dcnn do on an accelerator? One command, minutes, for a machine that is lent for minutes.

  python -m experiments.benchmarks.accelerator --out=accelerator --seconds=480

Measured, the most valuable first: versions and rates of the device; `ablations:smoke` against the
CPU; all runs of `ablations:grid` from the data to the report; PyTorch Geometric; a step of 1 to
1,000 runs, with its kernels; precisions; ways to compile; a step of each network; the tests of what
an accelerator does otherwise; GridACE on rMD17 ethanol (`--data=FOLDER` with train.extxyz and
test.extxyz) in the time that is left, which the same command with `--only=ethanol` continues. Each
measurement has a process and a time limit of its own, and what it has found is on the disk at
once, so that nothing is lost by what comes later. `--only=device,grid` chooses.

A machine that reaches no package index takes its packages along. Here, and then there:

  python -m pip download --no-deps --only-binary=:all: --python-version 3.12 \\
      --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \\
      --platform manylinux2014_x86_64 -d wheels \\
      ml-collections ase vesin beartype flax optax chex orbax-checkpoint
  python3 -m pip install -q --no-index --no-deps --target site wheels/*.whl
  PYTHONPATH=site:. python3 -m experiments.benchmarks.accelerator --out=accelerator
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from experiments.benchmarks import processes, tables

OUT = flags.DEFINE_string("out", "accelerator", "Folder that the figures are written to.")
SECONDS = flags.DEFINE_float("seconds", 480.0, "All in all.", lower_bound=1.0)
DATA = flags.DEFINE_string("data", "", "Folder of rMD17 ethanol: train.extxyz and test.extxyz.")
QUICK = flags.DEFINE_bool("quick", False, "Tiny sizes: only see that everything works.")
VMAPPED = flags.DEFINE_bool("vmapped", False, "Map the runs on a CPU as on an accelerator.")
LIMIT = flags.DEFINE_multi_string(
    "limit", [], "NAME=SECONDS of a measurement, in place of its usual limit.")
# In this order; the most seconds that each may take.
LIMITS = {"device": 60, "smoke": 60, "grid": 90, "pyg": 60, "runs": 100, "precision": 100,
          "compiling": 60, "larger": 100, "networks": 120, "tests": 150, "pyg_larger": 60,
          "ethanol": 300, "knobs": 120}
ONLY = flags.DEFINE_list("only", list(LIMITS), "Which measurements.")

Figures = dict[str, dict[str, Any]]


def main(argv: Sequence[str]) -> None:
  """Measures one after the other and prints what is known at the end."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}: every setting has a flag")
  if unknown := set(ONLY.value) - set(LIMITS):
    raise app.UsageError(f"--only: unknown {sorted(unknown)}; known are {', '.join(LIMITS)}")
  limits = LIMITS | {name: float(value) for name, value in (
      each.split("=") for each in LIMIT.value)}
  out = pathlib.Path(OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  end = time.monotonic() + SECONDS.value
  figures: Figures = {}
  with tempfile.TemporaryDirectory() as scratch:
    for name in LIMITS:
      left = end - time.monotonic()
      if name in ONLY.value and left > 5:
        figures[name] = _measure(name, min(limits[name], left), pathlib.Path(scratch))
        (out / "accelerator.json").write_text(json.dumps(figures, indent=1))
        print(f"{name}: {figures[name]['ended']}, {figures[name]['seconds']:.0f} s", flush=True)
  report = "\n".join(_report(figures))
  (out / "accelerator.md").write_text(report + "\n")
  print(report)


def _measure(name: str, limit: float, scratch: pathlib.Path) -> dict[str, Any]:
  """Starts a measurement; returns the figures that it has left, and how it ended."""
  path = scratch / f"{name}.json"
  command = processes.accelerator_command(
      "measure", name, str(path), QUICK.value, VMAPPED.value, DATA.value,
      str(pathlib.Path(OUT.value).absolute()), str(scratch / "device.json"))
  environment = {
      **os.environ, "PYTHONPATH": os.pathsep.join(
          [str(processes.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
      "JAX_COMPILATION_CACHE_DIR": str(scratch / "cache"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
  if name.startswith("pyg"):
    environment["JAX_PLATFORMS"] = "cpu"  # the device is PyTorch's
  started = time.monotonic()
  log = scratch / f"{name}.log"
  with log.open("w") as file, subprocess.Popen(
      command, cwd=processes.ROOT, env=environment, start_new_session=True,
      stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT) as process:
    try:
      ended = "ended" if process.wait(limit) == 0 else f"failed with status {process.returncode}"
    except subprocess.TimeoutExpired:
      ended = f"stopped at its limit of {limit:.0f} s"
    with contextlib.suppress(ProcessLookupError):  # whatever it started goes with it
      os.killpg(process.pid, signal.SIGKILL)
  found = json.loads(path.read_text()) if path.exists() else {}
  lines = log.read_text(errors="replace").splitlines()[-40:]
  return {"ended": ended, "seconds": time.monotonic() - started, "log": lines, **found}


def _report(figures: Figures) -> list[str]:
  """All tables, and the last lines of each measurement that did not end well."""
  lines = []
  for name, found in figures.items():
    lines += ["", f"## {name} ({found['ended']}, {found['seconds']:.0f} s)", ""]
    try:
      lines += _SECTIONS[name](found, figures)
    except (KeyError, TypeError, ValueError) as error:  # what is missing must not hide the rest
      lines.append(f"incomplete: {error!r}; {json.dumps(found, default=str)[:1500]}")
    if found["ended"] != "ended":
      lines += ["", *found["log"][-12:]]
  return lines


def _device(found: dict[str, Any], figures: Figures) -> list[str]:
  environment = found["environment"]
  versions = ", ".join(f"{name} {value}" for name, value in environment["versions"].items())
  rates = ", ".join(f"{name} {value:.3g}" for name, value in found.items()
                    if name.endswith(("TFLOP/s", "GB/s")))
  limit = found["memory"].get("bytes_limit", 0) / 2**30
  return [f"{environment['device']}, {environment['cores']} cores, {limit:.1f} GiB for JAX",
          versions, f"large products, and copies counted both ways: {rates}"]


def _smoke(found: dict[str, Any], figures: Figures) -> list[str]:
  lines = [(part, arm, f"{worst['largest']:.1e}", worst["where"])
           for part in ("errors", "curves") for arm, worst in found[part].items()]
  return [tables.markdown(("part", "arm", "largest relative difference to the CPU", "where"),
                          lines), f"seconds: {found['seconds_by_phase']}"]


def _grid(found: dict[str, Any], figures: Figures) -> list[str]:
  timing, placement = found["timing"], found["placement"]
  parts = ", ".join(f"{name.removesuffix('_seconds')} {timing[name]:.1f} s"
                    for name in ("compile_seconds", "train_seconds", "evaluate_seconds",
                                 "total_seconds"))
  lines = [
      f"{timing['runs']} runs, {found['steps']} steps: {parts}; from data to report "
      f"{found['wall_seconds']:.1f} s; {1e3 * timing['train_seconds'] / found['steps']:.3f} ms a "
      "step of all, validations included",
      "of it: " + ", ".join(f"{name.strip('_')} {spent:.1f} s"
                            for name, spent in found["phases"].items()),
      f"memory: {placement['bytes_needed'] / 2**20:.0f} MiB expected, "
      f"{found['peak_memory_bytes'] / 2**20:.0f} MiB at most in use; "
      f"{placement['launches']} launch(es)"]
  pyg_ms = figures.get("pyg", {}).get("ms_per_step")
  if pyg_ms:
    sequential = min(pyg_ms) * 1e-3 * found["steps"] * timing["runs"]
    lines.append(f"PyTorch Geometric, one run after another: {sequential:.0f} s of training, "
                 f"{sequential / timing['train_seconds']:.0f} times ours, and "
                 f"{sequential / found['wall_seconds']:.0f} times our time from data to report")
  return lines


def _pyg(found: dict[str, Any], figures: Figures) -> list[str]:
  if "missing" in found:
    return [f"left out: {found['missing']}"]
  return [f"{found['device']}: {', '.join(f'{ms:.2f}' for ms in found['ms_per_step'])} ms a step"]


def _variants(found: dict[str, Any], figures: Figures) -> list[str]:
  rows = [each for each in found.values() if isinstance(each, dict) and "ms_per_step" in each]
  header = ("variant", "runs", "ms/step", "us/step/run", "compile, s", "MiB/run", "GFLOP/s",
            "of large product", "launches by text", "kernels", "busy ms", "MB moved")
  lines = [(
      row["name"], row["runs"], f"{row['ms_per_step']:.3f}",
      f"{1e3 * row['ms_per_step'] / row['runs']:.2f}", f"{row['compile_seconds']:.1f}",
      f"{row['bytes_needed'] / row['runs'] / 2**20:.2f}", f"{row['useful_gflops']:.0f}",
      f"{row['of_large_product']:.3f}", row.get("launched_by_text", ""),
      f"{row.get('trace', {}).get('kernels_per_step', float('nan')):.0f}",
      f"{row.get('trace', {}).get('busy_ms_per_step', float('nan')):.3f}",
      f"{row['bytes_accessed'] / 1e6:.0f}") for row in rows]
  shown = [tables.markdown(header, lines)]
  shown += _failures(found)
  for row in rows:
    largest = list(row.get("trace", {}).get("largest", {}).items())[:10]
    if largest:
      shown += ["", f"{row['name']}, largest kernels (ms a step, calls a step):",
               *(f"  {ms:.4f} {calls:.1f} {name[:90]}" for name, (ms, calls) in largest)]
  return shown


def _failures(found: dict[str, Any]) -> list[str]:
  """Why those parts of a measurement failed that did, a line for each."""
  return [f"{name}: {each['failed']}" for name, each in found.items()
          if isinstance(each, dict) and "failed" in each]


def _compiling(found: dict[str, Any], figures: Figures) -> list[str]:
  lines = _variants(found, figures)
  for name, each in found.items():
    if isinstance(each, dict) and "compilations" in each:
      lines.append(f"{name}: {'; '.join(each['compilations'][-4:])}")
  return lines


def _precision(found: dict[str, Any], figures: Figures) -> list[str]:
  exact = found.get("against float64", {})
  header = ("products", "ms/step", "compile, s", "energy_loss by that of float32", "force_loss",
            "forces", "loss gradient", "energy, meV")
  lines = []
  for name, each in found.items():
    if isinstance(each, dict) and "ms_per_step" in each:
      errors = exact.get(name, {})
      lines.append((
          name, f"{each['ms_per_step']:.3f}", f"{each['timing']['compile_seconds']:.1f}",
          *("{1:.3f} [{0:.3f}, {2:.3f}]".format(*each["ratios"][metric])
            for metric in ("energy_loss", "force_loss")),
          *(f"{errors.get(part, float('nan')):.1e}"
            for part in ("forces", "gradient", "energy_mev"))))
  return [tables.markdown(header, lines), *_failures(found)]


def _tests(found: dict[str, Any], figures: Figures) -> list[str]:
  return [str(found["outcomes"]), *(
      f"{name}: {reason.splitlines()[0] if reason else ''}"
      for name, reason in found.get("failed", {}).items())]


def _ethanol(found: dict[str, Any], figures: Figures) -> list[str]:
  lines = [json.dumps(found.get(name)) for name in ("missing", "progress", "timing", "errors")
           if name in found]
  return [*lines, *(f"step {step}: validation {', '.join(f'{each:.4g}' for each in values)} eV/A"
                    for step, values in found.get("curve", []))]


_SECTIONS = {
    "device": _device, "smoke": _smoke, "grid": _grid, "pyg": _pyg, "runs": _variants,
    "larger": _variants, "networks": _variants, "pyg_larger": _pyg, "knobs": _variants,
    "compiling": _compiling, "precision": _precision, "tests": _tests, "ethanol": _ethanol}


if __name__ == "__main__":
  app.run(main)
