"""Operations of our own against the plain ones: values, derivatives, maps and what they become."""

import functools
import re
import sys
import warnings

import daily
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.test_util import check_grads

import dcnn
from dcnn.models import layers, primitives

ROWS, INPUTS, OUTPUTS, BATCH = 5, 3, 4, 2
NUMBERS = (((1,), (0,)), ((), ()))
pytestmark = pytest.mark.usefixtures("x64")


def random(*shape, dtype=jnp.float64):
  return jax.random.normal(jax.random.key(sum(shape)), shape, dtype)


def ours(rows, matrix):
  return primitives.dot_general(rows, matrix, NUMBERS)


def plain_exchange(filters, sent, parity=1):
  first, second = layers.unordered_pairs(len(sent))
  received = jnp.zeros(sent.shape, sent.dtype).at[first].add(filters * sent[second])
  return received.at[second].add(parity * filters * sent[first])


def plain_pair_products(one, other, parity=1):
  first, second = layers.unordered_pairs(len(one))
  return one[first] * other[second] + parity * one[second] * other[first]


parities = pytest.mark.parametrize("parity", [1, -1], ids=["even", "odd"])


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


@pytest.mark.parametrize("rows", [(0, INPUTS), (BATCH, 0, INPUTS)], ids=str)
def test_a_product_of_no_rows_has_a_gradient_of_zero(rows):
  """A configuration without pairs is trained on, too."""
  matrix = random(INPUTS, OUTPUTS)
  gradient = jax.jit(jax.grad(lambda matrix: jnp.sum(primitives.dot_general(
      jnp.zeros(rows), matrix, (((len(rows) - 1,), (0,)), ((), ()))) ** 2)))(matrix)
  np.testing.assert_array_equal(gradient, np.zeros_like(matrix))


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


