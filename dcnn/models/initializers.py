"""Initial weights as PyTorch's networks draw them, as settings of `layers.dense`."""

from typing import Any

import jax
from flax import linen as nn
from jax import Array


def uniform(bound: float) -> nn.initializers.Initializer:
  """Numbers between -bound and bound."""

  def draw(key: Array, shape: Any, dtype: Any = jax.numpy.float32) -> Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return draw


def torch_default(inputs: int) -> dict[str, Any]:
  """Weights and biases between -1 / sqrt(inputs) and 1 / sqrt(inputs): PyTorch's default.

  Args:
    inputs: Number of inputs of the layer.
  """
  return {"kernel_init": uniform(inputs ** -0.5), "bias_init": uniform(inputs ** -0.5)}


def xavier(inputs: int, outputs: int) -> dict[str, Any]:
  """Weights of the variance 2 / (inputs + outputs), uniform, and no bias.

  Args:
    inputs: Number of inputs of the layer, all of them where it is made of several parts.
    outputs: Number of outputs.

  References:
    X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural
    networks, AISTATS (2010), Eq. 16.
  """
  return {"kernel_init": uniform((6.0 / (inputs + outputs)) ** 0.5)}
