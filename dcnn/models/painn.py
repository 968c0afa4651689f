"""PaiNN: messages of scalars and vectors, on a molecule or, with a neighbour list, a crystal.

References:
  K. T. Schuett, O. T. Unke and M. Gastegger, Equivariant message passing for the prediction of
  tensorial properties and molecular spectra, ICML (2021), arXiv:2102.03150.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System
from dcnn.models import layers, radial
from dcnn.models.normalisers import Normaliser, none, normalised

# Under the root of squared lengths, whose derivatives are infinite at 0; as the reference has it.
LENGTH_FLOOR = 1e-8


class PaiNN(nn.Module):
  """Energy as a sum over atoms, which carry scalars q (features) and vectors v (3, features).

  A block passes messages over pairs of the distance d and the direction u, from the receiver i to
  the sender j (Eqs. 7 and 8), with filters w that are linear in Bessel functions of the distance:

    x = W act(W q + b) + b,   (x_s, x_r, x_v) = x
    q_i += sum_j w_s(d) x_s,j
    v_i += sum_j w_r(d) x_r,j u + w_v(d) x_v,j v_j

  and mixes the two kinds of features of each atom (Eqs. 9 and 10):

    (V, W) = v W_mix,   (a, b, c) = W act(W (q, |V|) + b) + b
    q += a + c (V . W),   v += b W

  The energy is the sum over atoms of W act(W q + b) + b. It is invariant under rotation and
  inversion, because vectors are made of directions alone and meet in products of two.

  The filters of all blocks are one matrix product, and each unordered pair is computed once:
  those of scalars are the same in both directions, and those of vectors change their sign.

  Deviations from the paper: `radial.smooth_cutoff` multiplies the filters, because the second
  derivative of the paper's cosine cutoff jumps, and with it the gradient of the force loss.
  Initial weights have the standard deviation of `layers.dense`; the paper's are uniform. The
  first block sends no vectors and the last makes none, where the reference implementation has
  weights that nothing reads.

  Attributes:
    LIMITS: Least and largest values of the numbers below.
    activation: The activation of the networks that make messages and mix, a function of an array
      or a `layers.Nonlinearity`.
    output_activation: The activation of the atom-wise output network; None is `activation`.
    features: Number of scalars, and of vectors, of an atom.
    blocks: Number of blocks.
    radial: Number of Bessel functions.
    cutoff: Radius in angstrom beyond which atoms send no messages.
    envelope: The cutoff function: `smooth`, or `faithful`, which is the paper's.
    normaliser: Makes the layer that is applied to the scalars that enter a block.
  """

  LIMITS: ClassVar[Mapping[str, tuple[int | float, int | float]]] = {
      "features": (2, layers.MOST_UNITS), "blocks": (1, 32), "radial": (1, layers.MOST_UNITS),
      "cutoff": (0.1, 1000)}

  activation: layers.Activation
  features: int = 64
  blocks: int = 3
  radial: int = 20
  cutoff: float = 5.0
  envelope: str = "smooth"
  normaliser: Normaliser = none
  output_activation: layers.Activation | None = None

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    output_act = self.output_activation or self.activation
    pairs = layers.pairs(system, self.cutoff)
    scalars = layers.embedding(self.features)(system.species)
    real = jnp.asarray(system.species > 0, scalars.dtype)
    vectors = None  # as rows of three components, each of all features
    for block, filters in enumerate(self._filters(pairs)):
      normal = normalised(scalars, self.normaliser(), real)
      scalars, vectors = self._messages(block, pairs, filters, normal, scalars, vectors)
      scalars, vectors = self._mix(block, scalars, vectors)
    hidden = output_act(layers.dense(self.features // 2, name="output_hidden")(scalars))
    energies = layers.dense(1, reads=output_act, name="output")(hidden)[:, 0]
    return layers.total(energies, system.species)

  def _filters(self, pairs: layers.Pairs) -> list[list[Float[Array, "pairs features"]]]:
    """The filters (w_s, w_r, w_v) of each block; the first has no w_v."""
    cutoff = radial.envelope(self.envelope, faithful=radial.cosine_cutoff)
    factor = (pairs.real * cutoff(pairs.distance, self.cutoff))[:, None]
    basis = radial.bessel_basis(pairs.distance, self.radial, self.cutoff)
    kinds = [2, *[3] * (self.blocks - 1)]
    filters = factor * layers.dense(sum(kinds) * self.features, name="filters")(basis)
    parts = iter(jnp.split(filters, sum(kinds), axis=-1))
    return [[next(parts) for _ in range(number)] for number in kinds]

  def _messages(
      self, block: int, pairs: layers.Pairs, filters: Sequence[Float[Array, "pairs features"]],
      normal: Float[Array, "atoms features"], scalars: Float[Array, "atoms features"],
      vectors: Float[Array, "atoms components"] | None,
  ) -> tuple[Float[Array, "atoms features"], Float[Array, "atoms components"]]:
    """Scalars and vectors with what the neighbours send; None are vectors that are all zero."""
    act, size = self.activation, self.features
    hidden = act(layers.dense(size, name=f"send_hidden_{block}")(normal))
    sent = jnp.split(
        layers.dense(len(filters) * size, reads=act, name=f"send_{block}")(hidden), len(filters),
        axis=-1)
    towards, = layers.exchange_angular(
        pairs, [pairs.direction], [filters[1]], sent[1][:, None], [-1])
    scalars += layers.exchange(pairs, filters[0], sent[0])
    towards = towards.reshape(len(scalars), -1)
    if vectors is None:
      return scalars, towards
    along = [layers.exchange(pairs, filters[2], sent[2] * component)
             for component in jnp.split(vectors, 3, axis=-1)]
    return scalars, vectors + towards + jnp.concatenate(along, axis=-1)

  def _mix(
      self, block: int, scalars: Float[Array, "atoms features"],
      vectors: Float[Array, "atoms components"],
  ) -> tuple[Float[Array, "atoms features"], Float[Array, "atoms components"]]:
    """Scalars and vectors of each atom, mixed; the vectors of the last block stay as they are."""
    act, size = self.activation, self.features
    mixed = layers.dense(2 * size, use_bias=False, name=f"mix_vectors_{block}")(
        vectors.reshape(-1, size))
    parts = jnp.split(mixed.reshape(len(scalars), -1), 6, axis=-1)
    v, w = parts[::2], parts[1::2]
    length = jnp.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + LENGTH_FLOOR)
    hidden = act(layers.dense(size, name=f"mix_hidden_{block}")(
        jnp.concatenate([scalars, length], axis=-1)))
    kinds = 2 if block == self.blocks - 1 else 3
    a, c, *b = jnp.split(
        layers.dense(kinds * size, reads=act, name=f"mix_{block}")(hidden), kinds, axis=-1)
    scalars += a + c * (v[0] * w[0] + v[1] * w[1] + v[2] * w[2])
    if b:
      vectors += jnp.concatenate([b[0] * component for component in w], axis=-1)
    return scalars, vectors
