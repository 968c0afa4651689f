"""`dcnn plan`: how many seeds a difference takes, by the spread of a sweep that has been run."""

from typing import NamedTuple

import numpy as np

from dcnn import stats
from dcnn.results import text
from dcnn.results.records import Result, Table, with_baseline

_TOO_MANY = "> 1,000"


class Forecast(NamedTuple):
  """What seeds buy in a table of comparisons, by one error.

  Attributes:
    title: The title of the table.
    metric: The name of the error.
    arms: How many arms are compared with the baseline.
    spread: The standard deviation over the seeds of the log ratio of an arm to the baseline, in the
      middle of the arms; nan where there is none.
    finds: The ratio below 1 nearest to 1 that the seeds at hand find; nan where there is none.
    here: How many seeds the difference takes where they are added to this sweep, as its next look;
      None where more than can be planned.
    anew: The same for a sweep of its own, with other seeds.
    remark: What has been left out, and why; empty where nothing has.
  """

  title: str
  metric: str
  arms: int
  spread: float
  finds: float
  here: int | None
  anew: int | None
  remark: str = ""


def forecasts(result: Result, ratio: float, power: float) -> list[Forecast]:
  """What seeds buy in each table of a result, by each of its compared errors.

  Args:
    result: The result of a sweep, the pilot.
    ratio: The ratio of errors to be found, other than 1.
    power: With which probability it is to be found.

  Raises:
    ValueError: If there is nothing to compare.
  """
  tables = [table for table in result.comparisons
            if table.baseline in result.arms
            and set(with_baseline(table)) & set(result.arms) - {table.baseline}]
  if not tables:
    raise ValueError("there is nothing to plan: a table needs its baseline and another arm, and "
                     f"the arms that have ended are {', '.join(result.arms) or 'none'}")
  return [_forecast(result, table, metric, ratio, power)
          for table in tables for metric in filter(result.has, result.compared)]


def _forecast(result: Result, table: Table, metric: str, ratio: float, power: float) -> Forecast:
  contrasts, remark = _contrasts(result, table, metric)
  name = table.title, metric
  if contrasts.shape[1] < 3 or not len(contrasts):
    return Forecast(*name, len(contrasts), np.nan, np.nan, None, None,
                    remark or "a spread needs at least 3 seeds: run a pilot with more")
  spread = float(np.median(np.std(contrasts, axis=1, ddof=1)))
  if spread == 0:
    return Forecast(*name, len(contrasts), 0.0, np.nan, None, None,
                    "all seeds give the same ratios, so there is no spread to plan with")
  levels = next_level(result), stats.look_level(1, result.planned_looks)
  here, anew = (_seeds(contrasts, ratio, power, level) for level in levels)
  try:
    finds = stats.detectable_ratio(contrasts, len(result.seeds), power, result.level)
  except ValueError:  # too few seeds for any difference
    finds = np.nan
  return Forecast(*name, len(contrasts), spread, finds, here, anew, remark)


def next_level(result: Result) -> float:
  """The level of the verdicts once more seeds have been added to a sweep."""
  return stats.look_level(len(result.config.get("looks") or [0]) + 1, result.planned_looks)


def _contrasts(result: Result, table: Table, metric: str) -> tuple[np.ndarray, str]:
  """Log ratios of the arms of a table to its baseline (arms seeds), and what has been left out.

  Arms of which most runs failed or are exact are left out, and then seeds at which any of the
  others did.
  """
  errors = result.errors(metric)
  rows = {arm: stats.log_ratios(errors[arm], errors[table.baseline])
          for arm in with_baseline(table) if arm in errors and arm != table.baseline}
  kept = {arm: row for arm, row in rows.items() if np.isfinite(row).mean() > 0.5}
  dropped = [arm for arm in rows if arm not in kept]
  contrasts = np.array(list(kept.values())).reshape(-1, len(result.seeds))
  good = np.isfinite(contrasts).all(axis=0)
  remarks = [f"without {', '.join(dropped)}: most runs failed or are exact"] if dropped else []
  if not good.all():
    lost = text.count_text(int((~good).sum()), "seed")
    remarks.append(f"without {lost} at which a run failed or is exact")
  return contrasts[:, good], "; ".join(remarks)


def _seeds(contrasts: np.ndarray, ratio: float, power: float, level: float) -> int | None:
  try:
    return stats.seeds_needed(contrasts, ratio, power, level)
  except ValueError:  # more than can be planned
    return None


def plan_text(result: Result, name: str, ratio: float, power: float) -> str:
  """What a researcher needs to know before more seeds are run.

  Args:
    result: The result of a sweep, the pilot.
    name: What to call it: its directory.
    ratio: The ratio of errors to be found.
    power: With which probability it is to be found.

  Returns:
    A paragraph, a table and its explanation.

  Raises:
    ValueError: As `forecasts`.
  """
  lines = forecasts(result, ratio, power)
  seeds = len(result.seeds)
  percent = f"{100 * power:g} %"
  effect = f"{ratio:g} times the error of the baseline"
  rows = [("table", "error", "arms", "spread", f"what {seeds} seeds find", "seeds, added here",
           "seeds, anew")]
  rows += [(each.title, each.metric, str(each.arms),
            "–" if np.isnan(each.spread) else f"{100 * np.expm1(each.spread):.0f} %",
            "nothing" if np.isnan(each.finds) else f"{each.finds:.2f} times or less",
            *map(_count, (each.here, each.anew), (each.spread,) * 2)) for each in lines]
  remarks = [f"{each.title}, {each.metric}: {each.remark}." for each in lines if each.remark]
  return "\n".join([
      f"Pilot: {name}, {text.count_text(len(result.arms), 'arm')}, "
      f"{text.count_text(seeds, 'seed')}.",
      f"To be found: {effect}, with a probability of {percent}, in one arm of a table of which the "
      "others do not differ from the baseline, after correction for all arms of the table.", "",
      text.markdown_table(rows), "",
      "spread: the standard deviation over the seeds of the ratio of an arm to the baseline, in "
      "the middle of the arms.",
      f"what {seeds} seeds find: the effect nearest to 1 that look {result.look} of "
      f"{result.planned_looks} planned, at the level {100 * result.level:.2g} %, finds with that "
      "probability.",
      f"seeds, added here: how many in all, if they are added to this sweep and looked at again, "
      f"at the level {100 * next_level(result):.2g} %.",
      f"seeds, anew: how many in a directory of its own, with seeds that this one has not, at the "
      f"level {100 * stats.look_level(1, result.planned_looks):.2g} %. Looks that are planned "
      "before the first (--config.looks=2) cost less than those that are not.",
      *remarks])


def _count(seeds: int | None, spread: float) -> str:
  if seeds is not None:
    return str(seeds)
  return _TOO_MANY if spread > 0 else "–"
