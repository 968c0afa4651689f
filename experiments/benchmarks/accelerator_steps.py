"""The measurements of `accelerator`, each run in a process of its own.

A measurement is a function of `Asked` that records figures as it finds them: what it has recorded
is kept if it fails, hangs or runs out of time afterwards.
"""

import concurrent.futures
import contextlib
import functools
import json
import logging
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from dcnn import configs, jobs, sweeps
from dcnn.cli import main
from dcnn.configs import build
from dcnn.jobs import provenance, workdirs
from dcnn.sweeps import memory, plans
from experiments import ablations, rmd17
from experiments.benchmarks import outcomes, processes, variants
from experiments.benchmarks.cases import Case
from experiments.benchmarks.contenders import ours
from experiments.benchmarks.variants import Variant

GRID = Case(features=32, batch=5, blocks=2, radial=20)  # the network of `ablations`
TRITON, CUBLAS = ({"xla_gpu_enable_triton_gemm": with_triton} for with_triton in (True, False))
COMMANDS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN"  # what CUDA graphs hold by default
SHORT = 3  # steps, where it is only to be seen that everything works
METRICS = ("energy_loss", "force_loss")
PRECISIONS = {"highest": "float32", "TF32_TF32_F32": "TF32", "BF16_BF16_F32": "bfloat16"}


class Asked(NamedTuple):
  """What a measurement is to do.

  Attributes:
    record: keeps a figure under a name, at once.
    quick: whether it is only to be seen that everything works.
    data: folder of rMD17 ethanol; empty where there is none.
    device: the figures of the measurement `device`, if it came before.
  """

  record: Callable[[str, Any], None]
  quick: bool
  data: str
  device: Mapping[str, Any]


