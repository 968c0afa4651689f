"""Figures of a sweep, from its results.

They are apart from the report because Matplotlib takes a second to import and then reads the user's
settings, and may fail at either: a report without figures is better than none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dcnn import stats
from dcnn.base.measures import Picture
from dcnn.results import plots
from dcnn.results.measures import figure_name
from dcnn.results.records import Result, Table
from dcnn.results.summary import Comparison, constant_error

# Validation errors by arm and metric, then by seed, then by step.
Curves = Mapping[tuple[str, str], Mapping[int, Mapping[int, float]]]


class Drawing(NamedTuple):
  """A figure as an SVG file, and as an element of a page that gives it its colours."""

  file: bytes
  inline: str


def drawings(
    result: Result, comparisons: Sequence[Comparison]
) -> tuple[dict[str, Drawing], dict[str, Exception]]:
  """Draws all figures that the results allow.

  Args:
    result: The result of a sweep.
    comparisons: Its tables with their statistics, from `summary.compare`.

  Returns:
    The figures by name; and by name what went wrong with those that cannot be drawn.
  """
  figures: dict[str, Drawing] = {}
  failures: dict[str, Exception] = {}
  for name, draw in _figures(result, comparisons):
    try:
      content = plots.svg(draw())
      figures[name] = Drawing(content, plots.inline(content))
    except Exception as error:  # of a library of fonts, images and layouts: anything
      failures[name] = error
  return figures, failures


def _figures(
    result: Result, comparisons: Sequence[Comparison]
) -> Iterator[tuple[str, Callable[[], Figure]]]:
  """Names of the figures and functions that draw them."""
  compared = [comparison for comparison in comparisons if comparison[1]]
  if compared:
    yield "errors", lambda: plots.strip_plot([
        _strip_panel(result, compared, metric) for metric in compared[0][1]])
  curves = validation_curves(result)
  for number, (table, _) in enumerate(comparisons, start=1):
    panels = [curve_panel(result, curves, table, metric) for metric in result.compared]
    panels = [panel for panel in panels if panel.curves]
    if panels:
      yield f"learning_curves_{number}", lambda panels=panels: plots.learning_curves(panels)
  panels = [prediction_panel(picture, result.predictions) for picture in result.measures.pictures]
  panels = [panel for panel in panels if panel is not None]
  if panels:
    yield figure_name(result.measures.pictures), lambda: plots.prediction_plot(panels)


def prediction_panel(
    picture: Picture, predictions: Mapping[str, np.ndarray]
) -> plots.Parity | plots.Field | None:
  """The panel of a picture; None where its arrays are missing or empty.

  Args:
    picture: What to draw.
    predictions: The arrays by name.
  """
  arrays = {part: np.asarray(predictions.get(name, ()), np.float64)
            for part, name in picture.arrays.items()}
  if not all(array.size for array in arrays.values()):
    return None
  origin = np.mean(arrays["true"]) if picture.centred else 0.0
  true, predicted = arrays["true"] - origin, arrays["predicted"] - origin
  if picture.kind == "parity":
    return plots.Parity(picture.title, picture.unit, true, predicted)
  return plots.Field(
      picture.title, picture.unit, true, predicted, arrays["horizontal"], arrays["vertical"],
      picture.axes)


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
  return plots.StripPanel(metric, unit.name, groups, constant_error(result, metric) * unit.factor)


def validation_curves(result: Result) -> Curves:
  """The validation errors of all runs, from the history."""
  curves: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
  for point in result.history:
    if point.split == "valid":
      seeds = curves.setdefault((point.arm, point.metric), {})
      seeds.setdefault(point.seed, {})[point.step] = point.value
  return curves


def curve_panel(
    result: Result, curves: Curves, table: Table, metric: str
) -> plots.CurvePanel:
  """The curves of a table, the baseline first; no curves unless the baseline has one.

  A run that patience ended goes on at its last error, one that failed ends.

  Args:
    result: The result of a sweep.
    curves: All its curves, from `validation_curves`.
    table: The table whose arms are drawn.
    metric: The name of a compared error.
  """
  unit, stopped = result.unit(metric), set(result.out_of_patience)
  arms = dict.fromkeys((table.baseline, *table.arms))
  panel = []
  for arm in arms if (table.baseline, metric) in curves else ():
    seeds = curves.get((arm, metric), {})
    steps = sorted({step for values in seeds.values() for step in values})
    if steps:
      errors = [
          [values.get(step, values[max(values)] if (arm, seed) in stopped else np.nan)
           for step in steps] for seed, values in seeds.items()]
      panel.append(plots.Curve(
          arm, np.array(steps), unit.factor * np.array(errors),
          sum(arm == each for each, _ in result.failed)))
  return plots.CurvePanel(metric, unit.name, panel)
