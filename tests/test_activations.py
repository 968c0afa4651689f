"""Activations against closed forms, quadrature in SciPy, and the laws that integrals obey."""

import inspect
import math
from functools import partial

import daily
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import integrate, special

from dcnn import activations
from dcnn.activations import ACTIVATIONS


# Independent references in float64 NumPy: the function that is integrated, its derivative, and
# the value of the integral far to the right (x^2 / 2 and the rest) and far to the left.
def sigmoid(x):
  return special.expit(x)


def density(x):
  return np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)


REFERENCES = {
    "irelu": (
        lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, 1.0, 0.0),
        lambda x: 0.5 * x**2, lambda x: 0.0),
    "twice_integrated_relu": (
        lambda x: 0.5 * np.maximum(x, 0) ** 2, lambda x: np.maximum(x, 0),
        lambda x: x**3 / 6, lambda x: 0.0),
    "integrated_leaky_relu": (
        lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x >= 0, 1.0, 0.01),
        lambda x: 0.5 * x**2, lambda x: 0.005 * x**2),
    "integrated_elu": (
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda x: np.exp(np.minimum(x, 0)),
        lambda x: 0.5 * x**2, lambda x: -1 - x),
    "integrated_silu": (
        lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x)),
        lambda x: 0.5 * x**2 - math.pi**2 / 12, lambda x: math.pi**2 / 12),
    "integrated_gelu": (
        lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * density(x),
        lambda x: 0.5 * x**2 - 0.25, lambda x: 0.25),
    "integrated_softplus": (
        lambda x: np.logaddexp(x, 0), sigmoid,
        lambda x: 0.5 * x**2 + math.pi**2 / 6, lambda x: 0.0),
    "log_cosh": (
        np.tanh, lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2,
        lambda x: x - math.log(2), lambda x: -x - math.log(2)),
    "one_minus_cos": (np.sin, np.cos, lambda x: 1 - np.cos(x), lambda x: 1 - np.cos(x)),
}
# What each integral must have as its derivative.
DERIVATIVES = {
    "irelu": activations.relu, "twice_integrated_relu": activations.irelu,
    "integrated_leaky_relu": activations.leaky_relu, "integrated_elu": activations.elu,
    "integrated_silu": activations.silu, "integrated_gelu": activations.gelu,
    "integrated_softplus": activations.softplus, "log_cosh": activations.tanh,
    "one_minus_cos": activations.sine}
AT_ZERO = {"integrated_softplus": math.pi**2 / 12}
INTEGRALS = sorted(REFERENCES)
KINKED = sorted(name for name, record in ACTIVATIONS.items() if record.order_at() != math.inf)
POINTS = np.array([0.0, 1e-8, -1e-8, 1e-3, -1e-3, 0.3, -0.3, 0.499, -0.501, 0.999, -1.001, 1.5,
                   -2.5, 4.0, -6.0, 20.0, -20.0])
EXTREMES = np.array([1e4, -1e4])


def value_and_derivatives(function, x):
  """Value, first and second derivative at each x, forward over reverse, in one program."""
  first = jax.grad(function)
  return jax.jit(jax.vmap(lambda z: (function(z), first(z), jax.jacfwd(first)(z))))(x)


# --- Values and derivatives ------------------------------------------------------------------


@pytest.mark.parametrize("name", INTEGRALS)
def test_value_is_the_integral_from_zero(name, x64):
  function = REFERENCES[name][0]
  expected = [integrate.quad(function, 0, x, epsabs=0, epsrel=1e-10, limit=200)[0] for x in POINTS]
  values = np.asarray(ACTIVATIONS[name].function(POINTS)) - AT_ZERO.get(name, 0.0)
  atol = 1e-15 if name in AT_ZERO else 0.0
  np.testing.assert_allclose(values, expected, rtol=4e-14, atol=atol)


