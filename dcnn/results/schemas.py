"""Checks of the files of a work directory, all of them when a file is read.

People edit these files, copy parts of them and merge them. Whatever reads them afterwards, a report
or a sweep that goes on, relies on these checks and looks at no type again.
"""

import json
import math
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dcnn.base.measures import Picture

SPLITS = ("train", "valid", "test")
LARGEST_SEED, MOST = 2**32 - 1, 2**63 - 1
MOST_LOOKS = 20  # whoever looks at a report more often learns no more
_DEEPEST = 32  # of records and lists inside one another; the writer makes six
_STATUS = re.compile(r"finished|(patience|diverged|interrupted)@\d{1,18}")

Check = Callable[[Any], bool]


def _integer(most: int, least: int = 0) -> Check:
  return lambda value: type(value) is int and least <= value <= most


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


def _is_one_of(*words: str) -> Check:
  return lambda value: value in words


def _fits(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
  """Whether a value is a record whose required and optional entries are as they should be."""
  def holds(value: Any) -> bool:
    return _is_record(value) and set(required) <= set(value) and all(
        check(value[name]) for name, check in (*required.items(), *optional.items())
        if name in value)
  return holds


_has_texts = _fits(
    {"title": _is_text, "baseline": _is_text, "arms": _list_of(_is_text)},
    {"factors": _record_of(_list_of(_is_text))})


def _is_table(value: Any) -> bool:
  """Whether a table has its parts, and its arms cross the factors that it lists."""
  if not _has_texts(value):
    return False
  levels = list(value.get("factors", {}).values())
  return not levels or is_crossed(levels, len(value["arms"]))


_is_metric = _fits(
    {"name": lambda value: _is_text(value) and bool(value),
     "unit": lambda value: _is_text(value) and bool(value),
     "kind": _is_one_of("error", "skill", "share")},
    {"compared": lambda value: isinstance(value, bool),
     **dict.fromkeys(("label", "subject", "of", "meaning"), _is_text)})
# The arrays of a picture by its kind.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "parity": ("true", "predicted"), "field": ("true", "predicted", "horizontal", "vertical")}
_is_drawable = _fits(
    {"kind": _is_one_of(*_PARTS), "title": _is_text, "unit": _is_text, "arrays": _is_record},
    {"centred": lambda value: isinstance(value, bool),
     "axes": lambda value: _list_of(_is_text)(value) and len(value) == 2})


def _is_picture(value: Any) -> bool:
  return _is_drawable(value) and all(
      _is_text(value["arrays"].get(part)) for part in _PARTS[value["kind"]])


def _is_measures(value: Any) -> bool:
  """Whether names of metrics are unique, and those that are referred to exist."""
  if not value:
    return True
  if not {"metrics", "watched"} <= set(value):
    return False
  names = [metric["name"] for metric in value["metrics"]]
  errors = [metric["name"] for metric in value["metrics"] if metric["kind"] == "error"]
  return len(set(names)) == len(names) and value["watched"] in (*names, "") and all(
      metric.get("of", "") in (*errors, "") for metric in value["metrics"])


def _is_tuning(value: Any) -> bool:
  """Whether every arm has a rate that was chosen and a score at each rate, stopped ones too."""
  scores, chosen, rates = (value.get(key) for key in ("scores", "chosen", "learning_rates"))
  if scores is None or chosen is None or rates is None:
    return True
  return (set(scores) <= set(chosen) and all(len(each) == len(rates) for each in scores.values())
          and all(each["arm"] in scores and each["learning_rate"] in rates
                  for each in value.get("stopped", ())))


# Parts of config.json, an example of each, and what holds for it; a part comes before what is in
# it. A part may be missing unless a reader requires it.
_CONFIG: tuple[tuple[str, str, Check], ...] = (
    ("config", "{}", _is_record),
    ("config.experiment", '"ablations"', _is_text),
    ("config.question", '"What?"', _is_text),
    ("config.dataset", '"ethanol"', _is_text),
    ("config.steps", "1", _integer(MOST)),
    ("config.batch_size", "1", _integer(MOST)),
    ("config.split", "{}", _is_record),
    ("config.split.train", "1", _or_null(_integer(MOST))),
    ("config.split.valid", "1", _or_null(_integer(MOST))),
    ("config.split.test", "1", _or_null(_integer(MOST))),
    ("config.arms", "[{}]", _list_of(_is_record, fewest=1)),
    ("config.tables", "[{}]", _list_of(_is_record)),
    ("config.tables", "tables of title, baseline and arms, and of the levels of two factors that "
     "the arms cross", _list_of(_is_table)),
    ("config.looks", "1", _integer(MOST_LOOKS, 1)),
    ("joined", '[{"command": "dcnn --config=..."}]', _list_of(_is_record, fewest=1)),
    ("looks", '[{"seeds": 10}]', _list_of(_fits({"seeds": _integer(MOST, 1)}, {}))),
    ("seeds", "[0]", _list_of(_integer(LARGEST_SEED), fewest=1)),
    ("command", '"dcnn --config=..."', _is_text),
    ("dataset", "{}", _is_record),
    ("dataset.name", '"ethanol"', _is_text),
    ("dataset.checksum", '"0123abcd"', _is_text),
    ("measures", "{}", _is_record),
    ("measures.metrics", '[{"name": "rmse", "unit": "1", "kind": "error"}], kind error, skill or '
     'share', _list_of(_is_metric)),
    ("measures.watched", '"rmse"', _is_text),
    ("measures.pictures", '[{"kind": "parity", "title": "u", "unit": "1", "arrays": {"true": '
     '"u_true", "predicted": "u_predicted"}}], kind parity or field', _list_of(_is_picture)),
    ("measures.caption", '"A sentence."', _is_text),
    ("measures", "metrics of different names, and watched one of these; a skill is of an error",
     _is_measures),
    ("arm_settings", '{"arm": {"steps": "5"}}', _record_of(_record_of(_is_text))),
    ("glossary", '[["word", "What it means."]]',
     _list_of(lambda pair: _list_of(_is_text)(pair) and len(pair) == 2)),
    ("environment", "{}", _is_record),
    ("environment.versions", '{"jax": "1.0"}', _record_of(_is_text)),
    ("timing", "{}", _is_record),
    ("timing", '{"train_seconds": 1.0}', _record_of(_is_number)),
    ("calibration", '{"arm": {"energy": {"factor": 1.5, "before": 0.2, "after": 0.05, "error": '
     '0.1, "spread": 0.1, "unit": "eV", "seeds": 10}}}', _record_of(_record_of(_fits(
         {**dict.fromkeys(("factor", "before", "after", "error", "spread"), _or_null(_is_number)),
          "unit": _is_text, "seeds": _integer(MOST, 1)}, {})))),
    ("tuning", "{}", _is_record),
    ("tuning.learning_rates", "[0.001]", _list_of(_is_number)),
    ("tuning.seeds", "[0]", _list_of(_integer(LARGEST_SEED))),
    ("tuning.scores", '{"arm": [0.1]}', _record_of(_list_of(_or_null(_is_number)))),
    ("tuning.chosen", '{"arm": 0.001}', _record_of(_is_number)),
    ("tuning.stopped", '[{"arm": "c=0.5", "learning_rate": 0.001, "step": 100, "score": 0.1}]',
     _list_of(_fits({"arm": _is_text, "learning_rate": _is_number, "step": _integer(MOST)},
                    {"score": _or_null(_is_number)}))),
    ("tuning", "a score for each arm and learning rate, and a choice for each arm; what was "
     "stopped is one of these", _is_tuning),
)


def config_problem(content: Any, required: Sequence[str] = ()) -> str:
  """What is wrong with the content of a config.json; empty if it can be relied on.

  Args:
    content: The JSON, read.
    required: Dotted names of the parts that the reader needs.

  Returns:
    Words that name the part, what was expected and what is there.
  """
  if not _is_record(content):
    return f"expected a JSON object, got {type(content).__name__}"
  for problem in _leaf_problems(content):
    return problem
  for part, example, holds in _CONFIG:
    found = list(_parts(content, part))
    if found and not holds(found[0]):
      return f"expected {part} like {example}, got {_excerpt(found[0])}"
  missing = [part for part in required if not list(_parts(content, part))]
  return f"no {missing[0]!r} in it" if missing else ""


def row_problem(
    row: Any, earlier: Mapping[tuple, Any], is_error: Callable[[str], bool]
) -> str:
  """What is wrong with a line of results.csv; empty if it can be relied on.

  Args:
    row: The line, with the fields of `results.Row`.
    earlier: The rows before it, by each of their `row_keys`.
    is_error: Whether the metric of a name is an error, which is nowhere negative.
  """
  run, unit = earlier.get((row.arm, row.seed), row), earlier.get((row.metric,), row)
  return (
      _line_problem(row, "arm, seed, split and metric", row_keys(row)[0] in earlier, is_error)
      or _unless(bool(row.unit), "unit", "a unit, 1 where there is none", row.unit)
      or _unless(_STATUS.fullmatch(row.status) is not None, "status",
                 "finished, patience@STEP, diverged@STEP or interrupted@STEP", row.status)
      or _unless((row.status, row.cause) == (run.status, run.cause), "status",
                 f"{run.status} as in the other lines of this run", row.status)
      or _unless(row.unit == unit.unit, "unit", f"{unit.unit} as in the lines above", row.unit))


def point_problem(
    point: Any, earlier: Mapping[tuple, Any], is_error: Callable[[str], bool]
) -> str:
  """What is wrong with a line of history.csv; empty if it can be relied on.

  Args:
    point: The line, with the fields of `results.Point`.
    earlier: The points before it, by their `point_keys`.
    is_error: Whether the metric of a name is an error, which is nowhere negative.
  """
  again = point_keys(point)[0] in earlier
  return _line_problem(point, "arm, seed, split, metric and step", again, is_error)


def row_keys(row: Any) -> tuple[tuple, ...]:
  """The keys by which later lines of results.csv are compared with a line."""
  return (row.arm, row.seed, row.split, row.metric), (row.arm, row.seed), (row.metric,)


def point_keys(point: Any) -> tuple[tuple, ...]:
  """The keys by which later lines of history.csv are compared with a line."""
  return ((point.arm, point.seed, point.split, point.metric, point.step),)


def _line_problem(
    line: Any, unique: str, again: bool, is_error: Callable[[str], bool]
) -> str:
  """What is wrong with the columns that both files have."""
  negative = line.value < 0 and is_error(line.metric)
  return (
      _unless(0 <= line.seed <= LARGEST_SEED, "seed", f"0 to {LARGEST_SEED}", line.seed)
      or _unless(0 <= line.step <= MOST, "step", f"0 to {MOST}", line.step)
      or _unless(line.split in SPLITS, "split", ", ".join(SPLITS), line.split)
      or _unless(bool(line.metric), "metric", "the name of a metric", line.metric)
      or _unless(not negative, "value", "no negative error", line.value)
      or _unless(not again, "line", f"one for each {unique}", "a second"))


def arrays_problem(arrays: Mapping[str, np.ndarray], pictures: Sequence[Picture]) -> str:
  """What is wrong with the arrays of predictions.npz; empty if the pictures can be drawn.

  Args:
    arrays: The arrays, by name.
    pictures: The pictures that are drawn of them. The arrays of one are all there or all missing,
      and those of a parity picture may be empty, where no reference is known.

  Returns:
    Words that name the array, what was expected and what is there.
  """
  for name, kinds, what in (("arm", "U", "text"), ("seed", "iu", "whole number")):
    if name in arrays and (arrays[name].shape or arrays[name].dtype.kind not in kinds):
      return f"expected {name} to be one {what}"
  return next(filter(None, (_picture_problem(arrays, picture) for picture in pictures)), "")


def _picture_problem(arrays: Mapping[str, np.ndarray], picture: Picture) -> str:
  names = [picture.arrays[part] for part in _PARTS[picture.kind]]
  missing = [name for name in names if name not in arrays]
  if missing:
    return "" if len(missing) == len(names) else (
        f"expected {missing[0]!r} beside the other arrays of {picture.title!r}, got none")
  for name, part in zip(names, _PARTS[picture.kind], strict=True):
    array, axes = arrays[name], 1
    if picture.kind == "field" and part in ("true", "predicted"):
      axes = 2
    if array.ndim != axes or array.dtype.kind not in "fiu":
      return (f"expected {name!r} to be a {'list' if axes == 1 else 'matrix'} of numbers, got "
              f"shape {array.shape} and type {array.dtype}")
  true, predicted, *coordinates = (arrays[name] for name in names)
  for name, values in zip(names[2:], coordinates, strict=True):
    if len(values) < 2 or not np.all(np.isfinite(values)) or np.any(values[1:] <= values[:-1]):
      return f"expected {name!r} to hold at least two coordinates, each larger than the last"
  shape = tuple(len(values) for values in coordinates[::-1]) or true.shape
  if true.shape != shape or predicted.shape != shape:
    return (f"expected {names[0]!r} and {names[1]!r} to have the shape {shape}, got {true.shape} "
            f"and {predicted.shape}")
  return ""


def is_crossed(levels: Collection[Sequence[str]], arms: int) -> bool:
  """Whether arms cross two factors: each pair of their levels belongs to exactly one arm.

  Args:
    levels: The level of each arm, for each factor.
    arms: How many arms there are.

  >>> is_crossed([("a", "a", "b", "b"), ("1", "2", "1", "2")], arms=4)
  True
  >>> is_crossed([("a", "a", "b", "b"), ("1", "2", "1", "1")], arms=4)
  False
  """
  sizes = [len(set(each)) for each in levels]
  return len(sizes) == 2 and min(sizes) > 1 and (
      {len(each) for each in levels} == {arms} == {sizes[0] * sizes[1]}
      and len(set(zip(*levels, strict=True))) == arms)


def _parts(content: Any, part: str) -> Iterator[Any]:
  """The value at a dotted name, if there is one."""
  for name in part.split("."):
    if not isinstance(content, dict) or name not in content:
      return
    content = content[name]
  yield content


def _leaf_problems(content: Any) -> Iterator[str]:
  """Numbers, texts and depths that no program wrote, in whatever part they stand."""
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
        yield f"expected text, got half a character in {_excerpt(value)}"
    elif isinstance(value, int | float) and not abs(value) <= 1e300:
      yield f"expected numbers within 1e300, got {_excerpt(value)}"


def _unless(good: bool, column: str, expected: str, got: Any) -> str:
  return "" if good else f"{column}: expected {expected}, got {got!r}"


def _excerpt(value: Any) -> str:
  return textwrap.shorten(json.dumps(value), 60, placeholder=" ...")
