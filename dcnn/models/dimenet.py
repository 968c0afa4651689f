"""DimeNet++: directional messages along edges, filtered by distances and angles.

References:
  J. Gasteiger, J. Gross and S. Guennemann, Directional message passing for molecular graphs, ICLR
  2020, arXiv:2003.03123.
  J. Gasteiger, S. Giri, J. T. Margraf and S. Guennemann, Fast and uncertainty-aware directional
  message passing for non-equilibrium molecules, arXiv:2011.14115.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System, text
from dcnn.models import bessel, initializers, layers, primitives, radial, triplets

OUTPUT_LAYERS, RESIDUALS_AFTER = 3, 2
ANGLES = ("differentiated", "detached")


def glorot_orthogonal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
  """Semi-orthogonal weights of the variance 2 / (inputs + outputs)."""
  weights = nn.initializers.orthogonal()(key, shape, dtype)
  return weights * jnp.sqrt(2.0 / (sum(shape) * jnp.var(weights)))


def inverse_envelope(x: Float[Array, " edges"]) -> Float[Array, " edges"]:
  """u(x) = 1/x - 28 x^5 + 48 x^6 - 21 x^7 up to x = 1, and 0 beyond; 0 at x = 0, too.

  This is `radial.polynomial_cutoff` with p = 6, over x. At 0 are the edges that are none.

  Args:
    x: Distances over the cutoff.

  References:
    arXiv:2003.03123, Eq. 8.
  """
  some = jnp.where(x > 0, x, 1.0)
  return jnp.where(x > 0, radial.polynomial_cutoff(some, 1.0, power=6) / some, 0.0)


class DimeNetPlusPlus(nn.Module):
  """Energy from messages m[j,i] along directed edges, which see the angles between edges.

  With x = d / cutoff, e_n = u(x) sin(f_n x), u of `inverse_envelope` and trained frequencies f_n,
  and with the basis of angles a_ln[k,j,i] = u(x_kj) N_ln j_l(z_ln x_kj) Y_l0(cos), where cos is the
  cosine of the angle between r_i - r_j and r_j - r_k:

      m[j,i] = act(W [h_i, h_j, act(W e + b)] + b), h = embedding
      B[j,i] = act(W_down (act(W m + b) * W W e))
      G[j,i] = sum over k other than i, j of B[k,j] * W W a[k,j,i]
      m[j,i] <- residual(residual(act(W residual(act(W m + b) + act(W_up G)) + b) + m))
      E = sum over blocks and atoms i of w act(W act(W act(W (W_up a + b) + b) + b) + b),
      a = sum_j W e * m[j,i]

  with residual(m) = m + act(W act(W m + b) + b). The weights w start at 0, as in the paper: the
  energy is then 0 for all configurations, and the first step changes nothing but w.

  Every triplet of atoms is taken: it is for molecules in free space of at most
  `triplets.MOST_ATOMS` atoms, and reads no neighbour list. What leaves an edge has a factor that is
  0 beyond the cutoff and on padding, whatever the activation is at 0.

  Deviations: W_up of the output has a bias, as in the code that the paper on derivative constraints
  used, and not in DimeNet++'s own. Spherical Bessel functions come from `bessel.bessel_table`.
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
                      (2, layers.MOST_UNITS)),
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
    edges = triplets.edge_arrays(system)
    x = edges.distance.reshape(-1) / self.cutoff
    envelope = inverse_envelope(x)[:, None]
    frequencies = self.param(
        "frequencies", lambda key: np.pi * jnp.arange(1, self.bessel + 1, dtype=jnp.float32))
    waves = envelope * jnp.sin(x[:, None] * frequencies)
    terms = len(bessel.bessel_table(self.spherical, self.bessel))
    series = envelope * bessel.cosines(jnp.minimum(x, 1.0), terms)
    start = self._start(system, waves)
    new = self.is_initializing()
    interactions = triplets.in_sequence(_Interaction, self.blocks, new, in_axes=nn.broadcast)
    _, messages = interactions(
        self.activation, self.bessel, self.basis_features, self.triplet_features,
        name="interaction")(start, waves, series, self._harmonics(edges))
    outputs = triplets.in_sequence(_Output, self.blocks + 1, new, in_axes=(0, nn.broadcast))
    energies, _ = outputs(
        self.activation, self.output_activation or self.activation, self.output_features,
        name="output")(
            jnp.zeros_like(x[:len(system.species)]), jnp.concatenate([start[None], messages]),
            waves)
    return layers.total(energies, system.species)

  def _harmonics(self, edges: triplets.EdgeArrays) -> Float[Array, "atoms atoms atoms orders"]:
    """Those of the angle between the directions of two messages: not of the one at the centre.

    Raises:
      ValueError: If the field `angles` is none of `ANGLES`.
    """
    if self.angles not in ANGLES:
      raise ValueError(text.unknown("angles", self.angles, ANGLES))
    cosines = -triplets.cosines(edges.direction)
    if self.angles == "detached":
      cosines = jax.lax.stop_gradient(cosines)
    return triplets.harmonics(cosines, self.spherical)

  def _start(
      self, system: System, waves: Float[Array, "edges radial"]
  ) -> Float[Array, "edges features"]:
    """Messages from the elements and the distance of the two atoms."""
    size, act = self.features, self.activation
    atoms = layers.embedding(size, initializers.uniform(3 ** 0.5))(system.species)
    hidden = act(layers.dense(
        size, **initializers.torch_default(self.bessel), name="start_radial")(waves))
    whole = initializers.torch_default(3 * size)
    part = {"kernel_init": whole["kernel_init"], "use_bias": False}
    parts = (layers.dense(size, **part, name="start_to"),
             layers.dense(size, **part, name="start_from"),
             layers.dense(size, reads=act, **whole, name="start_edge"))
    return act(triplets.joined(atoms, hidden, parts))

  @staticmethod
  def check(systems: System) -> None:
    """Makes sure that all frames are molecules in free space, and small enough.

    Args:
      systems: All configurations, those to be tested on included.

    Raises:
      ValueError: If there are cells, or more than `triplets.MOST_ATOMS` atoms.
    """
    triplets.check(systems, "DimeNetPlusPlus")


