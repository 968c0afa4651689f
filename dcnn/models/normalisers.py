"""Normalisation layers by name, each a function that makes a layer.

A layer maps features (rows, features) to features of that shape. A row is an atom, a directed edge
or, in a network that has one row of features, the configuration. A layer that averages over rows
has to know which of them are real, and how much each counts: it is called as
`layer(features, real)`. `normalised` calls either kind.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import text

#: An array of JAX or of NumPy.
AnyArray = Array | np.ndarray
#: A function of features, or of features and the weights of their rows.
Layer = Callable[..., Array]
#: A function that makes a layer.
Normaliser = Callable[[], Layer]

RUNNING = "batch_stats"  #: The collection of running statistics.
#: The name of the axis of configurations, over which training maps a network.
SYSTEMS = "systems"
EPSILON = 1e-5  #: Added to variances.


def none() -> Layer:
  """No normalisation: what the paper recommends for derivative-constrained training."""
  return lambda features: features


class BatchNorm(nn.Module):
  """Each feature with mean 0 and variance 1 over all real rows of all configurations of a batch.

      y = scale (x - mean) / sqrt(variance + 1e-5) + bias

  mean and variance (biased, in two passes: the mean of squares less the square of the mean loses
  all digits in float32) are sums over the batch, divided by the number of its real rows. They are
  used where the collection `RUNNING` may be changed, which is in training:

      apply = functools.partial(model.apply, mutable=[normalisers.RUNNING])
      energies, state = jax.vmap(
          apply, (None, 0), (0, None), axis_name=normalisers.SYSTEMS)(variables, systems)

  Each such call moves the running statistics a tenth of the way to those of the batch (the unbiased
  variance), as PyTorch does. Otherwise, and where the network is initialised, the running
  statistics are used, and configurations do not see one another.

  In training they do: the energy of one configuration depends on the others of its batch, and what
  is differentiated is the sum of all energies. The force on an atom of configuration i then
  contains the derivative of the energy of configuration j, and these forces are not those of any
  evaluation. This leak is faithful to the networks that the paper trains, and it is what the paper
  removes.

  Rows are weighted by `real`: weights that fall to 0 smoothly keep the energy smooth as a row
  ceases to count. With weights of 0 and 1 this is PyTorch's BatchNorm on the real rows.

  References:
    S. Ioffe and C. Szegedy, Batch Normalization, ICML 2015, arXiv:1502.03167, Algorithm 1.
    K. Lo and D. Huang, arXiv:2310.01649, Section 3.2.
  """

  @nn.compact
  def __call__(
      self, features: Float[AnyArray, "*rows features"],
      real: Float[AnyArray, "*rows"] | None = None,
  ) -> Float[Array, "*rows features"]:
    """Normalised features; `real` is the weight of each row, 1 where it counts and 0 on padding."""
    if real is None:
      raise ValueError(
          "normaliser=batch averages over rows, and this network does not say which of them are "
          "real: in its code write normalisers.normalised(features, self.normaliser(), real) in "
          "place of self.normaliser()(features)")
    size, dtype = features.shape[-1:], features.dtype
    scale = self.param("scale", nn.initializers.ones, size)
    bias = self.param("bias", nn.initializers.zeros, size)
    mean = self.variable(RUNNING, "mean", jnp.zeros, size)
    variance = self.variable(RUNNING, "var", jnp.ones, size)
    if self.is_mutable_collection(RUNNING) and not self.is_initializing():
      centre, spread, count = _moments(features, jnp.asarray(real, dtype))
      self._run(mean, centre, count)
      self._run(variance, spread * count / jnp.maximum(count - 1.0, 1.0), count)
    else:
      centre, spread = mean.value, variance.value
    return scale * (features - centre) * jax.lax.rsqrt(spread + EPSILON) + bias

  def _run(self, running: nn.Variable, new: Array, count: Array) -> None:
    """Moves a running statistic a tenth of the way, unless no row counts."""
    kept = jnp.where(count > 0, 0.9, 1.0).astype(new.dtype)
    moved = kept * running.value + (1.0 - kept) * jax.lax.stop_gradient(new)
    running.value = moved.astype(running.value.dtype)


def _moments(
    features: Float[AnyArray, "*rows features"], real: Float[Array, "*rows"]
) -> tuple[Float[Array, " features"], Float[Array, " features"], Float[Array, ""]]:
  """Mean and biased variance of each feature over the rows of a batch, and their number."""
  rows = tuple(range(real.ndim))
  weights = real[..., None]

  def total(values: Array) -> Array:
    return jax.lax.psum(jnp.sum(values, axis=rows), SYSTEMS)

  count = jax.lax.psum(jnp.sum(real), SYSTEMS)
  some = jnp.where(count == 0, 1.0, count)
  # Padding may hold anything; its product with 0 must be 0.
  inside = jnp.where(weights == 0, 0.0, features)
  mean = total(weights * inside) / some
  return mean, total(weights * jnp.square(inside - mean)) / some, count


#: Every normaliser by the name that `model.normaliser` takes.
NORMALISERS: Mapping[str, Normaliser] = {
    "none": none,
    "layer": functools.partial(nn.LayerNorm, epsilon=EPSILON, use_fast_variance=False),
    "batch": BatchNorm,
}


def normalised(
    features: Float[Array, "*rows features"], layer: Layer, real: Float[AnyArray, "*rows"]
) -> Float[Array, "*rows features"]:
  """Features after a layer that a normaliser has made.

  Args:
    features: The features of each row.
    layer: What the network's field `normaliser` makes when it is called; each call makes another.
    real: The weight of each row in averages over rows, 1 where it counts and 0 on padding; given to
      a layer whose call has an argument `real`.

  Returns:
    The layer's output. That of padding has no meaning.
  """
  if "real" in inspect.signature(layer).parameters:
    return layer(features, real)
  return layer(features)


def couples(layer: Layer) -> bool:
  """Whether a layer averages over the configurations of a batch and keeps statistics of them.

  >>> couples(NORMALISERS["batch"]()), couples(NORMALISERS["layer"]())
  (True, False)
  """
  return isinstance(layer, BatchNorm | nn.BatchNorm)


def resolve_normaliser(spec: Any) -> Normaliser:
  """The normaliser of a name; one of the user's own is taken as it is.

  Args:
    spec: A name of `NORMALISERS`, or a function without arguments, such as a Flax class, that
      makes a layer from arrays (rows, features) to arrays of that shape; a layer that takes a
      second argument `real` is given the weight of each row.

  Returns:
    A function that makes a layer.

  Raises:
    ValueError: If there is no normaliser of that name, or if `spec` is no function.

  >>> resolve_normaliser("batch").__name__
  'BatchNorm'
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
