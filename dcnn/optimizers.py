"""Optimisers and learning-rate schedules by name, and how they are put together.

`make` composes, for the hyperparameters of a run, clipping of the gradient, the optimiser,
decoupled weight decay, a schedule with its warm-up and the learning rate. Each optimiser below says
which learning rates and which weight decay it needs.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from optax import contrib

from dcnn.base import text

#: A setting, which may be traced.
Number = Float[Array, ""] | float
#: The learning rate as a function of the number of steps taken.
Rate = Callable[[Any], Any]
#: Settings by name.
Hypers = Mapping[str, Any]
#: What an optimiser may take: the names are those of the settings under `optimizer`.
PARAMETERS = ("learning_rate", "weight_decay", "eps", "b1", "b2", "momentum")


class Optimizer(NamedTuple):
  """An optimiser, the hyperparameters that it takes and what it needs.

  Attributes:
    function: Makes the optax transformation from the `parameters`, by keyword. If they include
      `learning_rate`, a function of the number of steps taken, its updates are added to the
      variables as they are. Otherwise they are descent directions with the sign of the gradient,
      which `make` decays, schedules and multiplies by minus the learning rate.
    parameters: Which of `PARAMETERS` the function takes. One for which a run has no value keeps the
      default of the function.
    flat: Whether all variables may be given as one vector, which costs a third of the kernels.
      Optimisers that treat matrices as matrices need False.
    needs_decay: Whether a weight decay of 0 makes it another optimiser.
    rates: Least and largest learning rate that its authors recommend.
    needs_constant_rate: Whether a learning rate that falls defeats its purpose.
    evaluated: From the state of the transformation that `make` made, and the variables that are
      trained, to the variables that are evaluated; None where they are the same.
  """

  function: Callable[..., optax.GradientTransformation]
  parameters: tuple[str, ...] = ()
  flat: bool = False
  needs_decay: bool = False
  rates: tuple[float, float] = (0.0, math.inf)
  needs_constant_rate: bool = False
  evaluated: Callable[[optax.OptState, optax.Params], optax.Params] | None = None


def adam(
    b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8) -> optax.GradientTransformation:
  """Adam: m / (sqrt(v) + eps), with running means m of the gradient and v of its square.

  Learning rates of 1e-4 to 1e-2 are usual. A weight decay is decoupled from the gradient, which is
  what is called AdamW; 1e-4 to 1e-1 are usual there.

  Args:
    b1: Decay rate of the mean of the gradient.
    b2: Decay rate of the mean of its square.
    eps: Is added to the root, in the unit of the gradient.

  Returns:
    The direction, of a size of about 1.

  References:
    D. P. Kingma and J. Ba, Adam, ICLR 2015, arXiv:1412.6980, Algorithm 1.
    I. Loshchilov and F. Hutter, Decoupled weight decay regularization, ICLR 2019, arXiv:1711.05101.
  """
  return optax.scale_by_adam(b1=b1, b2=b2, eps=eps)


def sgd(momentum: Number = 0.0) -> optax.GradientTransformation:
  """Gradient descent with heavy-ball momentum: the sum of momentum^k gradient(t - k) over k.

  The learning rate has the unit of variables squared by loss, so it depends on the scale of the
  loss: start at 1e-2 divided by the curvature, and lower it by 1 - momentum. The weight decay is
  decoupled from the gradient; momentum does not accumulate it.

  Args:
    momentum: From 0, which is plain gradient descent, to below 1; 0.9 is usual.

  Returns:
    The direction, in the unit of the gradient.

  References:
    I. Sutskever et al., On the importance of initialization and momentum in deep learning,
    ICML 2013.
  """
  return optax.trace(decay=momentum)


def lion(b1: Number = 0.9, b2: Number = 0.99) -> optax.GradientTransformation:
  """Lion: the sign of a running mean of the gradient, so that all steps have one size.

  Learning rates are 3 to 10 times smaller than those of AdamW, and the weight decay 3 to 10 times
  larger, so that their product stays the same.

  Args:
    b1: Weight of the mean against the present gradient in the direction.
    b2: Decay rate of the mean of the gradient.

  Returns:
    The direction, 1 or -1 for each variable.

  References:
    X. Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023, arXiv:2302.06675,
    Algorithm 2 and section 5.
  """
  return optax.scale_by_lion(b1=b1, b2=b2)


def muon(
    learning_rate: Rate, weight_decay: Number = 0.0, momentum: Number = 0.95, b1: Number = 0.9,
    b2: Number = 0.999, eps: Number = 1e-8,
) -> optax.GradientTransformation:
  """Muon: the momentum of each weight matrix made orthogonal; Adam for all that is no matrix.

  The steps are scaled to the size of Adam's (Liu et al., Eq. 4), so one learning rate, that of
  AdamW, serves both kinds of variables, and so does the weight decay, for which 1e-2 to 1e-1 are
  recommended. Embeddings count as matrices, too.

  Args:
    learning_rate: Function of the number of steps taken.
    weight_decay: Rate at which all variables decay, times the learning rate.
    momentum: Decay rate of the mean of the gradient of a matrix.
    b1: Decay rate of Adam's mean of the gradient.
    b2: Decay rate of Adam's mean of its square.
    eps: Is added to denominators.

  Returns:
    The update of the variables.

  References:
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024).
    J. Liu et al., Muon is scalable for LLM training (2025), arXiv:2502.16982.
  """
  return contrib.muon(
      learning_rate, beta=momentum, eps=eps, weight_decay=weight_decay, adam_b1=b1, adam_b2=b2,
      adam_weight_decay=weight_decay, consistent_rms=0.2)


def schedule_free(
    learning_rate: Rate, weight_decay: Number = 0.0, b1: Number = 0.9, b2: Number = 0.999,
    eps: Number = 1e-8,
) -> optax.GradientTransformation:
  """Schedule-free AdamW: an average of the iterates takes the place of a falling learning rate.

  The gradient is taken between the last iterate and the average, and the average is what is
  evaluated. Take a constant schedule, a warm-up, and learning rates of 1 to 10 times those of
  AdamW. No moving average of the parameters is to be kept beside it.

  Args:
    learning_rate: Function of the number of steps taken.
    weight_decay: Rate at which all variables decay, times the learning rate.
    b1: Weight of the average in the point at which the gradient is taken; above 0.
    b2: Decay rate of the mean of the gradient's square.
    eps: Is added to the root, in the unit of the gradient.

  Returns:
    The update of the point at which the gradient is taken.

  References:
    A. Defazio et al., The road less scheduled, NeurIPS 2024, arXiv:2405.15682, Algorithm 1.
  """
  return contrib.schedule_free_adamw(
      learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)  # pyright: ignore


def prodigy(
    learning_rate: Rate, weight_decay: Number = 0.0, b1: Number = 0.9, b2: Number = 0.999,
    eps: Number = 1e-8,
) -> optax.GradientTransformation:
  """Prodigy: Adam that estimates its learning rate from the distance it has covered.

  The estimate starts at 1e-6 and grows. It is multiplied by the learning rate given, which is to be
  1; a schedule and a warm-up multiply it, too, and a cosine is recommended. The weight decay is
  decoupled.

  Args:
    learning_rate: Function of the number of steps taken, of about 1.
    weight_decay: Rate at which all variables decay, times the estimated learning rate.
    b1: Decay rate of the mean of the gradient.
    b2: Decay rate of the mean of its square.
    eps: Is added to the root.

  Returns:
    The update of the variables.

  References:
    K. Mishchenko and A. Defazio, Prodigy: an expeditiously adaptive parameter-free learner,
    ICML 2024, arXiv:2306.06101, Algorithm 4.
  """
  return contrib.prodigy(
      learning_rate, betas=(b1, b2), eps=eps, weight_decay=weight_decay)


class SoapState(NamedTuple):
  """What `soap` keeps for variables; the last four hold, for what is no matrix, nothing.

  Attributes:
    count: Number of updates, ().
    mean: Running mean of the gradient, of the variables' shapes.
    square: Running mean of its square in the eigenbasis, of the same shapes.
    left: Running mean of gradient gradient^T, (..., rows, rows) for a matrix (..., rows, columns).
    right: Running mean of gradient^T gradient, (..., columns, columns).
    left_basis: Eigenvectors of `left` as columns.
    right_basis: Eigenvectors of `right` as columns.
  """

  count: Array
  mean: Any
  square: Any
  left: Any
  right: Any
  left_basis: Any
  right_basis: Any


def soap(
    b1: Number = 0.95, b2: Number = 0.95, eps: Number = 1e-8, every: int = 10,
) -> optax.GradientTransformation:
  """SOAP: Adam in the eigenbasis of Shampoo's preconditioner of each weight matrix.

  Learning rates are those of AdamW, up to 3e-3; so is the weight decay. Variables of three axes and
  more are matrices along their last two, and what is no matrix gets Adam. The eigenbasis is
  computed anew, at the first step and every few, from the mean of the gradients so far; the first
  gradient is used, where the authors' code passes over it. Each root is raised by 100 roundings of
  the gradient's norm.

  Args:
    b1: Decay rate of the mean of the gradient.
    b2: Decay rate of the mean of its square, and of the preconditioner.
    eps: Is added to the root, in the unit of the gradient.
    every: Number of steps for which an eigenbasis serves. Where runs are vmapped, as on a GPU, it
      is computed at every step and used at each of these.

  Returns:
    The direction, of a size of about 1.

  References:
    N. Vyas et al., SOAP: improving and stabilizing Shampoo using Adam, ICLR 2025,
    arXiv:2409.11321, Algorithm 3, with an eigendecomposition in place of Algorithm 4.
  """
  def init(params: optax.Params) -> SoapState:
    zeros = jax.tree.map(jnp.zeros_like, params)
    left, right = jax.tree.map(_left, zeros), jax.tree.map(_right, zeros)
    return SoapState(jnp.zeros((), jnp.int32), zeros, zeros, left, right, left, right)

  def update(
      gradient: optax.Updates, state: SoapState, params: Any = None,
  ) -> tuple[optax.Updates, SoapState]:
    del params
    count = state.count + 1
    average = functools.partial(jax.tree.map, lambda old, new: b2 * old + (1 - b2) * new)
    left = average(state.left, jax.tree.map(_left, gradient))
    right = average(state.right, jax.tree.map(_right, gradient))
    left_basis, right_basis = jax.lax.cond(
        state.count % every == 0, lambda: jax.tree.map(_eigenvectors, (left, right)),
        lambda: (state.left_basis, state.right_basis))
    mean = jax.tree.map(lambda old, new: b1 * old + (1 - b1) * new, state.mean, gradient)
    turned = jax.tree.map(_into, left_basis, right_basis, gradient)
    square = average(state.square, jax.tree.map(jnp.square, turned))

    def direction(left: Array, right: Array, mean: Array, square: Array) -> Array:
      square = square / (1 - b2**count)
      # Turning a matrix fills directions in which it has no gradient with rounding of the others.
      norm = jnp.sqrt(jnp.sum(square, (-2, -1), keepdims=True)) if square.ndim > 1 else 0.0
      root = jnp.sqrt(square) + eps + 100 * jnp.finfo(square.dtype).eps * norm
      return _back(left, right, _into(left, right, mean) / (1 - b1**count) / root)

    updates = jax.tree.map(direction, left_basis, right_basis, mean, square)
    return updates, SoapState(count, mean, square, left, right, left_basis, right_basis)

  return optax.GradientTransformation(init, update)  # pyright: ignore


def _left(matrix: Array) -> Array:
  return matrix @ matrix.mT if matrix.ndim > 1 else jnp.zeros(0, matrix.dtype)


def _right(matrix: Array) -> Array:
  return matrix.mT @ matrix if matrix.ndim > 1 else jnp.zeros(0, matrix.dtype)


def _eigenvectors(factor: Array) -> Array:
  return jnp.linalg.eigh(factor)[1] if factor.ndim > 1 else factor


def _into(left: Array, right: Array, matrix: Array) -> Array:
  """A matrix in the eigenbasis."""
  return left.mT @ matrix @ right if matrix.ndim > 1 else matrix


def _back(left: Array, right: Array, matrix: Array) -> Array:
  """A matrix of the eigenbasis in that of the variables."""
  return left @ matrix @ right.mT if matrix.ndim > 1 else matrix


def _average(state: optax.OptState, params: optax.Params) -> optax.Params:
  """The average of the iterates of `schedule_free`, whose state is of variables in one vector."""
  def is_found(node: Any) -> bool:
    return isinstance(node, contrib.ScheduleFreeState)

  found = next(node for node in jax.tree.leaves(state, is_leaf=is_found) if is_found(node))
  vector, unravel = ravel_pytree(params)
  return unravel(contrib.schedule_free_eval_params(found, vector))


_RATE_INSIDE = ("learning_rate", "weight_decay", "b1", "b2", "eps")
#: Every optimiser by the name that `optimizer.name` takes.
OPTIMIZERS: Mapping[str, Optimizer] = {
    "adam": Optimizer(adam, ("b1", "b2", "eps"), flat=True),
    "adamw": Optimizer(adam, ("b1", "b2", "eps"), flat=True, needs_decay=True),
    "sgd": Optimizer(sgd, ("momentum",), flat=True),
    "lion": Optimizer(lion, ("b1", "b2"), flat=True, rates=(1e-6, 2e-3)),
    "muon": Optimizer(muon, (*_RATE_INSIDE, "momentum")),
    "schedule_free": Optimizer(
        schedule_free, _RATE_INSIDE, flat=True, needs_constant_rate=True, evaluated=_average),
    "prodigy": Optimizer(prodigy, _RATE_INSIDE, flat=True, rates=(0.1, 10.0)),
    "soap": Optimizer(soap, ("b1", "b2", "eps")),
}


def resolve(spec: Any) -> Optimizer:
  """The optimiser of a name; one of the user's own is taken as it is.

  Args:
    spec: A name of `OPTIMIZERS`, an `Optimizer`, or a function that makes an optax transformation
      and takes some of `PARAMETERS`, such as `optax.adabelief` or `optax.scale_by_belief`. A
      function with `learning_rate` gets it as a function of the number of steps taken.

  Returns:
    The optimiser, with the names of the parameters that it takes.

  Raises:
    ValueError: If there is no optimiser of that name, or if `spec` is no function, or one that
      needs other parameters.

  >>> resolve("lion").parameters
  ('b1', 'b2')
  >>> resolve(optax.adabelief).parameters
  ('learning_rate', 'eps', 'b1', 'b2')
  """
  if isinstance(spec, str):
    if spec not in OPTIMIZERS:
      raise ValueError(text.unknown("optimizer", spec, OPTIMIZERS))
    spec = OPTIMIZERS[spec]
  if isinstance(spec, Optimizer):
    return spec
  own: Callable[..., optax.GradientTransformation] = spec
  if not callable(spec):
    raise ValueError(
        "expected the name of an optimizer, a function that makes one, such as optax.adabelief, "
        f"or an optimizers.Optimizer, received {text.one_line(repr(spec))[:60]}: pass the "
        "function itself and not what it returns")
  fields = inspect.signature(spec).parameters
  required = [name for name, field in fields.items()
              if name not in PARAMETERS and field.default is field.empty
              and field.kind not in (field.VAR_POSITIONAL, field.VAR_KEYWORD)]
  if required:
    raise ValueError(
        f"the optimizer {_name(spec)} needs {', '.join(required)}, and a configuration sets "
        f"{', '.join(PARAMETERS)}: give what else it needs a default, as with functools.partial")
  return Optimizer(own, tuple(name for name in PARAMETERS if name in fields))


def _name(function: Callable[..., Any]) -> str:
  return getattr(function, "__name__", type(function).__name__)


def pitfalls(spec: Any, *, learning_rate: float, schedule: Any) -> tuple[str, ...]:
  """What can be run with an optimiser and goes against what it was made for.

  Args:
    spec: What `resolve` takes.
    learning_rate: The learning rate before the schedule.
    schedule: What `resolve_schedule` takes.

  Returns:
    Sentences for a warning, each with what to do; none if all is well.

  >>> pitfalls("prodigy", learning_rate=1e-3, schedule="cosine")
  ('learning_rate=0.001 lies outside 0.1 to 10, which prodigy is made for',)
  """
  record = resolve(spec)
  name, (least, most) = _name(record.function), record.rates
  found = []
  if not least <= learning_rate <= most:
    found.append(f"learning_rate={learning_rate:g} lies outside {least:g} to {most:g}, which "
                 f"{name} is made for")
  if record.needs_constant_rate and isinstance(schedule, str) and schedule != "constant":
    found.append(f"{name} replaces a schedule, and schedule={schedule} lowers the learning rate, "
                 "too: take constant")
  return tuple(found)


def make(
    spec: Any,
    *,
    steps: int,
    schedule: Any = "constant",
    warmup: int = 0,
    clip: bool = False,
    weight_decay: bool = False,
) -> Callable[[Hypers], optax.GradientTransformation]:
  """Composes an optimiser with clipping, weight decay, a schedule, a warm-up and a learning rate.

  Args:
    spec: What `resolve` takes.
    steps: Number of steps of the training, the warm-up included.
    schedule: What `resolve_schedule` takes; it gets the number of steps after the warm-up.
    warmup: Number of steps over which the learning rate rises; below `steps`.
    clip: Whether the global norm of the gradient is clipped at the hyperparameter `clip_norm`.
    weight_decay: Whether variables decay by the hyperparameter `weight_decay`, times the learning
      rate.

  Returns:
    From hyperparameters by name, which may be traced, to an optax transformation. They must have
    `learning_rate` and what is switched on; those of the optimiser's own parameters that they lack
    keep their defaults.

  Raises:
    ValueError: As `resolve` and `resolve_schedule` do, and if the optimiser and the weight decay do
      not go together.

  >>> optimizer = make("sgd", steps=10, warmup=1)({"learning_rate": 0.5})
  >>> state = optimizer.init(jax.numpy.zeros(2))
  >>> updates, state = optimizer.update(jax.numpy.array([4.0, 8.0]), state)
  >>> print(updates)
  [-1. -2.]
  """
  record = resolve(spec)
  _require_decay(record, weight_decay)
  factor = _factor(schedule, steps, warmup)
  own = tuple(name for name in record.parameters if name not in ("learning_rate", "weight_decay"))

  def make_optimizer(hypers: Hypers) -> optax.GradientTransformation:
    parameters = {name: hypers[name] for name in own if name in hypers}
    if "weight_decay" in record.parameters:
      parameters["weight_decay"] = hypers["weight_decay"] if weight_decay else 0.0
    clipping = [optax.clip_by_global_norm(hypers["clip_norm"])] if clip else []
    if "learning_rate" in record.parameters:
      chain = optax.chain(*clipping, record.function(
          learning_rate=lambda count: hypers["learning_rate"] * factor(count), **parameters))
    else:
      is_chained = weight_decay and "weight_decay" not in record.parameters
      chain = optax.chain(
          *clipping,
          record.function(**parameters),
          *([optax.add_decayed_weights(hypers["weight_decay"])] if is_chained else []),
          optax.scale_by_schedule(factor),
          optax.scale(-hypers["learning_rate"]))
    return optax.flatten(chain) if record.flat else chain

  return make_optimizer


def _require_decay(record: Optimizer, weight_decay: bool) -> None:
  name = _name(record.function)
  if record.needs_decay and not weight_decay:
    raise ValueError(f"the optimizer needs a weight decay, and with weight_decay=0 it is {name}: "
                     f"set weight_decay, for example to 1e-2, or take {name}")
  if weight_decay and "learning_rate" in record.parameters and (
      "weight_decay" not in record.parameters):
    raise ValueError(f"the optimizer {name} takes learning_rate and no weight_decay: give it this "
                     "parameter, or set weight_decay=0")


def _factor(schedule: Any, steps: int, warmup: int) -> optax.Schedule:
  """The factor on the learning rate as a function of the number of steps taken."""
  factor = resolve_schedule(schedule)(steps - warmup)
  if not callable(factor):
    raise ValueError(
        "expected a schedule that maps the number of steps of a training to a function of the "
        f"number of steps taken, received one that gives {text.one_line(repr(factor))[:60]}: take "
        "lambda steps: schedule")
  if not warmup:
    return factor
  rise = optax.linear_schedule(1 / (warmup + 1), 1.0, warmup)  # no step of size zero
  return optax.join_schedules([rise, factor], [warmup])


def cosine(steps: int) -> optax.Schedule:
  """(1 + cos(pi t / steps)) / 2: from 1 to 0.

  Args:
    steps: Number of steps from 1 to 0.

  Returns:
    The factor on the learning rate as a function of t, the number of steps taken.

  References:
    I. Loshchilov and F. Hutter, SGDR, ICLR 2017, arXiv:1608.03983, Eq. 5, without restarts.

  >>> print(cosine(100)(50).round(4))
  0.5
  """
  return optax.cosine_decay_schedule(1.0, steps)


def linear(steps: int) -> optax.Schedule:
  """1 - t / steps: from 1 to 0.

  Args:
    steps: Number of steps from 1 to 0.

  Returns:
    The factor on the learning rate as a function of t, the number of steps taken.

  >>> print(linear(100)(25))
  0.75
  """
  return optax.linear_schedule(1.0, 0.0, steps)


def constant(steps: int) -> optax.Schedule:
  """1 throughout.

  Args:
    steps: Number of steps, which makes no difference.

  Returns:
    The factor on the learning rate as a function of the number of steps taken.

  >>> constant(100)(25)
  1.0
  """
  del steps
  return optax.constant_schedule(1.0)


#: Every schedule by the name that `optimizer.schedule` takes.
SCHEDULES: Mapping[str, Callable[[int], optax.Schedule]] = {
    "cosine": cosine, "linear": linear, "constant": constant}


def resolve_schedule(spec: Any) -> Callable[[int], optax.Schedule]:
  """The schedule of a name; one of the user's own is taken as it is.

  Args:
    spec: A name of `SCHEDULES`, or a function from the number of steps to an optax schedule of a
      factor on the learning rate.

  Returns:
    A function from the number of steps to a function of the number of steps taken.

  Raises:
    ValueError: If there is no schedule of that name, or if `spec` is no function.

  >>> resolve_schedule("cosine").__name__
  'cosine'
  >>> halving = lambda steps: optax.exponential_decay(1.0, steps // 4, 0.5)
  >>> print(resolve_schedule(halving)(8)(4))
  0.25
  """
  if isinstance(spec, str):
    if spec not in SCHEDULES:
      raise ValueError(text.unknown("schedule", spec, SCHEDULES))
    return SCHEDULES[spec]
  own: Callable[[int], optax.Schedule] = spec
  if not callable(spec):
    raise ValueError("expected the name of a schedule or a function of the number of steps, "
                     f"received {text.one_line(repr(spec))[:60]}")
  return own
