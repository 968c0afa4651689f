"""Is the cost linear in the number of atoms? Networks with neighbour lists on crystals of copper.

Claim tested: from 50 to 5,000 atoms the time of energy, forces and virial, and that of a training
step on energy and forces, grow with an exponent of at most 1.1. Rattled fcc copper at its density,
cutoff 5 angstrom, SchNet with 64 features, 3 blocks and 32 radial functions, or `--network=NAME` in
its own sizes, one configuration at a time, single precision. Printed are medians over rounds that
go through all sizes in turn, so that other work on the machine meets them all; the exponent is the
least-squares slope of log time against log atoms.

  python -m experiments.benchmarks.large_systems --out=large_systems.json
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
from ase.build import bulk

from dcnn import activations, data, derivatives, losses, models
from dcnn.base import Labels, System
from dcnn.tasks import forcefield
from experiments.benchmarks.contenders import ours

CUTOFF = 5.0  # angstrom
REPEATS = {50: (2, 5, 5), 150: (5, 5, 6), 500: (5, 10, 10), 1500: (10, 10, 15),
           5000: (10, 20, 25)}
SMOKE = (50, 150)


class Case(NamedTuple):
  """A crystal, and what is timed on it.

  Attributes:
    atoms: The number of atoms.
    pairs: The number of pairs of neighbours.
    list_seconds: The seconds spent listing them.
    functions: What is timed, by name, compiled.
    megabytes: The memory that each of them takes.
  """

  atoms: int
  pairs: int
  list_seconds: float
  functions: dict[str, Callable]
  megabytes: dict[str, float]


def crystal(atoms: int) -> System:
  """Rattled copper in float64, without a list of neighbours."""
  image = bulk("Cu") * REPEATS[atoms]
  image.rattle(0.1, seed=0)
  return System(image.positions, image.numbers, image.cell.array)


def case(atoms: int, network: str) -> Case:
  """Compiles both functions of a network for a crystal."""
  system = crystal(atoms)
  started = time.perf_counter()
  neighbours = data.neighbour_list(system, CUTOFF)
  list_seconds = time.perf_counter() - started
  pairs = int(((neighbours.first != neighbours.second) | neighbours.shifts.any(-1)).sum())
  system = jax.tree.map(
      lambda leaf: jax.numpy.asarray(leaf, "float32" if leaf.dtype == "float64" else "int32"),
      system._replace(neighbours=neighbours))
  found = models.resolve(network)
  elements = {"elements": (29,)} if "elements" in found.takes else {}
  model = found.make(
      activation=lambda x: activations.irelu(x, c=0.5), cutoff=CUTOFF, **elements)
  variables = jax.jit(model.init)(jax.random.key(0), system)
  respond = jax.jit(derivatives.energy_forces_and_virial(model.apply)).lower(
      variables, system).compile()
  step, arguments = training_step(model, variables, system)
  return Case(
      atoms, pairs, list_seconds,
      {"respond": lambda: respond(variables, system), "train": lambda: step(*arguments)},
      {"respond": megabytes(respond), "train": megabytes(step)})


def training_step(model, variables, system):
  """One step of Adam on energy and forces of one configuration, compiled, and its arguments."""
  def absolute(residual, hypers):
    del hypers
    return losses.absolute(residual)

  task = forcefield.make_task(
      lambda hypers: model, system, energy_penalty=absolute, force_penalty=absolute)
  optimizer = optax.adam(1e-3)
  hypers = {"scale": 1.0, "energy_weight": 1.0, "force_weight": 30.0}

  def step(variables, state, batch):
    loss, gradient = jax.value_and_grad(
        lambda variables: ours.total_loss(task, variables, hypers, batch, jax.random.key(0)))(
            variables)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(variables, updates), state, loss

  labels = Labels(jax.numpy.zeros(1), jax.numpy.zeros((1, *system.positions.shape)))
  batch = forcefield.Batch(jax.tree.map(lambda leaf: leaf[None], system), labels)
  arguments = variables, optimizer.init(variables), batch
  return jax.jit(step).lower(*arguments).compile(), arguments


def megabytes(compiled) -> float:
  """The memory of a program's arguments, its results and everything between them."""
  memory = compiled.memory_analysis()
  return (memory.argument_size_in_bytes + memory.output_size_in_bytes
          + memory.temp_size_in_bytes) / 1e6


def medians(cases: list[Case], rounds: int) -> dict[str, list[float]]:
  """The median seconds of each function, by its name, for each case."""
  seconds = {name: np.zeros((rounds, len(cases))) for name in cases[0].functions}
  for i in range(rounds):
    for j, each in enumerate(cases):
      for name, function in each.functions.items():
        jax.block_until_ready(function())  # not timed: it meets what the case before has left
        started = time.perf_counter()
        jax.block_until_ready(function())
        seconds[name][i, j] = time.perf_counter() - started
  return {name: np.median(values, axis=0).tolist() for name, values in seconds.items()}


def exponent(atoms: list[int], seconds: list[float]) -> float:
  """The slope of log seconds against log atoms."""
  return float(np.polyfit(np.log(atoms), np.log(seconds), 1)[0])


def main() -> None:
  """Prints the table and writes it as JSON."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", default="", help="JSON file to write")
  parser.add_argument(
      "--network", default="SchNet", help="the network",
      choices=[name for name in models.MODELS
               if models.resolve(name).listed and "cutoff" in models.resolve(name).settings])
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--smoke", action="store_true", help="two small sizes, to see that it works")
  options = parser.parse_args()
  data.neighbour_list(crystal(SMOKE[0]), CUTOFF)  # so that the library is loaded
  cases = [case(atoms, options.network) for atoms in (SMOKE if options.smoke else REPEATS)]
  atoms = [each.atoms for each in cases]
  seconds = medians(cases, options.rounds)
  print("atoms   pairs  list ms  E+F+W ms  us/atom      MB  train ms  us/atom      MB")
  for i, each in enumerate(cases):
    cells = [f"{each.atoms:5d} {each.pairs:7d} {1e3 * each.list_seconds:8.1f}"]
    for name, width in (("respond", 9), ("train", 9)):
      cells.append(f"{1e3 * seconds[name][i]:{width}.1f} {1e6 * seconds[name][i] / each.atoms:8.1f}"
                   f" {each.megabytes[name]:7.1f}")
    print(" ".join(cells))
  exponents = {name: exponent(atoms, values) for name, values in seconds.items()}
  exponents["list"] = exponent(atoms, [each.list_seconds for each in cases])
  print("exponents: energy, forces and virial {respond:.2f}, training step {train:.2f}, "
        "list {list:.2f}".format(**exponents))
  record = {
      "network": options.network, "atoms": atoms,
      "pairs": [each.pairs for each in cases], "seconds": seconds,
      "list_seconds": [each.list_seconds for each in cases],
      "megabytes": {name: [each.megabytes[name] for each in cases] for name in seconds},
      "exponents": exponents, "rounds": options.rounds, "jax": jax.__version__,
      "device": jax.devices()[0].device_kind, "machine": platform.machine()}
  if options.out:
    with open(options.out, "w", encoding="utf-8") as file:
      json.dump(record, file, indent=2)


if __name__ == "__main__":
  main()
