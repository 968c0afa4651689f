"""Penalties of residuals by name, of which training losses are made.

A penalty maps residuals (..., components) to one number for each entry. A task averages them over
the entries that are real (`tasks.base.mean_term`).
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dcnn.base import text


class Penalty(NamedTuple):
  """A penalty, and the names of the settings that it reads.

  Attributes:
    function: function(residual, **parameters) gives the penalty of each entry of the residual, in
      an array of the residual's shape.
    parameters: Names of the parameters, such as `delta`; each is a number that may be traced.
  """

  function: Callable[..., Array]
  parameters: tuple[str, ...] = ()


def absolute(residual: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
  """|r| of each component; the loss of the paper's code for energies and forces.

  Args:
    residual: Predicted less reference values, in physical units.

  Returns:
    The penalty of each entry, in the unit of the residual.

  >>> print(absolute(jnp.array([-2.0, 0.5])))
  [2.  0.5]
  """
  return jnp.abs(residual)


def square(residual: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
  """r^2 of each component.

  Args:
    residual: Predicted less reference values, in physical units.

  Returns:
    The penalty of each entry, in the unit of the residual squared.

  >>> print(square(jnp.array([-2.0, 0.5])))
  [4.   0.25]
  """
  return jnp.square(residual)


def huber(
    residual: Float[Array, "*axes"], delta: Float[Array, ""] | float) -> Float[Array, "*axes"]:
  """r^2 / 2 up to `delta`, delta (|r| - delta / 2) beyond, for each component.

  Args:
    residual: Predicted less reference values, in physical units.
    delta: Size of the residual at which the square turns into a line, in the unit of the residual;
      positive.

  Returns:
    The penalty of each entry, in the unit of the residual squared.

  References:
    P. J. Huber, Robust estimation of a location parameter, Ann. Math. Stat. 35 (1964) 73.

  >>> print(huber(jnp.array([-2.0, 0.5]), delta=1.0))
  [1.5   0.125]
  """
  size = jnp.abs(residual)
  return jnp.where(size <= delta, 0.5 * jnp.square(size), delta * (size - 0.5 * delta))


def atom_norm(residual: Float[Array, "*batch components"]) -> Float[Array, "*batch components"]:
  """|r| of the vector on each atom, divided evenly among its components.

  Unlike the sum of absolute components it does not depend on the orientation of the molecule. The
  norm is safe at zero, in its value and in its gradient.

  Args:
    residual: Predicted less reference vectors, in physical units, such as forces (atoms, 3).

  Returns:
    |r| / components for each component, in the unit of the residual.

  >>> print(atom_norm(jnp.array([[0.0, 3.0, 4.0, 0.0]])))
  [[1.25 1.25 1.25 1.25]]
  """
  square = jnp.sum(jnp.square(residual), axis=-1, keepdims=True)
  away = square > 0
  norm = jnp.where(away, jnp.sqrt(jnp.where(away, square, 1.0)), 0.0)
  return jnp.broadcast_to(norm / residual.shape[-1], residual.shape)


#: Penalties of energies, and of residuals of equations, by name.
ENERGY_LOSSES: Mapping[str, Penalty] = {
    "l1": Penalty(absolute), "l2": Penalty(square), "huber": Penalty(huber, ("delta",))}
#: Penalties of forces, by name.
FORCE_LOSSES: Mapping[str, Penalty] = {**ENERGY_LOSSES, "atom_norm": Penalty(atom_norm)}


def resolve(spec: Any, table: Mapping[str, Penalty], what: str = "loss") -> Penalty:
  """The penalty of a name; one of the user's own is taken as it is.

  Args:
    spec: A name in the table, a `Penalty`, or a function of the residual alone.
    table: `ENERGY_LOSSES` or `FORCE_LOSSES`, or another task's penalties by name.
    what: What the name is of, for messages.

  Returns:
    The penalty, with the names of the parameters that it takes.

  Raises:
    ValueError: If the table has no penalty of that name, or if `spec` is no function that can be
      called with a residual and its parameters.

  >>> resolve("huber", ENERGY_LOSSES).parameters
  ('delta',)
  >>> resolve(jnp.abs, ENERGY_LOSSES).parameters
  ()
  """
  if isinstance(spec, str):
    if spec not in table:
      raise ValueError(text.unknown(what, spec, table))
    return table[spec]
  penalty = spec if isinstance(spec, Penalty) else Penalty(spec)
  if not callable(penalty.function):
    raise ValueError("expected the name of a loss, a function of the residual or a losses.Penalty, "
                     f"received {text.one_line(repr(spec))[:60]}")
  try:
    signature = inspect.signature(penalty.function)
  except ValueError:  # some functions that are written in C have none
    return penalty
  name = getattr(penalty.function, "__name__", type(penalty.function).__name__)
  try:  # one that needs more than its record says would fail only while it is traced
    signature.bind(0.0, **dict.fromkeys(penalty.parameters, 0.0))
  except TypeError as error:
    given = "".join(f", {parameter}=..." for parameter in penalty.parameters)
    raise ValueError(
        f"the loss {name}{signature} cannot be called as {name}(residual{given}) ({error}): name "
        f"what it reads, as in losses.Penalty({name}, ('delta',))") from error
  return penalty
