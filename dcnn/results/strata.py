"""Arms compared within several results, such as one for each molecule, and over all of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dcnn import stats
from dcnn.base.text import one_line
from dcnn.results import text
from dcnn.results.records import Result, Table


class Combined(NamedTuple):
  """An arm against the baseline over several results.

  Attributes:
    arm: The arm.
    each: Its contrast within each result, by the name of the result.
    ratio: The geometric mean over the results of the ratio of the errors, each result with the same
      weight, with its interval.
    p_adjusted: The p of all results together, adjusted for all arms of the table.
    pairs: Number of pairs, in all results, in which the ratio is known.
    verdict: What follows from the ratio and the p, as in `stats.compare`.
  """

  arm: str
  each: Mapping[str, stats.Contrast]
  ratio: stats.Interval
  p_adjusted: float
  pairs: int
  verdict: str


def common_tables(results: Mapping[str, Result]) -> tuple[Table, ...]:
  """The tables that all results have, with the arms that all results have."""
  first, *others = results.values()
  return tuple(
      table._replace(arms=arms, factors={})
      for table in first.tables
      if all((table.title, table.baseline) in {(each.title, each.baseline) for each in other.tables}
             for other in others)
      and table.baseline in first.arms
      and (arms := tuple(
          arm for arm in table.arms if all(arm in result.arms for result in results.values())))
      and set(arms) - {table.baseline})


def combine(results: Mapping[str, Result], table: Table, metric: str) -> list[Combined]:
  """Compares the arms of a table with its baseline within each result and over all.

  Args:
    results: Results by name, whose runs need not have the same seeds: seeds pair the runs of one
      result alone.
    table: A table of `common_tables`.
    metric: The name of an error that all results have.

  Returns:
    A record for each arm but the baseline, in the order of the table. The level is that of the
    result that has been looked at most.
  """
  level = min(result.level for result in results.values())
  arms = [arm for arm in table.arms if arm != table.baseline]
  each = {name: {summary.arm: summary.contrast for summary in result.compare(table, metric)}
          for name, result in results.items()}
  errors = [result.errors(metric) for result in results.values()]
  differences = [
      np.array([stats.log_ratios(mine[arm], mine[table.baseline]) for arm in arms])
      for mine in errors]
  p = stats.combined_p(differences)
  seeds = sum(rows.shape[1] for rows in differences)
  return [
      _combined(arm, {name: contrast for name, by_arm in each.items()
                      if (contrast := by_arm[arm]) is not None},
                [rows[i] for rows in differences], float(p[i]), seeds, level)
      for i, arm in enumerate(arms)]


def _combined(
    arm: str, each: Mapping[str, stats.Contrast], differences: Sequence[np.ndarray], p: float,
    seeds: int, level: float,
) -> Combined:
  """The record of an arm; a failed or exact run leaves no ratio, and forbids `equivalent`."""
  ratio = stats.combined_ratio(differences)
  word = stats.verdict(ratio, p, seeds=seeds, level=level)
  pairs = np.concatenate(differences)
  side = np.count_nonzero(np.isposinf(pairs)) - np.count_nonzero(np.isneginf(pairs))
  contrary = {"better": side > 0, "worse": side < 0, "equivalent": np.any(np.isinf(pairs))}
  if contrary.get(word, False):
    word = "undecided"
  return Combined(arm, each, ratio, p, int(np.isfinite(pairs).sum()), word)


def metrics(results: Mapping[str, Result]) -> list[str]:
  """The errors by which arms are compared that all results have."""
  first = next(iter(results.values()))
  return [metric for metric in first.compared
          if all(result.has(metric) for result in results.values())]


def tables_text(results: Mapping[str, Result], by: str, tables: Sequence[Table]) -> str:
  """The comparisons as Markdown tables: a line for each arm, a column for each result."""
  return "\n\n".join(
      f"{one_line(f'{table.title}: {metric}, ratio to {table.baseline}')}\n\n"
      f"{text.markdown_table(_lines(combine(results, table, metric), results, by))}"
      for table in tables for metric in metrics(results))


def sentences(results: Mapping[str, Result], by: str, tables: Sequence[Table]) -> list[str]:
  """What each arm does over all results, and between which of them it does least and most.

  Args:
    results: Results by the value of the setting `by`.
    by: The key of the setting.
    tables: Tables of `common_tables`.

  Returns:
    A sentence for each table, arm and error.
  """
  return [_sentence(row, table, metric, by) for table in tables for metric in metrics(results)
          for row in combine(results, table, metric)]


def _sentence(row: Combined, table: Table, metric: str, by: str) -> str:
  known = sorted(((contrast.ratio, name) for name, contrast in row.each.items()
                  if np.isfinite(contrast.ratio)))
  if not known or not np.isfinite(row.ratio.centre):
    return f"{row.arm}: no ratio to {table.baseline} in {metric} over all values of {by}."
  ends = " to ".join(f"{text.ratio_text(stats.Interval(ratio, np.nan, np.nan))} ({name})"
                     for ratio, name in (known[0], known[-1]))
  return (f"{row.arm}: {text.ratio_text(row.ratio)} times the {metric} of {table.baseline} over "
          f"all, {row.verdict}; from {ends}.")


def _lines(
    combined: Sequence[Combined], results: Mapping[str, Result], by: str
) -> list[tuple[str, ...]]:
  heads = ("arm", *(f"{by}={name}" for name in results), "over all", "p", "verdict over all")
  return [heads, *(
      (row.arm, *(str(text.ratio_text(stats.Interval(*contrast[:3])))
                  for contrast in row.each.values()),
       str(text.ratio_text(row.ratio)), text.p_text(row.p_adjusted), row.verdict)
      for row in combined)]


def summary(results: Mapping[str, Result], by: str, tables: Sequence[Table]) -> dict[str, Any]:
  """The same numbers for summary.json."""
  return {
      "by": by,
      "seeds": {name: list(result.seeds) for name, result in results.items()},
      "level": min(result.level for result in results.values()),
      "tables": [{
          "title": table.title, "baseline": table.baseline,
          "contrasts": {metric: {
              row.arm: {"each": {name: contrast._asdict() for name, contrast in row.each.items()},
                        "over_all": {**row.ratio._asdict(), "p_adjusted": row.p_adjusted,
                                     "pairs": row.pairs, "verdict": row.verdict}}
              for row in combine(results, table, metric)} for metric in metrics(results)}}
          for table in tables]}
