"""Activations, their integrals, and the one table from name to function.

An integral has as its derivative, everywhere, exactly the function it is named for: a network
built of integrals has a derivative network built of the functions themselves. The integrals of
smooth functions carry this as a rule (`jax.custom_jvp`), so that their values may be computed by
whichever formula is stable while first and higher derivatives are those of the named function.

Every integral is continuous and has the value 0 at 0, except `integrated_softplus`, which
vanishes at minus infinity as softplus itself does.
"""

import fractions
import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from dcnn.base.text import first_line, unknown

#: What an activation takes, an array or a number.
Real = Float[Array | np.ndarray, "*shape"] | np.floating | float | int
#: Activations, of the shape of the pre-activations.
Result = Float[Array, "*shape"]
#: A parameter of an activation, a number or an array that broadcasts to the pre-activations.
Parameter = Float[Array | np.ndarray, "*broadcast"] | np.floating | float | int


# --- The functions ---------------------------------------------------------------------------


def relu(x: Real) -> Result:
  """Rectified linear unit, max(0, x); its derivative at 0 is taken as 0.

  >>> relu(np.array([-1.0, 2.0])).tolist()
  [0.0, 2.0]
  """
  return jax.nn.relu(x)


def leaky_relu(x: Real, negative_slope: Parameter = 0.01) -> Result:
  """Leaky rectified linear unit: x for x >= 0 and negative_slope * x below.

  >>> leaky_relu(np.array([-1.0, 2.0]), negative_slope=0.5).tolist()
  [-0.5, 2.0]
  """
  return jax.nn.leaky_relu(x, negative_slope)


def elu(x: Real) -> Result:
  """Exponential linear unit: x for x > 0 and exp(x) - 1 below.

  >>> elu(np.array([-100.0, 2.0])).tolist()
  [-1.0, 2.0]
  """
  return jax.nn.elu(x)


def silu(x: Real) -> Result:
  """Sigmoid-weighted linear unit, x / (1 + exp(-x)); also known as swish.

  >>> silu(np.array([-100.0, 0.0, 100.0])).tolist()
  [-0.0, 0.0, 100.0]
  """
  return jax.nn.silu(x)


def gelu(x: Real) -> Result:
  """Gaussian error linear unit, x Phi(x), with the exact normal distribution function Phi.

  >>> gelu(np.array([-100.0, 0.0, 100.0])).tolist()
  [-0.0, 0.0, 100.0]
  """
  return jax.nn.gelu(x, approximate=False)


def softplus(x: Real) -> Result:
  """Softplus, log(1 + exp(x)).

  >>> round(float(softplus(0.0)), 4)
  0.6931
  """
  return jax.nn.softplus(x)


def shifted_softplus(x: Real) -> Result:
  """Softplus that passes through 0, log(1/2 + exp(x)/2): the activation of SchNet.

  References:
    K. T. Schuett et al., SchNet, arXiv:1706.08566.

  >>> float(shifted_softplus(0.0)), round(float(shifted_softplus(100.0)), 4)
  (0.0, 99.3069)
  """
  return jax.nn.softplus(x) - math.log(2)


def scaled_silu(x: Real) -> Result:
  """SiLU over 0.6, which roughly keeps a unit second moment: the activation of GemNet.

  References:
    J. Gasteiger, F. Becker and S. Guennemann, GemNet, arXiv:2106.08903.

  >>> round(float(scaled_silu(6.0)), 4)
  9.9753
  """
  return jax.nn.silu(x) / 0.6


def tanh(x: Real) -> Result:
  """Hyperbolic tangent, tanh(x).

  >>> tanh(np.array([-100.0, 0.0, 100.0])).tolist()
  [-1.0, 0.0, 1.0]
  """
  return jnp.tanh(x)


def sine(x: Real) -> Result:
  """Sine, sin(x).

  >>> float(sine(0.0))
  0.0
  """
  return jnp.sin(x)


def mish(x: Real) -> Result:
  """Mish, x tanh(softplus(x)).

  >>> mish(np.array([0.0, 100.0])).tolist()
  [0.0, 100.0]
  """
  return jax.nn.mish(x)


# --- The rectified powers --------------------------------------------------------------------


