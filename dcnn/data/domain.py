"""What a network has seen: elements, closest distances and compositions of its training data."""

from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from dcnn.base import System
from dcnn.data.loading import symbols

MOST_COMPOSITIONS = 1000  # from which on a composition of its own says little
CLOSER = 0.95  # of the closest distance of training; closer atoms are far from training
_FRAMES = 1000  # of which distances are taken at a time


class Domain(NamedTuple):
  """What training configurations had; a record of arrays, which a checkpoint can hold.

  Attributes:
    elements: The atomic numbers that occur, ascending.
    closest: The closest distance of atoms of two elements in angstrom, in the order of `elements`;
      symmetric, and inf where no two such atoms occur in one configuration or within reach.
    reach: The distance in angstrom up to which `closest` has been looked for, which is the radius
      of the neighbour lists; inf where there are none.
    compositions: The numbers of atoms of each element, one row for each composition; None where
      there are more than `MOST_COMPOSITIONS`.
  """

  elements: Int[np.ndarray, " elements"]
  closest: Float[np.ndarray, "elements elements"]
  reach: Float[np.ndarray, ""]
  compositions: Int[np.ndarray, "compositions elements"] | None


def domain(systems: System) -> Domain:
  """What configurations have.

  Args:
    systems: Training configurations with a leading axis `frames`, float64 NumPy, with neighbour
      lists if they have cells.

  Returns:
    Their domain.

  >>> water = System(np.array([[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]]), np.array([[8, 1, 1]]))
  >>> found = domain(water)
  >>> found.elements.tolist(), found.closest.round(2).tolist(), found.compositions.tolist()
  ([1, 8], [[1.52, 0.96], [0.96, inf]], [[2, 1]])
  """
  species = np.asarray(systems.species)
  elements = np.unique(species[species > 0])
  closest = np.full((len(elements), len(elements)), np.inf)
  for start in range(0, len(species), _FRAMES):
    few = slice(start, start + _FRAMES)
    part = jax.tree.map(lambda leaf, few=few: np.asarray(leaf)[few], systems)
    np.minimum(closest, _closest(elements, part), out=closest)
  kinds = np.unique(species, axis=0) if (species != species[:1]).any() else species[:1]
  counts = np.unique((kinds[:, :, None] == elements).sum(axis=1), axis=0)
  return Domain(
      elements, closest,
      np.array(np.inf) if systems.neighbours is None else np.min(systems.neighbours.radius),
      counts if len(counts) <= MOST_COMPOSITIONS else None)


def require_elements(
    known: Domain, species: Int[Array | np.ndarray, "..."], name: str) -> None:
  """Makes sure that training has seen all elements.

  Args:
    known: What training has seen.
    species: Atomic numbers; 0 is padding.
    name: What is to be predicted, for the message.

  Raises:
    ValueError: Naming the others.

  >>> water = System(np.array([[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]]), np.array([[8, 1, 1]]))
  >>> require_elements(domain(water), np.array([7, 1, 1, 1]), "ammonia")
  Traceback (most recent call last):
  ...
  ValueError: ammonia has N, and the training data had H, O alone: ...
  """
  species = np.asarray(species)
  new = species[(species > 0) & ~np.isin(species, known.elements)]
  if len(new):
    raise ValueError(
        f"{name} has {', '.join(symbols(new))}, and the training data had "
        f"{', '.join(symbols(known.elements))} alone: a network knows nothing of other elements. "
        "Remove such configurations, or train on data that have them")


def remarks(known: Domain, system: System) -> dict[str, str]:
  """In what a configuration is far from the training data.

  Args:
    known: What training has seen.
    system: One configuration of elements that training has seen, float64 NumPy.

  Returns:
    A sentence for each composition and pair of elements that training has not seen so, by what it
    is about, such as `the distance of H-O`; empty where it is like those of training.

  >>> water = System(np.array([[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]]), np.array([[8, 1, 1]]))
  >>> squeezed = System(0.8 * water.positions[0], water.species[0])
  >>> remarks(domain(water), squeezed)["the distance of H-O"]
  'H-O come as close as 0.768 A, and no closer than 0.96 A in the training data'
  """
  from ase.symbols import Symbols

  found = {}
  species = np.asarray(system.species)
  counts = (species[:, None] == known.elements).sum(axis=0)
  if known.compositions is not None and not (known.compositions == counts).all(axis=1).any():
    formula = Symbols(species[species > 0]).get_chemical_formula()
    found[f"the composition {formula}"] = f"the composition {formula} is not in the training data"
  closest = _closest(known.elements, jax.tree.map(lambda leaf: np.asarray(leaf)[None], system))
  limit = np.minimum(CLOSER * known.closest, known.reach)
  for i, j in zip(*np.nonzero(np.triu(closest < limit)), strict=True):
    pair = "-".join(symbols(known.elements[[each]])[0] for each in (i, j))
    seen = known.closest[i, j]
    found[f"the distance of {pair}"] = f"{pair} come as close as {closest[i, j]:.3g} A, and " + (
        f"no closer than {seen:.3g} A in the training data" if np.isfinite(seen) else
        "in no configuration of the training data are there two such atoms near each other")
  return found


def _closest(
    elements: Int[np.ndarray, " elements"], systems: System
) -> Float[np.ndarray, "elements elements"]:
  """The closest distance of atoms of two elements in some configurations, inf where there is none.

  Args:
    elements: Atomic numbers, ascending; all that occur.
    systems: Configurations with a leading axis `frames`.
  """
  positions, species = np.asarray(systems.positions, np.float64), np.asarray(systems.species)
  kind = np.searchsorted(elements, species)
  if systems.neighbours is None:
    first, second = np.triu_indices(species.shape[1], 1)
    vectors = positions[:, second] - positions[:, first]
    real = (species[:, first] > 0) & (species[:, second] > 0)
    one, other = kind[:, first], kind[:, second]
  else:
    first, second, shifts = (np.asarray(each) for each in systems.neighbours[:3])
    frame = np.arange(len(species))[:, None]
    vectors = positions[frame, second] - positions[frame, first]
    if systems.cell is not None:
      vectors += shifts @ np.asarray(systems.cell, np.float64)
    real = (first != second) | shifts.any(axis=-1)
    one, other = kind[frame, first], kind[frame, second]
  squares = np.where(real, np.einsum("fpx,fpx->fp", vectors, vectors), np.inf)
  if systems.neighbours is None and (species == species[:1]).all():
    one, other, squares = one[:1], other[:1], squares.min(axis=0, keepdims=True)
  closest = np.full((len(elements), len(elements)), np.inf)
  near = np.isfinite(squares)
  np.minimum.at(closest, (one[near], other[near]), np.sqrt(squares[near]))
  return np.minimum(closest, closest.T)
