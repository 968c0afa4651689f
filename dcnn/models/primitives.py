"""Products and sums whose batches and transposes JAX would make slow, as primitives of their own.

A network is written for one configuration and mapped over a batch. What the mapping and the
differentiation make of a matrix product or of a sum over pairs is correct and slow on a CPU; the
operations here say how it is done fast. They can be differentiated any number of times,
in both modes, and mapped like any other.

This needs inner interfaces of JAX, which change between its versions, and is the one module that
uses them. Each operation has a plain form, in public JAX, which is what it computes; where the
inner interfaces fail, the plain form takes its place: slower, and the same to rounding.
"""

import concurrent.futures
import functools
import math
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int

KNOWN_GOOD = "0.12.0.1"  # the newest JAX whose inner interfaces are known to be as used here
AnyArray = Array | np.ndarray
_ROWS_TIMES_MATRIX = (((1,), (0,)), ((), ()))


def dot_general(
    lhs: AnyArray, rhs: AnyArray, dimension_numbers: Any = _ROWS_TIMES_MATRIX,
    precision: Any = None, **kwargs: Any,
) -> Array:
  """As `lax.dot_general`; rows times a matrix stay rows when the rows alone are mapped.

  A batch of rows times one matrix is one product of all rows of the batch, which stays the axis
  that it was. In the gradient of the matrix the batch is then part of the one summed axis; left to
  itself JAX sums over two axes, for which XLA copies both factors into another order.

  Args:
    lhs: The rows (*rows, inputs), or any other array that `lax.dot_general` takes.
    rhs: The matrix (inputs, outputs), or any other array that `lax.dot_general` takes.
    dimension_numbers: Which axes are summed over and which are batches, as `lax.dot_general` takes
      them; by default rows (rows, inputs) times a matrix.
    precision: The precision of the product; None is the one that JAX is set to.
    kwargs: Further arguments of `lax.dot_general`.
  """
  is_rows_times_matrix = (
      lhs.ndim > 1 and rhs.ndim == 2 and dimension_numbers == (((lhs.ndim - 1,), (0,)), ((), ())))
  if not is_rows_times_matrix or lhs.dtype != rhs.dtype:
    return lax.dot_general(lhs, rhs, dimension_numbers, precision=precision, **kwargs)
  settings: Any = jax.config
  return operations().product(
      lhs, rhs, precision=precision or settings.jax_default_matmul_precision)


def exchange(
    filters: Float[AnyArray, "*batch pairs features"],
    sent: Float[AnyArray, "*batch atoms features"],
    parity: int = 1,
) -> Float[Array, "*batch atoms features"]:
  """What each atom receives from all others: received[i] = sum over j of filters[ij] sent[j].

  A pair's filter serves both directions: filters[ji] = parity filters[ij]. Linear in both
  arguments. Its transposes are parity times itself and `pair_products` of the same parity; so are
  theirs, and every derivative is made of these two.

  Args:
    filters: One filter for each pair (i, j), i < j, in the order of `numpy.triu_indices`.
    sent: What each atom sends.
    parity: 1 or -1.

  Raises:
    ValueError: If there is not one filter for each pair, the features differ, or the parity is
      another number.
  """
  _check_parity(parity)
  *batch, atoms, features = sent.shape
  if filters.shape != (*batch, math.comb(atoms, 2), features):
    raise ValueError(f"expected filters of shape {(*batch, math.comb(atoms, 2), features)} for "
                     f"what {atoms} atoms send, received {filters.shape}")
  return operations().exchange(*_promote_types(filters, sent), parity=parity)


def pair_products(
    one: Float[AnyArray, "*batch atoms features"],
    other: Float[AnyArray, "*other"],
    parity: int = 1,
) -> Float[Array, "*batch pairs features"]:
  """one[i] other[j] + parity one[j] other[i] of each pair (i, j), i < j, as for `exchange`.

  Raises:
    ValueError: If the shapes differ, or the parity is neither 1 nor -1.
  """
  _check_parity(parity)
  if one.shape != other.shape:
    raise ValueError(f"expected arrays of one shape, received {one.shape} and {other.shape}")
  return operations().pair_products(*_promote_types(one, other), parity=parity)


