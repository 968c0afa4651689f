"""One run as pure functions: its state, a step, a stretch of steps, and a validation.

Nothing here knows chemistry, arms or seeds. `engine` maps these functions over runs.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Bool, Float, Int

from dcnn.losses import AddUp, alone
from dcnn.tasks.base import Batch, Hypers, Task, Variables

NEVER = -1  # a step that has not come
SUMMED_PARTS = 16  # of a sum over all parameters


class Program(NamedTuple):
  """What all runs of a group share, and what is compiled.

  Attributes:
    task: the functions to train.
    make_optimizer: from hypers, possibly traced, to an optax transformation.
    take: (data, indices) -> batch; picks configurations from one run's data.
    batch_size: configurations a step.
    averaged: whether an exponential moving average of the parameters is kept and evaluated.
    patience: steps without a better validation after which a run stops; 0: it never does.
    add_up: over the devices that a run's batch is spread over. Each then trains and evaluates with
      its part of every batch.
  """

  task: Task
  make_optimizer: Callable[[Hypers], optax.GradientTransformation]
  take: Callable[[Any, Int[Array, " batch"]], Batch]
  batch_size: int
  averaged: bool
  patience: int = 0
  add_up: AddUp = alone


class Best(NamedTuple):
  """The checkpoint that validation has chosen so far."""

  variables: Variables
  score: Float[Array, ""]
  step: Int[Array, ""]


class RunState(NamedTuple):
  """Everything that a run carries from step to step.

  Attributes:
    step: steps taken.
    variables: parameters and network state.
    optimizer: optax state.
    average: moving average of the parameters; empty where none is kept.
    sums: of the loss terms since the last validation.
    best: chosen on validation data; never a non-finite one.
    diverged_at: the step, counted from 0, whose loss, gradient or new parameters were not finite,
      or -1. From then on the run stands still.
    culprits: what was not finite at that step: loss terms by name, `gradient`, `parameters`.
    stopped_at: steps taken when patience ended, or -1. From then on the run stands still.
  """

  step: Int[Array, ""]
  variables: Variables
  optimizer: optax.OptState
  average: Any
  sums: dict[str, Float[Array, ""]]
  best: Best
  diverged_at: Int[Array, ""]
  culprits: dict[str, Bool[Array, ""]]
  stopped_at: Int[Array, ""]


class Validation(NamedTuple):
  """What a validation tells the host: mean training loss terms since the last, and its sums."""

  terms: dict[str, Float[Array, ""]]
  valid: dict[str, Float[Array, ""]]


def init(program: Program, key: Array, hypers: Hypers) -> RunState:
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
      culprits={
          name: jnp.bool_(False) for name in (*program.task.terms, "gradient", "parameters")},
      stopped_at=jnp.int32(NEVER),
  )


def has_ended(state: RunState) -> Bool[Any, "*runs"]:
  """Whether a run stands still; of one run or of many, on the device or on the host."""
  return (state.diverged_at != NEVER) | (state.stopped_at != NEVER)


def step(
    program: Program, state: RunState, hypers: Hypers, batch: Batch, key: Array
) -> tuple[RunState, dict[str, Array]]:
  """One optimiser step; a run that would leave the finite numbers stops where it stands.

  Args:
    program: shared by the group.
    state: of the run.
    hypers: numbers of the arm.
    batch: training data.
    key: for the task's random numbers.

  Returns:
    The new state, and the loss terms of the step.
  """
  def loss_fn(params):
    return program.task.loss(
        {**state.variables, "params": params}, hypers, batch, key,
        lambda found: program.add_up(jax.lax.stop_gradient(found)))

  params = state.variables["params"]
  (total, (terms, network_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
  total, terms, gradient = program.add_up((total, terms, gradient))
  updates, optimizer = program.make_optimizer(hypers).update(gradient, state.optimizer, params)
  new_params = optax.apply_updates(params, updates)
  checked = {**terms, "gradient": _sum_of_squares(gradient),
             "parameters": _sum_of_squares(new_params)}
  # As one vector, so that XLA finds out once, and not for each parameter, whether all are finite.
  is_finite = jnp.isfinite(jnp.stack([*checked.values(), total]))
  culprits = {name: ~is_finite[i] for i, name in enumerate(checked)}
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
      culprits=_where(fails, culprits, state.culprits)), terms


def train(
    program: Program,
    state: RunState,
    hypers: Hypers,
    data: Any,
    batches: Int[Array, "steps batch"],
    *,
    first: Int[Array, ""] | int,
    steps: Int[Array, ""] | int,
    key: Array,
) -> RunState:
  """Trains for `steps` steps; how a training is cut into such stretches does not change it.

  Args:
    program: shared by the group.
    state: of the run; one that has ended is returned as it is.
    hypers: numbers of the arm.
    data: of the run; `program.take` picks batches from it.
    batches: the configurations of each step.
    first: the row of `batches` to begin with.
    steps: how many rows to use, so that stretches of any length share a compiled program.
    key: of the run; the key of a step depends on it and the step's number alone.
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
    program: shared by the group.
    state: of the run.
    hypers: numbers of the arm.
    sums: what `evaluate` found with `evaluated_variables` on the validation configurations.
    steps: taken since the last validation.

  Returns:
    The new state and what the host writes down.
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
    program: shared by the group.
    variables: to evaluate.
    hypers: numbers of the arm.
    data: of the run; `program.take` picks batches from it.
    batches: configurations; entries of -1 are filling and not counted.
    count: how many of the batches to use; the sums of the others are 0.
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
  return program.add_up(jax.lax.fori_loop(0, count, body, zeros))


def evaluated_variables(program: Program, state: RunState) -> Variables:
  """The variables that validation sees: with averaged parameters where an average is kept."""
  if not program.averaged:
    return state.variables
  return {**state.variables, "params": state.average}


def batch_order(
    seed: int, train: Int[np.ndarray, " train"], *, batch_size: int, start: int, steps: int
) -> Int[np.ndarray, "steps batch"]:
  """The training configurations of steps start ... start + steps - 1.

  Each epoch is a permutation drawn from (seed, epoch) alone, so that a resumed run and a straight
  run see the same batches. What is left of an epoch after its last whole batch is not used.

  Args:
    seed: of the run.
    train: indices of the training configurations.
    batch_size: at most `len(train)`.
    start, steps: the range of steps.

  Returns:
    Indices, int32.

  Raises:
    ValueError: if a batch is larger than the training set.
  """
  if not 1 <= batch_size <= len(train):
    raise ValueError(
        f"batch_size must be between 1 and the {len(train)} training configurations, "
        f"got {batch_size}")
  per_epoch = len(train) // batch_size
  epochs = range(start // per_epoch, (start + steps - 1) // per_epoch + 1)
  orders = [
      np.random.default_rng([seed, epoch]).permutation(train)[:per_epoch * batch_size]
      for epoch in epochs
  ]
  rows = np.concatenate(orders).reshape(-1, batch_size).astype(np.int32)
  skip = start - epochs[0] * per_epoch
  return rows[skip:skip + steps]


def filled_batches(
    indices: Int[np.ndarray, " frames"], batch_size: int
) -> Int[np.ndarray, "batches batch"]:
  """Indices in rows of `batch_size`, the last row filled up with -1."""
  rows = -(-len(indices) // batch_size)
  filled = np.full(rows * batch_size, -1, np.int32)
  filled[:len(indices)] = indices
  return filled.reshape(rows, batch_size)


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
