"""GridACE: its messages, its grids, and its elements; the laws of networks are in test_models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from compiling import drawn, quickly_compiled
from scipy import special
from test_sphere import directions

from dcnn import derivatives
from dcnn.base import System
from dcnn.configs import build
from dcnn.models import GridACE, grid_ace, layers, sphere
from dcnn.sweeps import plans

pytestmark = pytest.mark.usefixtures("x64")
SMALL = {"features": 3, "filter_features": 4, "radial": 3}


def pair_of(first=8, second=1):
  return System(jnp.asarray([[0.0, 0.0, 0.0], [0.6, 0.3, 0.7]]), jnp.asarray([first, second]))


def test_messages_of_functions_that_are_scalars_are_those_of_scalars(monkeypatch):
  """A first block with couplings, where nothing but degree 0 is sent, is the one without."""
  system = System(jnp.asarray(directions(5) * 1.5), jnp.asarray([8, 1, 1, 6, 1]))
  network = GridACE(jax.nn.silu, (1, 6, 8), blocks=1, **SMALL)
  variables = drawn(network, system)
  plain = quickly_compiled(network.apply)(variables, system)
  received = grid_ace._received
  monkeypatch.setattr(grid_ace, "_received", lambda pairs, filters, angular, sent: received(
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
  values = np.moveaxis(sphere.evaluate(jnp.moveaxis(sent, 1, 0), at), 0, 1)
  expected = np.zeros((5, len(at.points), 2))
  for pair, (i, j) in enumerate(zip(pairs.first, pairs.second, strict=True)):
    for here, there, direction in ((i, j, pairs.direction[pair]), (j, i, -pairs.direction[pair])):
      for degree in range(3):
        legendre = (2 * degree + 1) * special.eval_legendre(degree, at.points @ direction)
        expected[here] += legendre[:, None] * filters[degree, pair] * values[there]
  received = grid_ace._received(
      pairs, list(filters), sphere.harmonics(pairs.direction, 2), sent)
  np.testing.assert_allclose(
      jnp.concatenate(received), sphere.project(jnp.moveaxis(expected, 1, 0), at, 2),
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
