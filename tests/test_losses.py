"""Penalties: closed forms, safe derivatives, masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcnn import losses

VECTORS = jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])


def value(name, residual):
  """The penalty with all its parameters 1."""
  penalty = losses.FORCE_LOSSES[name]
  return penalty.function(residual, **dict.fromkeys(penalty.parameters, 1.0))


@pytest.mark.parametrize(("name", "expected"), [
    ("l1", [[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]),
    ("l2", [[9.0, 16.0, 0.0], [0.0, 0.0, 0.0]]),
    ("huber", [[2.5, 3.5, 0.0], [0.0, 0.0, 0.0]]),
    ("atom_norm", [[5 / 3] * 3, [0.0] * 3]),
])
def test_values(name, expected):
  np.testing.assert_allclose(value(name, VECTORS), expected, rtol=1e-6)


@pytest.mark.parametrize("name", losses.FORCE_LOSSES)
def test_gradient_is_finite_at_zero_and_far_away(name):
  def total(residual):
    return jnp.sum(value(name, residual))

  for scale in (0.0, 1e-8, 1e4):
    assert np.isfinite(jax.grad(total)(scale * jnp.ones((2, 3)))).all()


def test_huber_is_continuous_with_its_slope():
  slope = jax.vmap(jax.grad(lambda r: losses.huber(r, 0.5)))(jnp.array([0.4999, 0.5001, -2.0]))
  np.testing.assert_allclose(slope, [0.4999, 0.5, -0.5], rtol=1e-6)


def test_atom_norm_does_not_depend_on_the_frame_of_reference():
  turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
  residual = np.random.default_rng(1).normal(size=(4, 3))
  np.testing.assert_allclose(
      losses.atom_norm(jnp.asarray(residual @ turn)).sum(),
      losses.atom_norm(jnp.asarray(residual)).sum(), rtol=1e-6)


def pseudo_huber(residual, delta):
  return delta**2 * (jnp.sqrt(1 + (residual / delta) ** 2) - 1)


def quartic(residual, scale=1.0):
  return (residual / scale) ** 4


OWN = {
    "a function": (quartic, ()),
    "of jax": (jnp.square, ()),
    "a ufunc of numpy": (np.square, ()),
    "with a parameter": (losses.Penalty(pseudo_huber, ("delta",)), ("delta",)),
    "a default that is set": (losses.Penalty(quartic, ("scale",)), ("scale",)),
    "a partial": (functools.partial(pseudo_huber, delta=0.1), ()),
    "any parameters": (losses.Penalty(lambda r, **named: named["delta"] * r, ("delta",)),
                       ("delta",)),
}


@pytest.mark.parametrize("name", OWN)
def test_a_penalty_of_the_users_own_is_resolved_with_its_parameters(name):
  spec, parameters = OWN[name]
  penalty = losses.resolve(spec, losses.ENERGY_LOSSES)
  assert penalty.parameters == parameters
  assert penalty.function is (spec.function if isinstance(spec, losses.Penalty) else spec)
  residual = jnp.array([0.5, -2.0])
  assert penalty.function(residual, **dict.fromkeys(parameters, 1.0)).shape == residual.shape


@pytest.mark.parametrize("name", losses.FORCE_LOSSES)
def test_a_name_is_resolved_in_its_table(name):
  assert losses.resolve(name, losses.FORCE_LOSSES) is losses.FORCE_LOSSES[name]
  if name not in losses.ENERGY_LOSSES:
    with pytest.raises(ValueError, match=f"unknown loss '{name}'.*known are l1, l2, huber$"):
      losses.resolve(name, losses.ENERGY_LOSSES)


@pytest.mark.parametrize("spec, words", [
    ("hubert", "unknown loss 'hubert': did you mean 'huber'"),
    (1.0, "a function of the residual or a losses.Penalty, received 1.0"),
    (pseudo_huber, r"missing .*'delta'.*losses.Penalty\(pseudo_huber, \('delta',\)\)"),
    (losses.Penalty(quartic, ("delta",)), r"cannot be called as quartic\(residual, delta=...\)"),
    (lambda: 0.0, "too many positional arguments"),
], ids=["misspelt", "number", "unnamed parameter", "wrong name", "no residual"])
def test_what_is_no_penalty_is_refused(spec, words):
  with pytest.raises(ValueError, match=words):
    losses.resolve(spec, losses.ENERGY_LOSSES)
