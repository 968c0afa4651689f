"""`dcnn compare`: finished sweeps joined, or compared within each value of a setting."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from dcnn import configs
from dcnn.base import objects, wording
from dcnn.base.text import suggestion
from dcnn.jobs import pairing, restoring, workdirs
from dcnn.jobs.experiment import describe_settings
from dcnn.jobs.pairing import Source
from dcnn.results import storage, strata, strata_page
from dcnn.results.joining import join
from dcnn.results.records import ALL_ARMS, Result, Table
from dcnn.sweeps import outcomes


def finished(directory: pathlib.Path, name: str) -> Source:
  """Reads a finished sweep.

  Args:
    directory: Its work directory.
    name: What messages call it.

  Raises:
    ValueError: If there is none, or it has not ended; the message says what to do.
  """
  if not directory.is_dir():
    raise ValueError(f"{name}: no such directory; give the {wording.workdir()} of a sweep that has "
                     "ended")
  if not (directory / storage.CONFIG_FILE).is_file():
    raise ValueError(f"{name} holds no results (no {storage.CONFIG_FILE}): give the "
                     f"{wording.workdir()} of a sweep that has ended")
  record = storage.read_config(directory / storage.CONFIG_FILE, required=workdirs.REQUIRED)
  if "timing" not in record or not (directory / storage.ROWS_FILE).is_file():
    raise ValueError(f"{name} holds a sweep that has not ended: give the command that began it "
                     "again, which continues it")
  result = storage.load(directory)
  arms = {configs.arm_name(arm): arm for arm in record["config"]["arms"]}
  held = dict.fromkeys(row.arm for row in result.rows)
  for arm in (*arms, *held):
    if arm not in arms or arm not in held:
      where, other = (storage.ROWS_FILE, storage.CONFIG_FILE)[::1 if arm in arms else -1]
      raise ValueError(f"{name}: {other} has the arm {arm!r} and {where} does not, so that one of "
                       "them has been changed: give the command that trained it again")
  if result.unfinished:
    raise ValueError(f"{name} has unfinished runs: give the command that began it again, which "
                     "continues it")
  if not any(map(result.has, result.compared)):
    raise ValueError(f"{name}: {storage.ROWS_FILE} has no test errors by which arms are compared; "
                     f"give the {wording.workdir()} of a sweep that has ended")
  return Source(name, result, arms)


def read(names: Sequence[str]) -> list[Source]:
  """Reads several finished sweeps, none of them twice.

  Raises:
    ValueError: If one is not finished, or is given twice.
  """
  places: dict[pathlib.Path, str] = {}
  sources = []
  for name in names:
    directory = pathlib.Path(name).expanduser()
    place = directory.resolve()
    if place in places:
      raise ValueError(f"{places[place]} and {name} are the same directory: give it once")
    places[place] = name
    sources.append(finished(directory, name))
  return sources


def joined(sources: Sequence[Source], baseline: str | None = None, command: str = "") -> Result:
  """Finished sweeps as one result.

  Args:
    sources: The sweeps.
    baseline: The arm that all are compared with, in place of the tables of the sweeps.
    command: The command line, for the report.

  Raises:
    ValueError: If their runs may not be paired, or there is no such arm or nothing to compare.
  """
  pairing.require_pairs(sources)
  result = join({source.name: source.result for source in sources})
  record = {**result.config, **_described(result.config["config"], sources), "command": command}
  result = dataclasses.replace(result, config=record, predictions=_predictions(result, sources))
  return with_baseline(result, baseline)


def with_baseline(result: Result, baseline: str | None) -> Result:
  """The result with one table of all arms against this one, if it is given.

  Raises:
    ValueError: If there is no such arm, or nothing to compare.
  """
  first, *others = result.arms
  if not others:
    raise ValueError(f"there is one arm, {first!r}, and nothing to compare it with: give another "
                     "directory, with other arms")
  if baseline is None:
    if not result.tables:
      raise ValueError("no table is asked for by these sweeps: name the arm to compare with, as in "
                       f"--baseline={first}")
    return result
  if baseline not in result.arms:
    raise ValueError(f"--baseline={baseline}: no such arm; {suggestion(baseline, result.arms)}the "
                     f"arms are {', '.join(result.arms)}")
  return dataclasses.replace(result, tables=(Table(ALL_ARMS, baseline, result.arms),))


def groups(sources: Sequence[Source], key: str) -> dict[str, list[Source]]:
  """The sweeps by their value of a setting, as text.

  Args:
    sources: Finished sweeps of one task.
    key: The dotted key of a setting that all arms of a sweep share.

  Raises:
    ValueError: If there is no such setting, or fewer than two values.
  """
  for one, other in itertools.pairwise(sources):
    reason = pairing.task_difference(one, other)
    if reason:
      raise ValueError(f"{other.name} and {one.name} cannot be compared: {reason}")
  found: dict[str, list[Source]] = {}
  for source in sources:
    known = source.settings
    if key not in known:
      raise ValueError(f"--by={key}: no such setting in {source.name}; {suggestion(key, known)}"
                       "give the key of a setting as in config.json, such as --by=dataset")
    setting = [name for name, arm in source.arms.items() if key in arm]
    if setting:
      raise ValueError(f"--by={key}: {source.name} has arms that set it, such as {setting[0]!r}; "
                       "give a setting in which directories differ and not arms")
    found.setdefault(objects.name_of(known[key]), []).append(source)
  if len(found) < 2:
    raise ValueError(f"--by={key}: all directories have {key}={next(iter(found))}, so there is "
                     f"nothing to compare over; without --by they are joined")
  return found


def by_groups(
    sources: Sequence[Source], key: str, baseline: str | None = None, command: str = ""
) -> dict[str, Result]:
  """The results of the sweeps of each value of a setting, by the value.

  Args:
    sources: Finished sweeps.
    key: The dotted key of the setting.
    baseline: The arm that all are compared with, in place of the tables of the sweeps.
    command: The command line, for the reports.

  Raises:
    ValueError: As `groups` and `joined`, if an arm is not the same in all, or if no table and two
      arms are common to all.
  """
  parts = groups(sources, key)
  pairing.require_equal_arms(sources)
  results = {value: joined(mine, baseline, command) for value, mine in parts.items()}
  if not strata.common_tables(results):
    raise ValueError(
        f"no table with two arms is common to all values of {key}: name an arm that all have, as "
        f"in --baseline={next(iter(results.values())).arms[0]}, or give sweeps of the same arms")
  return results


def notes_by(
    results: Mapping[str, Result], sources: Sequence[Source], key: str
) -> list[str]:
  """What a reader of a comparison over the values of a setting must know, in sentences."""
  return [
      f"The geometric mean over {len(results)} values of {key}, each with the same weight; seeds "
      "are paired within each. Intervals are pointwise, and say nothing of other values of "
      f"{key}.",
      *pairing.setting_remarks(sources, key), *pairing.machine_remarks(sources)]


def write_by(
    results: Mapping[str, Result], key: str, notes: Sequence[str], command: str, out: pathlib.Path
) -> None:
  """Writes a comparison over the values of a setting, and the result of each in a folder of it.

  Args:
    results: The results by value, as `by_groups` returned them.
    key: The dotted key of the setting.
    notes: What a reader must know, from `notes_by`.
    command: The command line.
    out: The folder to write into.
  """
  for value, place in strata_page.places(results, out).items():
    workdirs.write(results[value], place)
  strata_page.write(results, key, notes, command, out)


def _predictions(result: Result, sources: Sequence[Source]) -> dict[str, Any]:
  """The predictions of the run that a sweep of all arms would show, where a source has them."""
  runs: dict[tuple[str, int], list] = {}
  for row in result.rows:
    runs.setdefault((row.arm, row.seed), []).append(row)
  shown = outcomes.median_run(list(runs.values()), result.measures)
  key = None if shown is None else list(runs)[shown]
  for source in sources:
    held = source.result.predictions
    if {"arm", "seed"} <= set(held) and (str(held["arm"]), int(held["seed"])) == key:
      return held
  return {}


def _described(config: Mapping[str, Any], sources: Sequence[Source]) -> dict[str, Any]:
  """What config.json says of all arms together beside their settings, such as its glossary.

  Args:
    config: The settings of the joined result, as config.json holds them.
    sources: What it is joined of.
  """
  if any(restoring.objects_in((source.settings, source.arms)) for source in sources):
    # Functions and classes are not there any more; each sweep has described its own arms.
    terms = {term: meaning for source in reversed(sources)
             for term, meaning in source.record.get("glossary", ())}
    arms = {arm: each for source in reversed(sources)
            for arm, each in source.record.get("arm_settings", {}).items()}
    return {"arm_settings": arms, "glossary": [list(pair) for pair in terms.items()]}
  described = describe_settings(restoring.restored(config))
  return {key: value for key, value in described.items()
          if key not in ("config", "seeds", "measures")}
