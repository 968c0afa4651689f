"""One run as pure functions: its state, a step, and a chunk of steps with a validation at its end.

Nothing here knows chemistry, arms or seeds. `sweeps` vmaps these functions over runs.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from dcnn.tasks.base import Batch, Hypers, Task, Variables

NOT_DIVERGED = -1


class Program(NamedTuple):
  """What all runs of a group share, and what is compiled.

  Attributes:
    task: the functions to train.
    make_optimizer: from hypers, possibly traced, to an optax transformation.
    take: (data, indices) -> batch; picks configurations from one run's data.
    batch_size: configurations a step.
    averaged: whether an exponential moving average of the parameters is kept and evaluated.
  """

  task: Task
  make_optimizer: Callable[[Hypers], optax.GradientTransformation]
  take: Callable[[Any, Int[Array, " batch"]], Batch]
  batch_size: int
  averaged: bool


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
    best: chosen on validation data; never a non-finite one.
    diverged_at: the step, counted from 0, whose loss, gradient or new parameters were not finite,
      or -1. From then on the run stands still.
  """

  step: Int[Array, ""]
  variables: Variables
  optimizer: optax.OptState
  average: Any
  best: Best
  diverged_at: Int[Array, ""]


class ChunkRecord(NamedTuple):
  """What a chunk tells the host: mean training loss terms and the sums of the validation."""

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
      best=Best(variables, jnp.float32(jnp.inf), jnp.int32(0)),
      diverged_at=jnp.int32(NOT_DIVERGED),
  )


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
    return program.task.loss({**state.variables, "params": params}, hypers, batch, key)

  params = state.variables["params"]
  (total, (terms, network_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
  updates, optimizer = program.make_optimizer(hypers).update(gradient, state.optimizer, params)
  new_params = optax.apply_updates(params, updates)
  finite = (jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(gradient))
            & jnp.isfinite(optax.tree.norm(new_params)))
  alive = finite & (state.diverged_at == NOT_DIVERGED)
  moved = state._replace(
      variables={**network_state, "params": new_params},
      optimizer=optimizer,
      average=_average(program, state.average, new_params, hypers, state.step))
  kept = jax.tree.map(lambda new, old: jnp.where(alive, new, old), moved, state)
  first_failure = ~finite & (state.diverged_at == NOT_DIVERGED)
  return kept._replace(
      step=state.step + 1,
      diverged_at=jnp.where(first_failure, state.step, state.diverged_at)), terms


def chunk(
    program: Program,
    state: RunState,
    hypers: Hypers,
    data: Any,
    batches: Int[Array, "steps batch"],
    *,
    steps: Int[Array, ""] | int,
    key: Array,
    valid: Int[Array, "valid_batches valid_batch"],
) -> tuple[RunState, ChunkRecord]:
  """Trains for `steps` steps, validates, and keeps the parameters if they are the best so far.

  Args:
    program: shared by the group.
    state: of the run.
    hypers: numbers of the arm.
    data: of the run; `program.take` picks batches from it.
    batches: the configurations of each step; only the first `steps` rows are used, so that a
      shorter last chunk needs no second compilation.
    steps: how many steps to take, at most `batches.shape[0]`.
    key: of the run; the key of a step depends on it and the step's number alone.
    valid: the validation configurations, rows filled up with -1.

  Returns:
    The new state and the record of the chunk.
  """
  def body(i, carry):
    state, sums = carry
    batch = program.take(data, batches[i])
    state, terms = step(program, state, hypers, batch, jax.random.fold_in(key, state.step))
    return state, jax.tree.map(jnp.add, sums, terms)

  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _terms_like(
      program, state, hypers, data, batches, key))
  state, sums = jax.lax.fori_loop(0, steps, body, (state, zeros))
  current = evaluated_variables(program, state)
  valid_sums = evaluate(program, current, hypers, data, valid)
  totals = {name: jnp.sum(values) for name, values in valid_sums.items()}
  score = program.task.score(totals, hypers)
  better = (score < state.best.score) & (state.diverged_at == NOT_DIVERGED)
  best = jax.tree.map(
      lambda new, old: jnp.where(better, new, old), Best(current, score, state.step), state.best)
  record = ChunkRecord({name: value / steps for name, value in sums.items()}, totals)
  return state._replace(best=best), record


def evaluate(
    program: Program,
    variables: Variables,
    hypers: Hypers,
    data: Any,
    batches: Int[Array, "batches batch"],
) -> dict[str, Float[Array, " batches"]]:
  """Sums and counts of each batch; entries of -1 are filling and not counted."""
  def one(indices):
    counted = indices >= 0
    batch = program.take(data, jnp.maximum(indices, 0))
    return program.task.evaluate(variables, hypers, batch, counted)

  return jax.lax.map(one, batches)


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


def _terms_like(program, state, hypers, data, batches, key) -> Mapping[str, jax.ShapeDtypeStruct]:
  """Shapes of the loss terms, found without computing them."""
  def terms(variables):
    return program.task.loss(variables, hypers, program.take(data, batches[0]), key)[1][0]

  return jax.eval_shape(terms, state.variables)
