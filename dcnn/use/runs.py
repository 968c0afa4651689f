"""The runs of an arm that have ended, and the arms of a sweep, as they are handed to their user."""

import html
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dcnn import stats
from dcnn.base import text


class Runs(NamedTuple):
  """The runs of an arm that have ended and did not fail.

  Attributes:
    arm: The name of the arm.
    seeds: Their seeds.
    best: The variables that validation chose, with a leading axis `seeds`; NumPy.
    last: The variables after the last step, likewise.
    kept: What else their use needs, named records of arrays with a leading axis `seeds`; see
      `tasks.base.Fitted`.
    metrics: Their errors by split and metric, each of shape (seeds,); in the units of results.csv.
    calibration: What their spread is worth as an uncertainty, by quantity; empty where that is not
      known, because the sweep has not ended, has fewer than three seeds, or a split for each seed.
  """

  arm: str
  seeds: tuple[int, ...]
  best: Any
  last: Any
  kept: dict[str, Any]
  metrics: Mapping[str, Mapping[str, Float[np.ndarray, " seeds"]]]
  calibration: Mapping[str, stats.Calibration]


class Trained(dict[str, Any]):
  """What the arms of a sweep have become, by their names; a dictionary with better messages.

  Attributes:
    failed: Arms of which no run is there, and why.
  """

  failed: dict[str, str]

  def __init__(self, arms: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    """Holds what is there, and remembers what is not."""
    super().__init__(arms)
    self.failed = dict(failed)

  def __missing__(self, name: str) -> Any:
    """Says which arms there are.

    Raises:
      KeyError: Always.
    """
    reason = self.failed.get(name)
    raise KeyError(f"arm {name!r}: {reason}" if reason else text.unknown("arm", name, self))

  def _repr_html_(self) -> str:
    """The arms for a notebook, a line for each."""
    lines = "".join(f"<li>{html.escape(repr(arm))}</li>" for arm in self.values())
    lines += "".join(f"<li>{html.escape(f'{name}: {why}')}</li>"
                     for name, why in self.failed.items())
    return f"<ul>{lines}</ul>"
