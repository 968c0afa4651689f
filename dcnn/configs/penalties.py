"""Penalties whose parameters are settings: `loss.WHAT_PARAMETER` of a penalty of WHAT."""

from collections.abc import Callable, Mapping
from typing import Any

from jax import Array

from dcnn import losses
from dcnn.configs.settings import ConfigDict, flat, naming, require
from dcnn.losses import Penalty


def make(
    spec: Any, table: Mapping[str, Penalty], what: str) -> Callable[[Array, Mapping], Array]:
  """A penalty that reads its parameters from the numbers of an arm.

  Args:
    spec: The value of the setting: a name of the table, a function or a `Penalty`.
    table: The penalties by name.
    what: What the residual is of, such as `energy`.

  Returns:
    `(residual, hypers) -> penalty`.
  """
  function, parameters = losses.resolve(spec, table)
  return lambda residual, hypers: function(
      residual, **{name: hypers[f"{what}_{name}"] for name in parameters})


def check(config: ConfigDict, key: str, table: Mapping[str, Penalty], what: str) -> None:
  """Makes sure that a setting names a penalty, and that there is a setting for its parameters.

  Args:
    config: The settings of an arm.
    key: The setting, such as `loss.energy`.
    table: The penalties by name.
    what: What the residual is of, such as `energy`.

  Raises:
    ValueError: naming the penalties that there are, or the parameter that has no setting.
  """
  with naming(key):
    penalty = losses.resolve(flat(config)[key], table, key)
  for name in penalty.parameters:
    require(f"{what}_{name}" in config.loss,
            f"the penalty of {what} reads {name}, and there is no setting loss.{what}_{name}: bind "
            f"it, as in functools.partial(penalty, {name}=0.1)")


def unread(config: ConfigDict, spec: Any, table: Mapping[str, Penalty], what: str) -> set[str]:
  """The settings of penalties of this kind that the penalty of an arm does not read."""
  read = {"weight", *losses.resolve(spec, table).parameters}
  return {f"loss.{name}" for name in config.loss
          if name.startswith(f"{what}_") and name.removeprefix(f"{what}_") not in read}
