"""What the use of a trained network costs: dynamics by the mean of ten seeds, and large files.

  python -m experiments.benchmarks.uses --out=uses.json

Trains SchNet with 32 features on ethanol, ten seeds, about half a minute; then measures, each in a
line: loading, dynamics in ASE (steps a minute, and the drift of the energy without a thermostat),
and `dcnn predict` of a large file (seconds, and the peak of its memory).
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import ase
import ase.io
import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

import dcnn
from dcnn import data
from dcnn.base import provenance
from experiments import ablations

SEEDS, STEPS = 10, 4000
FEMTOSECONDS = 0.5  # of a step of dynamics; C-H and O-H bonds take 9 to 11 for one oscillation
KELVIN = 300.0


def main() -> None:
  """Trains, measures, prints a line for each figure and writes them all."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", default="uses.json", help="file that the figures are written to")
  parser.add_argument("--frames", type=int, default=100_000, help="configurations of the file")
  parser.add_argument("--dynamics", type=int, default=2000, help="steps of dynamics")
  parser.add_argument("--steps", type=int, default=STEPS, help="steps of training")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    figures = measure(pathlib.Path(scratch), options.steps, options.dynamics, options.frames)
  for name, value in figures.items():
    print(f"{name}: {value:,.3g}" if isinstance(value, float) else f"{name}: {value}")
  pathlib.Path(options.out).write_text(json.dumps(
      {"environment": provenance.environment(), **figures}, indent=1))


def measure(
    folder: pathlib.Path, training: int, dynamics: int, frames: int) -> dict[str, Any]:
  """All figures.

  Args:
    folder: An empty folder.
    training: Steps of training.
    dynamics: Steps of dynamics.
    frames: Configurations of the file that is predicted.
  """
  config = ablations.get_config()
  config.arms, config.tables = ({"labels": "standardize"},), ()
  config.steps, config.seeds = training, SEEDS
  dcnn.sweep(config, None, workdir=folder / "trained")
  started = time.perf_counter()
  field = dcnn.load(folder / "trained")["standardize"]
  return {
      "seeds": SEEDS, "load, s": time.perf_counter() - started,
      "force_loss of a seed, meV/A": 1000 * float(field.metrics["test"]["force_loss"].mean()),
      **_dynamics(field, dynamics), **_large_file(folder, frames)}


def _dynamics(field: Any, steps: int) -> dict[str, float]:
  """Steps a minute with a thermostat, and the drift of the energy without one."""
  ethanol = data.load("ethanol").systems
  atoms = ase.Atoms(numbers=ethanol.species[0], positions=ethanol.positions[0])
  atoms.calc = field.calculator()
  rng = np.random.default_rng(0)
  thermalize_momenta(atoms, KELVIN, rng=rng)
  Stationary(atoms)
  ZeroRotation(atoms)
  thermostat = Langevin(atoms, FEMTOSECONDS * units.fs, temperature_K=KELVIN,
                        friction=0.01 / units.fs, fixcm=False, rng=rng)
  thermostat.run(10)  # which compiles
  started = time.perf_counter()
  thermostat.run(steps)
  seconds = time.perf_counter() - started
  energies = []
  free = VelocityVerlet(atoms, FEMTOSECONDS * units.fs)
  free.attach(lambda: energies.append(atoms.get_total_energy() / len(atoms)))
  free.run(steps)
  picoseconds = np.arange(len(energies)) * FEMTOSECONDS / 1000
  return {
      "steps of dynamics a minute": 60 * steps / seconds,
      "picoseconds without thermostat": float(picoseconds[-1]),
      "drift of the energy, meV/atom/ps": 1000 * float(np.polyfit(picoseconds, energies, 1)[0]),
      "its fluctuation, meV/atom": 1000 * float(np.std(energies))}


def _large_file(folder: pathlib.Path, frames: int) -> dict[str, float]:
  """Seconds and memory of `dcnn predict` for a file of many configurations with labels."""
  ethanol = data.load("ethanol")
  path, chosen = folder / "large.extxyz", np.arange(frames) % len(ethanol)
  with path.open("w") as file:
    for i in chosen:
      atoms = ase.Atoms(numbers=ethanol.systems.species[i], positions=ethanol.systems.positions[i])
      atoms.info["energy"] = float(ethanol.labels.energy[i])
      atoms.arrays["forces"] = np.asarray(ethanol.labels.forces[i])
      ase.io.write(file, atoms, format="extxyz")
  started = time.perf_counter()
  subprocess.run(
      [sys.executable, "-m", "dcnn", "predict", str(folder / "trained"), str(path),
       f"--out={folder / 'predicted.extxyz'}"], check=True, capture_output=True)
  return {
      "configurations predicted": float(frames),
      "seconds for them": time.perf_counter() - started,
      "peak memory, GB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9}


if __name__ == "__main__":
  main()
