"""Functions of a distance: cutoffs, and bases in which networks expand it."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dcnn.base import text

Cutoff = Callable[[Array, float], Array]
ENVELOPES = ("smooth", "faithful")


def smooth_cutoff(distance: Float[Array, "*pairs"], cutoff: float) -> Float[Array, "*pairs"]:
  """cos^4(pi r / 2 cutoff) inside the cutoff, 0 beyond.

  This is the square of `cosine_cutoff`. Its first three derivatives vanish at the cutoff, so that
  forces, and the second derivatives that training on forces needs, are continuous there; the
  second derivative of the usual cosine cutoff jumps.

  Args:
    distance: Distances in angstrom, not negative.
    cutoff: Radius in angstrom.

  Returns:
    Factors from 1 at distance 0 down to 0.

  >>> print(smooth_cutoff(jnp.array([0.0, 2.5, 5.0, 7.0]), 5.0).round(4))
  [1.   0.25 0.   0.  ]
  """
  return jnp.square(cosine_cutoff(distance, cutoff))


def cosine_cutoff(distance: Float[Array, "*pairs"], cutoff: float) -> Float[Array, "*pairs"]:
  """(1 + cos(pi r / cutoff)) / 2 inside the cutoff, 0 beyond.

  Its value and first derivative vanish at the cutoff; its second derivative jumps there from
  pi^2 / 2 cutoff^2 to 0, and with it the derivative of the forces.

  Args:
    distance: Distances in angstrom, not negative.
    cutoff: Radius in angstrom.

  Returns:
    Factors from 1 at distance 0 down to 0.

  References:
    J. Behler and M. Parrinello, Phys. Rev. Lett. 98, 146401 (2007), Eq. 4.

  >>> print(cosine_cutoff(jnp.array([0.0, 2.5, 5.0, 7.0]), 5.0).round(4))
  [1.  0.5 0.  0. ]
  """
  inside = jnp.minimum(distance, cutoff)
  return 0.5 * (1.0 + jnp.cos(jnp.pi * inside / cutoff))


def polynomial_cutoff(
    distance: Float[Array, "*pairs"], cutoff: float, power: int = 5) -> Float[Array, "*pairs"]:
  """1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) for x = r / cutoff < 1, 0 beyond.

  Its value and first two derivatives vanish at the cutoff; the third jumps there.

  Args:
    distance: Distances in angstrom, not negative.
    cutoff: Radius in angstrom.
    power: p, at least 2. The larger it is, the longer the factor stays near 1.

  Returns:
    Factors from 1 at distance 0 down to 0.

  References:
    J. Gasteiger et al., Directional message passing for molecular graphs, ICLR (2020),
    arXiv:2003.03123, Eq. 8.

  >>> print(polynomial_cutoff(jnp.array([0.0, 2.5, 5.0, 7.0]), 5.0).round(4))
  [1.     0.7734 0.     0.    ]
  """
  x, p = jnp.minimum(distance / cutoff, 1.0), power
  return 1.0 + x**p * (-(p + 1) * (p + 2) / 2 + x * (p * (p + 2) - x * (p * (p + 1) / 2)))


def envelope(name: str, faithful: Cutoff) -> Cutoff:
  """The cutoff function that a network's field `envelope` names.

  Args:
    name: `smooth`, which is `smooth_cutoff`, or `faithful`.
    faithful: The cutoff function of the network's paper.

  Raises:
    ValueError: If the name is another.

  >>> envelope("faithful", cosine_cutoff) is cosine_cutoff
  True
  """
  choices: Mapping[str, Cutoff] = dict(zip(ENVELOPES, (smooth_cutoff, faithful), strict=True))
  if name not in choices:
    raise ValueError(text.unknown("envelope", name, choices))
  return choices[name]


def gaussian_basis(
    distance: Float[Array, " pairs"], number: int, cutoff: float
) -> Float[Array, "pairs radial"]:
  """Gaussians with centres evenly spaced from 0 to the cutoff and a width of their spacing.

  Args:
    distance: Distances in angstrom.
    number: Number of Gaussians, at least 2.
    cutoff: Radius in angstrom, the centre of the last Gaussian.

  Returns:
    exp(-(r - centre)^2 / 2 width^2) for each distance and each Gaussian.

  References:
    SchNet, arXiv:1706.08566, Eq. 4 (there with a centre every 0.1 angstrom).

  >>> print(gaussian_basis(jnp.array([0.0]), 3, 5.0).round(1))
  [[1.  0.6 0.1]]
  """
  centres = jnp.linspace(0.0, cutoff, number, dtype=distance.dtype)
  width = cutoff / (number - 1)
  return jnp.exp(-0.5 * jnp.square((distance[:, None] - centres) / width))


def bessel_basis(
    distance: Float[Array, " pairs"], number: int, cutoff: float
) -> Float[Array, "pairs radial"]:
  """sin(n pi r / cutoff) / r for n = 1 to number: spherical Bessel functions of order 0.

  They are 0 at the cutoff, where their slopes are not: multiply them by a cutoff function. At
  r = 0 they are n pi / cutoff, and their slopes are 0.

  Args:
    distance: Distances in angstrom.
    number: Number of functions.
    cutoff: Radius in angstrom.

  Returns:
    The functions in 1/angstrom; times sqrt(2 / cutoff) they are orthonormal under
    integral r^2 dr from 0 to the cutoff.

  References:
    J. Gasteiger et al., Directional message passing for molecular graphs, ICLR (2020),
    arXiv:2003.03123, Eq. 7.

  >>> [round(float(each), 2) for each in bessel_basis(jnp.array([0.0]), 2, 5.0)[0]]
  [0.63, 1.26]
  """
  waves = jnp.arange(1, number + 1, dtype=distance.dtype) * (jnp.pi / cutoff)
  distance = distance[:, None]
  # Both branches are finite, so that no NaN reaches a derivative.
  apart = distance > 0
  safe = jnp.where(apart, distance, 1.0)
  return jnp.where(apart, jnp.sin(waves * safe) / safe, waves)
