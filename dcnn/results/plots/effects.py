"""Effects against training: ratios to the baseline over the steps."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dcnn.results.plots.log_axes import set_log_axis
from dcnn.results.plots.strips import BAND, EQUIVALENCE
from dcnn.results.plots.style import (
    MARKERS,
    SERIES,
    WIDTH,
    arm_label,
    legend_columns,
    light_shade,
    with_style,
)
from dcnn.results.plots.titles import set_titles


class Ratio(NamedTuple):
  """The ratio of an arm to the baseline over training.

  Attributes:
    arm: The name of the arm.
    steps: The training steps.
    centre: The ratio at these steps; nan where there is none.
    low: The lower end of its interval.
    high: The upper end.
  """

  arm: str
  steps: Num[np.ndarray, " points"]
  centre: Float[np.ndarray, " points"]
  low: Float[np.ndarray, " points"]
  high: Float[np.ndarray, " points"]


class EffectPanel(NamedTuple):
  """One metric of one table.

  Attributes:
    title: The title of the table.
    metric: The name of the metric.
    baseline: The name of the baseline.
    largest: The arms that are told apart, with their intervals; at most eight.
    others: The arms that are thin lines.
  """

  title: str
  metric: str
  baseline: str
  largest: Sequence[Ratio]
  others: Sequence[Ratio]


@with_style
def effect_plot(panel: EffectPanel) -> Figure:
  """Draws the ratio of each arm to the baseline against the training step.

  The line at 1 is the baseline, the band around it what counts as equivalent.

  Args:
    panel: What to draw.

  Returns:
    A figure.

  Raises:
    ValueError: If there is nothing to draw, or too many arms to tell apart.
  """
  if not 1 <= len(panel.largest) <= len(SERIES):
    raise ValueError(f"expected 1 to {len(SERIES)} largest effects, got {len(panel.largest)}")
  columns = legend_columns([arm_label(each.arm) for each in panel.largest])
  legend = 0.17 * -(-(len(panel.largest) + 1) // columns)
  figure = Figure(figsize=(WIDTH, 2.7 + legend), layout="constrained")
  ax = figure.subplots()
  ends = [float(each.steps[at]) for each in (*panel.largest, *panel.others) for at in (0, -1)]
  ax.fill_between([min(ends), max(ends)], 1 / EQUIVALENCE, EQUIVALENCE, **BAND, zorder=1)
  ax.axhline(1.0, color=light_shade("ink"), linewidth=1.2, zorder=2)
  for each in panel.others:
    (line,) = ax.plot(
        each.steps, each.centre, color=light_shade("grey"), linewidth=0.7, zorder=2.5)
    set_titles(line, [each.arm])
  handles = [_draw_ratio(ax, index, each) for index, each in enumerate(panel.largest)]
  if panel.others:
    handles.append(Line2D([], [], color=light_shade("grey"), linewidth=0.7,
                          label=f"{len(panel.others)} more"))
  shown = np.concatenate([[1 / EQUIVALENCE, EQUIVALENCE], *(
      each.centre for each in (*panel.largest, *panel.others))])
  set_log_axis(ax.yaxis, shown[np.isfinite(shown)])
  ax.set_xlabel("training step")
  ax.set_ylabel(f"validation {panel.metric} / baseline")
  ax.set_title(panel.title, loc="left", fontweight="bold", pad=6)
  ax.grid(True)
  figure.legend(handles=handles, loc="outside lower left", ncols=columns, columnspacing=1.2)
  return figure


def _draw_ratio(ax: Axes, index: int, ratio: Ratio) -> Line2D:
  """The line of an arm with its interval, and its entry in the legend."""
  colour = light_shade(SERIES[index])
  style = {"color": colour, "linewidth": 1.6, "marker": MARKERS[index], "markersize": 3.6}
  known = np.isfinite(ratio.low) & np.isfinite(ratio.high)
  ax.fill_between(ratio.steps[known], ratio.low[known], ratio.high[known], color=colour,
                  alpha=0.15, linewidth=0, zorder=3)
  (line,) = ax.plot(
      ratio.steps, ratio.centre, **style, markevery=max(1, len(ratio.steps) // 7),
      markeredgecolor=light_shade("paper"), markeredgewidth=0.5, zorder=4)
  set_titles(line, [ratio.arm])
  return Line2D([], [], **style, label=arm_label(ratio.arm))
