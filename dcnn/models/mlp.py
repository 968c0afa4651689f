"""A multilayer perceptron on the inverse distances of one fixed molecule."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System
from dcnn.models import layers
from dcnn.models.checks import check_free_space
from dcnn.models.normalisers import Normaliser, none, normalised

MOST_ATOMS = 500  # the first layer reads all pairs


class FrameError(ValueError):
  """A frame that a network cannot take.

  Attributes:
    frame: Index of the frame among those that were checked.
    reason: What is wrong with it and what to do, as a sentence without its subject.
  """

  def __init__(self, frame: int, reason: str) -> None:
    """Says which frame, and why."""
    super().__init__(f"frame {frame} {reason}")
    self.frame, self.reason = frame, reason


def inverse_distances(system: System) -> Float[Array, " pairs"]:
  """1 / r of each unordered pair of atoms.

  Args:
    system: One configuration in free space.

  Returns:
    Inverse distances in 1/angstrom, in the order of `layers.unordered_pairs`; 0 for padded and for
    coincident atoms.

  >>> pair = System(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 4.0]]), jnp.array([1, 1]))
  >>> print(inverse_distances(pair))
  [0.25]
  """
  distance = layers.all_pairs(system).distance
  apart = distance > 0
  return jnp.where(apart, 1.0 / jnp.where(apart, distance, 1.0), 0.0)


class MLP(nn.Module):
  """Energy of a fixed molecule from its inverse interatomic distances.

  The energy is invariant under translation and rotation, but *not* under exchange of equal atoms:
  the order of the atoms is part of the input. Every frame must hold the same molecule.

  Attributes:
    LIMITS: Least and largest size of a layer; there are 1 to `layers.MOST_LAYERS` of them.
    LISTED: It reads the distances of all pairs, and no neighbour list.
    STATISTICS: Names of the fields that `statistics` computes from training data.
    activation: The activation of the hidden layers, a function of an array or a
      `layers.Nonlinearity`.
    output_activation: The activation of the last hidden layer; None is `activation`.
    hidden: Sizes of the hidden layers.
    descriptor_mean: What is subtracted from each inverse distance, in 1/angstrom.
    descriptor_deviation: What each inverse distance is then divided by, in 1/angstrom.
    normaliser: Makes the layer that is applied to each hidden pre-activation.
  """

  LIMITS: ClassVar[Mapping[str, tuple[int | float, int | float]]] = {
      "hidden": (1, layers.MOST_UNITS)}
  LISTED: ClassVar[bool] = False
  STATISTICS: ClassVar[Sequence[str]] = ("descriptor_mean", "descriptor_deviation")

  activation: layers.Activation
  hidden: Sequence[int] = (64, 64)
  descriptor_mean: Float[Array | np.ndarray, " pairs"] | float = 0.0
  descriptor_deviation: Float[Array | np.ndarray, " pairs"] | float = 1.0
  normaliser: Normaliser = none
  output_activation: layers.Activation | None = None

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    mean = jnp.asarray(self.descriptor_mean, system.positions.dtype)
    deviation = jnp.asarray(self.descriptor_deviation, system.positions.dtype)
    features = (inverse_distances(system) - mean) / deviation
    read = None  # the first layer reads the input, not an activation
    for index, size in enumerate(self.hidden):
      is_last = index == len(self.hidden) - 1
      act = self.output_activation or self.activation if is_last else self.activation
      layer = layers.dense(size, reads=read, name=f"hidden_{index}")
      # A row is a whole molecule, which is real.
      features = act(normalised(layer(features), self.normaliser(), jnp.ones((), features.dtype)))
      read = act
    return layers.dense(1, reads=read, name="output")(features)[0]

  @staticmethod
  def statistics(systems: System) -> dict[str, np.ndarray]:
    """Mean and standard deviation of each inverse distance over training configurations.

    With them the network sees inputs of unit variance, without which IReLU, whose variance map has
    no stable fixed point, dies or explodes within a few layers.

    Args:
      systems: The training configurations, positions (frames, atoms, 3) in angstrom and species
        (frames, atoms).

    Returns:
      The fields `descriptor_mean` and `descriptor_deviation`, arrays (pairs,) in 1/angstrom; a
      deviation below a millionth of the mean is replaced by 1.
    """
    positions, species = np.asarray(systems.positions, np.float64), np.asarray(systems.species)
    first, second = layers.unordered_pairs(positions.shape[1])
    distance = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
    # As in `inverse_distances`: padded atoms lie anywhere, and their pairs count as 0.
    real = (species[:, first] > 0) & (species[:, second] > 0) & (distance > 0)
    inverse = np.where(real, 1.0 / np.where(real, distance, 1.0), 0.0)
    mean, deviation = inverse.mean(axis=0), inverse.std(axis=0)
    return {"descriptor_mean": mean,
            "descriptor_deviation": np.where(deviation > 1e-6 * mean, deviation, 1.0)}

  @staticmethod
  def check(systems: System) -> None:
    """Makes sure that all frames hold one molecule in free space.

    Args:
      systems: All configurations, those to be tested on included.

    Raises:
      FrameError: If a frame has other atoms than the first, or the same in another order.
      ValueError: If there are cells, or more than `MOST_ATOMS` atoms.
    """
    check_free_space(
        systems, "MLP", reads="the distances of all pairs", most_atoms=MOST_ATOMS)
    species = np.asarray(systems.species)
    other = np.flatnonzero((species != species[0]).any(axis=1))
    if other.size:
      raise FrameError(int(other[0]), "has other atoms, or in another order, than the first frame, "
                       "and MLP is for one fixed molecule: take SchNet")
