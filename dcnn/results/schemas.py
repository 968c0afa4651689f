"""What the files of a work directory hold, checked as a whole when they are read.

People edit these files, copy parts of them and merge them. Whoever reads them afterwards, the
reports and a sweep that goes on, relies on what is checked here and looks at no type again.
"""

import json
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

SPLITS = ("train", "valid", "test")
LARGEST_SEED, MOST = 2**32 - 1, 2**63 - 1
_DEEPEST = 32  # of records and lists inside one another; the writer makes six
_STATUS = re.compile(r"finished|(patience|diverged|interrupted)@\d{1,18}")

Check = Callable[[Any], bool]


def _whole(most: int) -> Check:
  return lambda value: type(value) is int and 0 <= value <= most


def _is_number(value: Any) -> bool:
  return type(value) in (int, float) and 0 <= value < math.inf


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _is_record(value: Any) -> bool:
  return isinstance(value, dict)


def _list_of(check: Check, fewest: int = 0) -> Check:
  return lambda value: (
      isinstance(value, list) and len(value) >= fewest and all(map(check, value)))


def _record_of(check: Check) -> Check:
  return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _or_null(check: Check) -> Check:
  return lambda value: value is None or check(value)


def _is_table(value: Any) -> bool:
  return (_is_record(value) and _is_text(value.get("title")) and _is_text(value.get("baseline"))
          and _list_of(_is_text)(value.get("arms")))


def _is_tuned(value: Any) -> bool:
  """Whether every arm has a rate that was chosen and a score at each rate."""
  scores, chosen, rates = (value.get(key) for key in ("scores", "chosen", "learning_rates"))
  if scores is None or chosen is None or rates is None:
    return True
  return set(scores) <= set(chosen) and all(len(each) == len(rates) for each in scores.values())


# Parts of config.json, an example of each, and what holds for it: a part comes before its own.
# A part that is missing is nobody's fault unless a reader asks for it.
_CONFIG: tuple[tuple[str, str, Check], ...] = (
    ("config", "{}", _is_record),
    ("config.experiment", '"ablations"', _is_text),
    ("config.question", '"What?"', _is_text),
    ("config.dataset", '"ethanol"', _is_text),
    ("config.steps", "1", _whole(MOST)),
    ("config.batch_size", "1", _whole(MOST)),
    ("config.split", "{}", _is_record),
    ("config.split.train", "1", _or_null(_whole(MOST))),
    ("config.split.valid", "1", _or_null(_whole(MOST))),
    ("config.split.test", "1", _or_null(_whole(MOST))),
    ("config.arms", "[{}]", _list_of(_is_record, fewest=1)),
    ("config.tables", "[{}]", _list_of(_is_record)),
    ("config.tables", "tables of title, baseline and arms", _list_of(_is_table)),
    ("seeds", "[0]", _list_of(_whole(LARGEST_SEED), fewest=1)),
    ("command", '"dcnn --config=..."', _is_text),
    ("dataset", "{}", _is_record),
    ("dataset.name", '"ethanol"', _is_text),
    ("dataset.checksum", '"0123abcd"', _is_text),
    ("environment", "{}", _is_record),
    ("environment.versions", '{"jax": "1.0"}', _record_of(_is_text)),
    ("timing", "{}", _is_record),
    ("timing", '{"train_seconds": 1.0}', _record_of(_is_number)),
    ("tuning", "{}", _is_record),
    ("tuning.learning_rates", "[0.001]", _list_of(_is_number)),
    ("tuning.seeds", "[0]", _list_of(_whole(LARGEST_SEED))),
    ("tuning.scores", '{"arm": [0.1]}', _record_of(_list_of(_or_null(_is_number)))),
    ("tuning.chosen", '{"arm": 0.001}', _record_of(_is_number)),
    ("tuning", "a score for each arm and learning rate, and a choice for each arm", _is_tuned),
)


def config_problem(content: Any, required: Sequence[str] = ()) -> str:
  """What is wrong with the content of a config.json; nothing if it can be relied on.

  Args:
    content: that JSON read.
    required: dotted names of the parts that the reader needs.

  Returns:
    Words that name the part, what was expected and what is there.
  """
  if not _is_record(content):
    return f"expected a JSON object, got {type(content).__name__}"
  for problem in _odd_leaves(content):
    return problem
  for part, example, holds in _CONFIG:
    found = list(_parts(content, part))
    if found and not holds(found[0]):
      return f"expected {part} like {example}, got {_shown(found[0])}"
  missing = [part for part in required if not list(_parts(content, part))]
  return f"no {missing[0]!r} in it" if missing else ""


