"""DimeNet++: directional messages along edges, filtered by distances and angles.

References:
  J. Gasteiger, J. Gross and S. Guennemann, Directional message passing for molecular graphs, ICLR
  2020, arXiv:2003.03123.
  J. Gasteiger, S. Giri, J. T. Margraf and S. Guennemann, Fast and uncertainty-aware directional
  message passing for non-equilibrium molecules, arXiv:2011.14115.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System
from dcnn.models import layers, primitives, spherical, triplets

LARGEST_ATOMIC_NUMBER = 118
OUTPUT_LAYERS = 3
RESIDUALS_AFTER = 2

_PRODUCT = (((1,), (0,)), ((), ()))


def glorot_orthogonal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
  """Semi-orthogonal weights of the variance 2 / (inputs + outputs)."""
  weights = nn.initializers.orthogonal()(key, shape, dtype)
  return weights * jnp.sqrt(2.0 / (sum(shape) * jnp.var(weights)))


def uniform(bound: float) -> nn.initializers.Initializer:
  """Numbers between -bound and bound."""
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def inverse_envelope(x: Float[Array, " edges"]) -> Float[Array, " edges"]:
  """u(x) = 1/x - 28 x^5 + 48 x^6 - 21 x^7 up to x = 1, and 0 beyond; 0 at x = 0, too.

  Its value and its first two derivatives vanish at 1. At 0 are the edges that are none.

  Args:
    x: Distances over the cutoff.

  References:
    arXiv:2003.03123, Eq. 8 with p = 6, over x.
  """
  inside = jnp.minimum(x, 1.0)
  some = jnp.where(inside > 0, inside, 1.0)
  power = some ** 5
  return jnp.where(inside > 0, 1.0 / some - power * (28.0 - some * (48.0 - 21.0 * some)), 0.0)


class DimeNetPlusPlus(nn.Module):
  """Energy from messages m[j,i] along directed edges, which see the angles between edges.

  With x = d / cutoff, e_n = u(x) sin(f_n x), u of `inverse_envelope` and trained frequencies f_n,
  and with the basis of angles a_ln[k,j,i] = u(x_kj) N_ln j_l(z_ln x_kj) Y_l0(cos), where cos is the
  cosine of the angle between r_i - r_j and r_j - r_k:

      m[j,i] = act(W [h_i, h_j, act(W e + b)] + b), h = embedding
      B[j,i] = act(W_down (act(W m + b) * W W e))
      G[j,i] = sum over k other than i, j of B[k,j] * W W a[k,j,i]
      m[j,i] <- residual(residual(act(W residual(act(W m + b) + act(W_up G)) + b) + m))
      E = sum over blocks and atoms i of w act(W act(W act(W W_up (sum_j W e * m[j,i]))))

  with residual(m) = m + act(W act(W m + b) + b). The weights w start at 0, as in the paper: the
  energy is then 0 for all configurations, and the first step changes nothing but w.

  Every triplet of atoms is taken: it is for molecules in free space of at most
  `triplets.MOST_ATOMS` atoms, and reads no neighbour list. What leaves an edge has a factor that is
  0 beyond the cutoff and on padding, whatever the activation is at 0.

  Deviations: W_up of the output has a bias, as in the code that the paper on derivative constraints
  used, and not in DimeNet++'s own. Spherical Bessel functions come from `spherical.bessel_table`.
  Weights are drawn as in the paper, times the gain of the activation that they read; messages count
  as activations, of which they are sums.

  Attributes:
    LIMITS: Least and largest values of the numbers below.
    LISTED: It has no form for neighbour lists.
    activation: The activation of all layers but those of the output.
    output_activation: The activation of the three dense layers of each output block; None is
      `activation`.
    features: Number of features of a message and of an atom.
    blocks: Number of interaction blocks; there is one output block more.
    cutoff: Radius in angstrom beyond which atoms send no messages.
    bessel: Number of radial functions, and of roots of each spherical Bessel function.
    spherical: Number of orders l of the angular functions.
    basis_features: Number of features that the functions of distances and angles are reduced to.
    triplet_features: Number of features that a triplet passes on.
    output_features: Number of features of the output blocks.
    angles: What the forces see of the angles: "differentiated", all; "detached", nothing. In the
      code that the paper on derivative constraints used they are detached, so that its forces are
      not the derivatives of its energy (arXiv:2310.01649).
  """

  LIMITS: ClassVar[Mapping[str, tuple[int | float, int | float]]] = {
      **dict.fromkeys(("features", "basis_features", "triplet_features", "output_features"),
                      (1, layers.MOST_UNITS)),
      "blocks": (1, 32), "cutoff": (0.1, 1000), "bessel": (1, 64), "spherical": (1, 16)}
  LISTED: ClassVar[bool] = False

  activation: layers.Activation
  features: int = 64
  blocks: int = 3
  cutoff: float = 5.0
  bessel: int = 6
  spherical: int = 7
  basis_features: int = 8
  triplet_features: int = 32
  output_features: int = 64
  angles: str = "differentiated"
  output_activation: layers.Activation | None = None

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    edges = triplets.edges(system)
    x = edges.distance.reshape(-1) / self.cutoff
    envelope = inverse_envelope(x)[:, None]
    frequencies = self.param(
        "frequencies", lambda key: np.pi * jnp.arange(1, self.bessel + 1, dtype=jnp.float32))
    radial = envelope * jnp.sin(x[:, None] * frequencies)
    filters = self._filters(x, envelope, edges)
    messages = self._start(system, radial)
    energies = self._output(0, messages, radial)
    for block in range(self.blocks):
      messages = self._interaction(block, messages, radial, filters[block])
      energies += self._output(block + 1, messages, radial)
    return jnp.sum(jnp.where(system.species > 0, energies, 0.0))

  def _filters(
      self, x: Float[Array, " edges"], envelope: Float[Array, "edges 1"], edges: triplets.Edges,
  ) -> list[Float[Array, "atoms atoms atoms basis"]]:
    """The filters of each block, W_1 a: the radial part of the basis is reduced first."""
    cosines = triplets.cosines(edges.direction)
    if self.angles == "detached":
      cosines = jax.lax.stop_gradient(cosines)
    table = jnp.asarray(spherical.bessel_table(self.spherical, self.bessel), x.dtype)
    polynomials = envelope * spherical.chebyshev(jnp.minimum(x, 1.0), len(table))
    atoms, filters = len(cosines), []
    for block in range(self.blocks):
      weights = self.param(f"angular_down_{block}", glorot_orthogonal,
                           (self.spherical * self.bessel, self.basis_features))
      series = jnp.einsum("tln,lnb->tlb", table, weights.reshape(*table.shape[1:], -1))
      reduced = primitives.dot_general(
          polynomials, series.reshape(len(table), -1), _PRODUCT)
      # The angle is that between the directions of the two messages, not the one at the centre.
      filters.append(triplets.angular_filters(
          -cosines, reduced.reshape(atoms, 1, atoms, self.spherical, -1)))
    return filters

  def _start(
      self, system: System, radial: Float[Array, "edges radial"]
  ) -> Float[Array, "edges features"]:
    """Messages from the elements and the distance of the two atoms."""
    size, act = self.features, self.activation
    atoms = nn.Embed(
        LARGEST_ATOMIC_NUMBER + 1, size, embedding_init=uniform(3 ** 0.5), name="embedding")(
            system.species)
    narrow, wide = uniform((3 * size) ** -0.5), uniform(self.bessel ** -0.5)
    hidden = act(layers.dense(
        size, kernel_init=wide, bias_init=wide, name="start_radial")(radial))
    parts = (
        layers.dense(size, kernel_init=narrow, use_bias=False, name="start_to"),
        layers.dense(size, kernel_init=narrow, use_bias=False, name="start_from"),
        layers.dense(size, reads=act, kernel_init=narrow, bias_init=narrow, name="start_edge"))
    return act(triplets.joined(atoms, hidden, parts))

  def _dense(self, size: int, name: str, **kwargs: Any) -> nn.Dense:
    return layers.dense(size, kernel_init=glorot_orthogonal, name=name, **kwargs)

  def _residual(
      self, messages: Float[Array, "edges features"], name: str
  ) -> Float[Array, "edges features"]:
    act = self.activation
    hidden = act(self._dense(self.features, f"{name}_hidden", reads=act)(messages))
    return messages + act(self._dense(self.features, name, reads=act)(hidden))

  def _interaction(
      self, block: int, messages: Float[Array, "edges features"],
      radial: Float[Array, "edges radial"], filters: Float[Array, "atoms atoms atoms basis"],
  ) -> Float[Array, "edges features"]:
    """Messages that have seen the messages to their sender."""
    act, size, atoms = self.activation, self.features, len(filters)
    reduced = self._dense(self.basis_features, f"radial_down_{block}", use_bias=False)(radial)
    sent = act(self._dense(size, f"send_{block}", reads=act)(messages))
    sent *= self._dense(size, f"radial_up_{block}", use_bias=False)(reduced)
    sent = act(self._dense(
        self.triplet_features, f"down_{block}", reads=act, use_bias=False)(sent))
    up = self.param(
        f"angular_up_{block}", glorot_orthogonal, (self.basis_features, self.triplet_features))
    received = triplets.triplet_sums(
        filters, sent.reshape(atoms, atoms, 1, -1) * up).reshape(atoms * atoms, -1)
    hidden = act(self._dense(size, f"keep_{block}", reads=act)(messages))
    hidden += act(self._dense(size, f"up_{block}", reads=act, use_bias=False)(
        triplets.swap(received, atoms)))
    hidden = self._residual(hidden, f"residual_{block}")
    messages += act(self._dense(size, f"join_{block}", reads=act)(hidden))
    for index in range(RESIDUALS_AFTER):
      messages = self._residual(messages, f"residual_{block}_{index}")
    return messages

  def _output(
      self, block: int, messages: Float[Array, "edges features"],
      radial: Float[Array, "edges radial"],
  ) -> Float[Array, " atoms"]:
    """What a block adds to the energies of the atoms."""
    act, read = self.output_activation or self.activation, None
    weights = self._dense(self.features, f"output_radial_{block}", use_bias=False)(radial)
    atoms = round(len(messages) ** 0.5)
    hidden = jnp.sum((weights * messages).reshape(atoms, atoms, -1), axis=1)
    hidden = self._dense(
        self.output_features, f"output_up_{block}", reads=self.activation)(hidden)
    for index in range(OUTPUT_LAYERS):
      hidden = act(self._dense(
          self.output_features, f"output_hidden_{block}_{index}", reads=read)(hidden))
      read = act
    return layers.dense(1, reads=read, kernel_init=nn.initializers.zeros, use_bias=False,
                        name=f"output_{block}")(hidden)[:, 0]
