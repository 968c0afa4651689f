"""What a user is told of errors and warnings: one line each, and never a traceback but for bugs."""

import contextlib
import re
import sys
import traceback
import warnings
from collections.abc import Iterator

from dcnn.base.text import visible_text
from dcnn.jobs import display

FAILURE = 1  # exit status: something may have been written
MISTAKE = 2  # exit status: nothing has been written

_python_format = warnings.formatwarning


class Stop(Exception):
  """Ends the program: the text is a line for the user, `status` the exit status."""

  def __init__(self, text: str, status: int = MISTAKE) -> None:
    """The text may have line breaks; it is printed without them."""
    super().__init__(text)
    self.status = status


def complain(text: str) -> None:
  """Prints a line about what went wrong, or is about to happen, to standard error."""
  display.say(f"dcnn: {text}", sys.stderr)


def one_line(text: object) -> str:
  """Text without line breaks; other white space, which may be part of a file's name, stays."""
  return " ".join(line.strip() for line in str(text).splitlines() if line.strip())


def message(error: BaseException) -> str:
  """What an exception says, without the decoration that some kinds of exceptions add."""
  if isinstance(error, SyntaxError):
    return error.msg
  if isinstance(error, OSError) and error.strerror:
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
  if len(error.args) == 1:
    # ConfigDict raises an AttributeError of a KeyError, and lists all its fields in it.
    inner = error.args[0]
    text = message(inner) if isinstance(inner, BaseException) else str(inner)
    return re.sub(r'Other fields present: .*}"', "", text, flags=re.DOTALL)
  return str(error)


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    line: str | None = None,
) -> str:
  """One line for our warnings, which are for the user; Python's format for those of libraries."""
  if category is UserWarning:
    return f"dcnn: warning: {visible_text(one_line(message))}\n"
  return visible_text(_python_format(message, category, filename, lineno, line))


@contextlib.contextmanager
def stop_on_errors(denied: int = MISTAKE) -> Iterator[None]:
  """Turns our own ValueErrors and the system's OSErrors into a `Stop`.

  A ValueError that a library raises is a bug of ours and keeps its traceback.

  Args:
    denied: The exit status where the system denies something, or a package is missing.

  Raises:
    Stop: With the text of the error.
  """
  try:
    yield
  except ValueError as error:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if not frame.f_globals.get("__name__", "").startswith("dcnn."):
      raise
    raise Stop(str(error)) from error
  except (OSError, ModuleNotFoundError) as error:
    raise Stop(message(error), denied) from error
