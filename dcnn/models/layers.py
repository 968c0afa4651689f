"""What the networks share: pairs of atoms, safe distances, and dense layers with a gain."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from dcnn.base import System
from dcnn.models import primitives

MOST_UNITS = 1_000_000  # of a layer; more fit no machine
MOST_LAYERS = 64  # one after another; more compile for many minutes

Activation = Callable[[Array], Array]
Where = Literal["everywhere", "output_block"]


def check_limits(network: Any) -> None:
  """Makes sure that the numbers of a network are within its `LIMITS`.

  Raises:
    ValueError: naming the first that is not.
  """
  for name, (least, most) in network.LIMITS.items():
    value = getattr(network, name)
    sizes = tuple(value) if isinstance(value, Sequence) else (value,)
    if not (1 <= len(sizes) <= MOST_LAYERS and all(least <= size <= most for size in sizes)):
      raise ValueError(f"expected {type(network).__name__} with {name} from {least:,} to {most:,}"
                       f"{f' in 1 to {MOST_LAYERS} layers' * isinstance(value, Sequence)}, "
                       f"received {str(value)[:60]}")


def unordered_pairs(atoms: int) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
  """Indices (i, j), i < j, of all pairs of atoms: each pair once."""
  first, second = np.triu_indices(atoms, k=1)
  return first, second


class Pairs(NamedTuple):
  """Who is paired with whom; each pair once.

  Attributes:
    distance: angstrom; 0 on pairs that are not real.
    real: 1 on pairs of real atoms, 0 on padding; a factor of all that a pair contributes. NaN
      where pairs are missing, see `listed_pairs`, which a comparison would hide.
    first, second: numbers of the atoms.
  """

  distance: Float[Array, " pairs"]
  real: Float[Array, " pairs"]
  first: Int[Array | np.ndarray, " pairs"]
  second: Int[Array | np.ndarray, " pairs"]


def pairs(system: System, cutoff: float) -> Pairs:
  """The pairs of the neighbour list where there is one, else all pairs of a molecule's atoms.

  Args:
    system: one configuration.
    cutoff: up to which a list must have all pairs, angstrom.

  Raises:
    ValueError: on a cell without a neighbour list.
  """
  return all_pairs(system) if system.neighbours is None else listed_pairs(system, cutoff)


def all_pairs(system: System) -> Pairs:
  """All pairs of the atoms of a molecule.

  Raises:
    ValueError: on a cell: pairs without their images would be wrong.
  """
  if system.cell is not None:
    raise ValueError(
        "expected a molecule or a neighbour list, received a system with a cell and no list: pass "
        "system._replace(neighbours=data.neighbour_list(system, cutoff)), or cell=None if it is a "
        "molecule in free space")
  first, second = unordered_pairs(system.species.shape[0])
  species = jnp.asarray(system.species)
  real = (species[first] > 0) & (species[second] > 0)
  positions = jnp.asarray(system.positions)
  distance = _lengths(positions[first] - positions[second], real)
  return Pairs(distance, real.astype(distance.dtype), first, second)


def listed_pairs(system: System, cutoff: float) -> Pairs:
  """The pairs of the neighbour list of a system.

  Where the list is not complete up to the cutoff, because atoms have moved or it was made for a
  smaller one, `real` is NaN, and with it all energies and forces: pairs are never missing in
  silence.
  """
  near, positions = system.neighbours, jnp.asarray(system.positions)
  assert near is not None
  first, second, shifts = (jnp.asarray(each, jnp.int32) for each in near[:3])
  real = (first != second) | jnp.any(shifts != 0, axis=-1)
  vectors = positions[first] - positions[second]
  if system.cell is not None:
    vectors -= shifts.astype(vectors.dtype) @ system.cell
  sound = jnp.where(is_complete(system, cutoff), 1.0, jnp.nan)
  return Pairs(_lengths(vectors, real), (real * sound).astype(vectors.dtype), first, second)


def is_complete(system: System, cutoff: float) -> Bool[Array, ""]:
  """Whether the neighbour list of a system has all pairs within a cutoff.

  Atoms that were farther apart than the radius of the list have come no closer than
  (1 - |strain|) radius - 2 |displacement|, where the displacement is the largest of an atom, apart
  from the strain of the cell and the drift of all atoms. A list without a skin holds where it was
  made: up to 0.01 % of the cutoff is taken for rounding, and a pair that is missing there would
  send messages of 1e-15 of their size.

  Args:
    system: one configuration with a neighbour list.
    cutoff: angstrom.
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
  """What has deformed the cell since the list was made: cell = cell then @ (1 + strain)."""
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


def _lengths(
    vectors: Float[Array, "pairs 3"], real: Bool[Array, " pairs"]) -> Float[Array, " pairs"]:
  """Lengths of vectors; 0 where a vector is 0 or not real.

  There the first and second derivatives are 0, too: the force loss differentiates twice, and
  d sqrt(x)/dx is infinite at 0. Both branches of the choice are finite, so no NaN reaches the
  gradient.
  """
  square = jnp.sum(jnp.square(vectors), axis=-1)
  apart = real & (square > 0)
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def exchange_all(
    pairs: Pairs, filters: Float[Array, "pairs features"], sent: Float[Array, "atoms features"]
) -> Float[Array, "atoms features"]:
  """What each atom receives: the filters of `all_pairs` times what the other atoms send."""
  del pairs  # all of them, in their usual order
  return primitives.exchange(filters, sent)


def exchange_listed(
    pairs: Pairs, filters: Float[Array, "pairs features"], sent: Float[Array, "atoms features"]
) -> Float[Array, "atoms features"]:
  """The same for `listed_pairs`, at a cost linear in their number."""
  to_first, to_second = filters * sent[pairs.second], filters * sent[pairs.first]
  received = jnp.zeros(sent.shape, to_first.dtype).at[pairs.first].add(to_first)
  return received.at[pairs.second].add(to_second)


def dense(features: int, gain: Float[Array, ""] | float = 1.0, **kwargs) -> nn.Dense:
  """A dense layer whose weights start with standard deviation gain / sqrt(inputs).

  The gain may be traced, so that it can differ between the arms of a vmapped sweep.
  """
  base = nn.initializers.lecun_normal()
  return nn.Dense(
      features, kernel_init=lambda key, shape, dtype: gain * base(key, shape, dtype),
      dot_general=primitives.dot_general, **kwargs)
