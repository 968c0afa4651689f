"""Ways to compile a training step, timed side by side on the device that is there."""

import concurrent.futures
import contextlib
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dcnn import configs
from dcnn.sweeps import engine, training
from experiments.benchmarks import kernels, operations
from experiments.benchmarks.cases import Case
from experiments.benchmarks.contenders import ours

BURSTS_SECONDS, MOST_BURSTS = 1.0, 20
TRACED_STEPS = 10


ATOMS, PAIRS = 9, 36  # of ethanol, whose atoms are all within the cutoff


class Variant(NamedTuple):
  """A way to compile the training.

  Attributes:
    name: The name that the table shows.
    runs: The number of runs that are trained together.
    precision: The precision of matrix products, as JAX names it.
    options: Options of XLA, beside those of the engine.
    unroll: The number of steps in one turn of the loop.
    static: Whether the number of turns is a constant of the program.
  """

  name: str
  runs: int
  precision: str = "highest"
  options: Mapping[str, Any] = {}
  unroll: int = 1
  static: bool = False


_here = threading.local()  # the variant that a thread compiles


def _variant() -> Variant | None:
  return getattr(_here, "variant", None)


@contextlib.contextmanager
def _compile_variants() -> Iterator[None]:
  """Makes the engine compile, in each thread, the variant of that thread."""
  options, train = engine._compiler_options, training.train

  def variant_options(*arguments):
    variant = _variant()
    return {**options(*arguments), **(variant.options if variant else {})}

  def variant_train(program, state, hypers, data, batches, *, first, steps, key):
    variant = _variant()
    if variant is None or (variant.unroll, variant.static) == (1, False):
      return train(program, state, hypers, data, batches, first=first, steps=steps, key=key)

    def body(i, state):
      for j in range(variant.unroll):
        batch = program.take(data, batches[first + i * variant.unroll + j])
        state = training.step(
            program, state, hypers, batch, jax.random.fold_in(key, state.step))[0]
      return state

    turns = ours.CHUNK // variant.unroll if variant.static else steps // variant.unroll
    return jax.lax.fori_loop(0, turns, body, state)

  engine._compiler_options, training.train = variant_options, variant_train
  try:
    yield
  finally:
    engine._compiler_options, training.train = options, train


def _launch(variant: Variant, chosen: configs.ConfigDict) -> ours.Launch:
  _here.variant = variant
  with jax.default_matmul_precision(variant.precision):
    return ours.launch(chosen)


def measure(
    record: Callable[[str, Any], None], variants: Sequence[Variant], case: Case, *,
    steps: int, rate: float, trace: bool,
) -> None:
  """Compiles variants beside each other and times them one by one.

  Args:
    record: `(name, figures)`: keeps the figures of a variant, or why it failed, under its name.
    variants: The variants, with distinct names.
    case: The sizes of the network and of its batch.
    steps: The number of steps in a burst, at most `ours.CHUNK`.
    rate: The rate of large products in TFLOP/s, of which theirs is a share; nan if not known.
    trace: Whether the kernels are counted, too.
  """
  with _compile_variants(), concurrent.futures.ThreadPoolExecutor() as threads:
    pending = [
        threads.submit(_launch, each, ours.config(case, each.runs)) for each in variants]
  for variant, future in zip(variants, pending, strict=True):
    if error := future.exception():  # the other variants are measured all the same
      record(variant.name, {"failed": f"{type(error).__name__}: {error}"[:300]})
    else:
      record(variant.name, {
          **variant._asdict(), **_figures(variant, case, future.result(), steps, rate),
          **(_kernels(variant, future.result()) if trace else {})})


def _figures(
    variant: Variant, case: Case, launch: ours.Launch, steps: int, rate: float
) -> dict[str, Any]:
  """The time and the memory of a step."""
  state = ours.train(launch, launch.engine.init(launch.arguments), steps)
  times: list[float] = []
  while len(times) < 3 or (sum(times) < BURSTS_SECONDS and len(times) < MOST_BURSTS):
    started = time.perf_counter()
    state = ours.train(launch, state, steps)
    times.append(time.perf_counter() - started)
  ms = 1e3 * statistics.median(times) / steps
  gflops = case.batch * _operations(case) * variant.runs / ms / 1e6
  cost: Any = launch.engine.programs["train"].cost_analysis() or {}
  return {
      "ms_per_step": ms, "compile_seconds": launch.engine.compile_seconds,
      "bytes_needed": launch.engine.bytes_needed, "useful_gflops": gflops,
      "of_large_product": 1e-3 * gflops / rate,
      "bytes_accessed": float(cost.get("bytes accessed", math.nan)),
      "diverged": int(np.sum(np.asarray(state.diverged_at) != training.NEVER))}


def _operations(case: Case) -> float:
  """Those that a step needs for a configuration; nan of networks for which nobody has counted."""
  if case.network != "SchNet":
    return math.nan
  return operations.force_training(operations.layers(
      atoms=ATOMS, pairs=PAIRS, features=case.features, blocks=case.blocks, radial=case.radial))


def _kernels(variant: Variant, launch: ours.Launch) -> dict[str, Any]:
  """What a step launches, by the program's text and by a trace."""
  few = ours.CHUNK if variant.static else TRACED_STEPS
  state = ours.train(launch, launch.engine.init(launch.arguments), few)
  return {
      "launched_by_text": kernels.launches_per_turn(launch.engine.programs["train"].as_text()),
      "trace": kernels.trace(lambda: ours.train(launch, state, few), few)}