@parities
@pytest.mark.parametrize("atoms", [1, 2, 5])
def test_exchange_and_pair_products(atoms, parity):
  filters, sent, other = random(atoms * (atoms - 1) // 2, 3), random(atoms, 3), random(atoms, 3) + 1
  np.testing.assert_allclose(
      jax.jit(primitives.exchange, static_argnums=2)(filters, sent, parity),
      plain_exchange(filters, sent, parity), atol=1e-14)
  np.testing.assert_allclose(
      jax.jit(primitives.pair_products, static_argnums=2)(sent, other, parity),
      plain_pair_products(sent, other, parity), atol=1e-14)


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


@pytest.mark.parametrize("parity", [0, 2, -2])
@pytest.mark.parametrize("function", [primitives.exchange, primitives.pair_products])
def test_other_parities_are_refused(function, parity):
  with pytest.raises(ValueError, match="a parity of 1 or -1, received"):
    function(random(3, 2), random(3, 2), parity)


@parities
@pytest.mark.parametrize("axes", [(0, 0), (None, 1), (2, None)], ids=str)
@pytest.mark.parametrize(("ours", "plain", "rows"), [
    (primitives.exchange, plain_exchange, (10, 5)),
    (primitives.pair_products, plain_pair_products, (5, 5))], ids=["exchange", "pair_products"])
def test_exchange_mapped_and_to_second_order(ours, plain, rows, axes, parity):
  ours, plain = (functools.partial(each, parity=parity) for each in (ours, plain))
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


def second_order(function, axis):
  """A function of one array, its gradient and the derivatives of that, mapped over an axis."""
  mapped = function if axis is None else jax.vmap(function, axis)
  gradient = jax.grad(lambda values: jnp.sum(mapped(values) ** 3))
  return jax.jit(lambda values: (
      mapped(values), gradient(values),
      jax.grad(lambda values: jnp.sum(gradient(values) ** 2))(values),
      jax.jvp(gradient, (values,), (values,))[1]))


# What a linear operation computes, said without it, of an array (3, 4, 2).
MATRIX = np.asarray(random(5, 3, dtype=jnp.float32), float) * (np.arange(3) != 1)
LINEAR = {
    "combine": (lambda form, values: form.combine(values, matrix=tuple(map(tuple, MATRIX))),
                lambda values: jnp.einsum("oi,iaf->oaf", MATRIX, values)),
    "one output": (lambda form, values: form.combine(values, matrix=(tuple(MATRIX[0]),)),
                   lambda values: jnp.einsum("i,iaf->af", MATRIX[0], values)[None]),
    "one input": (lambda form, values: form.combine(values[:1], matrix=((2.0,), (0.0,), (-1.0,))),
                  lambda values: jnp.stack([2 * values[0], 0 * values[0], -values[0]])),
    "join": (lambda form, values: form.join(values, 2 * values[:1], values),
             lambda values: jnp.concatenate([values, 2 * values[:1], values])),
    "repeat": (lambda form, values: form.repeat(values, number=3),
               lambda values: jnp.stack([values] * 3, axis=-2)),
    "entries_first": (lambda form, values: form.entries_first(values),
                      lambda values: values.transpose(1, 0, 2)),
    "entries_last": (lambda form, values: form.entries_last(values),
                     lambda values: values.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("axis", daily.only((None, 0), (None, 0, 1, 2, 3)))
@pytest.mark.parametrize("name", LINEAR)
def test_linear_operations_are_what_they_say(name, axis):
  """As primitives, mapped over any axis, and in their plain forms, with second derivatives."""
  function, said = LINEAR[name]
  values = random(3, 4, 2) if axis is None else jnp.moveaxis(random(BATCH, 3, 4, 2), 0, axis)
  expected = second_order(said, axis)(values)
  forms = primitives.operations(), *([primitives.PLAIN] if axis is None else [])
  for form in forms:
    found = second_order(functools.partial(function, form), axis)(values)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-12),
                 found, expected)


def test_a_join_is_differentiated_for_some_of_its_parts():
  values = random(3, 4, 2)
  gradient = jax.grad(lambda part: jnp.sum(primitives.join(values, part)[2:4] ** 2))(values)
  np.testing.assert_allclose(gradient, 2 * values * (np.arange(3) < 1)[:, None, None])


def test_a_join_takes_the_wider_type():
  joined = primitives.join(random(1, 2, dtype=jnp.float32), random(1, 2))
  assert (joined.dtype, joined.shape) == (jnp.float64, (2, 2))


def test_a_batch_stays_behind_the_entries():
  """From `entries_first` to `entries_last`, in both derivatives, nothing is copied in between."""
  matrix = random(INPUTS, OUTPUTS)

  def energy(values):
    entries = primitives.entries_first(values)
    joined = primitives.join(entries, primitives.combine(np.ones((1, 4)), entries))
    product = joined * primitives.dot_general(joined, matrix @ matrix.T, (((2,), (0,)), ((), ())))
    return jnp.sum(primitives.entries_last(product) ** 2)

  def size(values):
    return jnp.sum(jax.vmap(jax.grad(energy))(values) ** 2)

  values = random(BATCH, 7, 4, INPUTS)
  text = str(jax.make_jaxpr(jax.grad(size))(values))
  assert f"f64[5,{BATCH},7,{INPUTS}]" in text
  assert f"f64[{BATCH},5,7,{INPUTS}]" not in text
  assert all(len(axes.split(",")) == 2 for axes in re.findall(r"permutation=\(([^)]*)", text))


@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize("atoms", [1, 2, 5])
def test_squares_hold_pairs_twice_and_fold_in_their_transposes(atoms, parity):
  """As a primitive and in its plain form, mapped or not, with derivatives to second order."""
  first, second = np.triu_indices(atoms, k=1)
  values = random(BATCH, len(first), 3)

  def derivatives(square):
    gradient = jax.grad(lambda values: jnp.sum(jax.vmap(square)(values) ** 3))
    return jax.jit(lambda values: (
        jax.vmap(square)(values), square(values[0]), gradient(values),
        jax.grad(lambda values: jnp.sum(gradient(values) ** 2))(values),
        jax.jvp(gradient, (values,), (values,))[1]))(values)

  def by_index(values):
    there = jnp.zeros((atoms, atoms, 3), values.dtype).at[first, second].set(values)
    return there.at[second, first].set(parity * values)

  expected = derivatives(by_index)
  for form in (primitives.operations(), primitives.PLAIN):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-12),
                 derivatives(functools.partial(form.square, parity=parity)), expected)


@pytest.mark.parametrize(
    "axes", daily.only([(0, None)], [(None, None), (0, None), (None, 0), (0, 0)]), ids=str)
@pytest.mark.parametrize("name, parameters", [
    ("product", {"precision": None}), *((name, {"parity": parity}) for parity in (1, -1)
                                        for name in ("exchange", "pair_products"))], ids=str)
