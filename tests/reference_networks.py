"""Values that the reference implementations of networks gave: weights, energies and forces.

The files in tests/networks were written in float64 with random weights, for four frames of rMD17
ethanol; they hold numbers alone. Weights of a torch layer have the shape (outputs, inputs).
"""

import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dcnn.base import Labels, System

FOLDER = pathlib.Path(__file__).parent / "networks"


class Reference(NamedTuple):
  """What a reference implementation was given, and what it gave.

  Attributes:
    systems: The configurations, with a leading axis of frames.
    evaluated: Energies and forces of each by itself.
    trained: The same in training mode, where BatchNorm couples the frames; None without it.
    weights: Arrays by the names that they have in torch.
  """

  systems: System
  evaluated: Labels
  trained: Labels | None
  weights: dict[str, np.ndarray]


def load(name: str) -> Reference:
  """The values of a file in tests/networks."""
  with np.load(FOLDER / f"{name}.npz") as file:
    arrays = {key: file[key] for key in file.files if key != "kwargs"}

  def labels(mode: str) -> Labels | None:
    if f"{mode}/energy" not in arrays:
      return None
    return Labels(arrays[f"{mode}/energy"], arrays[f"{mode}/forces"])

  evaluated = labels("eval")
  assert evaluated is not None
  weights = {key.removeprefix("w/"): array for key, array in arrays.items()
             if key.startswith("w/")}
  return Reference(
      System(jnp.asarray(arrays["positions"]), jnp.asarray(arrays["species"])),
      evaluated, labels("train"), weights)


def dense(weights: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
  """The variables of a Flax layer from those of a torch layer."""
  layer = {"kernel": weights[f"{name}.weight"].T}
  bias = weights.get(f"{name}.bias")
  return layer if bias is None else {**layer, "bias": bias}


def stacked(layers: Iterable[Any]) -> Any:
  """The variables of blocks that are compiled once, with a first axis of blocks."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *layers)
