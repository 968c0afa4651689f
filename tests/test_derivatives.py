"""Forces and Hessian-vector products against closed forms and finite differences."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dcnn import derivatives
from dcnn.base import Labels, System

SPECIES = np.array([18, 18, 18, 18])
VARIABLES = {"depth": 0.3, "diameter": 1.0, "stiffness": 2.5}


def harmonic(variables, system: System):
  """Springs to the origin, 1/2 k |x|^2."""
  return 0.5 * variables["stiffness"] * jnp.sum(jnp.square(system.positions))


def lennard_jones(variables, system: System):
  """Sum over pairs of 4 depth ((d / r)^12 - (d / r)^6)."""
  rows, columns = np.triu_indices(len(system.species), 1)
  squared = jnp.sum((system.positions[rows] - system.positions[columns]) ** 2, axis=-1)
  power = (variables["diameter"] ** 2 / squared) ** 3
  return jnp.sum(4 * variables["depth"] * (power**2 - power))


def lennard_jones_forces(positions):
  """The closed form, in NumPy."""
  difference = positions[:, None] - positions[None]
  squared = np.sum(difference**2, axis=-1) + np.eye(len(positions))
  power = (VARIABLES["diameter"] ** 2 / squared) ** 3
  size = 24 * VARIABLES["depth"] * (2 * power**2 - power) / squared
  np.fill_diagonal(size, 0)
  return np.sum(size[..., None] * difference, axis=1)


def make_systems(frames=3) -> System:
  rng = np.random.default_rng(0)
  corners = 1.2 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
  return System(corners + 0.05 * rng.normal(size=(frames, 4, 3)), np.tile(SPECIES, (frames, 1)))


@pytest.fixture
def system():
  return jax.tree.map(operator.itemgetter(0), make_systems())


@pytest.fixture
def vector():
  return np.random.default_rng(1).normal(size=(4, 3))


ENERGIES = pytest.mark.parametrize("energy_fn", [harmonic, lennard_jones])


# --- Closed forms and finite differences -----------------------------------------------------


def test_forces_of_springs(system, x64):
  forces = derivatives.forces(harmonic)(VARIABLES, system)
  np.testing.assert_allclose(forces, -2.5 * system.positions, rtol=1e-15)


def test_forces_of_lennard_jones(system, x64):
  energy, forces = derivatives.energy_and_forces(lennard_jones)(VARIABLES, system)
  np.testing.assert_allclose(energy, lennard_jones(VARIABLES, system), rtol=1e-15)
  np.testing.assert_allclose(forces, lennard_jones_forces(system.positions), rtol=1e-11)


def test_minimum_of_a_pair(x64):
  pair = System(np.array([[0, 0, 0], [2 ** (1 / 6), 0, 0]]), SPECIES[:2])
  energy, forces = derivatives.energy_and_forces(lennard_jones)(VARIABLES, pair)
  assert energy == pytest.approx(-0.3)
  np.testing.assert_allclose(forces, 0, atol=1e-14)


@ENERGIES
def test_forces_equal_finite_differences(energy_fn, system, x64):
  forces = np.asarray(derivatives.forces(energy_fn)(VARIABLES, system))
  step = 1e-4

  def energy(displacement):
    return energy_fn(VARIABLES, system._replace(positions=system.positions + displacement))

  for atom, axis in np.ndindex(4, 3):
    unit = np.zeros((4, 3))
    unit[atom, axis] = step
    # Five-point formula, so that truncation stays below the tolerance.
    slope = (8 * (energy(unit) - energy(-unit)) - energy(2 * unit) + energy(-2 * unit)) / 12 / step
    assert -slope == pytest.approx(forces[atom, axis], rel=1e-6, abs=1e-9)


def test_hessian_of_springs(system, vector, x64):
  product = derivatives.hessian_vector_product(harmonic)(VARIABLES, system, vector)
  np.testing.assert_allclose(product, 2.5 * vector, rtol=1e-15)


@pytest.mark.nightly
def test_hessian_vector_product_is_that_of_the_hessian(system, vector, x64):
  def energy(positions):
    return lennard_jones(VARIABLES, system._replace(positions=positions))

  hessian = jax.hessian(energy)(system.positions)
  product = derivatives.hessian_vector_product(lennard_jones)(VARIABLES, system, vector)
  np.testing.assert_allclose(product, np.einsum("iajb,jb->ia", hessian, vector), rtol=1e-11)
  step = 1e-5
  displaced = [lennard_jones_forces(system.positions + sign * step * vector) for sign in (1, -1)]
  slope = (displaced[1] - displaced[0]) / (2 * step)
  np.testing.assert_allclose(product, slope, rtol=1e-6, atol=1e-6 * np.max(np.abs(product)))


@ENERGIES
def test_check_grads_of_a_force_loss(energy_fn, system, x64):
  forces_fn = derivatives.forces(energy_fn)

  def loss(variables, positions):
    return jnp.mean(jnp.square(forces_fn(variables, system._replace(positions=positions))))

  check_grads(loss, (VARIABLES, jnp.asarray(system.positions)), order=2, eps=1e-5)


# --- Laws ------------------------------------------------------------------------------------


def test_forces_sum_to_zero_and_rotate_with_the_molecule(system, x64):
  rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
  forces_fn = derivatives.forces(lennard_jones)
  forces = forces_fn(VARIABLES, system)
  np.testing.assert_allclose(np.sum(forces, axis=0), 0, atol=1e-13)
  turned = forces_fn(VARIABLES, system._replace(positions=system.positions @ rotation.T))
  np.testing.assert_allclose(turned, forces @ rotation.T, rtol=1e-10, atol=1e-12)


def test_hessian_is_symmetric_and_blind_to_translation(system, vector, x64):
  product_fn = derivatives.hessian_vector_product(lennard_jones)
  other = vector[::-1]
  np.testing.assert_allclose(np.vdot(other, product_fn(VARIABLES, system, vector)),
                             np.vdot(vector, product_fn(VARIABLES, system, other)), rtol=1e-11)
  shift = np.ones((4, 3))
  np.testing.assert_allclose(product_fn(VARIABLES, system, shift), 0, atol=1e-12)


def test_labels_are_returned(system):
  result = derivatives.energy_and_forces(harmonic)(VARIABLES, system)
  assert isinstance(result, Labels)
  np.testing.assert_array_equal(result.forces, derivatives.forces(harmonic)(VARIABLES, system))


# --- Programs --------------------------------------------------------------------------------


@ENERGIES
def test_jit_is_eager_and_vmap_is_loop(energy_fn, vector, x64):
  systems = make_systems()
  energy_and_forces = derivatives.energy_and_forces(energy_fn)
  product_fn = derivatives.hessian_vector_product(energy_fn)
  batched = jax.jit(jax.vmap(energy_and_forces, (None, 0)))(VARIABLES, systems)
  products = jax.jit(jax.vmap(product_fn, (None, 0, None)))(VARIABLES, systems, vector)
  for i in range(3):
    one = jax.tree.map(operator.itemgetter(i), systems)
    energy, forces = energy_and_forces(VARIABLES, one)
    np.testing.assert_allclose(batched.energy[i], energy, rtol=1e-12)
    np.testing.assert_allclose(batched.forces[i], forces, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(products[i], product_fn(VARIABLES, one, vector), rtol=1e-11)


@pytest.mark.nightly
def test_float32_positions_give_float32(system, vector, x64):
  single = System(system.positions.astype(np.float32), system.species)
  energy, forces = derivatives.energy_and_forces(lennard_jones)(VARIABLES, single)
  product = derivatives.hessian_vector_product(lennard_jones)(VARIABLES, single, vector)
  assert {energy.dtype, forces.dtype, product.dtype} == {np.dtype(np.float32)}


# --- Bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [derivatives.forces, derivatives.energy_and_forces])
def test_energy_that_is_no_scalar(make, system):
  with pytest.raises(ValueError, match=r"must return a scalar, received shape \(4,\).*jax.vmap"):
    make(lambda variables, system: jnp.sum(system.positions, axis=-1))(VARIABLES, system)


def test_vector_of_the_wrong_shape(system):
  with pytest.raises(ValueError, match=r"shape of the positions, \(4, 3\), received \(3,\)"):
    derivatives.hessian_vector_product(harmonic)(VARIABLES, system, np.ones(3))
