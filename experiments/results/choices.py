"""What validation data say of the arms of a search, from the best to the worst.

  python -m experiments.results.choices WORKDIR

Of a finished sweep of force fields: geometric means over the seeds, and the ratio of the force
error to that of the first arm, seed by seed, with its range. Test data choose nothing and are not
read.
"""

import argparse
import pathlib

import numpy as np

from dcnn.base.text import number_text
from dcnn.results import storage
from dcnn.results.records import Result

MILLI = 1000.0


def table(result: Result) -> list[str]:
  """The lines of a table in Markdown.

  Args:
    result: The result of a sweep, with validation rows.

  Raises:
    ValueError: If it has none.
  """
  energies, forces = (
      _validation(result, metric) for metric in ("energy_loss", "force_loss"))
  base = next(iter(forces.values()))
  lines = ["| arm | energy_loss, meV | force_loss, meV/A | ratio of force_loss |",
           "|---|---|---|---|"]
  for arm in sorted(forces, key=lambda arm: _mean(forces[arm])):
    ratios = forces[arm] / base
    lines.append(
        f"| {arm} | {number_text(MILLI * _mean(energies[arm]))} | "
        f"{number_text(MILLI * _mean(forces[arm]))} | "
        f"{_mean(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) |")
  return lines


def _validation(result: Result, metric: str) -> dict[str, np.ndarray]:
  """The validation errors of each arm, seed by seed."""
  found: dict[str, list[float]] = {}
  for row in result.rows:
    if (row.split, row.metric) == ("valid", metric):
      found.setdefault(row.arm, []).append(row.value)
  if not found:
    raise ValueError(f"no {metric} of validation data: kept results have those of test data alone")
  return {arm: np.array(values) for arm, values in found.items()}


def _mean(errors: np.ndarray) -> float:
  return float(np.exp(np.mean(np.log(errors))))


def main() -> None:
  """Prints the table of a work directory."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("workdir", type=pathlib.Path)
  print("\n".join(table(storage.load(parser.parse_args().workdir))))


if __name__ == "__main__":
  main()
