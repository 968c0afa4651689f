"""Functions of a distance: their values, and how smoothly they end at the cutoff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcnn.models import radial

CUTOFF = 5.0
pytestmark = pytest.mark.usefixtures("x64")
# A cutoff function, and how many of its derivatives vanish at the cutoff.
CUTOFFS = {
    "smooth": (radial.smooth_cutoff, 3),
    "cosine": (radial.cosine_cutoff, 1),
    "polynomial": (radial.polynomial_cutoff, 2),
    "polynomial of power 6": (functools.partial(radial.polynomial_cutoff, power=6), 2),
}


@pytest.mark.parametrize("name", CUTOFFS)
def test_a_cutoff_vanishes_with_just_as_many_derivatives_as_it_says(name):
  cutoff, smooth = CUTOFFS[name]
  function = functools.partial(cutoff, cutoff=CUTOFF)
  assert function(jnp.array(0.0)) == 1
  for order in range(smooth + 2):
    inside, beyond = jax.jit(jax.vmap(function))(CUTOFF + jnp.array([-1e-7, 1.0]))
    assert beyond == 0
    assert (abs(inside) < 1e-5) == (order <= smooth), order
    function = jax.grad(function)


@pytest.mark.parametrize("name", CUTOFFS)
def test_a_cutoff_falls(name):
  values = CUTOFFS[name][0](jnp.linspace(0.0, CUTOFF + 1.0, 601), CUTOFF)
  assert (jnp.diff(values) <= 0).all() and values[-1] == 0


def test_bessel_functions_are_orthogonal():
  """The integral of r^2 phi_m phi_n from 0 to the cutoff is cutoff / 2 where m = n, and else 0."""
  nodes, weights = np.polynomial.legendre.leggauss(60)
  distance = jnp.asarray((nodes + 1) * CUTOFF / 2)
  functions = distance[:, None] * radial.bessel_basis(distance, 8, CUTOFF)
  np.testing.assert_allclose(
      functions.T @ (weights[:, None] * functions) * CUTOFF / 2, np.eye(8) * CUTOFF / 2, atol=1e-12)


def test_bessel_functions_go_through_zero_distance():
  """Their value there is their limit, and no derivative is NaN."""
  function = functools.partial(radial.bessel_basis, number=4, cutoff=CUTOFF)
  at, near = jnp.array([0.0]), jnp.array([1e-5])
  np.testing.assert_allclose(function(at), function(near), rtol=1e-8)
  for _ in range(2):
    function = jax.jacfwd(function)
    np.testing.assert_array_equal(jax.jit(function)(at), 0)


def test_gaussians_have_their_centres_from_zero_to_the_cutoff():
  centres = jnp.linspace(0.0, CUTOFF, 6)
  values = radial.gaussian_basis(centres, 6, CUTOFF)
  np.testing.assert_allclose(jnp.diag(values), 1)
  np.testing.assert_allclose(jnp.diag(values, 1), np.exp(-0.5), rtol=1e-12)
