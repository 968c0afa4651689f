"""Networks: symmetries, padding, coincident atoms, and the gain of the initialisation."""

import functools
import operator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dcnn import activations, derivatives, models
from dcnn.base import System
from dcnn.models import MLP, NORMALISERS, Nonlinearity, SchNet, layers, mlp

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
      "schnet_output_block": SchNet(jax.nn.silu, output_activation=irelu, **small),
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


def test_filters_count_each_pair_once_and_are_symmetric():
  first, second = layers.unordered_pairs(5)
  assert len(first) == 10 and (first < second).all()
  assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 10


def test_descriptor_statistics_give_unit_variance():
  systems = System(
      np.random.default_rng(0).normal(size=(50, 9, 3)), np.tile(ETHANOL, (50, 1)))
  mean, deviation = MLP.statistics(systems).values()
  inverse = jax.vmap(mlp.inverse_distances)(jax.tree.map(jnp.asarray, systems))
  scaled = (np.asarray(inverse) - mean) / deviation
  np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
  np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize("make", [
    lambda act: SchNet(act, features=8, blocks=2, radial=6),
    lambda act: SchNet(jax.nn.silu, output_activation=act, features=8, blocks=2, radial=6),
    lambda act: MLP(act, hidden=(8, 8, 8)),
    lambda act: MLP(jax.nn.silu, output_activation=act, hidden=(8, 8, 8)),
], ids=["schnet", "schnet_output", "mlp", "mlp_output"])
def test_init_matched_network_is_the_same_function(make, x64):
  """c relu(x)^2 read by W (0.5 / c) equals 0.5 relu(x)^2 read by W: all such layers are scaled."""
  system = molecule()
  energies = [
      make(Nonlinearity(functools.partial(activations.irelu, c=c), 0.5 / c)).init_with_output(
          jax.random.key(0), system)[0]
      for c in (0.5, 0.125, 1.0, 2.0)]  # powers of two: the float32 weights scale without rounding
  np.testing.assert_allclose(energies, energies[0], rtol=1e-12)


def test_output_block_alone_uses_the_activation():
  calls = []

  def counted(x):
    calls.append(x.shape)
    return jax.nn.silu(x)

  network = SchNet(jax.nn.silu, output_activation=counted, features=8, blocks=2, radial=6)
  network.init(jax.random.key(0), molecule())
  assert calls == [(9, 4)]


def everywhere(act):
  """Makers of each network with one activation."""
  return {"schnet": lambda: SchNet(act, features=4, blocks=2, radial=4),
          "mlp": lambda: MLP(act, hidden=(4, 4))}


READERS = {"schnet": {"update_0", "update_1", "filter_0", "filter_1", "output"},
           "mlp": {"hidden_1", "output"}}


@pytest.mark.parametrize("name", READERS)
def test_the_gain_is_on_the_weights_that_read_the_activation_and_on_no_other(name):
  """Also where it is traced, a number for each run of a vmapped sweep."""
  def init(gain):
    network = everywhere(Nonlinearity(jax.nn.silu, gain))[name]()
    assert isinstance(network.activation, Nonlinearity)  # Flax takes tuples apart
    return network.init(jax.random.key(0), molecule())["params"]

  plain = everywhere(jax.nn.silu)[name]().init(jax.random.key(0), molecule())["params"]
  gains = jnp.array([1.0, 2.0, 0.25])
  stacked = jax.jit(jax.vmap(init))(gains)
  for run, gain in enumerate(gains):
    expected = {
        layer: {key: leaf * (gain if layer in READERS[name] and key == "kernel" else 1.0)
                for key, leaf in leaves.items()}
        for layer, leaves in plain.items()}
    found = jax.tree.map(operator.itemgetter(run), stacked)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", READERS)
def test_a_nonlinearity_of_gain_1_is_its_function(name):
  key, system = jax.random.key(0), molecule()
  both = [everywhere(act)[name]().init_with_output(key, system)
          for act in (jax.nn.silu, Nonlinearity(jax.nn.silu))]
  chex.assert_trees_all_equal(*both)


class Holder(nn.Module):
  """A user's network that keeps its activation in another place."""

  act: Any

  def setup(self):
    self.kept = (self.act, {"again": self.act})

  def __call__(self, system):
    assert self.kept[0] is self.act is self.kept[1]["again"]
    return jnp.sum(self.act(system.positions))


def test_flax_leaves_a_nonlinearity_whole():
  act = Nonlinearity(jax.nn.silu, jnp.float32(2.0))
  network = Holder(act)
  energy, variables = network.init_with_output(jax.random.key(0), molecule())
  assert network.act is act and not variables
  assert energy == jnp.sum(jax.nn.silu(molecule().positions))


# The table of networks.


