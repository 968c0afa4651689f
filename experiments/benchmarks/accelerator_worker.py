"""A process of `accelerator`, which calls one function: accelerator_worker NAME ARGUMENTS."""

import json
import pathlib
import sys
from typing import Any

from dcnn.cli import runtime
from experiments.benchmarks import accelerator_steps as steps
from experiments.benchmarks import accelerator_sweeps as sweeps
from experiments.benchmarks.contenders import ours

MEASUREMENTS = {each.__name__: each for each in (
    steps.device, steps.pyg, steps.pyg_larger, steps.runs, steps.larger, steps.networks,
    steps.compiling, steps.knobs, sweeps.smoke, sweeps.grid, sweeps.precision, sweeps.tests,
    sweeps.ethanol)}


def measure(
    name: str, file: str, quick: bool, vmapped: bool, data: str, out: str, device_file: str
) -> None:
  """Makes one measurement in this process, and keeps its figures in a file.

  Args:
    name: The name of the measurement.
    file: The file, JSON, which is written anew with each figure.
    quick: Whether it is only to be seen that everything works.
    vmapped: Whether the runs on a CPU are mapped as on an accelerator.
    data: The folder of rMD17 ethanol; empty where there is none.
    out: The folder of all figures, where a training can be continued.
    device_file: The file of the measurement `device`, which there need not be.
  """
  figures: dict[str, Any] = {}
  path = pathlib.Path(file)

  def record(key: str, value: Any) -> None:
    figures[key] = value
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(figures, indent=1, default=str))
    unfinished.replace(path)

  if vmapped:
    ours.map_by_vmap()
  runtime.configure_jax()
  known = pathlib.Path(device_file)
  device = json.loads(known.read_text()) if known.exists() else {}
  MEASUREMENTS[name](steps.Request(record, quick, data, out, device))


FUNCTIONS = {each.__name__: each for each in (
    measure, steps.compile_alone, sweeps.smoke_results)}

if __name__ == "__main__":
  FUNCTIONS[sys.argv[1]](*json.loads(sys.argv[2]))
