"""What the networks share: activations with their gain, dense layers, pairs and their messages."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from dcnn.base import System
from dcnn.models import primitives

MOST_UNITS = 1_000_000  #: The most units of a layer; more fit no machine.
MOST_LAYERS = 64  #: The most layers in sequence; more compile for many minutes.
#: The most atoms whose vectors are a product with a matrix, which grows with their third power.
FEW_ATOMS = 20
LARGEST_ATOMIC_NUMBER = 118  #: Of the elements that networks tell apart.

#: A function of each element of an array.
Activation = Callable[[Array], Array]
#: An array of JAX or of NumPy.
AnyArray = Array | np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Nonlinearity:
  """An activation function, and the gain of the weights that read its output.

  It is called like the function, so a network takes either. It is no tuple, which Flax would take
  apart, and no pytree: the gain may be traced in a network that is built inside `jax.vmap`.

  Attributes:
    function: The activation, an elementwise function of an array.
    gain: Factor on the standard deviation of the initial weights of each layer that reads the
      activation, without a unit.
  """

  function: Activation
  gain: Float[Array, ""] | float = 1.0

  def __call__(self, inputs: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """The function's value at each entry."""
    return self.function(inputs)


def gain_of(activation: Activation | None) -> Float[Array, ""] | float:
  """The gain of an activation, which is 1 where none is given: of a plain function, and of None."""
  return activation.gain if isinstance(activation, Nonlinearity) else 1.0


def dense(
    features: int, reads: Activation | None = None, *,
    kernel_init: nn.initializers.Initializer | None = None, **kwargs: Any,
) -> nn.Dense:
  """A dense layer whose initial weights have the standard deviation gain / sqrt(inputs).

  The gain is that of the activation that the layer reads, and may be traced: the arms of a vmapped
  sweep can then differ in it.

  Args:
    features: Number of outputs.
    reads: The activation whose output is the input of this layer. A plain function has a gain of
      1, and so has a layer that reads no activation, which is None.
    kernel_init: Draws the weights in place of LeCun's normal distribution, before the gain.
    kwargs: Further settings of `flax.linen.Dense`, such as `name` and `use_bias`.

  Returns:
    A Flax layer that maps arrays (*rows, inputs) to (*rows, features).

  >>> layer = dense(2, reads=Nonlinearity(jax.nn.relu, gain=2.0), use_bias=False)
  >>> plain = dense(2, reads=jax.nn.relu, use_bias=False)
  >>> key, rows = jax.random.key(0), jnp.ones((1, 3))
  >>> print(layer.init_with_output(key, rows)[0] / plain.init_with_output(key, rows)[0])
  [[2. 2.]]
  """
  gain = gain_of(reads)
  base = kernel_init or nn.initializers.lecun_normal()
  return nn.Dense(
      features, kernel_init=lambda key, shape, dtype: gain * base(key, shape, dtype),
      dot_general=primitives.dot_general, **kwargs)


def embedding(
    features: int, draw: nn.initializers.Initializer | None = None) -> nn.Embed:
  """A layer named `embedding` that gives each atomic number features of its own, from N(0, 1).

  Args:
    features: Number of features.
    draw: Draws them, where a network's paper has another distribution.
  """
  return nn.Embed(
      LARGEST_ATOMIC_NUMBER + 1, features, name="embedding",
      embedding_init=draw or nn.initializers.normal(1.0))


def total(
    energies: Float[Array, " atoms"], species: Int[AnyArray, " atoms"]) -> Float[Array, ""]:
  """The sum of the energies of real atoms, whatever stands at padding."""
  return jnp.sum(jnp.where(jnp.asarray(species) > 0, energies, 0.0))


def check_limits(network: Any) -> None:
  """Makes sure that the numbers of a network lie within its `LIMITS`.

  Args:
    network: An instance of a network whose class has `LIMITS`: the least and the largest value of
      some of its fields, by name.

  Raises:
    ValueError: If one does not; the message names the first of them.
  """
  for name, (least, most) in network.LIMITS.items():
    value = getattr(network, name)
    sizes = tuple(value) if isinstance(value, Sequence) else (value,)
    if not (1 <= len(sizes) <= MOST_LAYERS and all(least <= size <= most for size in sizes)):
      raise ValueError(f"expected {type(network).__name__} with {name} from {least:,} to {most:,}"
                       f"{f' in 1 to {MOST_LAYERS} layers' * isinstance(value, Sequence)}, "
                       f"received {str(value)[:60]}")


