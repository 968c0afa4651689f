"""The interface between a task and the trainer, which knows nothing of chemistry."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from jax import Array

from dcnn.losses import AddUp, alone

Variables = Mapping[str, Any]  # Flax collections: "params", and the network's state if it has any
Hypers = Mapping[str, Any]  # the numbers of an arm: scalar arrays, traced, or floats
Batch = Any  # a pytree whose leaves have a leading `batch` axis


class LossFn(Protocol):
  """Training loss of one batch, or what a device's part of a batch contributes to it."""

  def __call__(
      self, variables: Variables, hypers: Hypers, batch: Batch, key: Array, add_up: AddUp = alone
  ) -> tuple[Array, tuple[dict[str, Array], Mapping[str, Any]]]:
    """Returns (total, (terms by name, new network state)).

    Where the batch is spread over several devices, this gets the part of one. The total and the
    terms are then those of the whole batch once they are added up: means divide by counts of the
    whole batch, which `add_up` gives. It gives sums without a derivative, which would be counted
    twice. The network state must be the same on all devices.
    """
    ...


class Task(NamedTuple):
  """What is trained, as pure functions of variables, hypers and data.

  Attributes:
    terms: names of the loss terms.
    init: (key, hypers) -> variables.
    loss: see `LossFn`.
    evaluate: (variables, hypers, batch, counted) -> sums and counts by name; `counted` (batch) is
      false for entries that only fill a batch up.
    score: (sums, hypers) -> scalar, lower is better: by it validation chooses the checkpoint.
    predict: (variables, hypers, batch) -> predicted labels, in physical units.
  """

  terms: tuple[str, ...]
  init: Callable[[Array, Hypers], Variables]
  loss: LossFn
  evaluate: Callable[[Variables, Hypers, Batch, Array], dict[str, Array]]
  score: Callable[[Mapping[str, Array], Hypers], Array]
  predict: Callable[[Variables, Hypers, Batch], Any]
