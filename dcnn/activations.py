"""Activations, their integrals, and the one table from name to function.

An integral has as its derivative, everywhere, exactly the function it is named for: a network
built of integrals has a derivative network built of the functions themselves. The integrals of
smooth functions carry this as a rule (`jax.custom_jvp`), so that their values may be computed by
whichever formula is stable while first and higher derivatives are those of the named function.

Every integral is continuous and has the value 0 at 0, except `integrated_softplus`, which
vanishes at minus infinity as softplus itself does.
"""

import fractions
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

Real = Float[Array | np.ndarray, "*shape"] | np.floating | float | int
Result = Float[Array, "*shape"]


# --- The functions ---------------------------------------------------------------------------


def relu(x: Real) -> Result:
  """Rectified linear unit, max(0, x); its derivative at 0 is taken as 0."""
  return jax.nn.relu(x)


def leaky_relu(x: Real, negative_slope: ArrayLike = 0.01) -> Result:
  """Leaky rectified linear unit: x for x >= 0 and negative_slope * x below."""
  return jax.nn.leaky_relu(x, negative_slope)


def elu(x: Real) -> Result:
  """Exponential linear unit: x for x > 0 and exp(x) - 1 below."""
  return jax.nn.elu(x)


def silu(x: Real) -> Result:
  """Sigmoid-weighted linear unit, x / (1 + exp(-x)); also known as swish."""
  return jax.nn.silu(x)


def gelu(x: Real) -> Result:
  """Gaussian error linear unit, x Phi(x), with the exact normal distribution function Phi."""
  return jax.nn.gelu(x, approximate=False)


def softplus(x: Real) -> Result:
  """Softplus, log(1 + exp(x))."""
  return jax.nn.softplus(x)


def tanh(x: Real) -> Result:
  """Hyperbolic tangent."""
  return jnp.tanh(x)


def sine(x: Real) -> Result:
  """Sine."""
  return jnp.sin(x)


def mish(x: Real) -> Result:
  """Mish, x tanh(softplus(x))."""
  return jax.nn.mish(x)


# --- The rectified powers --------------------------------------------------------------------


def irelu(x: Real, c: ArrayLike = 0.5, offset: ArrayLike = 0.0) -> Result:
  """Integrated ReLU, c max(0, x)^2 + offset.

  With c = 0.5 its derivative is relu; in general 2 c relu(x). The paper prints max(0, 0.5 x^2),
  which read literally is 0.5 x^2 for every x; meant, and coded there, is zero for x <= 0.
  The second derivative jumps from 0 to 2 c at x = 0, where automatic differentiation gives c / 2.

  Args:
    x: pre-activation, of any shape.
    c: factor of the square; a number or a traced array that broadcasts to x.
    offset: additive constant of integration; a number or a traced array that broadcasts to x.

  Returns:
    Activation, in the shape of x.

  References:
    K. Lo and D. Huang, On Training Derivative-Constrained Neural Networks, arXiv:2310.01649
    (2023), Eq. 3.
  """
  return jnp.maximum(x, 0) ** 2 * c + offset


def repu(x: Real, power: int = 2) -> Result:
  """Rectified power unit, max(0, x)^power.

  Args:
    x: pre-activation, of any shape.
    power: integer of at least 1; static, since it sets the smoothness (power - 1 continuous
      derivatives).

  Returns:
    Activation, in the shape of x.

  Raises:
    ValueError: if power is no integer of at least 1.
  """
  _check_power(power)
  return jnp.maximum(x, 0) ** power


def twice_integrated_relu(x: Real) -> Result:
  """ReLU integrated twice, max(0, x)^3 / 6: the relative of IReLU for second derivatives.

  Its derivative is `irelu` with c = 0.5. A loss with second input derivatives needs two
  continuous derivatives, which IReLU has not and this has.
  """
  return jnp.maximum(x, 0) ** 3 / 6


def integrated_leaky_relu(x: Real, negative_slope: ArrayLike = 0.01) -> Result:
  """Integral of leaky ReLU: x^2 / 2 for x >= 0 and negative_slope * x^2 / 2 below."""
  return 0.5 * jnp.where(jnp.asarray(x) >= 0, 1.0, negative_slope) * jnp.square(x)


