"""What a contender offers to the worker that holds it."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Missing(Exception):
  """A contender cannot be measured here; the message says why in a line."""


class Trainer(NamedTuple):
  """A contender, ready to train.

  Attributes:
    advance: `(steps)`: takes so many steps of every run, and returns when they are done.
    fit: `(steps, window) -> loss`, the mean training loss over the last `window` of the first
      `steps` steps of a fresh run.
    products: `(rows, inputs, outputs, repeats)`: takes the forward, weight-gradient and
      input-gradient products of one dense layer `repeats` times, on as many runs as are trained.
    parameters: The shape of each trained array.
    compile_seconds: The seconds spent compiling; None where nothing is compiled.
    versions: The versions of the packages that do the work.
    device: The platform that it runs on.
  """

  advance: Callable[[int], None]
  fit: Callable[[int, int], float]
  products: Callable[[int, int, int, int], None]
  parameters: dict[str, tuple[int, ...]]
  compile_seconds: float | None
  versions: dict[str, Any]
  device: str