def device(asked: Asked) -> None:
  """Versions, memory, and the rates of large products and copies, which others are shares of."""
  asked.record("environment", provenance.environment())
  asked.record("memory", jax.devices()[0].memory_stats() or {})
  size = 256 if asked.quick else 8192
  for precision, name in PRECISIONS.items():
    dtype = jnp.bfloat16 if name == "bfloat16" else jnp.float32
    factors = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    if not (asked.quick and name == "TF32"):  # which CPUs do not have
      product = jax.jit(functools.partial(jnp.matmul, precision=precision))
      seconds = _seconds(lambda product=product, x=factors: product(*x), 0.3)
      asked.record(f"{name} TFLOP/s", 2e-12 * size**3 / seconds)
  array = jnp.ones((size, 8 * size), jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  asked.record("copy GB/s", 2e-9 * array.nbytes / _seconds(lambda: copy(array), 0.2))


def _seconds(run: Callable[[], Any], enough: float) -> float:
  """Of one call among many; the first one compiles."""
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


def smoke(asked: Asked) -> None:
  """The results of `ablations:smoke` here, against those of the CPU beside it."""
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  with subprocess.Popen(
      [sys.executable, "-m", "experiments.benchmarks.accelerator_steps", "smoke_results",
       json.dumps(asked.quick)],
      stdout=subprocess.PIPE, text=True, env=environment, cwd=processes.ROOT) as beside:
    mine = _smoke_results(asked.quick)
    text, _ = beside.communicate()
  if beside.returncode:
    raise RuntimeError("the CPU's process failed")
  theirs = json.loads(text.splitlines()[-1])
  asked.record("seconds_by_phase", {"accelerator": mine["timing"], "cpu": theirs["timing"]})
  for part in ("errors", "curves"):
    differences = {}
    for (arm, key), expected in theirs[part]:
      found = dict((tuple(map(str, name)), value) for name, value in mine[part])[arm, key]
      differences.setdefault(arm, {})[key] = abs(found - expected) / abs(expected)
    asked.record(part, {
        arm: dict(zip(("largest", "where"), max((value, key) for key, value in each.items()),
                      strict=True)) for arm, each in differences.items()})


def _smoke_results(quick: bool) -> dict[str, Any]:
  config = ablations.smoke()
  result = jobs.sweep(_small(config) if quick else config, None)
  return {
      "timing": result.config["timing"],
      "errors": [((row.arm, f"{row.metric} of {row.split}, seed {row.seed}"), row.value)
                 for row in result.rows if row.metric in METRICS],
      "curves": [((each.arm, f"{each.metric} of {each.split}, seed {each.seed}, step {each.step}"),
                  each.value) for each in result.history if each.metric in METRICS]}


def smoke_results(quick: bool) -> None:
  """Prints the results of the smoke test on the CPU, for `smoke`."""
  main.configure_jax()
  print(json.dumps(_smoke_results(quick)))


def _small(config: configs.ConfigDict) -> configs.ConfigDict:
  """The same experiment in a blink: two arms, one seed."""
  config.arms, config.tables, config.seeds = config.arms[:2], (), 1
  config.steps, config.chunk = 6, 3
  config.split.train, config.split.valid, config.split.test = 20, 10, 10
  config.model.features, config.model.blocks, config.model.radial = 4, 1, 4
  return config


def grid(asked: Asked) -> None:
  """All 350 runs of `ablations:grid` as a user runs them, from the data to the report."""
  config = ablations.grid()
  if asked.quick:
    config = _small(config)
  chosen: list[Any] = []
  told = [0.0]

  def on_progress(progress: sweeps.Progress) -> None:
    if progress.choice:
      chosen[:] = [progress.choice]
    if time.monotonic() - told[0] > 2:
      told[0] = time.monotonic()
      asked.record("progress", [progress.phase, progress.done, progress.total])

  with tempfile.TemporaryDirectory() as folder, _compilations() as compiled:
    phases = _timed_phases()
    started = time.monotonic()
    result = jobs.sweep(config, on_progress, workdir=folder)
    asked.record("wall_seconds", time.monotonic() - started)
    asked.record("phases", phases)
    asked.record("compilations", compiled)
    asked.record("results_csv", (pathlib.Path(folder) / "results.csv").read_text())
  asked.record("timing", result.config["timing"])
  asked.record("steps", config.steps)
  asked.record("choice", chosen[0]._asdict())
  asked.record("peak_memory_bytes", _peak_memory())
  for metric in METRICS:
    asked.record(metric, _means(result.rows, metric))


def _timed_phases() -> dict[str, float]:
  """Seconds of the parts of a sweep from its data to its report, filled in as they end."""
  phases: dict[str, float] = {}

  def timed(module: Any, name: str) -> None:
    function = getattr(module, name)

    def wrapped(*arguments, **options):
      started = time.monotonic()
      try:
        return function(*arguments, **options)
      finally:
        phases[name] = phases.get(name, 0.0) + time.monotonic() - started

    setattr(module, name, wrapped)

  for module, name in ((running, "prepare"), (running, "describe"), (running, "run"),
                       (sweeps, "grouped"), (sweeps, "_finish"), (sweeps, "_outcome"),
                       (workdirs, "write")):
    timed(module, name)
  return phases


@contextlib.contextmanager
def _compilations() -> Iterator[list[str]]:
  """What JAX logs of each program that it compiles meanwhile."""
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


def _peak_memory() -> int:
  return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def _means(rows: Any, metric: str) -> dict[str, float]:
  """Geometric mean over seeds of a test error of each arm; nan if a run failed."""
  by_arm: dict[str, list[float]] = {}
  for row in rows:
    if (row.split, row.metric) == ("test", metric):
      by_arm.setdefault(row.arm, []).append(
          row.value if row.status == "finished" else math.nan)
  return {arm: float(np.exp(np.mean(np.log(values)))) for arm, values in by_arm.items()}


def pyg(asked: Asked) -> None:
  """PyTorch Geometric driven as the paper's code: one run, of which a sweep has one by one."""
  case = _case(asked, GRID)
  _pyg(asked, case)


def pyg_larger(asked: Asked) -> None:
  """The same of the larger network."""
  _pyg(asked, _case(asked, Case()))


def _pyg(asked: Asked, case: Case) -> None:
  with tempfile.TemporaryDirectory() as folder:
    data = str(pathlib.Path(folder) / "data.npz")
    ours.write_data(case, data)
    process = processes.start({
        "case": case._asdict(), "data": data, "cores": processes.core_numbers(), "task": "train",
        "contender": {"module": "pyg", "threads": len(processes.core_numbers())}})
    try:
      described = processes.ask(process, do="describe")
      asked.record("device", [described["device"], described["versions"]])
      steps = 3 if asked.quick else 300
      processes.ask(process, do="advance", steps=max(3, steps // 10))
      times = [processes.ask(process, do="advance", steps=steps)["seconds"] / steps
               for _ in range(3)]
      asked.record("ms_per_step", [1e3 * each for each in times])
    except LookupError as error:
      asked.record("missing", str(error))
    finally:
      processes.stop(process)


def _measured(asked: Asked, chosen: list[Variant], case: Case, *, trace: bool) -> None:
  """Figures of variants; those that change how a step is looped take whole chunks."""
  variants.measure(
      asked.record, chosen, case, steps=SHORT if asked.quick else ours.CHUNK,
      rate=asked.device.get("float32 TFLOP/s", math.nan), trace=trace)


def _case(asked: Asked, case: Case) -> Case:
  return Case(features=8, batch=4, blocks=1, radial=8) if asked.quick else case


def runs(asked: Asked) -> None:
  """A step for 1 to 1,000 runs of the grid's network."""
  numbers = (1, 2) if asked.quick else (350, 1, 64, 1000, 8)
  case = _case(asked, GRID)
  _measured(asked, [Variant(f"{number} runs", number) for number in numbers], case, trace=True)


def larger(asked: Asked) -> None:
  """The same of the larger network of the benchmark's base case, and its products in TF32."""
  numbers = (1, 2) if asked.quick else (1, 8, 64, 350)
  case = _case(asked, Case())
  others = {"Triton": {"options": TRITON}, "cuBLAS": {"options": CUBLAS},
            "TF32": {"precision": "TF32_TF32_F32"}}
  _measured(asked, [
      *(Variant(f"{number} runs", number) for number in numbers),
      *(Variant(f"{number} runs, {name}", number, **changes)
        for name, changes in others.items() if not asked.quick for number in (1, 64))],
      case, trace=True)


def compiling(asked: Asked) -> None:
  """Ways to compile in less time, each in a process of its own with nothing kept."""
  ways = {"cuBLAS": CUBLAS, "Triton": TRITON}
  environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
  for name, options in ways.items():
    told = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.accelerator_steps", "compile_alone",
         json.dumps([name, options, asked.quick])],
        capture_output=True, text=True, env=environment, cwd=processes.ROOT)
    asked.record(name, json.loads(told.stdout.splitlines()[-1]) if told.returncode == 0
                 else {"failed": told.stderr[-300:]})


def compile_alone(name: str, options: dict[str, Any], quick: bool) -> None:
  """Prints the figures of one way, for `compiling`."""
  found: dict[str, Any] = {}
  asked = Asked(found.__setitem__, quick, "", {})
  main.configure_jax()
  with _compilations() as compiled:
    _measured(asked, [Variant(name, 2 if quick else 350, options=options)], _case(asked, GRID),
              trace=False)
  print(json.dumps({**found[name], "compilations": compiled}))


def knobs(asked: Asked) -> None:
  """Ways to compile the step of 350 runs, and of one."""
  case = _case(asked, GRID)
  many, one = (2, 1) if asked.quick else (350, 1)
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
  if not asked.quick:
    chosen[2:2] = [Variant("unrolled 2", many, unroll=2), Variant("unrolled 8", many, unroll=8)]
  _measured(asked, chosen, case, trace=False)


def precision(asked: Asked) -> None:
  """The grid with products of fewer bits: time, errors after training, and against float64."""
  config = ablations.grid()
  if asked.quick:
    config = _small(config)
  plan = build.build(config, build.load(config))
  names = [each for each in PRECISIONS if not (asked.quick and each.startswith("TF32"))]

  def prepared(name: str) -> None:
    """Leaves the compiled programs in JAX's cache."""
    group, = plans.grouped(plan)
    with jax.default_matmul_precision(name):
      memory.fitted(plan, group.program, group.runs)

  with concurrent.futures.ThreadPoolExecutor() as threads:
    list(threads.map(prepared, names))
  means: dict[str, Any] = {}
  for name in names:
    with jax.default_matmul_precision(name):
      outcome = sweeps.run(plan)
    means[name] = {metric: _means(outcome.rows, metric) for metric in METRICS}
    asked.record(PRECISIONS[name], {
        "timing": outcome.timing, "ms_per_step": 1e3 * outcome.timing["train_seconds"] / plan.steps,
        **means[name],
        "ratios": {metric: _ratio(means[name][metric], means[names[0]][metric])
                   for metric in METRICS}})
    if name == names[0]:
      trained = outcome
  asked.record("against float64", _against_float64(plan, trained, names))


def _ratio(mine: dict[str, float], theirs: dict[str, float]) -> list[float]:
  """Of the errors of all arms: smallest, geometric mean, largest."""
  ratios = np.array([mine[arm] / theirs[arm] for arm in theirs])
  return [float(np.min(ratios)), float(np.exp(np.mean(np.log(ratios)))), float(np.max(ratios))]


def _against_float64(
    plan: plans.Plan, outcome: sweeps.Outcome, names: list[str]
) -> dict[str, dict[str, float]]:
  """Errors of a trained network's energies, forces and loss gradient, by precision.

  Forces: root mean square error by root mean square; energies: mean absolute error, meV, of the
  network's own part; gradient: norm of the difference by norm.
  """
  group = outcome.groups[0]
  task, run = group.program.task, group.runs[-1]
  variables = jax.tree.map(lambda leaf: leaf[-1], group.best)
  frames = run.splits.test[:100]
  data = plans.shared_data(plan.dataset), plans.energies([run], plan.dataset, slice(None))[0]
  batch = plans.take(data, frames)
  hypers = plans.hypers(run)

  def answers(kind: Any) -> tuple[np.ndarray, ...]:
    wide = jax.tree.map(
        lambda leaf: leaf.astype(kind) if np.issubdtype(leaf.dtype, np.floating) else leaf,
        (variables, batch))
    numbers = {name: np.asarray(value, kind) for name, value in hypers.items()}

    @jax.jit
    def computed(variables, numbers, batch):
      labels = task.predict(variables, numbers, batch.systems)
      slope = jax.grad(lambda params: task.loss(
          {**variables, "params": params}, numbers, batch, jax.random.key(0))[0])(
              variables["params"])
      return labels.energy, labels.forces, jax.flatten_util.ravel_pytree(slope)[0]

    return tuple(np.asarray(each, np.float64)
                 for each in computed(wide[0], numbers, wide[1]))

  with jax.enable_x64(True), jax.default_matmul_precision("highest"):
    energy, forces, slope = answers(np.float64)
  found = {}
  for name in names:
    with jax.default_matmul_precision(name):
      mine = answers(np.float32)
    found[PRECISIONS[name]] = {
        "energy_mev": 1e3 * float(np.mean(np.abs(mine[0] - energy))),
        "forces": float(np.linalg.norm(mine[1] - forces) / np.linalg.norm(forces)),
        "gradient": float(np.linalg.norm(mine[2] - slope) / np.linalg.norm(slope))}
  return found


TESTS = ("primitives", "training", "windows", "derivatives", "periodic", "fitting", "kill")


def tests(asked: Asked) -> None:
  """The tests of what an accelerator does otherwise, on the accelerator."""
  chosen = TESTS[:1] if asked.quick else TESTS
  jobs = [] if asked.quick else ["-n", str(max(1, len(os.sched_getaffinity(0)) - 2))]
  environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                 "JAX_DEFAULT_MATMUL_PRECISION": "highest"}  # as dcnn sets it
  with subprocess.Popen(
      [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short",
       "-p", "experiments.benchmarks.outcomes", *jobs,
       *(f"tests/test_{name}.py" for name in chosen)],
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
      cwd=processes.ROOT) as process:
    assert process.stdout is not None
    counts: dict[str, int] = {}
    bad: dict[str, str] = {}
    lines: list[str] = []
    for line in process.stdout:
      lines = [*lines, line.rstrip()][-30:]
      if outcomes.MARK not in line:
        continue
      outcome, name, reason = json.loads(line.partition(outcomes.MARK)[2])
      counts[outcome] = counts.get(outcome, 0) + 1
      if outcome == "failed":
        bad[name] = reason
      asked.record("outcomes", counts)
      asked.record("failed", bad)
  asked.record("end", lines[-3:])


