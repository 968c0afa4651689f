"""Operations of our own against the plain ones: values, derivatives, maps and what they become."""

import functools

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


def plain_exchange(filters, sent):
  first, second = layers.unordered_pairs(len(sent))
  received = jnp.zeros(sent.shape, sent.dtype).at[first].add(filters * sent[second])
  return received.at[second].add(filters * sent[first])


def plain_pair_products(one, other):
  first, second = layers.unordered_pairs(len(one))
  return one[first] * other[second] + one[second] * other[first]


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
def test_exchange_and_pair_products(atoms):
  filters, sent, other = random(atoms * (atoms - 1) // 2, 3), random(atoms, 3), random(atoms, 3) + 1
  np.testing.assert_allclose(
      jax.jit(primitives.exchange)(filters, sent), plain_exchange(filters, sent), atol=1e-14)
  np.testing.assert_allclose(
      jax.jit(primitives.pair_products)(sent, other), plain_pair_products(sent, other), atol=1e-14)


def test_derivatives_come_in_the_type_of_each_operand():
  """Positions in float64 and parameters in float32, in either order, to second order."""
  for dtypes in ((jnp.float32, jnp.float64), (jnp.float64, jnp.float32)):
    operands = [random(*shape, dtype=dtype)
                for shape, dtype in zip(((10, 3), (5, 3)), dtypes, strict=True)]

    def slope(*both):
      return sum(jnp.sum(each.astype(jnp.float64) ** 3) for each in jax.grad(
          lambda *both: jnp.sum(primitives.exchange(*both) ** 3), argnums=(0, 1))(*both))

    found = jax.jit(jax.grad(slope, argnums=(0, 1)))(*operands)
    assert tuple(each.dtype for each in found) == dtypes


def test_other_shapes_are_refused():
  with pytest.raises(ValueError, match=r"filters of shape \(10, 3\) for what 5 atoms send"):
    primitives.exchange(random(4, 3), random(5, 3))
  with pytest.raises(ValueError, match="of one shape"):
    primitives.pair_products(random(4, 3), random(5, 3))


@pytest.mark.parametrize("axes", [(0, 0), (None, 1), (2, None)], ids=str)
@pytest.mark.parametrize(("ours", "plain", "rows"), [
    (primitives.exchange, plain_exchange, (10, 5)),
    (primitives.pair_products, plain_pair_products, (5, 5))], ids=["exchange", "pair_products"])
def test_exchange_mapped_and_to_second_order(ours, plain, rows, axes):
  operands = [
      jnp.moveaxis(random(BATCH, each, 3), 0, axis) if axis is not None else random(each, 3)
      for each, axis in zip(rows, axes, strict=True)]

  def derivatives(function):
    """Value, gradient, and the gradient of the gradient's size, forwards and in reverse."""
    def loss(*both):
      return jnp.sum(jax.vmap(function, axes)(*both) ** 3)

    def size(*both):
      return sum(jnp.sum(each**2) for each in jax.grad(loss, argnums=(0, 1))(*both))

    both = tuple(operands)
    return (loss(*both), jax.grad(loss, argnums=(0, 1))(*both),
            jax.grad(size, argnums=(0, 1))(*both), jax.jvp(size, both, both)[1])

  jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11),
      jax.jit(functools.partial(derivatives, ours))(),
      jax.jit(functools.partial(derivatives, plain))())
  assert "scatter" not in str(jax.make_jaxpr(functools.partial(derivatives, ours))())
