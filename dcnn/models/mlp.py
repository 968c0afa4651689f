"""A multilayer perceptron on the inverse distances of one fixed molecule."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System
from dcnn.models import layers
from dcnn.models.normalisers import Normaliser, none


def inverse_distances(system: System) -> Float[Array, " pairs"]:
  """1 / r of each unordered pair, in 1/angstrom; 0 for padded and coincident pairs."""
  distance = layers.all_pairs(system).distance
  apart = distance > 0
  return jnp.where(apart, 1.0 / jnp.where(apart, distance, 1.0), 0.0)


def descriptor_statistics(systems: System) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of each inverse distance over training configurations.

  With them the network sees inputs of unit variance, without which IReLU, whose variance map has
  no stable fixed point, dies or explodes within a few layers.

  Args:
    systems: positions (frames atoms 3), species (frames atoms).

  Returns:
    Two arrays (pairs,) in 1/angstrom; deviations below a millionth of the mean count as 1.
  """
  positions, species = np.asarray(systems.positions, np.float64), np.asarray(systems.species)
  first, second = layers.unordered_pairs(positions.shape[1])
  distance = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
  # What `inverse_distances` gives: padded atoms lie anywhere, and their pairs count as 0.
  real = (species[:, first] > 0) & (species[:, second] > 0) & (distance > 0)
  inverse = np.where(real, 1.0 / np.where(real, distance, 1.0), 0.0)
  mean, deviation = inverse.mean(axis=0), inverse.std(axis=0)
  return mean, np.where(deviation > 1e-6 * mean, deviation, 1.0)


class MLP(nn.Module):
  """Energy of a fixed molecule from its inverse interatomic distances.

  Invariant under translation and rotation, *not* under exchange of equal atoms: the order of the
  atoms is part of the input. Every frame must hold the same molecule.

  Attributes:
    LIMITS: least and largest size of a layer; their number is within 1 and `layers.MOST_LAYERS`.
    activation: function of an array.
    hidden: sizes of the hidden layers.
    descriptor_mean, descriptor_deviation: (pairs,), from `descriptor_statistics`.
    normaliser: makes the layer applied to each hidden pre-activation.
    where: `everywhere`, or `output_block` for the last hidden layer alone.
    elsewhere: the activation where `activation` does not apply.
    init_gain: factor on the initial weights of the layers that read an activation.
  """

  LIMITS: ClassVar[Mapping[str, tuple[int | float, int | float]]] = {
      "hidden": (1, layers.MOST_UNITS)}

  activation: layers.Activation
  hidden: Sequence[int] = (64, 64)
  descriptor_mean: Float[Array | np.ndarray, " pairs"] | float = 0.0
  descriptor_deviation: Float[Array | np.ndarray, " pairs"] | float = 1.0
  normaliser: Normaliser = none
  where: layers.Where = "everywhere"
  elsewhere: layers.Activation = jax.nn.silu
  init_gain: Float[Array, ""] | float = 1.0

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    mean = jnp.asarray(self.descriptor_mean, system.positions.dtype)
    deviation = jnp.asarray(self.descriptor_deviation, system.positions.dtype)
    features = (inverse_distances(system) - mean) / deviation
    gain = 1.0  # the first layer reads the input, not an activation
    for index, size in enumerate(self.hidden):
      last = index == len(self.hidden) - 1
      act = self.activation if last or self.where == "everywhere" else self.elsewhere
      hidden = self.normaliser()(layers.dense(size, gain, name=f"hidden_{index}")(features))
      features = act(hidden)
      gain = self.init_gain if last or self.where == "everywhere" else 1.0
    return layers.dense(1, gain, name="output")(features)[0]
