"""Tables of two crossed factors: what each does by itself, and whether they interact, in words."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dcnn import stats
from dcnn.results import text
from dcnn.results.records import Result, Table

_DECIMALS = 9  # of log ratios: what differs less is a tie, of which the first is taken


class Analysis(NamedTuple):
  """The factorial analysis of an error.

  Attributes:
    metric: The name of the error.
    factors: The names of the two factors.
    levels: The levels of each.
    errors: The geometric mean of each combination, in the unit of the rows; nan where no run
      finished.
    effects: Main effects and interaction, see `stats.factorial`.
    level: The level of its tests.
  """

  metric: str
  factors: tuple[str, str]
  levels: tuple[tuple[str, ...], tuple[str, ...]]
  errors: Float[np.ndarray, "rows columns"]
  effects: stats.Factorial
  level: float


def analyses(result: Result, table: Table) -> list[Analysis]:
  """The analysis of a table for each compared error.

  Args:
    result: The result of a sweep.
    table: A table; one without factors, or with unfinished arms, has no analysis.
  """
  if not table.factors or any(arm not in result.arms for arm in table.arms):
    return []
  (first, rows), (second, columns) = table.factors.items()
  levels = tuple(dict.fromkeys(rows)), tuple(dict.fromkeys(columns))
  arms = dict(zip(zip(rows, columns, strict=True), table.arms, strict=True))
  found = []
  for metric in filter(result.has, result.compared):
    errors = _grid(result.errors(metric), arms, levels)
    with np.errstate(divide="ignore"):
      effects = stats.factorial(np.log(errors))
    means = [[stats.geometric_mean(cell).centre for cell in row] for row in errors]
    found.append(Analysis(metric, (first, second), levels, np.array(means), effects,
                          result.level))
  return found


def _grid(
    errors: Mapping[str, np.ndarray], arms: Mapping[tuple[str, str], str],
    levels: tuple[tuple[str, ...], tuple[str, ...]],
) -> Float[np.ndarray, "rows columns seeds"]:
  return np.array([[errors[arms[row, column]] for column in levels[1]] for row in levels[0]])


def record(analysis: Analysis) -> dict[str, Any]:
  """The analysis for summary.json: by level, and by level of the one and of the other.

  Args:
    analysis: An analysis of `analyses`.
  """
  effects, (rows, columns) = analysis.effects, analysis.levels

  def main(levels: Sequence[str], ratios: Sequence[stats.Interval], p: Sequence[float]):
    return {level: {**ratio._asdict(), "p_adjusted": float(each)}
            for level, ratio, each in zip(levels, ratios, p, strict=True)}

  return {
      "factors": list(analysis.factors),
      "rows": main(rows, effects.rows, effects.p_rows),
      "columns": main(columns, effects.columns, effects.p_columns),
      "interaction": {
          level: main(columns, ratios, p) for level, ratios, p in zip(
              rows, effects.interaction, effects.p_interaction, strict=True)},
      "seeds": effects.seeds, "left_out": effects.left_out,
      "sentence": sentence(analysis)}


def sentence(analysis: Analysis) -> str:
  """What each factor does, averaged over the other, and whether they interact.

  Args:
    analysis: An analysis of `analyses`.

  Returns:
    Sentences with ratios, their 95 % intervals and adjusted p.
  """
  effects = analysis.effects
  rows = _main(analysis.factors[0], analysis.levels[0], effects.rows, effects.p_rows,
               analysis.level)
  columns = _main(analysis.factors[1], analysis.levels[1], effects.columns,
                  effects.p_columns, analysis.level)
  left_out = "" if not effects.left_out else (
      f" {text.count_text(effects.left_out, 'seed')} left out, in which a run failed or is exact.")
  return f"{rows} {columns} {_interaction(analysis)}{left_out}"


def _main(
    factor: str, levels: Sequence[str], ratios: Sequence[stats.Interval],
    p_values: Sequence[float], level: float,
) -> str:
  """The lowest and the highest level of a factor."""
  centres = np.array([ratio.centre for ratio in ratios])
  if not np.all(np.isfinite(centres)):
    return f"{factor}: no seed in which all runs finished."
  low, high = int(np.argmin(centres)), int(np.argmax(centres))
  ends = " to ".join(f"{text.ratio_text(ratios[at])} ({levels[at]})" for at in (low, high))
  if all(map(_is_small, ratios)):
    return f"{factor}: all levels lie {text.WITHIN} of their mean."
  if not min(p_values) < level:
    return (f"{factor}: no level is shown to differ from the mean of its levels "
            f"({ends}; {text.p_words(min(p_values))}).")
  return (f"{factor}: from {ends} times the mean of its levels "
          f"({text.p_words(min(p_values))}).")


def _interaction(analysis: Analysis) -> str:
  """The combination that departs farthest from what the two factors do by themselves."""
  effects = analysis.effects
  cells = [(effects.interaction[row][column], row, column)
           for row, column in np.ndindex(analysis.errors.shape)]
  cells = [cell for cell in cells if np.isfinite(cell[0].centre)]
  if not cells:
    return ""
  first, second = analysis.factors
  if all(_is_small(cell[0]) for cell in cells):
    return f"The effect of {first} is the same {text.WITHIN} at all levels of {second}."
  p = float(np.min(effects.p_interaction))
  # Of two levels all departures are of one size; which is larger by rounding is the machine's.
  ratio, row, column = max(cells, key=lambda cell: round(abs(np.log(cell[0].centre)), _DECIMALS))
  where = f"{analysis.levels[0][row]} with {analysis.levels[1][column]}"
  words = (f"{where} has {text.ratio_text(ratio)} times the error that the two would give by "
           f"themselves ({text.p_words(p)})")
  if p < analysis.level:
    return f"The effect of {first} depends on {second}: {words}."
  return f"That the effect of {first} depends on {second} is not shown: at most {words}."


def _is_small(ratio: stats.Interval) -> bool:
  return stats.verdict(ratio, p_adjusted=1.0) == "equivalent"
