"""The tables of a report as text: a headline, a verdict for each arm, and the lines of numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dcnn import stats
from dcnn.base.text import number_text
from dcnn.results import answers, factorials, facts, planning, text
from dcnn.results.records import Result, Table
from dcnn.results.summary import ArmMetrics, Comparison, metrics_of_kind, shares_above_zero

_RELATIONS: Mapping[str, str] = {
    "better": "is better than", "worse": "is worse than",
    "equivalent": f"is equivalent ({text.WITHIN}) to", "undecided": "is undecided against",
    planning.TOO_FEW: "has too few seeds for a verdict against"}


def tables(
    result: Result, comparisons: Sequence[Comparison], metrics: ArmMetrics
) -> list[dict[str, Any]]:
  """What the templates show of all comparisons, see `table`.

  Args:
    result: The result of a sweep.
    comparisons: Its tables, with their statistics.
    metrics: The statistics of its metrics, from `summary.arm_metrics`.

  Returns:
    The tables, each with the name of its `map`, the figure of a factorial. Where several have one
    baseline, the first says what that is in full.
  """
  shown, told = [], set()
  for number, comparison in enumerate(comparisons, start=1):
    lines = {**table(result, comparison, metrics), "map": f"factorial_{number}"}
    shown.append({**lines, "in_full": ""} if lines["baseline"] in told else lines)
    told.add(lines["baseline"])
  return shown


def table(result: Result, comparison: Comparison, metrics: ArmMetrics) -> dict[str, Any]:
  """What the templates show of a comparison.

  Args:
    result: The result of a sweep.
    comparison: One of its tables, with its statistics.
    metrics: The statistics of its metrics, from `summary.arm_metrics`.

  Returns:
    Text by name: `title`, `baseline` and `in_full`, the settings of the baseline; `metrics`, each
    of `name`, `unit`, `heading`, `answer`, `headline` and `sentences`; `factorial`, the sentence of
    each metric by its name; `skills` and `shares`, the heads of their columns; `failed`, whether
    there is such a column, `runs`, the number of an arm; `rows`, one for each arm.
  """
  asked, summaries = comparison
  arms = [summary.arm for summary in next(iter(summaries.values()), [])]
  skills, shares = metrics_of_kind(result, "skill"), shares_above_zero(result, metrics)
  return {
      "title": asked.title,
      "baseline": asked.baseline,
      "in_full": facts.in_full(result, asked.baseline),
      "metrics": [_metric(result, asked, metric, summaries[metric]) for metric in summaries],
      "factorial": [
          {"metric": each.metric, "sentence": factorials.sentence(each)}
          for each in factorials.analyses(result, asked)],
      "skills": [skill.label or skill.name for skill in skills],
      "shares": [text.heading(share.label or share.name, result.unit(share.name).name)
                 for share in shares],
      "runs": text.count_text(len(result.seeds), "run"),
      "failed": any(summary.failed for summary in next(iter(summaries.values()), [])),
      "rows": [{
          **_row(result, arm, summaries),
          "skills": [_skill_cell(metrics[arm][skill.name], len(result.seeds)) for skill in skills],
          "shares": [_share_cell(metrics[arm][share.name], result.unit(share.name).factor)
                     for share in shares]} for arm in arms],
  }


def _metric(
    result: Result, asked: Table, metric: str, summaries: Sequence[stats.ArmSummary]
) -> dict[str, Any]:
  """What a table says of one error: in a sentence, in a headline, and for each arm."""
  reach = planning.reach(result, asked, metric, summaries)
  unit = result.unit(metric)
  return {"name": metric, "unit": unit.name, "heading": text.heading(metric, unit.name),
          "answer": answers.answer(asked, summaries, reach, unit),
          "headline": _headline(result, asked, metric, summaries),
          "sentences": _sentences(asked, metric, summaries, reach)}


def _headline(
    result: Result, asked: Table, metric: str, summaries: Sequence[stats.ArmSummary]
) -> str:
  unit = result.unit(metric)
  verdicts = [summary.contrast.verdict for summary in summaries if summary.contrast]
  counts = [f"{verdicts.count(word)} {word}" for word in _RELATIONS if word in verdicts]
  finished = [summary for summary in summaries if np.isfinite(summary.error.centre)]
  if not finished:
    return "No run finished."
  lowest = min(finished, key=lambda summary: summary.error.centre)
  error = text.quantity_text(str(text.error_text(lowest.error, unit.factor)), unit.name)
  remarks = [f"{lowest.failed} of {lowest.n} runs failed"] if lowest.failed else []
  remarks += [text.exact_text(lowest)] if lowest.exact else []
  failed = f" ({', '.join(remarks)})" if remarks else ""
  against = f"Against {asked.baseline}: {', '.join(counts)}. " if counts else ""
  return f"{against}Lowest geometric mean: {error} by {lowest.arm}{failed}."


def _sentences(
    asked: Table, metric: str, summaries: Sequence[stats.ArmSummary], reach: str
) -> list[dict[str, str]]:
  """A verdict for each arm; the clear ones first, each kind from the lowest ratio up."""
  order = list(_RELATIONS)
  baseline = next(summary for summary in summaries if summary.contrast is None)
  compared = [(summary, summary.contrast) for summary in summaries if summary.contrast]
  compared.sort(key=lambda pair: (order.index(pair[1].verdict), np.nan_to_num(pair[1].ratio)))
  return [
      {"arm": summary.arm, "verdict": contrast.verdict, "relation": _RELATIONS[contrast.verdict],
       "against": f"{asked.baseline} on {metric}",
       "evidence": _evidence(summary, contrast, baseline) + (
           f"; {reach}" if reach and contrast.verdict in ("undecided", planning.TOO_FEW) else "")}
      for summary, contrast in compared]


def _evidence(
    summary: stats.ArmSummary, contrast: stats.Contrast, baseline: stats.ArmSummary
) -> str:
  p = text.p_words(contrast.p_adjusted)
  ratio = text.ratio_text(stats.Interval(*contrast[:3]))
  if contrast.pairs == 0:
    words = f"in no pair did both runs finish ({p})"
  elif np.isnan(contrast.ratio):
    words = f"an error and an exact 0 have no ratio ({p})"
  elif not ratio.ends:
    words = f"{ratio.centre} times the error (no interval from one pair, {p})"
  else:
    low_to_high = ratio.ends.strip("[]").replace(", ", " to ")
    words = f"{ratio.centre} times the error (95 % interval {low_to_high}, {p})"
  failures = [f"{each.failed} of {each.n} runs of {each.arm} failed"
              for each in (summary, baseline) if each.failed]
  exact = [f"{each.arm} is {text.exact_text(each)}"
           for each in (summary, baseline) if each.exact]
  return "; ".join([words, *failures, *exact])


def _row(
    result: Result, arm: str, summaries: Mapping[str, Sequence[stats.ArmSummary]]
) -> dict[str, Any]:
  """The line of an arm: how many of its runs failed, and the cells of each compared error."""
  of_arm = {metric: next(each for each in by_arm if each.arm == arm)
            for metric, by_arm in summaries.items()}
  first = next(iter(of_arm.values()))
  rate = first.failure_rate
  return {
      "arm": arm, "runs": str(first.n), "failed": str(first.failed),
      "failed_interval": f"{100 * rate.low:.0f}–{100 * rate.high:.0f} %",
      "cells": [text.cells(each, result.unit(metric).factor) for metric, each in of_arm.items()]}


def _skill_cell(values: Mapping[str, Any], n: int) -> dict[str, str]:
  if not np.isfinite(values["centre"]):
    return {"centre": "–", "poor": ""}
  poor = values["no_better_than_constant"]
  return {"centre": number_text(values["centre"]), "poor": f"{poor} of {n} ≤ 0" if poor else ""}


def _share_cell(values: Mapping[str, Any], factor: float) -> str:
  centre = factor * values["centre"]
  return f"{centre:.2f}" if values["unit"] == "1" and np.isfinite(centre) else number_text(centre)