def square(
    values: Float[AnyArray, "*batch pairs features"], parity: int = 1
) -> Float[Array, "*batch atoms atoms features"]:
  """Values of pairs (i, j), i < j, at [i, j] and, times the parity, at [j, i]; 0 at [i, i].

  Its transpose adds the two up, without a loop over pairs.

  Args:
    values: One row for each pair, in the order of `numpy.triu_indices`.
    parity: 1 or -1.
  """
  _check_parity(parity)
  return operations().square(jnp.asarray(values), parity=parity)


def repeat(
    features: Float[AnyArray, "*rows features"], number: int
) -> Float[Array, "*rows number features"]:
  """Each row of features, several times; its transpose is a sum that XLA vectorises."""
  return operations().repeat(jnp.asarray(features), number=number)


def combine(
    matrix: Float[np.ndarray, "outputs inputs"], values: Float[AnyArray, "inputs *rest"]
) -> Float[Array, "outputs *rest"]:
  """Linear combinations of entries of the first axis, with constant coefficients: matrix @ values.

  Where it is mapped the batch stays behind the first axis, so that functions with many entries are
  not copied into another order. `join` keeps it there, and so do elementwise operations of arrays
  of one shape that all have it there, and `dot_general` with a matrix that is not mapped.

  A matrix of ones with one column repeats an entry, and one with one row adds entries up: these
  are written out, because XLA does not vectorise sums that are not along memory. Others are
  products of matrices, because XLA would compute what the values are made of once for each output.

  Args:
    matrix: The coefficients of each output.
    values: What is combined.
  """
  return operations().combine(
      jnp.asarray(values), matrix=tuple(map(tuple, np.asarray(matrix, float).tolist())))


def join(*parts: Float[AnyArray, "_ *rest"]) -> Float[Array, "entries *rest"]:
  """Arrays one after another along the first axis; a batch stays behind it, as in `combine`."""
  dtype = jnp.result_type(*parts)
  return operations().join(*(jnp.asarray(part).astype(dtype) for part in parts))


def entries_first(
    values: Float[AnyArray, "*rest entries features"]
) -> Float[Array, "entries *rest features"]:
  """The order of axes that `combine` takes, with a batch behind the first of them."""
  return operations().entries_first(jnp.asarray(values))


def entries_last(
    values: Float[AnyArray, "entries *rest features"]
) -> Float[Array, "*rest entries features"]:
  """The inverse and the transpose of `entries_first`."""
  return operations().entries_last(jnp.asarray(values))


def _check_parity(parity: int) -> None:
  if parity not in (1, -1):
    raise ValueError(f"expected a parity of 1 or -1, received {parity}")


def _promote_types(one: AnyArray, other: AnyArray) -> tuple[Array, Array]:
  """Derivatives come back in the type of each: the conversion transposes itself."""
  dtype = jnp.promote_types(one.dtype, other.dtype)
  return jnp.asarray(one).astype(dtype), jnp.asarray(other).astype(dtype)


def _product(rows: AnyArray, matrix: AnyArray, *, precision: Any) -> Array:
  product = lax.dot_general(
      _as_rows(rows), matrix, _ROWS_TIMES_MATRIX, precision=precision)
  return product.reshape(*rows.shape[:-1], matrix.shape[1])


def _as_rows(array: AnyArray) -> Array:
  *rows, features = array.shape  # of which there may be none: -1 would not say how many
  return jnp.asarray(array).reshape(math.prod(rows), features)


