"""Figures of a sweep: arrays in, matplotlib Figure out.

Nothing here touches pyplot or a display, or follows the user's settings of matplotlib. Values
arrive in the unit they are shown in. `inline` makes the colours of `PALETTE` CSS variables, so that
a figure inside a page follows the page's colours.
"""

import contextlib
import functools
import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, ParamSpec

import matplotlib
import matplotlib.ticker
import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from dcnn.base.text import one_line, visible_text
from dcnn.results.palette import PALETTE, VERDICT_COLOURS
from dcnn.stats import Interval

_SERIES = ("blue", "vermillion", "green", "orange", "purple", "sky", "wine", "olive")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_CLOUD = "#3d8bc4"  # points drawn as pixels keep one colour, readable on both papers
_CONSTANT_LINE: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (1, 2))}
_BAND: dict[str, Any] = {"color": PALETTE["ink"][0], "alpha": 0.08, "linewidth": 0}
_LONGEST_NAME = 44
_EQUIVALENCE = 10**0.05  # see stats.verdict
_DPI = 160

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": PALETTE["soft"][0],
    "axes.labelcolor": PALETTE["ink"][0],
    "axes.titlecolor": PALETTE["ink"][0],
    "axes.facecolor": PALETTE["paper"][0],
    "axes.axisbelow": True,
    "figure.facecolor": PALETTE["paper"][0],
    "savefig.facecolor": PALETTE["paper"][0],
    "text.color": PALETTE["ink"][0],
    "text.parse_math": False,  # names of arms are text, whatever they contain
    "xtick.color": PALETTE["soft"][0],
    "ytick.color": PALETTE["soft"][0],
    "xtick.labelcolor": PALETTE["ink"][0],
    "ytick.labelcolor": PALETTE["ink"][0],
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": PALETTE["rule"][0],
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "dcnn",  # equal figures, equal bytes
}


class Strip(NamedTuple):
  """One arm in one panel of a strip plot.

  Attributes:
    arm: its name.
    errors: of each seed, 0 where the run is exact; inf where it failed.
    interval: geometric mean of the finished runs and its 95 % interval.
    verdict: baseline, better, worse, equivalent or undecided.
  """

  arm: str
  errors: Float[np.ndarray, " seeds"]
  interval: Interval
  verdict: str


class StripPanel(NamedTuple):
  """One metric of a strip plot.

  Attributes:
    metric: its name.
    unit: of the errors.
    groups: title of each table and its arms; the same arms in every panel of a figure.
    constant: error of the constant predictor, drawn where it is not far off; nan where unknown.
  """

  metric: str
  unit: str
  groups: Sequence[tuple[str, Sequence[Strip]]]
  constant: float


class Curve(NamedTuple):
  """Validation error of an arm over training.

  Attributes:
    arm: its name.
    steps: at which it was measured.
    errors: of each seed; nan or inf from where a run failed.
    failed: number of failed runs.
  """

  arm: str
  steps: Num[np.ndarray, " points"]
  errors: Float[np.ndarray, "seeds points"]
  failed: int


class CurvePanel(NamedTuple):
  """One metric of the learning curves; `curves` holds the baseline first."""

  metric: str
  unit: str
  curves: Sequence[Curve]


_Arguments = ParamSpec("_Arguments")


@contextlib.contextmanager
def _our_settings() -> Iterator[None]:
  """Matplotlib's own settings and ours, whatever the user's are; theirs come back afterwards."""
  shipped: dict[Any, Any] = {
      key: value for key, value in matplotlib.rcParamsDefault.items()
      if key != "backend"}  # which no context gives back, and nothing here asks for
  with matplotlib.rc_context({**shipped, **_STYLE}), warnings.catch_warnings():
    # Text in SVG is text: the reader's fonts have what the one that measures it here has not.
    warnings.filterwarnings("ignore", "Glyph .* missing from")
    yield


