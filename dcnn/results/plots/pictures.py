"""Predictions of a run beside the reference: parity plots, and maps of fields."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from dcnn.base.text import Unit, display_unit, number_text
from dcnn.results import text
from dcnn.results.plots.style import WIDTH, light_shade, with_style

_CLOUD = "#3d8bc4"  # points drawn as pixels keep one colour, readable on both papers
# Both can be read with any kind of colour vision: one gets steadily lighter, the other is purple
# below zero, white at zero and orange above it.
VALUE_COLOURS, ERROR_COLOURS = "viridis", "PuOr_r"


class Parity(NamedTuple):
  """Prediction against reference, and the error below.

  Attributes:
    title: What the values are.
    unit: The unit of the values, or 1.
    true: The reference, at least one value.
    predicted: The prediction of each.
  """

  title: str
  unit: str
  true: Float[np.ndarray, " values"]
  predicted: Float[np.ndarray, " values"]


class Field(NamedTuple):
  """Reference, prediction and error over two coordinates, as three maps.

  Attributes:
    title: What the values are.
    unit: The unit of the values, or 1.
    true: The reference.
    predicted: The prediction.
    horizontal: The coordinate along the rows of these matrices, at least two increasing numbers.
    vertical: The coordinate along their columns, likewise.
    axes: The names of the horizontal and the vertical coordinate.
  """

  title: str
  unit: str
  true: Float[np.ndarray, "vertical horizontal"]
  predicted: Float[np.ndarray, "vertical horizontal"]
  horizontal: Float[np.ndarray, " horizontal"]
  vertical: Float[np.ndarray, " vertical"]
  axes: tuple[str, str]


@with_style
def prediction_plot(panel: Parity | Field) -> Figure:
  """Draws predictions beside the reference.

  Args:
    panel: What to draw.

  Returns:
    A figure: prediction against reference with the error below, or three maps in a row.

  Raises:
    ValueError: If there is nothing to draw, or reference and prediction differ in shape.
  """
  if panel.true.shape != panel.predicted.shape or not panel.true.size:
    raise ValueError(
        f"expected as many predicted as reference values of {panel.title}, at least one, got "
        f"shapes {panel.predicted.shape} and {panel.true.shape}")
  if isinstance(panel, Field):
    figure = Figure(figsize=(9.0, 3.3), layout="constrained")
    _draw_field(figure, panel)
    return figure
  figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
  upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1.0))
  _draw_parity(upper, lower, panel)
  return figure


def _draw_parity(upper: Axes, lower: Axes, panel: Parity) -> None:
  true, unit = panel.true, _whole_unit(panel.unit)
  errors = panel.predicted - true
  small = display_unit(panel.unit, errors)
  style: dict[str, Any] = {
      "s": float(np.clip(20_000 / true.size, 2, 6)), "linewidths": 0, "color": _CLOUD,
      "alpha": float(np.clip(2000 / true.size, 0.15, 0.45)), "rasterized": True}
  ends = [float(true.min()), float(true.max())]
  upper.scatter(true, panel.predicted, **style)
  upper.plot(ends, ends, color=light_shade("ink"), linewidth=0.8)
  lower.scatter(true, small.factor * errors, **style)
  lower.axhline(0, color=light_shade("ink"), linewidth=0.8)
  upper.text(0.03, 0.96, "\n".join([f"{true.size:,} values", *_error_lines(errors, small)]),
             transform=upper.transAxes, va="top", linespacing=1.4)
  upper.set_ylabel(text.heading("predicted", unit))
  upper.set_title(panel.title, loc="left", fontweight="bold")
  lower.set_ylabel(text.heading("error", small.name))
  lower.set_xlabel(text.heading("reference", unit))
  for ax in (upper, lower):
    ax.grid(True)


def _draw_field(figure: Figure, panel: Field) -> None:
  """Three maps side by side; reference and prediction share their colours."""
  errors = panel.predicted - panel.true
  unit, small = _whole_unit(panel.unit), display_unit(panel.unit, errors.ravel())
  ends = _ends(np.stack([panel.true, panel.predicted]))
  largest = max(map(abs, _ends(small.factor * errors)))
  axes = figure.subplots(1, 3, sharex=True, sharey=True)
  reference = _draw_map(axes[0], panel, panel.true, VALUE_COLOURS, ends)
  _draw_map(axes[1], panel, panel.predicted, VALUE_COLOURS, ends)
  error = _draw_map(axes[2], panel, small.factor * errors, ERROR_COLOURS, (-largest, largest))
  details = (_range_text(panel.true), _range_text(panel.predicted),
             ", ".join(_error_lines(errors, small)))
  for ax, name, detail in zip(axes, ("reference", "prediction", "error"), details, strict=True):
    ax.set_title(f"{name}\n{detail}", loc="left", fontsize=9, linespacing=1.4)
    ax.set_xlabel(panel.axes[0])
  axes[0].set_ylabel(panel.axes[1])
  figure.suptitle(panel.title, x=0.01, ha="left", fontweight="bold", fontsize=10)
  bars = (figure.colorbar(reference, ax=list(axes[:2]), label=text.heading("value", unit)),
          figure.colorbar(error, ax=axes[2], label=text.heading("error", small.name)))
  for bar in bars:
    bar.outline.set_visible(False)  # pyright: ignore
    bar.solids.set_rasterized(True)  # pyright: ignore


def _draw_map(
    ax: Axes, panel: Field, values: Float[np.ndarray, "vertical horizontal"], colours: str,
    ends: tuple[float, float],
) -> ScalarMappable:
  """Each value as a cell around its coordinates; where a value is not finite there is no cell."""
  return ax.pcolormesh(
      _edges(panel.horizontal), _edges(panel.vertical), np.ma.masked_invalid(values),
      cmap=colours, vmin=ends[0], vmax=ends[1], rasterized=True)


def _edges(centres: Float[np.ndarray, " cells"]) -> Float[np.ndarray, " edges"]:
  """The edges of cells around increasing centres: halfway between these, and as far outside."""
  between = (centres[1:] + centres[:-1]) / 2
  return np.concatenate(
      [2 * centres[:1] - between[:1], between, 2 * centres[-1:] - between[-1:]])


def _range_text(values: Float[np.ndarray, "..."]) -> str:
  low, high = _ends(values)
  return f"from {number_text(low, high)} to {number_text(high, low)}"


def _ends(values: Float[np.ndarray, "..."]) -> tuple[float, float]:
  """The smallest and the largest finite value; 0 where there is none."""
  finite = values[np.isfinite(values)]
  return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _error_lines(errors: Float[np.ndarray, "..."], unit: Unit) -> list[str]:
  """Mean absolute and root mean square error with their unit."""
  mae, rmse = np.mean(np.abs(errors)), np.sqrt(np.mean(np.square(errors)))
  return [
      text.quantity_text(f"{name} {number_text(unit.factor * float(value))}", unit.name)
      for name, value in (("MAE", mae), ("RMSE", rmse))]


def _whole_unit(unit: str) -> str:
  """The name of a unit as it is shown where no thousandths are taken."""
  return display_unit(unit, np.zeros(0)).name
