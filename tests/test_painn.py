"""PaiNN: the values of its reference implementation, and how its filters end at the cutoff."""

import functools

import jax
import numpy as np
import pytest
import reference_networks
from reference_networks import dense

from dcnn import derivatives
from dcnn.models import PaiNN

SIZES = {"features": 16, "blocks": 2, "radial": 8}
pytestmark = pytest.mark.usefixtures("x64")


def variables(weights):
  """The variables of `PaiNN` from those of SchNetPack, which has weights that nothing reads."""
  size, blocks = SIZES["features"], SIZES["blocks"]
  last = blocks - 1

  def part(layer, *kinds):
    """The outputs of some kinds, of `size` features each."""
    outputs = np.concatenate([np.arange(size) + size * kind for kind in kinds])
    return {"kernel": layer["kernel"][:, outputs], "bias": layer["bias"][outputs]}

  layer = functools.partial(dense, weights)
  table = weights["representation.embedding.weight"]
  params = {
      "embedding": {"embedding": np.pad(table, ((0, 119 - len(table)), (0, 0)))},
      "filters": part(layer("representation.filter_net"), 0, 1, *range(3, 3 * blocks)),
      "output_hidden": layer("output.0"), "output": layer("output.1")}
  for block in range(blocks):
    context = f"representation.interactions.{block}.interatomic_context_net"
    mixing = f"representation.mixing.{block}"
    params |= {
        f"send_hidden_{block}": layer(f"{context}.0"),
        f"send_{block}": part(layer(f"{context}.1"), *range(2 if block == 0 else 3)),
        f"mix_vectors_{block}": layer(f"{mixing}.mu_channel_mix"),
        f"mix_hidden_{block}": layer(f"{mixing}.intraatomic_context_net.0"),
        f"mix_{block}": part(layer(f"{mixing}.intraatomic_context_net.1"),
                             0, 2, *([] if block == last else [1]))}
  return {"params": params}


def test_energies_and_forces_are_those_of_the_reference_implementation():
  systems, expected, _, weights = reference_networks.load("painn")
  model = PaiNN(jax.nn.silu, envelope="faithful", **SIZES)
  predict = jax.jit(jax.vmap(derivatives.energy_and_forces(model.apply), (None, 0)))
  energy, forces = predict(variables(weights), systems)
  np.testing.assert_allclose(energy, expected.energy, rtol=1e-12)
  np.testing.assert_allclose(forces, expected.forces, atol=1e-12 * np.abs(expected.forces).max())
