"""GemNet-T: reference values, scale factors, and what its messages see."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_networks
import tiny
from compiling import quickly_compiled

from dcnn import activations, derivatives, jobs
from dcnn.base import System
from dcnn.models import GemNetT, gemnet

BLOCKS = 2
SMALL = {"features": 16, "atom_features": 16, "blocks": BLOCKS, "radial": 16,
         "triplet_features": 8, "bilinear_features": 8, "basis_features": 4}


def initialised(network, system):
  return quickly_compiled(network.init)(jax.random.key(0), system)


def variables_of(weights):
  """The variables of the network from those of torch, whose layers are (outputs, inputs)."""
  def layer(name):
    return reference_networks.dense(weights, f"{name}.linear")

  def joined(ours, theirs, size=16):
    sender, receiver, edge = np.split(layer(theirs)["kernel"], [size, 2 * size])
    return {f"{ours}_{name}": {"kernel": kernel} for name, kernel in (
        ("from", sender), ("to", receiver), ("edge", edge))}

  def residual(ours, theirs):
    return {f"{ours}_hidden": layer(f"{theirs}.dense_mlp.0"),
            ours: layer(f"{theirs}.dense_mlp.1")}

  def atom_update(of):
    own = {"atom_radial": layer(f"{of}.dense_rbf"), "atom_hidden": layer(f"{of}.layers.0")}
    for index in range(3):
      own |= residual(f"atom_residual_{index}", f"{of}.layers.{index + 1}")
    return own

  def interaction(of):
    trip = f"{of}.trip_interaction"
    return {
        "keep": layer(f"{of}.dense_ca"), "send": layer(f"{trip}.dense_ba"),
        "radial": layer(f"{trip}.mlp_rbf"), "down": layer(f"{trip}.down_projection"),
        "up": layer(f"{trip}.up_projection_ca"), "up_reverse": layer(f"{trip}.up_projection_ac"),
        "bilinear": {"kernel": weights[f"{trip}.mlp_cbf.weight"].reshape(8, -1)},
        **residual("residual_before", f"{of}.layers_before_skip.0"),
        **residual("residual_0", f"{of}.layers_after_skip.0"),
        **residual("residual_1", f"{of}.layers_after_skip.1"),
        **residual("residual_join", f"{of}.residual_m.0"),
        **joined("join", f"{of}.concat_layer.dense"), **atom_update(f"{of}.atom_update")}

  def scales(of):
    return {ours: weights[f"{of}.{theirs}.scale_factor"] for ours, theirs in (
        ("radial_product", "trip_interaction.scale_rbf"),
        ("triplet_sum", "trip_interaction.scale_cbf_sum"), ("atom_sum", "atom_update.scale_sum"))}

  embedding = np.zeros((119, 16))
  embedding[1:84] = weights["atom_emb.embeddings.weight"]
  blocks = [f"int_blocks.{block}" for block in range(BLOCKS)]
  outputs = [f"out_blocks.{block}" for block in range(BLOCKS + 1)]
  params = {
      "embedding": {"embedding": embedding},
      "radial_triplets": layer("mlp_rbf3"), "radial_atoms": layer("mlp_rbf_h"),
      "radial_outputs": layer("mlp_rbf_out"),
      "angular": {"kernel": weights["mlp_cbf3.weight"].transpose(1, 0, 2).reshape(16, -1)},
      **joined("start", "edge_emb.dense"),
      "interaction": reference_networks.stacked(map(interaction, blocks)),
      "output": reference_networks.stacked(
          {**atom_update(of), "energy": layer(f"{of}.out_energy")} for of in outputs)}
  factors = {
      "interaction": reference_networks.stacked(map(scales, blocks)),
      "output": reference_networks.stacked(
          {"atom_sum": weights[f"{of}.scale_sum.scale_factor"]} for of in outputs)}
  return jax.tree.map(jnp.asarray, {"params": params, "scales": factors})


def test_energies_and_forces_are_those_of_the_reference(x64):
  reference = reference_networks.load("gemnet_t")
  network = GemNetT(activations.scaled_silu, cutoff=6.0, **SMALL)
  predict = quickly_compiled(
      jax.vmap(derivatives.energy_and_forces(network.apply), (None, 0)))
  energy, forces = predict(variables_of(reference.weights), reference.systems)
  for ours, theirs in ((energy, reference.evaluated.energy), (forces, reference.evaluated.forces)):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())


def variance(values):
  """Over rows, in the mean of the features, as `_variance` has it of real rows."""
  return np.mean(np.var(values, axis=0, ddof=1))


def test_variances_count_real_rows_alone():
  values = np.random.default_rng(0).normal(size=(9, 3)) + 5.0
  real = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0.0])
  found = gemnet._variance(jnp.asarray(values, jnp.float32), jnp.asarray(real, jnp.float32))
  np.testing.assert_allclose(found, variance(values[real > 0]), rtol=1e-5)


def test_fitted_scales_give_each_sum_the_variance_of_its_terms(monkeypatch, x64):
  """On the configuration that they are fitted to, applied again as they are stored."""
  system = jax.tree.map(lambda leaf: leaf[0], reference_networks.load("gemnet_t").systems)
  network, found = GemNetT(activations.scaled_silu, **SMALL), []
  variables = initialised(network, system)

  def measured(module, name, values, given, variances):
    wanted, before = variances()
    values = rescaled(module, name, values, given, variances)
    factor = module.get_variable("scales", name)
    jax.debug.callback(lambda *each: found.append(each), wanted, factor ** 2 * before)
    return values

  rescaled = gemnet._rescaled
  monkeypatch.setattr(gemnet, "_rescaled", measured)
  quickly_compiled(network.apply)(variables, system)
  jax.effects_barrier()
  assert len(found) == 3 * BLOCKS + BLOCKS + 1
  for wanted, after in found:
    np.testing.assert_allclose(after, wanted, rtol=1e-4)


@pytest.mark.nightly
def test_scales_are_1_where_there_is_nothing_to_fit_them_to():
  atom = System(jnp.zeros((3, 3)), jnp.array([8, 0, 0]))
  variables = initialised(GemNetT(jax.nn.silu, **SMALL | {"blocks": 1}), atom)
  assert all((leaf == 1).all() for leaf in jax.tree.leaves(variables["scales"]))


def test_scales_of_oc20_are_those_of_the_reference():
  reference = reference_networks.load("gemnet_t")
  network = GemNetT(activations.scaled_silu, scales="oc20", **SMALL)
  variables = initialised(network, jax.tree.map(lambda leaf: leaf[0], reference.systems))
  chex.assert_trees_all_close(
      variables["scales"], variables_of(reference.weights)["scales"], rtol=1e-6)


@pytest.mark.parametrize("inputs", [None, 24], ids=["matrix", "tensor"])
def test_he_orthogonal_weights_are_standardised_over_their_inputs(inputs):
  weights = gemnet.he_orthogonal(2.0, inputs)(jax.random.key(0), (8, 12))
  rows = weights.reshape(inputs or 8, -1)
  np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
  np.testing.assert_allclose(
      rows.var(axis=0, ddof=1), 4 / len(rows), rtol=1e-4)


@pytest.mark.nightly
def test_scales_are_kept_and_not_trained():
  """A run has those that it was initialised with, to the last step, and in its best variables."""
  result = jobs.sweep(tiny.config(
      model__name="GemNetT", model__atom_features=4, model__basis_features=2,
      model__triplet_features=2, model__bilinear_features=2, model__spherical=3))
  arm = result.trained["base"]
  chex.assert_trees_all_equal(arm.variables["scales"], arm.last["scales"])
  first, second = zip(*jax.tree.leaves(arm.last["scales"]), strict=True)
  assert all((one > 0).all() and (one != 1).any() for one in first)
  assert any((one != two).any() for one, two in zip(first, second, strict=True))
