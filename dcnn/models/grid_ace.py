"""GridACE: an atomic cluster expansion whose products are taken on a grid of the sphere.

References:
  R. Drautz, Phys. Rev. B 99, 014104 (2019): the atomic cluster expansion.
  I. Batatia et al., MACE: higher order equivariant message passing neural networks for fast and
  accurate force fields, NeurIPS 35 (2022), arXiv:2206.07697.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System
from dcnn.models import layers, primitives, radial, sphere

CORRELATION = 3  # how many functions are multiplied, at most


class GridACE(nn.Module):
  """Energy as a sum over atoms, of products of functions on the sphere around each atom.

  An atom carries functions h(n) on the sphere, one for each feature. In a block it receives

    A_i(n) = sum_j sum_l R_l(d_ij) (2 l + 1) P_l(u_ij . n) (W h_j)(n) / sqrt(neighbours),

  which is projected on the degrees l up to `degree` and mixed, A_l <- W_l A_l (MACE, Eqs. 8 and 9);
  R_l are networks of the distance, d and u the distance and direction of a neighbour. Products of
  one to three of them (the correlation; Eq. 10) are taken at each point of a grid,

    G_a(n) = sum_l w_al A_l(n), a = 1 to 3,   B(n) = G_1 (v_1 + G_2 (v_2 + G_3 v_3)),

  with weights v and w for each element, and projected on the degrees up to `passed`, or 0 in the
  last block: h_l <- W_l B_l + W'_l h_l, the second, which depends on the element, from the second
  block on (Eq. 11). A linear function of the scalars of each block but the last, and of those of
  the last W act(W h + b) + b, add up to the energy of the atom.

  Messages are sums of products of coefficients, which the couplings of the grid turn into those of
  the product once for each atom, and not for each pair; in the first block, where h are scalars,
  there is nothing to couple.

  Deviations from MACE: each product of degrees has one weight for each factor and not one for each
  path; of the couplings those remain that a product of functions has, which are all that have
  natural parity. `radial.smooth_cutoff` multiplies R, whose networks read Bessel functions without
  a cutoff and have two hidden layers. Linear maps have the initial weights of `layers.dense`.

  Attributes:
    LIMITS: Least and largest values of the numbers below.
    activation: The activation of the networks of the distance, a function of an array or a
      `layers.Nonlinearity`.
    elements: The atomic numbers that occur, each with weights of its own, in this order: a sweep
      gives those of all its data, ascending. Energies and forces of systems with others are NaN.
    output_activation: The activation of the output network; None is `activation`.
    features: Number of functions of an atom.
    blocks: Number of blocks.
    radial: Number of Bessel functions.
    cutoff: Radius in angstrom beyond which atoms send no messages.
    degree: Largest degree of what an atom receives.
    passed: Largest degree of what an atom keeps, and sends in the next block; at most `degree`.
    filter_features: Size of the hidden layers of the networks of the distance.
    neighbours: Usual number of neighbours of an atom.
  """

  LIMITS: ClassVar[Mapping[str, tuple[int | float, int | float]]] = {
      "features": (2, layers.MOST_UNITS), "blocks": (1, 32), "radial": (1, layers.MOST_UNITS),
      "cutoff": (0.1, 1000), "degree": (1, sphere.LARGEST_DEGREE),
      "passed": (0, sphere.LARGEST_DEGREE),
      "filter_features": (1, layers.MOST_UNITS), "neighbours": (0.01, 1e6)}

  activation: layers.Activation
  elements: Sequence[int]
  features: int = 32
  blocks: int = 2
  radial: int = 8
  cutoff: float = 5.0
  degree: int = 2
  passed: int = 1
  filter_features: int = 64
  neighbours: float = 10.0
  output_activation: layers.Activation | None = None

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    if not self.elements:
      raise ValueError("expected GridACE with the atomic numbers that occur, received none: pass "
                       "elements, such as (1, 6, 8)")
    if self.passed > self.degree:
      raise ValueError(f"expected GridACE with passed up to degree, {self.degree}, received "
                       f"{self.passed}: lower passed or raise degree")
    species = jnp.asarray(system.species)
    pairs = layers.pairs(system, self.cutoff)
    dtype = pairs.distance.dtype
    element = (species[:, None] == jnp.asarray(self.elements)).astype(dtype)
    angular = [jnp.asarray(each) for each in sphere.harmonics(pairs.direction, self.degree)]
    carried = [self._of_element("embedding", element, 1, 1.0)[0][None]]
    energies = jnp.zeros(len(species), dtype)
    for block, filters in enumerate(self._filters(pairs)):
      received = self._messages(block, pairs, filters, angular, carried)
      is_last = block == self.blocks - 1
      products = self._products(block, element, received, 0 if is_last else self.passed)
      carried = [
          self._update(block, degree, element, product, carried)
          for degree, product in enumerate(products)]
      energies += self._energies(block, carried[0][0], is_last)
    # A factor, so that forces are NaN, too.
    sound = jnp.where(jnp.any(element > 0, axis=1) | (species <= 0), 1.0, jnp.nan).astype(dtype)
    return layers.total(sound * energies, species)

  def _linear(self, name: str, features: int) -> Callable[[Array], Array]:
    return layers.dense(features, use_bias=False, name=name)

  def _of_element(
      self, name: str, element: Float[Array, "atoms elements"], parts: int, deviation: float
  ) -> list[Float[Array, "atoms features"]]:
    """Weights of the element of each atom, several for each feature."""
    table = nn.Dense(
        parts * self.features, use_bias=False, name=name, dot_general=primitives.dot_general,
        kernel_init=nn.initializers.normal(deviation))
    return jnp.split(table(element), parts, axis=-1)

  def _filters(self, pairs: layers.Pairs) -> list[list[Float[Array, "pairs features"]]]:
    """R_l / sqrt(neighbours) of each block, the first layer of all blocks at once."""
    act, size = self.activation, self.filter_features
    envelope = (pairs.real * radial.smooth_cutoff(pairs.distance, self.cutoff)
                * self.neighbours**-0.5)[:, None]
    basis = self.cutoff * radial.bessel_basis(pairs.distance, self.radial, self.cutoff)
    hidden = act(self._linear("filter_basis", self.blocks * size)(basis))
    filters = []
    for block, part in enumerate(jnp.split(hidden, self.blocks, axis=-1)):
      part = act(layers.dense(
          size, reads=act, use_bias=False, name=f"filter_hidden_{block}")(part))
      part = envelope * layers.dense(
          (self.degree + 1) * self.features, reads=act, use_bias=False, name=f"filter_{block}")(
              part)
      filters.append(jnp.split(part, self.degree + 1, axis=-1))
    return filters

  def _messages(
      self, block: int, pairs: layers.Pairs, filters: Sequence[Float[Array, "pairs features"]],
      angular: Sequence[Float[Array, "pairs _"]],
      carried: Sequence[Float[Array, "_ atoms features"]],
  ) -> list[Float[Array, "_ atoms features"]]:
    """What each atom receives, by degree, mixed over features."""
    sent = jnp.concatenate([
        primitives.entries_last(self._linear(f"send_{block}_{degree}", self.features)(each))
        for degree, each in enumerate(carried)], axis=1)
    return [self._linear(f"receive_{block}_{degree}", self.features)(each)
            for degree, each in enumerate(_received(pairs, filters, angular, sent))]

  def _products(
      self, block: int, element: Float[Array, "atoms elements"],
      functions: Sequence[Float[Array, "_ atoms features"]], degree: int,
  ) -> list[Float[Array, "_ atoms features"]]:
    """B_l up to a degree, for each feature by itself."""
    number = len(functions)
    powers = self._of_element(f"powers_{block}", element, CORRELATION, 1.0)
    factors = self._of_element(f"factors_{block}", element, CORRELATION * number, 1.0 / number)
    at = sphere.grid(CORRELATION * self.degree + degree)
    first, second, third = (
        sphere.evaluate(_weighted(functions, factors[index * number:(index + 1) * number]), at)
        for index in range(CORRELATION))
    one, two, three = (_for_each(power, len(at.points)) for power in powers)
    product = first * (one + second * (two + third * three))
    return sphere.by_degree(sphere.project(product, at, degree))

  def _update(
      self, block: int, degree: int, element: Float[Array, "atoms elements"],
      product: Float[Array, "orders atoms features"],
      carried: Sequence[Float[Array, "_ atoms features"]],
  ) -> Float[Array, "orders atoms features"]:
    """The functions of a degree after a block; the first block keeps nothing of what was."""
    updated = self._linear(f"update_{block}_{degree}", self.features)(product)
    if block == 0 or degree >= len(carried):
      return updated
    before = carried[degree]
    each = [before * here for here in jnp.split(element, element.shape[1], axis=1)]
    keep = self._linear(f"keep_{block}_{degree}", self.features)
    return updated + keep(jnp.concatenate(each, axis=-1))

  def _energies(
      self, block: int, scalars: Float[Array, "atoms features"], is_last: bool
  ) -> Float[Array, " atoms"]:
    if not is_last:
      return self._linear(f"output_{block}", 1)(scalars)[:, 0]
    act = self.output_activation or self.activation
    hidden = act(layers.dense(max(1, self.features // 2), name="output_hidden")(scalars))
    return layers.dense(1, reads=act, name="output")(hidden)[:, 0]


def _received(
    pairs: layers.Pairs, filters: Sequence[Float[Array, "pairs features"]],
    angular: Sequence[Float[Array, "pairs _"]], sent: Float[Array, "atoms orders features"],
) -> list[Float[Array, "_ atoms features"]]:
  """The products of sum_l R_l (2 l + 1) P_l(u . n) with what is sent, summed over neighbours.

  Products of coefficients are summed, and coupled afterwards, once for each atom.
  """
  degree = len(filters) - 1
  atoms, orders, features = sent.shape
  products = [
      primitives.entries_first(each.reshape(atoms, -1, features))
      for each in layers.exchange_angular(
          pairs, angular, filters, sent, [(-1) ** each for each in range(degree + 1)])]
  if orders == 1:
    return products
  table = sphere.couplings(degree, math.isqrt(orders) - 1, degree)
  return sphere.by_degree(primitives.combine(table, primitives.join(*products)))


def _weighted(
    functions: Sequence[Float[Array, "_ atoms features"]],
    factors: Sequence[Float[Array, "atoms features"]],
) -> Float[Array, "orders atoms features"]:
  """Functions whose degrees have been multiplied by a factor each."""
  return primitives.join(*(
      _for_each(factor, len(each)) * each
      for factor, each in zip(factors, functions, strict=True)))


def _for_each(
    values: Float[Array, "atoms features"], number: int) -> Float[Array, "number atoms features"]:
  """The same for each of several entries."""
  return primitives.combine(np.ones((number, 1)), values[None])
