"""GemNet-T: reference values, scale factors, and what its messages see."""

import jax
import jax.numpy as jnp
import numpy as np
import reference_networks

from dcnn import derivatives
from dcnn.models import GemNetT
from dcnn.models.gemnet import scaled_silu

BLOCKS = 2
SMALL = {"features": 16, "atom_features": 16, "blocks": BLOCKS, "radial": 16,
         "triplet_features": 8, "bilinear_features": 8, "basis_features": 4}


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
  network = GemNetT(scaled_silu, cutoff=6.0, **SMALL)
  predict = jax.jit(jax.vmap(derivatives.energy_and_forces(network.apply), (None, 0)))
  energy, forces = predict(variables_of(reference.weights), reference.systems)
  for ours, theirs in ((energy, reference.evaluated.energy), (forces, reference.evaluated.forces)):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())
