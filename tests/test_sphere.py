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
from dcnn.models import GridACE, layers, sphere
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
  one, other = jnp.asarray(np.random.default_rng(degree).normal(size=(2, 4, size, 5)))
  expected = np.einsum("abc,iaj,ibj->icj", gaunt(degree), one, other)
  at = sphere.grid(3 * degree)
  found = sphere.project(sphere.evaluate(one, at) * sphere.evaluate(other, at), at, degree)
  np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("one, other, degree", [(1, 1, 2), (2, 1, 2), (3, 2, 3), (2, 0, 2)])
def test_couplings_are_coefficients_of_gaunt(one, other, degree):
  size, second, wanted = ((each + 1) ** 2 for each in (one, other, degree))
  expected = gaunt(3)[:size, :second, :wanted].transpose(2, 0, 1).reshape(wanted, -1)
  np.testing.assert_allclose(sphere.couplings(one, other, degree), expected, atol=1e-13)


def test_projecting_undoes_evaluating():
  functions = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 3)))
  at = sphere.grid(6)
  np.testing.assert_allclose(
      sphere.project(sphere.evaluate(functions, at), at, 3), functions, atol=1e-13)
  assert [each.shape[1] for each in sphere.by_degree(functions)] == ORDERS


def pair_of(first=8, second=1):
  return System(jnp.asarray([[0.0, 0.0, 0.0], [0.6, 0.3, 0.7]]), jnp.asarray([first, second]))


def test_messages_of_functions_that_are_scalars_are_those_of_scalars(monkeypatch):
  """A first block with couplings, where nothing but degree 0 is sent, is the one without."""
  system = System(jnp.asarray(directions(5) * 1.5), jnp.asarray([8, 1, 1, 6, 1]))
  network = GridACE(jax.nn.silu, (1, 6, 8), blocks=1, **SMALL)
  variables = drawn(network, system)
  plain = quickly_compiled(network.apply)(variables, system)
  received = sphere._received
  monkeypatch.setattr(sphere, "_received", lambda pairs, filters, angular, sent: received(
      pairs, filters, angular, jnp.pad(sent, ((0, 0), (0, 3), (0, 0)))))
  np.testing.assert_allclose(quickly_compiled(network.apply)(variables, system), plain, rtol=1e-12)


def test_messages_are_products_on_the_sphere():
  """sum_j f_ij(n) x_j(n) at each point n, with filters that are polynomials of u . n."""
  system = System(jnp.asarray(directions(5) * 1.5), jnp.asarray([8, 1, 1, 6, 1]))
  pairs = layers.pairs(system, 5.0)
  draw = np.random.default_rng(0).normal
  filters = jnp.asarray(draw(size=(3, len(pairs.distance), 2)))
  sent = jnp.asarray(draw(size=(5, 4, 2)))
  at = sphere.grid(5)
  values, expected = sphere.evaluate(sent, at), np.zeros((5, len(at.points), 2))
  for pair, (i, j) in enumerate(zip(pairs.first, pairs.second, strict=True)):
    for here, there, direction in ((i, j, pairs.direction[pair]), (j, i, -pairs.direction[pair])):
      for degree in range(3):
        legendre = (2 * degree + 1) * special.eval_legendre(degree, at.points @ direction)
        expected[here] += legendre[:, None] * filters[degree, pair] * values[there]
  received = sphere._received(
      pairs, list(filters), sphere.harmonics(pairs.direction, 2), sent)
  np.testing.assert_allclose(
      jnp.concatenate(received, axis=1), sphere.project(jnp.asarray(expected), at, 2),
      atol=1e-12)


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