def _exchange(filters: AnyArray, sent: AnyArray, *, parity: int) -> Array:
  """By a square array that filters are read into: adding them up by index is a loop over pairs.

  The sum over senders is written out, because XLA does not vectorise a sum that is not along
  memory: it takes a sixth of the time.
  """
  square = _square(filters, sent.shape[-2], parity)
  return functools.reduce(jnp.add, (
      square[..., sender, :] * sent[..., sender, None, :] for sender in range(sent.shape[-2])))


def _square(values: AnyArray, atoms: int, parity: int) -> Array:
  """Values of pairs as an array (*batch atoms atoms features), zero on the diagonal.

  It is symmetric for a parity of 1, and antisymmetric for one of -1.
  """
  first, second = np.triu_indices(atoms, k=1)
  if not len(first):
    return jnp.zeros((*values.shape[:-2], atoms, atoms, values.shape[-1]), values.dtype)
  number = np.zeros((atoms, atoms), np.int32)
  number[first, second] = number[second, first] = np.arange(len(first))
  apart = ~np.eye(atoms, dtype=bool)[..., None]
  square = _gather(values, number)
  if parity == 1:
    return jnp.where(apart, square, 0)
  sign = np.sign(np.arange(atoms) - np.arange(atoms)[:, None])[..., None]
  return square * sign.astype(values.dtype)


def _pair_products(one: AnyArray, other: AnyArray, *, parity: int) -> Array:
  first, second = np.triu_indices(one.shape[-2], k=1)
  there = _gather(one, first) * _gather(other, second)
  back = _gather(one, second) * _gather(other, first)
  return there + back if parity == 1 else there - back


def _signed(values: Array, parity: int) -> Array:
  return values if parity == 1 else -values


def _gather(values: AnyArray, index: Int[np.ndarray, "*entries"]) -> Array:
  return jnp.asarray(values).at[..., index, :].get(mode="promise_in_bounds")


def _atoms_of(pairs: int) -> int:
  """The number of atoms that have so many pairs; of no pairs there is one atom."""
  return (1 + math.isqrt(1 + 8 * pairs)) // 2


def _squared(values: AnyArray, *, parity: int) -> Array:
  return _square(values, _atoms_of(values.shape[-2]), parity)


def _fold(values: AnyArray, *, parity: int) -> Array:
  """values[i, j] + parity values[j, i] of each pair (i, j), i < j."""
  *batch, atoms, _, features = values.shape
  first, second = np.triu_indices(atoms, k=1)
  rows = values.reshape(*batch, atoms * atoms, features)
  there, back = _gather(rows, first * atoms + second), _gather(rows, second * atoms + first)
  return there + back if parity == 1 else there - back


def _repeat(features: AnyArray, *, number: int) -> Array:
  *rows, size = features.shape
  return jnp.broadcast_to(features[..., None, :], (*rows, number, size))


def _added(values: AnyArray, *, number: int) -> Array:
  rows = jnp.asarray(values)
  return functools.reduce(jnp.add, (rows[..., each, :] for each in range(number)))


def _combine(values: AnyArray, *, matrix: Sequence[Sequence[float]]) -> Array:
  table = np.asarray(matrix, values.dtype)
  if min(table.shape) > 1:
    # Positions are combined so: with fewer bits, the default on a GPU, distances would be wrong.
    rest = math.prod(values.shape[1:])
    combined = lax.dot(table, values.reshape(len(values), rest), precision=lax.Precision.HIGHEST)
    return combined.reshape(len(table), *values.shape[1:])
  columns = table.T.reshape(*table.T.shape, *[1] * (values.ndim - 1))
  return functools.reduce(jnp.add, (
      column * values[entry] for entry, column in enumerate(columns)))


def _join(*parts: AnyArray) -> Array:
  return jnp.concatenate(parts)


def _entries_first(values: AnyArray) -> Array:
  return jnp.moveaxis(values, -2, 0)


def _entries_last(values: AnyArray) -> Array:
  return jnp.moveaxis(values, 0, -2)


