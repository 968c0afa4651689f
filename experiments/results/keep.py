"""Copies a finished sweep into this folder, small enough to be kept with the source.

  python -m experiments.results.keep DIR NAME [CURVE_POINTS]

Kept are config.json without the folders of the machine, the test rows of results.csv, the
validation errors at up to CURVE_POINTS steps (none by default), and the report that `dcnn report`
draws of them: `dcnn report experiments/results/NAME` gives the same again.
"""

import dataclasses
import pathlib
import re
import sys
from typing import Any

import numpy as np

from dcnn.results import report, storage
from dcnn.results.records import Result

HERE = pathlib.Path(__file__).parent
# The page repeats what report.md and the figures say, in more than their size together.
DROPPED = ("report.html", storage.PREDICTIONS_FILE)


def keep(directory: pathlib.Path, name: str, points: int = 0) -> pathlib.Path:
  """Writes what is kept of the result in a directory, and returns where.

  Args:
    directory: The work directory of a finished sweep.
    name: The name of its folder here.
    points: Steps at which the validation errors are kept.

  Raises:
    ValueError: If the directory holds no finished result.
  """
  result, target = storage.load(directory), HERE / name
  if result.unfinished:
    raise ValueError(f"{directory} is unfinished: give the command that began it again")
  storage.save(reduced(result, points), target)
  if not points:
    (target / storage.HISTORY_FILE).unlink()
  report.write(target)
  for each in DROPPED:
    (target / each).unlink()
  return target


def reduced(result: Result, points: int) -> Result:
  """The result without folders of the machine, its test rows and some of its validation errors."""
  steps = sorted({point.step for point in result.history if point.split == "valid"})
  chosen = {steps[i] for i in np.linspace(0, len(steps) - 1, min(points, len(steps))).astype(int)}
  return dataclasses.replace(
      result, config=without_folders(result.config), predictions={},
      rows=tuple(row for row in result.rows if row.split == "test"),
      history=tuple(point for point in result.history if point.split == "valid"
                    and point.step in chosen and point.metric in result.compared))


def without_folders(value: Any) -> Any:
  """Text, also inside lists and dictionaries, in which absolute paths are their last parts."""
  if isinstance(value, dict):
    return {key: without_folders(each) for key, each in value.items()}
  if isinstance(value, list | tuple):
    return [without_folders(each) for each in value]
  return re.sub(r"(?<![\w/.])/(?:[^\s/'\"]+/)+", "", value) if isinstance(value, str) else value


if __name__ == "__main__":
  folder, kept_name, *number = sys.argv[1:]
  print(keep(pathlib.Path(folder), kept_name, *map(int, number)))
