"""Figures of a sweep, from its results.

Apart from the report, because Matplotlib takes a second to import, reads what the user has set as
it does, and may fail at either: a report without figures is better than none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dcnn import stats
from dcnn.results import plots
from dcnn.results.records import COMPARED, Result, Table

# A table and the statistics of its arms, by metric.
Comparison = tuple[Table, Mapping[str, Sequence[stats.ArmSummary]]]


class Drawing(NamedTuple):
  """A figure as an SVG file, and as an element of a page that gives it its colours."""

  file: bytes
  inline: str


def drawings(
    result: Result, comparisons: Sequence[Comparison]
) -> tuple[dict[str, Drawing], dict[str, Exception]]:
  """Draws all figures that the results allow.

  Args:
    result: of the sweep.
    comparisons: its tables with their statistics.

  Returns:
    Figures by name; and by name what went wrong with those that cannot be drawn.
  """
  drawn: dict[str, Drawing] = {}
  failed: dict[str, Exception] = {}
  for name, draw in _figures(result, comparisons):
    try:
      content = plots.svg(draw())
      drawn[name] = Drawing(content, plots.inline(content))
    except Exception as error:  # of a library of fonts, images and layouts: anything
      failed[name] = error
  return drawn, failed


def _figures(
    result: Result, comparisons: Sequence[Comparison]
) -> Iterator[tuple[str, Callable[[], plots.Figure]]]:
  """Names of the figures and functions that draw them."""
  compared = [comparison for comparison in comparisons if comparison[1]]
  if compared:
    yield "errors", lambda: plots.strip_plot([
        _strip_panel(result, compared, metric) for metric in compared[0][1]])
  curves = curves_of(result)
  for number, (table, _) in enumerate(comparisons, start=1):
    panels = [curve_panel(result, curves, table, metric) for metric in COMPARED]
    panels = [panel for panel in panels if panel.curves]
    if panels:
      yield f"learning_curves_{number}", lambda panels=panels: plots.learning_curves(panels)
  parity = result.parity
  if {"energy_true", "energy_predicted", "forces_true", "forces_predicted"} <= set(parity):
    yield "parity", lambda: plots.parity_plot(
        parity["energy_true"], parity["energy_predicted"],
        forces_true=parity["forces_true"], forces_predicted=parity["forces_predicted"])


def _strip_panel(
    result: Result, comparisons: Sequence[Comparison], metric: str
) -> plots.StripPanel:
  unit, errors = result.unit(metric), result.errors(metric)
  groups = [
      (table.title, [
          plots.Strip(
              summary.arm, errors[summary.arm] * unit.factor,
              stats.Interval(*(unit.factor * end for end in summary.error)),
              summary.contrast.verdict if summary.contrast else "baseline")
          for summary in summaries[metric]])
      for table, summaries in comparisons]
  return plots.StripPanel(metric, unit.name, groups, _constant(result, metric) * unit.factor)


def _constant(result: Result, metric: str) -> float:
  """Error of the constant predictor, which error and skill of a run imply; median over the runs."""
  skill = metric.replace("_loss", "_skill")
  if not result.has(skill):
    return np.nan
  errors, skills = result.errors(metric), result.errors(skill)
  implied = [  # of an exact run, whose skill is 1, it cannot be told
      error / (1 - skill) for arm in result.arms
      if np.all(np.isfinite([errors[arm], skills[arm]]))
      for error, skill in zip(errors[arm], skills[arm], strict=True) if skill < 1]
  return float(np.median(implied)) if implied else np.nan


def curves_of(result: Result) -> dict[tuple[str, str], dict[int, dict[int, float]]]:
  """Validation errors by arm and metric, then by seed, then by step."""
  curves: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
  for point in result.history:
    if point.split == "valid":
      seeds = curves.setdefault((point.arm, point.metric), {})
      seeds.setdefault(point.seed, {})[point.step] = point.value
  return curves


def curve_panel(
    result: Result, curves: Mapping[tuple[str, str], Mapping[int, Mapping[int, float]]],
    table: Table, metric: str,
) -> plots.CurvePanel:
  """The curves of a table, the baseline first; empty unless the baseline has one."""
  unit, stopped = result.unit(metric), set(result.out_of_patience)
  arms = dict.fromkeys((table.baseline, *table.arms))
  drawn = []
  for arm in arms if (table.baseline, metric) in curves else ():
    seeds = curves.get((arm, metric), {})
    steps = sorted({step for values in seeds.values() for step in values})
    if steps:
      errors = [
          [values.get(step, values[max(values)] if (arm, seed) in stopped else np.nan)
           for step in steps] for seed, values in seeds.items()]
      drawn.append(plots.Curve(
          arm, np.array(steps), unit.factor * np.array(errors),
          sum(arm == each for each, _ in result.failed)))
  return plots.CurvePanel(metric, unit.name, drawn)
