"""Measurements of single steps on an accelerator, for `accelerator`.

A measurement is a function of a `Request` that records figures as it finds them: what it has
recorded is kept if it fails, hangs or runs out of time afterwards.
"""

import contextlib
import functools
import json
import logging
import math
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dcnn.base import provenance
from dcnn.cli import runtime
from experiments.benchmarks import cases, processes, variants
from experiments.benchmarks.cases import Case
from experiments.benchmarks.contenders import ours
from experiments.benchmarks.variants import Variant

GRID = Case(features=32, batch=5, blocks=2, radial=20)  # the network of `ablations`
TRITON, CUBLAS = ({"xla_gpu_enable_triton_gemm": with_triton} for with_triton in (True, False))
COMMANDS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN"  # what CUDA graphs hold by default
SHORT = 3  # steps, where it is only to be seen that everything works
PRECISIONS = {"highest": "float32", "TF32_TF32_F32": "TF32", "BF16_BF16_F32": "bfloat16"}


class Request(NamedTuple):
  """What a measurement is asked for.

  Attributes:
    record: `(name, figure)`: keeps a figure at once.
    quick: Whether it is only to be seen that everything works.
    data: The folder of rMD17 ethanol; empty where there is none.
    out: The folder of the figures, which outlives the measurement.
    device: The figures of the measurement `device`, if it came before.
  """

  record: Callable[[str, Any], None]
  quick: bool
  data: str
  out: str
  device: Mapping[str, Any]


