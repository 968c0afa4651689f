"""ForceNet: the reference implementation's energies and forces, its axes, its cutoff, its atoms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_networks
from compiling import quickly_compiled
from test_cgcnn import assert_equal, in_evaluation, in_training, jumps, some

from dcnn import activations
from dcnn.base import System
from dcnn.data import neighbours
from dcnn.models import NORMALISERS, ForceNet, FrameError, Nonlinearity, elements, forcenet

SIZES = {"features": 16, "blocks": 2, "radial": 8, "cutoff": 6.0}
NORMALISER = {"forcenet": "batch", "forcenet_no_bn": "none"}


@functools.cache
def network(normaliser="none", **fields):
  return ForceNet(jax.nn.silu, **{
      **SIZES, "normaliser": NORMALISERS[normaliser], "envelope": "faithful", **fields})


def variables(weights):
  """The reference's weights by the names of ours; a torch layer reads edge, sender, receiver."""
  found, size = {"params": {}}, SIZES["features"]
  params, layer = found["params"], functools.partial(reference_networks.dense, weights)
  params["embedding"], params["output_hidden"] = layer("embedding.1"), layer("lin")
  params["output"] = layer("energy_mlp")
  for block in range(SIZES["blocks"]):
    name = f"interactions.{block}"
    batch_norm = f"{name}.mlp_trans.1" if f"{name}.mlp_trans.3.weight" in weights else None
    last = 3 if batch_norm else 2
    filters = layer(f"{name}.mlp_edge.0")
    edge, sender, receiver = np.split(filters["kernel"], [size, 2 * size])
    params |= {
        f"filter_edge_{block}": {"kernel": edge, "bias": filters["bias"]},
        f"filter_sender_{block}": {"kernel": sender},
        f"filter_receiver_{block}": {"kernel": receiver},
        f"filter_hidden_{block}": layer(f"{name}.mlp_edge.2"),
        f"filter_{block}": layer(f"{name}.mlp_edge.4"),
        f"basis_{block}": layer(f"{name}.lin_basis"), f"send_{block}": layer(f"{name}.lin"),
        f"own_{block}": weights[f"{name}.center_W"],
        f"receive_{block}": layer(f"{name}.mlp_trans.0"),
        f"update_{block}": layer(f"{name}.mlp_trans.{last}")}
    if batch_norm:
      params[f"BatchNorm_{block}"] = {
          "scale": weights[f"{batch_norm}.weight"], "bias": weights[f"{batch_norm}.bias"]}
      found.setdefault("batch_stats", {})[f"BatchNorm_{block}"] = {
          "mean": weights[f"{batch_norm}.running_mean"],
          "var": weights[f"{batch_norm}.running_var"]}
  return found


@pytest.mark.parametrize("name", NORMALISER)
def test_evaluation_gives_the_reference(name, x64):
  reference = reference_networks.load(name)
  found = in_evaluation(network(NORMALISER[name]))(
      variables(reference.weights), reference.systems)
  assert_equal(found, reference.evaluated)


def test_training_gives_the_reference(x64):
  reference = reference_networks.load("forcenet")
  found, _ = in_training(network("batch"))(variables(reference.weights), reference.systems)
  assert_equal(found, reference.trained)


def test_properties_and_radii_are_those_of_the_reference():
  weights = reference_networks.load("forcenet").weights
  np.testing.assert_array_equal(elements.properties()[1:101], weights["atom_map"][1:])
  np.testing.assert_array_equal(elements.radii()[1:101, 0], weights["atom_radii"][1:])


def ethanol():
  return reference_networks.load("forcenet").systems


@pytest.mark.parametrize("normaliser, envelope", [
    ("batch", "smooth"), pytest.param("none", "faithful", marks=pytest.mark.nightly)])
def test_neighbour_lists_and_padding_change_nothing(normaliser, envelope, x64):
  model, systems = network(normaliser, envelope=envelope, cutoff=3.0), ethanol()
  found = some(model, systems)
  listed = systems._replace(neighbours=neighbours.neighbour_list(systems, 3.4))
  padded = System(jnp.pad(systems.positions, ((0, 0), (0, 2), (0, 0)), constant_values=0.7),
                  jnp.pad(systems.species, ((0, 0), (0, 2))))
  function = in_training(model)
  (energy, forces), state = function(found, systems)
  for other in (listed, padded):
    (same_energy, same_forces), same_state = function(found, other)
    np.testing.assert_allclose(same_energy, energy, rtol=1e-12)
    np.testing.assert_allclose(same_forces[:, :9], forces, atol=1e-12)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-11), same_state, state)


