"""Times a force-training step of each network against SchNet's, and against other programs'.

  python -m experiments.benchmarks.networks --out=networks.json

All are pinned to one core and timed in alternation: ethanol, batch 10, Adam. Needs `pip install
'.[bench]'` for the others, and `pip install mace-torch` for MACE; without them it measures ours.
"""

import argparse
import contextlib
import json
import math
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from dcnn.base import provenance
from experiments.benchmarks import measuring, processes, tables
from experiments.benchmarks.cases import Case, Contender, Plan, contenders, networks


def main() -> None:
  """Measures all networks side by side, prints the table and writes the figures."""
  base, *others = networks()
  names = list(dict.fromkeys(case.network for case in others))
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", default="networks.json", help="file that the figures are written to")
  parser.add_argument("--networks", nargs="+", choices=names, default=names,
                      help="those that are timed beside SchNet")
  parser.add_argument("--rounds", type=int, default=9, help="bursts of each")
  options = parser.parse_args()
  chosen = [base, *(case for case in others if case.network in options.networks)]
  with tempfile.TemporaryDirectory() as scratch:
    rows, problems = measure(
        chosen, measuring.FULL._replace(rounds=options.rounds), pathlib.Path(scratch))
  out = pathlib.Path(options.out)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.write_text(json.dumps(
      {"environment": provenance.environment(), "rows": rows, "problems": problems}, indent=1))
  print(table(rows), *problems, sep="\n")


def measure(
    cases: Sequence[Case], effort: measuring.Effort, scratch: pathlib.Path
) -> tuple[list[dict[str, Any]], list[str]]:
  """Rows of ours and of the others for each case, and why some could not be measured.

  Args:
    cases: The networks; all are compared with the first.
    effort: How long to measure.
    scratch: An empty folder.
  """
  with contextlib.ExitStack() as stack:
    members, found, problems = [], [], {}
    for number, case in enumerate(cases):
      request = {"case": case._asdict(), "data": str(scratch / f"data_{number}.npz"),
                 "cores": processes.core_numbers()[:case.cores]}
      with measuring.worker({**request, "task": "data"}) as data:
        processes.ask(data)
      for contender in contenders(Plan(case, (1,), ("engine",))):
        print(f"{case.network} {case.features}, {contender.name}", file=sys.stderr, flush=True)
        try:
          members.append(measuring.start(
              stack, {**request, "task": "train", "contender": contender._asdict()}, contender,
              effort, scratch / f"cache_{len(members)}", False))
        except LookupError as error:
          problems[f"{contender.name} left out: {error}"] = None
        else:
          found.append((case, contender))
    samples = measuring.alternate(members, effort)
  return [_row(*each) for each in zip(found, members, samples, strict=True)], list(problems)


def _row(
    what: tuple[Case, Contender], member: measuring.Member, samples: list[dict[str, float]]
) -> dict[str, Any]:
  case, contender = what
  return {
      **case._asdict(), "contender": contender.name,
      "weights": sum(math.prod(shape) for shape in member.description["parameters"].values()),
      "compile_seconds": member.description["compile_seconds"],
      "versions": member.description["versions"],
      "ms": [each["ms_per_step_and_run"] for each in samples],
      "cpu_ms": [each["cpu_ms_per_step_and_run"] for each in samples]}


def table(rows: Sequence[dict[str, Any]]) -> str:
  """A line for each: its time, that against our SchNet, and ours against it."""
  base = next(row for row in rows if row["contender"] == "ours")
  lines = []
  for row in rows:
    ours = next(other for other in rows if other["contender"] == "ours" and all(
        other[key] == row[key] for key in Case._fields))
    lines.append((
        row["network"], row["features"], row["blocks"], row["contender"], f"{row['weights']:,}",
        "" if row["compile_seconds"] is None else f"{row['compile_seconds']:.1f}",
        f"{statistics.median(row['ms']):.2f}", _ratio(row, base),
        "" if row is ours else _ratio(ours, row)))
  return tables.markdown(
      ("network", "features", "blocks", "program", "weights", "compile, s", "ms/step",
       "to our SchNet", "ours to it"), lines)


def _ratio(row: dict[str, Any], other: dict[str, Any]) -> str:
  """The median and the range of the ratios of CPU times within a round."""
  each = [mine / theirs for mine, theirs in zip(row["cpu_ms"], other["cpu_ms"], strict=True)]
  return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


if __name__ == "__main__":
  main()
