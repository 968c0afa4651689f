"""Figures of a sweep, from its results.

They are apart from the report because Matplotlib takes a second to import and then reads the user's
settings, and may fail at either: a report without figures is better than none.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib.figure import Figure

from dcnn import stats
from dcnn.base.measures import Picture
from dcnn.base.text import number_text, unknown
from dcnn.results import effects, factorials, facts, plots, strata, summary, text
from dcnn.results.effects import Curves
from dcnn.results.measures import figure_name
from dcnn.results.records import FINISHED, Result, Row, Table, is_failed
from dcnn.results.summary import Comparison, constant_error

_TOLD_APART = 5  # arms of a panel of effects; the others are thin lines
_ARMS_IN_A_PANEL = 12  # of the choice of learning rates

# The panels of a figure, each drawn when it is needed.
Panels = Sequence[Callable[[], Figure]]


class Drawing(NamedTuple):
  """A figure as an SVG file, and as elements of a page that gives them its colours.

  Attributes:
    file: The file, with all panels side by side, without titles: a page that shows it as an image
      would not show them.
    inline: The element of each panel, whose marks have titles.
  """

  file: bytes
  inline: tuple[str, ...]


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
  for name, panels in _figures(result, comparisons):
    try:
      contents = [plots.svg(draw()) for draw in panels]
      figures[name] = Drawing(
          plots.beside(list(map(plots.without_titles, contents))),
          tuple(map(plots.inline, contents)))
    except Exception as error:  # of a library of fonts, images and layouts: anything
      failures[name] = error
  return figures, failures


def _figures(
    result: Result, comparisons: Sequence[Comparison]
) -> Iterator[tuple[str, Panels]]:
  """Names of the figures, and functions that draw their panels."""
  compared = [comparison for comparison in comparisons if comparison[1]]
  if compared:
    yield "errors", [
        lambda metric=metric: plots.strip_plot(
            _strip_panel(result, compared, metric, run_titles(result, metric)))
        for metric in compared[0][1]]
  curves = effects.validation_curves(result)
  for number, (table, _) in enumerate(comparisons, start=1):
    panels = [curve_panel(result, curves, table, metric) for metric in result.compared]
    yield from _figure(f"learning_curves_{number}", plots.learning_curves,
                       [panel for panel in panels if panel.curves])
    yield from _figure(f"factorial_{number}", plots.heat_map,
                       [_heat_map(result, table, each)
                        for each in factorials.analyses(result, table)])
  panels = [effect_panel(result, curves, table, metric)
            for table, _ in comparisons for metric in result.compared]
  yield from _figure("effects", plots.effect_plot, [panel for panel in panels if panel])
  scores = facts.scores(result)
  yield from _figure("tuning", plots.tuning_plot, [
      scores[first:first + _ARMS_IN_A_PANEL]
      for first in range(0, len(scores), _ARMS_IN_A_PANEL)])
  panels = [prediction_panel(picture, result.predictions) for picture in result.measures.pictures]
  yield from _figure(figure_name(result.measures.pictures), plots.prediction_plot,
                     [panel for panel in panels if panel is not None])


def errors(result: Result, metric: str) -> Figure:
  """The strip plot of a test error: every run, and every arm with its interval.

  Args:
    result: The result of a sweep.
    metric: One of the errors by which the task compares arms.

  Returns:
    A figure of Matplotlib, to be shown or saved.

  Raises:
    ValueError: If there are no test results of this error, or arms are not compared by it.
  """
  compared = [each for each in summary.compare(result) if metric in each[1]]
  if not compared:
    known = [name for name in result.compared if result.has(name)]
    raise ValueError(unknown("error", metric, known) if known else "there are no test results yet")
  return plots.strip_plot(_strip_panel(result, compared, metric, {}))


def strata_figures(
    results: Mapping[str, Result], by: str, tables: Sequence[Table]
) -> dict[str, bytes]:
  """The ratio of each arm to its baseline within each result and over all, as SVG files.

  A page of Markdown does not put panels below one another where it is narrow, so that each error
  has a file.

  Args:
    results: Results by the value of the setting `by`.
    by: The key of the setting.
    tables: Tables of `strata.common_tables`.

  Returns:
    A file for each error.
  """
  return {metric: plots.svg(plots.strip_plot(_strata_panel(results, by, tables, metric)))
          for metric in strata.metrics(results)}


def _strata_panel(
    results: Mapping[str, Result], by: str, tables: Sequence[Table], metric: str
) -> plots.StripPanel:
  """A row for each arm, a dot for each result in their order from above."""
  one = np.ones(len(results))
  groups = []
  for table in tables:
    strips = [plots.Strip(table.baseline, one, stats.Interval(1.0, 1.0, 1.0), "baseline")]
    strips += [
        plots.Strip(
            row.arm, np.array([contrast.ratio for contrast in row.each.values()]), row.ratio,
            row.verdict)
        for row in strata.combine(results, table, metric)]
    groups.append((table.title, strips))
  return plots.StripPanel(f"{metric} relative to the baseline", "1", groups, np.nan, f"one {by}")


_Panel = TypeVar("_Panel")


def _figure(
    name: str, draw: Callable[[_Panel], Figure], panels: Sequence[_Panel]
) -> Iterator[tuple[str, Panels]]:
  """A figure of these panels; none where there are none."""
  if panels:
    yield name, [functools.partial(draw, panel) for panel in panels]


def effect_panel(
    result: Result, curves: Curves, table: Table, metric: str
) -> plots.EffectPanel | None:
  """The effects of a table over training; None where no arm has a ratio at its last step.

  Args:
    result: The result of a sweep.
    curves: All its curves, from `effects.validation_curves`.
    table: The table whose arms are drawn.
    metric: The name of a compared error.
  """
  found = [effect for effect in effects.effects(result, curves, table, metric)
           if len(effect.steps) > 1]
  largest = effects.largest(found, _TOLD_APART)
  names = [effect.arm for effect in largest]
  ratios = {effect.arm: plots.Ratio(effect.arm, effect.steps, *effect.ratio) for effect in found}
  if not names:
    return None
  return plots.EffectPanel(
      table.title, metric, table.baseline, [ratios.pop(name) for name in names],
      list(ratios.values()))


def _heat_map(result: Result, table: Table, analysis: factorials.Analysis) -> plots.HeatMap:
  unit = result.unit(analysis.metric)
  return plots.HeatMap(
      table.title, analysis.metric, unit.name, analysis.factors, *analysis.levels,
      analysis.errors * unit.factor)


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
    result: Result, comparisons: Sequence[Comparison], metric: str,
    titles: Mapping[str, Sequence[str]],
) -> plots.StripPanel:
  unit, errors = result.unit(metric), result.errors(metric)
  groups = [
      (table.title, [
          plots.Strip(
              summary.arm, errors[summary.arm] * unit.factor,
              stats.Interval(*(unit.factor * end for end in summary.error)),
              summary.contrast.verdict if summary.contrast else "baseline",
              titles.get(summary.arm, ()))
          for summary in summaries[metric]])
      for table, summaries in comparisons]
  return plots.StripPanel(metric, unit.name, groups, constant_error(result, metric) * unit.factor)


def run_titles(result: Result, metric: str) -> dict[str, list[str]]:
  """What a page tells of each run under the pointer: arm, seed and test error, or how it failed.

  Args:
    result: The result of a sweep.
    metric: The name of a compared error.

  Returns:
    A line for each seed, by arm.
  """
  unit, seeds = result.unit(metric), result.seeds
  runs = {(row.arm, row.seed): row for row in result.rows}
  return {
      arm: [_run_title(runs[arm, seed], unit.factor * error, unit.name)
            for seed, error in zip(seeds, errors, strict=True)]
      for arm, errors in result.errors(metric).items()}


def _run_title(run: Row, error: float, unit: str) -> str:
  told = [] if is_failed(run.status) else [text.quantity_text(number_text(error), unit)]
  told += [part for part in (run.status, run.cause) if part and part != FINISHED]
  return f"{run.arm}, seed {run.seed}: {', '.join(told)}"


def curve_panel(
    result: Result, curves: Curves, table: Table, metric: str
) -> plots.CurvePanel:
  """The curves of a table, the baseline first; no curves unless the baseline has one.

  Args:
    result: The result of a sweep.
    curves: All its curves, from `effects.validation_curves`.
    table: The table whose arms are drawn.
    metric: The name of a compared error.
  """
  unit = result.unit(metric)
  arms = dict.fromkeys((table.baseline, *table.arms))
  panel = []
  for arm in arms if (table.baseline, metric) in curves else ():
    steps, errors = effects.errors_over_steps(result, curves, arm, metric)
    if len(steps):
      panel.append(plots.Curve(
          arm, steps, unit.factor * np.array(list(errors.values())),
          sum(arm == each for each, _ in result.failed)))
  return plots.CurvePanel(metric, unit.name, panel)
