"""Networks: symmetries, padding, coincident atoms, and the gain of the initialisation."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import drawn, quickly_compiled
from flax import linen as nn
from flax.traverse_util import flatten_dict

from dcnn import activations, derivatives, models
from dcnn.base import System
from dcnn.models import (
  CGCNN,
  MLP,
  NORMALISERS,
  DimeNetPlusPlus,
  ForceNet,
  GemNetT,
  GridACE,
  Nonlinearity,
  PaiNN,
  SchNet,
  layers,
  mlp,
)

ETHANOL = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
irelu = functools.partial(activations.irelu, c=0.5)


def molecule(atoms=9, seed=0):
  positions = np.random.default_rng(seed).normal(size=(atoms, 3)) * 1.5
  return System(jnp.asarray(positions), jnp.asarray(ETHANOL[:atoms]))


class Catalogued(NamedTuple):
  """A network and which laws it obeys; a new network adds one line to `networks`.

  Attributes:
    model: The network, small.
    rotates: Whether energies are invariant under rotation and inversion.
    exchanges: Whether they are invariant under exchange of equal atoms, and take padded atoms.
    extensive: Whether the energy of two molecules far apart is the sum of their energies.
    step: In which an atom leaves the cutoff, in angstrom: small where the third derivative of the
      energy jumps there, so that the second changes fast and yet has no jump.
    readers: Names of the layers that read the activation, "block/layer" within a block.
  """

  model: Any
  readers: set[str]
  rotates: bool = True
  exchanges: bool = True
  extensive: bool = True
  step: float = 1e-4


def within(block, names):
  return {f"{block}/{name}" for name in names.split()}


@functools.cache
def networks() -> dict[str, Catalogued]:
  """Each network of `MODELS` with one activation everywhere; then what else a field changes."""
  layer = NORMALISERS["layer"]
  update = {"update_0", "update_1", "filter_0", "filter_1", "output"}
  mix = {"send_0", "send_1", "mix_0", "mix_1", "output"}
  ace = {"filter_hidden_0", "filter_hidden_1", "filter_0", "filter_1", "output"}
  sizes = {"features": 4, "blocks": 2, "radial": 6}
  dimenet = {"start_edge", *within("interaction", "send down keep up residual_before_hidden "
                                   "residual_before join residual_0_hidden residual_0 "
                                   "residual_1_hidden residual_1"),
             *within("output", "up hidden_1 hidden_2 energy")}
  atom_update = ("atom_hidden atom_residual_0_hidden atom_residual_0 atom_residual_1_hidden "
                 "atom_residual_1 atom_residual_2_hidden atom_residual_2")
  gemnet = {*within("interaction", f"send down keep up up_reverse residual_before_hidden "
                    f"residual_before residual_0_hidden residual_0 residual_1_hidden residual_1 "
                    f"residual_join_hidden residual_join join_edge {atom_update}"),
            *within("output", f"energy {atom_update}")}
  triplets = {"features": 4, "blocks": 2, "triplet_features": 2, "basis_features": 2}
  perceptron = {"exchanges": False, "extensive": False}
  return {
      "SchNet": Catalogued(SchNet(irelu, **sizes), update),
      "MLP": Catalogued(MLP(irelu, hidden=(8, 8)), {"hidden_1", "output"}, **perceptron),
      "PaiNN": Catalogued(PaiNN(irelu, **sizes), mix),
      "GridACE": Catalogued(GridACE(irelu, (1, 6, 8), filter_features=4, **sizes), ace),
      "CGCNN": Catalogued(
          # Squares of small numbers vanish in more layers.
          CGCNN(irelu, output_features=8, output_layers=1, **sizes | {"features": 16}),
          {"receive_1", "send_1", "output_hidden_0", "output"}, extensive=False),
      "ForceNet": Catalogued(
          ForceNet(irelu, **sizes),
          {"filter_0", "filter_1", "filter_hidden_0", "filter_hidden_1", "update_0", "update_1",
           "output"}, rotates=False, extensive=False),
      # A square of a square of ... overflows in its 40 layers in sequence.
      "DimeNetPlusPlus": Catalogued(
          DimeNetPlusPlus(jax.nn.silu, output_features=4, **triplets), dimenet, step=1e-8),
      "GemNetT": Catalogued(
          GemNetT(irelu, radial=6, atom_features=4, bilinear_features=2, **triplets), gemnet,
          step=1e-8),
      "SchNet, layer": Catalogued(SchNet(jax.nn.silu, normaliser=layer, **sizes), update),
      "MLP, layer": Catalogued(
          MLP(jax.nn.silu, hidden=(8, 8), normaliser=layer), {"hidden_1", "output"}, **perceptron),
  }


# Their laws are in test_triplets, read off one batch, because they take long to compile.
TRIPLETS = {"DimeNetPlusPlus", "GemNetT"}
SLOW = {*TRIPLETS, "GridACE"}  # to compile
# Of which other networks, or their own tests, show nearly the same.
ALIKE = {"CGCNN", "ForceNet", "SchNet, layer", "MLP, layer"}


def of(law=lambda network: True, *, also=frozenset(), nightly=frozenset()):
  """The names of the networks that a law holds of.

  Args:
    law: Whether it holds of one.
    also: Those of `TRIPLETS` that the test is for, too.
    nightly: Those that are left to the nightly run beside `ALIKE`, as others show the law, too.
  """
  names = [name for name, each in networks().items()
           if law(each) and name not in TRIPLETS - also]
  return pytest.mark.parametrize("name", [
      pytest.param(name, marks=[pytest.mark.nightly] * (name in nightly | ALIKE))
      for name in names])


def exchanging(network):
  return network.exchanges


@functools.cache
def initialised(name, dtype=jnp.float64):
  """A network with its variables, compiled once for all tests."""
  with jax.enable_x64(dtype == jnp.float64):
    model, system = networks()[name].model, molecule()
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), drawn(model, system))
    return quickly_compiled(derivatives.energy_and_forces(model.apply)), variables, system


def rotation(seed=1):
  q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
  return jnp.asarray(q * np.sign(np.linalg.det(q)))


def test_every_network_is_catalogued():
  assert set(models.MODELS) <= set(networks())


@of()
def test_forces_equal_finite_differences(name, x64):
  predict, variables, system = initialised(name)
  _, forces = predict(variables, system)
  way, step = np.random.default_rng(2).normal(size=(9, 3)), 1e-5
  plus, minus = (predict(variables, system._replace(positions=system.positions + sign * step * way))
                 for sign in (1, -1))
  np.testing.assert_allclose(
      -(plus.energy - minus.energy) / (2 * step), jnp.sum(forces * way), rtol=1e-6)


@of()
def test_forces_sum_to_zero(name, x64):
  predict, variables, system = initialised(name)
  _, forces = predict(variables, system)
  np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-12 * jnp.abs(forces).max())


@of()
def test_nothing_changes_as_the_molecule_is_moved(name, x64):
  predict, variables, system = initialised(name)
  moved = system._replace(positions=system.positions + jnp.array([3.0, -1.0, 2.0]))
  for found, expected in zip(predict(variables, moved), predict(variables, system), strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * jnp.abs(expected).max())


@of(lambda network: network.rotates)
def test_forces_turn_with_the_molecule_and_have_no_torque(name, x64):
  predict, variables, system = initialised(name)
  energy, forces = predict(variables, system)
  for turn in (rotation(), -rotation(seed=2)):
    turned = predict(variables, system._replace(positions=system.positions @ turn.T))
    np.testing.assert_allclose(turned.energy, energy, rtol=1e-10)
    np.testing.assert_allclose(turned.forces, forces @ turn.T, atol=1e-10 * jnp.abs(forces).max())
  torque = jnp.sum(jnp.cross(system.positions, forces), axis=0)
  np.testing.assert_allclose(torque, 0, atol=1e-11 * jnp.abs(forces).max())


@of(exchanging)
def test_equal_atoms_may_be_exchanged(name, x64):
  predict, variables, system = initialised(name)
  order = np.array([1, 0, 2, 5, 3, 4, 8, 7, 6])
  energy, forces = predict(variables, system)
  swapped = predict(variables, System(system.positions[order], system.species[order]))
  np.testing.assert_allclose(swapped.energy, energy, rtol=1e-11)
  np.testing.assert_allclose(swapped.forces, forces[order], atol=1e-11 * jnp.abs(forces).max())


def pad(system, atoms=3):
  """With atoms of no species, wherever they lie."""
  nowhere = jnp.full((atoms, 3), 0.7)
  return System(jnp.concatenate([system.positions, nowhere]), jnp.pad(system.species, (0, atoms)))


@of(exchanging)
def test_padded_atoms_change_nothing(name, x64):
  predict, variables, system = initialised(name)
  energy, forces = predict(variables, system)
  padded = predict(variables, pad(system))
  np.testing.assert_allclose(padded.energy, energy, rtol=1e-12)
  np.testing.assert_allclose(padded.forces[:9], forces, atol=1e-12 * jnp.abs(forces).max())
  assert (padded.forces[9:] == 0).all()


@of(lambda network: network.extensive)
def test_two_molecules_far_apart_add_up(name, x64):
  predict, variables, system = initialised(name)
  other = molecule(seed=1)
  apart = System(jnp.concatenate([system.positions, other.positions + 100.0]),
                 jnp.concatenate([system.species, other.species]))
  one, two, both = (predict(variables, each) for each in (system, other, apart))
  np.testing.assert_allclose(both.energy, one.energy + two.energy, rtol=1e-11)
  np.testing.assert_allclose(both.forces, jnp.concatenate([one.forces, two.forces]), atol=1e-11)


@of(exchanging, nightly={*SLOW, "SchNet, layer"})
def test_an_atom_goes_through_the_cutoff_without_a_jump(name, x64):
  """Energy, force and derivative of the force, as one atom leaves in small steps."""
  _, variables, _ = initialised(name)
  model, step = networks()[name].model, networks()[name].step

  def energy(distance):
    positions = jnp.zeros((3, 3)).at[1, 0].set(1.0).at[2, 2].set(distance)
    return model.apply(variables, System(positions, jnp.array([6, 8, 1])))

  force = jax.grad(energy)
  functions = quickly_compiled(jax.vmap(
      lambda at: jnp.stack([energy(at), force(at), jax.grad(force)(at)])))
  values = functions(model.cutoff + step * jnp.arange(-5, 6))
  scale = jnp.abs(functions(jnp.array([2.0]))).max()
  assert jnp.abs(jnp.diff(values, axis=0)).max() < 1e-6 * scale


@of(nightly=set(networks()) - {"SchNet", "PaiNN"})
def test_the_gradient_of_the_force_loss_is_that_of_finite_differences(name, x64):
  """By the weights, in a random direction: derivatives of second order."""
  _, variables, system = initialised(name)
  forces = derivatives.forces(networks()[name].model.apply)
  flat, restore = jax.flatten_util.ravel_pytree(variables)
  target = jnp.asarray(np.random.default_rng(4).normal(size=(9, 3)))

  def force_loss(flat):
    return jnp.sum(jnp.square(forces(restore(flat), system) - target))

  loss = quickly_compiled(force_loss)
  way = jnp.asarray(np.random.default_rng(5).normal(size=flat.shape))
  expected = (loss(flat + 1e-6 * way) - loss(flat - 1e-6 * way)) / 2e-6
  found = jnp.sum(quickly_compiled(jax.grad(force_loss))(flat) * way)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def coincident():
  system = molecule()
  return system._replace(positions=system.positions.at[1].set(system.positions[0]))


def alone():
  return System(jnp.zeros((1, 3)), jnp.array([6]))


def two():
  return System(jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]]), jnp.array([6, 8]))


def line():
  return System(jnp.outer(jnp.arange(-1.0, 2.0), jnp.array([0.0, 0.0, 1.2])), jnp.array([8, 6, 8]))


def right_angle():
  return System(jnp.eye(3) * jnp.array([1.0, 1.0, 0.0]), jnp.array([1, 1, 8]))


def far():
  system = molecule()
  return system._replace(positions=system.positions.at[8].add(1e4))


@functools.cache
def force_loss_and_gradient(name):
  """From a key and a system to the energy, the force loss and its gradient by the weights."""
  model = networks()[name].model

  def force_loss(variables, system):
    energy, forces = derivatives.energy_and_forces(model.apply)(variables, system)
    return jnp.sum(jnp.abs(forces)), energy

  return quickly_compiled(lambda key, system: jax.value_and_grad(force_loss, has_aux=True)(
      model.init(key, system), system))


@pytest.mark.parametrize("make", [
    coincident, far, alone, *(pytest.param(make, marks=pytest.mark.nightly)
                              for make in (two, line, right_angle))],
    ids=lambda make: make.__name__)
@of()
def test_value_forces_and_gradient_of_the_force_loss_are_finite(name, make):
  """With padding, so that each network is compiled once."""
  system = make()
  if networks()[name].exchanges:
    system = pad(system, 12 - len(system.species))
  elif len(system.species) < 9:
    pytest.skip("takes the atoms of one molecule")
  chex.assert_tree_all_finite(force_loss_and_gradient(name)(jax.random.key(0), system))


@of(exchanging)
def test_an_atom_without_a_pair_is_finite(name):
  chex.assert_tree_all_finite(force_loss_and_gradient(name)(jax.random.key(0), alone()))


@of(nightly=set(networks()) - {"SchNet", "PaiNN", "MLP"})
def test_batched_equals_one_by_one(name):
  predict, variables, system = initialised(name, jnp.float32)
  systems = [system, molecule(seed=1), molecule(seed=2)]
  systems = [jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.ndim > 1 else leaf, each)
             for each in systems]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *systems)
  batched = quickly_compiled(jax.vmap(predict.__wrapped__, (None, 0)))(variables, stacked)
  for index, each in enumerate(systems):
    for found, expected in zip(batched, predict(variables, each), strict=True):
      np.testing.assert_allclose(
          found[index], expected, rtol=2e-5, atol=2e-5 * jnp.abs(expected).max())


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


def with_activations(name, activation, output_activation=None):
  return networks()[name].model.clone(activation=activation, output_activation=output_activation)


@of(also=TRIPLETS, nightly=SLOW)
def test_init_matched_network_is_the_same_function(name, x64):
  """c relu(x)^2 read by W (0.5 / c) equals 0.5 relu(x)^2 read by W: all such layers are scaled.

  Everywhere, and in the output block alone.
  """
  def energies(c):
    act = Nonlinearity(functools.partial(activations.irelu, c=c), 0.5 / c)
    return jnp.stack([
        with_activations(name, *pair).init_with_output(jax.random.key(0), molecule())[0]
        for pair in ((act, None), (jax.nn.silu, act))])

  # Powers of two: the float32 weights scale without rounding.
  found = quickly_compiled(jax.vmap(energies))(jnp.array([0.5, 0.125, 1.0, 2.0]))
  np.testing.assert_allclose(found, found[:1].repeat(4, axis=0), rtol=1e-11)


@of(also=TRIPLETS)
def test_output_block_alone_uses_the_activation(name):
  """Once for each of its layers; everything else keeps the other."""
  calls = {"output": 0, "elsewhere": 0}

  def counted(where):
    def act(x):
      calls[where] += 1
      return jax.nn.silu(x)
    return act

  jax.eval_shape(with_activations(name, counted("elsewhere"), counted("output")).init,
                 jax.random.key(0), molecule())
  elsewhere, calls["elsewhere"] = calls["elsewhere"], 0
  assert calls["output"] >= 1 and elsewhere >= 1
  jax.eval_shape(with_activations(name, counted("elsewhere")).init, jax.random.key(0), molecule())
  assert calls["elsewhere"] == elsewhere + calls["output"]


@of(also=TRIPLETS, nightly=SLOW)
def test_the_gain_is_on_the_weights_that_read_the_activation_and_on_no_other(name):
  """Also where it is traced, a number for each run of a vmapped sweep."""
  def init(gain):
    network = with_activations(name, Nonlinearity(jax.nn.silu, gain))
    assert isinstance(network.activation, Nonlinearity)  # Flax takes tuples apart
    return network.init(jax.random.key(0), molecule())["params"]

  gains = jnp.array([1.0, 2.0, 0.25])
  stacked = quickly_compiled(jax.vmap(init))(gains)
  stacked = flatten_dict(stacked, sep="/")
  read = {f"{layer}/kernel" for layer in networks()[name].readers}
  assert read <= set(stacked)
  for run, gain in enumerate(gains):
    expected = {key: leaf[0] * (gain if key in read else 1.0) for key, leaf in stacked.items()}
    found = {key: leaf[run] for key, leaf in stacked.items()}
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


@of(also=TRIPLETS, nightly=set(networks()) - {"SchNet"})
def test_a_nonlinearity_of_gain_1_is_its_function(name):
  one, other = quickly_compiled(lambda: [
      with_activations(name, act).init_with_output(jax.random.key(0), molecule())
      for act in (jax.nn.silu, Nonlinearity(jax.nn.silu))])()
  chex.assert_trees_all_equal(one, other)


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
    "PaiNN": ("PaiNN", {"features": 64, "blocks": 3, "radial": 20, "cutoff": 5.0,
                        "envelope": "smooth"}, (),
              ("output_activation", "normaliser"), False, False),
    "GridACE": ("GridACE", {"features": 32, "blocks": 2, "radial": 8, "cutoff": 5.0, "degree": 2,
                            "passed": 1, "filter_features": 64, "neighbours": 10.0}, (),
                ("output_activation", "elements"), False, False),
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
  if "elements" in network.takes:
    options["elements"] = (1, 6, 8)
  made = network.make(activation=jax.nn.silu, **options)
  energy, variables = jax.eval_shape(made.init_with_output, jax.random.key(0), molecule())
  assert energy.shape == () and variables["params"]


@pytest.mark.parametrize("spec, words", [
    ("Schnet", "unknown model 'Schnet': did you mean 'SchNet'. known are SchNet, PaiNN"),
    ("mpnn", "known are SchNet, PaiNN, .*, MLP"),
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
  shapes = jax.eval_shape(network.init, jax.random.key(0), molecule())
  assert "RMSNorm_1" in shapes["params"]
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
