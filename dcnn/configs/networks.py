"""What the settings of an arm say of its network's activation and initial weights."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dcnn import activations
from dcnn.activations import Activation
from dcnn.configs.settings import ConfigDict, naming, require
from dcnn.models import layers

REFERENCE_C = 0.5  # the paper's constant, which init_matched arms are matched to


def activation_of(config: ConfigDict) -> Activation:
  """The activation of an arm, with what is known of it.

  Raises:
    ValueError: if there is none of the name.
  """
  with naming("activation.name"):
    return activations.resolve(config.activation.name)


def unread(config: ConfigDict) -> set[str]:
  """The settings of activations that the activation of an arm does not read."""
  read = {"name", "where", *activation_of(config).parameters}
  return {f"activation.{name}" for name in config.activation if name not in read}


def parameters(config: ConfigDict) -> dict[str, Any]:
  """The parameters that the activation of an arm takes, with their values."""
  return {name: config.activation[name] for name in activation_of(config).parameters}


def check(config: ConfigDict) -> None:
  """Makes sure that the initial weights of an arm go with its activation.

  Raises:
    ValueError: naming the settings that do not go together.
  """
  name = config.activation.name
  require(config.init != "init_matched" or name == "irelu",
          f"init=init_matched is for irelu, whose constant it undoes, not {name}")
  require(config.init != "init_matched" or config.activation.offset == 0,
          "init=init_matched needs activation.offset=0: weights scale an offset, too")


def init_gain(config: ConfigDict) -> float:
  """The factor on the initial weights that read the activation.

  Weights that read c relu(x)^2 are divided by c / 0.5 in an `init_matched` arm, which makes its
  network at initialisation the same function as that of c = 0.5.
  """
  if config.init == "init_matched":
    return REFERENCE_C / config.activation.c
  if config.init == "variance_preserving":
    return float(np.asarray(activation_of(config).gain(**parameters(config))))
  return 1.0


def activation_fields(
    config: ConfigDict, elsewhere: layers.Activation = activations.silu
) -> Callable[[Mapping], dict[str, Any]]:
  """What a network's fields `activation` and `output_activation` are.

  Args:
    config: The settings of an arm.
    elsewhere: The activation of the rest of the network where `activation.where` is the output
      block.

  Returns:
    `(hypers) -> fields`; the parameters of the activation and the gain `init_gain` come from
    hyperparameters, which may be traced.
  """
  record = activation_of(config)
  static = {name: config.activation[name] for name in record.static}
  traced = [name for name in record.parameters if name not in record.static]
  everywhere = config.activation.where == "everywhere"

  def fields(hypers: Mapping) -> dict[str, Any]:
    values = {name: hypers[name] for name in traced}
    function = functools.partial(record.function, **static, **values)
    ours = layers.Nonlinearity(function, hypers["init_gain"])
    if everywhere:
      return {"activation": ours, "output_activation": None}
    return {"activation": layers.Nonlinearity(elsewhere), "output_activation": ours}

  return fields


def is_rough(config: ConfigDict, derivatives: int) -> bool:
  """Whether the activation is known to have fewer continuous derivatives than a loss takes."""
  order = activation_of(config).order_at(**parameters(config))
  return order is not None and order < derivatives
