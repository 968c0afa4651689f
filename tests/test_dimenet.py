"""DimeNet++: reference values, and what its messages see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_networks
from compiling import quickly_compiled

from dcnn import activations, derivatives
from dcnn.models import DimeNetPlusPlus, Nonlinearity

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
  def interaction(of):
    own = {ours: layer(f"{of}.{theirs}") for ours, theirs in (
        ("radial_down", "lin_rbf1"), ("radial_up", "lin_rbf2"), ("send", "lin_kj"),
        ("keep", "lin_ji"), ("down", "lin_down"), ("up", "lin_up"), ("join", "lin"))}
    own |= {"angular_down": layer(f"{of}.lin_sbf1")["kernel"],
            "angular_up": layer(f"{of}.lin_sbf2")}
    for ours, theirs in (("before", "before_skip.0"), ("0", "after_skip.0"), ("1", "after_skip.1")):
      own[f"residual_{ours}_hidden"] = layer(f"{of}.layers_{theirs}.lin1")
      own[f"residual_{ours}"] = layer(f"{of}.layers_{theirs}.lin2")
    return own

  def output(of):
    return {"radial": layer(f"{of}.lin_rbf"), "energy": layer(f"{of}.lin"),
            "up": {"bias": np.zeros(SMALL["output_features"]), **layer(f"{of}.lin_up")},
            **{f"hidden_{index}": layer(f"{of}.lins.{index}") for index in range(3)}}

  params["interaction"] = reference_networks.stacked(
      interaction(f"interaction_blocks.{block}") for block in range(BLOCKS))
  params["output"] = reference_networks.stacked(
      output(f"output_blocks.{block}") for block in range(BLOCKS + 1))
  return {"params": jax.tree.map(jnp.asarray, params)}


@pytest.mark.parametrize("name, cutoff, angles", [
    ("dimenet_pp", 6.0, "detached"), ("dimenet_pp_pyg", 5.0, "differentiated")])
def test_energies_and_forces_are_those_of_the_reference(name, cutoff, angles, x64):
  """To what the reference keeps: the roots of its Bessel functions are float32."""
  reference = reference_networks.load(name)
  network = DimeNetPlusPlus(jax.nn.silu, cutoff=cutoff, angles=angles, **SMALL)
  predict = quickly_compiled(
      jax.vmap(derivatives.energy_and_forces(network.apply), (None, 0)))
  energy, forces = predict(variables_of(reference.weights), reference.systems)
  for ours, theirs in ((energy, reference.evaluated.energy), (forces, reference.evaluated.forces)):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())


def test_init_matched_weights_undo_the_constant_exactly(x64):
  """The last weights, which start at 0, are drawn here, and take the gain as the others do."""
  system = jax.tree.map(lambda leaf: leaf[0], reference_networks.load("dimenet_pp").systems)
  last = np.random.default_rng(0).normal(size=(2, 2, 1))

  def energy(c):
    act = Nonlinearity(functools.partial(activations.irelu, c=c), 0.5 / c)
    network = DimeNetPlusPlus(
        act, features=4, blocks=1, triplet_features=2, basis_features=2, output_features=2)
    params = network.init(jax.random.key(0), system)["params"]
    params["output"]["energy"] = {"kernel": last * (0.5 / c)}
    return network.apply({"params": params}, system)

  # Powers of two: the float32 weights scale without rounding.
  found = quickly_compiled(jax.vmap(energy))(jnp.array([0.5, 0.125, 2.0]))
  assert np.isfinite(found).all() and (found != 0).all()
  np.testing.assert_allclose(found, found[0], rtol=1e-11)
