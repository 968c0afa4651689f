"""Two factors crossed, paired by seed: main effects and interaction."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dcnn.stats.intervals import DECIMALS, Interval, mean_log_interval
from dcnn.stats.permutation import max_t


class Factorial(NamedTuple):
  """Main effects and interaction of two factors, as ratios of errors.

  The error of cell (i, j) is the geometric mean of all cells x rows[i] x columns[j] x
  interaction[i][j]. Ratios below 1 are smaller errors. The intervals are pointwise. The p are
  adjusted by max-T within each of the three families, so that the smallest p of a family answers
  whether it has any effect: the effect of one factor differs between the levels of the other where
  the smallest `p_interaction` is below the level.

  Attributes:
    rows: Ratio of each row level to the geometric mean of all row levels, averaged over columns.
    columns: Ratio of each column level to the geometric mean of all, averaged over rows.
    interaction: By row and column the ratio of the cell to what the main effects give.
    p_rows: Adjusted p of each row level.
    p_columns: Adjusted p of each column level.
    p_interaction: Adjusted p of each cell, by row and column.
    seeds: Number of seeds used.
    left_out: Number of seeds left out, as the run of a cell failed or is exact.
  """

  rows: tuple[Interval, ...]
  columns: tuple[Interval, ...]
  interaction: tuple[tuple[Interval, ...], ...]
  p_rows: tuple[float, ...]
  p_columns: tuple[float, ...]
  p_interaction: tuple[tuple[float, ...], ...]
  seeds: int
  left_out: int


def factorial(log_errors: Float[np.ndarray, "rows columns seeds"]) -> Factorial:
  """Main effects and interaction of two crossed factors on the log errors, paired by seed.

  In each seed the logarithm y of cell (i, j) is split into the mean of all cells, the row's mean
  less that, the column's mean less that, and what remains. Each part's interval is that of
  `geometric_mean` over the seeds, and its p is by sign flips of the seeds; see `max_t`. What the
  cells of a seed have in common leaves the effects as they are.

  Args:
    log_errors: Logarithm of the error of each cell and seed (rows, columns, seeds); inf or nan
      marks a failed run, -inf an exact one. A seed with such a cell is left out as a whole and
      counted: its effects are not known. Where failures differ between arms, compare the arms,
      which counts them.

  Returns:
    The effects. Without a seed all ratios are nan and all p are 1.

  Raises:
    ValueError: If a factor has fewer than two levels.

  References:
    Scheffe, The Analysis of Variance (1959), chapter 4.

  >>> cells = np.log(np.array([[1.0, 0.5], [3.0, 1.5]]))  # rows differ by 3, columns by 2
  >>> effects = factorial(np.stack([cells, cells + 1.0], axis=-1))
  >>> round(effects.rows[1].centre / effects.rows[0].centre, 6)
  3.0
  >>> round(effects.interaction[0][0].centre, 6)
  1.0
  """
  rows, columns, _ = log_errors.shape
  if rows < 2 or columns < 2:
    raise ValueError(f"expected at least two levels of each factor, got {rows} rows and {columns} "
                     f"columns; with one factor, compare the arms")
  used = np.all(np.isfinite(log_errors), axis=(0, 1))
  cells = log_errors[:, :, used]
  grand = cells.mean(axis=(0, 1))
  of_rows, of_columns = cells.mean(axis=1) - grand, cells.mean(axis=0) - grand
  left = (cells - grand - of_rows[:, None] - of_columns).reshape(rows * columns, -1)
  intervals, p_values = zip(*map(_effects, (of_rows, of_columns, left)), strict=True)
  return Factorial(
      intervals[0], intervals[1], _by_row(intervals[2], columns), p_values[0], p_values[1],
      _by_row(p_values[2], columns), int(used.sum()), int(np.sum(~used)))


def _effects(
    parts: Float[np.ndarray, "effects seeds"]
) -> tuple[tuple[Interval, ...], tuple[float, ...]]:
  """Ratio and adjusted p of each effect of a family."""
  parts = np.round(parts, DECIMALS)  # what is 0 but for rounding is no effect
  p_values = max_t(parts)[1] if parts.shape[1] else np.ones(len(parts))
  return tuple(map(mean_log_interval, parts)), tuple(p_values.tolist())


def _by_row(cells: tuple, columns: int) -> tuple[tuple, ...]:
  """The cells, listed row by row, as a table."""
  return tuple(cells[first:first + columns] for first in range(0, len(cells), columns))
