"""Networks: symmetries, padding, coincident atoms, and the gain of the initialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcnn import activations, derivatives
from dcnn.base import System
from dcnn.models import MLP, NORMALISERS, SchNet, layers, mlp, schnet

ETHANOL = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
irelu = functools.partial(activations.irelu, c=0.5)


def molecule(atoms=9, seed=0):
  positions = np.random.default_rng(seed).normal(size=(atoms, 3)) * 1.5
  return System(jnp.asarray(positions), jnp.asarray(ETHANOL[:atoms]))


def networks():
  small = {"features": 8, "blocks": 2, "radial": 6}
  return {
      "schnet": SchNet(irelu, **small),
      "schnet_silu_layer": SchNet(jax.nn.silu, normaliser=NORMALISERS["layer"], **small),
      "schnet_output_block": SchNet(irelu, where="output_block", **small),
      "mlp": MLP(irelu, hidden=(8, 8)),
      "mlp_layer": MLP(jax.nn.silu, hidden=(8, 8), normaliser=NORMALISERS["layer"]),
  }


@pytest.fixture(params=networks())
def network(request, x64):
  model = networks()[request.param]
  system = molecule()
  variables = model.init(jax.random.key(0), system)
  variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
  return request.param, model, variables, system


def rotation(seed=1):
  q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
  return jnp.asarray(q * np.sign(np.linalg.det(q)))


def test_forces_equal_finite_differences(network):
  _, model, variables, system = network
  exact = jax.jit(derivatives.forces(model.apply))(variables, system)
  energy = jax.jit(model.apply)
  step = 1e-5
  for atom, axis in ((0, 0), (2, 1), (8, 2)):
    shift = jnp.zeros((9, 3)).at[atom, axis].set(step)
    plus, minus = (
        energy(variables, system._replace(positions=system.positions + sign * shift))
        for sign in (1, -1))
    np.testing.assert_allclose(-(plus - minus) / (2 * step), exact[atom, axis], rtol=1e-6,
                               atol=1e-6 * jnp.abs(exact).max())


def test_forces_sum_to_zero(network):
  _, model, variables, system = network
  forces = jax.jit(derivatives.forces(model.apply))(variables, system)
  np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-12 * jnp.abs(forces).max())


def test_forces_rotate_with_the_molecule_and_ignore_translation(network):
  _, model, variables, system = network
  turn = rotation()
  moved = system._replace(positions=system.positions @ turn.T + jnp.array([3.0, -1.0, 2.0]))
  predict = jax.jit(derivatives.energy_and_forces(model.apply))
  energy, forces = predict(variables, system)
  moved_energy, moved_forces = predict(variables, moved)
  np.testing.assert_allclose(moved_energy, energy, rtol=1e-10)
  np.testing.assert_allclose(moved_forces, forces @ turn.T, atol=1e-10 * jnp.abs(forces).max())


@pytest.mark.parametrize("name", ["schnet", "schnet_silu_layer", "schnet_output_block"])
def test_schnet_is_invariant_under_exchange_of_equal_atoms(name, x64):
  model, system = networks()[name], molecule()
  variables = model.init(jax.random.key(0), system)
  order = np.array([1, 0, 2, 5, 3, 4, 8, 7, 6])
  swapped = System(system.positions[order], system.species[order])
  np.testing.assert_allclose(
      model.apply(variables, swapped), model.apply(variables, system), rtol=1e-12)


@pytest.mark.parametrize("name", ["schnet", "schnet_silu_layer", "schnet_output_block"])
def test_padded_atoms_change_nothing(name, x64):
  model, system = networks()[name], molecule()
  variables = model.init(jax.random.key(0), system)
  padded = System(jnp.pad(system.positions, ((0, 3), (0, 0))), jnp.pad(system.species, (0, 3)))
  energy, forces = derivatives.energy_and_forces(model.apply)(variables, system)
  padded_energy, padded_forces = derivatives.energy_and_forces(model.apply)(variables, padded)
  np.testing.assert_allclose(padded_energy, energy, rtol=1e-12)
  np.testing.assert_allclose(padded_forces[:9], forces, atol=1e-12)
  assert (padded_forces[9:] == 0).all()


def coincident():
  system = molecule()
  return system._replace(positions=system.positions.at[1].set(system.positions[0]))


def padded():
  system = molecule()
  return System(jnp.pad(system.positions, ((0, 3), (0, 0))), jnp.pad(system.species, (0, 3)))


def far():
  system = molecule()
  return system._replace(positions=system.positions.at[8].add(1e4))


@pytest.mark.parametrize("make", [coincident, padded, far])
@pytest.mark.parametrize("name", list(networks()))
def test_value_forces_and_gradient_of_the_force_loss_are_finite(name, make):
  model, system = networks()[name], make()
  variables = model.init(jax.random.key(0), system)

  def force_loss(variables):
    return jnp.sum(jnp.abs(derivatives.forces(model.apply)(variables, system)))

  value, gradient = jax.jit(jax.value_and_grad(force_loss))(variables)
  assert np.isfinite(model.apply(variables, system)) and np.isfinite(value)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_batched_equals_one_by_one():
  model = networks()["schnet"]
  systems = [molecule(seed=seed) for seed in range(3)]
  variables = model.init(jax.random.key(0), systems[0])
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *systems)
  batched = jax.jit(jax.vmap(model.apply, (None, 0)))(variables, stacked)
  single = [model.apply(variables, system) for system in systems]
  np.testing.assert_allclose(batched, single, rtol=1e-5)


def test_cutoff_and_its_first_three_derivatives_vanish_smoothly(x64):
  function = functools.partial(schnet.smooth_cutoff, cutoff=5.0)
  for order in range(4):
    at = jnp.array(5.0 - 1e-7)
    assert abs(function(at)) < 1e-5 and function(jnp.array(6.0)) == 0, order
    function = jax.grad(function)


def test_filters_count_each_pair_once_and_are_symmetric():
  first, second = layers.unordered_pairs(5)
  assert len(first) == 10 and (first < second).all()
  assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 10


def test_descriptor_statistics_give_unit_variance():
  systems = System(
      np.random.default_rng(0).normal(size=(50, 9, 3)), np.tile(ETHANOL, (50, 1)))
  mean, deviation = mlp.descriptor_statistics(systems)
  inverse = jax.vmap(mlp.inverse_distances)(jax.tree.map(jnp.asarray, systems))
  scaled = (np.asarray(inverse) - mean) / deviation
  np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
  np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize("make", [
    lambda act, gain: SchNet(act, features=8, blocks=2, radial=6, init_gain=gain),
    lambda act, gain: MLP(act, hidden=(8, 8, 8), init_gain=gain),
], ids=["schnet", "mlp"])
def test_init_matched_network_is_the_same_function(make, x64):
  """c relu(x)^2 read by W (0.5 / c) equals 0.5 relu(x)^2 read by W: all such layers are scaled."""
  system = molecule()
  energies = [
      make(functools.partial(activations.irelu, c=c), 0.5 / c).init_with_output(
          jax.random.key(0), system)[0]
      for c in (0.5, 0.125, 1.0, 2.0)]  # powers of two: the float32 weights scale without rounding
  np.testing.assert_allclose(energies, energies[0], rtol=1e-12)


def test_output_block_alone_uses_the_activation():
  calls = []

  def counted(x):
    calls.append(x.shape)
    return jax.nn.silu(x)

  SchNet(counted, features=8, blocks=2, radial=6, where="output_block").init(
      jax.random.key(0), molecule())
  assert calls == [(9, 4)]
