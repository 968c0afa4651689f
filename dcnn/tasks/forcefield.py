"""Energy and forces: a network trained so that its value is E and its negative gradient F.

On the device energies are relative to the arm's label shift, which left them in float64 on the
host, and everything is in physical units: the network's output times `scale` is compared with
labels in eV and eV/A. Losses of different label scalings are then the same function of the
physical prediction, and the scaling does not silently change the balance of energy and forces.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from dcnn import derivatives, losses
from dcnn.base import Labels, System
from dcnn.losses import AddUp, alone
from dcnn.tasks import metrics
from dcnn.tasks.base import Hypers, Task, Variables


class Network(Protocol):
  """An unbatched network: a pair of pure functions, as a Flax Linen module has."""

  @property
  def init(self) -> Callable[[Array, System], Any]:
    """(key, system) -> variables."""
    ...

  @property
  def apply(self) -> Callable[[Variables, System], Any]:
    """(variables, system) -> scaled energy."""
    ...


MakeModel = Callable[[Hypers], Network]
AnyArray = Array | np.ndarray


class Batch(NamedTuple):
  """Configurations and labels; energies relative to the arm's shift, physical units.

  Forces that are nan are not known: they are in no loss and no error.
  """

  systems: System
  labels: Labels


def make_task(
    make_model: MakeModel,
    example: System,
    *,
    energy_loss: losses.Penalty,
    force_loss: losses.Penalty,
    use_forces: bool = True,
) -> Task:
  """Composes a network and losses into a `Task`.

  The loss is the paper's: energy_weight L(E) + force_weight L(F), each a mean over the
  configurations or the force components of the batch (Lo and Huang, arXiv:2310.01649, Eq. 1).

  Args:
    make_model: from hypers, possibly traced, to an unbatched network.
    example: one configuration, for its shapes.
    energy_loss, force_loss: from `losses`.
    use_forces: false leaves forces out of the training program, for runs on energies alone.

  Returns:
    Functions of hypers `scale`, `energy_weight`, `force_weight`, `energy_delta`, `force_delta`
    and those that `make_model` reads.
  """

  def energy_fn(hypers: Hypers) -> Callable[[Variables, System], Array]:
    model = make_model(hypers)
    return lambda variables, system: hypers["scale"] * model.apply(variables, system)

  def init(key: Array, hypers: Hypers) -> Variables:
    return make_model(hypers).init(key, example)

  def predict(variables: Variables, hypers: Hypers, systems: System) -> Labels:
    each = derivatives.energy_and_forces(energy_fn(hypers))
    return Labels(*jax.vmap(each, (None, 0))(variables, systems))

  def predict_energy(variables: Variables, hypers: Hypers, systems: System) -> Array:
    return jax.vmap(energy_fn(hypers), (None, 0))(variables, systems)

  def loss(
      variables: Variables, hypers: Hypers, batch: Batch, key: Array, add_up: AddUp = alone):
    del key  # nothing random in these networks
    counts = add_up(_counts(batch))
    if use_forces:
      predicted = predict(variables, hypers, batch.systems)
      terms = {
          "energy": _energy_term(predicted.energy, batch, hypers, energy_loss, counts),
          "forces": _force_term(predicted.forces, batch, hypers, force_loss, counts),
      }
      total = hypers["energy_weight"] * terms["energy"] + hypers["force_weight"] * terms["forces"]
    else:
      energy = predict_energy(variables, hypers, batch.systems)
      terms = {"energy": _energy_term(energy, batch, hypers, energy_loss, counts)}
      total = hypers["energy_weight"] * terms["energy"]
    state = {name: value for name, value in variables.items() if name != "params"}
    return total, (terms, state)

  def evaluate(
      variables: Variables, hypers: Hypers, batch: Batch, counted: Bool[Array, " batch"]
  ) -> dict[str, Array]:
    predicted = predict(variables, hypers, batch.systems)
    return metrics.force_field_sums(predicted, batch.labels, batch.systems.species, counted)

  terms = ("energy", "forces") if use_forces else ("energy",)
  return Task(terms, init, loss, evaluate, _score, predict)


def _counts(batch: Batch) -> Labels:
  """How many energies and force components are known."""
  known = metrics.known_forces(batch.labels.forces, batch.systems.species)
  return Labels(jnp.int32(len(known)), jnp.sum(known, dtype=jnp.int32))


def _energy_term(
    energy: Float[AnyArray, " batch"], batch: Batch, hypers: Hypers, penalty: losses.Penalty,
    counts: Labels,
) -> Float[Array, ""]:
  residual = jnp.asarray(energy - batch.labels.energy)
  parameters = {name: hypers[f"energy_{name}"] for name in penalty.parameters}
  return losses.masked_mean(penalty.function(residual, **parameters), True, counts.energy)


def _force_term(
    forces: Float[AnyArray, "batch atoms 3"], batch: Batch, hypers: Hypers,
    penalty: losses.Penalty, counts: Labels,
) -> Float[Array, ""]:
  known = metrics.known_forces(batch.labels.forces, batch.systems.species)
  # nan must not enter the penalty: its gradient would be nan however it is masked.
  residual = jnp.asarray(forces - jnp.where(known, batch.labels.forces, 0.0))
  parameters = {name: hypers[f"force_{name}"] for name in penalty.parameters}
  return losses.masked_mean(penalty.function(residual, **parameters), known, counts.forces)


def _score(sums: Mapping[str, Array], hypers: Hypers) -> Array:
  """Mean absolute errors, weighted as in the loss; of energies alone where no forces are known."""
  energy = sums["energy_absolute"] / sums["frames"]
  forces = sums["force_absolute"] / jnp.maximum(sums["components"], 1)
  return hypers["energy_weight"] * energy + hypers["force_weight"] * forces
