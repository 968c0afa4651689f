"""Training losses by name: the penalty of a residual, averaged over what is really there.

A penalty maps residuals of shape `... components` to one number for each leading index; padded
entries are removed by `masked_mean`, which divides by the number of entries that count.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

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


from typing import NamedTuple  # SHIM


class Penalty(NamedTuple):
  function: Callable
  parameters: tuple = ("delta",)
ENERGY_LOSSES = {"l1": Penalty(absolute), "l2": Penalty(squared), "huber": Penalty(huber)}
FORCE_LOSSES = {**ENERGY_LOSSES, "atom_norm": Penalty(atom_norm)}
def resolve(spec, table): return table[spec] if isinstance(spec, str) else Penalty(spec, ())