def row_problem(row: Any, earlier: Mapping[tuple, Any]) -> str:
  """What is wrong with a line of results.csv; nothing if it can be relied on.

  Args:
    row: with the fields of `results.Row`.
    earlier: rows before it, by arm, seed, split and metric; by arm and seed; and by metric.
  """
  run, unit = earlier.get((row.arm, row.seed), row), earlier.get((row.metric,), row)
  return (
      _record_problem(row, "arm, seed, split and metric", row_keys(row)[0] in earlier)
      or _unless(bool(row.unit), "unit", "a unit, 1 where there is none", row.unit)
      or _unless(_STATUS.fullmatch(row.status) is not None, "status",
                 "finished, patience@STEP, diverged@STEP or interrupted@STEP", row.status)
      or _unless((row.status, row.cause) == (run.status, run.cause), "status",
                 f"{run.status} as in the other lines of this run", row.status)
      or _unless(row.unit == unit.unit, "unit", f"{unit.unit} as in the lines above", row.unit))


def point_problem(point: Any, earlier: Mapping[tuple, Any]) -> str:
  """The same of a line of history.csv, with the fields of `results.Point`."""
  again = point_keys(point)[0] in earlier
  return _record_problem(point, "arm, seed, split, metric and step", again)


def row_keys(row: Any) -> tuple[tuple, ...]:
  """What lines after this one are compared with it by."""
  return (row.arm, row.seed, row.split, row.metric), (row.arm, row.seed), (row.metric,)


def point_keys(point: Any) -> tuple[tuple, ...]:
  """The same for a line of history.csv."""
  return ((point.arm, point.seed, point.split, point.metric, point.step),)


def _record_problem(record: Any, unique: str, again: bool) -> str:
  """What is wrong with what both kinds of lines have; `again`: with a line there was before."""
  negative = record.metric.endswith(("_loss", "_rmse")) and record.value < 0
  return (
      _unless(0 <= record.seed <= LARGEST_SEED, "seed", f"0 to {LARGEST_SEED}", record.seed)
      or _unless(0 <= record.step <= MOST, "step", f"0 to {MOST}", record.step)
      or _unless(record.split in SPLITS, "split", ", ".join(SPLITS), record.split)
      or _unless(bool(record.metric), "metric", "the name of a metric", record.metric)
      or _unless(not negative, "value", "no negative error", record.value)
      or _unless(not again, "line", f"one for each {unique}", "a second"))


def arrays_problem(arrays: Mapping[str, Any]) -> str:
  """What is wrong with the arrays of predictions.npz; nothing if they can be drawn."""
  for name, array in arrays.items():
    if name in ("arm", "seed"):
      if array.shape or array.dtype.kind not in ("U" if name == "arm" else "iu"):
        return f"expected {name} to be one {'text' if name == 'arm' else 'whole number'}"
    elif array.ndim != 1 or array.dtype.kind not in "fiu" or (
        not array.size and not name.startswith("forces")):  # which may all be unknown
      return (f"expected {name} to be a list of numbers, got shape {array.shape} and type "
              f"{array.dtype}")
  for kind in ("energy", "forces"):
    shapes = [arrays[name].shape for name in (f"{kind}_true", f"{kind}_predicted")
              if name in arrays]
    if len(set(shapes)) > 1:
      return f"expected as many predicted as reference values of {kind}, got shapes {shapes}"
  return ""


def _parts(content: Any, part: str) -> Iterator[Any]:
  """The value at a dotted name, if there is one."""
  for name in part.split("."):
    if not isinstance(content, dict) or name not in content:
      return
    content = content[name]
  yield content


def _odd_leaves(content: Any) -> Iterator[str]:
  """What no part may hold, whoever reads it: numbers, texts and depths that no program wrote."""
  left = [(content, 0)]
  while left:
    value, depth = left.pop()
    if depth > _DEEPEST:
      yield f"expected records and lists at most {_DEEPEST} deep"
    elif isinstance(value, dict | list):
      left += [(each, depth + 1) for each in (*value, *value.values())] if isinstance(
          value, dict) else [(each, depth + 1) for each in value]
    elif isinstance(value, str):
      if any("\ud800" <= mark <= "\udfff" for mark in value):
        yield f"expected text, got half a character in {_shown(value)}"
    elif isinstance(value, int | float) and not abs(value) <= 1e300:
      yield f"expected numbers within 1e300, got {_shown(value)}"


def _unless(good: bool, column: str, expected: str, got: Any) -> str:
  return "" if good else f"{column}: expected {expected}, got {got!r}"


def _shown(value: Any) -> str:
  return textwrap.shorten(json.dumps(value), 60, placeholder=" ...")