def test_each_primitive_computes_its_plain_form(name, parameters, axes):
  """Values and derivatives to second order, in both modes: what a plain JAX falls back on."""
  shapes = {"product": ((4, 3), (3, 2)), "exchange": ((6, 3), (4, 3)),
            "pair_products": ((4, 3), (4, 3))}[name]
  operands = tuple(random(*shape) if axis is None else random(BATCH, *shape)
                   for shape, axis in zip(shapes, axes, strict=True))

  def derivatives(operations):
    function = functools.partial(getattr(operations, name), **parameters)
    mapped = function if axes == (None, None) else jax.vmap(function, axes)

    def size(*both):
      gradient = jax.grad(lambda *both: jnp.sum(mapped(*both) ** 3), argnums=(0, 1))(*both)
      return sum(jnp.sum(each**2) for each in gradient)

    return jax.jit(lambda *both: (
        mapped(*both), jax.grad(size, argnums=(0, 1))(*both), jax.jvp(size, both, both)))(*operands)

  assert primitives.operations() is not primitives.PLAIN
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11),
               derivatives(primitives.operations()), derivatives(primitives.PLAIN))


def without(module, name):
  """A JAX that has lost a name."""
  def change(patch):
    patch.delattr(module, name)
  return change


def with_other_rules(module, name):
  """A JAX whose registering goes through and whose rules are then called otherwise."""
  def change(patch):
    register = getattr(module, name)

    def otherwise(*arguments, **named):
      return register(*(
          (lambda: None) if callable(each) and not isinstance(each, Primitive) else each
          for each in arguments), **named)

    patch.setattr(module, name, otherwise)
  return change


class Deaf(dict):
  """Takes rules and forgets them."""

  def __setitem__(self, key, value):
    del key, value


OTHER_JAX = {
    "no module of primitives": without(jax.extend, "core"),
    "no Primitive": without(jax.extend.core, "Primitive"),
    "no ShapedArray": without(jax.core, "ShapedArray"),
    "no batchers": without(batching, "primitive_batchers"),
    "no defbilinear": without(ad, "defbilinear"),
    "no lower_fun": without(mlir, "lower_fun"),
    "no register_lowering": without(mlir, "register_lowering"),
    "other transposes": with_other_rules(ad, "defbilinear"),
    "other lowering": with_other_rules(mlir, "lower_fun"),
    "batchers kept elsewhere": lambda patch: patch.setattr(
        batching, "primitive_batchers", Deaf()),
}


@pytest.fixture
def undecided():
  """What this JAX takes is found out anew, before the test and after it."""
  primitives._operations.cache_clear()
  yield
  primitives._operations.cache_clear()


def trained(config):
  with jax.enable_x64(False):
    return [(row.arm, row.seed, row.metric, row.value) for row in dcnn.sweep(config).rows]


@functools.cache
def trained_plainly():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(primitives, "operations", lambda: primitives.PLAIN)
    return trained(tiny.config(seeds=1))


@pytest.mark.parametrize("name", OTHER_JAX)
def test_another_jax_makes_dcnn_slower_and_not_dead(name, monkeypatch, undecided):
  if name == "no module of primitives":
    monkeypatch.setitem(sys.modules, "jax.extend.core", None)
  OTHER_JAX[name](monkeypatch)
  with pytest.warns(UserWarning, match=f"slower with this JAX.*{primitives.KNOWN_GOOD}") as told:
    for _ in range(2):
      assert primitives.operations() is primitives.PLAIN
  assert len(told) == 1


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["no Primitive", "other transposes"])
def test_training_on_another_jax_is_that_of_plain_jax(name, monkeypatch, undecided):
  OTHER_JAX[name](monkeypatch)
  with pytest.warns(UserWarning, match="slower with this JAX"):
    assert trained(tiny.config(seeds=1)) == trained_plainly()


@pytest.mark.nightly
def test_not_mapped_is_not_needed(monkeypatch, undecided):
  """JAX 0.11 took `batching.not_mapped` away; it was None all along."""
  monkeypatch.delattr(batching, "not_mapped", raising=False)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert primitives.operations() is not primitives.PLAIN
  for one, other in zip(trained(tiny.config(seeds=1)), trained_plainly(), strict=True):
    assert one[:-1] == other[:-1]
    np.testing.assert_allclose(one[-1], other[-1], rtol=1e-4)
