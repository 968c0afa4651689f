"""Spherical Bessel functions, which networks with three-body terms read.

They have no weights and depend on one number, so they are tabulated once, as
series of cosines: one product of matrices. Their closed forms, and their recurrences upwards, lose
all digits near 0: that of order 6 has an error of a hundredth at a sixth of the cutoff in float32.
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy import optimize, special

PERIOD = 2.0  # half of the cosines' period: the functions are free on one half of that half
MORE_TERMS = 18  # than waves as short as the shortest of the functions: an error of 1e-12


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
        optimize.brentq(function, *ends, xtol=1e-14)
        for ends in zip(roots[-1][:-1], roots[-1][1:], strict=True)]))
  return np.stack([row[:number] for row in roots])


@functools.lru_cache
def bessel_table(orders: int, number: int) -> Float[np.ndarray, "terms orders number"]:
  """Normalised spherical Bessel functions on the unit interval, as series of `cosines`.

  They are N_ln j_l(z_ln x), with z_ln the n-th root of j_l and N_ln = sqrt(2) / |j_{l+1}(z_ln)|,
  which makes them orthonormal on the unit ball. The series end within 1e-12 of them in float64, and
  within 2e-5 of 27 in float32.

  Args:
    orders: Number of orders l, from 0.
    number: Number of roots n of each, from 1.

  Returns:
    Coefficients of the cosines; 36 terms for 7 orders of 6 roots.

  References:
    J. Gasteiger, J. Gross and S. Guennemann, Directional message passing for molecular graphs,
    arXiv:2003.03123, Eq. 6.
  """
  roots, order = bessel_roots(orders, number), np.arange(orders)[:, None]
  norms = np.sqrt(2.0) / np.abs(special.spherical_jn(order + 1, roots))
  terms = math.ceil(roots.max() * PERIOD / np.pi) + MORE_TERMS
  points = 10 * terms
  x = 0.5 - 0.5 * np.cos(np.pi * (np.arange(points) + 0.5) / points)
  values = norms * special.spherical_jn(order, roots * x[:, None, None])
  series = np.cos(_phases(x[:, None], terms))
  # The cosines are far from independent on the interval; the cut keeps the coefficients small.
  table = np.linalg.lstsq(series, values.reshape(points, -1), rcond=1e-13)[0]
  return table.reshape(terms, orders, number)


def _phases(x: Any, terms: int) -> Any:
  return np.pi / PERIOD * (x + 0.5 * (PERIOD - 1.0)) * np.arange(terms, dtype=x.dtype)


def cosines(x: Float[Array, " rows"], terms: int) -> Float[Array, "rows terms"]:
  """cos(k pi (x + 1/2) / 2), k = 0 ... terms - 1: a basis of smooth functions on the unit interval.

  The interval is the middle of half a period, so that functions need not be even at its ends.

  >>> [round(float(each), 4) for each in cosines(jnp.array([0.25]), 2)[0]]
  [1.0, 0.3827]
  """
  return jnp.cos(_phases(x[:, None], terms))