# --- The integrals of smooth functions -------------------------------------------------------


def _integral_of(function: Callable[[Array], Array]):
  """Decorator that makes `function` the derivative of the decorated formula."""

  def decorate(value_fn):
    integral = jax.custom_jvp(value_fn)

    @integral.defjvp
    def rule(primals, tangents):
      return integral(*primals), function(*primals) * tangents[0]

    return integral

  return decorate


# Below these, the closed forms lose digits by cancellation and power series take over; with the
# number of terms kept, a series is exact to the rounding of float64 up to its limit.
_EXPONENTIAL_LIMIT, _GAUSSIAN_LIMIT, _LOGISTIC_LIMIT = 0.5, 0.5, 1.0
# exp(x) - 1 - x = x^2 sum_k x^k / (k + 2)!
_EXPONENTIAL = tuple(1 / math.factorial(k + 2) for k in range(14))
# 1/2 int_0^x t erf(t / sqrt 2) dt = x^3 sum_k (-x^2)^k / (2^k k! (2k + 1) (2k + 3)) / sqrt(2 pi)
_GAUSSIAN = tuple((-0.5) ** k / math.factorial(k) / ((2 * k + 1) * (2 * k + 3))
                  / math.sqrt(2 * math.pi) for k in range(11))


def _bernoulli(number: int) -> tuple[float, ...]:
  """B_{2k} / (2k)!, k = 1 ... number, of the Bernoulli numbers: t = (e^t - 1) sum B_n t^n / n!."""
  ratios = [fractions.Fraction(1)]
  for n in range(1, 2 * number + 1):
    terms = (ratio / math.factorial(n + 1 - j) for j, ratio in enumerate(ratios))
    ratios.append(-sum(terms, start=fractions.Fraction(0)))
  return tuple(map(float, ratios[2::2]))


_BERNOULLI = _bernoulli(16)
# 1/2 int_0^x t tanh(t / 2) dt = x^3 sum_k (4^k - 1) B_{2k} / (2k)! / (2k + 1) x^(2k - 2)
_LOGISTIC = tuple((4.0**k - 1) * b / (2 * k + 1) for k, b in enumerate(_BERNOULLI, start=1))
# -Li2(-e^u) = w + w^2 / 4 + w^3 sum_k B_{2k} / (2k)! / (2k + 1) w^(2k - 2), w = log(1 + e^u)
_DILOGARITHM = tuple(b / (2 * k + 1) for k, b in enumerate(_BERNOULLI[:9], start=1))


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
  """Sum of coefficients[k] x^k; the coefficients are Python numbers and keep the dtype of x."""
  total = jnp.full_like(x, coefficients[-1])
  for coefficient in reversed(coefficients[:-1]):
    total = total * x + coefficient
  return total


def _positive_dilogarithm(u: Array) -> Array:
  """-Li2(-e^u) for u <= 0, between 0 and pi^2 / 12."""
  w = jnp.log1p(jnp.exp(u))
  return w + w**2 / 4 + w**3 * _polynomial(_DILOGARITHM, w**2)


@_integral_of(jax.nn.elu)
def integrated_elu(x: Real) -> Result:
  """Integral of ELU: x^2 / 2 for x > 0 and exp(x) - 1 - x below."""
  x = jnp.asarray(x)
  negative = jnp.minimum(x, 0)
  near = jnp.maximum(negative, -_EXPONENTIAL_LIMIT)
  series = near**2 * _polynomial(_EXPONENTIAL, near)
  below = jnp.where(negative < near, jnp.expm1(negative) - negative, series)
  return jnp.where(x > 0, 0.5 * jnp.square(x), below)


