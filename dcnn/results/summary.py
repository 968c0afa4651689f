"""Statistics of a result: the comparisons of its tables, every metric of its arms, summary.json."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dcnn import stats
from dcnn.base.measures import Metric
from dcnn.results import factorials
from dcnn.results.records import Result, Table, is_failed

# The statistics of every metric, by arm and metric, see `arm_metrics`.
ArmMetrics = Mapping[str, Mapping[str, Mapping[str, Any]]]


class Comparison(NamedTuple):
  """A table with its statistics.

  Attributes:
    table: What was asked for.
    summaries: The statistics of its arms, by metric.
  """

  table: Table
  summaries: Mapping[str, Sequence[stats.ArmSummary]]


def compare(result: Result) -> list[Comparison]:
  """Compares the arms of each table by each of the compared errors.

  Args:
    result: The result of a sweep. Without tables of its own, all arms are compared with the first.

  Returns:
    A comparison for each table whose baseline has results; without statistics while runs of the
    baseline are unfinished.
  """
  known = {row.arm for row in result.rows}
  metrics = [metric for metric in result.compared if result.has(metric)]
  return [
      Comparison(table, {metric: result.compare(table, metric) for metric in metrics
                         if table.baseline in result.arms})
      for table in result.comparisons if table.baseline in known]


def arm_metrics(result: Result) -> dict[str, dict[str, dict[str, Any]]]:
  """Statistics of every test metric of every arm over its finished runs.

  Errors have the geometric mean with its 95 % interval, and the number of runs with an error of
  exactly 0, where there are some. Skills have 1 - geometric mean of error / error of the constant
  predictor, with its interval, and the number of runs no better than that predictor (skill <= 0).
  Shares have median, smallest and largest.

  Args:
    result: A result with test rows.

  Returns:
    By arm and metric a record of `statistic`, `unit`, `centre`, `low`, `high`; nan without a
    finished run.
  """
  metrics = dict.fromkeys(row.metric for row in result.rows if row.split == "test")
  units = {row.metric: row.unit for row in result.rows}
  values = {metric: result.errors(metric) for metric in metrics}
  return {
      arm: {metric: {"unit": units[metric], **_statistics(result.metric(metric).kind,
                                                          values[metric][arm])}
            for metric in metrics}
      for arm in result.arms}


def _statistics(kind: str, values: Float[np.ndarray, " seeds"]) -> dict[str, Any]:
  finished = values[np.isfinite(values)]
  if kind == "skill":
    interval = stats.geometric_mean(1 - np.where(np.isfinite(values), values, -np.inf))
    return {"statistic": "1 - geometric mean of 1 - skill", "centre": 1 - interval.centre,
            "low": 1 - interval.high, "high": 1 - interval.low,
            "no_better_than_constant": int(np.sum(finished <= 0))}
  if kind == "error":
    exact = int(np.sum(values == 0))
    return {"statistic": "geometric mean", **stats.geometric_mean(values)._asdict(),
            **({"exact": exact} if exact else {})}
  low, centre, high = (
      np.quantile(finished, (0, 0.5, 1)).tolist() if finished.size else (np.nan,) * 3)
  return {"statistic": "median and range", "centre": centre, "low": low, "high": high}


def constant_error(result: Result, metric: str) -> float:
  """Error of the constant predictor on test data.

  Error and skill of a run imply it: error / (1 - skill). This is the median over the runs, because
  it depends on the split, which may depend on the seed.

  Args:
    result: The result of a sweep.
    metric: The name of an error.

  Returns:
    The error in the unit of the rows; nan where no skill is computed from it.
  """
  skills = [each for each in result.measures.metrics if each.kind == "skill" and each.of == metric]
  if not skills or not result.has(skills[0].name):
    return np.nan
  errors, skill = result.errors(metric), result.errors(skills[0].name)
  implied = [  # an exact run, whose skill is 1, does not tell it
      error / (1 - each) for arm in result.arms
      if np.all(np.isfinite([errors[arm], skill[arm]]))
      for error, each in zip(errors[arm], skill[arm], strict=True) if each < 1]
  return float(np.median(implied)) if implied else np.nan


def metrics_of_kind(result: Result, kind: str) -> list[Metric]:
  """The metrics of a kind that have test results, in the order of the task."""
  return [metric for metric in result.measures.metrics
          if metric.kind == kind and result.has(metric.name)]


def shares_above_zero(result: Result, metrics: ArmMetrics) -> list[Metric]:
  """The shares that have test results and are not 0 for all arms: a column of zeros says nothing.

  Args:
    result: The result of a sweep.
    metrics: The statistics of its metrics, from `arm_metrics`.
  """
  return [share for share in metrics_of_kind(result, "share")
          if any(values[share.name]["centre"] > 0 for values in metrics.values())]


def failures(result: Result) -> dict[str, dict[int, dict[str, str]]]:
  """Status and cause of the failed runs, by arm and seed."""
  found: dict[str, dict[int, dict[str, str]]] = {row.arm: {} for row in result.rows}
  for row in result.rows:
    if is_failed(row.status):
      found[row.arm][row.seed] = {"status": row.status, "cause": row.cause}
  return found


def summary(
    result: Result, comparisons: Sequence[Comparison], metrics: ArmMetrics
) -> dict[str, Any]:
  """The content of summary.json: per arm runs, failures and metrics, per table the contrasts.

  Args:
    result: The result of a sweep.
    comparisons: Its tables with their statistics, from `compare`.
    metrics: The statistics of its metrics, from `arm_metrics`.
  """
  failed, n = failures(result), len(result.seeds)
  return {
      "experiment": experiment_name(result),
      "split": "test",
      "seeds": list(result.seeds),
      "arms": {
          arm: {"n": n, "failed": len(failed[arm]), "failures": failed[arm],
                "failure_rate": stats.wilson(len(failed[arm]), n)._asdict(),
                "metrics": metrics[arm]}
          for arm in result.arms},
      "tables": [
          {"title": table.title, "baseline": table.baseline, "contrasts": {
              metric: {each.arm: each.contrast._asdict() for each in summaries if each.contrast}
              for metric, summaries in by_metric.items()}, **_factorial(result, table)}
          for table, by_metric in comparisons],
  }


def _factorial(result: Result, table: Table) -> dict[str, Any]:
  """The factorial analysis of each error, for a table whose arms cross two factors."""
  found = factorials.analyses(result, table)
  return {"factorial": {each.metric: factorials.record(each) for each in found}} if found else {}


def experiment_name(result: Result) -> str:
  """The name of the experiment, as the rows have it, or else the configuration."""
  if result.rows:
    return result.rows[0].experiment
  return str((result.config.get("config") or {}).get("experiment", ""))
