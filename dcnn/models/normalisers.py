"""Normalisation layers by name, each a function that makes a layer."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from jax import Array

from dcnn.base import text

Normaliser = Callable[[], Callable[[Array], Array]]


def none() -> Callable[[Array], Array]:
  """No normalisation: what the paper recommends for derivative-constrained training."""
  return lambda features: features


NORMALISERS: Mapping[str, Normaliser] = {"none": none, "layer": nn.LayerNorm}


def resolve_normaliser(spec: Any) -> Normaliser:
  """The normaliser of a name; one of the user's own is taken as it is.

  Args:
    spec: A name of `NORMALISERS`, or a function without arguments, such as a Flax class, that
      makes a layer from arrays (rows, features) to arrays of that shape.

  Returns:
    A function that makes a layer.

  Raises:
    ValueError: If there is no normaliser of that name, or if `spec` is no function.

  >>> resolve_normaliser("layer")
  <class 'flax.linen.normalization.LayerNorm'>
  """
  if isinstance(spec, str):
    if spec not in NORMALISERS:
      raise ValueError(text.unknown("normaliser", spec, NORMALISERS))
    return NORMALISERS[spec]
  own: Normaliser = spec
  if isinstance(spec, nn.Module) or not callable(spec):
    raise ValueError("expected the name of a normaliser or a function that makes a layer, such as "
                     f"flax.linen.LayerNorm, received {spec!r}")
  return own