def unordered_pairs(atoms: int) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
  """Indices (i, j), i < j, of all pairs of atoms: each pair once.

  Args:
    atoms: Number of atoms.

  Returns:
    Indices of the first and of the second atom of each pair, in the order of `numpy.triu_indices`.
  """
  first, second = np.triu_indices(atoms, k=1)
  return first, second


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Which atoms of a configuration send messages to one another; each pair once. A pytree.

  Attributes:
    distance: Distance of the two atoms in angstrom; 0 on pairs that are not real.
    direction: Unit vector from `first` to `second`, to its periodic image where the list says so;
      0 where the atoms coincide and on pairs that are not real.
    real: 1 on pairs of real atoms and 0 on padding, a factor on all that a pair contributes. It is
      NaN where the neighbour list is incomplete, see `pairs`; a comparison would hide that.
    first: Index of one atom of each pair.
    second: Index of the other.
    listed: Whether these are the pairs of a neighbour list, in any order. Otherwise they are all
      pairs (i, j), i < j, in the order of `unordered_pairs`. Static.
  """

  distance: Float[Array, " pairs"]
  direction: Float[Array, "pairs 3"]
  real: Float[Array, " pairs"]
  first: Int[Array | np.ndarray, " pairs"]
  second: Int[Array | np.ndarray, " pairs"]
  listed: bool


jax.tree_util.register_dataclass(
    Pairs, data_fields=("distance", "direction", "real", "first", "second"),
    meta_fields=("listed",))


def pairs(system: System, cutoff: float) -> Pairs:
  """The pairs of the neighbour list where there is one, otherwise all pairs of atoms.

  This and `exchange`, which follows it, are the only places where a network meets the difference.

  If the list is not complete up to the cutoff, because atoms have moved or because it was made for
  a smaller one, `real` is NaN, and so are all energies and forces: pairs are never missing in
  silence.

  Args:
    system: One configuration.
    cutoff: Radius in angstrom within which a neighbour list must hold all pairs.

  Returns:
    The pairs, with distances and directions: as many as the list is long, padding included.

  Raises:
    ValueError: If the configuration has a cell and no neighbour list.
  """
  if system.neighbours is None:
    return all_pairs(system)
  positions = jnp.asarray(system.positions)
  first, second, shifts = (jnp.asarray(each, jnp.int32) for each in system.neighbours[:3])
  real = (first != second) | jnp.any(shifts != 0, axis=-1)
  vectors = positions[second] - positions[first]
  if system.cell is not None:
    vectors += shifts.astype(vectors.dtype) @ system.cell
  sound = jnp.where(is_complete(system, cutoff), 1.0, jnp.nan)
  return Pairs(
      *_lengths_and_directions(vectors, real), (real * sound).astype(vectors.dtype), first, second,
      listed=True)


def all_pairs(system: System) -> Pairs:
  """All pairs of the atoms of a molecule.

  Args:
    system: One configuration in free space.

  Returns:
    atoms (atoms - 1) / 2 pairs, in the order of `unordered_pairs`.

  Raises:
    ValueError: If the configuration has a cell; the pairs would lack their periodic images.
  """
  require_no_cell(system)
  first, second = unordered_pairs(system.species.shape[0])
  species = jnp.asarray(system.species)
  real = (species[first] > 0) & (species[second] > 0)
  positions = jnp.asarray(system.positions)
  if not 1 < len(species) <= FEW_ATOMS:
    vectors = positions[second] - positions[first]
  else:  # by index the gradient is two scatters over pairs, which a GPU adds up in any order
    vectors = primitives.entries_last(primitives.combine(
        _differences(len(species)), primitives.entries_first(positions)))
  return Pairs(
      *_lengths_and_directions(vectors, real), real.astype(vectors.dtype), first, second,
      listed=False)


@functools.cache
def _differences(atoms: int) -> Float[np.ndarray, "pairs atoms"]:
  """The matrix that takes positions to the vectors of all pairs: each row has a -1 and a 1."""
  first, second = unordered_pairs(atoms)
  return np.eye(atoms)[second] - np.eye(atoms)[first]


def require_no_cell(system: System) -> None:
  """Makes sure that a configuration without a neighbour list has no periodic images.

  Raises:
    ValueError: If it has a cell.
  """
  if system.cell is not None:
    raise ValueError(
        "expected a molecule or a neighbour list, received a system with a cell and no list: pass "
        "system._replace(neighbours=data.neighbour_list(system, cutoff)), or cell=None if it is a "
        "molecule in free space")


def is_complete(system: System, cutoff: float) -> Bool[Array, ""]:
  """Whether a configuration's neighbour list holds all pairs within a cutoff.

  Atoms that were farther apart than the radius of the list have come no closer than
  (1 - |strain|) radius - 2 |displacement|. The displacement is the largest of any atom, after the
  strain of the cell and the drift of all atoms are taken off. A list without a skin is complete
  only for the positions that it was made for; up to 0.01 % of the cutoff counts as rounding,
  because a pair that is missing there would send messages of 1e-15 of the usual size.

  Args:
    system: One configuration with a neighbour list.
    cutoff: Radius in angstrom.

  Returns:
    A scalar. Nothing is differentiated through it.
  """
  system = jax.lax.stop_gradient(system)
  near, strain = system.neighbours, _strain(system)
  assert near is not None
  real = (jnp.asarray(system.species) > 0)[:, None]
  moved = system.positions - near.positions - near.positions @ strain
  drift = jnp.sum(jnp.where(real, moved, 0.0), axis=0) / jnp.maximum(jnp.sum(real), 1)
  displacement = jnp.max(jnp.linalg.norm(jnp.where(real, moved - drift, 0.0), axis=-1))
  reach = (1.0 - jnp.linalg.norm(strain)) * near.radius - 2.0 * displacement
  return reach >= (1.0 - 1e-4) * cutoff


def _strain(system: System) -> Float[Array, "3 3"]:
  """The strain since the list was made: cell now = cell then @ (1 + strain)."""
  near = system.neighbours
  assert near is not None
  dtype = jnp.asarray(system.positions).dtype
  if near.cell is None or system.cell is None:
    return jnp.zeros((3, 3), dtype)
  then, now = jnp.asarray(near.cell), jnp.asarray(system.cell)
  now = jnp.where(jnp.any(now != 0, axis=-1, keepdims=True), now, then)
  faces = jnp.cross(jnp.roll(then, -1, axis=0), jnp.roll(then, -2, axis=0))
  inverse = faces.T / jnp.dot(then[0], faces[0])
  return inverse @ (now - then)


def _lengths_and_directions(
    vectors: Float[Array, "pairs 3"], real: Bool[Array, " pairs"],
) -> tuple[Float[Array, " pairs"], Float[Array, "pairs 3"]]:
  """Lengths and unit vectors of vectors; 0 where a vector is 0 or not real.

  At these the first and second derivatives are 0, too: the force loss differentiates twice, and
  d sqrt(x)/dx is infinite at 0. Both branches of the choice are finite, so that no NaN reaches the
  gradient.
  """
  square = jnp.sum(jnp.square(vectors), axis=-1)
  apart = real & (square > 0)
  length = jnp.sqrt(jnp.where(apart, square, 1.0))
  return jnp.where(apart, length, 0.0), vectors * jnp.where(apart, 1.0 / length, 0.0)[:, None]


def exchange(
    pairs: Pairs, filters: Float[Array, "pairs features"], sent: Float[Array, "atoms features"],
    parity: int = 1,
) -> Float[Array, "atoms features"]:
  """Message passing: received[i] = sum over j of filters[ij] sent[j].

  Each filter serves both directions of its pair: filters[ji] = parity filters[ij]. What does not
  change as a direction is reversed, a function of the distance alone, has parity 1; the components
  of `pairs.direction`, and harmonics of odd degree, have parity -1. Filters of padding must be
  zero, as they are with the factor `pairs.real`. The cost is linear in the number of pairs.

  Args:
    pairs: The pairs that exchange messages, from `pairs`.
    filters: Factor on the messages of each pair, as its first atom receives them from its second.
    sent: What each atom sends to all its neighbours.
    parity: 1 or -1. Static.

  Returns:
    What each atom receives.
  """
  if not pairs.listed:
    return primitives.exchange(filters, sent, parity)
  to_first, to_second = filters * sent[pairs.second], filters * sent[pairs.first]
  received = jnp.zeros(sent.shape, to_first.dtype).at[pairs.first].add(to_first)
  at_second = received.at[pairs.second]
  return at_second.add(to_second) if parity == 1 else at_second.subtract(to_second)


def exchange_angular(
    pairs: Pairs, angular: Sequence[Float[Array, "pairs _"]],
    filters: Sequence[Float[Array, "pairs features"]],
    sent: Float[Array, "atoms parts features"], parities: Sequence[int],
) -> list[Float[Array, "atoms _ parts features"]]:
  """Message passing: received[i, m] = sum over j of angular[ij, m] filters[ij] sent[j].

  This is an outer product of functions of the direction and of what is sent. The sum over j is a
  product of matrices for each i, so that no array has an entry for each pair, function and feature.

  Args:
    pairs: The pairs that exchange messages, from `pairs`.
    angular: Functions of the direction from the first atom of a pair to the second, several to an
      array; 0 on padding, or the filters are.
    filters: A factor for each array of functions, the same in both directions of a pair.
    sent: What each atom sends to all its neighbours.
    parities: 1 or -1 for each array of functions: angular[ji] = parity angular[ij]. Static.

  Returns:
    What each atom receives, for each array of functions.
  """
  atoms, parts, features = sent.shape
  received = []
  if pairs.listed:
    flat = sent.reshape(atoms, parts * features)
    for functions, filter, parity in zip(angular, filters, parities, strict=True):
      each = [
          exchange(pairs, jnp.tile(functions[:, order, None] * filter, parts), flat, parity)
          for order in range(functions.shape[1])]
      received.append(jnp.stack(each, axis=1))
  else:
    from_all = primitives.repeat(sent.reshape(1, -1), atoms).reshape(
        atoms, atoms, parts, features)
    for functions, filter, parity in zip(angular, filters, parities, strict=True):
      messages = primitives.repeat(primitives.square(filter), parts) * from_all
      received.append(jax.lax.dot_general(
          primitives.square(functions, parity), messages.reshape(atoms, atoms, parts * features),
          (((1,), (1,)), ((0,), (0,)))))
  return [each.reshape(atoms, each.shape[1], parts, features) for each in received]
