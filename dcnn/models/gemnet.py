"""GemNet-T: messages along directed edges that exchange over triplets of atoms.

References:
  J. Gasteiger, F. Becker and S. Guennemann, GemNet: universal directional graph neural networks for
  molecules, NeurIPS 34 (2021), arXiv:2106.08903.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System, text
from dcnn.models import initializers, layers, radial, triplets

ATOM_RESIDUALS, RESIDUALS_AFTER = 3, 2

# Of each interaction block, and of each output block: fitted to OC20 at its code's default sizes,
# and fixed in the code that the paper on derivative constraints used. Those of the third block and
# of the last output are known to three digits.
OC20_INTERACTIONS = np.array([
    # radial product, sum over triplets, sum over neighbours
    [18.873615264892578, 7.996850490570068, 1.220463752746582],
    [16.10817527770996, 7.614634037017822, 0.9690996],
    [15.02, 7.03, 0.890]])
OC20_OUTPUTS = np.array([1.6437848806381226, 1.1077653169631958, 0.9477927684783936, 0.906])
SCALES = ("fitted", "oc20")


def he_orthogonal(
    factor: float = 1.0, inputs: int | None = None) -> nn.initializers.Initializer:
  """Semi-orthogonal weights whose variance over the inputs of each output is 1 / inputs.

  Args:
    factor: Factor on the weights.
    inputs: Number of inputs where the weights of several are one row of the array: a tensor
      (first, second, outputs), of which the first two are inputs, as (first, second * outputs).
  """
  def initialise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    rows = inputs or shape[0]
    weights = nn.initializers.orthogonal()(key, (rows, math.prod(shape) // rows), dtype)
    spread = jnp.sqrt(jnp.var(weights, axis=0, ddof=1) + 1e-6)
    weights = (weights - jnp.mean(weights, axis=0)) / spread
    return (factor * rows ** -0.5 * weights).reshape(shape)

  return initialise


class _Samples(NamedTuple):
  """Which rows are real, 1 or 0: the samples of a variance."""

  edges: Float[Array, " edges"]
  atoms: Float[Array, " atoms"]


def _variance(
    values: Float[Array, "rows features"], real: Float[Array, " rows"]) -> Float[Array, ""]:
  """The variance over real rows, in the mean of the features."""
  number = jnp.sum(real)
  weights = (real / jnp.maximum(number, 1.0))[:, None]
  centred = values - jnp.sum(weights * values, axis=0)
  share = number / jnp.maximum(number - 1.0, 1.0)
  return share * jnp.mean(jnp.sum(weights * jnp.square(centred), axis=0))


def _rescaled(
    module: nn.Module, name: str, values: Float[Array, "rows features"],
    given: Float[Array, ""] | None, variances: Callable[[], tuple[Array, Array]],
) -> Float[Array, "rows features"]:
  """Values times a factor, of the collection `scales`, that is not trained.

  Args:
    module: The module that has the factor.
    name: Its name there.
    values: What is scaled.
    given: The factor at initialisation; None fits it, so that the values have the variance of what
      they were made of, in the configuration that the network is initialised with.
    variances: Gives that variance, and the variance of the values.
  """
  def initial() -> Array:
    if given is not None:
      return jnp.asarray(given, values.dtype)
    wanted, found = variances()
    varied = (wanted > 0) & (found > 0)  # a single atom has no neighbours
    return jnp.where(varied, jnp.sqrt(wanted / jnp.where(varied, found, 1.0)), 1.0)

  return module.variable("scales", name, initial).value * values


class GemNetT(nn.Module):
  """Energy from messages m[c,a] along directed edges, which exchange at the atom they point to.

  With act the activation, W dense layers without bias and different in each place, and
  res(x) = (x + act(W act(W x))) / sqrt(2), a block is, for messages from c to a and from b to a:

      B[b,a] = act(W_down (scale * act(W m[b,a]) * W e[b,a]))
      v[c,a] = scale * sum over b other than c, and l, of Y_l0(cos bac) (W_l e[c,a]) W B[b,a]
      X[c,a] = (act(W v[c,a]) + act(W v[a,c])) / sqrt(2)
      m <- res(res((m + res((act(W m) + X) / sqrt(2))) / sqrt(2)))
      h[a] <- (h[a] + U(m)[a]) / sqrt(2),  U(m)[a] = res(res(res(act(W scale * sum_c m * W e))))
      m <- (m + res(act(W [h_c, h_a, m]))) / sqrt(2)

  e are Gaussians of the distance times the polynomial cutoff with p = 5, projected. The energy is
  the sum over atoms and blocks, and before the first, of W U(m) with weights of their own.

  Every triplet of atoms is taken: it is for molecules in free space of at most
  `triplets.MOST_ATOMS` atoms, and reads no neighbour list. What leaves an edge has a factor that is
  0 beyond the cutoff and on padding.

  The factors `scale` keep the variance of the messages and are not trained. They belong to the
  sizes of the network: those of OC20 are far off for small ones.

  Deviations: act(0) is taken off B, so that the energy is smooth at the cutoff with any activation;
  the paper's has act(0) = 0. A dense layer of a concatenation draws the weights of each part by
  themselves. Weights are multiplied by the gain of the activation that they read; messages count as
  activations, of which they are sums. Atoms do not, and U(m) has the gain where it is added to
  them. No cosine is clamped.

  Attributes:
    LIMITS: Least and largest values of the numbers below.
    LISTED: It has no form for neighbour lists.
    ELSEWHERE: The activation where another stands in the output block alone.
    activation: The activation of all layers but those of the output; the paper's is
      `activations.scaled_silu`.
    output_activation: The activation of the output blocks, in 1 + 2 x 3 dense layers each; None is
      `activation`.
    features: Number of features of a message.
    blocks: Number of interaction blocks; there is one output block more.
    radial: Number of Gaussians.
    cutoff: Radius in angstrom beyond which atoms send no messages.
    spherical: Number of orders l of the angular functions.
    atom_features: Number of features of an atom.
    basis_features: Number of features that the functions of distances and angles are reduced to.
    triplet_features: Number of features that a triplet passes on.
    bilinear_features: Number of features of the sum over triplets.
    scales: The factors: "fitted" at initialisation, to one configuration; or "oc20", those that the
      paper on derivative constraints took from OC20's code (arXiv:2310.01649), of up to 3 blocks.
  """

  LIMITS: ClassVar[Mapping[str, tuple[int | float, int | float]]] = {
      **dict.fromkeys(("features", "atom_features", "basis_features", "triplet_features",
                       "bilinear_features", "radial"), (2, layers.MOST_UNITS)),
      "blocks": (1, 32), "cutoff": (0.1, 1000), "spherical": (1, 16)}
  LISTED: ClassVar[bool] = False
  ELSEWHERE: ClassVar[str] = "scaled_silu"

  activation: layers.Activation
  features: int = 64
  blocks: int = 3
  radial: int = 32
  cutoff: float = 5.0
  spherical: int = 7
  atom_features: int = 64
  basis_features: int = 8
  triplet_features: int = 32
  bilinear_features: int = 32
  scales: str = "fitted"
  output_activation: layers.Activation | None = None

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    act, edges = self.activation, triplets.edge_arrays(system)
    x = edges.distance.reshape(-1) / self.cutoff
    real = _Samples(((x > 0) & (x < 1)).astype(x.dtype),
                    (jnp.asarray(system.species) > 0).astype(x.dtype))
    envelope = (x > 0) * radial.polynomial_cutoff(x, 1.0, power=5)
    basis = envelope[:, None] * radial.gaussian_basis(x, self.radial, 1.0)
    to_triplets, to_atoms, to_outputs = (
        _dense(self.basis_features, name=f"radial_{name}")(basis)
        for name in ("triplets", "atoms", "outputs"))
    filters = self._filters(basis, edges)
    draw = initializers.uniform(3 ** 0.5)
    atoms = layers.embedding(self.atom_features, draw)(system.species).astype(x.dtype)
    start = act(_joined(self.features, atoms, basis, None, "start"))
    interaction_scales, output_scales = self._given_scales()
    new, same = self.is_initializing(), nn.broadcast
    interactions = triplets.in_sequence(
        _Interaction, self.blocks, new, in_axes=(0, same, same, same, same))
    _, messages = interactions(
        act, self.triplet_features, self.bilinear_features, name="interaction")(
            (atoms, start), interaction_scales, to_triplets, to_atoms, filters, real)
    outputs = triplets.in_sequence(_Output, self.blocks + 1, new, in_axes=(0, 0, same, same))
    energies, _ = outputs(
        act, self.output_activation or act, self.atom_features, name="output")(
            jnp.zeros_like(real.atoms), jnp.concatenate([start[None], messages]), output_scales,
            to_outputs, real)
    return layers.total(energies, system.species)

  def _filters(
      self, basis: Float[Array, "edges radial"], edges: triplets.EdgeArrays
  ) -> Float[Array, "atoms atoms atoms basis"]:
    """The functions of distance and angle of a triplet, reduced, which all blocks share."""
    harmonics = triplets.harmonics(triplets.cosines(edges.direction), self.spherical)
    atoms = len(harmonics)
    reduced = layers.dense(
        self.spherical * self.basis_features, use_bias=False, name="angular",
        kernel_init=he_orthogonal(inputs=self.radial * self.spherical))(basis)
    return jnp.einsum(
        "cofl,colb->cofb", harmonics, reduced.reshape(atoms, atoms, self.spherical, -1))

  def _given_scales(self) -> tuple[Array | None, Array | None]:
    """The factors of the interaction blocks and of the output blocks; None where they are fitted.

    Raises:
      ValueError: If the field `scales` is none of `SCALES`, or there are more blocks.
    """
    if self.scales not in SCALES:
      raise ValueError(text.unknown("scales", self.scales, SCALES))
    if self.scales == "fitted":
      return None, None
    if self.blocks > len(OC20_INTERACTIONS):
      raise ValueError(
          f"scales=oc20 has the factors of {len(OC20_INTERACTIONS)} blocks, received "
          f"blocks={self.blocks}: take fewer blocks, or scales=fitted")
    return (jnp.asarray(OC20_INTERACTIONS[:self.blocks]),
            jnp.asarray(OC20_OUTPUTS[:self.blocks + 1]))

  @staticmethod
  def check(systems: System) -> None:
    """Makes sure that all frames are molecules in free space, and small enough.

    Args:
      systems: All configurations, those to be tested on included.

    Raises:
      ValueError: If there are cells, or more than `triplets.MOST_ATOMS` atoms.
    """
    triplets.check(systems, "GemNetT")


def _dense(size: int, reads: layers.Activation | None = None, **kwargs: Any) -> nn.Dense:
  return layers.dense(
      size, reads, use_bias=False, **{"kernel_init": he_orthogonal(), **kwargs})


def _joined(
    size: int, atoms: Float[Array, "atoms inputs"], edge: Float[Array, "edges width"],
    reads: layers.Activation | None, name: str,
) -> Float[Array, "edges features"]:
  """A dense layer of [receiver, sender, edge], of which the edge reads an activation."""
  inputs, width = atoms.shape[-1], edge.shape[-1]
  total = 2 * inputs + width
  of_atoms, of_edge = (he_orthogonal((part / total) ** 0.5) for part in (inputs, width))
  return triplets.joined(atoms, edge, (
      _dense(size, kernel_init=of_atoms, name=f"{name}_to"),
      _dense(size, kernel_init=of_atoms, name=f"{name}_from"),
      _dense(size, reads, kernel_init=of_edge, name=f"{name}_edge")))


def _residual(
    values: Float[Array, "rows features"], act: layers.Activation, name: str
) -> Float[Array, "rows features"]:
  hidden = act(_dense(values.shape[-1], act, name=f"{name}_hidden")(values))
  return (values + act(_dense(values.shape[-1], act, name=name)(hidden))) / math.sqrt(2.0)


def _atom_update(
    module: nn.Module, messages: Float[Array, "edges features"],
    to_atoms: Float[Array, "edges basis"], size: int, act: layers.Activation,
    reads: layers.Activation, given: Float[Array, ""] | None, real: _Samples,
) -> Float[Array, "atoms outputs"]:
  """U(m): what the messages to each atom make of it.

  Args:
    module: The module that has the layers.
    messages: Messages, sums of what `reads` gave.
    to_atoms: The projected radial functions.
    size: Number of features of an atom.
    act: The activation of its layers.
    reads: The activation of the messages.
    given: The factor of the sum over neighbours, see `_rescaled`.
    real: Which edges and atoms are real.
  """
  edges, features = messages.shape
  filtered = messages * _dense(features, name="atom_radial")(to_atoms)
  received = jnp.sum(filtered.reshape(math.isqrt(edges), -1, features), axis=1)
  received = _rescaled(module, "atom_sum", received, given, lambda: (
      _variance(messages, real.edges), _variance(received, real.atoms)))
  hidden = act(_dense(size, reads, name="atom_hidden")(received))
  for index in range(ATOM_RESIDUALS):
    hidden = _residual(hidden, act, f"atom_residual_{index}")
  return hidden


class _Interaction(nn.Module):
  """A block: from features of atoms and messages to those that have seen each other."""

  activation: layers.Activation
  triplet_features: int
  bilinear_features: int

  @nn.compact
  def __call__(
      self, carried: tuple[Float[Array, "atoms inputs"], Float[Array, "edges features"]],
      scales: Float[Array, " 3"] | None, to_triplets: Float[Array, "edges basis"],
      to_atoms: Float[Array, "edges basis"], filters: Float[Array, "atoms atoms atoms basis"],
      real: _Samples,
  ) -> tuple[tuple[Float[Array, "atoms inputs"], Float[Array, "edges features"]],
             Float[Array, "edges features"]]:
    (atoms, messages), act, size = carried, self.activation, carried[1].shape[-1]
    of_radial, of_triplets, of_sum = (None, None, None) if scales is None else scales
    exchanged = self._exchanged(messages, of_radial, of_triplets, to_triplets, filters, real)
    update = (act(_dense(size, act, name="keep")(messages)) + exchanged) / math.sqrt(2.0)
    messages = (messages + _residual(update, act, "residual_before")) / math.sqrt(2.0)
    for index in range(RESIDUALS_AFTER):
      messages = _residual(messages, act, f"residual_{index}")
    update = _atom_update(self, messages, to_atoms, atoms.shape[-1], act, act, of_sum, real)
    # No weights read it before it is added to what is no activation.
    atoms = (atoms + layers.gain_of(act) * update) / math.sqrt(2.0)
    joined = act(_joined(size, atoms, messages, act, "join"))
    messages = (messages + _residual(joined, act, "residual_join")) / math.sqrt(2.0)
    return (atoms, messages), messages

  def _exchanged(
      self, messages: Float[Array, "edges features"], of_radial: Float[Array, ""] | None,
      of_triplets: Float[Array, ""] | None, to_triplets: Float[Array, "edges basis"],
      filters: Float[Array, "atoms atoms atoms basis"], real: _Samples,
  ) -> Float[Array, "edges features"]:
    """X: what the messages to an atom, and to their sender, exchange."""
    act, (edges, size), atoms = self.activation, messages.shape, len(filters)
    hidden = act(_dense(size, act, name="send")(messages))
    product = hidden * _dense(size, name="radial")(to_triplets)
    product = _rescaled(self, "radial_product", product, of_radial, lambda: (
        _variance(hidden, real.edges), _variance(product, real.edges)))
    sent = act(_dense(self.triplet_features, act, name="down")(product))
    sent -= act(jnp.zeros((), sent.dtype))
    basis = filters.shape[-1]
    bilinear = _dense(
        basis * self.bilinear_features, name="bilinear",
        kernel_init=he_orthogonal(inputs=self.triplet_features * basis))(sent)
    sums = triplets.triplet_sums(
        filters, bilinear.reshape(atoms, atoms, basis, -1)).reshape(edges, -1)
    sums = _rescaled(self, "triplet_sum", sums, of_triplets, lambda: (
        _variance(sent, real.edges), _variance(sums, real.edges)))
    there, back = (act(_dense(size, act, name=name)(sums)) for name in ("up", "up_reverse"))
    return (there + triplets.swap(back, atoms)) / math.sqrt(2.0)


class _Output(nn.Module):
  """What the messages of a block add to the energies of the atoms."""

  activation: layers.Activation
  output_activation: layers.Activation
  features: int

  @nn.compact
  def __call__(
      self, energies: Float[Array, " atoms"], messages: Float[Array, "edges features"],
      scale: Float[Array, ""] | None, to_outputs: Float[Array, "edges basis"], real: _Samples,
  ) -> tuple[Float[Array, " atoms"], None]:
    act = self.output_activation
    hidden = _atom_update(
        self, messages, to_outputs, self.features, act, self.activation, scale, real)
    return energies + _dense(1, act, name="energy")(hidden)[:, 0], None
