"""What saves tests of networks the time of the compiler, which is most of theirs."""

import functools

import jax
import numpy as np

quickly_compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def drawn(model, system, seed=0):
  """Random variables of a network, float64, drawn without compiling its initialisation.

  Nothing is 0: neither biases nor the last weights of DimeNet++, which would hide what is behind
  them.
  """
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    if path[-1].key in ("kernel", "embedding"):
      return rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[-2])
    return 1.0 + 0.1 * rng.normal(size=leaf.shape)

  return jax.tree.map_with_path(
      draw, jax.eval_shape(model.init, jax.random.key(0), system))
