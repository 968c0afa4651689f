"""Normalisation layers by name, each a function that makes a layer."""

from collections.abc import Callable, Mapping

from flax import linen as nn
from jax import Array

Normaliser = Callable[[], Callable[[Array], Array]]


def none() -> Callable[[Array], Array]:
  """No normalisation: what the paper recommends for derivative-constrained training."""
  return lambda features: features


NORMALISERS: Mapping[str, Normaliser] = {"none": none, "layer": nn.LayerNorm}