def irelu(x: Real, c: Parameter = 0.5, offset: Parameter = 0.0) -> Result:
  """Integrated ReLU, c max(0, x)^2 + offset.

  With c = 0.5 its derivative is relu; in general 2 c relu(x). The paper prints max(0, 0.5 x^2),
  which read literally is 0.5 x^2 for every x; what is meant, and what the official code computes,
  is zero for x <= 0.
  The second derivative jumps from 0 to 2 c at x = 0, where automatic differentiation gives c / 2.

  Args:
    x: Pre-activations of any shape, without unit.
    c: Factor of the square: a number, or a traced array that broadcasts to x.
    offset: Additive constant of integration: a number, or a traced array that broadcasts to x.

  Returns:
    The activations, in the shape of x.

  References:
    K. Lo and D. Huang, On Training Derivative-Constrained Neural Networks, arXiv:2310.01649
    (2023), Eq. 3.

  >>> irelu(np.array([-2.0, 0.0, 2.0]), c=0.5).tolist()
  [0.0, 0.0, 2.0]
  >>> float(jax.grad(irelu)(2.0))  # the derivative is relu
  2.0
  """
  return jnp.maximum(x, 0) ** 2 * c + offset


def repu(x: Real, power: int = 2) -> Result:
  """Rectified power unit, max(0, x)^power.

  Args:
    x: Pre-activations of any shape, without unit.
    power: An integer of at least 1. It is static, because it sets the smoothness: power - 1
      derivatives are continuous.

  Returns:
    The activations, in the shape of x.

  Raises:
    ValueError: If power is not an integer of at least 1.

  >>> repu(np.array([-2.0, 2.0]), power=3).tolist()
  [0.0, 8.0]
  """
  _check_power(power)
  return jnp.maximum(x, 0) ** power


def twice_integrated_relu(x: Real) -> Result:
  """ReLU integrated twice, max(0, x)^3 / 6: the relative of IReLU for second derivatives.

  Its derivative is `irelu` with c = 0.5. A loss with second input derivatives needs two
  continuous derivatives: this function has them, IReLU has only one.

  >>> float(twice_integrated_relu(6.0))
  36.0
  """
  return jnp.maximum(x, 0) ** 3 / 6


def integrated_leaky_relu(x: Real, negative_slope: Parameter = 0.01) -> Result:
  """Integral of leaky ReLU: x^2 / 2 for x >= 0 and negative_slope * x^2 / 2 below.

  >>> integrated_leaky_relu(np.array([-2.0, 2.0]), negative_slope=0.5).tolist()
  [1.0, 2.0]
  """
  return 0.5 * jnp.where(jnp.asarray(x) >= 0, 1.0, negative_slope) * jnp.square(x)


# --- The integrals of smooth functions -------------------------------------------------------


def _integral_of(function: Callable[[Array], Array]):
  """Decorator that gives a formula `function` as its derivative."""

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


