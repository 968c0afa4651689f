"""Finished sweeps as one: the runs, tables and records of several results joined by arm and seed.

Whether runs of different sweeps may be paired is not decided here but in `jobs.pairing`.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dcnn.results.records import ALL_ARMS, Point, Result, Row, Table
from dcnn.results.schemas import is_crossed


def join(results: Mapping[str, Result]) -> Result:
  """Joins results whose runs may be paired by seed.

  Arms and seeds stand in the order in which they first appear. Tables of one title and baseline
  become one; where no result has tables of its own, all arms are compared with the first. So two
  halves of an experiment, run apart, give the rows and tables of the whole.

  Args:
    results: Results of finished sweeps, by what messages call them, such as their directories.

  Returns:
    The joined result, without predictions. Its `joined` in config.json lists what it is made of.

  Raises:
    ValueError: If a run that several results hold is not the same in all, or if an arm lacks a seed
      that another has.
  """
  runs = _runs(results)
  arms = tuple(dict.fromkeys(arm for arm, _ in runs))
  seeds = tuple(dict.fromkeys(seed for result in results.values() for seed in result.seeds))
  _require_all(runs, arms, seeds, results)
  name = _experiment([result.rows[0].experiment for result in results.values()])
  points: dict[tuple[str, int], tuple[Point, ...]] = {}
  for result in results.values():
    points = {**_by_run(result.history), **points}
  keys = [(arm, seed) for arm in arms for seed in seeds]
  return Result(
      {**_record(list(results.values()), name, seeds), "timing": _timing(results, len(keys))},
      tuple(row._replace(experiment=name) for key in keys for row in runs[key][1]),
      tuple(point for key in keys for point in points.get(key, ())),
      _tables(list(results.values()), arms), {})


def _runs(
    results: Mapping[str, Result]
) -> dict[tuple[str, int], tuple[str, tuple[Row, ...]]]:
  """The rows of each run, and the first result that holds it; runs held twice must be the same."""
  found: dict[tuple[str, int], tuple[str, tuple[Row, ...]]] = {}
  for name, result in results.items():
    for key, rows in _by_run(result.rows).items():
      first, known = found.setdefault(key, (name, rows))
      pairs = zip(map(_shown, known), map(_shown, rows), strict=False)
      other = next((pair for pair in pairs if pair[0] != pair[1]), None)
      if other or len(known) != len(rows):
        arm, seed = key
        before, now = other or (f"{len(known)} rows", f"{len(rows)} rows")
        raise ValueError(
            f"{name} and {first} both hold the run of {arm!r} with seed {seed}, and it is not the "
            f"same: {now} in the former, {before} in the latter. Train it on the same kind of "
            f"machine in both, or leave the arm out of one")
  return found


def _shown(row: Row) -> str:
  """All that decides whether two rows say the same of a run; nan is equal to nan."""
  cause = f" ({row.cause})" if row.cause else ""
  return f"{row.metric} on {row.split} = {row.value!r} {row.unit}, {row.status}{cause}, " \
         f"step {row.step}"


def _by_run(lines: Iterable[Any]) -> dict[tuple[str, int], tuple[Any, ...]]:
  found = collections.defaultdict(list)
  for line in lines:
    found[line.arm, line.seed].append(line)
  return {key: tuple(mine) for key, mine in found.items()}


def _require_all(
    runs: Mapping[tuple[str, int], tuple[str, Any]], arms: Sequence[str], seeds: Sequence[int],
    results: Mapping[str, Result],
) -> None:
  """Makes sure that every arm has every seed: arms are compared seed by seed."""
  for arm in arms:
    lacking = [seed for seed in seeds if (arm, seed) not in runs]
    if lacking:
      mine = next(name for (other, _), (name, _) in runs.items() if other == arm)
      theirs = next(name for name, result in results.items() if lacking[0] in result.seeds)
      raise ValueError(
          f"the seeds differ: arm {arm!r} of {mine} has no seed {lacking[0]}, which {theirs} has, "
          "and arms are compared seed by seed. Add seeds where they are missing (the same command "
          "with more seeds keeps the runs that there are)")


def _experiment(names: Sequence[str]) -> str:
  """One name for several experiments: what variants of one have in common, or all of them."""
  distinct = list(dict.fromkeys(names))
  stems = {name.partition(":")[0] for name in distinct}
  if len(distinct) == 1:
    return distinct[0]
  return stems.pop() if len(stems) == 1 else " + ".join(distinct)


def _tables(results: Sequence[Result], arms: tuple[str, ...]) -> tuple[Table, ...]:
  """The comparisons of all results; those of one title and baseline as one."""
  if all(result.tables in ((), (Table(ALL_ARMS, result.arms[0], result.arms),))
         for result in results):
    return (Table(ALL_ARMS, arms[0], arms),) if len(arms) > 1 else ()
  found: dict[tuple[str, str], Table] = {}
  for table in (table for result in results for table in result.tables):
    known = found.get((table.title, table.baseline))
    found[table.title, table.baseline] = _merged_table(known, table) if known else table
  return tuple(found.values())


def _merged_table(one: Table, other: Table) -> Table:
  """A table with the arms of both; it is a factorial where they cross the factors of both."""
  new = [i for i, arm in enumerate(other.arms) if arm not in one.arms]
  arms = (*one.arms, *(other.arms[i] for i in new))
  factors = {
      key: (*levels, *(other.factors[key][i] for i in new))
      for key, levels in one.factors.items() if key in other.factors}
  crossed = set(one.factors) == set(other.factors) and is_crossed(factors.values(), len(arms))
  return Table(one.title, one.baseline, arms, factors if crossed else {})


def _record(results: Sequence[Result], name: str, seeds: Sequence[int]) -> dict[str, Any]:
  """The content of config.json: where the results differ, what each says."""
  records = [result.config for result in results]
  first, settings = records[0], [record.get("config", {}) for record in records]
  questions = dict.fromkeys(filter(None, (each.get("question", "") for each in settings)))
  same_seeds = all(set(result.seeds) == set(seeds) for result in results)
  config = {
      **settings[0], "experiment": name, "question": " ".join(questions),
      "arms": _distinct(arm for each in settings for arm in each.get("arms", ())),
      **({} if same_seeds else {"seeds": list(seeds)})}
  tuned = [record["tuning"] for record in records if record.get("tuning")]
  calibrated = _calibrations(results, seeds)
  first = {key: value for key, value in first.items() if key != "calibration"}
  return {
      **first, "config": config, "seeds": list(seeds),
      "environment": _merged([record.get("environment", {}) for record in records]),
      "looks": _looks(results, len(seeds)),
      **({"tuning": _merged_tuning(tuned)} if tuned else {}),
      **({"calibration": calibrated} if calibrated else {}),
      "joined": [
          {"experiment": result.rows[0].experiment, "command": str(record.get("command", "")),
           "arms": len(result.arms), "seeds": len(result.seeds)}
          for result, record in zip(results, records, strict=True)]}


def _looks(results: Sequence[Result], seeds: int) -> list[dict[str, int]]:
  """The looks that the joined seeds have had.

  Arms that were trained apart with the same seeds were looked at together: their longest list
  counts. Seeds that were trained apart have been looked at one after the other, so that joining
  them is one more look, as adding them in one directory would have been.
  """
  by_seeds: dict[frozenset[int], list[dict[str, int]]] = {}
  for result in results:
    had = list(result.config.get("looks", ())) or [{"seeds": len(result.seeds)}]
    mine = frozenset(result.seeds)
    by_seeds[mine] = max(by_seeds.get(mine, []), had, key=len)
  looks = [look for had in by_seeds.values() for look in had]
  return looks if len(by_seeds) == 1 else [*looks, {"seeds": seeds}]


def _calibrations(results: Sequence[Result], seeds: Sequence[int]) -> dict[str, Any]:
  """What is known of the spread over all seeds: of arms that one result has with all of them."""
  found: dict[str, Any] = {}
  for result in results:
    if set(result.seeds) == set(seeds):
      found = {**(result.config.get("calibration") or {}), **found}
  order = dict.fromkeys(row.arm for result in results for row in result.rows)
  return {arm: found[arm] for arm in order if arm in found}


def _merged(values: Sequence[Any]) -> Any:
  """What records have in common; where they differ, the values of all."""
  if all(value == values[0] for value in values):
    return values[0]
  if all(isinstance(value, Mapping) for value in values):
    keys = dict.fromkeys(key for value in values for key in value)
    return {key: _merged([value[key] for value in values if key in value]) for key in keys}
  distinct = _distinct(values)
  return ", ".join(distinct) if all(isinstance(value, str) for value in distinct) else distinct


def _merged_tuning(tuned: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """What was tuned of the arms of all results."""
  return {key: {name: each for tuning in reversed(tuned) for name, each in tuning[key].items()}
          if isinstance(value, Mapping) else value for key, value in tuned[0].items()}


def _timing(results: Mapping[str, Result], runs: int) -> dict[str, float]:
  """The times of all results together, and the number of runs."""
  times: collections.Counter[str] = collections.Counter()
  for result in results.values():
    times.update(result.config.get("timing", {}))
  return {**times, "runs": runs}


def _distinct(values: Iterable[Any]) -> list[Any]:
  """The values, each once, in order; they need not be hashable."""
  found: list[Any] = []
  for value in values:
    if value not in found:
      found.append(value)
  return found
