"""Names and fingerprints of functions, classes and records that stand in a configuration.

Where a table gives a name, a user may give an object. It is named by its own name in tables, and
described in config.json by where it was defined and by a digest of what decides its behaviour, so
that a sweep is not continued with a function that has been changed.
"""

import functools
import hashlib
import inspect
import textwrap
import tokenize
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_PLAIN = (bool, int, float, complex, str, bytes, types.NoneType)
_DATA = (*_PLAIN, tuple, list, set, frozenset, Mapping, np.generic, np.ndarray)


def is_object(value: Any) -> bool:
  """Whether a value of a setting is an object that JSON cannot hold: a function, class or record.

  What `describe` makes of an object counts, too, so that arms read from config.json have the names
  that they had.
  """
  return callable(value) or hasattr(value, "_fields") or (
      isinstance(value, Mapping) and {"object", "digest"} <= set(value))


def name_of(value: Any) -> str:
  """The short name of an object, for tables: its `__name__`, and what it is bound to.

  Args:
    value: A function, a class, a `functools.partial`, a record or a tuple of these.

  Returns:
    Such as `snake`, `power_of_ten(exponent=6)` or `LabelTransform(shift=-4209.0, scale=0.5)`.
  """
  if isinstance(value, functools.partial):
    bound = [*map(name_of, value.args), *(f"{k}={name_of(v)}" for k, v in value.keywords.items())]
    return f"{name_of(value.func)}({', '.join(bound)})"
  if hasattr(value, "_fields") and not isinstance(value, type):
    fields = [f"{name}={name_of(field)}" for name, field in value._asdict().items()
              if field is not None]
    return f"{type(value).__name__}({', '.join(fields)})"
  if isinstance(value, tuple):
    return "/".join(map(name_of, value))
  if callable(value):
    return getattr(value, "__name__", type(value).__name__)
  if isinstance(value, Mapping) and {"object", "name"} <= set(value):  # as `describe` says it
    return value["name"]
  return str(value)


def describe(value: Any) -> Any:
  """What config.json says of a value of a setting: plain values as they are.

  Args:
    value: Anything that may stand in a configuration.

  Returns:
    A number, text, list or dictionary. An object becomes a dictionary of its `object` (module and
    qualified name), its `name` and its `digest` (SHA-256 of its source, of what it is bound to, and
    of the functions and constants of its own module that it uses).
  """
  if isinstance(value, np.generic):
    return value.item()
  if is_object(value):
    kind = value
    while isinstance(kind, functools.partial):
      kind = kind.func
    kind = kind if hasattr(kind, "__qualname__") else type(kind)
    return {"object": f"{kind.__module__}.{kind.__qualname__}", "name": name_of(value),
            "digest": digest(value)}
  if isinstance(value, Mapping):
    return {key: describe(item) for key, item in value.items()}
  if isinstance(value, tuple | list | range):
    return [describe(item) for item in value]
  return value


def digest(value: Any) -> str:
  """SHA-256 of what decides the behaviour of an object, hexadecimal."""
  found = hashlib.sha256()
  for part in _parts(value, set()):
    found.update(part.encode("utf-8", "backslashreplace"))
    found.update(b"\0")
  return found.hexdigest()


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
  """Text that differs where the behaviour of an object may differ; no addresses in memory."""
  if isinstance(value, _PLAIN):
    yield repr(value)
    return
  if isinstance(value, np.generic | np.ndarray) or hasattr(value, "__array__"):
    array = np.asarray(value)
    yield f"{array.dtype}{array.shape}{array.tobytes().hex()}"
    return
  if id(value) in seen:
    return
  seen.add(id(value))
  if isinstance(value, functools.partial):
    yield from _parts((value.func, value.args, value.keywords), seen)
  elif isinstance(value, Mapping):
    for key in sorted(value, key=str):
      yield str(key)
      yield from _parts(value[key], seen)
  elif isinstance(value, tuple | list | set | frozenset):
    yield type(value).__name__
    for item in value:
      yield from _parts(item, seen)
  elif isinstance(value, type):
    yield from _class_parts(value, seen)
  else:
    yield from _callable_parts(value, seen)


def _callable_parts(value: Any, seen: set[int]) -> Iterator[str]:
  function = inspect.unwrap(value) if callable(value) else value
  function = getattr(function, "__func__", function)
  if isinstance(function, types.FunctionType):
    yield _source(function)
    for bound in (function.__defaults__, function.__kwdefaults__):
      yield from _parts(bound, seen)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
      yield name
      try:
        yield from _parts(cell.cell_contents, seen)
      except ValueError:  # it is not filled yet: the function of a class that names the class
        continue
    for name in sorted(_names(function.__code__)):
      used = function.__globals__.get(name)
      if isinstance(used, _DATA) or hasattr(used, "__array__") or _home(used) == _home(function):
        yield name
        yield from _parts(used, seen)
    return
  yield str(getattr(value, "__qualname__", ""))
  yield from _class_parts(type(value), seen)
  yield from _parts(dict(getattr(value, "__dict__", {})), seen)


def _class_parts(kind: type, seen: set[int]) -> Iterator[str]:
  yield f"{kind.__module__}.{kind.__qualname__}"
  for name, member in sorted(vars(kind).items()):
    member = getattr(member, "__func__", getattr(member, "fget", member))
    function = inspect.unwrap(member) if callable(member) else member
    if isinstance(member, _DATA) and not name.startswith("__") or (
        isinstance(function, types.FunctionType) and _home(function) == _home(kind)):
      yield name
      yield from _parts(member, seen)
  for base in kind.__bases__:
    if _home(base) == _home(kind) and base is not object:
      yield from _parts(base, seen)


def _home(value: Any) -> str | None:
  """The module that defines a function, a class or the class of an object; None for modules.

  In text that is run without a module's name, as by `exec`, Python gives functions no module at
  all and classes the one of the builtins; to both this gives the latter.
  """
  if isinstance(value, types.ModuleType):
    return None
  return getattr(value, "__module__", None) or "builtins"


def _source(function: types.FunctionType) -> str:
  """The text of a function; its bytecode where there is no text, as for what was typed in."""
  try:
    return textwrap.dedent(inspect.getsource(function))
  except (OSError, TypeError, SyntaxError, tokenize.TokenError):  # the file has changed since, say
    code = function.__code__
    constants = [constant for constant in code.co_consts if isinstance(constant, _PLAIN)]
    return f"{code.co_code.hex()} {constants} {code.co_names}"


def _names(code: types.CodeType) -> set[str]:
  """The global names that a function and the functions inside it use."""
  inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
  return set(code.co_names).union(*map(_names, inner))
