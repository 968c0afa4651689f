"""Functions on the sphere: harmonics, grids, products of them; and what GridACE makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from compiling import drawn, quickly_compiled
from scipy import special

from dcnn import derivatives
from dcnn.base import System
from dcnn.configs import build
from dcnn.models import GridACE, sphere
from dcnn.sweeps import plans

pytestmark = pytest.mark.usefixtures("x64")
SMALL = {"features": 3, "filter_features": 4, "radial": 3}
ORDERS = [2 * degree + 1 for degree in range(sphere.LARGEST_DEGREE + 1)]


def directions(number, seed=0):
  points = np.random.default_rng(seed).normal(size=(number, 3))
  return points / np.linalg.norm(points, axis=1, keepdims=True)


def together(points, degree=sphere.LARGEST_DEGREE):
  return np.concatenate(sphere.harmonics(points, degree), axis=-1)


@pytest.mark.parametrize("order", [1, 2, 5, 7, 9, 11])
def test_a_grid_integrates_polynomials_up_to_its_order(order):
  """x^a y^b z^c of even degree against its mean over the sphere; those of odd degree have none."""
  points, weights = sphere.grid(order)
  for a in range(0, order + 1):
    for b in range(0, order + 1 - a):
      for c in range((a + b) % 2, order + 1 - a - b, 2):
        found = np.sum(weights * np.prod(points ** np.array([a, b, c]), axis=1))
        exact = 0.0
        if not (a % 2 or b % 2 or c % 2):
          exact = np.prod(special.factorial2(np.array([a, b, c]) - 1, exact=False, extend="complex")
                          .real) / special.factorial2(a + b + c + 1)
        np.testing.assert_allclose(found, exact, atol=1e-14)


def test_a_half_grid_has_one_of_each_two_opposite_points():
  for order in (3, 5, 7, 9, 11):
    points, weights = sphere.grid(order)
    apart = np.linalg.norm(points[:, None] + points[None], axis=-1)
    assert apart.min() > 0.1 and weights.sum() == pytest.approx(1)


def test_harmonics_are_orthonormal():
  points, weights = sphere.grid(2 * sphere.LARGEST_DEGREE)
  values = together(points)
  even = np.repeat([1, 0, 1, 0], ORDERS)  # products of an even and an odd one vanish by symmetry
  found = values.T @ (weights[:, None] * values)
  np.testing.assert_allclose(found[even[:, None] == even], np.eye(16)[even[:, None] == even],
                             atol=1e-14)


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
  one, other = np.random.default_rng(degree).normal(size=(2, 4, size, 5))
  expected = np.einsum("abc,iaj,ibj->icj", gaunt(degree), one, other)
  at = sphere.grid(3 * degree)

  def parts(function):
    values = sphere.evaluate(
        jnp.split(jnp.asarray(function), np.cumsum(ORDERS[:degree]), axis=1), at)
    return sum(values[::2]), sum(values[1::2])

  (even, odd), (other_even, other_odd) = parts(one), parts(other)
  found = sphere.project(
      even * other_even + odd * other_odd, even * other_odd + odd * other_even, at, degree)
  np.testing.assert_allclose(jnp.concatenate(found, axis=1), expected, atol=1e-13)


def test_projecting_undoes_evaluating():
  functions = [jnp.asarray(np.random.default_rng(n).normal(size=(2, n, 3))) for n in ORDERS]
  at = sphere.grid(6)
  values = sphere.evaluate(functions, at)
  even, odd = (sum(values[first::2]) for first in (0, 1))
  for found, expected in zip(sphere.project(even, odd, at, 3), functions, strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-13)


def pair_of(first=8, second=1):
  return System(jnp.asarray([[0.0, 0.0, 0.0], [0.6, 0.3, 0.7]]), jnp.asarray([first, second]))


def test_messages_of_functions_that_are_scalars_are_those_of_scalars(monkeypatch):
  """A first block on the grid, where nothing but degree 0 is sent, is the one without a grid."""
  system = System(jnp.asarray(directions(5) * 1.5), jnp.asarray([8, 1, 1, 6, 1]))
  network = GridACE(jax.nn.silu, (1, 6, 8), blocks=1, **SMALL)
  variables = drawn(network, system)
  plain = quickly_compiled(network.apply)(variables, system)

  def on_grid(pairs, filters, angular, sent):
    functions = [sent[:, None], jnp.zeros((len(sent), 3, sent.shape[1]))]
    return sphere._from_functions(pairs, filters, angular, functions, sphere.grid(5))

  monkeypatch.setattr(sphere, "_from_scalars", on_grid)
  np.testing.assert_allclose(quickly_compiled(network.apply)(variables, system), plain, rtol=1e-12)


def test_a_grid_of_higher_order_changes_nothing(monkeypatch):
  system = System(jnp.asarray(directions(5) * 1.5), jnp.asarray([8, 1, 1, 6, 1]))
  network = GridACE(jax.nn.silu, (1, 6, 8), **SMALL)
  variables = drawn(network, system)
  energy = quickly_compiled(network.apply)(variables, system)
  exact = sphere.grid

  def of_order(change):
    monkeypatch.setattr(sphere, "grid", lambda order: exact(order + change))
    return quickly_compiled(lambda variables: network.apply(variables, system))(variables)

  np.testing.assert_allclose(of_order(4), energy, rtol=1e-11)
  assert abs(of_order(-2) / energy - 1) > 1e-9  # and of lower order, something


def test_an_element_that_was_not_named_is_not_passed_over_in_silence():
  network = GridACE(jax.nn.silu, (1, 8), **SMALL)
  predict = quickly_compiled(derivatives.energy_and_forces(network.apply))
  variables = drawn(network, pair_of())
  assert all(np.isfinite(each).all() for each in predict(variables, pair_of()))
  assert all(np.isnan(each).all() for each in predict(variables, pair_of(first=6)))


def test_elements_are_needed():
  with pytest.raises(ValueError, match="received none: pass elements"):
    jax.eval_shape(GridACE(jax.nn.silu, (), **SMALL).init, jax.random.key(0), pair_of())


def test_a_degree_that_is_not_received_cannot_be_passed():
  with pytest.raises(ValueError, match="passed up to degree, 1, received 2: lower passed"):
    jax.eval_shape(GridACE(jax.nn.silu, (1, 8), degree=1, passed=2, **SMALL).init,
                   jax.random.key(0), pair_of())


def test_the_elements_are_those_of_the_data():
  """Of all frames, which are ethanol; without them there would be a row for each element known."""
  config = tiny.config(model__name="GridACE", model__features=2, model__filter_features=2)
  plan = build.build(config, build.load(config))
  group = plans.make_groups(plan)[0]
  variables = jax.eval_shape(
      group.program.task.init, jax.random.key(0), group.runs[0].hypers)
  assert variables["params"]["embedding"]["kernel"].shape == (3, 2)