def ethanol(asked: Asked) -> None:
  """SchNet on rMD17 ethanol, as the experiment `rmd17` trains it."""
  if not asked.data:
    asked.record("missing", "no folder of data was given: --data=")
    return
  config = rmd17.get_config()
  folder = pathlib.Path(asked.data)
  config.dataset, config.test_dataset = str(folder / "train.extxyz"), str(folder / "test.extxyz")
  if asked.quick:
    config.seeds, config.steps, config.chunk = 1, 4, 2
    config.model.features, config.model.blocks = 4, 1
  told = [0.0]

  def on_progress(progress: sweeps.Progress) -> None:
    if time.monotonic() - told[0] > 3:
      told[0] = time.monotonic()
      asked.record("progress", [progress.phase, progress.done, progress.total,
                                progress.force_loss])

  result = jobs.sweep(config, on_progress)
  asked.record("timing", result.config["timing"])
  asked.record("errors", {f"{row.metric}, seed {row.seed}": row.value for row in result.rows
                          if row.split == "test"})


MEASUREMENTS = {each.__name__: each for each in (
    device, smoke, grid, pyg, runs, precision, compiling, tests, ethanol, larger, pyg_larger,
    knobs)}


def run(name: str, out: str, quick: bool, vmapped: bool, data: str, device_file: str) -> None:
  """Runs one measurement in this process, and keeps its figures in a file."""
  figures: dict[str, Any] = {}
  path = pathlib.Path(out)

  def record(key: str, value: Any) -> None:
    figures[key] = value
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(figures, indent=1, default=str))
    unfinished.replace(path)

  if vmapped:
    ours.map_by_vmap()
  main.configure_jax()
  known = pathlib.Path(device_file)
  figures_of_device = json.loads(known.read_text()) if known.exists() else {}
  MEASUREMENTS[name](Asked(record, quick, data, figures_of_device))


if __name__ == "__main__":
  if sys.argv[1] == "smoke_results":
    smoke_results(json.loads(sys.argv[2]))
  elif sys.argv[1] == "compile_alone":
    compile_alone(*json.loads(sys.argv[2]))
  else:
    run(*json.loads(sys.argv[1]))
