"""How messages name the options of the user: as arguments in Python, as flags on a command line."""

import contextlib
import contextvars
import shlex
from collections.abc import Iterator

_prefix: contextvars.ContextVar[str] = contextvars.ContextVar("option_prefix", default="")


@contextlib.contextmanager
def options_under(prefix: str) -> Iterator[None]:
  """Within this context options are named with a prefix, inside the prefixes around it.

  Args:
    prefix: for example `--config.` on the command line, `config.` for a configuration that a
      notebook holds, `data.` for the settings of data inside either.
  """
  token = _prefix.set(_prefix.get() + prefix)
  try:
    yield
  finally:
    _prefix.reset(token)


def option(name: str, value: object = "") -> str:
  """An option as the user would write it: `units='eV/angstrom'`, `--config.data.units=eV/angstrom`.

  Args:
    name: of the argument of `data.load`, which is also the name of the setting.
    value: what to write behind it; by default nothing.
  """
  prefix = _prefix.get()
  if prefix.startswith("--"):
    return f"{prefix}{name}={shlex.quote(str(value)) if value != '' else ''}"
  return f"{prefix}{name}={value!r}" if value != "" else f"{prefix}{name}="
