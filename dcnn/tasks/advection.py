"""One-dimensional advection by its residual: u_t + speed u_x = 0, periodic in x, without data.

The domain is 0 <= t <= horizon, 0 <= x < 1, and u(0, x) = u0(x). The exact solution is
u0(x - speed t), so that errors are known, and never seen in training: the loss is the mean penalty
of the residual at points that are drawn anew in every step, and checkpoints are chosen by the
residual at other points. Periodicity is built into the network, which sees x as an angle; the
initial condition is built in by u = u0 + (t / horizon) N, or asked for by a term of its own.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from dcnn.base.measures import Measures, Metric, Picture
from dcnn.base.splits import Frames, Indices, Training
from dcnn.tasks.base import Fitted, Hypers, Pair, Problem, Task, Term, Variables, mean_term

#: Amplitudes, wave numbers and phases of the initial condition, of mean 0.
WAVES = ((0.8, 1, 0.3), (0.5, 3, 1.1))
# The additive recurrence of lowest discrepancy in two dimensions: powers of 1 / plastic number.
_STEPS = (1 / 1.324717957244746, 1 / 1.324717957244746**2)
#: The most points that an evaluation takes at a time.
EVALUATION_BATCH = 1024

#: An array of JAX or of NumPy.
AnyArray = Array | np.ndarray
#: A function of each element of an array.
Activation = Callable[[Array], Array]
#: `(variables, time, position) -> u` at one point.
Field = Callable[[Variables, Any, Any], Array]
#: `(residuals, hypers) -> penalties`.
Penalty = Callable[[Array, Hypers], Array]

#: What is reported of a solution.
MEASURES = Measures(
    metrics=(
        Metric("nrmse", "1", "error", compared=True, label="solution", subject="the solution",
               meaning="Root mean square error of the solution over the points of the split, "
               "divided by the root mean square of the exact solution there."),
        Metric("residual_rms", "1", "error", compared=True, label="residual",
               subject="the residual",
               meaning="Root mean square of u_t + speed u_x over the points of the split. It needs "
               "no solution, and validation chooses checkpoints by it."),
        Metric("within_one_percent", "1", "share", label="within 1 %",
               meaning="Share of the points at which the error is within 1 % of the largest value "
               "of the initial condition; median over the finished runs."),
        Metric("skill", "1", "skill", label="solution", subject="the solution", of="nrmse",
               meaning="1 − nrmse / nrmse of the initial condition held for all times. Shown is "
               "1 − the geometric mean of these ratios over the finished runs."),
    ),
    watched="nrmse",
    pictures=(Picture(
        "field", "u(t, x)", "1",
        {"true": "u_true", "predicted": "u_predicted", "horizontal": "x", "vertical": "t"},
        axes=("x", "t")),),
    caption="The exact solution is the initial condition, moved along at the speed.")


class Equation(NamedTuple):
  """The problem that is solved.

  Attributes:
    speed: The speed at which the solution moves.
    horizon: The time up to which it is solved.
    hard_initial: Whether the initial condition is built into the solution.
  """

  speed: float = 1.0
  horizon: float = 0.25
  hard_initial: bool = True


class Points(NamedTuple):
  """Points of the domain in unit coordinates: time / horizon and position, each from 0 to 1."""

  time: Float[AnyArray, "*batch"]
  position: Float[AnyArray, "*batch"]


def initial(position: Float[AnyArray, "*batch"]) -> Float[Array, "*batch"]:
  """u0(x): two waves of period 1 and 1/3.

  >>> bool(jnp.allclose(initial(jnp.array(0.25)), initial(jnp.array(1.25)), atol=1e-6))
  True
  """
  return sum((amplitude * jnp.sin(2 * jnp.pi * number * position + phase)
              for amplitude, number, phase in WAVES), start=jnp.zeros_like(jnp.asarray(position)))


def exact(
    equation: Equation, time: Float[AnyArray, "*batch"], position: Float[AnyArray, "*batch"]
) -> Float[Array, "*batch"]:
  """The solution u0(x - speed t)."""
  return initial(position - equation.speed * time)


def residual(field: Field, equation: Equation) -> Field:
  """u_t + speed u_x of a field, one derivative along the direction (1, speed).

  Args:
    field: `(variables, time, position) -> u`, of one point.
    equation: The problem.

  Returns:
    The same signature; zero for `exact`.
  """
  def residual_fn(
      variables: Variables, time: Float[Array, ""], position: Float[Array, ""]) -> Array:
    speed = jnp.asarray(equation.speed, jnp.asarray(position).dtype)
    _, along = jax.jvp(functools.partial(field, variables), (time, position),
                       (jnp.ones_like(time), speed * jnp.ones_like(position)))
    return along

  return residual_fn


def init_network(
    key: Key[Array, ""], hidden: Sequence[int], gain: Float[Array, ""] | float = 1.0) -> Variables:
  """Weights of standard deviation gain / sqrt(inputs) and biases 0 of a multilayer perceptron.

  Args:
    key: The random key.
    hidden: Sizes of the hidden layers.
    gain: The gain of the layers that read an activation; the first reads the coordinates.

  Returns:
    Flax-like variables: `params` of each layer.
  """
  sizes = (3, *hidden, 1)
  params = {}
  for i, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
    scale = (gain if i else 1.0) / inputs**0.5
    params[f"layer_{i}"] = {
        "kernel": scale * jax.random.normal(jax.random.fold_in(key, i), (inputs, outputs)),
        "bias": jnp.zeros(outputs)}
  return {"params": params}


def network(
    variables: Variables, inputs: Float[Array, " inputs"], activation: Activation,
    output_activation: Activation,
) -> Float[Array, ""]:
  """The value of the multilayer perceptron at one point; the last hidden layer may differ."""
  *hidden, last = variables["params"].values()
  for i, layer in enumerate(hidden):
    function = output_activation if i == len(hidden) - 1 else activation
    inputs = function(inputs @ layer["kernel"] + layer["bias"])
  return (inputs @ last["kernel"] + last["bias"])[0]


def make_field(
    equation: Equation, activation: Activation, output_activation: Activation | None = None
) -> Field:
  """The trained solution: periodic in x and, if that is built in, equal to u0 at t = 0.

  Args:
    equation: The problem.
    activation: The activation of the network.
    output_activation: The activation of the last hidden layer; None for the same.

  Returns:
    `(variables, time, position) -> u` of one point.
  """
  def field(
      variables: Variables, time: Float[Array, ""], position: Float[Array, ""]) -> Array:
    angle, since = 2 * jnp.pi * position, time / equation.horizon
    inputs = jnp.stack([2 * since - 1, jnp.cos(angle), jnp.sin(angle)])
    value = network(variables, inputs, activation, output_activation or activation)
    return initial(position) + since * value if equation.hard_initial else value

  return field


def make_task(
    equation: Equation, init: Callable[[Array, Hypers], Variables],
    make: Callable[[Hypers], Field], penalty: Penalty,
) -> Task:
  """The device half: residuals at fresh points, and errors against the exact solution.

  Args:
    equation: The problem.
    init: `(key, hypers) -> variables`.
    make: Makes the field from hyperparameters, which may be traced.
    penalty: `(residuals, hypers) -> penalties`.

  Returns:
    Functions of the hyperparameters `residual_weight`, `initial_weight` (unless the initial
    condition is built in) and those that the arguments read.
  """
  def values(function: Field, variables: Variables, points: Points) -> Array:
    return jax.vmap(function, (None, 0, 0))(
        variables, equation.horizon * points.time, points.position)

  def mismatch(field: Field, variables: Variables, points: Points) -> Array:
    """How far the initial condition is missed at the positions of the points."""
    start = points._replace(time=jnp.zeros_like(points.time))
    return values(field, variables, start) - initial(points.position)

  def loss(variables: Variables, hypers: Hypers, batch: Points, key: Key[Array, ""]):
    # One random shift a step keeps the low discrepancy of the points, and makes each uniform.
    shift = jax.random.uniform(key, (2,))
    points = Points((batch.time + shift[0]) % 1.0, (batch.position + shift[1]) % 1.0)
    field = make(hypers)
    terms: dict[str, Term] = {"residual": mean_term(hypers["residual_weight"], penalty(
        values(residual(field, equation), variables, points), hypers))}
    if not equation.hard_initial:
      terms["initial"] = mean_term(
          hypers["initial_weight"], penalty(mismatch(field, variables, points), hypers))
    return terms, {}

  def evaluate(
      variables: Variables, hypers: Hypers, batch: Points, counted: Bool[Array, " batch"]
  ) -> dict[str, Array]:
    field = make(hypers)
    reference = exact(equation, equation.horizon * batch.time, batch.position)
    error = values(field, variables, batch) - reference
    within = jnp.abs(error) <= 0.01 * sum(amplitude for amplitude, _, _ in WAVES)
    squares = {
        "squared_error": error, "squared_reference": reference,
        "squared_residual": values(residual(field, equation), variables, batch),
        "squared_mismatch": mismatch(field, variables, batch)}
    sums = {name: jnp.sum(jnp.where(counted, jnp.square(each), 0.0))
            for name, each in squares.items()}
    return {**sums, "within": jnp.sum(counted & within).astype(jnp.float32),
            "points": jnp.sum(counted).astype(jnp.float32)}

  def score(sums: Mapping[str, Array], hypers: Hypers) -> Array:
    """The mean square residual, and that of the initial condition if it is not built in."""
    total = hypers["residual_weight"] * sums["squared_residual"]
    if not equation.hard_initial:
      total = total + hypers["initial_weight"] * sums["squared_mismatch"]
    return total / sums["points"]

  terms = ("residual",) if equation.hard_initial else ("residual", "initial")
  return Task(terms, init, loss, evaluate, score, lambda variables, hypers, batch: values(
      make(hypers), variables, batch))


class Collocation(NamedTuple):
  """The points of an experiment.

  Attributes:
    points: All points: those of training, of validation, and the grid of the test.
    splits: Which are which.
    grid: The number of times and of positions of the test grid.
  """

  points: Points
  splits: Indices
  grid: tuple[int, int]


def collocation(train: int, valid: int, grid: tuple[int, int]) -> Collocation:
  """Points of low discrepancy for training and validation, and a grid to test on.

  Args:
    train: The number of training points, which every step shifts at random.
    valid: The number of validation points.
    grid: The number of times and of positions of the test grid.

  Returns:
    Points in unit coordinates, float32.
  """
  lattice = (0.5 + np.arange(train + valid)[:, None] * np.array(_STEPS)) % 1.0
  times, positions = np.linspace(0, 1, grid[0]), np.arange(grid[1]) / grid[1]
  time, position = np.meshgrid(times, positions, indexing="ij")
  everything = [np.concatenate([lattice[:, i], each.ravel()]).astype(np.float32)
                for i, each in enumerate((time, position))]
  ends = np.cumsum([train, valid, time.size])
  return Collocation(Points(*everything), Indices(*np.split(np.arange(ends[-1]), ends[:-1])), grid)


def make_problem(equation: Equation, data: Collocation) -> Problem:
  """The host half: points, the errors of the initial condition, and the picture of the solution."""
  return Problem(
      frames=len(data.points.time),
      shared=lambda frames: Points(*(each[frames] for each in data.points)),
      take=lambda all_data, indices: Points(*(each[indices] for each in all_data[0])),
      evaluation_batch=EVALUATION_BATCH,
      measures=MEASURES,
      errors=lambda sums: {
          "nrmse": _root(sums["squared_error"], sums["squared_reference"]),
          "residual_rms": _root(sums["squared_residual"], sums["points"])},
      finish=_finish,
      baseline=functools.partial(_baseline, equation, data),
      pairs=functools.partial(_pairs, equation, data),
      predictions=functools.partial(_predictions, equation, data))


def fit(_: Frames) -> Fitted:
  """What a run makes of its training points: nothing, because all runs see the same."""
  return Fitted({}, lambda frames: (), {})


def _root(total: Any, count: Any) -> Any:
  return np.sqrt(np.asarray(total, np.float64) / np.asarray(count, np.float64))


def _finish(sums: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
  nrmse = float(_root(sums["squared_error"], sums["squared_reference"]))
  return {
      "nrmse": nrmse,
      "residual_rms": float(_root(sums["squared_residual"], sums["points"])),
      "within_one_percent": sums["within"] / sums["points"],
      "skill": 1 - nrmse / baseline["nrmse"] if baseline["nrmse"] else float("nan")}


def _solution(equation: Equation, points: Points) -> Float[np.ndarray, " frames"]:
  """The exact solution at points in unit coordinates, float64 NumPy."""
  time, position = (np.asarray(each, np.float64) for each in points)
  moved = position - equation.speed * equation.horizon * time
  return sum((amplitude * np.sin(2 * np.pi * number * moved + phase)
              for amplitude, number, phase in WAVES), start=np.zeros_like(moved))


def _baseline(
    equation: Equation, data: Collocation, train: Training, frames: Frames) -> dict[str, float]:
  del train  # the initial condition is known without it
  points = Points(*(each[frames] for each in data.points))
  reference = _solution(equation, points)
  held = _solution(equation._replace(speed=0.0), points)
  return {"nrmse": float(_root(np.sum((held - reference)**2), np.sum(reference**2)))}


def _pairs(
    equation: Equation, data: Collocation, frames: Int[np.ndarray, " frames"], predicted: Any,
    run: Fitted,
) -> dict[str, Pair]:
  del run
  points = Points(*(each[frames] for each in data.points))
  return {"u": Pair(_solution(equation, points), np.asarray(predicted, np.float64), "1")}


def _predictions(
    equation: Equation, data: Collocation, frames: Int[np.ndarray, " frames"], predicted: Any,
    run: Fitted,
) -> dict[str, np.ndarray]:
  pair = _pairs(equation, data, frames, predicted, run)["u"]
  times, positions = data.grid
  return {
      "u_true": pair.true.reshape(data.grid), "u_predicted": pair.predicted.reshape(data.grid),
      "t": equation.horizon * np.linspace(0, 1, times), "x": np.arange(positions) / positions}
