"""From measured rows to what is printed: the table, ratios, and the checks."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
FIT_TOLERANCE = 1.5  # largest by smallest loss after equal steps; initialisations differ


def markdown(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
  """A table whose columns are aligned in plain text, too.

  Args:
    header: The names of the columns.
    lines: The cells of each line.
  """
  cells = [list(map(str, line)) for line in (header, *lines)]
  widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
  padded = ["| " + " | ".join(
      cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
            for line in cells]
  rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
  return "\n".join([padded[0], rule, *padded[1:]])


def main_table(rows: Sequence[Row]) -> str:
  """One line for each contender and case."""
  header = ("contender", "cores", "threads", "features", "batch", "atoms", "runs", "steps/s",
            "conf./s", "ms/step/run", "compile cold, s", "warm, s", "peak, MB", "GFLOP/s",
            "of matmul")
  return markdown(header, [(
      row["contender"], row["cores"], row["threads"] or "", row["features"], row["batch"],
      row["atoms"], row["runs"], _number(row["steps_per_second"]),
      _number(row["configurations_per_second"]), _number(row["ms_per_step_and_run"]),
      _number(row["compile_seconds_cold"]), _number(row["compile_seconds_warm"]),
      f"{row['peak_memory_bytes'] / 1e6:.0f}", _number(row["achieved_gflops"]),
      f"{row['achieved_of_attainable']:.2f}") for row in rows])


def ratios(rows: Sequence[Row]) -> list[Row]:
  """The time per step and run of ours against that of others, and of many runs against one.

  A ratio is the median over the rounds of the alternation of the ratio within the round, so that
  what else the machine does falls on both.
  """
  ours = [row for row in rows if row["module"] == "ours"]
  found = []
  for row in ours:
    peers = [other for other in rows if other["module"] != "ours"]
    peers += [other for other in ours if other["runs"] == 1 and row["runs"] > 1
              and other["mapping"] == "engine"]
    peers += [other for other in ours if other["mapping"] == "in_turn"
              and other["runs"] == row["runs"] and row["mapping"] != "in_turn"]
    for other in peers:
      found.append({
          **{name: row[name] for name in ("features", "batch", "atoms", "cores", "runs")},
          "contender": row["contender"], "against": other["contender"],
          "against_runs": other["runs"],
          "ratio": _ratio(row, other, "ms_per_step_and_run"),
          "cpu_ratio": _ratio(row, other, "cpu_ms_per_step_and_run")})
  return found


def _ratio(row: Row, other: Row, what: str) -> list[float]:
  """The median, the smallest and the largest ratio over the rounds."""
  each = [mine[what] / theirs[what]
          for mine, theirs in zip(row["samples"], other["samples"], strict=True)]
  return [statistics.median(each), min(each), max(each)]


def ratio_table(found: Sequence[Row]) -> str:
  """A table of the ratios of times, and of CPU times, with their range over the rounds."""
  header = ("time per step and run of", "against", "cores", "features", "batch", "atoms",
            "ratio", "range", "CPU time")
  return markdown(header, [(
      _with_runs(each["contender"], each["runs"]),
      _with_runs(each["against"], each["against_runs"]),
      each["cores"], each["features"], each["batch"], each["atoms"],
      f"{each['ratio'][0]:.3f}", "{1:.3f}-{2:.3f}".format(*each["ratio"]),
      f"{each['cpu_ratio'][0]:.3f}") for each in found])


def _with_runs(name: str, runs: int) -> str:
  return f"{name} ({runs} run{'s' if runs > 1 else ''})"


def checks(rows: Sequence[Row]) -> list[str]:
  """Whether the contenders are the same network and learn alike; one line for each finding."""
  with_fit = [row for row in rows if row["fit_loss"] is not None]
  return [*map(_parameter_check, with_fit), *_fit_check(with_fit)]


def parameter_count(*, elements: int, features: int, blocks: int, radial: int) -> int:
  """The number of parameters of a SchNet of this size, with `elements` rows in its embedding.

  A block has a filter network of two layers, a layer without biases before the convolution, and
  two after it; the output network has two layers.
  """
  square = features * features + features
  block = (radial * features + features) + square + features * features + 2 * square
  half = features // 2
  return elements * features + blocks * block + (features * half + half) + (half + 1)


def _parameter_check(row: Row) -> str:
  shapes = row["parameters"]
  total = sum(math.prod(shape) for shape in shapes.values())
  elements = next(shape[0] for name, shape in shapes.items() if "embedding" in name)
  expected = parameter_count(
      elements=elements, features=row["features"], blocks=row["blocks"], radial=row["radial"])
  verdict = "as the formula says" if total == expected else f"NOT the {expected} of the formula"
  return (f"{row['contender']}: {total} parameters, {verdict}; without the {elements} rows of the "
          f"embedding {total - elements * row['features']}")


def _fit_check(rows: Sequence[Row]) -> list[str]:
  losses = {row["contender"]: row["fit_loss"] for row in rows}
  if not losses:
    return []
  spread = max(losses.values()) / min(losses.values())
  verdict = "alike" if spread <= FIT_TOLERANCE else "NOT alike"
  each = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
  return [f"loss after the same steps: {each}: {verdict} (largest by smallest {spread:.2f}, "
          f"allowed {FIT_TOLERANCE})"]


def _number(value: float | None) -> str:
  if value is None:
    return ""
  return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
