"""What a force training step costs beside an energy-only step: time, operations and memory.

  python -m experiments.benchmarks.breakdown --out=breakdown.json

The parts are timed in alternation in one process, pinned to one core.
"""

import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import app, flags

from experiments.benchmarks import operations, tables
from experiments.benchmarks.cases import Case
from experiments.benchmarks.processes import core_numbers

OUT = flags.DEFINE_string("out", "breakdown.json", "File that the figures are written to.")
FEATURES = flags.DEFINE_integer("features", Case().features, "Size of the network.")
BATCH = flags.DEFINE_integer("batch", Case().batch, "Configurations a step.")
MOLECULE = flags.DEFINE_string("molecule", Case().molecule, "Embedded data set.")
ROUNDS = flags.DEFINE_integer("rounds", 15, "Bursts of each part.")
BURST_SECONDS = 0.2
# What is computed changes the parameters by so little; but each turn of a loop then depends on the
# turn before, and XLA cannot compute it once for all of them.
NEGLIGIBLE = 1e-12
ENERGY_STEP = "training step on energies alone"


class Part(NamedTuple):
  """One function of the training, compiled.

  Attributes:
    run: `(repeats)`: computes it so many times, one after the other in one program, and waits.
    workspace: The bytes that it takes beside its arguments and results.
    operations: The useful operations of its matrix products, counted by hand.
  """

  run: Callable[[int], Any]
  workspace: int
  operations: float


def main(argv: Sequence[str]) -> None:
  """Measures the parts and prints them as ratios to the energy-only step."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}: every setting has a flag")
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, core_numbers()[:1])
  case = Case(features=FEATURES.value, batch=BATCH.value, molecule=MOLECULE.value)
  environment, found = measure(case, ROUNDS.value, BURST_SECONDS)
  figures = {"environment": environment, "case": case._asdict(), "parts": found}
  pathlib.Path(OUT.value).write_text(json.dumps(figures, indent=1))
  print(table(found))


def measure(case: Case, rounds: int, burst: float) -> tuple[dict[str, Any], dict[str, Any]]:
  """Time, workspace and operations of each part of a training step.

  Args:
    case: The sizes of the network and of its batch.
    rounds: The number of bursts of each part.
    burst: The seconds of a burst.

  Returns:
    The environment, and by the name of the part: `ms` and `cpu_ms` (medians), their ratios to the
    energy-only step, `workspace_bytes`, `operations`.
  """
  from dcnn.base import provenance  # JAX may start only after the process is pinned

  members = parts(case)
  counts = {name: _repeats(part, burst) for name, part in members.items()}
  samples: dict[str, list[tuple[float, float]]] = {name: [] for name in members}
  for _ in range(rounds):
    for name, part in members.items():
      samples[name].append(_burst(part, counts[name]))
  base = samples[ENERGY_STEP]
  return provenance.environment(), {
      name: {
          "ms": 1e3 * statistics.median(wall for wall, _ in mine),
          "cpu_ms": 1e3 * statistics.median(cpu for _, cpu in mine),
          "ratio": statistics.median(a[0] / b[0] for a, b in zip(mine, base, strict=True)),
          "cpu_ratio": statistics.median(a[1] / b[1] for a, b in zip(mine, base, strict=True)),
          "workspace_bytes": members[name].workspace,
          "operations": members[name].operations,
      } for name, mine in samples.items()}


def parts(case: Case) -> dict[str, Part]:
  """The functions that a training step is made of, from the energy to the whole."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from dcnn.sweeps import training
  from experiments.benchmarks.contenders import ours

  example = ours.example(case)
  network = operations.layers(
      atoms=example.atoms, pairs=example.pairs, features=case.features, blocks=case.blocks,
      radial=case.radial)
  key = jax.random.key(0)

  def part(function, state, count: float) -> Part:
    def program(state, hypers, batch, repeats):
      return jax.lax.fori_loop(
          0, repeats, lambda _, state: function(state, hypers, batch), state)

    arguments = (state, example.hypers, example.batch)
    compiled = jax.jit(program).lower(*arguments, np.int32(0)).compile()
    return Part(
        lambda repeats: jax.block_until_ready(compiled(*arguments, np.int32(repeats))),
        compiled.memory_analysis().temp_size_in_bytes, case.batch * count)

  def loss(program):
    def function(state, hypers, batch):
      params = state.variables["params"]
      value = ours.total_loss(program.task, state.variables, hypers, batch, key)
      return _replace_params(state, jax.tree.map(lambda leaf: leaf - NEGLIGIBLE * value, params))
    return function

  def gradient(program):
    def function(state, hypers, batch):
      params = state.variables["params"]
      slope = jax.grad(lambda params: ours.total_loss(
          program.task, {**state.variables, "params": params}, hypers, batch, key))(params)
      return _replace_params(state, jax.tree.map(
          lambda leaf, change: leaf - NEGLIGIBLE * change, params, slope))
    return function

  def step(program):
    return lambda state, hypers, batch: training.step(program, state, hypers, batch, key)[0]

  def start(program):
    return jax.jit(lambda hypers: training.init(program, key, hypers))(
        jax.tree.map(jnp.asarray, example.hypers))

  energies, forces = ((program, start(program)) for program in (
      example.energy_program, example.force_program))
  return {
      "energies": part(loss(energies[0]), energies[1], operations.energy(network)),
      "energies and forces": part(loss(forces[0]), forces[1], operations.forces(network)),
      "gradient of the energy loss": part(
          gradient(energies[0]), energies[1], operations.energy_training(network)),
      "gradient of the energy and force loss": part(
          gradient(forces[0]), forces[1], operations.force_training(network)),
      ENERGY_STEP: part(step(energies[0]), energies[1], operations.energy_training(network)),
      "training step on energies and forces": part(
          step(forces[0]), forces[1], operations.force_training(network)),
  }


def _replace_params(state, params):
  return state._replace(variables={**state.variables, "params": params})


def _repeats(part: Part, burst: float) -> int:
  part.run(1)
  trial = 5
  started = time.perf_counter()
  part.run(trial)
  return max(1, round(trial * burst / (time.perf_counter() - started)))


def _burst(part: Part, repeats: int) -> tuple[float, float]:
  """The seconds, and the CPU seconds, of computing a part once."""
  started, processed = time.perf_counter(), time.process_time()
  part.run(repeats)
  return ((time.perf_counter() - started) / repeats,
          (time.process_time() - processed) / repeats)


def table(found: dict[str, Any]) -> str:
  """Times, workspace and operations beside those of the energy-only step."""
  base = found[ENERGY_STEP]
  header = ("part", "ms", "ratio", "CPU ratio", "workspace, MB", "ratio", "MFLOP", "ratio")
  return tables.markdown(header, [(
      name, f"{each['ms']:.3g}", f"{each['ratio']:.2f}", f"{each['cpu_ratio']:.2f}",
      f"{each['workspace_bytes'] / 1e6:.2f}",
      f"{each['workspace_bytes'] / base['workspace_bytes']:.2f}",
      f"{each['operations'] / 1e6:.1f}",
      f"{each['operations'] / base['operations']:.2f}") for name, each in found.items()])


if __name__ == "__main__":
  app.run(main)
