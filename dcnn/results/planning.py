"""What the seeds of a sweep can find, and how many more would find, in words."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dcnn import stats
from dcnn.results import text
from dcnn.results.records import Result, Table, with_baseline

_PERCENT = 10  # the difference that is asked for
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
  if not np.any(np.isfinite(logs).sum(axis=1) > 1):  # nothing tells how much seeds vary
    return ""
  found = 100 * (1 - stats.detectable_ratio(logs, seeds, level=result.level))
  words = f"{text.count_text(seeds, 'seed')} find differences of {max(found, 1):.0f} %"
  return words if found <= _PERCENT else f"{words}, {_needed(logs, result.level)}"


def _needed(logs: Float[np.ndarray, "contrasts seeds"], level: float) -> str:
  """How many seeds would find the effect that is asked for."""
  try:
    number = f"{stats.seeds_needed(logs, 1 - _PERCENT / 100, level=level):,}"
  except ValueError:  # more than are ever planned for
    number = "more than 1,000"
  return f"{number} would find {_PERCENT} %"
