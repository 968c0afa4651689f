"""SchNet: continuous-filter convolutions on a molecule or, with a neighbour list, a crystal.

References:
  K. T. Schuett et al., SchNet: a continuous-filter convolutional neural network for modeling
  quantum interactions, NeurIPS 30 (2017), arXiv:1706.08566.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System
from dcnn.models import layers, radial
from dcnn.models.normalisers import Normaliser, none, normalised


class SchNet(nn.Module):
  """Energy as a sum over atoms, whose features are refined by distance-filtered messages.

  The filters depend on distances alone, so each *unordered* pair is computed once and used in both
  directions, and the first layer of the filter networks of all blocks is one matrix product.
  Deviations from the paper: a residual block has one activation, as in the reference
  implementation; `radial.smooth_cutoff` multiplies the filters. The paper's activation is
  `activations.shifted_softplus`.

  Attributes:
    LIMITS: Least and largest values of the numbers below. The output network has half the
      features, and a Gaussian basis has two ends; what is larger fits no machine or compiles for
      many minutes.
    activation: The activation of the filter and residual networks, a function of an array or a
      `layers.Nonlinearity`.
    output_activation: The activation of the atom-wise output network; None is `activation`.
    features: Number of features of an atom and of a filter.
    blocks: Number of interaction blocks.
    radial: Number of Gaussians.
    cutoff: Radius in angstrom beyond which atoms send no messages.
    normaliser: Makes the layer that is applied to the atom features that enter a block.
  """

  LIMITS: ClassVar[Mapping[str, tuple[int | float, int | float]]] = {
      "features": (2, layers.MOST_UNITS), "blocks": (1, 32), "radial": (2, layers.MOST_UNITS),
      "cutoff": (0.1, 1000)}

  activation: layers.Activation
  features: int = 64
  blocks: int = 3
  radial: int = 32
  cutoff: float = 5.0
  normaliser: Normaliser = none
  output_activation: layers.Activation | None = None

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    act, output_act = self.activation, self.output_activation or self.activation
    atoms = layers.embedding(self.features)(system.species)
    pairs = layers.pairs(system, self.cutoff)
    real = jnp.asarray(system.species > 0, atoms.dtype)
    for block, filters in enumerate(self._filters(pairs)):
      sent = layers.dense(self.features, use_bias=False, name=f"send_{block}")(
          normalised(atoms, self.normaliser(), real))
      received = layers.exchange(pairs, filters, sent)
      hidden = act(layers.dense(self.features, name=f"receive_{block}")(received))
      atoms += layers.dense(self.features, reads=act, name=f"update_{block}")(hidden)
    hidden = output_act(layers.dense(self.features // 2, name="output_hidden")(atoms))
    energies = layers.dense(1, reads=output_act, name="output")(hidden)[:, 0]
    return layers.total(energies, system.species)

  def _filters(self, pairs: layers.Pairs) -> list[Float[Array, "pairs features"]]:
    """The filters of each block, the same for both directions of a pair."""
    envelope = (pairs.real * radial.smooth_cutoff(pairs.distance, self.cutoff))[:, None]
    basis = radial.gaussian_basis(pairs.distance, self.radial, self.cutoff)
    hidden = self.activation(
        layers.dense(self.blocks * self.features, name="filter_hidden")(basis))
    return [
        envelope * layers.dense(
            self.features, reads=self.activation, name=f"filter_{block}")(part)
        for block, part in enumerate(jnp.split(hidden, self.blocks, axis=-1))]