class Operations(NamedTuple):
  """Functions of arrays and of `precision`, `parity`, `number` or `matrix`, as above."""

  product: Callable[..., Array]
  exchange: Callable[..., Array]
  pair_products: Callable[..., Array]
  square: Callable[..., Array]
  repeat: Callable[..., Array]
  combine: Callable[..., Array]
  join: Callable[..., Array]
  entries_first: Callable[..., Array]
  entries_last: Callable[..., Array]


PLAIN = Operations(_product, _exchange, _pair_products, _squared, _repeat, _combine, _join,
                   _entries_first, _entries_last)
_deciding = threading.Lock()  # programs are traced in several threads


def operations() -> Operations:
  """The primitives, or the plain operations where this JAX does not take the primitives.

  Found out at the first call. Warns, once, of the plain ones.
  """
  with _deciding:
    return _operations()


@functools.cache
def _operations() -> Operations:
  try:
    # In a thread of its own: the caller may be in the middle of a trace, a mesh or a precision.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
      return thread.submit(_try_primitives).result()
  except Exception as error:  # whatever a JAX that is not known yet raises
    reason = (str(error).splitlines() or [""])[0][:200]
    warnings.warn(
        f"dcnn is slower with this JAX, {jax.__version__}, whose inner interfaces are not those "
        f"of {KNOWN_GOOD} ({type(error).__name__}: {reason}). Results are the same to rounding; "
        f"`pip install 'jax=={KNOWN_GOOD}'` makes it fast again", stacklevel=4)
    return PLAIN


def _try_primitives() -> Operations:
  """The primitives, after each of their rules has been used: one may fail in its own lines.

  Derivatives of higher order use the same rules again. Nothing is compiled, so that this takes a
  tenth of a second.

  Raises:
    Exception: Of any kind, if one fails.
  """
  tried = _primitives()
  one = jax.ShapeDtypeStruct((3, 3), np.float32)
  many = jax.ShapeDtypeStruct((2, 3, 3), np.float32)
  functions = (functools.partial(tried.product, precision=None),
               *(functools.partial(operation, parity=parity) for parity in (1, -1)
                 for operation in (tried.exchange, tried.pair_products)))
  linear = (functools.partial(tried.combine, matrix=((1.0, 2.0, 3.0),)),
            functools.partial(tried.repeat, number=2), lambda array: tried.join(array, array),
            tried.entries_first, tried.entries_last,
            *(functools.partial(tried.square, parity=parity) for parity in (1, -1)))
  for function in linear:
    jax.eval_shape(jax.vmap(jax.grad(lambda array, each=function: jnp.sum(each(array)))), many)
  for function in functions:
    for axes, operands in (((0, 0), (many, many)), ((0, None), (many, one)),
                           ((None, 0), (one, many))):
      mapped = jax.vmap(function, axes)
      jax.eval_shape(
          jax.grad(lambda *each, mapped=mapped: jnp.sum(mapped(*each)), argnums=(0, 1)), *operands)
  jax.jit(lambda array: (
      [function(array) for function in linear],
      [function(array, array) for function in functions])).lower(one)
  return tried


def _primitives() -> Operations:
  """Primitives with the rules of their derivatives and maps, made anew.

  The rules call one another and not the functions above, which wait for what is decided here.

  Raises:
    Exception: Of any kind, where this JAX lacks what they are made of.
  """
  return Operations(_make_product(), *_make_pairs(), *_make_entries())


def _make_product() -> Callable[..., Array]:
  """The field `product` of `Operations`."""
  from jax.interpreters import ad, batching

  product = _primitive(
      "rows_times_matrix", _product,
      lambda rows, matrix, *, precision: (*rows.shape[:-1], matrix.shape[1]), ("precision",))
  ad.defbilinear(
      product,
      lambda cotangent, rows, matrix, **kwargs: product.bind(cotangent, matrix.T, **kwargs),
      lambda cotangent, rows, matrix, **kwargs: product.bind(
          _as_rows(rows).T, _as_rows(cotangent), **kwargs))
  batching.primitive_batchers[product] = functools.partial(_batched_product, product)
  return product.bind


