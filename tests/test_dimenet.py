"""DimeNet++: reference values, and what its messages see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_networks

from dcnn import derivatives
from dcnn.models import DimeNetPlusPlus

BLOCKS = 2
SMALL = {"features": 16, "blocks": BLOCKS, "triplet_features": 8, "basis_features": 4,
         "output_features": 16}


def variables_of(weights):
  """The variables of the network from those of torch, whose layers are (outputs, inputs)."""
  def layer(name):
    return reference_networks.dense(weights, name)

  start, size = layer("emb.lin"), SMALL["features"]
  to, origin, edge = np.split(start["kernel"], [size, 2 * size])
  embedding = np.zeros((119, size))
  embedding[:95] = weights["emb.emb.weight"]
  params = {
      "frequencies": weights["rbf.freq"], "embedding": {"embedding": embedding},
      "start_radial": layer("emb.lin_rbf"), "start_to": {"kernel": to},
      "start_from": {"kernel": origin}, "start_edge": {"kernel": edge, "bias": start["bias"]}}
  for block in range(BLOCKS):
    of = f"interaction_blocks.{block}"
    params |= {f"{ours}_{block}": layer(f"{of}.{theirs}") for ours, theirs in (
        ("radial_down", "lin_rbf1"), ("radial_up", "lin_rbf2"), ("send", "lin_kj"),
        ("keep", "lin_ji"), ("down", "lin_down"), ("up", "lin_up"), ("join", "lin"),
        ("residual", "layers_before_skip.0.lin2"))}
    params |= {f"angular_{way}_{block}": layer(f"{of}.lin_sbf{number}")["kernel"]
               for number, way in ((1, "down"), (2, "up"))}
    params[f"residual_{block}_hidden"] = layer(f"{of}.layers_before_skip.0.lin1")
    for index in range(2):
      params[f"residual_{block}_{index}"] = layer(f"{of}.layers_after_skip.{index}.lin2")
      params[f"residual_{block}_{index}_hidden"] = layer(f"{of}.layers_after_skip.{index}.lin1")
  for block in range(BLOCKS + 1):
    of = f"output_blocks.{block}"
    params[f"output_radial_{block}"] = layer(f"{of}.lin_rbf")
    params[f"output_up_{block}"] = {"bias": np.zeros(16), **layer(f"{of}.lin_up")}
    params |= {f"output_hidden_{block}_{index}": layer(f"{of}.lins.{index}")
               for index in range(3)}
    params[f"output_{block}"] = layer(f"{of}.lin")
  return {"params": jax.tree.map(jnp.asarray, params)}


@pytest.mark.parametrize("name, cutoff, angles", [
    ("dimenet_pp", 6.0, "detached"), ("dimenet_pp_pyg", 5.0, "differentiated")])
def test_energies_and_forces_are_those_of_the_reference(name, cutoff, angles, x64):
  """To what the reference keeps: the roots of its Bessel functions are float32."""
  reference = reference_networks.load(name)
  network = DimeNetPlusPlus(jax.nn.silu, cutoff=cutoff, angles=angles, **SMALL)
  predict = jax.jit(jax.vmap(derivatives.energy_and_forces(network.apply), (None, 0)))
  energy, forces = predict(variables_of(reference.weights), reference.systems)
  for ours, theirs in ((energy, reference.evaluated.energy), (forces, reference.evaluated.forces)):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())
