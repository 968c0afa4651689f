"""A solution of a differential equation, as it was trained."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jax import Array

from dcnn import stats


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Field:
  """The solutions that the seeds of an arm have learnt.

  Attributes:
    name: The name of the arm.
    seeds: The seeds of its runs; those that failed are not among them.
    field_fn: `(variables, time, position) -> u` at one point, of one seed; pure, for `jax.vmap` and
      derivatives. Solutions of all seeds are `jax.vmap(field_fn, (0, None, None))(variables, ...)`.
    variables: The variables that validation chose, with a leading axis `seeds`.
    last: The variables after the last step, likewise.
    metrics: Errors by split and metric, each of shape (seeds,).
    calibration: What the spread over the seeds is worth as an uncertainty, of `u`; see
      `stats.calibrate`. Empty where that is not known; see `Runs`.
    settings: The settings of the arm that its program reads, by dotted key.
  """

  name: str
  seeds: tuple[int, ...]
  field_fn: Callable[[Any, Any, Any], Array]
  variables: Any
  last: Any
  metrics: Mapping[str, Mapping[str, Any]]
  calibration: Mapping[str, stats.Calibration]
  settings: Mapping[str, Any]

  def __repr__(self) -> str:
    """What it is, in a line."""
    return f"<Field {self.name!r}, seeds {', '.join(map(str, self.seeds))}>"
