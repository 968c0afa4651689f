"""Functions on the unit sphere: harmonics, grids, products of them; and their zonal cousins.

A function on the sphere of degree l or less is a sum of harmonics, A(n) = sum_lm A_lm Y_lm(n). A
rotation turns its argument, so that products of such functions, taken point by point, turn in the
same way: on a grid they need no table of couplings. A grid of Lebedev's is exact for polynomials up
to its order; the order is that of all that is multiplied together with the harmonic that it is then
projected on, and all results are exact.

References:
  S. Luo, T. Chen and A. Krishnapriyan, Enabling efficient equivariant operations in the Fourier
  basis via Gaunt tensor products, ICLR (2024), arXiv:2401.10216: products on the sphere.
  V. I. Lebedev and D. N. Laikov, Dokl. Math. 59, 477 (1999): the grids.
"""

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from dcnn.models import primitives

LARGEST_DEGREE = 3


def harmonics(
    direction: Float[Array | np.ndarray, "*points 3"], degree: int
) -> list[Float[Array | np.ndarray, "*points _"]]:
  """Real spherical harmonics of the degrees 0 to `degree`, with a mean square of 1 on the sphere.

  They are homogeneous polynomials: those of even degree do not change as the direction is
  reversed, those of odd degree change their sign, and at the vector 0 all but the first are 0. The
  sum over m of Y_lm(u) Y_lm(n) is (2 l + 1) P_l(u . n).

  Args:
    direction: Unit vectors.
    degree: At most `LARGEST_DEGREE`.

  Returns:
    For each degree l the 2 l + 1 harmonics, m from -l to l.

  >>> [values.shape for values in harmonics(np.eye(3), 2)]
  [(3, 1), (3, 3), (3, 5)]
  """
  x, y, z = (direction[..., axis] for axis in range(3))
  xx, yy, zz = x * x, y * y, z * z
  by_degree = (
      (1.0 + 0.0 * x,),
      (3**0.5 * y, 3**0.5 * z, 3**0.5 * x),
      (15**0.5 * x * y, 15**0.5 * y * z, 5**0.5 / 2 * (2.0 * zz - xx - yy), 15**0.5 * x * z,
       15**0.5 / 2 * (xx - yy)),
      ((35 / 8) ** 0.5 * y * (3.0 * xx - yy), 105**0.5 * x * y * z,
       (21 / 8) ** 0.5 * y * (4.0 * zz - xx - yy), 7**0.5 / 2 * z * (2.0 * zz - 3.0 * (xx + yy)),
       (21 / 8) ** 0.5 * x * (4.0 * zz - xx - yy), 105**0.5 / 2 * z * (xx - yy),
       (35 / 8) ** 0.5 * x * (xx - 3.0 * yy)))
  stack = np.stack if isinstance(direction, np.ndarray) else jnp.stack
  return [stack(orders, axis=-1) for orders in by_degree[:degree + 1]]


class Grid(NamedTuple):
  """A grid on the sphere.

  Attributes:
    points: Unit vectors.
    weights: The mean of a function over the sphere is the sum of its values times these.
  """

  points: Float[np.ndarray, "points 3"]
  weights: Float[np.ndarray, " points"]


@functools.cache
def grid(order: int) -> Grid:
  """The smallest Lebedev grid that integrates all polynomials up to an order exactly.

  Args:
    order: The degree of what is integrated, 3 to 31.

  >>> len(grid(5).points), len(grid(7).points)
  (14, 26)
  """
  from scipy import integrate  # a twentieth of a second that other networks need not wait for

  points, weights = integrate.lebedev_rule(max(3, order + 1 - order % 2))
  return Grid(np.where(np.abs(points.T) < 1e-12, 0.0, points.T), weights / np.sum(weights))


def _values(at: Grid, degree: int) -> Float[np.ndarray, "points orders"]:
  """All harmonics up to a degree at the points of a grid."""
  return np.concatenate(harmonics(at.points, degree), axis=-1)


def evaluate(
    functions: Float[Array, "orders atoms features"], at: Grid
) -> Float[Array, "points atoms features"]:
  """Functions on the sphere at the points of a grid, from their coefficients up to a degree."""
  return primitives.combine(_values(at, math.isqrt(len(functions)) - 1), functions)


def project(
    values: Float[Array, "points atoms features"], at: Grid, degree: int
) -> Float[Array, "orders atoms features"]:
  """The coefficients, up to a degree, of functions on the sphere with these values on a grid."""
  return primitives.combine((at.weights[:, None] * _values(at, degree)).T, values)


def by_degree(
    functions: Float[Array, "orders atoms features"]) -> list[Float[Array, "_ atoms features"]]:
  """The coefficients of each degree apart."""
  return [lax.slice_in_dim(functions, degree**2, (degree + 1)**2)
          for degree in range(math.isqrt(len(functions)))]


@functools.cache
def couplings(one: int, other: int, degree: int) -> Float[np.ndarray, "orders both"]:
  """What makes the coefficients of a product, up to a degree, from those of its two factors.

  These are the means over the sphere of three harmonics (coefficients of Gaunt), by quadrature.

  Args:
    one: Degree of one factor.
    other: Degree of the other.
    degree: Largest degree of the product that is wanted.

  Returns:
    A matrix that multiplies all products of two coefficients, those of the second factor faster.

  >>> couplings(1, 0, 1)
  array([[1., 0., 0., 0.],
         [0., 1., 0., 0.],
         [0., 0., 1., 0.],
         [0., 0., 0., 1.]])
  """
  at = grid(one + other + degree)
  first, second, product = (_values(at, each) for each in (one, other, degree))
  table = np.einsum("p,pa,pb,pc->cab", at.weights, first, second, product)
  return np.round(table.reshape(len(table), -1), 14) + 0.0  # no -0


def zonal_harmonics(cosines: Float[Array, "*shape"], orders: int) -> list[Float[Array, "*shape"]]:
  """Spherical harmonics of order m = 0: sqrt((2 l + 1) / 4 pi) P_l(cosine), l = 0 ... orders - 1.

  Args:
    cosines: Cosines of angles.
    orders: Number of orders l.

  Returns:
    One array for each order, with P_l Legendre's polynomials.

  >>> [round(float(each), 4) for each in zonal_harmonics(jnp.array(1.0), 3)]
  [0.2821, 0.4886, 0.6308]
  """
  legendre = [jnp.ones_like(cosines), cosines]
  for order in range(1, orders - 1):
    legendre.append(
        ((2 * order + 1) * cosines * legendre[-1] - order * legendre[-2]) / (order + 1))
  return [float(np.sqrt((2 * order + 1) / (4.0 * np.pi))) * each
          for order, each in enumerate(legendre[:orders])]
