"""What trackers are told of a sweep, and what each must be able to do."""

import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

Values = Mapping[str, float]  # by `split/metric`


class Sweep(NamedTuple):
  """A sweep that is logged.

  Attributes:
    directory: Its work directory.
    experiment: The name of the experiment.
    identity: What no other work directory has.
    settings: The settings of each arm as text, by arm and dotted key.
  """

  directory: pathlib.Path
  experiment: str
  identity: str
  settings: Mapping[str, Mapping[str, str]]

  def hyperparameters(self, arm: str, seed: int) -> dict[str, Any]:
    """What a tracker sorts runs by: arm, seed and the arm's settings, as numbers where they are."""
    settings = self.settings.get(arm, {})
    return {"arm": arm, "seed": seed, **{key: _number(value) for key, value in settings.items()}}

  def run_identity(self, arm: str, seed: int) -> str:
    """The same for a run of this sweep at any time, and no other's."""
    return digest(f"{self.identity}\n{arm}\n{seed}")


@runtime_checkable
class Writer(Protocol):
  """A run in a tracker."""

  def log(self, curve: Mapping[int, Values]) -> None:
    """Adds points of the curves, by step; those that are there already are left out."""

  def end(self, status: str, step: int, results: Values) -> None:
    """Writes down how the run ended, in the words of results.csv, and closes it."""


OpenRun = Callable[[str, int], Writer]  # of an arm and a seed


def digest(name: str) -> str:
  """Sixteen letters and digits that stand for a name, whatever is in it."""
  return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _number(value: str) -> str | int | float:
  for kind in (int, float):
    try:
      return kind(value)
    except ValueError:
      continue
  return value
