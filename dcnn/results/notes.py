"""What a reader of a report must know before the verdicts, in sentences."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from dcnn import stats
from dcnn.base.text import number_text
from dcnn.results import text
from dcnn.results.records import Point, Result, is_failed, with_baseline
from dcnn.results.summary import ArmMetrics, Comparison, failures, metrics_of_kind

MOST_FAILURES = 4  # that are listed for an arm; summary.json has all


def limits(result: Result) -> list[str]:
  """What must be known before the answers: that there are too few seeds, or runs are unfinished.

  Args:
    result: The result of a sweep.
  """
  lines, n, unfinished = [], len(result.seeds), result.unfinished
  needed = stats.fewest_seeds(result.level)
  if 0 < n < needed:
    lines.append(
        f"With {text.count_text(n, 'seed')} no test can reach significance (the smallest possible "
        f"p is {text.p_text(stats.smallest_p(n))}): no arm can be called better or worse. "
        f"{needed} seeds are the least; three are a smoke test.")
  if unfinished:
    lines.append(
        f"Interrupted: {text.count_text(sum(unfinished.values()), 'run')} unfinished, of "
        f"{_counts_text(unfinished)}. These arms are left out of the tables until the command that "
        "began the sweep has been given again and has finished them.")
  return lines


def notes(
    result: Result, comparisons: Sequence[Comparison], metrics: ArmMetrics
) -> list[str]:
  """What else limits what the verdicts mean: runs that failed or stopped, and arms left out.

  Args:
    result: The result of a sweep.
    comparisons: Its tables with their statistics.
    metrics: The statistics of its metrics, from `summary.arm_metrics`.
  """
  lines = _failure_notes(result)
  stopped = collections.Counter(arm for arm, _ in sorted(result.out_of_patience))
  if stopped:
    lines.append(
        f"{text.count_text(sum(stopped.values()), 'run')} ended early because validation no longer "
        f"improved (patience): {_counts_text(stopped)}.")
  return [*lines, *_skill_notes(result, metrics), *_exact_notes(result, comparisons),
          *_gap_notes(result, comparisons)]


def _failure_notes(result: Result) -> list[str]:
  failed = {arm: seeds for arm, seeds in failures(result).items() if seeds}
  if not failed:
    return []
  last, runs = _last_errors(result), {(row.arm, row.seed) for row in result.rows}
  arms = "; ".join(
      f"{arm} ({_failures_text(seeds, last.get(arm, {}))})" for arm, seeds in failed.items())
  return [
      f"{text.count_text(sum(map(len, failed.values())), 'run')} of {len(runs):,} became "
      f"non-finite: {arms}. They are counted and ranked worst; means and ratios are of the rest."]


def _last_errors(result: Result) -> dict[str, dict[int, str]]:
  """The last finite validation errors, by arm and seed, as `20.1 mm and 98.0 mm/s at step 40`."""
  found: dict[tuple[str, int], dict[str, Point]] = {}
  for point in result.history:  # in the order of the steps
    if point.split == "valid" and point.metric in result.compared and np.isfinite(point.value):
      found.setdefault((point.arm, point.seed), {})[point.metric] = point
  texts: dict[str, dict[int, str]] = {}
  for (arm, seed), points in found.items():
    units = {metric: result.unit(metric) for metric in points}
    errors = " and ".join(
        text.quantity_text(number_text(points[metric].value * units[metric].factor),
                           units[metric].name)
        for metric in result.compared if metric in points)
    step = max(point.step for point in points.values())
    texts.setdefault(arm, {})[seed] = f"{errors} at step {step}"
  return texts


def _failures_text(seeds: Mapping[int, Mapping[str, str]], last: Mapping[int, str]) -> str:
  """The first few failed runs of an arm: `3: seed 0 at step 12, last finite 20 mm at step 10`."""
  runs = [
      f"seed {seed} at step {each['status'].partition('@')[2]}"
      + (f", {each['cause']}" if each["cause"] else "")
      + (f", last finite {last[seed]}" if seed in last else "") for seed, each in seeds.items()]
  more = f"; and {len(runs) - MOST_FAILURES} more" if len(runs) > MOST_FAILURES else ""
  return f"{len(runs)}: {'; '.join(runs[:MOST_FAILURES])}{more}"


def _skill_notes(result: Result, metrics: ArmMetrics) -> list[str]:
  """Runs no better than the predictor that knows nothing."""
  lines = []
  for skill in metrics_of_kind(result, "skill"):
    poor = {arm: count for arm, values in metrics.items()
            if (count := values[skill.name]["no_better_than_constant"])}
    if poor:
      lines.append(
          f"No better than the constant predictor of {skill.subject or skill.name}, "
          f"{text.count_text(sum(poor.values()), 'run')}: {_counts_text(poor)}.")
  return lines


def _exact_notes(result: Result, comparisons: Sequence[Comparison]) -> list[str]:
  """Runs with an error of exactly 0, and constant predictors without an error."""
  lines = []
  for metric in result.compared:
    exact = {
        each.arm: f"{each.arm} ({text.exact_text(each)})" for _, summaries in comparisons
        for each in summaries.get(metric, ()) if each.exact}
    if exact:
      lines.append(
          f"The {metric} is exactly 0: {'; '.join(exact.values())}. Exact runs are ranked best; "
          "means and ratios are of the rest, and 0 where all finished runs are exact.")
  for skill in metrics_of_kind(result, "skill"):
    values = [row.value for row in result.rows if (row.split, row.metric) == ("test", skill.name)
              and not is_failed(row.status)]
    if values and not np.any(np.isfinite(values)):
      lines.append(f"The constant predictor of {skill.subject or skill.name} is exact on the test "
                   "split: there is no skill to measure.")
  return lines


def _gap_notes(result: Result, comparisons: Sequence[Comparison]) -> list[str]:
  """Arms without results, and arms without a table."""
  required = dict.fromkeys(arm for table in result.tables for arm in with_baseline(table))
  absent = [arm for arm in required if arm not in result.arms and arm not in result.unfinished]
  shown = {arm for table, _ in comparisons for arm in with_baseline(table)}
  left = [arm for arm in result.arms if arm not in shown]
  lines = [f"No results for: {'; '.join(absent)}."] if absent else []
  return lines + ([f"In no table, but in summary.json: {'; '.join(left)}."] if left else [])


def _counts_text(counts: Mapping[str, int]) -> str:
  return "; ".join(f"{arm} ({count})" for arm, count in counts.items())
