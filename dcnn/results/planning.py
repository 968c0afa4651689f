"""What the seeds of a sweep can find, and how many more would find, in words."""

from collections.abc import Sequence

import numpy as np

from dcnn import stats
from dcnn.results.records import Result, Table, with_baseline

_RATIO, _PERCENT = 0.9, "10 %"  # the effect that is asked for
TOO_FEW = "too few seeds"


def reach(
    result: Result, table: Table, metric: str, summaries: Sequence[stats.ArmSummary]
) -> str:
  """What stands beside a verdict that could not be given.

  Args:
    result: The result of a sweep.
    table: One of its tables.
    metric: The name of an error.
    summaries: The statistics of its arms.

  Returns:
    How many seeds are needed for any verdict, where there are too few; where an arm is undecided,
    the smallest effect that as many seeds find in eight of ten cases, and how many would find
    10 %; else nothing.
  """
  verdicts = {summary.contrast.verdict for summary in summaries if summary.contrast}
  seeds = len(result.seeds)
  if TOO_FEW in verdicts:
    return f"{seeds}; {stats.fewest_seeds(result.level)} are needed"
  if "undecided" not in verdicts:
    return ""
  errors = result.errors(metric)
  arms = [arm for arm in with_baseline(table) if arm in errors and arm != table.baseline]
  with np.errstate(divide="ignore", invalid="ignore"):
    logs = np.array([np.log(errors[arm]) - np.log(errors[table.baseline]) for arm in arms])
  logs = logs[np.all(np.isfinite(logs), axis=1)]
  if not len(logs) or not np.all(np.std(logs, axis=1) > 0):
    return ""
  return "; ".join(filter(None, [_found(logs, seeds, result.level), _needed(logs, result.level)]))


def _found(logs: np.ndarray, seeds: int, level: float) -> str:
  """The effect nearest to none that the seeds at hand find."""
  try:
    percent = 100 * (1 - stats.detectable_ratio(logs, seeds, level=level))
  except ValueError:
    return f"{seeds} seeds find no effect of any size"
  return f"{seeds} seeds find {percent:.0f} %" if percent >= 1 else f"{seeds} seeds find 1 %"


def _needed(logs: np.ndarray, level: float) -> str:
  """How many seeds would find the effect that is asked for."""
  try:
    return f"{_PERCENT} would take {stats.seeds_needed(logs, _RATIO, level=level):,}"
  except ValueError:
    return f"{_PERCENT} would take more than 1,000"
