"""What the settings of a task mean: the interface between a task's section and the rest."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from dcnn.base.measures import Measures
from dcnn.base.splits import Frames, Indices
from dcnn.configs.settings import ConfigDict, Setting
from dcnn.tasks.base import Fitted, Problem, Task
from dcnn.use.runs import Runs


@runtime_checkable
class Data(Protocol):
  """What a section has read: of which the rest knows how it is told, and no more."""

  @property
  def summary(self) -> str:
    """What was read, in a line."""
    ...

  @property
  def facts(self) -> dict[str, Any]:
    """What config.json says: `name`, `source`, `checksum` and the number of `frames`."""
    ...


class Parts(NamedTuple):
  """What a section makes of a configuration and its data.

  Attributes:
    problem: The host half of the task.
    splits: The splits of each seed.
    make_task: `(settings of an arm) -> Task`: the device half; called once a group.
    fit: `(name of an arm, its settings, train) -> Fitted`.
  """

  problem: Problem
  splits: tuple[Indices, ...]
  make_task: Callable[[ConfigDict], Task]
  fit: Callable[[str, ConfigDict, Frames], Fitted]


class Section(NamedTuple):
  """The part of a configuration that belongs to a task.

  Attributes:
    settings: Its settings, beside those that every task has.
    check: `(settings of an arm)`: raises a ValueError on what cannot be trained, beyond what the
      settings check one by one.
    unread: `(settings of an arm) -> keys` of the settings that its program does not read.
    switches: `(settings of an arm) -> {name: bool}`: parts of the program that numbers leave out.
    load: `(config) -> Data`: reads what the configuration names.
    build: `(config, data, arms, seeds) -> Parts`.
    warn: `(arms)`: warns of what can be run and may not say what it seems to.
    measures: `(config) -> Measures`.
    use: `(settings of an arm, its runs, its effective settings) -> object`: what is handed to the
      user of trained networks.
  """

  settings: tuple[Setting, ...]
  check: Callable[[ConfigDict], None]
  unread: Callable[[ConfigDict], set[str]]
  switches: Callable[[ConfigDict], dict[str, bool]]
  load: Callable[[ConfigDict], Data]
  build: Callable[[ConfigDict, Any, Mapping[str, ConfigDict], Sequence[int]], Parts]
  warn: Callable[[Mapping[str, ConfigDict]], None]
  measures: Callable[[ConfigDict], Measures]
  use: Callable[[ConfigDict, Runs, Mapping[str, Any]], Any]
