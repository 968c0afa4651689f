"""The table of tasks, and the default configuration of each."""

from collections.abc import Mapping

from dcnn.configs import advection, forcefield, shared
from dcnn.configs.sections import Section
from dcnn.configs.settings import ConfigDict, Setting, make_config, require_choice

TASKS: Mapping[str, Section] = {
    "forcefield": forcefield.SECTION,
    "advection": advection.SECTION,
}


def settings_of(task: str) -> tuple[Setting, ...]:
  """All settings of a task, in the order in which a configuration holds them.

  Args:
    task: A name of `TASKS`.

  Raises:
    ValueError: if there is no such task.
  """
  require_choice(task, TASKS, "task")
  kind = Setting("task", task, "What is trained; it decides which other settings there are.",
                 choices=tuple(TASKS))
  return (*shared.EXPERIMENT, kind, *TASKS[task].settings, *shared.ACTIVATION, *shared.TRAINING)


def default(task: str = "forcefield") -> ConfigDict:
  """The base configuration of a task; experiments start from it and change a few lines.

  Args:
    task: A name of `TASKS`.

  Returns:
    A locked configuration.

  Raises:
    ValueError: if there is no such task.
  """
  return make_config(settings_of(task))


def section_of(config: ConfigDict) -> Section:
  """The section of a configuration's task."""
  return TASKS[config.task]


def setting_table(config: ConfigDict) -> dict[str, Setting]:
  """The settings of a configuration's task by key."""
  return {setting.key: setting for setting in settings_of(config.task)}


SETTINGS: tuple[Setting, ...] = tuple({
    setting.key: setting for task in reversed(TASKS) for setting in settings_of(task)}.values())
