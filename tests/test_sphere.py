"""Functions on the sphere: harmonics, grids, products of them."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dcnn.models import sphere

pytestmark = pytest.mark.usefixtures("x64")
ORDERS = [2 * degree + 1 for degree in range(sphere.LARGEST_DEGREE + 1)]


def directions(number, seed=0):
  points = np.random.default_rng(seed).normal(size=(number, 3))
  return points / np.linalg.norm(points, axis=1, keepdims=True)


def together(points, degree=sphere.LARGEST_DEGREE):
  return np.concatenate(sphere.harmonics(points, degree), axis=-1)


@pytest.mark.parametrize("order", [1, 2, 5, 7, 9, 11])
def test_a_grid_integrates_polynomials_up_to_its_order(order):
  """x^a y^b z^c against its mean over the sphere."""
  points, weights = sphere.grid(order)
  for a in range(0, order + 1):
    for b in range(0, order + 1 - a):
      for c in range(order + 1 - a - b):
        found = np.sum(weights * np.prod(points ** np.array([a, b, c]), axis=1))
        exact = 0.0
        if not (a % 2 or b % 2 or c % 2):
          exact = np.prod(special.factorial2(np.array([a, b, c]) - 1, exact=False, extend="complex")
                          .real) / special.factorial2(a + b + c + 1)
        np.testing.assert_allclose(found, exact, atol=1e-14)


def test_harmonics_are_orthonormal():
  points, weights = sphere.grid(2 * sphere.LARGEST_DEGREE)
  values = together(points)
  np.testing.assert_allclose(values.T @ (weights[:, None] * values), np.eye(16), atol=1e-14)


def test_the_sum_over_orders_is_a_legendre_polynomial():
  one, other = directions(20), directions(20, seed=1)
  for degree, (here, there) in enumerate(zip(
      sphere.harmonics(one, 3), sphere.harmonics(other, 3), strict=True)):
    expected = (2 * degree + 1) * special.eval_legendre(degree, np.sum(one * other, axis=1))
    np.testing.assert_allclose(np.sum(here * there, axis=1), expected, atol=1e-13)


def test_harmonics_have_their_parity_and_vanish_at_no_direction():
  for degree, (here, there, nowhere) in enumerate(zip(
      sphere.harmonics(directions(9), 3), sphere.harmonics(-directions(9), 3),
      sphere.harmonics(np.zeros((1, 3)), 3), strict=True)):
    np.testing.assert_array_equal(there, (-1) ** degree * here)
    assert (nowhere == (degree == 0)).all()


def test_harmonics_of_jax_are_those_of_numpy():
  for mine, theirs in zip(sphere.harmonics(jnp.asarray(directions(9)), 3),
                          sphere.harmonics(directions(9), 3), strict=True):
    np.testing.assert_allclose(mine, theirs, atol=1e-15)


def gaunt(degree):
  """Integrals of three harmonics, from a product rule of Gauss that knows no grid of Lebedev's."""
  nodes, weights = np.polynomial.legendre.leggauss(12)
  angles = 2 * np.pi * np.arange(24) / 24
  sine = np.sqrt(1 - nodes**2)
  points = np.stack([sine[:, None] * np.cos(angles), sine[:, None] * np.sin(angles),
                     np.repeat(nodes[:, None], 24, axis=1)], axis=-1).reshape(-1, 3)
  values = together(points, degree)
  return np.einsum("p,pa,pb,pc->abc", np.repeat(weights, 24) / 48, values, values, values)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_product_on_the_grid_is_that_of_the_couplings(degree):
  """Of two functions up to a degree, projected up to that degree, against Gaunt coefficients."""
  size = (degree + 1) ** 2
  one, other = jnp.asarray(np.random.default_rng(degree).normal(size=(2, size, 4, 5)))
  expected = np.einsum("abc,aij,bij->cij", gaunt(degree), one, other)
  at = sphere.grid(3 * degree)
  found = sphere.project(sphere.evaluate(one, at) * sphere.evaluate(other, at), at, degree)
  np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("one, other, degree", [(1, 1, 2), (2, 1, 2), (3, 2, 3), (2, 0, 2)])
def test_couplings_are_coefficients_of_gaunt(one, other, degree):
  size, second, wanted = ((each + 1) ** 2 for each in (one, other, degree))
  expected = gaunt(3)[:size, :second, :wanted].transpose(2, 0, 1).reshape(wanted, -1)
  np.testing.assert_allclose(sphere.couplings(one, other, degree), expected, atol=1e-13)


def test_projecting_undoes_evaluating():
  functions = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2, 3)))
  at = sphere.grid(6)
  np.testing.assert_allclose(
      sphere.project(sphere.evaluate(functions, at), at, 3), functions, atol=1e-13)
  assert list(map(len, sphere.by_degree(functions))) == ORDERS
