"""The interface between a task and the machine that trains it, which knows no task.

A task has two halves. The device half, `Task`, is what a program compiles: pure functions of
variables, hyperparameters and a batch. The host half, `Problem`, is what stands around it: the
data, what a run fits to them, what is reported, and the predictor that knows nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from dcnn.base.measures import Measures
from dcnn.base.splits import Frames, Training

Variables = Mapping[str, Any]  #: Flax collections, "params" and the network's state if it has any
Hypers = Mapping[str, Any]  #: The numbers of an arm, scalar arrays, traced, or floats
Batch = Any  #: A pytree whose leaves have a leading `batch` axis


class Term(NamedTuple):
  """One term of a loss: `weight` times the mean `total / count`.

  A mean is kept as a sum and a count, so that whoever trains can add up over the devices that
  share a batch, and can balance the terms, without asking the task.

  Attributes:
    weight: The factor of the term in the loss.
    total: The sum of the penalties of this batch, or of one device's part of it.
    count: How many penalties were summed. It must not depend on the parameters.
  """

  weight: Float[Array, ""] | float
  total: Float[Array, ""]
  count: Int[Array, ""] | int


def mean_term(
    weight: Float[Array, ""] | float, penalties: Float[Array, "..."],
    mask: Bool[Array | np.ndarray, "..."] | bool = True,
) -> Term:
  """The term whose mean is over the entries where a mask is true.

  Args:
    weight: The factor of the term in the loss.
    penalties: One number for each residual, of any shape.
    mask: Which of them count; it is broadcast to their shape.

  Returns:
    The term; its mean is 0 where no entry counts.
  """
  mask = jnp.broadcast_to(jnp.asarray(mask), penalties.shape)
  return Term(
      weight, jnp.sum(jnp.where(mask, penalties, 0.0)), jnp.sum(mask, dtype=jnp.int32))


class LossFn(Protocol):
  """The terms of the training loss of one batch."""

  def __call__(
      self, variables: Variables, hypers: Hypers, batch: Batch, key: Key[Array, ""]
  ) -> tuple[dict[str, Term], Mapping[str, Any]]:
    """Returns the terms by name, and the network's new state (variables other than "params").

    The key is that of the step, the same on all devices that share the batch. The state must be
    the same on all of them, too.
    """
    ...


class Task(NamedTuple):
  """The device half of a task: what is compiled.

  Attributes:
    terms: The names of the loss terms, in the order in which the loss adds them.
    init: `(key, hypers) -> variables`.
    loss: The loss terms of a batch, see `LossFn`.
    evaluate: `(variables, hypers, batch, counted) -> sums and counts by name`, where `counted`
      (batch) is false for the entries that only pad a batch.
    score: `(sums, hypers) -> scalar`, lower is better. Validation chooses the checkpoint by it.
    predict: `(variables, hypers, batch) -> predictions`, in physical units.
  """

  terms: tuple[str, ...]
  init: Callable[[Array, Hypers], Variables]
  loss: LossFn
  evaluate: Callable[[Variables, Hypers, Batch, Array], dict[str, Array]]
  score: Callable[[Mapping[str, Array], Hypers], Array]
  predict: Callable[[Variables, Hypers, Batch], Any]


class Fitted(NamedTuple):
  """What one run makes of its training frames.

  Attributes:
    hypers: Numbers that were fitted, by name; they join the numbers of the arm.
    own: `(frames) -> pytree` of what this run alone sees of these frames; its leaves are float32
      arrays with a leading axis of frames. A run that sees what all see gives a tree without
      leaves.
    kept: What is saved with the trained variables because their use needs it: named records of
      arrays; a value that is None is left out.
  """

  hypers: dict[str, float]
  own: Callable[[Frames], Any]
  kept: dict[str, dict[str, Any]]


class Pair(NamedTuple):
  """Reference and prediction of a quantity, value by value, float64 NumPy.

  Attributes:
    true: The reference, where it is known.
    predicted: What one run predicts of it.
    unit: The unit of both.
  """

  true: Float[np.ndarray, " values"]
  predicted: Float[np.ndarray, " values"]
  unit: str


class Problem(NamedTuple):
  """The host half of a task: its data and what is reported of them.

  A frame is one entry of a batch: a configuration of atoms, or a point of a domain.

  Attributes:
    frames: The number of frames.
    shared: `(frames) -> pytree` of what all runs see of these frames; its leaves are arrays with a
      leading axis of frames.
    take: `((shared, own), indices) -> batch`; picks frames of a run's data on the device.
    evaluation_batch: The largest number of frames that an evaluation takes at a time.
    measures: What is reported.
    errors: `(sums) -> values by metric` that are followed during training, from sums of one run or
      of many.
    finish: `(sums, baseline) -> values by metric`, from the totals over a split, as floats.
    baseline: `(train, frames) -> values by metric` of the predictor that knows nothing but the
      training frames, on the given frames.
    pairs: `(frames, predictions, fitted) -> pairs by quantity`: reference and prediction of one
      run, from what `Task.predict` gave for these frames.
    predictions: The same as the arrays that the pictures show, by name, of the test frames.
  """

  frames: int
  shared: Callable[[Frames], Any]
  take: Callable[[tuple[Any, Any], Int[Array | np.ndarray, " batch"]], Batch]
  evaluation_batch: int
  measures: Measures
  errors: Callable[[Mapping[str, Any]], dict[str, Any]]
  finish: Callable[[Mapping[str, float], Mapping[str, float]], dict[str, float]]
  baseline: Callable[[Training, Frames], dict[str, float]]
  pairs: Callable[[Frames, Any, Fitted], dict[str, Pair]]
  predictions: Callable[[Frames, Any, Fitted], dict[str, np.ndarray]]
