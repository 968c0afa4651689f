"""Whether the arms of several finished sweeps may be compared seed by seed, and why not.

They may where one sweep of all arms would have given the same runs: with the same data and split,
the same settings but for those that the arms name, and versions that give the same numbers.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dcnn.base import objects
from dcnn.jobs import restoring
from dcnn.jobs.workdirs import SAFE_KEYS, SURROUNDINGS, VERSIONS, task_of
from dcnn.results.records import Result

# Settings that need not agree: what is told and how, and what is compared by itself.
_IGNORED = (*SAFE_KEYS, "experiment", "dataset", "test_dataset", "seeds", "arms", "task", "looks")
# What decides how numbers are rounded, and no more; it is told and not refused.
_ROUNDING = ("device", "devices", "loop_threads", "git")


class Source(NamedTuple):
  """A finished sweep that is to be joined with others.

  Attributes:
    name: Its directory, as the user gave it.
    result: Its result.
    arms: What each arm sets, by dotted key, by the name of the arm.
  """

  name: str
  result: Result
  arms: Mapping[str, Mapping[str, Any]]

  @property
  def record(self) -> Mapping[str, Any]:
    """The content of config.json."""
    return self.result.config

  @property
  def settings(self) -> dict[str, Any]:
    """The settings that all arms share unless they set them, by dotted key."""
    return dict(restoring.leaves(self.record["config"]))


def require_pairs(sources: Sequence[Source]) -> None:
  """Makes sure that the runs of sweeps may be paired by seed.

  Args:
    sources: Finished sweeps.

  Raises:
    ValueError: naming the first two that may not, in what they differ, and what to do.
  """
  for one, other in itertools.combinations(sources, 2):
    reason = next(filter(None, (difference(one, other) for difference in (
        task_difference, _data_difference, _version_difference, _setting_difference,
        _arm_difference, _looks_difference))), "")
    if reason:
      raise ValueError(f"{other.name} and {one.name} cannot be paired: {reason}")


def require_equal_arms(sources: Sequence[Source]) -> None:
  """Makes sure that arms of one name set the same in all sweeps.

  Args:
    sources: Finished sweeps.

  Raises:
    ValueError: naming the first two that differ, and the arm.
  """
  for one, other in itertools.combinations(sources, 2):
    reason = _arm_difference(one, other)
    if reason:
      raise ValueError(f"{other.name} and {one.name} cannot be compared: {reason}")


def machine_remarks(sources: Sequence[Source]) -> list[str]:
  """In what sweeps differ that decides how numbers are rounded, and no more.

  Args:
    sources: Finished sweeps.

  Returns:
    A sentence for each difference.
  """
  return _differences(sources, {
      name: [source.record["environment"].get(name) for source in sources] for name in _ROUNDING})


def setting_remarks(sources: Sequence[Source], but: str) -> list[str]:
  """In what sweeps differ that are compared within each value of a setting, beside that setting.

  Args:
    sources: Finished sweeps.
    but: The setting.

  Returns:
    A sentence for each difference.
  """
  settings = [source.settings for source in sources]
  keys = dict.fromkeys(key for each in settings for key in each)
  environments = [source.record["environment"] for source in sources]
  values = {f"config.{key}": [each.get(key) for each in settings] for key in keys
            if key != but and not _is_ignored(key)}
  values |= {name: [each.get("versions", {}).get(name) for each in environments]
             for name in VERSIONS}
  values |= {name: [each.get(name) for each in environments]
             for name in SURROUNDINGS if name not in _ROUNDING}
  return _differences(sources, values)


def _differences(sources: Sequence[Source], values: Mapping[str, Sequence[Any]]) -> list[str]:
  return [
      f"They differ in {name}: " + ", ".join(
          f"{_text(value)} ({source.name})" for value, source in zip(each, sources, strict=True))
      + "." for name, each in values.items() if any(value != each[0] for value in each)]


def task_difference(one: Source, other: Source) -> str:
  """That two sweeps have different tasks or metrics, so that nothing of them can be compared."""
  tasks = [task_of(source.record) for source in (one, other)]
  if tasks[0] != tasks[1]:
    return (f"the tasks are {tasks[1]} and {tasks[0]}, whose errors have nothing in common. Give "
            "directories of one task")
  metrics = [{(metric.name, metric.unit, metric.kind) for metric in source.result.measures.metrics}
             for source in (one, other)]
  for name, unit, _ in sorted(metrics[0] ^ metrics[1]):
    return (f"their metrics differ, in {name} with the unit {unit}. Give directories that were "
            "made with the same metrics")
  return ""


def _data_difference(one: Source, other: Source) -> str:
  before, now = (source.record["dataset"] for source in (one, other))
  if before["checksum"] == now["checksum"]:
    return ""
  named = [source.settings.get("dataset") for source in (one, other)]
  advice = ("Give --by=dataset to compare the arms on each and over all" if named[0] != named[1]
            else "Train one of them again on the data of the other")
  return (f"the data are {now['name']} (SHA-256 {now['checksum'][:12]}...) and {before['name']} "
          f"({before['checksum'][:12]}...). {advice}")


def _version_difference(one: Source, other: Source) -> str:
  before, now = (source.record["environment"] for source in (one, other))
  held = [({}, {}), (before.get("versions", {}), now.get("versions", {}))]
  values = {name: (held[1][0].get(name), held[1][1].get(name)) for name in VERSIONS}
  values |= {name: (before.get(name), now.get(name))
             for name in SURROUNDINGS if name not in _ROUNDING}
  for group in ("settings", "variables"):
    old, new = before.get(group) or {}, now.get(group) or {}
    values |= {name.upper(): (old.get(name), new.get(name)) for name in sorted({*old, *new})}
  for name, (old, new) in values.items():
    if old != new:
      return (f"{name} is {_text(new)} and {_text(old)}, which changes numbers. Train one of them "
              "again as the other was")
  return ""


def _setting_difference(one: Source, other: Source) -> str:
  """A setting in which two sweeps differ although not all of their arms set it themselves."""
  before, now = one.settings, other.settings
  for key in dict.fromkeys((*before, *now)):
    set_by_all = all(key in arm for source in (one, other) for arm in source.arms.values())
    if before.get(key) != now.get(key) and not _is_ignored(key) and not set_by_all:
      split = " (the split)" if key.startswith("split.") else ""
      return (f"config.{key}{split} is {_text(now.get(key))} and {_text(before.get(key))}, so that "
              f"arms would differ in more than their names say. Train one of them again with the "
              f"other's config.{key}, or give --by={key} to compare the arms within each")
  return ""


def _arm_difference(one: Source, other: Source) -> str:
  """An arm of the same name in two sweeps that is not the same."""
  for name in one.arms:
    before, now = one.arms[name], other.arms.get(name, one.arms[name])
    for key in dict.fromkeys((*before, *now)):
      old, new = before.get(key), now.get(key)
      if old != new:
        shown = f"{_text(new)} and {_text(old)}"
        if _text(new) == _text(old):  # functions of one name
          shown = f"{_text(new)} in both, but not the same function or class"
        return (f"the arm {name!r} is another: its {key} is {shown}. Train it again in one of "
                "them, or give the two different names")
  return ""


def _looks_difference(one: Source, other: Source) -> str:
  before, now = (source.result.looks[1] for source in (one, other))
  if before == now:
    return ""
  return (f"{now} and {before} looks were planned (config.looks), from which the level of verdicts "
          "follows. Train one of them again with the looks of the other")


def _is_ignored(key: str) -> bool:
  return key.partition(".")[0] in _IGNORED


def _text(value: Any) -> str:
  return "not set" if value is None else objects.name_of(value)