@_integral_of(jax.nn.silu)
def integrated_silu(x: Real) -> Result:
  """Integral of SiLU, x log(1 + exp(x)) + Li2(-exp(x)) + pi^2 / 12.

  Li2 is the dilogarithm. The value tends to pi^2 / 12 = 0.82 at minus infinity.
  """
  x = jnp.asarray(x)
  size = jnp.abs(x)
  near = jnp.minimum(size, _LOGISTIC_LIMIT)
  series = near**2 / 4 - near**3 * _polynomial(_LOGISTIC, near**2)
  dilogarithm = _positive_dilogarithm(-size)
  far = math.pi**2 / 12 - dilogarithm - size * jnp.log1p(jnp.exp(-size))
  below = jnp.where(size < _LOGISTIC_LIMIT, series, far)
  # The values at x and -x add up to x^2 / 2, since silu(x) - silu(-x) = x.
  return jnp.where(x > 0, 0.5 * jnp.square(x) - below, below)


@_integral_of(gelu)
def integrated_gelu(x: Real) -> Result:
  """Integral of GELU, ((x^2 - 1) Phi(x) + x phi(x)) / 2 + 1 / 4.

  Phi and phi are the normal distribution function and density. The value tends to 1 / 4 at minus
  infinity.
  """
  x = jnp.asarray(x)
  near = jnp.clip(x, -_GAUSSIAN_LIMIT, _GAUSSIAN_LIMIT)
  series = near**2 / 4 + near**3 * _polynomial(_GAUSSIAN, near**2)
  far = jnp.maximum(x, -40.0)  # Phi(-40) is zero in float64, and inf * 0 must not arise below
  distribution = 0.5 * jax.lax.erfc(-far / math.sqrt(2))
  density = jnp.exp(-0.5 * jnp.square(far)) / math.sqrt(2 * math.pi)
  closed = 0.5 * ((jnp.square(far) - 1) * distribution + far * density) + 0.25
  return jnp.where(x == near, series, closed)


@_integral_of(jax.nn.softplus)
def integrated_softplus(x: Real) -> Result:
  """Integral of softplus from minus infinity, -Li2(-exp(x)), with the dilogarithm Li2.

  Like softplus it vanishes at minus infinity and is positive; the value at 0 is pi^2 / 12.
  """
  x = jnp.asarray(x)
  below = _positive_dilogarithm(-jnp.abs(x))
  return jnp.where(x > 0, 0.5 * jnp.square(x) + math.pi**2 / 6 - below, below)


@_integral_of(jnp.tanh)
def log_cosh(x: Real) -> Result:
  """Integral of tanh, log(cosh(x)); for large |x| equal to |x| - log 2."""
  size = jnp.abs(jnp.asarray(x))
  near = jnp.minimum(size, 1.0)
  far = size - math.log(2) + jnp.log1p(jnp.exp(-2 * size))
  return jnp.where(size < 1, 0.5 * jnp.log1p(jnp.square(jnp.sinh(near))), far)


@_integral_of(jnp.sin)
def one_minus_cos(x: Real) -> Result:
  """Integral of sine, 1 - cos(x); the constant 1 makes the value 0 at 0, as for the others."""
  return 2 * jnp.square(jnp.sin(0.5 * jnp.asarray(x)))


# --- Weight gains ----------------------------------------------------------------------------


def variance_gain(function: Callable[[np.ndarray], ArrayLike]) -> float:
  """Weight gain that preserves the second moment through an activation.

  E[function(z)^2]^(-1/2) for z ~ N(0, 1): after weights of standard deviation
  gain / sqrt(fan_in), pre-activations of unit second moment keep it on average. By
  Gauss-Legendre quadrature in float64 on either side of the kink at 0.

  Args:
    function: activation of one argument, with its other parameters bound to numbers.

  Returns:
    The gain, without unit.

  Raises:
    ValueError: if the second moment is zero or not finite.
  """
  nodes, weights = np.polynomial.legendre.leggauss(128)
  positive = 6.0 * (nodes + 1)  # the density beyond 12 is below 1e-31
  z = np.concatenate([-positive, positive])
  density = np.concatenate([weights, weights]) * 6.0 * np.exp(-(z**2) / 2)
  # Float64 and at once, also while a network's initialisation is being traced.
  with jax.enable_x64(True), jax.ensure_compile_time_eval():
    values = np.asarray(function(z), dtype=np.float64)
  moment = float(np.sum(density * values**2) / math.sqrt(2 * math.pi))
  if not (math.isfinite(moment) and moment > 0):
    raise ValueError(f"expected an activation of positive finite second moment, received {moment};"
                     " choose parameters for which the activation is not constant zero")
  return moment**-0.5


