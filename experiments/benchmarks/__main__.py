"""Prints the benchmark table and writes it as JSON.

  python -m experiments.benchmarks --out=benchmarks.json

Needs `pip install '.[bench]'` for the competitors; without them it measures ours alone.
"""

import itertools
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from experiments.benchmarks import measuring, tables
from experiments.benchmarks.cases import Case, Plan, default_plans, quick_plans
from experiments.benchmarks.processes import core_numbers

OUT = flags.DEFINE_string("out", "benchmarks.json", "File that the figures are written to.")
QUICK = flags.DEFINE_bool("quick", False, "Seconds: only see that everything works.")
CORES = flags.DEFINE_list(
    "cores", None, "How many cores to pin to, e.g. 1,2: everything with each; default 1 and all.")
FEATURES = flags.DEFINE_list(
    "features", None, "Sizes of the network. This and the next three replace the usual cases by "
    "their product; what is left out is that of the base case.")
BATCHES = flags.DEFINE_list("batches", None, "Configurations a step.")
MOLECULES = flags.DEFINE_list("molecules", None, "Embedded data sets, e.g. ethanol,aspirin.")
RUNS = flags.DEFINE_list("runs", None, "Numbers of runs that are trained together.")
for name in ("cores", "features", "batches", "runs"):
  flags.register_validator(
      name, lambda values: all(value.isdigit() and int(value) > 0 for value in values or ()),
      message="expected whole numbers above 0, separated by commas")


def main(argv: Sequence[str]) -> None:
  """Measures case after case; what has been measured is written after each."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}: every setting has a flag")
  effort = measuring.QUICK if QUICK.value else measuring.FULL
  rows: list[dict[str, Any]] = []
  problems: dict[str, None] = {}
  lines: list[str] = []
  for number, plan in enumerate(_plans()):
    _tell(str(plan))
    with tempfile.TemporaryDirectory() as scratch:
      measured = measuring.measure(
          plan, effort, pathlib.Path(scratch), with_fit=number == 0, tell=_tell)
    rows += measured.rows
    problems |= dict.fromkeys(measured.problems)
    lines += tables.checks(measured.rows) if number == 0 else []
    _write({"environment": measured.environment, "command": sys.argv[1:],
            "effort": effort._asdict(), "rows": rows, "ratios": _ratios(rows), "checks": lines,
            "problems": list(problems)})
  print(tables.main_table(rows), "", tables.ratio_table(_ratios(rows)), "",
        *lines, *problems, sep="\n")


def _plans() -> list[Plan]:
  """The usual cases, or the product of the axes that flags name."""
  if QUICK.value:
    return quick_plans()
  usable = len(core_numbers())
  cores = [int(number) for number in CORES.value or sorted({1, usable})]
  if max(cores) > usable:
    raise app.UsageError(f"--cores={max(cores)}: this process may use {usable}")
  axes = (FEATURES.value, BATCHES.value, MOLECULES.value, RUNS.value)
  if not any(axes):
    return default_plans(cores)
  base = Case()
  runs = tuple(map(int, RUNS.value or [1]))
  return [
      Plan(base._replace(cores=number, features=int(features), batch=int(batch),
                         molecule=molecule), runs)
      for number, features, batch, molecule in itertools.product(
          cores, FEATURES.value or [base.features], BATCHES.value or [base.batch],
          MOLECULES.value or [base.molecule])]


def _ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The ratios within each case: what was not timed in alternation is not compared."""
  def case(row):
    return row["cores"], row["features"], row["batch"], row["molecule"]

  cases = dict.fromkeys(map(case, rows))
  return [found for one in cases
          for found in tables.ratios([row for row in rows if case(row) == one])]


def _write(figures: dict[str, Any]) -> None:
  out = pathlib.Path(OUT.value)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.write_text(json.dumps(figures, indent=1))


def _tell(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
  app.run(main)
