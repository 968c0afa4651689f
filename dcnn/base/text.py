"""Text for people: what is shown of names and numbers, and which word a misspelt one may mean."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_MILLI_BELOW = 10.0  # in units of what is shown
_EXPONENT_FROM = 1e6


def visible_text(text: str) -> str:
  """Text in which nothing is hidden: what does not print, but for line breaks, as its escape.

  Control characters, ANSI sequences, marks that turn the direction of writing and halves of
  surrogate pairs would otherwise reach a terminal or a page out of the files of others.
  """
  return "".join(
      mark if mark.isprintable() or mark == "\n"
      else mark.encode("unicode_escape", "surrogatepass").decode() for mark in text)


def one_line(text: str) -> str:
  """Visible text in a line, its white space drawn together."""
  return visible_text(" ".join(text.split()))


def suggestion(name: str, known: Iterable[str]) -> str:
  """A question that names the known word closest to a misspelt one: `did you mean 'tanh'? `.

  Args:
    name: what was given.
    known: the words that are accepted there.

  Returns:
    The question with a space behind it, or nothing where no word is close.
  """
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f"did you mean {close[0]!r}? " if close else ""


def first_line(error: BaseException) -> str:
  """The type of an error and the first line of its message.

  >>> first_line(TypeError("expected x\\nreceived y"))
  'TypeError: expected x'
  """
  return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def unknown(what: str, name: object, known: Iterable[str]) -> str:
  """The message on a name that is not known: the closest one, and all that are.

  Args:
    what: What the name is of, such as `activation`.
    name: What was given.
    known: The names that are accepted there.

  >>> unknown("scheme", "robst", ["identity", "robust"])
  "unknown scheme 'robst': did you mean 'robust'? known are identity, robust"
  """
  known = tuple(known)
  return f"unknown {what} {name!r}: {suggestion(str(name), known)}known are {', '.join(known)}"


class Unit(NamedTuple):
  """How a metric is shown: value times factor, in the unit named."""

  factor: float
  name: str


def display_unit(unit: str, values: Float[np.ndarray, " values"]) -> Unit:
  """The unit in which to show values: thousandths of it where they are typically below 10.

  Args:
    unit: The unit of the values, such as `eV`, `eV/A` or, for numbers without one, `1`.
    values: The values that are shown together; the median of the finite ones decides.

  Returns:
    A factor and the name of the unit shown, with the angstrom sign.
  """
  sizes = np.abs(values[np.isfinite(values)])
  milli = unit[:1].isalpha() and bool(sizes.size) and bool(np.median(sizes) < _MILLI_BELOW)
  return Unit(1000.0 if milli else 1.0, ("m" if milli else "") + unit.replace("/A", "/Å"))


def number_text(value: float, like: float | None = None) -> str:
  """A number to three significant figures; a dash for nan.

  Args:
    value: The number to show.
    like: Take as many decimals as this number would have, if it is within a factor of ten.
  """
  if not np.isfinite(value):
    return "–" if np.isnan(value) else "inf"
  if like is None or not 0.1 * abs(like) <= abs(value) <= 10 * abs(like):
    like = value
  if max(abs(value), abs(like)) >= _EXPONENT_FROM:
    return f"{value:.2e}"
  exponent = int(np.floor(np.log10(float(f"{abs(like):.2e}")))) if like else 0
  return f"{value:.{max(0, 2 - exponent)}f}"


def duration(seconds: float) -> str:
  """A span of time as `41.5 s`, `3 min 51 s` or `2 h 5 min`; `unknown` where it is not finite."""
  if not np.isfinite(seconds):
    return "unknown"
  if seconds < 100:
    return f"{seconds:.1f} s"
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
