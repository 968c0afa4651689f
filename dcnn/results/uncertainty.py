"""What the spread over the seeds is worth as an uncertainty, in words and numbers."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dcnn.base.text import Unit, display_unit, number_text
from dcnn.results.records import Result

_POOR = 0.1  # a miscalibration above it is told of
_NOTE = (
    "Error and spread are root mean squares over test data: of the error of the mean over the "
    "seeds, and of the standard deviation over them. With the factor half of the validation errors "
    "lie within the central half of what the spread allows, by Student's t. Before and after it: "
    "the area between the share of test errors within the interval of level p, and p; 0 is "
    "perfect, 0.5 the worst.")


def calibrations(result: Result) -> dict[str, Any]:
  """The calibration of each arm and quantity, as config.json has it.

  Args:
    result: The result of a sweep.

  Returns:
    Text by name: `quantities`, each of `name` and `unit`; `rows`, each of `arm` and `cells`, which
    are `error`, `spread`, `factor`, `before` and `after` for each quantity; `sentences`, one for
    each quantity; and a `note` that explains them. Empty where nothing is known.
  """
  arms: Mapping[str, Any] = result.config.get("calibration") or {}
  names = list(dict.fromkeys(name for each in arms.values() for name in each))
  if not names:
    return {}
  units = {name: _unit([each[name] for each in arms.values() if name in each]) for name in names}
  return {
      "quantities": [{"name": name, "unit": units[name].name} for name in names],
      "rows": [
          {"arm": arm, "cells": [_cells(each.get(name, {}), units[name]) for name in names]}
          for arm, each in arms.items()],
      "sentences": [
          _sentence(name, [each[name] for each in arms.values() if name in each])
          for name in names],
      "note": _NOTE}


def _unit(values: list[Mapping[str, Any]]) -> Unit:
  errors = [_number(each["error"]) for each in values]
  return display_unit(values[0]["unit"], np.array(errors, np.float64))


def _cells(values: Mapping[str, Any], unit: Unit) -> dict[str, str]:
  """The cells of a quantity; empty of an arm that does not have it."""
  show = {
      **dict.fromkeys(("error", "spread"), lambda value: number_text(unit.factor * value)),
      "factor": number_text, **dict.fromkeys(("before", "after"), _area_text)}
  return {name: text(_number(values[name])) if values else "" for name, text in show.items()}


def _sentence(name: str, values: list[Mapping[str, Any]]) -> str:
  """What the arms have in common, in a sentence."""
  known = [each for each in values if math.isfinite(_number(each["factor"]))]
  if not known:
    return f"The spread of {name} over the seeds tells no uncertainty in any arm"
  ratio, factor, before, after = (
      float(np.median([_number(each) for each in column])) for column in zip(*(
          (_ratio(each), each["factor"], each["before"], each["after"]) for each in known),
          strict=True))
  of_all = "" if len(known) == len(values) else f" of {len(values)}"
  arms = f" (medians of {len(known)}{of_all} arms)" if len(values) > 1 else ""
  poor = ("; one factor is not enough, because the spread does not follow the errors, or test data "
          "are not like those of validation" if after > _POOR else "")
  return (f"The spread of {name} over the seeds is {number_text(ratio)} times the error of their "
          f"mean; one factor, {number_text(factor)}, takes the miscalibration from "
          f"{_area_text(before)} to {_area_text(after)}{arms}{poor}")


def _area_text(area: float) -> str:
  return number_text(area) if math.isnan(area) else f"{area:.3f}"


def _ratio(values: Mapping[str, Any]) -> float:
  error, spread = _number(values["error"]), _number(values["spread"])
  return spread / error if error else math.nan


def _number(value: float | None) -> float:
  """Null stands for nan in JSON."""
  return math.nan if value is None else float(value)
