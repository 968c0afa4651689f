"""Functions of a distance and of an angle that networks with three-body terms share.

Spherical Bessel functions have no weights and depend on one number, so they are tabulated once, as
series of Chebyshev polynomials. Their closed forms, and their recurrences upwards, lose all digits
near 0: that of order 6 has an error of a hundredth at a sixth of the cutoff in float32.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy import optimize, special

TABLE_ERROR = 1e-12  # of the largest coefficient; a table in float32 is rounded anyway


@functools.lru_cache
def bessel_roots(orders: int, number: int) -> Float[np.ndarray, "orders number"]:
  """The first positive roots of the spherical Bessel functions j_0, j_1, ...

  Those of j_0 = sin(x) / x are multiples of pi; between two neighbouring roots of one order lies
  one of the next.

  Args:
    orders: Number of functions.
    number: Number of roots of each.

  Returns:
    The roots, ascending along the last axis.

  >>> print(bessel_roots(2, 2).round(4))
  [[3.1416 6.2832]
   [4.4934 7.7253]]
  """
  roots = [np.pi * np.arange(1, number + orders)]
  for order in range(1, orders):
    function = functools.partial(special.spherical_jn, order)
    roots.append(np.array([
        optimize.brentq(function, *ends, xtol=1e-14, rtol=1e-15)
        for ends in zip(roots[-1][:-1], roots[-1][1:], strict=True)]))
  return np.stack([row[:number] for row in roots])


@functools.lru_cache
def bessel_table(orders: int, number: int) -> Float[np.ndarray, "terms orders number"]:
  """Normalised spherical Bessel functions on the unit interval, as series in `chebyshev`.

  They are N_ln j_l(z_ln x), with z_ln the n-th root of j_l and N_ln = sqrt(2) / |j_{l+1}(z_ln)|,
  which makes them orthonormal on the unit ball.

  Args:
    orders: Number of orders l, from 0.
    number: Number of roots n of each, from 1.

  Returns:
    Coefficients; as many terms as keep the error below `TABLE_ERROR`, 39 for 7 orders of 6.

  References:
    J. Gasteiger, J. Gross and S. Guennemann, Directional message passing for molecular graphs,
    arXiv:2003.03123, Eq. 6.
  """
  roots, order = bessel_roots(orders, number), np.arange(orders)[:, None]
  norms = np.sqrt(2.0) / np.abs(special.spherical_jn(order + 1, roots))
  points = 64 + int(roots.max())  # the series of cos(z x) ends soon after z / 2 terms
  nodes = np.cos(np.pi * (np.arange(points) + 0.5) / points)
  values = norms * special.spherical_jn(order, roots * 0.5 * (nodes + 1.0)[:, None, None])
  table = np.tensordot(np.linalg.inv(np.polynomial.chebyshev.chebvander(nodes, points - 1)), values,
                       axes=1)
  large = np.flatnonzero(np.abs(table).max(axis=(1, 2)) > TABLE_ERROR * np.abs(table).max())
  return table[:large[-1] + 1]


def chebyshev(x: Float[Array, " rows"], terms: int) -> Float[Array, "rows terms"]:
  """Chebyshev polynomials T_k(2 x - 1), k = 0 ... terms - 1, of numbers from 0 to 1.

  The number of polynomials is doubled again and again, T_{m+k} = 2 T_m T_k - T_{m-k}, which makes
  few operations of many entries.

  >>> print(chebyshev(jnp.array([0.0, 1.0]), 4))
  [[ 1. -1.  1. -1.]
   [ 1.  1.  1.  1.]]
  """
  t = (2.0 * x - 1.0)[:, None]
  polynomials = jnp.concatenate([jnp.ones_like(t), t], axis=-1)
  while (last := polynomials.shape[1] - 1) < terms - 1:
    more = 2.0 * polynomials[:, -1:] * polynomials[:, 1:] - polynomials[:, last - 1::-1]
    polynomials = jnp.concatenate([polynomials, more], axis=-1)
  return polynomials[:, :terms]


def zonal_harmonics(cosines: Float[Array, "*shape"], orders: int) -> list[Float[Array, "*shape"]]:
  """Spherical harmonics of order m = 0: sqrt((2 l + 1) / 4 pi) P_l(cosine), l = 0 ... orders - 1.

  Args:
    cosines: Cosines of angles.
    orders: Number of orders l.

  Returns:
    One array for each order, with P_l Legendre's polynomials.

  >>> [float(each.round(4)) for each in zonal_harmonics(jnp.array(1.0), 3)]
  [0.2821, 0.4886, 0.6308]
  """
  legendre = [jnp.ones_like(cosines), cosines]
  for order in range(1, orders - 1):
    legendre.append(
        ((2 * order + 1) * cosines * legendre[-1] - order * legendre[-2]) / (order + 1))
  return [float(np.sqrt((2 * order + 1) / (4.0 * np.pi))) * each
          for order, each in enumerate(legendre[:orders])]
