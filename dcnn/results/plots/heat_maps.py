"""Heat maps: the error of every combination of two factors."""

from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcnn.base.text import number_text
from dcnn.results import text
from dcnn.results.plots.style import WIDTH, light_shade, with_style

COLOURS = "PuOr_r"  # purple is better than the mean of the map, orange is worse
_LONGEST_LEVEL = 18
_DARK, _LIGHT = "#1c1c1c", "#f9f9f9"  # text
_LIGHT_FROM = 0.55  # brightness of a cell on which dark text is read better


class HeatMap(NamedTuple):
  """One metric of a factorial.

  Attributes:
    title: The title of the table.
    metric: The name of the metric.
    unit: The unit of the errors, or 1.
    factors: The names of the factors down and across.
    rows: The levels of the first.
    columns: The levels of the second.
    errors: The error of each combination; nan where no run finished.
  """

  title: str
  metric: str
  unit: str
  factors: tuple[str, str]
  rows: tuple[str, ...]
  columns: tuple[str, ...]
  errors: Float[np.ndarray, "rows columns"]


@with_style
def heat_map(panel: HeatMap) -> Figure:
  """Draws the errors of all combinations as a map; colours are relative to their geometric mean.

  Args:
    panel: What to draw.

  Returns:
    A figure.

  Raises:
    ValueError: If there is nothing to draw.
  """
  if not panel.errors.size:
    raise ValueError("expected at least one combination of levels, got none")
  height = 1.3 + 0.42 * len(panel.rows)
  figure = Figure(figsize=(WIDTH, height), layout="constrained")
  ax = figure.subplots()
  with np.errstate(divide="ignore"):
    logs = np.log(panel.errors)
  known = logs[np.isfinite(logs)]
  relative = logs - (known.mean() if known.size else 0.0)
  most = float(np.max(np.abs(relative[np.isfinite(relative)]), initial=1e-3))
  ax.pcolormesh(np.ma.masked_invalid(relative / most), cmap=COLOURS, vmin=-1, vmax=1,
                edgecolors=light_shade("paper"), linewidth=1.5)
  _write_errors(ax, panel.errors, relative / most)
  ax.invert_yaxis()
  style: dict[str, Any] = {"length": 0}
  ax.set_yticks(np.arange(len(panel.rows)) + 0.5, [_short(level) for level in panel.rows])
  ax.set_xticks(np.arange(len(panel.columns)) + 0.5, [_short(level) for level in panel.columns],
                rotation=30 if len(panel.columns) > 3 else 0,
                ha="right" if len(panel.columns) > 3 else "center")
  ax.tick_params(axis="both", **style)
  ax.set_ylabel(panel.factors[0])
  ax.set_xlabel(panel.factors[1])
  for side in ax.spines.values():
    side.set_visible(False)
  ax.set_title(text.heading(f"test {panel.metric}", panel.unit), loc="left", fontweight="bold")
  return figure


def _write_errors(
    ax: Axes, errors: Float[np.ndarray, "rows columns"],
    relative: Float[np.ndarray, "rows columns"],
) -> None:
  """The error in each cell, in the shade of text that its colour lets be read, on any paper."""
  for row, column in np.ndindex(errors.shape):
    value = float(errors[row, column])
    failed = not np.isfinite(value)
    colour = _text_colour(float(relative[row, column]))
    ax.text(column + 0.5, row + 0.5, "failed" if failed else number_text(value),
            ha="center", va="center", fontsize=8.5 if errors.shape[1] < 7 else 7.5,
            color=colour if np.isfinite(relative[row, column]) else light_shade("ink"))


def _text_colour(relative: float) -> str:
  """The shade of text on a cell of this value from -1 to 1."""
  red, green, blue, _ = matplotlib.colormaps[COLOURS](0.5 + relative / 2)
  return _DARK if 0.3 * red + 0.59 * green + 0.11 * blue > _LIGHT_FROM else _LIGHT


def _short(level: str) -> str:
  return text.shorten(level, _LONGEST_LEVEL)
