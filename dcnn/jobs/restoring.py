"""Back from what config.json says of settings to a configuration."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dcnn import configs
from dcnn.base import objects
from dcnn.configs import ConfigDict
from dcnn.jobs import workdirs


def restored(config: Mapping[str, Any]) -> ConfigDict:
  """A configuration from the `config` of a config.json, without its tables and objects."""
  found = configs.default(workdirs.task_of({"config": config}))
  known = configs.flat(found)
  found.update_from_flattened_dict({
      key: _tuples(value) for key, value in leaves(config) if key in known and key != "tables"})
  return found


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
  """The values of nested settings by dotted key; what describes an object is one value."""
  for key, value in config.items():
    if isinstance(value, Mapping) and not objects.is_object(value):
      yield from leaves(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


def objects_in(value: Any) -> list[Any]:
  """What stands, at any depth of a value of config.json, for a function, a class or a record."""
  return [each for each in _values(value) if objects.is_object(each)]


def _values(value: Any) -> Iterable[Any]:
  """A value and all values inside it."""
  yield value
  inside = value.values() if isinstance(value, Mapping) else (
      value if isinstance(value, list | tuple) else ())
  for each in inside:
    yield from _values(each)


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