def _make_pairs() -> Sequence[Callable[..., Array]]:
  """The fields `exchange`, `pair_products`, `square` and `repeat` of `Operations`."""
  from jax.interpreters import ad, batching

  exchange = _primitive(
      "exchange", _exchange, lambda filters, sent, *, parity: sent.shape, ("parity",))
  pair_products = _primitive(
      "pair_products", _pair_products,
      lambda one, other, *, parity: (
          *one.shape[:-2], math.comb(one.shape[-2], 2), one.shape[-1]), ("parity",))
  square = _primitive(
      "square", _squared,
      lambda values, *, parity: (
          *values.shape[:-2], *[_atoms_of(values.shape[-2])] * 2, values.shape[-1]), ("parity",))
  fold = _primitive(
      "fold", _fold,
      lambda values, *, parity: (
          *values.shape[:-3], math.comb(values.shape[-2], 2), values.shape[-1]), ("parity",))
  repeat = _primitive(
      "repeat", _repeat,
      lambda features, *, number: (*features.shape[:-1], number, features.shape[-1]), ("number",))
  added = _primitive(
      "added", _added,
      lambda values, *, number: (*values.shape[:-2], values.shape[-1]), ("number",))
  _transpose_each_other(square, fold)
  _transpose_each_other(repeat, added)
  ad.defbilinear(
      exchange,
      lambda cotangent, filters, sent, *, parity: pair_products.bind(
          cotangent, sent, parity=parity),
      lambda cotangent, filters, sent, *, parity: _signed(
          exchange.bind(filters, cotangent, parity=parity), parity))
  ad.defbilinear(
      pair_products,
      lambda cotangent, one, other, *, parity: exchange.bind(cotangent, other, parity=parity),
      lambda cotangent, one, other, *, parity: _signed(
          exchange.bind(cotangent, one, parity=parity), parity))
  for primitive in (exchange, pair_products, square, fold, repeat, added):
    batching.primitive_batchers[primitive] = functools.partial(_leading_batch, primitive)
  return exchange.bind, pair_products.bind, square.bind, repeat.bind


def _make_entries() -> Sequence[Callable[..., Array]]:
  """The fields `combine`, `join`, `entries_first` and `entries_last` of `Operations`."""
  from jax.interpreters import ad, batching

  combine = _primitive(
      "combine", _combine,
      lambda values, *, matrix: (len(matrix), *values.shape[1:]), ("matrix",))
  join = _primitive(
      "join", _join,
      lambda *parts: (sum(part.shape[0] for part in parts), *parts[0].shape[1:]))
  first = _primitive(
      "entries_first", _entries_first,
      lambda values: (values.shape[-2], *values.shape[:-2], values.shape[-1]))
  last = _primitive(
      "entries_last", _entries_last,
      lambda values: (*values.shape[1:-1], values.shape[0], values.shape[-1]))

  def parts_of(cotangent: Array, *parts: Any) -> list[Array | None]:
    """The cotangent's entries of each part; None of one that is not differentiated."""
    sizes = [(part.aval if ad.is_undefined_primal(part) else part).shape[0] for part in parts]
    return [
        lax.slice_in_dim(cotangent, end - size, end) if ad.is_undefined_primal(part) else None
        for part, size, end in zip(parts, sizes, map(int, np.cumsum(sizes)), strict=True)]

  _transpose_each_other(first, last)
  ad.deflinear2(join, parts_of)
  ad.deflinear2(
      combine, lambda cotangent, values, *, matrix: [
          combine.bind(cotangent, matrix=tuple(zip(*matrix, strict=True)))])
  for primitive, mapped in ((combine, _batch_behind_entries), (join, _batch_behind_entries),
                            (first, _batched_first), (last, _batched_last)):
    batching.primitive_batchers[primitive] = functools.partial(mapped, primitive)
  return combine.bind, join.bind, first.bind, last.bind


