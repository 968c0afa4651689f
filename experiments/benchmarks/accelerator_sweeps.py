"""Measurements of whole sweeps on an accelerator, and its tests, for `accelerator`."""

import concurrent.futures
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.flatten_util
import numpy as np

from dcnn import configs, jobs, sweeps
from dcnn.cli import runtime
from dcnn.configs import build
from dcnn.jobs import notebook, workdirs
from dcnn.sweeps import memory, plans, sweep
from experiments import ablations, rmd17
from experiments.benchmarks import outcomes, processes
from experiments.benchmarks.accelerator_steps import PRECISIONS, Request, log_compilations
from experiments.benchmarks.contenders import ours

METRICS = ("energy_loss", "force_loss")
TESTS = ("primitives", "training", "streaming", "derivatives", "periodic", "memory", "kill")


def smoke(request: Request) -> None:
  """The results of `ablations:smoke` on the accelerator, against those of the CPU beside it."""
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  with subprocess.Popen(
      processes.accelerator_command("smoke_results", request.quick),
      stdout=subprocess.PIPE, text=True, env=environment, cwd=processes.ROOT) as beside:
    mine = _smoke_results(request.quick)
    text, _ = beside.communicate()
  if beside.returncode:
    raise RuntimeError("the CPU's process failed")
  theirs = json.loads(text.splitlines()[-1])
  request.record("seconds_by_phase", {"accelerator": mine["timing"], "cpu": theirs["timing"]})
  for part in ("errors", "curves"):
    differences = {}
    for (arm, key), expected in theirs[part]:
      found = dict((tuple(map(str, name)), value) for name, value in mine[part])[arm, key]
      differences.setdefault(arm, {})[key] = abs(found - expected) / abs(expected)
    request.record(part, {
        arm: dict(zip(("largest", "where"), max((value, key) for key, value in each.items()),
                      strict=True)) for arm, each in differences.items()})


def _smoke_results(quick: bool) -> dict[str, Any]:
  config = ablations.smoke()
  result = jobs.sweep(shrink(config) if quick else config, None)
  return {
      "timing": result.config["timing"],
      "errors": [((row.arm, f"{row.metric} of {row.split}, seed {row.seed}"), row.value)
                 for row in result.rows if row.metric in METRICS],
      "curves": [((each.arm, f"{each.metric} of {each.split}, seed {each.seed}, step {each.step}"),
                  each.value) for each in result.history if each.metric in METRICS]}


def smoke_results(quick: bool) -> None:
  """Prints the results of the smoke test on the CPU, for `smoke`."""
  runtime.configure_jax()
  print(json.dumps(_smoke_results(quick)))


def shrink(config: configs.ConfigDict) -> configs.ConfigDict:
  """Makes an experiment one that is done in a blink: two arms, one seed."""
  config.arms, config.tables, config.seeds = config.arms[:2], (), 1
  config.steps, config.chunk = 6, 3
  config.split.train, config.split.valid, config.split.test = 20, 10, 10
  config.model.features, config.model.blocks, config.model.radial = 4, 1, 4
  return config


def short_grid() -> configs.ConfigDict:
  """`ablations:grid`, ended after 2,000 steps."""
  config = ablations.grid()
  config.steps = 2000
  return config


def grid(request: Request) -> None:
  """All 350 runs of `ablations:grid`, 2,000 steps each, from the data to the report."""
  config = short_grid()
  if request.quick:
    config = shrink(config)
  with tempfile.TemporaryDirectory() as folder, log_compilations() as compiled:
    phases = _time_phases()
    started = time.monotonic()
    result = jobs.sweep(config, functools.partial(_record_progress, request), workdir=folder)
    request.record("wall_seconds", time.monotonic() - started)
    request.record("phases", phases)
    request.record("compilations", compiled)
    request.record("results_csv", (pathlib.Path(folder) / "results.csv").read_text())
  request.record("timing", result.config["timing"])
  request.record("steps", config.steps)
  request.record("peak_memory_bytes", _peak_memory())
  for metric in METRICS:
    request.record(metric, _means(result.rows, metric))


