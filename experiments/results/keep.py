"""Copies finished sweeps into this folder, small enough to be kept with the source.

  python -m experiments.results.keep NAME DIR [--points=P]
  python -m experiments.results.keep NAME DIR DIR ... --by=dataset

Kept are config.json without the folders of the machine, the test rows of results.csv, the
validation errors at up to P steps (none by default), and the report that `dcnn report` draws of
them: `dcnn report experiments/results/NAME` gives the same again. Of several sweeps, which differ
in one setting, each is kept in a folder of NAME, without figures, and beside them the page that
`dcnn compare DIR DIR ... --by=SETTING --out=OUT` draws.
"""

import argparse
import dataclasses
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from dcnn.jobs import compare
from dcnn.results import report, storage, strata_page
from dcnn.results.records import Result

HERE = pathlib.Path(__file__).parent
# The page repeats what report.md and the figures say, in more than their size together.
DROPPED = ("report.html", storage.PREDICTIONS_FILE)


def keep(directory: pathlib.Path, target: pathlib.Path, points: int = 0) -> None:
  """Writes what is kept of the result in a directory.

  Args:
    directory: The work directory of a finished sweep.
    target: The folder to write it into.
    points: Steps at which the validation errors are kept.

  Raises:
    ValueError: If the directory holds no finished result.
  """
  result = storage.load(directory)
  if result.unfinished:
    raise ValueError(f"{directory} is unfinished: give the command that began it again")
  storage.save(reduced(result, points), target)
  if not points:
    (target / storage.HISTORY_FILE).unlink()
  report.write(target)
  for each in DROPPED:
    (target / each).unlink()


def keep_all(directories: list[pathlib.Path], by: str, target: pathlib.Path) -> None:
  """Writes what is kept of several results and of their comparison over a setting.

  Args:
    directories: Work directories of finished sweeps, whose names become those of the folders.
    by: The dotted key of the setting.
    target: The folder to write them into.

  Raises:
    ValueError: If a sweep has not ended, or if they cannot be compared.
  """
  for directory in directories:
    place = target / directory.name
    keep(directory, place)
    shutil.rmtree(place / storage.FIGURES)
    page = place / "report.md"
    page.write_text(re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", page.read_text()))
  sources = compare.read([str(target / directory.name) for directory in directories])
  results = compare.by_groups(sources, by)
  notes = list(map(without_folders, compare.notes_by(results, sources, by)))
  names = ",".join(directory.name for directory in directories)
  command = f"dcnn compare experiments/results/{target.name}/{{{names}}} --by={by}"
  strata_page.write(results, by, notes, command, target)
  config = target / storage.CONFIG_FILE
  config.write_text(without_folders(config.read_text()))


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


def main() -> None:
  """The command."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("name")
  parser.add_argument("directories", nargs="+", type=pathlib.Path)
  parser.add_argument("--points", type=int, default=0)
  parser.add_argument("--by", default="")
  options = parser.parse_args()
  target = HERE / options.name
  if options.by:
    keep_all(options.directories, options.by, target)
  else:
    keep(options.directories[0], target, options.points)
  print(target)


if __name__ == "__main__":
  main()
