"""Learning curves: validation errors against the training step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dcnn.results import text
from dcnn.results.plots.log_axes import set_log_axis, with_zero, zero_place
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


class Curve(NamedTuple):
  """Validation error of an arm over training.

  Attributes:
    arm: The name of the arm.
    steps: The training steps at which it was validated.
    errors: The error of each seed at these steps; nan or inf from where a run failed.
    failed: How many runs failed.
  """

  arm: str
  steps: Num[np.ndarray, " points"]
  errors: Float[np.ndarray, "seeds points"]
  failed: int


class CurvePanel(NamedTuple):
  """One metric of the learning curves.

  Attributes:
    metric: The name of the metric.
    unit: The unit of the errors, or 1.
    curves: The arms, the baseline first; at least one.
  """

  metric: str
  unit: str
  curves: Sequence[Curve]


@with_style
def learning_curves(panel: CurvePanel, arms_per_row: int = 6) -> Figure:
  """Draws validation errors against the step: median over the seeds, shaded from best to worst.

  A failed run counts as infinitely bad in the median. The baseline, first of the curves, stands
  in every row.

  Args:
    panel: A metric with its arms.
    arms_per_row: How many arms share a row with the baseline; at most eight.

  Returns:
    A figure with as many rows as the arms need.

  Raises:
    ValueError: If there is nothing to draw, or too many arms to tell apart in a row.
  """
  if not panel.curves:
    raise ValueError("expected at least one curve, got none")
  if not 1 <= arms_per_row <= len(SERIES):
    raise ValueError(f"expected arms_per_row from 1 to {len(SERIES)}, got {arms_per_row}")
  others = len(panel.curves) - 1
  rows = max(1, -(-others // arms_per_row))
  per_row = -(-others // rows)
  columns = legend_columns([arm_label(curve.arm) for curve in panel.curves])
  legend = 0.17 * -(-(per_row + 1) // columns)
  figure = Figure(figsize=(WIDTH, 0.4 + (2.3 + legend) * rows), layout="constrained")
  axes = figure.subplots(rows, 1, squeeze=False, sharex=True, sharey=True)[:, 0]
  zero = zero_place(_medians(panel))
  for row, ax in enumerate(axes):
    chosen = [panel.curves[0], *panel.curves[1 + row * per_row:1 + (row + 1) * per_row]]
    _draw_curves(ax, chosen, zero)
    ax.set_ylabel(text.heading(f"validation {panel.metric}", panel.unit))
    _name_curves(ax, chosen)
  axes[-1].set_xlabel("training step")
  set_log_axis(axes[0].yaxis, _medians(panel))
  return figure


def _median(curve: Curve) -> Float[np.ndarray, " points"]:
  """Median over the seeds, a failed run being the worst; nan where half of them failed."""
  errors = np.where(np.isfinite(curve.errors), curve.errors, np.inf)
  median = np.median(errors, axis=0) if errors.size else np.full(len(curve.steps), np.inf)
  return np.where(np.isfinite(median), median, np.nan)


def _medians(panel: CurvePanel) -> Float[np.ndarray, " values"]:
  """The medians of all curves of a panel, one after the other."""
  return np.concatenate([_median(curve) for curve in panel.curves])


def _draw_curves(ax: Axes, curves: Sequence[Curve], zero: float) -> None:
  for index, curve in reversed(list(enumerate(curves))):  # the baseline on top
    colour = light_shade("ink" if index == 0 else SERIES[index - 1])
    finite = np.isfinite(curve.errors)
    low = np.min(curve.errors, axis=0, where=finite, initial=np.inf)
    high = np.max(curve.errors, axis=0, where=finite, initial=-np.inf)
    shown = finite.any(axis=0)
    ax.fill_between(curve.steps[shown], with_zero(low[shown], zero),
                    with_zero(high[shown], zero), color=colour, alpha=0.13, linewidth=0)
    (line,) = ax.plot(
        curve.steps, with_zero(_median(curve), zero), color=colour, **_line(index),
        markevery=max(1, len(curve.steps) // 7), markersize=3.6,
        markeredgecolor=light_shade("paper"), markeredgewidth=0.5)
    set_titles(line, [curve.arm + _remarks(index, curve)])
  ax.grid(True)


def _line(index: int) -> dict[str, Any]:
  """Width and marker of a curve; the baseline, index 0, is wide and plain."""
  return {"linewidth": 2.2} if index == 0 else {"linewidth": 1.5, "marker": MARKERS[index - 1]}


def _name_curves(ax: Axes, curves: Sequence[Curve]) -> None:
  handles = []
  for index, curve in enumerate(curves):
    handles.append(Line2D(
        [], [], color=light_shade("ink" if index == 0 else SERIES[index - 1]), **_line(index),
        markersize=4, label=arm_label(curve.arm) + _remarks(index, curve)))
  ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2,
            ncols=legend_columns([arm_label(curve.arm) for curve in curves]), columnspacing=1.2)


def _remarks(index: int, curve: Curve) -> str:
  """What stands behind the name of an arm: whether it is the baseline, and how many runs failed."""
  remarks = ["baseline"] * (index == 0)
  remarks += [f"{curve.failed} of {len(curve.errors)} failed"] * (curve.failed > 0)
  return f" ({', '.join(remarks)})" if remarks else ""
