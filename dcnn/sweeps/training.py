"""One run as pure functions: its state, a step, a segment of steps, and a validation.

Nothing here knows arms or seeds, or what a task predicts. `engine` maps these functions over runs.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Bool, Float, Int, Key

from dcnn.tasks.base import Batch, Hypers, Task, Variables

NEVER = -1  # a step that has not come
SUMMED_PARTS = 16  # of a sum over all parameters

# Sums a pytree, whose leaves have one type, over the devices that share a run's batch.
Psum = Callable[[Any], Any]


def identity(tree: Any) -> Any:
  """The sum over devices where a batch is on one device."""
  return tree


class Program(NamedTuple):
  """What all runs of a group share, and what is compiled.

  Attributes:
    task: The functions to train.
    make_optimizer: Makes an optax transformation from hyperparameters, which may be traced.
    take: `(data, indices) -> batch`; picks frames from one run's data.
    batch_size: Frames in the batch of a step.
    averaged: Whether an exponential moving average of the parameters is kept and evaluated.
    patience: Steps without a better validation after which a run stops; 0 if it never does.
    evaluated: `(optimizer state, parameters) -> parameters` to evaluate, for an optimiser that
      trains at another point than it recommends; None if there is no such difference.
    psum: Sums over the devices that share a run's batch. Each of them trains and evaluates with
      its shard of every batch.
  """

  task: Task
  make_optimizer: Callable[[Hypers], optax.GradientTransformation]
  take: Callable[[Any, Int[Array, " batch"]], Batch]
  batch_size: int
  averaged: bool
  patience: int = 0
  evaluated: Callable[[optax.OptState, Any], Any] | None = None
  psum: Psum = identity


class Best(NamedTuple):
  """The checkpoint that validation has chosen so far."""

  variables: Variables
  score: Float[Array, ""]
  step: Int[Array, ""]


class RunState(NamedTuple):
  """Everything that a run carries from step to step.

  Attributes:
    step: The number of steps taken.
    variables: Parameters and network state.
    optimizer: The state of the optimiser.
    average: The moving average of the parameters; empty where none is kept.
    sums: The sums of the loss terms since the last validation.
    best: The checkpoint chosen on validation data; never a non-finite one.
    diverged_at: The step, counted from 0, whose loss, gradient or new parameters were not finite,
      or -1. From then on the run stands still.
    non_finite: What was not finite at that step: loss terms by name, `gradient`, `parameters`.
    stopped_at: The number of steps taken when patience ended; `lost_at` of it where the run lost
      its race; or -1. From then on the run stands still.
  """

  step: Int[Array, ""]
  variables: Variables
  optimizer: optax.OptState
  average: Any
  sums: dict[str, Float[Array, ""]]
  best: Best
  diverged_at: Int[Array, ""]
  non_finite: dict[str, Bool[Array, ""]]
  stopped_at: Int[Array, ""]


class Validation(NamedTuple):
  """What a validation tells the host: mean training loss terms since the last, and its sums."""

  terms: dict[str, Float[Array, ""]]
  valid: dict[str, Float[Array, ""]]


def lost_at(step: int) -> int:
  """What `RunState.stopped_at` is for a run that lost its race at a step; its own inverse."""
  return NEVER - 1 - step


def init(program: Program, key: Key[Array, ""], hypers: Hypers) -> RunState:
  """The state of a run before its first step."""
  variables = program.task.init(key, hypers)
  params = variables["params"]
  return RunState(
      step=jnp.int32(0),
      variables=variables,
      optimizer=program.make_optimizer(hypers).init(params),
      average=params if program.averaged else {},
      sums={name: jnp.float32(0) for name in program.task.terms},
      best=Best(variables, jnp.float32(jnp.inf), jnp.int32(0)),
      diverged_at=jnp.int32(NEVER),
      non_finite={
          name: jnp.bool_(False) for name in (*program.task.terms, "gradient", "parameters")},
      stopped_at=jnp.int32(NEVER),
  )


def has_ended(state: RunState) -> Bool[Any, "*runs"]:
  """Whether a run stands still; of one run or of many, on the device or on the host."""
  return (state.diverged_at != NEVER) | (state.stopped_at != NEVER)


def step(
    program: Program, state: RunState, hypers: Hypers, batch: Batch, key: Key[Array, ""]
) -> tuple[RunState, dict[str, Array]]:
  """One optimiser step; a run that would leave the finite numbers stops where it stands.

  Args:
    program: The program of the group.
    state: The state of the run.
    hypers: The numbers of the run.
    batch: Training data, with a leading axis `batch`.
    key: The key of the step, for the task's random numbers.

  Returns:
    The new state, and the loss terms of the step.
  """
  def loss_fn(params):
    terms, network_state = program.task.loss(
        {**state.variables, "params": params}, hypers, batch, key)
    # Counts have no derivative, which the sum over devices would count twice.
    counts = program.psum(jax.lax.stop_gradient({name: term.count for name, term in terms.items()}))
    means = {name: term.total / jnp.maximum(counts[name], 1) for name, term in terms.items()}
    total = functools.reduce(jnp.add, (term.weight * means[name] for name, term in terms.items()))
    return total, (means, network_state)

  params = state.variables["params"]
  (total, (terms, network_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
  total, terms, gradient = program.psum((total, terms, gradient))
  updates, optimizer = program.make_optimizer(hypers).update(gradient, state.optimizer, params)
  new_params = optax.apply_updates(params, updates)
  checked = {**terms, "gradient": _sum_of_squares(gradient),
             "parameters": _sum_of_squares((new_params, network_state))}
  # As one vector, so that XLA finds out once, and not for each parameter, whether all are finite.
  is_finite = jnp.isfinite(jnp.stack([*checked.values(), total]))
  non_finite = {name: ~is_finite[i] for i, name in enumerate(checked)}
  finite = jnp.all(is_finite)
  ended = has_ended(state)
  moved = state._replace(
      step=state.step + 1,
      variables={**network_state, "params": new_params},
      optimizer=optimizer,
      average=_average(program, state.average, new_params, hypers, state.step),
      sums=jax.tree.map(jnp.add, state.sums, terms))
  kept = _where(finite & ~ended, moved, state)
  fails = ~finite & ~ended
  return kept._replace(
      diverged_at=jnp.where(fails, state.step, state.diverged_at),
      non_finite=_where(fails, non_finite, state.non_finite)), terms


def train(
    program: Program,
    state: RunState,
    hypers: Hypers,
    data: Any,
    batches: Int[Array, "steps batch"],
    *,
    first: Int[Array, ""] | int,
    steps: Int[Array, ""] | int,
    key: Key[Array, ""],
) -> RunState:
  """Trains for `steps` steps; cutting a training into such segments does not change it.

  Args:
    program: The program of the group.
    state: The state of the run; one that has ended is returned as it is.
    hypers: The numbers of the run.
    data: The run's data, from which `program.take` picks batches.
    batches: The frames of each step.
    first: The row of `batches` to begin with.
    steps: How many rows to use; it is traced, so that segments of any length share a program.
    key: The key of the run; that of a step depends on it and on the number of the step alone.

  Returns:
    The state after these steps.
  """
  def body(i, state):
    batch = program.take(data, batches[i])
    return step(program, state, hypers, batch, jax.random.fold_in(key, state.step))[0]

  # The condition saves the work of an ended run wherever runs follow one another.
  return jax.lax.cond(
      has_ended(state),
      lambda state: state,
      lambda state: jax.lax.fori_loop(first, first + steps, body, state),
      state)


def validate(
    program: Program,
    state: RunState,
    hypers: Hypers,
    sums: Mapping[str, Float[Array, " batches"]],
    *,
    steps: Int[Array, ""] | int,
) -> tuple[RunState, Validation]:
  """Keeps the parameters if they are the best so far, and ends a run whose patience is at its end.

  Args:
    program: The program of the group.
    state: The state of the run.
    hypers: The numbers of the run.
    sums: What `evaluate` found on the validation frames with `evaluated_variables`.
    steps: The number of steps since the last validation.

  Returns:
    The new state, and what the host writes down.
  """
  current = evaluated_variables(program, state)
  totals = {name: jnp.sum(values) for name, values in sums.items()}
  score = program.task.score(totals, hypers)
  ended = has_ended(state)
  better = (score < state.best.score) & ~ended
  best = _where(better, Best(current, score, state.step), state.best)
  spent = (state.step - best.step >= program.patience) & (program.patience > 0) & ~ended
  record = Validation({name: value / steps for name, value in state.sums.items()}, totals)
  return state._replace(
      sums=jax.tree.map(jnp.zeros_like, state.sums),
      best=best,
      stopped_at=jnp.where(spent, state.step, state.stopped_at)), record


def evaluate(
    program: Program,
    variables: Variables,
    hypers: Hypers,
    data: Any,
    batches: Int[Array, "batches batch"],
    *,
    count: Int[Array, ""] | int,
) -> dict[str, Float[Array, " batches"]]:
  """Sums and counts of each batch.

  Args:
    program: The program of the group.
    variables: The variables to evaluate.
    hypers: The numbers of the run.
    data: The run's data, from which `program.take` picks batches.
    batches: Frames by number; entries of -1 are padding and not counted.
    count: How many of the batches to use; the sums of the others are 0.

  Returns:
    Sums and counts by name, one for each batch.
  """
  def one(indices):
    counted = indices >= 0
    batch = program.take(data, jnp.maximum(indices, 0))
    return program.task.evaluate(variables, hypers, batch, counted)

  def body(i, sums):
    return jax.tree.map(lambda all_sums, mine: all_sums.at[i].set(mine), sums, one(batches[i]))

  zeros = jax.tree.map(
      lambda leaf: jnp.zeros((len(batches), *leaf.shape), leaf.dtype),
      jax.eval_shape(one, batches[0]))
  return program.psum(jax.lax.fori_loop(0, count, body, zeros))


def evaluated_variables(program: Program, state: RunState) -> Variables:
  """The variables that validation sees: with averaged parameters where an average is kept."""
  if program.averaged:
    return {**state.variables, "params": state.average}
  if program.evaluated is None:
    return state.variables
  return {**state.variables,
          "params": program.evaluated(state.optimizer, state.variables["params"])}


def _average(program, average, params, hypers, taken):
  """Exponential moving average, with the decay warmed up so that it forgets the start.

  The decay of step t is min(decay, (1 + t) / (10 + t)), as is usual for moving averages of
  parameters; without it the initial weights would linger for 1 / (1 - decay) steps.
  """
  if not program.averaged:
    return average
  decay = jnp.minimum(hypers["ema_decay"], (1.0 + taken) / (10.0 + taken))
  return optax.incremental_update(params, average, 1.0 - decay)


def _sum_of_squares(tree) -> Float[Array, ""]:
  """Not finite if an element is not, or if the sum overflows: Adam squares the gradient, too.

  Without the barrier XLA makes this a sum for each of the arrays; without the addition of parts,
  element by element, most of it is not vectorised.
  """
  vector = jax.lax.optimization_barrier(ravel_pytree(tree)[0])
  whole = vector.size // SUMMED_PARTS * SUMMED_PARTS
  parts = jnp.square(vector[:whole].reshape(SUMMED_PARTS, -1))
  return jnp.sum(functools.reduce(jnp.add, parts)) + jnp.sum(jnp.square(vector[whole:]))


def _where(condition, new, old):
  return jax.tree.map(functools.partial(jnp.where, condition), new, old)
