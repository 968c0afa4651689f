"""How messages speak to the user: in flags on a command line, in arguments in Python.

What is refused in the depth of a sweep or of a file is refused to somebody who typed a command, or
to somebody who called a function; the fix that a message names must be one of theirs. A thread
that may raise such messages runs in a copy of the context (`contextvars.copy_context`).
"""

import contextlib
import contextvars
import shlex
from collections.abc import Iterator

_prefix: contextvars.ContextVar[str] = contextvars.ContextVar("option_prefix", default="")


@contextlib.contextmanager
def options_under(prefix: str) -> Iterator[None]:
  """Within this context options are named with a prefix, inside the prefixes around it.

  Args:
    prefix: The prefix: `--` on the command line, `config.` for a configuration, `data.` for the
      settings of data in it.
  """
  token = _prefix.set(_prefix.get() + prefix)
  try:
    yield
  finally:
    _prefix.reset(token)


def either(*, command: str, python: str) -> str:
  """The one of two wordings that the user of the command line, or of Python, can follow."""
  return command if _prefix.get().startswith("--") else python


def has_settings() -> bool:
  """Whether the user has a configuration, on a command line or in Python."""
  return "config." in _prefix.get()


def option(name: str, value: object = "") -> str:
  """An option as the user would write it: `units='eV/angstrom'`, `--config.data.units=eV/angstrom`.

  Args:
    name: The name of the argument, which is also that of the setting.
    value: What to write behind it; by default nothing.
  """
  shown = either(command=shlex.quote(str(value)), python=repr(value)) if value != "" else ""
  return f"{_prefix.get()}{name}={shown}"


def workdir() -> str:
  """The option that names the work directory."""
  return either(command="--workdir", python="workdir")


def again() -> str:
  """What to do once the cause of a failure is mended."""
  return either(command="give the same command again", python="make the same call again")