def _record_progress(request: Request, progress: sweeps.Progress) -> None:
  request.record("progress", [progress.phase, progress.done, progress.total, progress.watched])
  if progress.placement:
    request.record("placement", progress.placement._asdict())


def _time_phases() -> dict[str, float]:
  """The seconds of the parts of a sweep from its data to its report, filled in as they end."""
  phases: dict[str, float] = {}

  def time_function(module: Any, name: str) -> None:
    function = getattr(module, name)

    def timer(*arguments, **options):
      started = time.monotonic()
      try:
        return function(*arguments, **options)
      finally:
        phases[name] = phases.get(name, 0.0) + time.monotonic() - started

    setattr(module, name, timer)

  for module, name in ((notebook, "prepare"), (notebook, "describe"), (notebook, "run"),
                       (plans, "make_groups"), (sweep, "_finish"), (sweep, "_outcome"),
                       (workdirs, "write")):
    time_function(module, name)
  return phases


def _peak_memory() -> int:
  return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def _means(rows: Any, metric: str) -> dict[str, float]:
  """The geometric mean over seeds of a test error of each arm; nan if a run failed."""
  by_arm: dict[str, list[float]] = {}
  for row in rows:
    if (row.split, row.metric) == ("test", metric):
      by_arm.setdefault(row.arm, []).append(
          row.value if row.status == "finished" else math.nan)
  return {arm: float(np.exp(np.mean(np.log(values)))) for arm, values in by_arm.items()}


def precision(request: Request) -> None:
  """The grid with products of fewer bits: time, errors after training, and against float64."""
  config = short_grid()
  if request.quick:
    config = shrink(config)
  plan = build.build(config, build.load(config))
  names = [each for each in PRECISIONS if not (request.quick and each.startswith("TF32"))]

  def fill_cache(name: str) -> None:
    """Leaves the compiled programs in JAX's cache."""
    group, = plans.make_groups(plan)
    with jax.default_matmul_precision(name):
      memory.compile_group(plan, group.program, group.runs)

  with concurrent.futures.ThreadPoolExecutor() as threads:
    for name in names:
      threads.submit(fill_cache, name)  # what fails here fails again below
  means: dict[str, Any] = {}
  finished: dict[str, sweeps.Outcome] = {}
  for name in names:
    try:
      with jax.default_matmul_precision(name):
        outcome = finished[name] = sweeps.run(plan)
    except jax.errors.JaxRuntimeError as error:
      if name == names[0]:
        raise
      # Not every device has every precision, and the others are measured all the same.
      request.record(PRECISIONS[name], {"failed": str(error)[:300]})
      continue
    means[name] = {metric: _means(outcome.rows, metric) for metric in METRICS}
    request.record(PRECISIONS[name], {
        "timing": outcome.timing, "ms_per_step": 1e3 * outcome.timing["train_seconds"] / plan.steps,
        **means[name],
        "ratios": {metric: _ratio(means[name][metric], means[names[0]][metric])
                   for metric in METRICS}})
  request.record("against float64", _against_float64(plan, finished[names[0]], list(finished)))


def _ratio(mine: dict[str, float], theirs: dict[str, float]) -> list[float]:
  """The smallest, the geometric mean and the largest of the ratios of the errors of all arms."""
  ratios = np.array([mine[arm] / theirs[arm] for arm in theirs])
  return [float(np.min(ratios)), float(np.exp(np.mean(np.log(ratios)))), float(np.max(ratios))]


