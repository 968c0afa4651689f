"""What a reader of a report needs to know of the arms: their settings, and the words in these."""

from collections.abc import Mapping

from dcnn.base import objects
from dcnn.configs import networks
from dcnn.configs.arms import effective
from dcnn.configs.settings import ConfigDict, Setting, flat
from dcnn.configs.tasks import setting_table


def settings_that_matter(arms: Mapping[str, ConfigDict]) -> dict[str, dict[str, str]]:
  """The settings in which arms differ, and those whose values a glossary explains, of each arm.

  Args:
    arms: The full configuration of each arm, by name.

  Returns:
    By arm and dotted key the value as text, where the program of the arm reads the setting.
  """
  read = {name: effective(config) for name, config in arms.items()}
  table = _table(arms)
  values = {key: {str(each[key]) for each in read.values() if key in each} for key in table}
  keys = [key for key in table if table[key].explain or len(values[key]) > 1]
  return {name: {key: objects.name_of(each[key]) for key in keys if each.get(key) is not None}
          for name, each in read.items()}


def glossary(arms: Mapping[str, ConfigDict]) -> list[list[str]]:
  """The words in the names and settings of arms, with what they mean.

  Args:
    arms: The full configuration of each arm, by name.

  Returns:
    Pairs of a term and its meaning: each value that the arms take of a setting whose values are
    explained, and each other setting in which they differ.
  """
  table, known = _table(arms), settings_that_matter(arms)
  varied = {key for each in known.values() for key in each if not table[key].explain}
  entries: dict[str, str] = {}
  for key, setting in table.items():
    taken = {each[key]: arms[name] for name, each in known.items() if key in each}
    if setting.explain:
      for value, config in taken.items():
        entries[value] = _explained(setting, config, varied)
    elif taken:
      words = [value for value in taken if value in setting.choices]
      term = f"{', '.join(words)} ({key})" if words else key.rpartition(".")[2]
      entries[term] = setting.meaning + (f" Its unit is {setting.unit}." if setting.unit else "")
  return [[term, meaning] for term, meaning in entries.items() if meaning]


def _explained(setting: Setting, config: ConfigDict, varied: set[str]) -> str:
  """The meaning of a value; of an activation also the parameters that are the same in all arms."""
  assert setting.explain is not None
  words = setting.explain(flat(config)[setting.key])
  group = setting.key.partition(".")[0]
  fixed = [f"{name} = {value:g}" for name, value in networks.parameters(config).items()
           if group == "activation" and f"{group}.{name}" not in varied]
  return " ".join(filter(None, [words, f"Here {', '.join(fixed)}." if fixed else ""]))


def _table(arms: Mapping[str, ConfigDict]) -> dict[str, Setting]:
  return {key: setting for config in list(arms.values())[:1]
          for key, setting in setting_table(config).items()}
