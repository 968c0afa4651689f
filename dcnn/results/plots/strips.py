"""Strip plots: every run a dot, every arm an interval."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory

from dcnn.base.text import one_line
from dcnn.results import text
from dcnn.results.palette import PALETTE, VERDICT_COLOURS
from dcnn.results.plots.log_axes import set_log_axis, with_zero, zero_place
from dcnn.results.plots.style import WIDTH, Shown, arm_label, light_shade, with_style
from dcnn.results.plots.titles import set_titles
from dcnn.stats import Interval

_CONSTANT_LINE: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (1, 2))}
BAND: dict[str, Any] = {"color": PALETTE["ink"][0], "alpha": 0.08, "linewidth": 0}
MOST_LETTERS = 60  # of a title, as wide as a panel
EQUIVALENCE = 10**0.05  # see stats.verdict


class Strip(NamedTuple):
  """One arm in one panel of a strip plot.

  Attributes:
    arm: The name of the arm.
    errors: The error of each seed, 0 where the run is exact and inf where it failed.
    interval: The geometric mean of the finished runs and its 95 % interval.
    verdict: `baseline`, or what the tests say, see `stats.verdict`.
    titles: What a page tells of each run under the pointer, or nothing.
  """

  arm: str
  errors: Float[np.ndarray, " seeds"]
  interval: Interval
  verdict: str
  titles: Sequence[str] = ()


class StripPanel(NamedTuple):
  """One metric of a strip plot.

  Attributes:
    metric: The name of the metric.
    unit: The unit of the errors, or 1.
    groups: The title of each table and its arms.
    constant: The error of the constant predictor, drawn where it is near the others; nan where it
      is not known.
    dot: What one dot is.
  """

  metric: str
  unit: str
  groups: Sequence[tuple[str, Sequence[Strip]]]
  constant: float
  dot: str = "one run"


@with_style
def strip_plot(panel: StripPanel) -> Figure:
  """Draws every run as a dot and every arm as an interval.

  The interval is the 95 % interval of the geometric mean. A seed has the same height in all rows.
  The line is the baseline of the table, the band around it what counts as equivalent.

  Args:
    panel: A metric with its arms.

  Returns:
    A figure as tall as the arms need.

  Raises:
    ValueError: If there is nothing to draw.
  """
  if not panel.groups:
    raise ValueError("expected at least one group of arms, got none")
  rows = sum(1 + len(arms) for _, arms in panel.groups)
  figure = Shown(figsize=(WIDTH, 1.6 + 0.215 * rows), layout="constrained")
  ax = figure.subplots()
  _draw_panel(ax, panel)
  _name_rows(ax, panel)
  verdicts = {strip.verdict for _, arms in panel.groups for strip in arms}
  figure.legend(
      handles=_strip_legend(verdicts, panel.dot, bool(np.isfinite(_near_constant(panel)))),
      loc="outside upper left", ncols=3, columnspacing=1.2, handletextpad=0.5)
  return figure


def _layout(panel: StripPanel) -> list[tuple[int, str, list[tuple[int, Strip]]]]:
  """Row of the heading, heading, and rows and strips of each group; rows count downwards."""
  groups, row = [], 0
  for title, arms in panel.groups:
    groups.append((row, title, list(enumerate(arms, start=row + 1))))
    row += 1 + len(arms)
  return groups


def _values(panel: StripPanel) -> Float[np.ndarray, " values"]:
  """All finite errors and ends of intervals."""
  values = np.concatenate([
      [*strip.errors, *strip.interval] for _, arms in panel.groups for strip in arms])
  return values[np.isfinite(values)]


def _near_constant(panel: StripPanel) -> float:
  """Error of the constant predictor where it is within a factor of two of the rest, else nan."""
  values = _values(panel)
  near = values.size and values.min() / 2 < panel.constant < 2 * values.max()
  return float(panel.constant) if near else np.nan


def _draw_panel(ax: Axes, panel: StripPanel) -> None:
  values, constant = _values(panel), _near_constant(panel)
  zero = zero_place(np.append(values, constant))
  for row, _, strips in _layout(panel):
    span = (row + 0.55, row + len(strips) + 0.45)
    ax.plot([constant] * 2, span, color=light_shade("soft"), **_CONSTANT_LINE)
    _draw_baseline(ax, strips, span)
    for strip_row, strip in strips:
      _draw_strip(ax, strip, strip_row, zero)
  ax.set_ylim(sum(1 + len(arms) for _, arms in panel.groups) - 0.3, -0.5)
  set_log_axis(ax.xaxis, np.append(values, constant))
  ax.set_xlabel(text.heading(f"test {panel.metric}", panel.unit))
  ax.grid(True, axis="x")
  ax.tick_params(axis="x", top=True, labeltop=True, which="major")
  ax.tick_params(axis="y", length=0)
  ax.spines["left"].set_visible(False)


def _draw_strip(ax: Axes, strip: Strip, row: int, zero: float) -> None:
  colour = light_shade(VERDICT_COLOURS[strip.verdict])
  ax.axhline(row, color=light_shade("rule"), linewidth=0.6, zorder=0.5)
  heights = row + np.linspace(-0.27, 0.27, len(strip.errors)) * (len(strip.errors) > 1)
  shown = np.isfinite(strip.errors)
  (dots,) = ax.plot(
      with_zero(strip.errors[shown], zero), heights[shown], "o", color=colour, markersize=2.9,
      markeredgewidth=0, alpha=0.55, zorder=3)
  set_titles(dots, list(itertools.compress(strip.titles, shown)))
  if not np.isfinite(strip.interval.centre):
    return
  centre, *ends = with_zero(np.array(strip.interval), zero)
  ax.plot(ends, [row, row], color=colour, linewidth=3.0, zorder=4,
          solid_capstyle="butt")
  ax.plot([centre], [row], "D", color=colour, markersize=4.6,
          markeredgecolor=light_shade("paper"), markeredgewidth=0.7, zorder=5)


def _draw_baseline(
    ax: Axes, strips: Sequence[tuple[int, Strip]], span: tuple[float, float]
) -> None:
  """A line at the baseline of a group, and the band of what counts as equivalent to it."""
  for _, strip in strips:
    centre = strip.interval.centre
    if strip.verdict == "baseline" and np.isfinite(centre) and centre > 0:
      ax.fill_betweenx(span, centre / EQUIVALENCE, centre * EQUIVALENCE, **BAND, zorder=1)
      ax.plot([centre, centre], span, color=light_shade("ink"), linewidth=0.9, zorder=2)


def _name_rows(ax: Axes, panel: StripPanel) -> None:
  """Titles and names of arms at the left, and above the dots how many runs failed."""
  groups = _layout(panel)
  # Across the whole figure, and no part of the layout: a long title would take the axes' width.
  whole_width = blended_transform_factory(ax.figure.transFigure, ax.transData)
  for row, title, _ in groups:
    heading = ax.text(
        0.01, row + 0.05, text.shorten(one_line(title), MOST_LETTERS), transform=whole_width,
        va="center", fontweight="bold",
        bbox={"facecolor": light_shade("paper"), "edgecolor": "none", "pad": 1})
    heading.set_in_layout(False)
  named = [pair for _, _, strips in groups for pair in strips]
  ax.set_yticks([row for row, _ in named], [arm_label(strip.arm) for _, strip in named])
  for row, strip in named:
    failed = ~np.isfinite(strip.errors)
    if failed.any():
      count = ax.text(
          0.99, row, f"{failed.sum()} of {failed.size} failed", fontsize=8, va="center", ha="right",
          transform=ax.get_yaxis_transform(), color=light_shade("vermillion"))
      titles = list(itertools.compress(strip.titles, failed))
      set_titles(count, ["; ".join(titles)] if titles else [])


def _strip_legend(verdicts: set[str], dot: str, constant: bool) -> list[Line2D | Patch]:
  """The kinds of marks, and the verdicts that occur."""
  soft = light_shade("soft")
  marks = [
      Line2D([], [], color=soft, marker="o", markersize=2.9, linestyle="none", label=dot),
      Line2D([], [], color=soft, marker="D", markersize=4.6, linewidth=3.0,
             label="mean, 95 % interval"),
      Patch(label="within 12 %", **BAND)]
  if constant:
    marks.append(Line2D([], [], color=soft, label="constant predictor", **_CONSTANT_LINE))
  return [*marks, *(
      Line2D([], [], color=light_shade(colour), marker="s", markersize=6, linestyle="none",
             label=name)
      for name, colour in VERDICT_COLOURS.items() if name in verdicts)]
