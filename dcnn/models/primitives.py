"""Linear operations whose batches and transposes JAX would make slow, as primitives of their own.

A network is written for one configuration and mapped over a batch. What the mapping and the
differentiation make of a matrix product or of an indexed assignment is correct and slow on a CPU;
the two operations here say how it is done fast. They can be differentiated any number of times,
in both modes, and mapped like any other.
"""

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


def symmetric_square(
    values: Float[AnyArray, "*batch pairs features"], atoms: int
) -> Float[Array, "*batch atoms atoms features"]:
  """Values of unordered pairs as a symmetric array, zero on the diagonal.

  Its transpose adds up the two places of a pair; both directions only read by index, where
  indexed assignments would be loops over the pairs on a CPU.

  Args:
    values: of the pairs (i, j), i < j, in the order of `numpy.triu_indices`.
    atoms: their number.
  """
  return _square_p.bind(values, atoms=atoms)


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


def _square(values: AnyArray, *, atoms: int) -> Array:
  first, second = np.triu_indices(atoms, k=1)
  number = np.zeros((atoms, atoms), np.int32)
  number[first, second] = number[second, first] = np.arange(len(first))
  apart = ~np.eye(atoms, dtype=bool)[..., None]
  if not len(first):
    return jnp.zeros((*values.shape[:-2], atoms, atoms, values.shape[-1]), values.dtype)
  return jnp.where(apart, _at(values, number), 0)


def _folded(square: AnyArray, *, atoms: int) -> Array:
  first, second = np.triu_indices(atoms, k=1)
  rows = square.reshape(*square.shape[:-3], atoms * atoms, square.shape[-1])
  return _at(rows, first * atoms + second) + _at(rows, second * atoms + first)


def _at(values: AnyArray, index: np.ndarray) -> Array:
  return jnp.asarray(values).at[..., index, :].get(mode="promise_in_bounds")


def _leading_batch(primitive: Primitive) -> Callable:
  """Maps an operation of one operand that leaves leading axes alone."""
  def rule(operands, axes, **parameters):
    (operand,), (axis,) = operands, axes
    return primitive.bind(jnp.moveaxis(operand, axis, 0), **parameters), 0
  return rule


def _primitive(name: str, function: Callable, shape: Callable[..., tuple[int, ...]]) -> Primitive:
  """A primitive that is computed by a function of arrays and static parameters.

  Args:
    name: of the primitive.
    function: (operands, parameters) -> result.
    shape: of the result, from the same arguments; the dtype is that of the first operand.
  """
  primitive = Primitive(name)

  def compute(*operands, **parameters):
    return jax.jit(lambda *arrays: function(*arrays, **parameters))(*operands)

  primitive.def_impl(compute)
  primitive.def_abstract_eval(lambda *operands, **parameters: ShapedArray(
      shape(*operands, **parameters), operands[0].dtype))
  mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
  return primitive


_product_p = _primitive(
    "rows_times_matrix", _plain_product,
    lambda rows, matrix, *, precision: (rows.shape[0], matrix.shape[1]))
ad.defbilinear(
    _product_p,
    lambda cotangent, rows, matrix, *, precision: _product(cotangent, matrix.T, precision),
    lambda cotangent, rows, matrix, *, precision: _product(rows.T, cotangent, precision))
batching.primitive_batchers[_product_p] = _batched_product

_square_p = _primitive(
    "symmetric_square", _square,
    lambda values, *, atoms: (*values.shape[:-2], atoms, atoms, values.shape[-1]))
_fold_p = _primitive(
    "fold_square", _folded,
    lambda square, *, atoms: (*square.shape[:-3], atoms * (atoms - 1) // 2, square.shape[-1]))
ad.deflinear2(_square_p, lambda cotangent, _, *, atoms: [_fold_p.bind(cotangent, atoms=atoms)])
ad.deflinear2(_fold_p, lambda cotangent, _, *, atoms: [_square_p.bind(cotangent, atoms=atoms)])
batching.primitive_batchers[_square_p] = _leading_batch(_square_p)
batching.primitive_batchers[_fold_p] = _leading_batch(_fold_p)
