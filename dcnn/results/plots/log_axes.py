"""Logarithmic axes with readable ticks, on which an error of exactly 0 has a place, too."""

from collections.abc import Sequence

import matplotlib.ticker
import numpy as np
from jaxtyping import Float
from matplotlib.axis import Axis


def set_log_axis(axis: Axis, values: Float[np.ndarray, " values"]) -> None:
  """Makes an axis logarithmic around the values, with round, readable ticks.

  Args:
    axis: The axis to set.
    values: What is drawn along it. If a value is 0, the axis has a tick for it, at `zero_place`.
  """
  def tick_text(value: float, position: int) -> str:
    if value in zero:
      return "0"
    wide = value >= 1e6 or value < 1e-4
    return f"{value:.3g}" if wide else f"{value:,.6f}".rstrip("0").rstrip(".")

  positive = values[np.isfinite(values) & (values > 0)]
  zero = [zero_place(values)] * bool(np.any(values == 0))
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
  axis.set_major_formatter(matplotlib.ticker.FuncFormatter(tick_text))
  axis.set_minor_locator(matplotlib.ticker.FixedLocator(between if high - low < 4 else []))
  axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def zero_place(values: Float[np.ndarray, " values"]) -> float:
  """Where a logarithmic axis around the values shows 0: below them all, with a gap."""
  logs = np.log10(values[np.isfinite(values) & (values > 0)])
  return float(10 ** (logs.min() - max(0.2 * np.ptp(logs), 0.1))) if logs.size else 1.0


def with_zero(values: Float[np.ndarray, " values"], zero: float) -> Float[np.ndarray, " values"]:
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
