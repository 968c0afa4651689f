"""Messages along directed edges, and the sums over triplets of atoms, of small molecules.

Edges are arrays [to, from]: each of the two messages between two atoms has its place. The triplets
with a centre a are its edges [a, from] against its other edges [a, out], so that a sum over them is
one matrix product for each centre. No edge is ever looked up by an index.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System
from dcnn.models.checks import check_free_space
from dcnn.models.sphere import zonal_harmonics

MOST_ATOMS = 60  # arrays of atoms^3 entries, times some 10, for each molecule of a batch


class EdgeArrays(NamedTuple):
  """All directed edges of a molecule, arrays [to, from].

  Attributes:
    distance: Distances in angstrom; 0 from an atom to itself and on padding.
    direction: Cartesian components of the unit vectors from `to` to `from`; 0 where the distance
      is 0.
  """

  distance: Float[Array, "atoms atoms"]
  direction: Float[Array, "3 atoms atoms"]


def edge_arrays(system: System) -> EdgeArrays:
  """The directed edges of a molecule in free space; a neighbour list is not read.

  At distance 0 lengths and directions are 0, and so are all their derivatives: the force loss
  differentiates twice.

  Args:
    system: One configuration.

  Raises:
    ValueError: If it has a cell; the edges would lack the periodic images.
  """
  if system.cell is not None:
    raise ValueError("expected a molecule in free space, received a system with a cell: pass "
                     "system._replace(cell=None) if the cell is only a box, or take a network with "
                     "a neighbour list, such as SchNet")
  positions, real = jnp.asarray(system.positions).T, jnp.asarray(system.species) > 0
  vectors = positions[:, None, :] - positions[:, :, None]
  square = jnp.sum(jnp.square(vectors), axis=0)
  apart = real[:, None] & real & (square > 0)
  distance = jnp.sqrt(jnp.where(apart, square, 1.0))
  return EdgeArrays(jnp.where(apart, distance, 0.0), jnp.where(apart, vectors / distance, 0.0))


def check(systems: System, network: str) -> None:
  """Makes sure that a network of triplets can take configurations.

  Raises:
    ValueError: If they are periodic or have more than `MOST_ATOMS` atoms.
  """
  check_free_space(systems, network, reads="the angles of all triplets", most_atoms=MOST_ATOMS)


def cosines(direction: Float[Array, "3 atoms atoms"]) -> Float[Array, "atoms atoms atoms"]:
  """Cosines of the angles at each centre between its edges: arrays [centre, out, from]."""
  products = (each[:, :, None] * each[:, None, :] for each in direction)
  return functools.reduce(operator.add, products)


def harmonics(
    cosines: Float[Array, "atoms atoms atoms"], orders: int
) -> Float[Array, "atoms atoms atoms orders"]:
  """Zonal harmonics Y_l of all angles [centre, out, from, l].

  They are 0 where `out` and `from` are the same atom: what goes to an atom sees nothing from it.

  Args:
    cosines: Cosines [centre, out, from].
    orders: Number of orders l.
  """
  others = 1.0 - jnp.eye(len(cosines), dtype=cosines.dtype)
  return jnp.stack([others * each for each in zonal_harmonics(cosines, orders)], axis=-1)


def triplet_sums(
    filters: Float[Array, "atoms out from basis"], sent: Float[Array, "atoms from basis features"]
) -> Float[Array, "atoms out features"]:
  """received[centre, out] = sum over from and basis of filters[centre, out, from] sent.

  Args:
    filters: Functions of the angles, such as `harmonics`.
    sent: What each edge [centre, from] sends, for each of the functions.
  """
  atoms, features = sent.shape[0], sent.shape[-1]
  return jax.lax.dot_general(
      filters.reshape(atoms, atoms, -1), sent.reshape(atoms, -1, features),
      (((2,), (1,)), ((0,), (0,))))


def swap(messages: Float[Array, "edges features"], atoms: int) -> Float[Array, "edges features"]:
  """Edge arrays (atoms^2, features), with each message in the place of its reverse."""
  square = messages.reshape(atoms, atoms, -1)
  return jnp.swapaxes(square, 0, 1).reshape(messages.shape)


def joined(
    atoms: Float[Array, "atoms inputs"],
    edge: Float[Array, "edges width"],
    layers: tuple[nn.Module, nn.Module, nn.Module],
) -> Float[Array, "edges features"]:
  """A dense layer of the concatenation [receiver, sender, edge], one product for each part.

  The products of the atoms are taken once for each atom, and not for each of its edges.

  Args:
    atoms: Features of atoms.
    edge: Features of edges, (atoms^2, width).
    layers: The parts of the layer that read the receiver, the sender and the edge.
  """
  to, origin, own = (layer(inputs) for layer, inputs in zip(
      layers, (atoms, atoms, edge), strict=True))
  both = to[:, None, :] + origin[None, :, :]
  return both.reshape(own.shape) + own


def in_sequence(block: type[nn.Module], blocks: int, is_initialising: bool, **axes: Any) -> Any:
  """A Flax module of blocks of one kind, whose variables have a first axis of blocks.

  Weights of all blocks are drawn by one program, which takes a third of the time to compile. The
  blocks themselves are written out, because a loop runs slower, and more so when differentiated.

  Args:
    block: The module of a block: (carried, *inputs) -> (carried, output).
    blocks: Number of blocks.
    is_initialising: Whether variables are made.
    axes: `in_axes` of `flax.linen.scan`.
  """
  return nn.scan(
      block, variable_axes={"params": 0, "scales": 0}, split_rngs={"params": True}, length=blocks,
      unroll=1 if is_initialising else blocks, **axes)
