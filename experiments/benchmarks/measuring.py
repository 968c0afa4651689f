"""Times contenders in alternation, each in a process of its own, and says what the times mean."""

import contextlib
import math
import pathlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks import operations, processes
from experiments.benchmarks.cases import Case, Contender, Plan, contenders

PAUSE = 0.02  # seconds before a burst, in which the threads of the burst before fall asleep
PRODUCT_SHARE = 0.25  # of a burst, for the matrix products beside it


class Effort(NamedTuple):
  """How long to measure.

  Attributes:
    rounds: The number of bursts of each contender; the figures are medians over them.
    burst: The least seconds of training in a burst.
    fit_steps: The steps after which the losses of all contenders are compared.
    fit_window: The number of last steps over which these losses are averaged.
  """

  rounds: int
  burst: float
  fit_steps: int
  fit_window: int


FULL = Effort(rounds=9, burst=0.5, fit_steps=200, fit_window=50)
QUICK = Effort(rounds=3, burst=0.02, fit_steps=20, fit_window=5)


class Measured(NamedTuple):
  """What all contenders gave at a case.

  Attributes:
    rows: The rows of the table.
    environment: The machine and the versions.
    problems: Lines that name the contenders that could not be measured, and why.
  """

  rows: list[dict[str, Any]]
  environment: dict[str, Any]
  problems: list[str]


class Member(NamedTuple):
  """A contender in its process, with what it says of itself.

  Attributes:
    contender: The contender.
    process: Its worker.
    description: What the worker answered to `describe`.
    warm_seconds: The seconds to compile where JAX's cache is filled; None if nothing is compiled.
    peak_memory: The most bytes that the worker has held.
    fit: The loss after the steps of the check, if it was made.
    steps: The number of steps that fill a burst.
  """

  contender: Contender
  process: subprocess.Popen
  description: dict[str, Any]
  warm_seconds: float | None
  peak_memory: float
  fit: float | None
  steps: int


def measure(
    plan: Plan, effort: Effort, scratch: pathlib.Path, *, with_fit: bool,
    tell: Callable[[str], None],
) -> Measured:
  """All contenders of a plan, side by side.

  Args:
    plan: The sizes, and the numbers of runs.
    effort: How long to measure.
    scratch: An empty directory.
    with_fit: Whether to check that the contenders learn alike, too.
    tell: Takes a line of progress.
  """
  case, problems = plan.case, []
  request = {"case": case._asdict(), "data": str(scratch / "data.npz"),
             "cores": processes.core_numbers()[:case.cores]}
  with worker({**request, "task": "data"}) as data:
    facts = processes.ask(data)
  network = operations.layers(
      atoms=facts["atoms"], pairs=facts["pairs"], features=case.features, blocks=case.blocks,
      radial=case.radial)
  with contextlib.ExitStack() as stack:
    members = []
    for number, contender in enumerate(contenders(plan)):
      tell(f"{contender.name}, {contender.runs} runs, {contender.threads or '-'} threads")
      training = {**request, "task": "train", "contender": contender._asdict()}
      # Those of us that train more runs are the same network.
      fits = with_fit and contender.runs in (1, min(plan.runs)) and contender.mapping == "engine"
      try:
        members.append(start(
            stack, training, contender, effort, scratch / f"cache_{number}", fits))
      except LookupError as error:
        problems.append(f"{contender.name} left out: {error}")
    tell("timing in alternation")
    samples = alternate(members, effort, _probes(network, case.batch))
  rows = [_row(case, facts, network, member, sample)
          for member, sample in zip(members, samples, strict=True)]
  environment = facts["environment"] | {"cores": len(processes.core_numbers())}
  return Measured(_best_threads(rows), environment, list(dict.fromkeys(problems)))


@contextlib.contextmanager
def worker(request: dict[str, Any], cache: str | None = None) -> Iterator[subprocess.Popen]:
  """A process that serves a request until the block ends, with JAX's cache in a folder."""
  process = processes.start(request, cache)
  try:
    yield process
  finally:
    processes.stop(process)


def start(
    stack: contextlib.ExitStack, request: dict[str, Any], contender: Contender, effort: Effort,
    cache: pathlib.Path, with_fit: bool,
) -> Member:
  """Starts a contender, warms it up, and finds out how many steps fill a burst.

  Args:
    stack: Stops its process.
    request: The case, the file of the data, the cores, the task `train`, and the contender.
    contender: The contender.
    effort: How long to measure.
    cache: A folder for JAX's cache of compiled programs.
    with_fit: Whether to train it for the check that all learn alike.
  """
  process = stack.enter_context(worker(request, str(cache)))
  description = processes.ask(process, do="describe")
  warm = None
  if description["compile_seconds"] is not None:
    with worker(request, str(cache)) as again:
      warm = processes.ask(again, do="describe")["compile_seconds"]
  fit = None
  if with_fit:
    fit = processes.ask(process, do="fit", steps=effort.fit_steps, window=effort.fit_window)
  steps = _calibrate(
      lambda steps: processes.ask(process, do="advance", steps=steps), effort.burst)
  memory = processes.ask(process, do="peak_memory")
  return Member(contender, process, description, warm, memory, fit, steps)