class PairNet(nn.Module):
  """A network of a user's own: as few fields as can be."""

  activation: Any
  width: int
  depth: int = 2

  @nn.compact
  def __call__(self, system):
    values = mlp.inverse_distances(system)[:, None]
    for _ in range(self.depth):
      values = self.activation(nn.Dense(self.width)(values))
    return jnp.sum(values)


def pair_net(activation, width=4, normaliser=None):
  del normaliser
  return PairNet(activation, width)


class Partial:
  """What a network can leave out, alone."""

  @staticmethod
  def check(systems):
    raise ValueError(f"{len(systems.species)} frames")

  LIMITS = {"width": (1, 9)}
  STATISTICS = ("mean",)

  def __init__(self, activation, width, mean, output_activation=None):
    self.init = self.apply = None


NETWORKS = {
    "SchNet": ("SchNet", {"features": 64, "blocks": 3, "radial": 32, "cutoff": 5.0}, (),
               ("output_activation", "normaliser"), False, False),
    "MLP": ("MLP", {"hidden": (64, 64)}, (), ("output_activation", "normaliser"), True, True),
    "a class": (PairNet, {"depth": 2}, ("width",), (), False, False),
    "a class with settings": (functools.partial(PairNet, width=3), {"width": 3, "depth": 2}, (), (),
                              False, False),
    "a function": (pair_net, {"width": 4}, (), ("normaliser",), False, False),
    "a class that checks": (Partial, {}, ("width",), ("output_activation",), False, True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_says_what_it_has(name):
  spec, defaults, required, takes, statistics, check = NETWORKS[name]
  network = models.resolve(spec)
  assert network.defaults == defaults
  assert set(network.settings) == {*defaults, *required}
  assert network.takes == takes
  assert (network.statistics is not None, network.check is not None) == (statistics, check)
  assert set(network.limits) <= set(network.settings)
  named = spec if isinstance(spec, str) else getattr(spec, "func", spec).__name__
  assert network.name == named


@pytest.mark.parametrize("name", [*models.MODELS, "a class", "a class with settings", "a function"])
def test_a_resolved_network_is_made_by_keyword(name):
  network = models.resolve(NETWORKS[name][0] if name in NETWORKS else name)
  systems = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(molecule, [9] * 3, range(3)))
  options = {key: 4 for key in network.settings if key not in network.defaults}
  if network.check:
    network.check(systems)
  if network.statistics:
    options |= network.statistics(systems)
  made = network.make(activation=irelu, **options)
  energy, variables = made.init_with_output(jax.random.key(0), molecule())
  assert energy.shape == () and variables["params"]
  chex.assert_tree_all_finite((energy, variables))


@pytest.mark.parametrize("spec, words", [
    ("Schnet", "unknown model 'Schnet': did you mean 'SchNet'. known are SchNet, MLP"),
    ("painn", "known are SchNet, MLP"),
    (3, "the name of a network, its class or a function"),
    (SchNet(jax.nn.silu), "pass the class"),
    (nn.Dense, "a network that takes `activation`, received Dense with features"),
    (lambda: None, "with no field: add the field `activation`"),
], ids=["misspelt", "unknown", "number", "instance", "no activation", "nothing"])
def test_what_is_no_network_is_refused(spec, words):
  with pytest.raises(ValueError, match=words):
    models.resolve(spec)


def test_normalisers():
  assert models.resolve_normaliser("none") is NORMALISERS["none"]
  own = functools.partial(nn.RMSNorm, epsilon=1e-3)
  assert models.resolve_normaliser(own) is own
  network = SchNet(jax.nn.silu, features=4, blocks=2, radial=4, normaliser=own)
  assert "RMSNorm_1" in network.init(jax.random.key(0), molecule())["params"]
  with pytest.raises(ValueError, match="unknown normaliser 'layers': did you mean 'layer'"):
    models.resolve_normaliser("layers")
  with pytest.raises(ValueError, match="a function that makes a layer"):
    models.resolve_normaliser(nn.LayerNorm())


def frames_of(*species, cell=None):
  species = np.array(species)
  return System(np.zeros((*species.shape, 3)), species, cell)


@pytest.mark.parametrize("systems, frame, words", [
    (frames_of([6, 8], [6, 8], [8, 6]), 2, "frame 2 has other atoms, or in another order"),
    (frames_of([6, 8], [6, 0]), 1, "frame 1 has other atoms"),
    (frames_of([1] * 501), None, "frames of 501 atoms.*at most 500 atoms: take SchNet"),
    (frames_of([1, 1], cell=np.eye(3)[None]), None, "periodic frames.*F F F"),
], ids=["order", "padding", "large", "crystal"])
def test_a_multilayer_perceptron_takes_one_molecule_in_free_space(systems, frame, words):
  with pytest.raises(ValueError, match=words) as refusal:
    MLP.check(systems)
  assert getattr(refusal.value, "frame", None) == frame
  MLP.check(frames_of([6, 8], [6, 8]))