def _polynomial(
    coefficients: tuple[float, ...], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
  """Sum of coefficients[k] x^k; the coefficients are Python numbers and keep the dtype of x."""
  total = jnp.full_like(x, coefficients[-1])
  for coefficient in reversed(coefficients[:-1]):
    total = total * x + coefficient
  return total


def _positive_dilogarithm(u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
  """-Li2(-e^u) for u <= 0, between 0 and pi^2 / 12."""
  w = jnp.log1p(jnp.exp(u))
  return w + w**2 / 4 + w**3 * _polynomial(_DILOGARITHM, w**2)


@_integral_of(jax.nn.elu)
def integrated_elu(x: Real) -> Result:
  """Integral of ELU: x^2 / 2 for x > 0 and exp(x) - 1 - x below.

  >>> integrated_elu(np.array([-100.0, 2.0])).tolist()
  [99.0, 2.0]
  """
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

  >>> round(float(integrated_silu(-100.0)), 4)  # pi^2 / 12
  0.8225
  >>> float(jax.grad(integrated_silu)(100.0))  # the derivative is silu
  100.0
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

  >>> float(integrated_gelu(-100.0))
  0.25
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

  >>> round(float(integrated_softplus(0.0)), 4)  # pi^2 / 12
  0.8225
  """
  x = jnp.asarray(x)
  below = _positive_dilogarithm(-jnp.abs(x))
  return jnp.where(x > 0, 0.5 * jnp.square(x) + math.pi**2 / 6 - below, below)


@_integral_of(jnp.tanh)
def log_cosh(x: Real) -> Result:
  """Integral of tanh, log(cosh(x)); for large |x| equal to |x| - log 2.

  >>> float(log_cosh(0.0)), round(float(log_cosh(100.0)), 4)
  (0.0, 99.3069)
  """
  size = jnp.abs(jnp.asarray(x))
  near = jnp.minimum(size, 1.0)
  far = size - math.log(2) + jnp.log1p(jnp.exp(-2 * size))
  return jnp.where(size < 1, 0.5 * jnp.log1p(jnp.square(jnp.sinh(near))), far)


@_integral_of(jnp.sin)
def one_minus_cos(x: Real) -> Result:
  """Integral of sine, 1 - cos(x); the constant 1 makes the value 0 at 0, as for the others.

  >>> float(one_minus_cos(0.0)), round(float(one_minus_cos(np.pi)), 4)
  (0.0, 2.0)
  """
  return 2 * jnp.square(jnp.sin(0.5 * jnp.asarray(x)))


# --- Weight gains ----------------------------------------------------------------------------


def variance_gain(function: Callable[[np.ndarray], ArrayLike]) -> float:
  """Weight gain that preserves the second moment through an activation.

  E[function(z)^2]^(-1/2) for z ~ N(0, 1): after weights of standard deviation
  gain / sqrt(fan_in), pre-activations of unit second moment keep it on average. By
  Gauss-Legendre quadrature in float64 on either side of the kink at 0.

  Args:
    function: An activation of one array; bind its other parameters to numbers.

  Returns:
    The gain, without unit.

  Raises:
    ValueError: If the second moment is zero or not finite.

  >>> round(variance_gain(relu), 4)  # He et al.: sqrt(2)
  1.4142
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


def _irelu_gain(c: Parameter = 0.5, offset: Parameter = 0.0):
  """E[irelu^2] = 3/2 c^2 + c offset + offset^2; with traced c and offset too."""
  return (1.5 * c**2 + c * offset + offset**2) ** -0.5


def _repu_gain(power: int = 2) -> float:
  """E[repu^2] = (2 power - 1)!! / 2."""
  _check_power(power)
  return (0.5 * math.prod(range(1, 2 * power, 2))) ** -0.5


def _check_power(power: int) -> None:
  if isinstance(power, bool) or not isinstance(power, int) or power < 1:
    raise ValueError(f"power of repu must be an integer of at least 1, received {power!r}; "
                     "use 2 for IReLU up to its constant, 3 for second input derivatives")


# --- The table -------------------------------------------------------------------------------


#: A function of an array, and of parameters by keyword.
Elementwise = Callable[..., Array]


class Activation(NamedTuple):
  """An activation and what a network needs to know of it.

  Attributes:
    function: Maps an array to an array of the same shape, with further parameters by keyword.
    order: How many derivatives are continuous; `math.inf` if all are. A function of the
      parameters, by keyword, where these decide it. None if it is not known.
    gain: Weight gain that preserves the second moment of pre-activations z ~ N(0, 1) after weights
      of standard deviation gain / sqrt(fan_in). A function of the parameters, by keyword. For a
      power such as IReLU this is the centre of an unstable map, not an attractor: log deviations
      of the second moment double with every layer.
    parameters: Names of the parameters of `function` beyond the array.
    static: Those of the parameters that change the program and cannot be traced.
  """

  function: Elementwise
  order: float | Callable[..., float] | None
  gain: Callable[..., ArrayLike]
  parameters: tuple[str, ...] = ()
  static: tuple[str, ...] = ()

  def order_at(self, **parameters) -> float | None:
    """How many derivatives are continuous at these parameters; None if it is not known."""
    order = self.order(**parameters) if callable(self.order) else self.order
    return None if order is None else float(order)


def _smooth_activation(function: Elementwise) -> Activation:
  return Activation(function, math.inf, partial(variance_gain, function))


#: Every activation by the name that `activation.name` takes.
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType({
    "relu": Activation(relu, 0, lambda: math.sqrt(2)),
    "leaky_relu": Activation(
        leaky_relu, 0, lambda negative_slope=0.01: (0.5 * (1 + negative_slope**2)) ** -0.5,
        ("negative_slope",)),
    "elu": Activation(elu, 1, partial(variance_gain, elu)),
    "silu": _smooth_activation(silu),
    "gelu": _smooth_activation(gelu),
    "softplus": _smooth_activation(softplus),
    "shifted_softplus": _smooth_activation(shifted_softplus),
    "scaled_silu": _smooth_activation(scaled_silu),
    "tanh": _smooth_activation(tanh),
    "sine": _smooth_activation(sine),
    "mish": _smooth_activation(mish),
    "irelu": Activation(irelu, 1, _irelu_gain, ("c", "offset")),
    "repu": Activation(repu, lambda power=2: power - 1, _repu_gain, ("power",), ("power",)),
    "twice_integrated_relu": Activation(twice_integrated_relu, 2, lambda: math.sqrt(4.8)),
    "integrated_leaky_relu": Activation(
        integrated_leaky_relu, 1,
        lambda negative_slope=0.01: (0.375 * (1 + negative_slope**2)) ** -0.5,
        ("negative_slope",)),
    "integrated_elu": Activation(integrated_elu, 2, partial(variance_gain, integrated_elu)),
    "integrated_silu": _smooth_activation(integrated_silu),
    "integrated_gelu": _smooth_activation(integrated_gelu),
    "integrated_softplus": _smooth_activation(integrated_softplus),
    "log_cosh": _smooth_activation(log_cosh),
    "one_minus_cos": _smooth_activation(one_minus_cos),
})


def resolve(spec: Any) -> Activation:
  """The record of an activation that is given by its name or as an object.

  Args:
    spec: A name of `ACTIVATIONS`; a function of this module; a record; or a function of one's own
      from an array to an array of the same shape. Nothing is assumed of the smoothness of one's own
      function: give `Activation(function, order, gain)` to state it.

  Returns:
    The record. That of one's own function has the order None, no parameters, and its gain by
    quadrature (`variance_gain`).

  Raises:
    ValueError: If the name is not known, or if the object is not an activation.

  >>> resolve("irelu").parameters
  ('c', 'offset')
  >>> def snake(x):
  ...   return x + jnp.sin(x) ** 2
  >>> resolve(snake).order is None
  True
  """
  if isinstance(spec, Activation):
    return spec
  if isinstance(spec, str):
    if spec not in ACTIVATIONS:
      raise ValueError(unknown("activation", spec, ACTIVATIONS))
    return ACTIVATIONS[spec]
  own: Elementwise = spec
  if not callable(spec):
    raise ValueError(f"expected the name of an activation, or a function, received {spec!r}; known "
                     f"names are {', '.join(ACTIVATIONS)}")
  for record in ACTIVATIONS.values():
    if record.function is spec:
      return record
  name = getattr(spec, "__name__", repr(spec))
  array = jax.ShapeDtypeStruct((3, 2), jnp.float32)
  try:
    result = jax.eval_shape(spec, array)
  except Exception as error:  # whatever a user's function raises
    raise ValueError(
        f"the activation {name} fails on an array: {first_line(error)}. Expected a function of one "
        "array, written with jax.numpy; bind other parameters with "
        "functools.partial") from error
  if getattr(result, "shape", None) != array.shape or result.dtype != array.dtype:
    raise ValueError(f"the activation {name} maps {array} to {result}, expected the same shape and "
                     "type: an activation works on each element")
  return Activation(own, None, partial(variance_gain, own))


def meaning(spec: Any) -> str:
  """What an activation is, as the first line of its docstring has it; empty where it has none.

  Args:
    spec: What `resolve` takes.

  Raises:
    ValueError: As `resolve` does.

  >>> meaning("irelu")
  'Integrated ReLU, c max(0, x)^2 + offset.'
  """
  function = resolve(spec).function
  while isinstance(function, partial):
    function = function.func
  return (inspect.getdoc(function) or "").partition("\n")[0]