def _styled(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
  """The function with the style of this module in force while it draws."""

  @functools.wraps(draw)
  def styled(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
    with _our_settings():
      figure = draw(*args, **kwargs)
      for text in figure.findobj(Text):
        text.set_text(visible_text(text.get_text()))  # SVG has no control characters
      engine = figure.get_layout_engine()
      if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")  # once is enough: writing files need not repeat it
    return figure

  return styled


@_styled
def strip_plot(panels: Sequence[StripPanel]) -> Figure:
  """Every run a dot, every arm a geometric mean with its 95 % interval; a panel for each metric.

  A seed has the same height in all rows. The line is the baseline of the table, the band around
  it what counts as equivalent.

  Args:
    panels: with the same arms in the same groups.

  Returns:
    Figure as tall as the arms need.

  Raises:
    ValueError: if there is nothing to draw.
  """
  if not panels or not panels[0].groups:
    raise ValueError("expected at least one panel with at least one group of arms, got none")
  rows = sum(1 + len(arms) for _, arms in panels[0].groups)
  figure = Figure(figsize=(9.6, 1.5 + 0.235 * rows), layout="constrained")
  axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  for ax, panel in zip(axes, panels, strict=True):
    _draw_panel(ax, panel)
  figure.align_xlabels(axes)
  _name_rows(axes[0], panels[0])
  _note_failures(axes[-1], panels[0])
  verdicts = {strip.verdict for panel in panels for _, arms in panel.groups for strip in arms}
  constant = any(np.isfinite(_near_constant(panel)) for panel in panels)
  figure.legend(
      handles=_strip_legend(verdicts, constant), loc="outside upper left", ncols=5,
      columnspacing=1.6, handletextpad=0.6)
  return figure


@_styled
def learning_curves(panels: Sequence[CurvePanel], arms_per_row: int = 6) -> Figure:
  """Validation error against step: median over the seeds, shaded from the best to the worst.

  A failed run counts as infinitely bad in the median. The baseline, first of the curves, stands
  in every row of panels.

  Args:
    panels: one for each metric, with the same arms.
    arms_per_row: how many arms share a panel with the baseline; at most eight.

  Returns:
    Figure with a column for each metric and as many rows as the arms need.

  Raises:
    ValueError: if there is nothing to draw, or too many arms to tell apart in a row.
  """
  if not panels or not panels[0].curves:
    raise ValueError("expected at least one panel with at least one curve, got none")
  if not 1 <= arms_per_row <= len(_SERIES):
    raise ValueError(f"expected arms_per_row from 1 to {len(_SERIES)}, got {arms_per_row}")
  others = len(panels[0].curves) - 1
  rows = max(1, -(-others // arms_per_row))
  per_row = -(-others // rows)
  figure = Figure(figsize=(9.6, 0.5 + 2.9 * rows), layout="constrained")
  grid = figure.subplots(rows, len(panels), squeeze=False, sharex=True, sharey="col")
  for row, axes in enumerate(grid):
    chosen = slice(1 + row * per_row, 1 + (row + 1) * per_row)
    for ax, panel in zip(axes, panels, strict=True):
      zero = _zero(_medians(panel))
      _draw_curves(ax, [panel.curves[0], *panel.curves[chosen]], zero)
      ax.set_ylabel(f"validation {panel.metric} ({panel.unit})")
      if row == rows - 1:
        ax.set_xlabel("training step")
    _name_curves(axes[-1], [panels[0].curves[0], *panels[0].curves[chosen]])
  for ax, panel in zip(grid[0], panels, strict=True):
    _log_axis(ax.yaxis, _medians(panel))
  return figure


@_styled
def parity_plot(
    energy_true: Float[np.ndarray, " frames"], energy_predicted: Float[np.ndarray, " frames"], *,
    forces_true: Float[np.ndarray, " components"],
    forces_predicted: Float[np.ndarray, " components"],
) -> Figure:
  """Prediction against reference, and the error below; energies relative to their mean.

  Args:
    energy_true: reference, eV per configuration.
    energy_predicted: eV.
    forces_true: reference, Cartesian components, eV/A; empty where no forces are known.
    forces_predicted: eV/A.

  Returns:
    Figure of two columns, energies and forces, or of energies alone.

  Raises:
    ValueError: if a pair differs in length, or there are no energies.
  """
  columns = 2 if forces_true.size or forces_predicted.size else 1
  figure = Figure(figsize=(4.5 * columns, 5.4), layout="constrained")
  grid = figure.subplots(2, columns, sharex="col", height_ratios=(2.6, 1.0), squeeze=False)
  origin = float(np.mean(energy_true)) if energy_true.size else 0.0
  _draw_parity(
      grid[0, 0], grid[1, 0], energy_true - origin, energy_predicted - origin,
      name="energy minus its mean", unit="eV", small_unit="meV")
  if columns == 2:
    _draw_parity(
        grid[0, 1], grid[1, 1], forces_true, forces_predicted,
        name="force component", unit="eV/Å", small_unit="meV/Å")
  return figure


def svg(figure: Figure) -> bytes:
  """The figure as an SVG file; equal figures give equal bytes."""
  file = io.BytesIO()
  with _our_settings():
    FigureCanvasSVG(figure)
    figure.savefig(file, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None})
  return file.getvalue()


def inline(content: bytes) -> str:
  """An SVG file made fit to stand inside an HTML page.

  Colours of `PALETTE` become the CSS variables `--ink`, `--soft`, ...; identifiers that several
  figures would share, and the fixed size, are gone.

  Args:
    content: what `svg` returned.

  Returns:
    The `svg` element.
  """
  text = content.decode()
  text = text[text.index("<svg"):]
  text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
  text = re.sub(r'<g id="[^"]*"', "<g", text)
  text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
  text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
  for name, (light, _) in PALETTE.items():
    text = text.replace(light, f"var(--{name})")
  return text


def _light(colour: str) -> str:
  return PALETTE[colour][0]


def _short(name: str) -> str:
  """A name without its middle where it is too long for a label."""
  name = one_line(name)  # labels of ticks have no text yet when `_styled` looks at the others
  half = _LONGEST_NAME // 2
  return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[1 - half:]}"


def _log_axis(axis: Axis, values: np.ndarray) -> None:
  """Logarithmic axis around the values, with round, readable ticks; 0 stands apart, at `_zero`."""
  positive = values[np.isfinite(values) & (values > 0)]
  zero = [_zero(values)] * bool(np.any(values == 0))
  if not positive.size and not zero:
    axis.set_major_locator(matplotlib.ticker.NullLocator())
    return
  ends = np.log10(positive if positive.size else zero)
  low, high = ends.min(), ends.max()
  pad = max(0.06 * (high - low), 0.02)
  low, high = low - pad, high + pad
  ticks, between = (_ticks(low, high), _multiples(low, high, range(1, 10))) if positive.size else (
      [], [])
  axis._set_axes_scale("log")  # pyright: ignore
  first = min([10**low, *(10 ** (np.log10(place) - pad) for place in zero)])
  axis.axes.set(**{f"{axis.axis_name}lim": (first, 10**high)})  # pyright: ignore
  axis.set_major_locator(matplotlib.ticker.FixedLocator([*zero, *ticks]))
  axis.set_major_formatter(matplotlib.ticker.FuncFormatter(
      lambda value, position: "0" if value in zero else _tick_text(value)))
  axis.set_minor_locator(matplotlib.ticker.FixedLocator(between if high - low < 4 else []))
  axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _zero(values: np.ndarray) -> float:
  """Where a logarithmic axis around the values shows 0: below them all, with a gap."""
  logs = np.log10(values[np.isfinite(values) & (values > 0)])
  return float(10 ** (logs.min() - max(0.2 * np.ptp(logs), 0.1))) if logs.size else 1.0


def _placed(values: np.ndarray, zero: float) -> np.ndarray:
  """Values with `zero` in place of 0, for a logarithmic axis."""
  return np.where(np.asarray(values) == 0, zero, values)


def _ticks(low: float, high: float) -> list[float]:
  """Four to nine round numbers from 10^low to 10^high, or as near to that as possible."""
  for step in (3, 2, 1):
    ticks = _multiples(low, high, (1,))
    ticks = [tick for tick in ticks if round(np.log10(tick)) % step == 0]
    if len(ticks) >= 4:
      return ticks
  for factors in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
    ticks = _multiples(low, high, factors)
    if len(ticks) >= 4:
      return ticks
  inside = matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(10**low, 10**high)
  return [float(tick) for tick in inside if 10**low <= tick <= 10**high]


def _multiples(low: float, high: float, factors: Sequence[float | int]) -> list[float]:
  """Powers of ten times the factors, between 10^low and 10^high."""
  ticks = [
      factor * 10.0**decade for decade in range(int(np.floor(low)), int(np.ceil(high)) + 1)
      for factor in factors]
  return [tick for tick in ticks if low <= np.log10(tick) <= high]


def _tick_text(value: float) -> str:
  if value >= 1e6 or value < 1e-4:
    return f"{value:.3g}"
  return f"{value:,.6f}".rstrip("0").rstrip(".")


def _laid_out(panel: StripPanel) -> list[tuple[int, str, list[tuple[int, Strip]]]]:
  """Row of the heading, heading, and rows and strips of each group; rows count downwards."""
  groups, row = [], 0
  for title, arms in panel.groups:
    groups.append((row, title, list(enumerate(arms, start=row + 1))))
    row += 1 + len(arms)
  return groups


def _values(panel: StripPanel) -> np.ndarray:
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
  zero = _zero(np.append(values, constant))
  for row, _, strips in _laid_out(panel):
    span = (row + 0.55, row + len(strips) + 0.45)
    ax.plot([constant] * 2, span, color=_light("soft"), **_CONSTANT_LINE)
    _draw_baseline(ax, strips, span)
    for strip_row, strip in strips:
      _draw_strip(ax, strip, strip_row, zero)
  ax.set_ylim(sum(1 + len(arms) for _, arms in panel.groups) - 0.3, -0.5)
  _log_axis(ax.xaxis, np.append(values, constant))
  ax.set_xlabel(f"test {panel.metric} ({panel.unit})")
  ax.grid(True, axis="x")
  ax.tick_params(axis="x", top=True, labeltop=True, which="major")
  ax.tick_params(axis="y", length=0)
  ax.spines["left"].set_visible(False)


def _draw_strip(ax: Axes, strip: Strip, row: int, zero: float) -> None:
  colour = _light(VERDICT_COLOURS[strip.verdict])
  ax.axhline(row, color=_light("rule"), linewidth=0.6, zorder=0.5)
  heights = row + np.linspace(-0.27, 0.27, len(strip.errors)) * (len(strip.errors) > 1)
  shown = np.isfinite(strip.errors)
  ax.plot(_placed(strip.errors[shown], zero), heights[shown], "o", color=colour, markersize=2.9,
          markeredgewidth=0, alpha=0.55, zorder=3)
  if not np.isfinite(strip.interval.centre):
    return
  centre, *ends = _placed(np.array(strip.interval), zero)
  ax.plot(ends, [row, row], color=colour, linewidth=3.0, zorder=4,
          solid_capstyle="butt")
  ax.plot([centre], [row], "D", color=colour, markersize=4.6,
          markeredgecolor=_light("paper"), markeredgewidth=0.7, zorder=5)


def _draw_baseline(
    ax: Axes, strips: Sequence[tuple[int, Strip]], span: tuple[float, float]
) -> None:
  """A line at the baseline of a group, and the band of what counts as equivalent to it."""
  for _, strip in strips:
    centre = strip.interval.centre
    if strip.verdict == "baseline" and np.isfinite(centre) and centre > 0:
      ax.fill_betweenx(span, centre / _EQUIVALENCE, centre * _EQUIVALENCE, **_BAND, zorder=1)
      ax.plot([centre, centre], span, color=_light("ink"), linewidth=0.9, zorder=2)


def _name_rows(ax: Axes, panel: StripPanel) -> None:
  groups = _laid_out(panel)
  for row, title, _ in groups:
    ax.text(0.0, row + 0.05, one_line(title), transform=ax.get_yaxis_transform(),
            va="center", fontweight="bold",
            bbox={"facecolor": _light("paper"), "edgecolor": "none", "pad": 1})
  named = [pair for _, _, strips in groups for pair in strips]
  ax.set_yticks([row for row, _ in named], [_short(strip.arm) for _, strip in named])


def _note_failures(ax: Axes, panel: StripPanel) -> None:
  """How many runs failed, right of the last panel."""
  for row, strip in (pair for _, _, strips in _laid_out(panel) for pair in strips):
    failed = int(np.sum(~np.isfinite(strip.errors)))
    if failed:
      ax.text(1.01, row, f"{failed} of {len(strip.errors)} failed", fontsize=8, va="center",
              transform=ax.get_yaxis_transform(), color=_light("vermillion"))


def _strip_legend(verdicts: set[str], constant: bool) -> list[Line2D | Patch]:
  """Kinds of marks in the upper row of the legend, the verdicts below."""
  soft = _light("soft")
  marks = [
      Line2D([], [], color=soft, marker="o", markersize=2.9, linestyle="none", label="one run"),
      Line2D([], [], color=soft, marker="D", markersize=4.6, linewidth=3.0,
             label="geometric mean, 95 % interval"),
      Patch(label="within 0.05 dex of the baseline", **_BAND)]
  if constant:
    marks.append(Line2D([], [], color=soft, label="constant predictor", **_CONSTANT_LINE))
  squares = [
      Line2D([], [], color=_light(colour), marker="s", markersize=6, linestyle="none", label=name)
      for name, colour in VERDICT_COLOURS.items() if name in verdicts]
  empty = Line2D([], [], linestyle="none", label=" ")
  columns = itertools.zip_longest(marks, squares, fillvalue=empty)
  return [handle for column in columns for handle in column]


def _median(curve: Curve) -> np.ndarray:
  """Median over the seeds, a failed run being the worst; nan where half of them failed."""
  errors = np.where(np.isfinite(curve.errors), curve.errors, np.inf)
  median = np.median(errors, axis=0) if errors.size else np.full(len(curve.steps), np.inf)
  return np.where(np.isfinite(median), median, np.nan)


def _medians(panel: CurvePanel) -> np.ndarray:
  return np.concatenate([_median(curve) for curve in panel.curves])


def _draw_curves(ax: Axes, curves: Sequence[Curve], zero: float) -> None:
  for index, curve in reversed(list(enumerate(curves))):  # the baseline on top
    colour = _light("ink" if index == 0 else _SERIES[index - 1])
    finite = np.isfinite(curve.errors)
    low = np.min(curve.errors, axis=0, where=finite, initial=np.inf)
    high = np.max(curve.errors, axis=0, where=finite, initial=-np.inf)
    shown = finite.any(axis=0)
    ax.fill_between(curve.steps[shown], _placed(low[shown], zero),
                    _placed(high[shown], zero), color=colour, alpha=0.13, linewidth=0)
    ax.plot(curve.steps, _placed(_median(curve), zero), color=colour, **_line(index),
            markevery=max(1, len(curve.steps) // 7), markersize=3.6,
            markeredgecolor=_light("paper"), markeredgewidth=0.5)
  ax.grid(True)


def _line(index: int) -> dict[str, Any]:
  """Width and marker of a curve; the baseline, index 0, is wide and plain."""
  return {"linewidth": 2.2} if index == 0 else {"linewidth": 1.5, "marker": _MARKERS[index - 1]}


def _name_curves(ax: Axes, curves: Sequence[Curve]) -> None:
  handles = []
  for index, curve in enumerate(curves):
    notes = ["baseline"] * (index == 0)
    notes += [f"{curve.failed} of {len(curve.errors)} failed"] * (curve.failed > 0)
    label = _short(curve.arm) + (f" ({', '.join(notes)})" if notes else "")
    handles.append(Line2D(
        [], [], color=_light("ink" if index == 0 else _SERIES[index - 1]), **_line(index),
        markersize=4, label=label))
  ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)


def _draw_parity(
    upper: Axes, lower: Axes, true: np.ndarray, predicted: np.ndarray, *, name: str, unit: str,
    small_unit: str
) -> None:
  if true.shape != predicted.shape or not true.size:
    raise ValueError(
        f"expected as many predicted as reference values of {name}, at least one, got shapes "
        f"{predicted.shape} and {true.shape}")
  errors = 1000 * (predicted - true)
  shown: dict[str, Any] = {
      "s": float(np.clip(20_000 / true.size, 2, 6)), "linewidths": 0, "color": _CLOUD,
      "alpha": float(np.clip(2000 / true.size, 0.15, 0.45)), "rasterized": True}
  ends = [float(true.min()), float(true.max())]
  upper.scatter(true, predicted, **shown)
  upper.plot(ends, ends, color=_light("ink"), linewidth=0.8)
  lower.scatter(true, errors, **shown)
  lower.axhline(0, color=_light("ink"), linewidth=0.8)
  mae, rmse = np.mean(np.abs(errors)), np.sqrt(np.mean(errors**2))
  upper.text(0.03, 0.96, f"{true.size:,} values\nMAE {mae:.1f} {small_unit}\n"
             f"RMSE {rmse:.1f} {small_unit}", transform=upper.transAxes, va="top",
             linespacing=1.4)
  upper.set_ylabel(f"predicted ({unit})")
  upper.set_title(name, loc="left", fontweight="bold")
  lower.set_ylabel(f"error ({small_unit})")
  lower.set_xlabel(f"reference ({unit})")
  for ax in (upper, lower):
    ax.grid(True)
