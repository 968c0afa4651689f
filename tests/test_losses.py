"""Penalties: closed forms, safe derivatives, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcnn import losses

VECTORS = jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(("name", "expected"), [
    ("l1", [[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]),
    ("l2", [[9.0, 16.0, 0.0], [0.0, 0.0, 0.0]]),
    ("huber", [[2.5, 3.5, 0.0], [0.0, 0.0, 0.0]]),
    ("atom_norm", [[5 / 3] * 3, [0.0] * 3]),
])
def test_values(name, expected):
  np.testing.assert_allclose(losses.FORCE_LOSSES[name](VECTORS, 1.0), expected, rtol=1e-6)


@pytest.mark.parametrize("name", losses.FORCE_LOSSES)
def test_gradient_is_finite_at_zero_and_far_away(name):
  def total(residual):
    return jnp.sum(losses.FORCE_LOSSES[name](residual, 1.0))

  for scale in (0.0, 1e-8, 1e4):
    assert np.isfinite(jax.grad(total)(scale * jnp.ones((2, 3)))).all()


def test_huber_is_continuous_with_its_slope():
  slope = jax.vmap(jax.grad(lambda r: losses.huber(r, 0.5)))(jnp.array([0.4999, 0.5001, -2.0]))
  np.testing.assert_allclose(slope, [0.4999, 0.5, -0.5], rtol=1e-6)


def test_atom_norm_does_not_depend_on_the_frame_of_reference():
  turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
  residual = np.random.default_rng(1).normal(size=(4, 3))
  np.testing.assert_allclose(
      losses.atom_norm(jnp.asarray(residual @ turn), 1.0).sum(),
      losses.atom_norm(jnp.asarray(residual), 1.0).sum(), rtol=1e-6)