def _calibrate(run: Callable[[int], dict[str, float]], burst: float) -> int:
  """The number of repeats that fill a burst; finding it out warms everything up."""
  run(1)
  number = 1
  while (seconds := run(number)["seconds"]) < burst / 2:
    number = math.ceil(number * min(10.0, 1.2 * burst / seconds))
  return math.ceil(number * burst / seconds)


Probes = Sequence[tuple[operations.Layer, dict[str, int]]]


def _probes(network: list[operations.Layer], batch: int) -> Probes:
  """The shapes of the layers' products for a batch; the last layer's is too small to matter."""
  return [
      (layer, {"rows": round(batch * layer.rows), "inputs": layer.inputs,
               "outputs": layer.outputs}) for layer in network if layer.outputs > 1]


def alternate(
    members: list[Member], effort: Effort, probes: Probes = ()) -> list[list[dict[str, float]]]:
  """Rounds of bursts: A B C, A B C, ...; each burst is training, then matrix products.

  Args:
    members: All that are timed.
    effort: How long to measure.
    probes: The shapes of the products; none are timed where there are none.

  Returns:
    For each member the times of each round.
  """
  repeats = [_repeats(member, effort, probes) for member in members]
  samples: list[list[dict[str, float]]] = [[] for _ in members]
  for _ in range(effort.rounds):
    for member, counts, sample in zip(members, repeats, samples, strict=True):
      time.sleep(PAUSE)
      training = processes.ask(member.process, do="advance", steps=member.steps)
      work = member.steps * member.contender.runs
      rate = _attainable_rate(member, probes, counts) if probes else math.nan
      sample.append({
          "ms_per_step_and_run": 1e3 * training["seconds"] / work,
          "cpu_ms_per_step_and_run": 1e3 * training["cpu_seconds"] / work,
          "attainable_gflops": rate / 1e9})
  return samples


def _repeats(member: Member, effort: Effort, probes: Probes) -> list[int]:
  share = effort.burst * PRODUCT_SHARE / max(1, len(probes))
  return [
      _calibrate(
          lambda repeats, shape=shape: processes.ask(
              member.process, do="products", repeats=repeats, **shape), share)
      for _, shape in probes]


def _attainable_rate(member: Member, probes: Probes, repeats: list[int]) -> float:
  """Operations a second of the step's matrix products alone, in the contender's process."""
  seconds = []
  for (_, shape), count in zip(probes, repeats, strict=True):
    spent = processes.ask(member.process, do="products", repeats=count, **shape)["seconds"]
    one = 2 * shape["rows"] * shape["inputs"] * shape["outputs"]
    seconds.append(spent / (3 * one * count * member.contender.runs))
  return operations.attainable_rate([layer for layer, _ in probes], seconds)


def _row(
    case: Case, facts: dict[str, Any], network: list[operations.Layer], member: Member,
    samples: list[dict[str, float]],
) -> dict[str, Any]:
  useful = case.batch * operations.force_training(network)  # of a step of one run
  milliseconds = statistics.median(each["ms_per_step_and_run"] for each in samples)
  share = statistics.median(
      useful / each["ms_per_step_and_run"] / 1e6 / each["attainable_gflops"] for each in samples)
  contender, description = member.contender, member.description
  return {
      "contender": contender.name, "module": contender.module, "mapping": contender.mapping,
      "threads": contender.threads, "runs": contender.runs, **case._asdict(),
      "atoms": facts["atoms"], "pairs_within_cutoff": facts["pairs"],
      "pinned_to": processes.core_numbers()[:case.cores],
      "steps_per_second": 1e3 / milliseconds,
      "configurations_per_second": 1e3 * case.batch / milliseconds,
      "ms_per_step_and_run": milliseconds,
      "compile_seconds_cold": description["compile_seconds"],
      "compile_seconds_warm": member.warm_seconds,
      "peak_memory_bytes": member.peak_memory,
      "useful_operations_per_step": useful,
      "achieved_gflops": useful / milliseconds / 1e6,
      "attainable_gflops": statistics.median(each["attainable_gflops"] for each in samples),
      "achieved_of_attainable": share,
      "parameters": {name: list(shape) for name, shape in description["parameters"].items()},
      "fit_loss": member.fit,
      "versions": description["versions"], "device": description["device"],
      "samples": samples,
  }


def _best_threads(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The fastest of those rows that differ in the number of threads alone."""
  def same(row):
    return row["module"], row["mapping"], row["runs"]

  best: dict[Any, dict[str, Any]] = {}
  for row in rows:
    other = best.get(same(row))
    if other is None or row["ms_per_step_and_run"] < other["ms_per_step_and_run"]:
      best[same(row)] = row
  return list(best.values())
