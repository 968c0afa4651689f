"""The arms of an experiment: their names, their settings, and which can share a program.

An arm is a dictionary of dotted keys and values that differ from the base configuration; it is
named by those values. Which settings of an arm are numbers that can share a compiled program, and
which change the program, the tables of settings say; the user never does.
"""

import copy
import itertools
from collections.abc import Mapping
from typing import Any

from dcnn import models, optimizers
from dcnn.base import objects
from dcnn.base.text import suggestion
from dcnn.configs import networks
from dcnn.configs.settings import ConfigDict, Setting, flat, naming, require, require_choice
from dcnn.configs.tasks import SETTINGS, section_of, setting_table
from dcnn.results.records import ALL_ARMS, Table
from dcnn.results.schemas import is_crossed

_PREFIXED = {setting.key for setting in SETTINGS if setting.prefixed}


def arm_name(overrides: Mapping[str, Any]) -> str:
  """What differs, in short: words by themselves, numbers with the last part of their key.

  Args:
    overrides: The settings of an arm by dotted key.

  Returns:
    Such as `c=0.1,init_matched`; `base` where nothing differs.
  """
  parts = []
  for key, value in overrides.items():
    word = isinstance(value, str) or objects.is_object(value) or (
        isinstance(value, tuple) and any(map(objects.is_object, value)))
    text = objects.name_of(value) if word else str(value)
    parts.append(text if word and key not in _PREFIXED else f"{key.rpartition('.')[2]}={text}")
  return ",".join(parts) or "base"


def arm_settings(config: ConfigDict) -> dict[str, ConfigDict]:
  """The full configuration of each arm, by name, in the order listed.

  Raises:
    ValueError: on an unknown key, one that arms may not change, or two arms of one name.
  """
  require_mappings(config.arms, "arms", "{'activation.c': 0.1}")
  table = setting_table(config)
  changeable = _changeable(table)
  arms: dict[str, ConfigDict] = {}
  for overrides in config.arms:
    overrides = dict(overrides)
    name = arm_name(overrides)
    for key in overrides:
      if not {key, key.partition(".")[0]} & set(changeable):
        meant = "" if key in table else suggestion(key, table)
        raise ValueError(
            f"arm {name!r} changes {key!r}: {meant}arms may change {', '.join(changeable)}; the "
            "rest is the same for all")
    require(name not in arms, f"arm {name!r} is listed twice")
    arms[name] = with_overrides(config, overrides)
  return arms


def _changeable(table: Mapping[str, Setting]) -> list[str]:
  """What arms may change: groups of settings, and single ones where others of a group are fixed."""
  fixed = {key.partition(".")[0] for key, setting in table.items() if setting.role == "sweep"}
  groups = {key: key.partition(".")[0] for key, setting in table.items() if setting.role != "sweep"}
  return list(dict.fromkeys(key if group in fixed else group for key, group in groups.items()))