def _transpose_each_other(one: Any, other: Any) -> None:
  """Makes two linear primitives of the same parameters each other's transposes."""
  from jax.interpreters import ad

  for primitive, transpose in ((one, other), (other, one)):
    ad.deflinear2(primitive, lambda cotangent, values, *, transpose=transpose, **parameters: [
        transpose.bind(cotangent, **parameters)])


def _primitive(
    name: str, function: Callable, shape: Callable[..., tuple[int, ...]],
    static: Sequence[str] = (),
) -> Any:
  """A primitive that is computed by a function of arrays and static parameters.

  Args:
    name: The name of the primitive.
    function: Computes the result from the operands and, by keyword, the parameters.
    shape: Gives the shape of the result from the same arguments; the dtype is that of the first
      operand.
    static: Names of the parameters.
  """
  from jax.core import ShapedArray
  from jax.extend.core import Primitive
  from jax.interpreters import mlir

  primitive = Primitive(name)
  primitive.def_impl(jax.jit(function, static_argnames=static))
  primitive.def_abstract_eval(lambda *operands, **parameters: ShapedArray(
      shape(*operands, **parameters), operands[0].dtype))
  mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
  return primitive


def _batched_product(
    primitive: Any, operands: Sequence[AnyArray], axes: Sequence[int | None], *, precision: Any,
) -> tuple[Array, int]:
  """Rows of a batch times one matrix as one product; an axis of None is not mapped."""
  rows, matrix = operands
  axis, other = axes
  if axis is not None and other is None:
    rows, axis = (jnp.moveaxis(rows, axis, 0), 0) if axis == rows.ndim - 1 else (rows, axis)
    return primitive.bind(rows, matrix, precision=precision), axis
  plain = functools.partial(_product, precision=precision)
  return jax.vmap(plain, tuple(axes))(rows, matrix), 0


def _leading_batch(
    primitive: Any, operands: Sequence[AnyArray], axes: Sequence[int | None], **parameters: Any
) -> tuple[Array, int]:
  """Maps an operation that leaves leading axes alone, if all its operands have them."""
  size = next(operand.shape[axis] for operand, axis in zip(operands, axes, strict=True)
              if axis is not None)
  return primitive.bind(*(
      jnp.broadcast_to(operand, (size, *operand.shape)) if axis is None
      else jnp.moveaxis(operand, axis, 0)
      for operand, axis in zip(operands, axes, strict=True)), **parameters), 0


def _batch_behind_entries(
    primitive: Any, operands: Sequence[AnyArray], axes: Sequence[int | None], **parameters: Any
) -> tuple[Array, int]:
  """Maps an operation on the first axis, which leaves all others where they are."""
  axis = axes[0]
  if axis and all(each == axis for each in axes):
    return primitive.bind(*operands, **parameters), axis
  size = next(operand.shape[axis] for operand, axis in zip(operands, axes, strict=True)
              if axis is not None)
  return primitive.bind(*(
      jnp.broadcast_to(operand[:, None], (len(operand), size, *operand.shape[1:]))
      if axis is None else jnp.moveaxis(operand, axis, 1)
      for operand, axis in zip(operands, axes, strict=True)), **parameters), 1


def _batched_first(
    primitive: Any, operands: Sequence[AnyArray], axes: Sequence[int]
) -> tuple[Array, int]:
  """Maps `entries_first`: what stood before the entries stands one place later."""
  (values,), (axis,) = operands, axes
  if axis >= values.ndim - 2:
    values, axis = jnp.moveaxis(values, axis, 0), 0
  return primitive.bind(values), axis + 1


def _batched_last(
    primitive: Any, operands: Sequence[AnyArray], axes: Sequence[int]
) -> tuple[Array, int]:
  """Maps `entries_last`: what stood between entries and features stands one place earlier."""
  (values,), (axis,) = operands, axes
  if axis in (0, values.ndim - 1):
    values, axis = jnp.moveaxis(values, axis, 1), 1
  return primitive.bind(values), axis - 1