def _irelu_gain(c=0.5, offset=0.0):
  """E[irelu^2] = 3/2 c^2 + c offset + offset^2; with traced c and offset too."""
  return (1.5 * c**2 + c * offset + offset**2) ** -0.5


def _leaky_relu_gain(negative_slope=0.01):
  return (0.5 * (1 + negative_slope**2)) ** -0.5


def _integrated_leaky_relu_gain(negative_slope=0.01):
  return (0.375 * (1 + negative_slope**2)) ** -0.5


def _repu_gain(power: int = 2) -> float:
  """E[repu^2] = (2 power - 1)!! / 2."""
  _check_power(power)
  return (0.5 * math.prod(range(1, 2 * power, 2))) ** -0.5


def _check_power(power: int) -> None:
  if isinstance(power, bool) or not isinstance(power, int) or power < 1:
    raise ValueError(f"power of repu must be an integer of at least 1, received {power!r}; "
                     "use 2 for IReLU up to its constant, 3 for second input derivatives")


# --- The table -------------------------------------------------------------------------------


class Activation(NamedTuple):
  """An activation and what a network needs to know of it.

  Attributes:
    function: array to array, with further parameters by keyword.
    order: how many derivatives are continuous, at the default parameters; `math.inf` if smooth.
    gain: weight gain that preserves variance for a pre-activation z ~ N(0, 1), weights of
      standard deviation gain / sqrt(fan_in); takes the parameters by keyword. In closed form, or
      by quadrature when called. For a power such as IReLU z^2 this is the centre of an unstable
      map, not an attractor: log deviations of the variance double with every layer.
    parameters: names of the parameters of `function` beyond the array.
    static: those of them that change the program and cannot be traced.
    derivative: name of the activation that is the derivative of this one, or None.
  """

  function: Callable[..., Array]
  order: float
  gain: Callable[..., float]
  parameters: tuple[str, ...] = ()
  static: tuple[str, ...] = ()
  derivative: str | None = None

  def order_at(self, **parameters) -> float:
    """How many derivatives are continuous with these parameters: the power of repu sets it."""
    return float(parameters["power"] - 1 if "power" in parameters else self.order)


def _smooth(function: Callable[..., Array], derivative: str | None = None) -> Activation:
  return Activation(function, math.inf, partial(variance_gain, function), derivative=derivative)


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType({
    "relu": Activation(relu, 0, lambda: math.sqrt(2)),
    "leaky_relu": Activation(leaky_relu, 0, _leaky_relu_gain, ("negative_slope",)),
    "elu": Activation(elu, 1, partial(variance_gain, elu)),
    "silu": _smooth(silu),
    "gelu": _smooth(gelu),
    "softplus": _smooth(softplus),
    "tanh": _smooth(tanh),
    "sine": _smooth(sine),
    "mish": _smooth(mish),
    "irelu": Activation(irelu, 1, _irelu_gain, ("c", "offset"), derivative="relu"),
    "repu": Activation(repu, 1, _repu_gain, ("power",), ("power",)),
    "twice_integrated_relu": Activation(
        twice_integrated_relu, 2, lambda: math.sqrt(4.8), derivative="irelu"),
    "integrated_leaky_relu": Activation(
        integrated_leaky_relu, 1, _integrated_leaky_relu_gain, ("negative_slope",),
        derivative="leaky_relu"),
    "integrated_elu": Activation(
        integrated_elu, 2, partial(variance_gain, integrated_elu), derivative="elu"),
    "integrated_silu": _smooth(integrated_silu, "silu"),
    "integrated_gelu": _smooth(integrated_gelu, "gelu"),
    "integrated_softplus": _smooth(integrated_softplus, "softplus"),
    "log_cosh": _smooth(log_cosh, "tanh"),
    "one_minus_cos": _smooth(one_minus_cos, "sine"),
})
