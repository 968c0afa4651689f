"""Errors of the mean of what the seeds of an arm predict, beside those of each seed.

  python -m experiments.results.ensemble WORKDIR

The test errors of a finished sweep of force fields, from its checkpoints and its data, which must
be where they were.
"""

import argparse
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

import dcnn
from dcnn.configs import build
from dcnn.jobs import compare
from dcnn.results import storage
from dcnn.sweeps.plans import make_groups

MEV = 1000.0
AT_ONCE = 50  # configurations


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
  config = compare.restored(storage.read_config(workdir / storage.CONFIG_FILE)["config"])
  if config.split.per_seed:
    raise ValueError(f"{workdir}: with split.per_seed no frame is a test frame of all seeds")
  plan = build.build(config, build.load(config))
  found = [(group, [run for run in group.runs if run.arm.name == arm])
           for group in make_groups(plan)]
  group, runs = next(((group, runs) for group, runs in found if runs), (None, []))
  if group is None:
    raise ValueError(f"no arm {arm!r}: there are {', '.join(each.name for each in plan.arms)}")
  left = dcnn.trained(workdir)[arm]["best"]
  predict = jax.jit(group.program.task.predict)
  test = np.asarray(plan.splits[0].test)
  parts = [[], []]
  for number, run in enumerate(runs):
    variables = jax.tree.map(lambda leaf, number=number: leaf[number], left)
    data = plan.problem.shared(test), run.fitted.own(test)
    batches = [plan.problem.take(data, rows) for rows in np.split(
        np.arange(len(test)), range(AT_ONCE, len(test), AT_ONCE))]
    predicted = [(predict(variables, run.hypers, batch), batch.labels)
                 for batch in batches]
    for part, name in zip(parts, Residuals._fields, strict=True):
      part.append(np.concatenate([
          np.asarray(getattr(mine, name)) - getattr(label, name) for mine, label in predicted]))
  return Residuals(*map(np.stack, parts))


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
