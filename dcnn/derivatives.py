"""From a scalar energy function to forces, the virial and Hessian-vector products.

An energy function takes `(variables, system)`, one configuration without a batch axis, and
returns a scalar. The functions that this module makes of it take the same arguments; use `jax.vmap`
for a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from dcnn.base import Labels, System

#: `(variables, system) -> energy` of one configuration.
EnergyFn = Callable[[Any, System], Array | np.ndarray]
#: `(variables, system) -> (energy, state)`, of a network whose calls change its state.
StatefulEnergyFn = Callable[[Any, System], tuple[Array | np.ndarray, Any]]


class Response(NamedTuple):
  """Energy of a configuration and its responses to displacements of the atoms and to strain.

  Attributes:
    energy: Energy in eV.
    forces: Forces -dE/dx in eV/angstrom.
    virial: Virial -dE/d(strain) in eV.
  """

  energy: Float[Array, ""]
  forces: Float[Array, "atoms 3"]
  virial: Float[Array, "3 3"]


def energy_and_forces(energy_fn: EnergyFn) -> Callable[[Any, System], Labels]:
  """Function that gives the energy and the forces F = -dE/dx of a configuration.

  The forces are the exact negative gradient with respect to the positions. They cost one backward
  pass more than the energy alone, and can be differentiated again, as the force loss does.

  Args:
    energy_fn: Maps `(variables, system)` to a scalar, for instance `model.apply`.

  Returns:
    `(variables, system) -> Labels(energy (), forces (atoms 3))`, which unpacks as
    `energy, forces`; eV and eV/angstrom when the energy is in eV and positions in angstrom.

  Raises:
    ValueError: On the call, if the energy is not a scalar.

  >>> def spring(stiffness, system):
  ...   return 0.5 * stiffness * jnp.sum(system.positions ** 2)
  >>> atom = System(positions=np.array([[0.5, 0.0, -1.0]]), species=np.array([1]))
  >>> energy, force = energy_and_forces(spring)(2.0, atom)
  >>> float(energy), force.tolist()
  (1.25, [[-1.0, -0.0, 2.0]])
  """

  def energy_and_forces_fn(variables: Any, system: System) -> Labels:
    energy, gradient = jax.value_and_grad(_of_positions(energy_fn, variables, system))(
        jnp.asarray(system.positions))
    return Labels(energy, -gradient)

  return energy_and_forces_fn


def energy_forces_and_state(
    energy_fn: StatefulEnergyFn) -> Callable[[Any, System], tuple[Labels, Any]]:
  """Function that gives energy, forces and the new state of a network whose calls change it.

  Forces are those of `energy_and_forces`. The state is not differentiated.

  Args:
    energy_fn: Maps `(variables, system)` to a scalar and a pytree, for instance
      `functools.partial(model.apply, mutable=["batch_stats"])`.

  Returns:
    `(variables, system) -> (Labels(energy (), forces (atoms 3)), state)`.

  Raises:
    ValueError: On the call, if the energy is not a scalar.

  >>> def counted_spring(count, system):
  ...   return 0.5 * jnp.sum(system.positions ** 2), count + 1
  >>> atom = System(positions=np.array([[0.5, 0.0, -1.0]]), species=np.array([1]))
  >>> (energy, force), count = energy_forces_and_state(counted_spring)(6, atom)
  >>> float(energy), force.tolist(), int(count)
  (0.625, [[-0.5, -0.0, 1.0]], 7)
  """

  def energy_forces_and_state_fn(variables: Any, system: System) -> tuple[Labels, Any]:
    def position_energy_fn(positions: Float[Array, "atoms 3"]) -> tuple[Array, Any]:
      energy, state = energy_fn(variables, system._replace(positions=positions))
      return _scalar(energy), state

    (energy, state), gradient = jax.value_and_grad(position_energy_fn, has_aux=True)(
        jnp.asarray(system.positions))
    return Labels(energy, -gradient), state

  return energy_forces_and_state_fn


def forces(energy_fn: EnergyFn) -> Callable[[Any, System], Array]:
  """Function that gives the forces F = -dE/dx of a configuration.

  Args:
    energy_fn: Maps `(variables, system)` to a scalar, the energy in eV.

  Returns:
    `(variables, system) -> forces (atoms 3)`.

  Raises:
    ValueError: On the call, if the energy is not a scalar.

  >>> def spring(stiffness, system):
  ...   return 0.5 * stiffness * jnp.sum(system.positions ** 2)
  >>> atom = System(positions=np.array([[0.5, 0.0, -1.0]]), species=np.array([1]))
  >>> forces(spring)(2.0, atom).tolist()
  [[-1.0, -0.0, 2.0]]
  """

  def forces_fn(variables: Any, system: System) -> Array:
    return -jax.grad(_of_positions(energy_fn, variables, system))(jnp.asarray(system.positions))

  return forces_fn


def energy_forces_and_virial(energy_fn: EnergyFn) -> Callable[[Any, System], Response]:
  """Function that gives energy, forces and the virial of a configuration.

  The virial is W = -dE/d(strain) at zero strain, where a strain multiplies positions and lattice
  vectors, both rows, by (1 + strain). For pair forces it is the sum over pairs of r (x) f, with r
  from atom i to atom j and f the force on j. It is symmetric where the energy is invariant under
  rotation, and positive under pressure. See `stress`. It costs one backward pass, as the forces
  alone do.

  Args:
    energy_fn: Maps `(variables, system)` to a scalar, the energy in eV.

  Returns:
    `(variables, system) -> Response(energy (), forces (atoms 3), virial (3 3))`; eV, eV/angstrom
    and eV when the energy is in eV and positions in angstrom.

  Raises:
    ValueError: On the call, if the energy is not a scalar.

  >>> def spring(stiffness, system):
  ...   return 0.5 * stiffness * jnp.sum((system.positions[1] - system.positions[0]) ** 2)
  >>> positions = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
  >>> pair = System(positions, species=np.array([1, 1]))
  >>> response = energy_forces_and_virial(spring)(1.0, pair)
  >>> float(response.energy), float(response.virial[0, 0])  # x f = 2 (-2)
  (2.0, -4.0)
  """

  def energy_forces_and_virial_fn(variables: Any, system: System) -> Response:
    positions = jnp.asarray(system.positions)

    def strained_energy_fn(
        positions: Float[Array, "atoms 3"], strain: Float[Array, "3 3"]) -> Array:
      deformation = jnp.eye(3, dtype=strain.dtype) + strain
      cell = None if system.cell is None else system.cell @ deformation
      strained = system._replace(cell=cell)
      return _of_positions(energy_fn, variables, strained)(positions @ deformation)

    energy, (gradient, strain_gradient) = jax.value_and_grad(strained_energy_fn, argnums=(0, 1))(
        positions, jnp.zeros((3, 3), positions.dtype))
    return Response(energy, -gradient, -strain_gradient)

  return energy_forces_and_virial_fn


def stress(
    virial: Float[Array | np.ndarray, "*frames 3 3"], cell: Float[Array | np.ndarray, "*frames 3 3"]
) -> Float[Array, "*frames 3 3"]:
  """Stress -W / V = dE/d(strain) / V: negative under pressure, as in ASE.

  Args:
    virial: Virials W (*frames 3 3) in eV.
    cell: Lattice vectors in rows (*frames 3 3) in angstrom; all directions must be periodic.

  Returns:
    Stresses (*frames 3 3) in eV/angstrom^3; 1 eV/angstrom^3 is 160.2 GPa.

  >>> stress(virial=8.0 * np.eye(3), cell=2.0 * np.eye(3))[0].tolist()
  [-1.0, -0.0, -0.0]
  """
  volume = jnp.abs(jnp.linalg.det(jnp.asarray(cell)))
  return -jnp.asarray(virial) / volume[..., None, None]


def hessian_vector_product(
    energy_fn: EnergyFn) -> Callable[[Any, System, Float[Array | np.ndarray, "atoms 3"]], Array]:
  """Function that gives the product of the Hessian d2E/dx2 with a displacement of the atoms.

  The derivative is taken forward over reverse: it costs about twice as much as the forces, and the
  Hessian is never formed.

  Args:
    energy_fn: Maps `(variables, system)` to a scalar, the energy in eV.

  Returns:
    `(variables, system, vector (atoms 3)) -> (atoms 3)`; eV/angstrom for a vector in angstrom.

  Raises:
    ValueError: On the call, if the energy is not a scalar or if the vector does not have the shape
      of the positions.

  >>> def spring(stiffness, system):
  ...   return 0.5 * stiffness * jnp.sum(system.positions ** 2)
  >>> atom = System(positions=np.array([[0.5, 0.0, -1.0]]), species=np.array([1]))
  >>> hessian_vector_product(spring)(2.0, atom, np.array([[1.0, 0.0, 3.0]])).tolist()
  [[2.0, 0.0, 6.0]]
  """

  def hessian_vector_product_fn(
      variables: Any, system: System, vector: Float[Array | np.ndarray, "*shape"]) -> Array:
    positions = jnp.asarray(system.positions)
    if jnp.shape(vector) != positions.shape:
      raise ValueError(f"vector must have the shape of the positions, {positions.shape}, "
                       f"received {jnp.shape(vector)}; for a batch use jax.vmap")
    gradient = jax.grad(_of_positions(energy_fn, variables, system))
    return jax.jvp(gradient, (positions,), (jnp.asarray(vector, positions.dtype),))[1]

  return hessian_vector_product_fn


def _of_positions(energy_fn: EnergyFn, variables: Any, system: System) -> Callable[[Array], Array]:
  """The energy as a function of the positions alone, which it is differentiated by."""

  def position_energy_fn(positions: Float[Array, "atoms 3"]) -> Array:
    return _scalar(energy_fn(variables, system._replace(positions=positions)))

  return position_energy_fn


def _scalar(energy: Any) -> Array:
  """The energy, if it is a scalar; a ValueError otherwise."""
  if jnp.shape(energy) != ():
    raise ValueError(f"energy_fn must return a scalar, received shape {jnp.shape(energy)}; sum "
                     "over atoms, and use jax.vmap for a batch of configurations")
  return jnp.asarray(energy)