def test_molecules_far_apart_add_up_to_the_bias_of_the_readout(x64):
  model, systems = network(), ethanol()
  found = some(model, systems)
  one, other = (jax.tree.map(lambda leaf, i=i: leaf[i], systems) for i in (0, 1))
  two = System(jnp.concatenate([one.positions, other.positions + 50.0]), jnp.tile(one.species, 2))
  energy = quickly_compiled(model.apply)
  sum_of_both = energy(found, one) + energy(found, other)
  bias = found["params"]["output"]["bias"][0]
  np.testing.assert_allclose(energy(found, two), sum_of_both - bias, rtol=1e-12)


def test_translated_and_permuted_but_not_rotated_molecules_are_the_same(x64):
  model, systems = network(), ethanol()
  found = some(model, systems)
  one = jax.tree.map(lambda leaf: leaf[0], systems)
  energy_fn = quickly_compiled(model.apply)
  energy = energy_fn(found, one)
  order = np.random.default_rng(1).permutation(9)
  moved = System(one.positions[order] + 3.0, one.species[order])
  np.testing.assert_allclose(energy_fn(found, moved), energy, rtol=1e-12)
  turned = one._replace(positions=one.positions[:, np.array([1, 2, 0])])
  assert abs(energy_fn(found, turned) - energy) > 1e-4 * abs(energy)


@pytest.mark.parametrize("envelope", ["smooth", "faithful"])
def test_the_faithful_variant_alone_jumps_at_the_cutoff(envelope, x64):
  model = network(envelope=envelope, cutoff=2.5)
  jump = jumps(model, some(model, ethanol()))
  assert jump < 1e-5 if envelope == "smooth" else jump > 1e-2


def test_as_run_ends_a_block_in_the_activation(x64):
  """h + act(silu(W a + b)) is the described block whose last layer is the identity, act(silu)."""
  act, systems = lambda x: 0.5 * jnp.maximum(x, 0.0) ** 2, ethanol()
  sizes = {**SIZES, "blocks": 1, "envelope": "faithful"}
  as_run = ForceNet(act, node_update="as_run", **sizes)
  found = some(as_run, systems)
  assert "update_0" not in found["params"]
  one = jax.tree.map(lambda leaf: leaf[0], systems)

  _, state = quickly_compiled(functools.partial(
      as_run.apply, capture_intermediates=True, mutable=["intermediates"]))(found, one)

  def seen(layer):
    """What a layer of the network gave."""
    return state["intermediates"][layer]["__call__"][0]

  after = seen("embedding") + act(jax.nn.silu(seen("receive_0")))
  head = found["params"]["output_hidden"]
  np.testing.assert_allclose(seen("output_hidden"), after @ head["kernel"] + head["bias"],
                             rtol=1e-12)


def test_as_run_with_matched_weights_is_the_same_function(x64):
  """Where the activation is added to features it has the gain, as weights that read it have."""
  system = jax.tree.map(lambda leaf: leaf[0], ethanol())

  def energy(c):
    act = Nonlinearity(functools.partial(activations.irelu, c=c), 0.5 / c)
    model = ForceNet(act, node_update="as_run", **SIZES | {"features": 4})
    return model.init_with_output(jax.random.key(0), system)[0]

  # Powers of two: the float32 weights scale without rounding.
  found = quickly_compiled(jax.vmap(energy))(jnp.array([0.5, 0.125, 2.0]))
  assert found[0] != 0
  np.testing.assert_allclose(found, found[0], rtol=1e-11)


def test_words_that_are_no_node_update_are_refused():
  with pytest.raises(ValueError, match="unknown node_update 'asrun': did you mean 'as_run'"):
    jax.eval_shape(network(node_update="asrun").init, jax.random.key(0),
                   jax.tree.map(lambda a: a[0], ethanol()))


@pytest.mark.parametrize("atomic_number", [36, 54, 85, 86, 87, 96, 97, 100, 118])
def test_elements_without_properties_are_refused(atomic_number):
  systems = System(np.zeros((2, 2, 3)), np.array([[6, 0], [6, atomic_number]]))
  with pytest.raises(FrameError, match=f"frame 1 has the element of atomic number {atomic_number}"):
    ForceNet.check(systems)


def test_the_basis_is_ordered_by_gaussians():
  values = jnp.array([[0.1, 0.8]])
  expected = [np.exp(-0.5 * ((v - k / 3) * 3) ** 2) for k in range(4) for v in (0.1, 0.8)]
  np.testing.assert_allclose(forcenet.unit_basis(values, 4)[0], expected, rtol=1e-5)
