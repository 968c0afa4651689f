"""What a setting is: its key, default and meaning, and what its values must satisfy.

Tables of settings are all that there is to say of a configuration: the default is built from them,
values are checked by them, the numbers that a compiled program takes as arguments are read off
them, and `dcnn --helpfull` prints them.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import ml_collections
import numpy as np
from ml_collections import config_dict

from dcnn.base import objects
from dcnn.base.text import first_line, unknown

if TYPE_CHECKING:
  class ConfigDict(Any):
    """For the type checker: the leaves of a ConfigDict have no static types."""
else:
  ConfigDict = ml_collections.ConfigDict

MOST = 2**31 - 1  # whole numbers are int32 on the device
# Sizes of numbers other than 0: on the device they are float32, which ends at 1e-38 and 1e38.
SMALLEST, LARGEST = 1e-30, 1e30

Check = Callable[[Any, str], None]


class Setting(NamedTuple):
  """One setting of a configuration.

  Attributes:
    key: Its dotted name.
    default: Its value where nobody sets it.
    meaning: What it decides, in a sentence or two.
    unit: The unit of a number.
    choices: The names that it takes, where it takes names; no other is accepted, unless objects
      are.
    check: `(value, key)`: raises a ValueError on a value that is refused.
    role: `sweep` for what is the same for all arms. An arm may change the others: `program` for
      what changes the compiled program, `number` for what enters it as an argument, and `fitted`
      for what becomes such numbers on the host.
    kind: The type of its values where the default does not show it, as None does not.
    optional: Whether it may be None.
    objects: Whether a function, class or record may stand instead of a name.
    prefixed: Whether a word is shown with the key in the name of an arm, because it does not say
      by itself what it is a value of.
    explain: `(value) -> sentence`: what a value means, for the glossary of a report; without it the
      meaning of the setting is all that there is to say.
  """

  key: str
  default: Any
  meaning: str
  unit: str = ""
  choices: tuple[str, ...] = ()
  check: Check | None = None
  role: Literal["sweep", "program", "number", "fitted"] = "sweep"
  kind: type | None = None
  optional: bool = False
  objects: bool = False
  prefixed: bool = False
  explain: Callable[[Any], str] | None = None

  @property
  def hyper(self) -> str:
    """The name of its number in a program: the last part of the key."""
    return self.key.rpartition(".")[2]


def make_config(settings: Iterable[Setting]) -> ConfigDict:
  """The configuration of these settings, at their defaults, locked."""
  config = ConfigDict()
  for setting in settings:
    group = config
    *groups, last = setting.key.split(".")
    for name in groups:
      if name not in group:
        group[name] = ConfigDict()
      group = group[name]
    if setting.objects or setting.optional or setting.kind is object:
      group[last] = config_dict.placeholder(setting.kind or object)
    if setting.default is not None:
      group[last] = setting.default
  return config.lock()


def flat(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
  """The values of a configuration by dotted key."""
  leaves: dict[str, Any] = {}
  for key, value in config.items():
    nested = isinstance(value, ConfigDict)
    leaves |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
  return leaves


def to_dict(config: ConfigDict) -> dict[str, Any]:
  """A configuration as plain dictionaries, lists, numbers and text, ready for JSON."""
  return {key: _plain(config[key]) for key in config}


def _plain(value: Any) -> Any:
  if isinstance(value, ConfigDict):
    return to_dict(value)
  if isinstance(value, Mapping):
    return {key: _plain(value[key]) for key in value}
  return objects.describe(value)


def require(condition: bool, message: str) -> None:
  """Raises a ValueError with the message unless the condition holds."""
  if not condition:
    raise ValueError(message)


@contextlib.contextmanager
def naming(key: str) -> Iterator[None]:
  """Names the setting in whatever error a part of the user's own, or its resolution, raises.

  Raises:
    ValueError: with the setting, also in place of errors of other types.
  """
  try:
    yield
  except ValueError as error:
    raise error if key in str(error) else ValueError(f"{key}: {error}") from error
  except Exception as error:  # whatever a user's function raises
    raise ValueError(f"{key}: {first_line(error)}") from error


def check_type(setting: Setting, value: Any) -> None:
  """Makes sure that a value has the type of its setting; a ConfigDict lets None pass, for one.

  Raises:
    ValueError: naming the setting and the type.
  """
  if setting.optional and value is None:
    return
  parts = value if isinstance(value, tuple) and not hasattr(value, "_fields") else (value,)
  if setting.objects and any(map(objects.is_object, parts)):
    return
  kind = setting.kind or type(setting.default)
  require(kind is object or _is_of(value, kind),
          f"{setting.key} must be of type {kind.__name__}{', or an object' * setting.objects}, got "
          f"{value!r}")
  require(_can_be_written(value),
          f"{setting.key} must hold numbers, text, functions, classes, and lists and dictionaries "
          f"of them, which config.json can say, got {value!r}")
  # Other bytes of a command line arrive as surrogates.
  require(not isinstance(value, str) or not any("\ud800" <= mark <= "\udfff" for mark in value),
          f"{setting.key} is not UTF-8 text, got {value!r}: files and experiments need such names "
          "to be written down")


def _can_be_written(value: Any) -> bool:
  """Whether `to_dict` makes something of a value that JSON can hold."""
  if isinstance(value, Mapping | ConfigDict):
    return all(isinstance(key, str) and _can_be_written(value[key]) for key in value)
  if isinstance(value, tuple | list | range) and not hasattr(value, "_fields"):
    return all(map(_can_be_written, value))
  plain = bool | int | float | str | np.bool_ | np.integer | np.floating | None
  return isinstance(value, plain) or objects.is_object(value)


def _is_of(value: Any, kind: type) -> bool:
  if kind is int:
    return is_integer(value)
  if kind is float:
    return isinstance(value, int | float) and not isinstance(value, bool)
  return isinstance(value, tuple | list if kind is tuple else kind)


def is_integer(value: Any) -> bool:
  """Whether a value is a whole number; True and False are none."""
  return isinstance(value, int | np.integer) and not isinstance(value, bool)


def require_choice(value: Any, known: Iterable[str], what: str) -> None:
  """Makes sure that a name is one of those known."""
  known = tuple(known)
  if value not in known:
    raise ValueError(unknown(what, value, known))


def positive(value: Any, key: str) -> None:
  """Makes sure that a number is above 0 and can be a float32."""
  require(isinstance(value, int | float) and 0 < value < math.inf,
          f"{key} must be a finite number above 0, got {value!r}")
  require(SMALLEST <= value <= LARGEST,
          f"{key} must lie within {SMALLEST:.0e} and {LARGEST:.0e}, got {value!r}")


def positive_whole(value: Any, key: str) -> None:
  """Makes sure that a number is whole, above 0, and can be an int32."""
  require(is_integer(value) and value > 0, f"{key} must be a whole number above 0, got {value!r}")
  require(value <= MOST, f"{key} must be at most {MOST:,}, got {value:,}")


def not_negative(value: Any, key: str) -> None:
  """Makes sure that a number is 0, or above 0 and can be a float32."""
  require(value == 0 or SMALLEST <= value <= LARGEST,
          f"{key} must be finite and not negative, got {value}; what is not 0 must lie within "
          f"{SMALLEST:.0e} and {LARGEST:.0e}")


def of_either_sign(value: Any, key: str) -> None:
  """Makes sure that the size of a number is 0 or can be a float32."""
  require(value == 0 or SMALLEST <= abs(value) <= LARGEST,
          f"{key} must be finite, got {value}; what is not 0 must have a size between "
          f"{SMALLEST:.0e} and {LARGEST:.0e}")


def fraction(value: Any, key: str) -> None:
  """Makes sure that a number is at least 0 and below 1, also when it is rounded to float32."""
  require(0 <= value < 1 and bool(np.float32(value) < 1),
          f"{key} must be at least 0 and below 1, also when rounded to float32, got {value}")


def within(least: int | float, most: int | float) -> Check:
  """A check that a number lies within limits."""
  def check(value: Any, key: str) -> None:
    require(least <= value <= most,
            f"{key} must lie within {least:,} and {most:,}, got {value:,}")

  return check
