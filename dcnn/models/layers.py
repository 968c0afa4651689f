"""What the networks share: pairs of atoms, safe distances, and dense layers with a gain."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Int

from dcnn.base import System
from dcnn.models import primitives

Activation = Callable[[Array], Array]
Where = Literal["everywhere", "output_block"]


def unordered_pairs(atoms: int) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
  """Indices (i, j), i < j, of all pairs of atoms: each pair once."""
  first, second = np.triu_indices(atoms, k=1)
  return first, second


def pair_distances(system: System) -> tuple[Float[Array, " pairs"], Float[Array, " pairs"]]:
  """Distance of each unordered pair, and 1 where both atoms are real, else 0.

  Where two atoms coincide, and on padded pairs, the distance is 0 and so are its first and second
  derivatives: the force loss differentiates twice, and d sqrt(x)/dx is infinite at 0. Both
  branches of the choice are finite, so no NaN reaches the gradient.

  Args:
    system: positions (atoms 3) in angstrom, species (atoms).

  Returns:
    Distances in angstrom and the mask, both of shape (pairs,).
  """
  first, second = unordered_pairs(system.species.shape[0])
  species = jnp.asarray(system.species)
  real = (species[first] > 0) & (species[second] > 0)
  difference = system.positions[first] - system.positions[second]
  square = jnp.sum(jnp.square(difference), axis=-1)
  apart = real & (square > 0)
  distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)
  return distance, real.astype(distance.dtype)


def dense(features: int, gain: Float[Array, ""] | float = 1.0, **kwargs) -> nn.Dense:
  """A dense layer whose weights start with standard deviation gain / sqrt(inputs).

  The gain may be traced, so that it can differ between the arms of a vmapped sweep.
  """
  base = nn.initializers.lecun_normal()
  return nn.Dense(
      features, kernel_init=lambda key, shape, dtype: gain * base(key, shape, dtype),
      dot_general=primitives.dot_general, **kwargs)
