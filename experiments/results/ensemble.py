"""Errors of the mean of what the seeds of an arm predict, beside those of each seed.

  python -m experiments.results.ensemble WORKDIR

The test errors of a finished sweep of force fields, from its checkpoints and its data, which must
be where they were.
"""

import argparse
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

import dcnn
from dcnn.configs import build
from dcnn.jobs import restoring
from dcnn.results import storage

MEV = 1000.0


class Residuals(NamedTuple):
  """Predictions less labels of the test frames, by seed.

  Attributes:
    energy: In eV.
    forces: In eV/angstrom.
  """

  energy: Float[np.ndarray, "seeds frames"]
  forces: Float[np.ndarray, "seeds frames atoms 3"]


def residuals(workdir: pathlib.Path, arm: str) -> Residuals:
  """What each seed of an arm leaves on the test frames; its variables that validation chose.

  Args:
    workdir: The work directory of the sweep.
    arm: The name of the arm.

  Raises:
    ValueError: If there is no such arm, or the seeds have splits of their own.
  """
  config = restoring.restored(storage.read_config(workdir / storage.CONFIG_FILE)["config"])
  if config.split.per_seed:
    raise ValueError(f"{workdir}: with split.per_seed no frame is a test frame of all seeds")
  trained = dcnn.load(workdir)
  if arm not in trained:
    raise ValueError(f"no arm {arm!r}: there are {', '.join(trained)}")
  sources = build.load(config)
  test = sources.dataset.take(build.build(config, sources).splits[0].test)
  found = trained[arm].predict(test.systems)
  energy, forces = (np.asarray(label)[:, None] for label in test.labels)
  return Residuals((found.energy - energy).T, np.moveaxis(found.forces - forces, 1, 0))


def main() -> None:
  """Prints both errors of each seed and of the mean."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("workdir", type=pathlib.Path)
  parser.add_argument("--arm", default="base")
  options = parser.parse_args()
  found = residuals(options.workdir, options.arm)
  each = [MEV * np.mean(np.abs(part), axis=tuple(range(1, part.ndim))) for part in found]
  mean = [MEV * np.mean(np.abs(np.mean(part, axis=0))) for part in found]
  for name, energy, force in (
      *((f"seed {number}", *pair) for number, pair in enumerate(zip(*each, strict=True))),
      (f"mean of {len(each[0])}", *mean)):
    print(f"{name}: energy_loss {energy:.3f} meV, force_loss {force:.2f} meV/A")


if __name__ == "__main__":
  main()
