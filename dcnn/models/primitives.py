"""Products and sums whose batches and transposes JAX would make slow, as primitives of their own.

A network is written for one configuration and mapped over a batch. What the mapping and the
differentiation make of a matrix product or of a sum over pairs is correct and slow on a CPU; the
operations here say how it is done fast. They can be differentiated any number of times,
in both modes, and mapped like any other.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

AnyArray = Array | np.ndarray
_ROWS_TIMES_MATRIX = (((1,), (0,)), ((), ()))


def dot_general(
    lhs: AnyArray, rhs: AnyArray, dimension_numbers: Any, precision: Any = None, **kwargs: Any
) -> Array:
  """As `lax.dot_general`; rows times a matrix stay rows when the rows alone are mapped.

  A batch of rows times one matrix is one product of all rows of the batch. In the gradient of the
  matrix the batch is then part of the one summed axis; left to itself JAX sums over two axes, for
  which XLA copies both factors into another order.

  Args:
    lhs: (rows, inputs), or anything else that `lax.dot_general` takes.
    rhs: (inputs, outputs), likewise.
    dimension_numbers, precision, kwargs: of `lax.dot_general`.
  """
  is_rows_times_matrix = (lhs.ndim, rhs.ndim, dimension_numbers) == (2, 2, _ROWS_TIMES_MATRIX)
  if not is_rows_times_matrix or lhs.dtype != rhs.dtype:
    return lax.dot_general(lhs, rhs, dimension_numbers, precision=precision, **kwargs)
  settings: Any = jax.config
  return _product(lhs, rhs, precision or settings.jax_default_matmul_precision)


def exchange(
    filters: Float[AnyArray, "*batch pairs features"],
    sent: Float[AnyArray, "*batch atoms features"],
) -> Float[Array, "*batch atoms features"]:
  """What each atom receives from all others: received[i] = sum over j of filters[ij] sent[j].

  Linear in both arguments. Its transposes are itself, because a pair's filter serves both
  directions, and `pair_products`; so are theirs, and every derivative is made of these two.

  Args:
    filters: of the pairs (i, j), i < j, in the order of `numpy.triu_indices`.
    sent: by each atom.

  Raises:
    ValueError: if there is not one filter for each pair, or the features differ.
  """
  *batch, atoms, features = sent.shape
  if filters.shape != (*batch, math.comb(atoms, 2), features):
    raise ValueError(f"expected filters of shape {(*batch, math.comb(atoms, 2), features)} for "
                     f"what {atoms} atoms send, received {filters.shape}")
  return _exchange_p.bind(*_of_one_type(filters, sent))


def pair_products(
    one: Float[AnyArray, "*batch atoms features"], other: Float[AnyArray, "..."]
) -> Float[Array, "*batch pairs features"]:
  """one[i] other[j] + one[j] other[i] of each pair (i, j), i < j, as for `exchange`.

  Raises:
    ValueError: if the shapes differ.
  """
  if one.shape != other.shape:
    raise ValueError(f"expected arrays of one shape, received {one.shape} and {other.shape}")
  return _pair_products_p.bind(*_of_one_type(one, other))


def _of_one_type(one: AnyArray, other: AnyArray) -> tuple[Array, Array]:
  """Derivatives come back in the type of each: the conversion transposes itself."""
  dtype = jnp.promote_types(one.dtype, other.dtype)
  return jnp.asarray(one).astype(dtype), jnp.asarray(other).astype(dtype)


def _product(rows: AnyArray, matrix: AnyArray, precision: Any) -> Array:
  return _product_p.bind(rows, matrix, precision=precision)


def _plain_product(rows: AnyArray, matrix: AnyArray, *, precision: Any) -> Array:
  return lax.dot_general(rows, matrix, _ROWS_TIMES_MATRIX, precision=precision)


def _batched_product(
    operands: Sequence[AnyArray], axes: Sequence[Any], *, precision: Any) -> tuple[Array, int]:
  rows, matrix = operands
  if axes[1] is batching.not_mapped:
    rows = jnp.moveaxis(rows, axes[0], 0)
    product = _product(rows.reshape(-1, rows.shape[-1]), matrix, precision)
    return product.reshape(*rows.shape[:-1], matrix.shape[1]), 0

  def plain(rows, matrix):
    return _plain_product(rows, matrix, precision=precision)

  return jax.vmap(plain, tuple(axes))(rows, matrix), 0


def _exchange(filters: AnyArray, sent: AnyArray) -> Array:
  """By a square array that filters are read into: adding them up by index is a loop over pairs.

  The sum over senders is written out, because XLA does not vectorise a sum that is not along
  memory: it takes a sixth of the time.
  """
  square = _symmetric_square(filters, sent.shape[-2])
  return functools.reduce(jnp.add, (
      square[..., sender, :] * sent[..., sender, None, :] for sender in range(sent.shape[-2])))


def _symmetric_square(values: AnyArray, atoms: int) -> Array:
  """Values of pairs as a symmetric array (*batch atoms atoms features), zero on the diagonal."""
  first, second = np.triu_indices(atoms, k=1)
  if not len(first):
    return jnp.zeros((*values.shape[:-2], atoms, atoms, values.shape[-1]), values.dtype)
  number = np.zeros((atoms, atoms), np.int32)
  number[first, second] = number[second, first] = np.arange(len(first))
  apart = ~np.eye(atoms, dtype=bool)[..., None]
  return jnp.where(apart, _at(values, number), 0)


def _pair_products(one: AnyArray, other: AnyArray) -> Array:
  first, second = np.triu_indices(one.shape[-2], k=1)
  return _at(one, first) * _at(other, second) + _at(one, second) * _at(other, first)


def _at(values: AnyArray, index: np.ndarray) -> Array:
  return jnp.asarray(values).at[..., index, :].get(mode="promise_in_bounds")


def _leading_batch(primitive: Primitive) -> Callable:
  """Maps an operation that leaves leading axes alone, if all its operands have them."""
  def rule(operands, axes):
    size = next(operand.shape[axis] for operand, axis in zip(operands, axes, strict=True)
                if axis is not batching.not_mapped)
    return primitive.bind(*(
        jnp.broadcast_to(operand, (size, *operand.shape)) if axis is batching.not_mapped
        else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True))), 0
  return rule


def _primitive(
    name: str, function: Callable, shape: Callable[..., tuple[int, ...]],
    static: Sequence[str] = (),
) -> Primitive:
  """A primitive that is computed by a function of arrays and static parameters.

  Args:
    name: of the primitive.
    function: (operands, parameters) -> result.
    shape: of the result, from the same arguments; the dtype is that of the first operand.
    static: names of the parameters.
  """
  primitive = Primitive(name)
  primitive.def_impl(jax.jit(function, static_argnames=static))
  primitive.def_abstract_eval(lambda *operands, **parameters: ShapedArray(
      shape(*operands, **parameters), operands[0].dtype))
  mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
  return primitive


_product_p = _primitive(
    "rows_times_matrix", _plain_product,
    lambda rows, matrix, *, precision: (rows.shape[0], matrix.shape[1]), ("precision",))
ad.defbilinear(
    _product_p,
    lambda cotangent, rows, matrix, *, precision: _product(cotangent, matrix.T, precision),
    lambda cotangent, rows, matrix, *, precision: _product(rows.T, cotangent, precision))
batching.primitive_batchers[_product_p] = _batched_product

_exchange_p = _primitive("exchange", _exchange, lambda filters, sent: sent.shape)
_pair_products_p = _primitive(
    "pair_products", _pair_products,
    lambda one, other: (*one.shape[:-2], math.comb(one.shape[-2], 2), one.shape[-1]))
ad.defbilinear(
    _exchange_p,
    lambda cotangent, filters, sent: pair_products(cotangent, sent),
    lambda cotangent, filters, sent: exchange(filters, cotangent))
ad.defbilinear(
    _pair_products_p,
    lambda cotangent, one, other: exchange(cotangent, other),
    lambda cotangent, one, other: exchange(cotangent, one))
for _each in (_exchange_p, _pair_products_p):
  batching.primitive_batchers[_each] = _leading_batch(_each)