@pytest.mark.parametrize("name", INTEGRALS)
def test_value_in_float32_is_right_to_rounding(name, x64):
  points = POINTS.astype(np.float32)
  values = ACTIVATIONS[name].function(points)
  assert values.dtype == jnp.float32
  exact = ACTIVATIONS[name].function(points.astype(np.float64))
  np.testing.assert_allclose(values, exact, rtol=3e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", INTEGRALS)
def test_value_at_extremes(name, dtype, x64):
  right, left = REFERENCES[name][2:]
  extremes = EXTREMES.astype(dtype)
  values = ACTIVATIONS[name].function(extremes)
  rtol, atol = (1e-6, 1e-6) if dtype == np.float32 else (1e-14, 1e-11)
  np.testing.assert_allclose(
      values, [right(1e4), left(-1e4)], rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", INTEGRALS)
def test_derivative_is_exactly_the_named_function(name, x64):
  record, named = ACTIVATIONS[name], DERIVATIVES[name]
  x = np.concatenate([POINTS, EXTREMES, np.linspace(-8, 8, 401)])
  reverse = jax.jit(jax.vmap(jax.grad(record.function)))(x)
  forward = jax.jit(lambda z: jax.jvp(record.function, (z,), (jnp.ones_like(z),))[1])(x)
  np.testing.assert_allclose(reverse, named(x), rtol=1e-15, atol=0)
  np.testing.assert_allclose(forward, named(x), rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", INTEGRALS)
def test_first_and_second_derivative(name, dtype, x64):
  first, second = REFERENCES[name][:2]
  x = np.concatenate([POINTS, EXTREMES]).astype(dtype)
  if ACTIVATIONS[name].order_at() == 1:  # the second derivative jumps at 0 and is nowhere near it
    x = x[x != 0]
  _, once, twice = value_and_derivatives(ACTIVATIONS[name].function, x)
  tolerance = 2e-6 if dtype == np.float32 else 1e-13
  exact = x.astype(np.float64)
  np.testing.assert_allclose(once, first(exact), rtol=tolerance, atol=tolerance)
  np.testing.assert_allclose(twice, second(exact), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - set(INTEGRALS)))
def test_no_overflow_where_the_value_fits(name, x64):
  x = np.array([1e4, -1e4, 0.0], np.float32)
  for values in value_and_derivatives(ACTIVATIONS[name].function, x):
    assert values.dtype == np.float32
    assert np.all(np.isfinite(values))


@pytest.mark.parametrize("name", ["integrated_elu", "integrated_silu", "integrated_gelu",
                                  "integrated_softplus"])
def test_far_to_the_left_stays_at_its_limit(name):
  x = np.float32(-1e20)
  np.testing.assert_allclose(
      ACTIVATIONS[name].function(x), REFERENCES[name][3](np.float64(x)), rtol=1e-6)


@pytest.mark.parametrize("name", INTEGRALS)
def test_value_at_zero(name, x64):
  np.testing.assert_allclose(
      ACTIVATIONS[name].function(0.0), AT_ZERO.get(name, 0.0), rtol=1e-15, atol=0)


def test_irelu_is_zero_to_the_left_and_not_a_parabola():
  x = np.array([-3.0, -1.0, 0.0, 1.0, 2.0])
  np.testing.assert_array_equal(activations.irelu(x), [0, 0, 0, 0.5, 2])
  np.testing.assert_array_equal(activations.irelu(x, c=0.25, offset=1.0), [1, 1, 1, 1.25, 2])


def test_irelu_constant_is_a_factor_of_the_next_weight(x64):
  x = np.linspace(-2, 2, 11)
  np.testing.assert_array_equal(2 * 0.25 * activations.irelu(x), activations.irelu(x, c=0.25))


def test_irelu_differentiates_in_c_and_offset(x64):
  gradients = jax.grad(activations.irelu, argnums=(0, 1, 2))(3.0, 0.25, 1.0)
  np.testing.assert_allclose(gradients, [1.5, 9.0, 1.0])


@pytest.mark.parametrize("power", [1, 2, 3, 5])
def test_repu_is_the_rectified_power(power, x64):
  x = np.array([-1.5, 0.0, 0.5, 2.0])
  np.testing.assert_allclose(activations.repu(x, power), np.maximum(x, 0) ** power)


def test_usual_functions_by_formula(x64):
  x = np.linspace(-5, 5, 21)
  expected = {
      "relu": np.maximum(x, 0), "leaky_relu": np.where(x > 0, x, 0.01 * x),
      "elu": np.where(x > 0, x, np.expm1(x)), "silu": x * sigmoid(x),
      "gelu": x * special.ndtr(x), "softplus": np.log1p(np.exp(x)),
      "shifted_softplus": np.log(0.5 * np.exp(x) + 0.5), "scaled_silu": x * sigmoid(x) / 0.6,
      "tanh": np.tanh(x), "sine": np.sin(x), "mish": x * np.tanh(np.log1p(np.exp(x)))}
  for name, values in expected.items():
    np.testing.assert_allclose(ACTIVATIONS[name].function(x), values, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "name", daily.only(("irelu", "integrated_silu", "repu"), [*INTEGRALS, "repu"]))
def test_check_grads(name, x64):
  points = [-3.0, -0.7, 0.2, 1.0, 5.0]
  at_zero = [0.0, 1e-8, -1e-8] if ACTIVATIONS[name].order_at() >= 2 else []
  function = jax.jit(ACTIVATIONS[name].function)
  check_grads(function, (np.array(points + at_zero),), order=2, rtol=1e-4, atol=1e-4)


# --- Laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINKED)
def test_order_is_the_last_continuous_derivative(name, x64):
  function = ACTIVATIONS[name].function
  for k in range(4):
    left, right = jax.jit(jax.vmap(function))(np.array([-1e-12, 1e-12]))
    jumps = abs(right - left) > 0.1
    assert jumps == (k > ACTIVATIONS[name].order_at()), f"derivative {k}"
    if jumps:
      break
    function = jax.grad(function)


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_order_of_repu_follows_its_power(power):
  assert ACTIVATIONS["repu"].order_at(power=power) == power - 1


def test_order_of_a_number_is_that_at_all_parameters():
  assert ACTIVATIONS["irelu"].order_at(c=0.1) == ACTIVATIONS["irelu"].order_at() == 1


def test_order_is_what_the_record_says_whatever_the_parameter_is_called():
  steps = activations.Activation(jnp.tanh, lambda steps: 2 * steps, lambda steps: 1.0, ("steps",))
  assert steps.order_at(steps=3) == 6
  power = activations.Activation(jnp.tanh, math.inf, lambda power: 1.0, ("power",))
  assert power.order_at(power=3) == math.inf


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_gain_preserves_the_second_moment(name, x64):
  z = np.linspace(0, 12, 4001)
  squares = jax.jit(lambda z: ACTIVATIONS[name].function(z) ** 2)(np.stack([z, -z]))
  moment = np.sum(integrate.simpson(squares * density(z), z))
  assert ACTIVATIONS[name].gain() == pytest.approx(moment**-0.5, rel=1e-9)


@pytest.mark.parametrize(("name", "parameters"), [
    ("irelu", {"c": 0.1}), ("irelu", {"c": 1.0, "offset": -0.5}), ("repu", {"power": 3}),
    ("leaky_relu", {"negative_slope": 0.2}), ("integrated_leaky_relu", {"negative_slope": 0.2})],
    ids=str)
def test_gain_in_closed_form_equals_quadrature(name, parameters):
  record = ACTIVATIONS[name]
  measured = activations.variance_gain(partial(record.function, **parameters))
  assert record.gain(**parameters) == pytest.approx(measured, rel=1e-12)


@pytest.mark.parametrize("c", [0.1, 0.5, 1.0])
def test_irelu_gain_is_that_of_the_variance_map(c):
  assert ACTIVATIONS["irelu"].gain(c=c) == pytest.approx(math.sqrt(2 / (3 * c**2)))


def test_irelu_gain_of_a_traced_constant(x64):
  gains = jax.jit(jax.vmap(lambda c: ACTIVATIONS["irelu"].gain(c=c)))(np.array([0.25, 0.5]))
  np.testing.assert_allclose(gains, [4 * math.sqrt(2 / 3), 2 * math.sqrt(2 / 3)])


def test_gain_can_be_asked_for_while_tracing():
  assert jax.jit(lambda: ACTIVATIONS["silu"].gain())() == pytest.approx(
      ACTIVATIONS["silu"].gain(), rel=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_table_names_functions_and_their_parameters(name):
  record = ACTIVATIONS[name]
  assert getattr(activations, name) is record.function
  assert tuple(inspect.signature(record.function).parameters)[1:] == record.parameters
  assert set(record.static) <= set(record.parameters)
  assert record.function.__doc__


# --- Objects in the place of names -----------------------------------------------------------


def snake(x):
  return x + jnp.sin(x) ** 2


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_name_and_its_function_resolve_to_the_record_of_the_table(name):
  record = ACTIVATIONS[name]
  assert activations.resolve(name) is activations.resolve(record.function) is record
  assert activations.resolve(record) is record


@pytest.mark.parametrize("function", [
    snake, jnp.tanh, jax.jit(snake), partial(activations.irelu, c=0.3), lambda x: x * x],
    ids=["function", "jax", "jit", "partial", "lambda"])
def test_own_function_has_a_gain_and_no_known_order(function, x64):
  record = activations.resolve(function)
  assert record.function is function and record.order_at() is None
  assert record.parameters == record.static == ()
  z = np.linspace(0, 12, 4001)
  moment = np.sum(integrate.simpson(np.stack([function(z), function(-z)]) ** 2 * density(z), z))
  assert record.gain() == pytest.approx(moment**-0.5, rel=1e-9)


@pytest.mark.parametrize(("spec", "message"), [
    ("tnah", "unknown activation 'tnah': did you mean 'tanh'.*known are relu, leaky_relu"),
    ("qqq", "unknown activation 'qqq': known are relu"),
    (lambda x, slope: slope * x, "<lambda> fails on an array: TypeError.*functools.partial"),
    (jnp.sum, r"sum maps .* to .*shape=\(\).*works on each element"),
    (lambda x: x > 0, "same shape and type"),
    (lambda x: (x, x), "same shape and type"),
    (lambda x: x if x > 0 else 0 * x, "fails on an array: .*truth value"),
    (lambda x: math.tanh(x), "fails on an array: .*jax.numpy"),
    (3, "expected the name of an activation, or a function, received 3; known"),
    (None, "received None; known")],
    ids=["misspelt", "unknown", "two arguments", "sum", "mask", "pair", "branch", "math",
         "number", "none"])
def test_what_is_no_activation_is_refused_in_one_line(spec, message):
  with pytest.raises(ValueError, match=message) as caught:
    inspect.unwrap(activations.resolve)(spec)
  assert "\n" not in str(caught.value)


# --- Programs --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_jit_is_eager_and_vmap_is_loop(name, x64):
  value_and_slope = jax.value_and_grad(ACTIVATIONS[name].function)
  x = np.array([-3.0, -0.3, 0.0, 0.7])
  expected = np.transpose([value_and_slope(value) for value in x])
  np.testing.assert_allclose(
      jax.jit(jax.vmap(value_and_slope))(x), expected, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("x", [2, 2.0, np.float32(2), np.float64(2), np.full((), 2.0)], ids=repr)
def test_numbers_are_accepted(x):
  assert activations.irelu(x) == 2
  assert activations.integrated_elu(x) == 2


def test_irelu_vmaps_over_its_constants():
  c = np.array([0.1, 0.5, 1.0], np.float32)
  x = np.linspace(-1, 1, 5, dtype=np.float32)
  stacked = jax.jit(jax.vmap(lambda c: activations.irelu(x, c=c)))(c)
  np.testing.assert_allclose(stacked, c[:, None] * np.maximum(x, 0) ** 2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_dtype_is_kept(name, dtype, x64):
  x = jax.ShapeDtypeStruct((2,), dtype)
  result = jax.eval_shape(ACTIVATIONS[name].function, x)
  assert (result.dtype, result.shape) == (dtype, (2,))


# --- Bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0, -1, True], ids=str)
def test_repu_refuses_a_power_below_one(power):
  with pytest.raises(ValueError, match="integer of at least 1, received"):
    activations.repu(1.0, power)


def test_gain_of_a_constant_zero_is_refused():
  with pytest.raises(ValueError, match="positive finite second moment, received 0.0"):
    activations.variance_gain(lambda z: 0 * z)


def test_table_is_read_only():
  with pytest.raises(TypeError):
    ACTIVATIONS["mine"] = ACTIVATIONS["relu"]  # pyright: ignore[reportIndexIssue]
