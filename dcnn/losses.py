"""Training losses by name: the penalty of a residual, averaged over what is really there.

A penalty maps residuals of shape `... components` to one number for each leading index; padded
entries are removed by `masked_mean`, which divides by the number of entries that count.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

Penalty = Callable[[Array, Array | float], Array]
# From a pytree of what one device found, of one type, to its sum over the devices of a run.
AddUp = Callable[[Any], Any]


def alone(found: Any) -> Any:
  """Adds up over the one device that a batch is on."""
  return found


def absolute(residual: Float[Array, "..."], delta: Float[Array, ""] | float) -> Array:
  """|r|, for each component; the loss of the paper's code for energies and forces."""
  del delta
  return jnp.abs(residual)


def squared(residual: Float[Array, "..."], delta: Float[Array, ""] | float) -> Array:
  """r^2, for each component."""
  del delta
  return jnp.square(residual)


def huber(residual: Float[Array, "..."], delta: Float[Array, ""] | float) -> Array:
  """r^2 / 2 up to `delta`, delta (|r| - delta / 2) beyond, for each component.

  Args:
    residual: in physical units.
    delta: where the square turns into a line, in the units of the residual; positive.

  Returns:
    The penalty, of the residual's shape.

  References:
    P. J. Huber, Robust estimation of a location parameter, Ann. Math. Stat. 35 (1964) 73.
  """
  size = jnp.abs(residual)
  return jnp.where(size <= delta, 0.5 * jnp.square(size), delta * (size - 0.5 * delta))


def atom_norm(residual: Float[Array, "*batch 3"], delta: Float[Array, ""] | float) -> Array:
  """|r| of the vector on each atom, spread over its three components.

  Unlike the sum of absolute components this does not depend on how the molecule is turned. The
  norm is safe at zero in value and gradient.
  """
  del delta
  square = jnp.sum(jnp.square(residual), axis=-1, keepdims=True)
  away = square > 0
  norm = jnp.where(away, jnp.sqrt(jnp.where(away, square, 1.0)), 0.0)
  return jnp.broadcast_to(norm / residual.shape[-1], residual.shape)


ENERGY_LOSSES: Mapping[str, Penalty] = {"l1": absolute, "l2": squared, "huber": huber}
FORCE_LOSSES: Mapping[str, Penalty] = {**ENERGY_LOSSES, "atom_norm": atom_norm}


def masked_mean(
    values: Float[Array, "..."], mask: Bool[Array, "..."] | bool,
    count: Int[Array | np.ndarray, ""] | None = None,
) -> Float[Array, ""]:
  """Mean over the entries where the mask, broadcast to `values`, is true; zero if there are none.

  Args:
    values: penalties.
    mask: which of them are real.
    count: of the real ones, where there are more of them than these values.

  Returns:
    A scalar: the mean, or what these values contribute to it.
  """
  mask = jnp.broadcast_to(mask, values.shape)
  total = jnp.sum(jnp.where(mask, values, 0.0))
  return total / jnp.maximum(jnp.sum(mask) if count is None else count, 1)
