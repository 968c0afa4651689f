"""Operations of our own against the plain ones: values, derivatives, maps and what they become."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dcnn.models import layers, primitives

ROWS, INPUTS, OUTPUTS, BATCH = 5, 3, 4, 2
NUMBERS = (((1,), (0,)), ((), ()))
pytestmark = pytest.mark.usefixtures("x64")


def random(*shape, dtype=jnp.float64):
  return jax.random.normal(jax.random.key(sum(shape)), shape, dtype)


def ours(rows, matrix):
  return primitives.dot_general(rows, matrix, NUMBERS)


def plain_square(values, atoms):
  first, second = layers.unordered_pairs(atoms)
  square = jnp.zeros((atoms, atoms, values.shape[-1]), values.dtype)
  return square.at[first, second].set(values).at[second, first].set(values)


@pytest.mark.parametrize("axes", [(0, None), (1, None), (2, None), (None, 0), (None, 2), (0, 0),
                                  (2, 1)], ids=str)
def test_a_mapped_product_is_a_product_for_each(axes):
  shapes = [[ROWS, INPUTS], [INPUTS, OUTPUTS]]
  for shape, axis in zip(shapes, axes, strict=True):
    if axis is not None:
      shape.insert(axis, BATCH)
  rows, matrix = (random(*shape) for shape in shapes)
  found = jax.jit(jax.vmap(ours, axes))(rows, matrix)
  np.testing.assert_allclose(found, jax.vmap(jnp.matmul, axes)(rows, matrix), atol=1e-14)


def test_product_over_runs_and_batch():
  rows, matrix = random(7, BATCH, ROWS, INPUTS), random(7, INPUTS, OUTPUTS)
  both = jax.vmap(jax.vmap(ours, (0, None)))
  np.testing.assert_allclose(both(rows, matrix), jnp.einsum("rbpi,rio->rbpo", rows, matrix))


def test_product_has_its_derivatives_to_second_order():
  check_grads(ours, (random(ROWS, INPUTS), random(INPUTS, OUTPUTS)), order=2)
  mapped = jax.vmap(ours, (0, None))
  check_grads(mapped, (random(BATCH, ROWS, INPUTS), random(INPUTS, OUTPUTS)), order=2)


def test_the_gradient_of_a_batch_sums_over_one_axis():
  def loss(matrix, rows):
    return jnp.sum(jax.vmap(ours, (0, None))(rows, matrix) ** 3)

  text = str(jax.make_jaxpr(jax.grad(loss))(random(INPUTS, OUTPUTS), random(BATCH, ROWS, INPUTS)))
  assert text.count("rows_times_matrix") == 2  # the product, and the gradient of the matrix
  assert f"f64[{OUTPUTS},{INPUTS}]" in text or f"f64[{INPUTS},{OUTPUTS}]" in text
  assert f"f64[{BATCH},{INPUTS},{OUTPUTS}]" not in text


def test_other_products_are_those_of_jax():
  vector, matrix = random(INPUTS), random(INPUTS, OUTPUTS)
  found = primitives.dot_general(vector, matrix, (((0,), (0,)), ((), ())))
  np.testing.assert_allclose(found, vector @ matrix)


def test_product_takes_the_precision_of_its_context():
  with jax.default_matmul_precision("highest"):
    text = jax.jit(ours).lower(random(ROWS, INPUTS), random(INPUTS, OUTPUTS)).as_text()
  assert "HIGHEST" in text


@pytest.mark.parametrize("atoms", [1, 2, 5])
def test_square_has_each_pair_twice(atoms):
  values = random(atoms * (atoms - 1) // 2, 3)
  found = jax.jit(primitives.symmetric_square, static_argnums=1)(values, atoms)
  np.testing.assert_array_equal(found, plain_square(values, atoms))


def test_square_is_linear_with_the_right_transpose():
  values, atoms = random(BATCH, 10, 3), 5
  mapped = jax.vmap(lambda each: primitives.symmetric_square(each, atoms))
  np.testing.assert_array_equal(
      mapped(values), jax.vmap(lambda each: plain_square(each, atoms))(values))
  check_grads(lambda x: jnp.sum(mapped(x) ** 3), (values,), order=2)
  text = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(mapped(x) ** 3)))(values))
  assert "scatter" not in text
