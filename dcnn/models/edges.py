"""Directed edges: the two messages between two atoms, where they are not each other's mirror.

Where messages of a pair are the same in both directions, or each other's negative, `layers.Pairs`
computes half as much.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from dcnn.base import System
from dcnn.models import layers, triplets


@dataclasses.dataclass(frozen=True)
class Edges:
  """Which atoms receive from which, each direction apart.

  Attributes:
    distance: Distance of the two atoms in angstrom; 0 on edges that are not real.
    direction: Unit vector from the receiver to the sender; 0 where the distance is 0.
    real: 1 on edges of two real atoms and 0 on padding. It is NaN where the neighbour list is
      incomplete, see `layers.pairs`.
    receivers: Index of the atom that receives, for the edges of a neighbour list. None where the
      edges are all pairs [receiver, sender] of atoms in the order of the array, with itself, too,
      which is not real.
    senders: Index of the atom that sends; None as above.
    atoms: Number of atoms.
  """

  distance: Float[Array, " edges"]
  direction: Float[Array, "edges 3"]
  real: Float[Array, " edges"]
  receivers: Int[Array, " edges"] | None
  senders: Int[Array, " edges"] | None
  atoms: int


def edges(system: System, cutoff: float) -> Edges:
  """Both directions of each pair of the neighbour list, or of all atoms where there is no list.

  Args:
    system: One configuration.
    cutoff: Radius in angstrom within which a neighbour list must hold all pairs.

  Raises:
    ValueError: If the configuration has a cell and no neighbour list.
  """
  atoms = len(system.species)
  if system.neighbours is not None:
    pairs = layers.pairs(system, cutoff)
    first, second = jnp.asarray(pairs.first), jnp.asarray(pairs.second)
    return Edges(
        jnp.tile(pairs.distance, 2), jnp.concatenate([pairs.direction, -pairs.direction]),
        jnp.tile(pairs.real, 2), jnp.concatenate([first, second]),
        jnp.concatenate([second, first]), atoms)
  layers.require_no_cell(system)
  square = triplets.edge_arrays(system)
  present = jnp.asarray(system.species) > 0
  real = present[:, None] & present & ~np.eye(atoms, dtype=bool)
  return Edges(
      square.distance.reshape(-1), square.direction.reshape(3, -1).T,
      real.reshape(-1).astype(square.distance.dtype), None, None, atoms)


def of_receivers(
    edges: Edges, atoms: Float[Array, "atoms features"]) -> Float[Array, "edges features"]:
  """What the receiver of each edge has."""
  if edges.receivers is not None:
    return atoms[edges.receivers]
  return _spread(atoms[:, None, :])


def of_senders(
    edges: Edges, atoms: Float[Array, "atoms features"]) -> Float[Array, "edges features"]:
  """What the sender of each edge has."""
  if edges.senders is not None:
    return atoms[edges.senders]
  return _spread(atoms[None, :, :])


def sums(
    edges: Edges, messages: Float[Array, "edges features"]) -> Float[Array, "atoms features"]:
  """What each atom receives: the sum of the messages of its edges."""
  if edges.receivers is not None:
    received = jnp.zeros((edges.atoms, messages.shape[1]), messages.dtype)
    return received.at[edges.receivers].add(messages)
  return jnp.sum(messages.reshape(edges.atoms, edges.atoms, -1), axis=1)


def _spread(atoms: Float[Array, "receivers senders features"]) -> Float[Array, "edges features"]:
  """Features of atoms, with an axis of length 1, repeated along it."""
  number, features = max(atoms.shape[:2]), atoms.shape[-1]
  return jnp.broadcast_to(atoms, (number, number, features)).reshape(-1, features)
