"""`dcnn plan`: how many seeds a difference takes, by the spread of a sweep that has been run."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dcnn import stats
from dcnn.results import text
from dcnn.results.records import Result, Table, with_baseline


class Forecast(NamedTuple):
  """What seeds buy in a table of comparisons, by one error.

  Attributes:
    title: The title of the table.
    metric: The name of the error.
    arms: How many arms are compared with the baseline.
    spread: The standard deviation over the seeds of the log ratio of an arm to the baseline: the
      median of the arms; nan where no arm has two pairs of finished runs.
    finds: The ratio below 1 nearest to 1 that the seeds at hand find; 0 where they find none, nan
      without a spread.
    here: How many seeds in all the difference takes where more are added to this sweep and looked
      at again; None where it is more than can be planned, and without a spread.
    anew: How many it takes in a sweep of its own, with other seeds; None as for `here`.
    failed: How many pairs are left out because one of the two runs failed or is exact.
  """

  title: str
  metric: str
  arms: int
  spread: float
  finds: float
  here: int | None
  anew: int | None
  failed: int


def forecasts(result: Result, ratio: float, power: float) -> list[Forecast]:
  """What seeds buy in each table of a result, by each of its compared errors.

  Args:
    result: The result of a sweep, the pilot.
    ratio: The ratio of errors to be found, between 0 and 1.
    power: The probability with which it is to be found, between 0 and 1.

  Raises:
    ValueError: If there is nothing to compare.
  """
  tables = [table for table in result.comparisons if table.baseline in result.arms
            and set(table.arms) & set(result.arms) - {table.baseline}]
  if not tables:
    raise ValueError("there is nothing to plan with: a table needs its baseline and another arm, "
                     f"and there are results of {', '.join(result.arms) or 'no arm'}")
  return [_forecast(result, table, metric, ratio, power)
          for table in tables for metric in filter(result.has, result.compared)]


def _forecast(result: Result, table: Table, metric: str, ratio: float, power: float) -> Forecast:
  contrasts = _contrasts(result, table, metric)
  finite = [each[np.isfinite(each)] for each in contrasts]
  spreads = [float(np.std(each, ddof=1)) for each in finite if each.size > 1]
  common = table.title, metric, len(contrasts)
  failed = int((~np.isfinite(contrasts)).sum())
  if not spreads:
    return Forecast(*common, np.nan, np.nan, None, None, failed)
  finds = stats.detectable_ratio(contrasts, len(result.seeds), power, result.level)
  here, anew = (
      _number(lambda level=level: stats.seeds_needed(contrasts, ratio, power, level))
      for level in (next_level(result), fresh_level(result)))
  return Forecast(*common, float(np.median(spreads)), finds, here, anew, failed)


def _contrasts(
    result: Result, table: Table, metric: str
) -> Float[np.ndarray, "arms seeds"]:
  """Log ratios of the arms of a table to its baseline."""
  errors = result.errors(metric)
  return np.array([stats.log_ratios(errors[arm], errors[table.baseline])
                   for arm in with_baseline(table) if arm in errors and arm != table.baseline])


def _number(seeds: Callable[[], int]) -> int | None:
  try:
    return seeds()
  except ValueError:  # more than can be planned
    return None


def next_level(result: Result) -> float:
  """The level of the verdicts once seeds have been added to a sweep, at its next look."""
  _, planned = result.looks
  more = (*result.seeds_of_looks, result.seeds_of_looks[-1] + 1)
  return stats.look_level(stats.look_number(more, planned), planned)


def fresh_level(result: Result) -> float:
  """The level of the verdicts at the first look of a sweep with as many planned looks."""
  return stats.look_level(1, result.looks[1])


def plan_text(result: Result, name: str, ratio: float, power: float) -> str:
  """What a researcher needs to know before more seeds are run.

  Args:
    result: The result of a sweep, the pilot.
    name: What to call it: its directory.
    ratio: The ratio of errors to be found, between 0 and 1.
    power: The probability with which it is to be found, between 0 and 1.

  Returns:
    A sentence, a table and the meaning of its columns.

  Raises:
    ValueError: As `forecasts`.
  """
  lines, seeds = forecasts(result, ratio, power), len(result.seeds)
  at_hand = f"{text.count_text(seeds, 'seed')} find{'s' if seeds == 1 else ''}"
  rows = [("table", "error", "arms", "spread", at_hand, "seeds here", "seeds anew"),
          *(_cells(each, ratio, seeds) for each in lines)]
  meanings = {
      "arms": "how many are compared with the baseline; verdicts are corrected for all of them.",
      "spread": "how much the ratio to the baseline varies between seeds, one standard deviation.",
      at_hand: f"the effect nearest to 1 that is found at this look ({result.looks[0]} of "
               f"{result.looks[1]} planned, level {100 * result.level:.2g} %).",
      "seeds here": "how many in all, if they are added to this sweep and looked at again (level "
                    f"{100 * next_level(result):.2g} %).",
      "seeds anew": "how many in a sweep of its own, with other seeds (first look, level "
                    f"{100 * fresh_level(result):.2g} %)."}
  failed = sum(each.failed for each in lines)
  notes = ["Looks that are planned before the first one, as in config.looks=2, take fewer seeds "
           "than those that are not."]
  notes += [f"{text.count_text(failed, 'pair')} of runs, of which one failed or is exact, left "
            "out: their spread is not known."] if failed else []
  return "\n".join([
      f"{name}: {text.count_text(len(result.arms), 'arm')}, {text.count_text(seeds, 'seed')}. "
      f"How many seeds find an arm with {ratio:g} times the error of its baseline, with a "
      f"probability of {100 * power:g} %, if the other arms do not differ from it?",
      "", text.markdown_table(rows), "",
      *(f"{head}: {meaning}" for head, meaning in meanings.items()), *notes])


def _cells(each: Forecast, ratio: float, seeds: int) -> tuple[str, ...]:
  """A line of the table."""
  start = each.title, each.metric, str(each.arms)
  if np.isnan(each.spread):
    return (*start, "unknown", "unknown", "unknown", "unknown")
  numbers = ["> 1,000" if number is None else f"{number:,}" for number in (each.here, each.anew)]
  if each.finds >= ratio:
    numbers[0] = f"{seeds:,}, at hand"
  return (*start, f"{100 * np.expm1(each.spread):.2g} %",
          f"{each.finds:.2f} times" if each.finds else "nothing", *numbers)