def _dense(size: int, reads: layers.Activation | None = None, **kwargs: Any) -> nn.Dense:
  return layers.dense(size, reads, kernel_init=glorot_orthogonal, **kwargs)


class _Interaction(nn.Module):
  """A block: from messages to messages that have seen the messages to their sender."""

  activation: layers.Activation
  bessel: int
  basis_features: int
  triplet_features: int

  @nn.compact
  def __call__(
      self, messages: Float[Array, "edges features"], waves: Float[Array, "edges radial"],
      series: Float[Array, "edges terms"], harmonics: Float[Array, "atoms atoms atoms orders"],
  ) -> tuple[Float[Array, "edges features"], Float[Array, "edges features"]]:
    act, size, atoms = self.activation, messages.shape[-1], len(harmonics)
    reduced = _dense(self.basis_features, use_bias=False, name="radial_down")(waves)
    sent = act(_dense(size, act, name="send")(messages))
    sent *= _dense(size, use_bias=False, name="radial_up")(reduced)
    sent = act(_dense(self.triplet_features, act, use_bias=False, name="down")(sent))
    received = triplets.triplet_sums(harmonics, (
        sent[:, None, :] * self._filters(series, harmonics.shape[-1])).reshape(
            atoms, atoms, -1, self.triplet_features))
    received = triplets.swap(received.reshape(len(messages), -1), atoms)
    hidden = act(_dense(size, act, name="keep")(messages))
    hidden += act(_dense(size, act, use_bias=False, name="up")(received))
    hidden = self._residual(hidden, "residual_before")
    messages += act(_dense(size, act, name="join")(hidden))
    for index in range(RESIDUALS_AFTER):
      messages = self._residual(messages, f"residual_{index}")
    return messages, messages

  def _filters(
      self, series: Float[Array, "edges terms"], orders: int
  ) -> Float[Array, "edges orders features"]:
    """W_2 W_1 a, without the factors Y_l, of which alone there is one for each triplet."""
    down = self.param(
        "angular_down", glorot_orthogonal, (orders * self.bessel, self.basis_features))
    table = jnp.asarray(bessel.bessel_table(orders, self.bessel), series.dtype)
    radial_part = jnp.einsum("tln,lnb->tlb", table, down.reshape(orders, self.bessel, -1))
    reduced = primitives.dot_general(series, radial_part.reshape(len(table), -1))
    up = _dense(self.triplet_features, use_bias=False, name="angular_up")
    return up(reduced.reshape(-1, self.basis_features)).reshape(len(series), orders, -1)

  def _residual(
      self, messages: Float[Array, "edges features"], name: str
  ) -> Float[Array, "edges features"]:
    act, size = self.activation, messages.shape[-1]
    hidden = act(_dense(size, act, name=f"{name}_hidden")(messages))
    return messages + act(_dense(size, act, name=name)(hidden))


class _Output(nn.Module):
  """What the messages of a block add to the energies of the atoms."""

  activation: layers.Activation
  output_activation: layers.Activation
  features: int

  @nn.compact
  def __call__(
      self, energies: Float[Array, " atoms"], messages: Float[Array, "edges features"],
      waves: Float[Array, "edges radial"],
  ) -> tuple[Float[Array, " atoms"], None]:
    act, read, (edges, size) = self.output_activation, None, messages.shape
    weights = _dense(size, use_bias=False, name="radial")(waves)
    hidden = jnp.sum((weights * messages).reshape(math.isqrt(edges), -1, size), axis=1)
    hidden = _dense(self.features, self.activation, name="up")(hidden)
    for index in range(OUTPUT_LAYERS):
      hidden = act(_dense(self.features, read, name=f"hidden_{index}")(hidden))
      read = act
    own = layers.dense(
        1, reads=read, kernel_init=nn.initializers.zeros, use_bias=False, name="energy")(hidden)
    return energies + own[:, 0], None