def _against_float64(
    plan: plans.Plan, outcome: sweeps.Outcome, names: list[str]
) -> dict[str, dict[str, float]]:
  """Errors of a trained network's energies, forces and loss gradient, by precision.

  Args:
    plan: The plan of a sweep of one group.
    outcome: What the sweep has left, of which the last run is taken.
    names: The precisions of products, as JAX names them.

  Returns:
    By precision: of forces the root mean square error, divided by their root mean square; of
    energies, which are relative to the shift, the mean absolute error in meV; of the gradient the
    norm of the difference, divided by the norm.
  """
  group, = plans.make_groups(plan)
  task, run = group.program.task, group.runs[-1]
  frames = run.splits.test[:100]
  batch = plan.problem.take(
      (plan.problem.shared(frames), run.fitted.own(frames)), np.arange(len(frames)))

  def compute(kind: Any) -> tuple[np.ndarray, ...]:
    wide = jax.tree.map(
        lambda leaf: leaf.astype(kind) if np.issubdtype(leaf.dtype, np.floating) else leaf,
        (outcome.ended[run.key].best, batch))
    numbers = {name: np.asarray(value, kind) for name, value in run.hypers.items()}

    @jax.jit
    def predict_and_differentiate(variables, numbers, batch):
      labels = task.predict(variables, numbers, batch)
      slope = jax.grad(lambda params: ours.total_loss(
          task, {**variables, "params": params}, numbers, batch, jax.random.key(0)))(
              variables["params"])
      return labels.energy, labels.forces, jax.flatten_util.ravel_pytree(slope)[0]

    return tuple(np.asarray(each, np.float64)
                 for each in predict_and_differentiate(wide[0], numbers, wide[1]))

  with jax.enable_x64(True), jax.default_matmul_precision("highest"):
    energy, forces, slope = compute(np.float64)
  found = {}
  for name in names:
    with jax.default_matmul_precision(name):
      mine = compute(np.float32)
    found[PRECISIONS[name]] = {
        "energy_mev": 1e3 * float(np.mean(np.abs(mine[0] - energy))),
        "forces": float(np.linalg.norm(mine[1] - forces) / np.linalg.norm(forces)),
        "gradient": float(np.linalg.norm(mine[2] - slope) / np.linalg.norm(slope))}
  return found


def tests(request: Request) -> None:
  """The tests of what an accelerator does otherwise, on the accelerator."""
  chosen = TESTS[:1] if request.quick else TESTS
  workers = [] if request.quick else ["-n", str(max(1, len(os.sched_getaffinity(0)) - 2))]
  environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                 "JAX_DEFAULT_MATMUL_PRECISION": "highest"}  # as dcnn sets it
  with subprocess.Popen(
      [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short",
       "-p", "experiments.benchmarks.outcomes", *workers,
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
      request.record("outcomes", counts)
      request.record("failed", bad)
  request.record("end", lines[-3:])


def ethanol(request: Request) -> None:
  """GridACE on rMD17 ethanol, as `rmd17` trains it; continues what the folder of figures holds."""
  if not request.data:
    request.record("missing", "no folder of data was given: --data=")
    return
  config = rmd17.get_config()
  config.model.name, config.model.features, config.seeds = "GridACE", 64, 3
  config.steps, config.checkpoint_every = 100_000, 10.0
  folder = pathlib.Path(request.data)
  config.dataset, config.test_dataset = str(folder / "train.extxyz"), str(folder / "test.extxyz")
  if request.quick:
    config.seeds, config.steps, config.chunk = 1, 4, 2
    config.model.features, config.model.blocks = 4, 1
  curve: list[tuple[int, list[float]]] = []

  def on_progress(progress: sweeps.Progress) -> None:
    _record_progress(request, progress)
    step = progress.done // config.seeds
    if step // config.chunk > (curve[-1][0] // config.chunk if curve else 0):
      curve.append((step, list(progress.watched.values())))
      request.record("curve", curve)

  result = jobs.sweep(config, on_progress, workdir=pathlib.Path(request.out) / "ethanol")
  request.record("timing", result.config["timing"])
  request.record("errors", {f"{row.metric}, seed {row.seed}": row.value for row in result.rows
                            if row.split == "test"})