def with_overrides(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
  """A copy with dotted keys replaced; a network of one's own may bring settings of its own.

  Raises:
    ValueError: on an unknown key or a value of another type.
  """
  changed = copy.deepcopy(config)
  values = {**flat(config), **overrides}
  own = own_keys(values.get("model.name"))
  with changed.unlocked():
    for key in own & set(overrides) - set(flat(config)):
      changed.update_from_flattened_dict({key: overrides[key]})
  try:
    changed.update_from_flattened_dict(dict(overrides))
  except (KeyError, AttributeError) as error:
    unknown = next((key for key in overrides if key not in flat(config)), "")
    raise ValueError(
        f"unknown key {unknown!r}: {suggestion(unknown, flat(config))}") from error
  except (TypeError, ValueError, OverflowError) as error:
    raise ValueError(f"arm {arm_name(overrides)!r}: {error}") from error
  return _with_defaults(changed)


def _with_defaults(config: ConfigDict) -> ConfigDict:
  """With the defaults of its network for the settings of the network that are None."""
  network = config.model.get("name")
  if network is None or isinstance(network, str) and network not in models.MODELS:
    return config
  with naming("model.name"):
    defaults = models.resolve(network).defaults
  for name, value in defaults.items():
    if name in config.model and config.model[name] is None:
      config.model[name] = value
  return config


def own_keys(network: Any) -> set[str]:
  """The settings that a network brings, whether or not the table of settings lists them.

  Args:
    network: The value of `model.name`, which need not be valid yet; None where there is none.

  Returns:
    The keys of the arguments that the network is made with.
  """
  if network is None or isinstance(network, str) and network not in models.MODELS:
    return set()
  with naming("model.name"):
    return {f"model.{name}" for name in models.resolve(network).settings}


def require_mappings(value: Any, name: str, example: str) -> None:
  """Makes sure that a setting is a list of dictionaries whose keys are text."""
  listed = isinstance(value, tuple | list) and all(
      isinstance(item, Mapping | ConfigDict) and all(isinstance(key, str) for key in item)
      for item in value)
  require(listed, f"{name} must be a list of dictionaries such as {example}, got {value!r}")


def tables(config: ConfigDict) -> tuple[Table, ...]:
  """The comparisons of the report; by default all arms against the first."""
  require_mappings(config.tables, "tables", "{'title': ..., 'baseline': ..., 'arms': (...)}")
  names = tuple(arm_name(dict(overrides)) for overrides in config.arms)
  if not config.tables:
    return (Table(ALL_ARMS, names[0], names),) if len(names) > 1 else ()
  for table in config.tables:
    for key in table:
      require_choice(key, ("title", "baseline", "arms", "factors"), "entry of a table:")
    require({"title", "baseline", "arms"} <= set(table) and bool(table["arms"])
            and isinstance(table["arms"], tuple | list)
            and all(isinstance(text, str) for text in (
                table["title"], table["baseline"], *table["arms"])),
            f"a table needs a title, a baseline and arms, got {dict(table)}")
  return tuple(
      Table(t["title"], t["baseline"], tuple(t["arms"]), _factors(config, t))
      for t in config.tables)


def _factors(config: ConfigDict, table: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
  """The levels of the two settings that a table says its arms cross, read off the arms.

  Raises:
    ValueError: if it names no two settings, or the arms do not cross them.
  """
  keys = table.get("factors", ())
  if not keys:
    return {}
  title = f"table {table['title']!r}: factors"
  require(isinstance(keys, tuple | list) and len(keys) == 2
          and all(isinstance(key, str) for key in keys) and keys[0] != keys[1],
          f"{title} must name two settings, such as ('activation.c', 'labels'), got {keys!r}")
  arms = arm_settings(config)
  unknown = next((name for name in table["arms"] if name not in arms), None)
  if unknown is not None:  # the check of tables names those that are known
    return {}
  settings = [flat(arms[name]) for name in table["arms"]]
  for key in keys:
    require_choice(key, settings[0], f"setting in {title}:")
  levels = {key: tuple(objects.name_of(each[key]) for each in settings) for key in keys}
  for key, found in levels.items():
    require(len(set(found)) > 1, f"{title}: all arms have {key}={found[0]}; a factor needs two "
            "levels or more")
  if not is_crossed(levels.values(), len(settings)):
    raise ValueError(f"{title}: {_uncrossed(levels)}")
  return levels


def _uncrossed(levels: Mapping[str, tuple[str, ...]]) -> str:
  """Which pair of levels no arm has, or several have."""
  cells = list(zip(*levels.values(), strict=True))
  wrong = next(cell for cell in itertools.product(*map(dict.fromkeys, levels.values()))
               if cells.count(cell) != 1)
  shown = " and ".join(f"{key}={level}" for key, level in zip(levels, wrong, strict=True))
  return (f"{'no arm has' if wrong not in cells else 'several arms have'} {shown}; the arms of "
          "a factorial are all pairs of levels, each once")


def effective(config: ConfigDict) -> dict[str, Any]:
  """The settings of an arm that its program reads, dotted; the names in it must be valid.

  The constant of irelu is not among them where the activation is silu, and so on. Objects stand as
  config.json describes them.
  """
  table = setting_table(config)
  read = optimizers.resolve(config.optimizer.name).parameters
  unread = networks.unread(config) | section_of(config).unread(config) | {
      f"optimizer.{name}" for name in optimizers.PARAMETERS
      if name not in ("learning_rate", "weight_decay", *read)}
  return {key: objects.describe(value) for key, value in flat(config).items()
          if key not in unread and (key not in table or table[key].role != "sweep")}


def structure(config: ConfigDict) -> str:
  """All settings of an arm that change its program, as text that can be compared."""
  table = setting_table(config)
  program = {key: value for key, value in effective(config).items()
             if key not in table or table[key].role == "program"}
  return str(sorted(program.items()) + sorted(switches(config).items()))


def switches(config: ConfigDict) -> dict[str, bool]:
  """The parts of the program that a zero leaves out."""
  return {
      **section_of(config).switches(config),
      "weight_decay": config.optimizer.weight_decay > 0,
      "clip_norm": config.optimizer.clip_norm > 0,
      "average": config.optimizer.ema_decay > 0,
  }


def hypers(config: ConfigDict) -> dict[str, float]:
  """The numbers of an arm that enter its program as arguments, by name."""
  values = flat(config)
  numbers = {setting.hyper: float(values[setting.key])
             for setting in setting_table(config).values() if setting.role == "number"}
  return {**numbers, "init_gain": networks.init_gain(config)}