def device(request: Request) -> None:
  """Versions, memory, and the rates of large products and of copies."""
  request.record("environment", provenance.environment())
  request.record("memory", jax.devices()[0].memory_stats() or {})
  size = 256 if request.quick else 8192
  for precision, name in PRECISIONS.items():
    dtype = jnp.bfloat16 if name == "bfloat16" else jnp.float32
    factors = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    if not (request.quick and name == "TF32"):  # which CPUs do not have
      product = jax.jit(functools.partial(jnp.matmul, precision=precision))
      seconds = _seconds(lambda product=product, x=factors: product(*x), 0.3)
      request.record(f"{name} TFLOP/s", 2e-12 * size**3 / seconds)
  array = jnp.ones((size, 8 * size), jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  request.record("copy GB/s", 2e-9 * array.nbytes / _seconds(lambda: copy(array), 0.2))


def _seconds(run: Callable[[], Any], enough: float) -> float:
  """The seconds of one call among many; the first one compiles."""
  jax.block_until_ready(run())
  number = 3
  while True:
    started = time.perf_counter()
    for _ in range(number):
      result = run()
    jax.block_until_ready(result)
    seconds = time.perf_counter() - started
    if seconds > enough / 2:
      return seconds / number
    number = math.ceil(number * min(10.0, 1.2 * enough / seconds))


def pyg(request: Request) -> None:
  """PyTorch Geometric driven as the paper's code: one run, of which a sweep has one by one."""
  case = _choose_case(request, GRID)
  _pyg(request, case)


def pyg_larger(request: Request) -> None:
  """PyTorch Geometric on the larger network."""
  _pyg(request, _choose_case(request, Case()))


def _pyg(request: Request, case: Case) -> None:
  with tempfile.TemporaryDirectory() as folder:
    data = str(pathlib.Path(folder) / "data.npz")
    ours.write_data(case, data)
    process = processes.start({
        "case": case._asdict(), "data": data, "cores": processes.core_numbers(), "task": "train",
        "contender": {"module": "pyg", "threads": len(processes.core_numbers())}})
    try:
      described = processes.ask(process, do="describe")
      request.record("device", [described["device"], described["versions"]])
      steps = 3 if request.quick else 300
      processes.ask(process, do="advance", steps=max(3, steps // 10))
      times = [processes.ask(process, do="advance", steps=steps)["seconds"] / steps
               for _ in range(3)]
      request.record("ms_per_step", [1e3 * each for each in times])
    except LookupError as error:
      request.record("missing", str(error))
    finally:
      processes.stop(process)


def _measure(request: Request, chosen: list[Variant], case: Case, *, trace: bool) -> None:
  """Records the figures of variants; those that change the loop of steps need whole chunks."""
  variants.measure(
      request.record, chosen, case, steps=SHORT if request.quick else ours.CHUNK,
      rate=request.device.get("float32 TFLOP/s", math.nan), trace=trace)


def _choose_case(request: Request, case: Case) -> Case:
  """The case, or a tiny one where it is only to be seen that everything works."""
  return Case(features=8, batch=4, blocks=1, radial=8) if request.quick else case


def runs(request: Request) -> None:
  """A step for 1 to 1,000 runs of the grid's network."""
  numbers = (1, 2) if request.quick else (350, 1, 64, 1000, 8)
  case = _choose_case(request, GRID)
  _measure(request, [Variant(f"{number} runs", number) for number in numbers], case, trace=True)


def larger(request: Request) -> None:
  """A step of the larger network of the benchmark's base case, also with products in TF32."""
  numbers = (1, 2) if request.quick else (1, 8, 64, 350)
  case = _choose_case(request, Case())
  others = {"Triton": {"options": TRITON}, "cuBLAS": {"options": CUBLAS},
            "TF32": {"precision": "TF32_TF32_F32"}}
  _measure(request, [
      *(Variant(f"{number} runs", number) for number in numbers),
      *(Variant(f"{number} runs, {name}", number, **changes)
        for name, changes in others.items() if not request.quick for number in (1, 64))],
      case, trace=True)


def networks(request: Request) -> None:
  """A step of each network for 1 and 64 runs, at the sizes in which a CPU compares them."""
  for case in cases.networks():
    size = f"{case.network} {case.features}"
    chosen = [Variant(f"{size}, {number} runs", number)
              for number in ((2,) if request.quick else (1, 64))]
    small = case._replace(features=8, batch=4, blocks=1, radial=8) if request.quick else case
    _measure(request, chosen, small, trace=False)


def compiling(request: Request) -> None:
  """Ways to compile in less time, each in a process of its own with nothing kept."""
  ways = {"cuBLAS": CUBLAS, "Triton": TRITON}
  environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
  for name, options in ways.items():
    alone = subprocess.run(
        processes.accelerator_command("compile_alone", name, options, request.quick),
        capture_output=True, text=True, env=environment, cwd=processes.ROOT)
    request.record(name, json.loads(alone.stdout.splitlines()[-1]) if alone.returncode == 0
                   else {"failed": alone.stderr[-300:]})


def compile_alone(name: str, options: dict[str, Any], quick: bool) -> None:
  """Prints the figures of one way to compile, for `compiling`."""
  found: dict[str, Any] = {}
  request = Request(found.__setitem__, quick, "", "", {})
  runtime.configure_jax()
  with log_compilations() as compiled:
    _measure(request, [Variant(name, 2 if quick else 350, options=options)],
             _choose_case(request, GRID), trace=False)
  print(json.dumps({**found[name], "compilations": compiled}))


def knobs(request: Request) -> None:
  """Ways to compile the step of 350 runs, and of one."""
  case = _choose_case(request, GRID)
  many, one = (2, 1) if request.quick else (350, 1)
  chosen = [
      Variant("as it is", many),
      Variant("unrolled 4", many, unroll=4),
      Variant("constant turns", many, static=True),
      Variant("no graphs", many, options={"xla_gpu_enable_command_buffer": ""}),
      Variant("loops in graphs", many, options={
          "xla_gpu_enable_command_buffer": COMMANDS + ",WHILE,CONDITIONAL"}),
      Variant("no autotuning", many, options={"xla_gpu_autotune_level": 0}),
      Variant("Triton", many, options=TRITON),
      Variant("one run, as it is", one),
      Variant("one run, unrolled 4", one, unroll=4),
      Variant("one run, cuBLAS", one, options=CUBLAS),
      Variant("one run, no graphs", one, options={"xla_gpu_enable_command_buffer": ""}),
      Variant("one run, loops in graphs", one, options={
          "xla_gpu_enable_command_buffer": COMMANDS + ",WHILE,CONDITIONAL"}),
  ]
  if not request.quick:
    chosen[2:2] = [Variant("unrolled 2", many, unroll=2), Variant("unrolled 8", many, unroll=8)]
  _measure(request, chosen, case, trace=False)


@contextlib.contextmanager
def log_compilations() -> Iterator[list[str]]:
  """Gives a list that fills with what JAX logs of each program that it compiles meanwhile."""
  found: list[str] = []

  class Handler(logging.Handler):
    """Keeps the lines that name a time."""

    def emit(self, record: logging.LogRecord) -> None:
      line = record.getMessage()
      if line.startswith("Finished XLA compilation"):
        found.append(line)

  handler, logger = Handler(), logging.getLogger("jax")
  logger.addHandler(handler)
  jax.config.update("jax_log_compiles", True)  # in all threads
  yield found
  jax.config.update("jax_log_compiles", False)
  logger.removeHandler(handler)
