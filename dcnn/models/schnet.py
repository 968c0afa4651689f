"""SchNet: continuous-filter convolutions on a molecule or, with a neighbour list, a crystal.

References:
  K. T. Schuett et al., SchNet: a continuous-filter convolutional neural network for modeling
  quantum interactions, NeurIPS 30 (2017), arXiv:1706.08566.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System
from dcnn.models import layers
from dcnn.models.normalisers import Normaliser, none

LARGEST_ATOMIC_NUMBER = 118


def smooth_cutoff(distance: Float[Array, "*pairs"], cutoff: float) -> Float[Array, "*pairs"]:
  """cos^4(pi r / 2 cutoff) inside the cutoff, 0 beyond.

  The square of the usual cosine cutoff. Its first three derivatives vanish at the cutoff, so that
  forces, and the second derivatives that training on them takes, are continuous there; the usual
  one's second derivative jumps.
  """
  inside = jnp.minimum(distance, cutoff)
  return jnp.square(0.5 * (1.0 + jnp.cos(jnp.pi * inside / cutoff)))


def radial_basis(
    distance: Float[Array, " pairs"], number: int, cutoff: float
) -> Float[Array, "pairs radial"]:
  """Gaussians with centres evenly spaced from 0 to the cutoff and a width of their spacing.

  Args:
    distance: angstrom.
    number: how many Gaussians, at least 2.
    cutoff: angstrom.

  Returns:
    exp(-(r - centre)^2 / 2 width^2).

  References:
    SchNet, Eq. 4 (there every 0.1 angstrom).
  """
  centres = jnp.linspace(0.0, cutoff, number, dtype=distance.dtype)
  width = cutoff / (number - 1)
  return jnp.exp(-0.5 * jnp.square((distance[:, None] - centres) / width))


class SchNet(nn.Module):
  """Energy as a sum over atoms whose features exchange distance-filtered messages.

  The filters depend on distances alone, so each *unordered* pair is computed once and used in
  both directions, and the first layer of all blocks' filter networks is one matrix product.
  Deviations from the paper: no shift of the activation to pass through zero; a residual block has
  one activation, as in the reference implementation; the cutoff above multiplies the filters.

  Attributes:
    LIMITS: least and largest values of the numbers below: the output network has half the features,
      a Gaussian basis two ends, and what is larger fits no machine or compiles for many minutes.
    activation: function of an array.
    features: size of the atom features and filters.
    blocks: number of interaction blocks.
    radial: number of Gaussians.
    cutoff: angstrom.
    normaliser: makes the layer applied to the atom features that enter a block.
    where: `everywhere`, or `output_block` for the atom-wise output network alone.
    elsewhere: the activation where `activation` does not apply.
    init_gain: factor on the initial weights of the layers that read `activation`.
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
  where: layers.Where = "everywhere"
  elsewhere: layers.Activation = jax.nn.silu
  init_gain: Float[Array, ""] | float = 1.0

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    everywhere = self.where == "everywhere"
    inner = self.activation if everywhere else self.elsewhere
    inner_gain = self.init_gain if everywhere else 1.0
    embedding = nn.Embed(
        LARGEST_ATOMIC_NUMBER + 1, self.features, embedding_init=nn.initializers.normal(1.0),
        name="embedding")
    atoms = embedding(system.species)
    pairs = layers.pairs(system, self.cutoff)
    exchange = layers.exchange_all if system.neighbours is None else layers.exchange_listed
    for block, filters in enumerate(self._filters(pairs, inner, inner_gain)):
      normalised = self.normaliser()(atoms)
      sent = layers.dense(self.features, use_bias=False, name=f"send_{block}")(normalised)
      received = exchange(pairs, filters, sent)
      hidden = inner(layers.dense(self.features, name=f"receive_{block}")(received))
      atoms += layers.dense(self.features, inner_gain, name=f"update_{block}")(hidden)
    hidden = self.activation(layers.dense(self.features // 2, name="output_hidden")(atoms))
    energies = layers.dense(1, self.init_gain, name="output")(hidden)[:, 0]
    return jnp.sum(jnp.where(system.species > 0, energies, 0.0))

  def _filters(
      self, pairs: layers.Pairs, activation: layers.Activation, gain: Float[Array, ""] | float
  ) -> list[Float[Array, "pairs features"]]:
    """The filters of each block, the same for both directions of a pair."""
    envelope = (pairs.real * smooth_cutoff(pairs.distance, self.cutoff))[:, None]
    basis = radial_basis(pairs.distance, self.radial, self.cutoff)
    hidden = activation(
        layers.dense(self.blocks * self.features, name="filter_hidden")(basis))
    return [
        envelope * layers.dense(self.features, gain, name=f"filter_{block}")(part)
        for block, part in enumerate(jnp.split(hidden, self.blocks, axis=-1))]
