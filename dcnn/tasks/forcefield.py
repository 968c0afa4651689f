"""Energy and forces: a network trained so that its value is E and its negative gradient F.

On the device energies are relative to the arm's label shift, which left them in float64 on the
host, and everything is in physical units: the network's output times `scale` is compared with
labels in eV and eV/A. Losses of different label scalings are then the same function of the
physical prediction, and the scaling does not silently change the balance of energy and forces.

A network with running statistics, those of `normalisers.BatchNorm`, is trained and evaluated as two
different functions: in training its configurations are coupled by the statistics of the batch, and
each step hands on the new running ones, which evaluation uses.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Bool, Int, Key

from dcnn import derivatives
from dcnn.base import Dataset, Labels, System, known_forces
from dcnn.base.measures import Measures, Picture
from dcnn.base.splits import Frames, Training
from dcnn.labels import LabelTransform
from dcnn.models.normalisers import RUNNING, SYSTEMS
from dcnn.tasks import forcefield_metrics as metrics
from dcnn.tasks.base import Fitted, Hypers, Pair, Problem, Task, Term, Variables, mean_term
from dcnn.tasks.forcefield_metrics import FrameMetric

#: The most configurations that an evaluation takes at a time, which bounds its memory.
EVALUATION_BATCH = 100
#: The most atoms of all of them together.
EVALUATION_ATOMS = 4000
#: From how many atoms on networks read lists of neighbours, because of larger molecules not all
#: pairs lie within a cutoff (BUILD_NOTES.md has the figures).
LISTED_FROM = 20

#: What the report draws of the predictions.
PICTURES = (
    Picture("parity", "energy minus its mean", "eV",
            {"true": "energy_true", "predicted": "energy_predicted"}, centred=True),
    Picture("parity", "force component", "eV/A",
            {"true": "forces_true", "predicted": "forces_predicted"}),
)


@runtime_checkable
class Network(Protocol):
  """An unbatched network: a pair of pure functions, as a Flax Linen module has."""

  @property
  def init(self) -> Callable[[Array, System], Any]:
    """`(key, system) -> variables`."""
    ...

  @property
  def apply(self) -> Callable[..., Any]:
    """`(variables, system) -> scaled energy`.

    Where the variables have a collection `batch_stats`, `apply(variables, system,
    mutable=["batch_stats"])` gives the energy in training and the collection's new values.
    """
    ...


#: An array of JAX or of NumPy.
AnyArray = Array | np.ndarray
#: Makes the network of an arm from its numbers, which may be traced.
MakeModel = Callable[[Hypers], Network]
#: `(residuals in physical units, hypers) -> penalties`.
Penalty = Callable[[Array, Hypers], Array]


class Batch(NamedTuple):
  """Configurations and their labels.

  Attributes:
    systems: The configurations, with a leading axis `batch`.
    labels: Energies relative to the arm's shift in eV, and forces in eV/A. Forces that are nan
      are not known: they are in no loss and no error.
  """

  systems: System
  labels: Labels


def make_task(
    make_model: MakeModel,
    example: System,
    *,
    energy_penalty: Penalty,
    force_penalty: Penalty,
    use_forces: bool = True,
    own_metrics: Sequence[FrameMetric] = (),
) -> Task:
  """Composes a network and penalties into a `Task`.

  The loss is the paper's: energy_weight L(E) + force_weight L(F), each a mean over the
  configurations or the force components of the batch (Lo and Huang, arXiv:2310.01649, Eq. 1).

  Args:
    make_model: Makes an unbatched network from hyperparameters, which may be traced.
    example: One configuration, for its shapes and for what a network fits at initialisation.
    energy_penalty: `(residual, hypers) -> penalty` of each energy.
    force_penalty: The same of each force component.
    use_forces: False leaves forces out of the training program, for runs on energies alone.
    own_metrics: Metrics that are evaluated beside the usual ones.

  Returns:
    Functions of the hyperparameters `scale`, `energy_weight`, `force_weight` and those that
    `make_model` and the penalties read.
  """

  def energy_fn(hypers: Hypers) -> Callable[[Variables, System], Array]:
    model = make_model(hypers)
    return lambda variables, system: hypers["scale"] * model.apply(variables, system)

  def init(key: Key[Array, ""], hypers: Hypers) -> Variables:
    return make_model(hypers).init(key, example)

  def predict(variables: Variables, hypers: Hypers, systems: System) -> Labels:
    function = derivatives.energy_and_forces(energy_fn(hypers))
    return Labels(*jax.vmap(function, (None, 0))(variables, systems))

  def energy_term(energy: Any, batch: Batch, hypers: Hypers) -> Term:
    residual = jnp.asarray(energy - batch.labels.energy)
    return mean_term(hypers["energy_weight"], energy_penalty(residual, hypers))

  def force_term(forces: Any, batch: Batch, hypers: Hypers) -> Term:
    known = known_forces(batch.labels.forces, batch.systems.species)
    # nan must not enter the penalty: its gradient would be nan however it is masked.
    residual = jnp.asarray(forces - jnp.where(known, batch.labels.forces, 0.0))
    return mean_term(hypers["force_weight"], force_penalty(residual, hypers), known)

  def loss(variables: Variables, hypers: Hypers, batch: Batch, key: Key[Array, ""]):
    del key  # nothing is random in these networks
    state = {name: value for name, value in variables.items() if name != "params"}
    training_energy_fn = _energy_in_training(make_model(hypers).apply, hypers["scale"])
    if use_forces:
      predicted, new = _over_batch(
          derivatives.energy_forces_and_state(training_energy_fn), variables, batch)
      return {"energy": energy_term(predicted.energy, batch, hypers),
              "forces": force_term(predicted.forces, batch, hypers)}, {**state, **new}
    energy, new = _over_batch(training_energy_fn, variables, batch)
    return {"energy": energy_term(energy, batch, hypers)}, {**state, **new}

  def evaluate(
      variables: Variables, hypers: Hypers, batch: Batch, counted: Bool[Array, " batch"]
  ) -> dict[str, Array]:
    predicted = predict(variables, hypers, batch.systems)
    arguments = (predicted, batch.labels, batch.systems.species, counted)
    return {**metrics.force_field_sums(*arguments),
            **metrics.frame_metric_sums(own_metrics, *arguments)}

  terms = ("energy", "forces") if use_forces else ("energy",)
  return Task(terms, init, loss, evaluate, _score, lambda variables, hypers, batch: predict(
      variables, hypers, batch.systems))


def _energy_in_training(
    apply: Callable[..., Any], scale: ArrayLike) -> derivatives.StatefulEnergyFn:
  """The energy, and the statistics that a step moves; none where the network has none."""
  def function(variables: Variables, system: System) -> tuple[Array, Variables]:
    if RUNNING not in variables:
      return scale * apply(variables, system), {}
    energy, state = apply(variables, system, mutable=[RUNNING])
    return scale * energy, state

  return function


def _over_batch(function: Callable, variables: Variables, batch: Batch) -> tuple[Any, Variables]:
  """For each configuration of a batch; the new state is one, a sum over all of them."""
  return jax.vmap(function, (None, 0), (0, None), axis_name=SYSTEMS)(variables, batch.systems)


def _score(sums: Mapping[str, Array], hypers: Hypers) -> Array:
  """Mean absolute errors, weighted as in the loss; of energies alone where no forces are known."""
  energy = sums["energy_absolute"] / sums["frames"]
  forces = sums["force_absolute"] / jnp.maximum(sums["components"], 1)
  return hypers["energy_weight"] * energy + hypers["force_weight"] * forces


def make_problem(dataset: Dataset, own_metrics: Sequence[FrameMetric] = ()) -> Problem:
  """The host half: what is on the device of a data set, and what is reported of it.

  Args:
    dataset: Labelled configurations in float64, with neighbour lists where networks take them.
    own_metrics: Metrics that are reported beside those of `forcefield_metrics.METRICS`.

  Returns:
    Functions of frame numbers. What all runs share are systems and forces; what a run has of its
    own are energies relative to its shift.
  """
  largest = max(1, EVALUATION_ATOMS // dataset.systems.species.shape[1])

  def finish(sums: Mapping[str, float], constant: Mapping[str, float]) -> dict[str, float]:
    return {**metrics.finish(sums, constant), **metrics.frame_metric_values(own_metrics, sums)}

  return Problem(
      frames=len(dataset),
      shared=functools.partial(shared_data, dataset),
      take=take,
      evaluation_batch=min(EVALUATION_BATCH, largest),
      measures=measures(own_metrics),
      errors=metrics.mean_absolute_errors,
      finish=finish,
      baseline=functools.partial(_baseline, dataset),
      pairs=functools.partial(_pairs, dataset),
      predictions=functools.partial(_predictions, dataset))


def measures(own_metrics: Sequence[FrameMetric] = ()) -> Measures:
  """What a force field reports."""
  return Measures(
      (*(each.metric for each in metrics.METRICS), *(each.metric for each in own_metrics)),
      watched="force_loss", pictures=PICTURES, caption="Energies are relative to their mean.")


def shared_data(dataset: Dataset, frames: Frames) -> tuple[System, Any]:
  """What every run sees alike of some frames, in float32: systems and forces."""
  systems, (_, forces) = jax.tree.map(
      lambda leaf: np.asarray(leaf)[frames], (dataset.systems, dataset.labels))
  return in_single_precision(systems), np.asarray(forces, np.float32)


def in_single_precision(systems: System) -> System:
  """Configurations as the device sees them: float32, and species that are int32."""
  return jax.tree.map(
      lambda leaf: leaf.astype(np.float32) if np.issubdtype(leaf.dtype, np.floating) else leaf,
      systems._replace(species=np.asarray(systems.species, np.int32)))


def needs_list(systems: System) -> bool:
  """Whether configurations are to have neighbour lists, where a network reads them."""
  return systems.cell is not None or systems.species.shape[-1] >= LISTED_FROM


def take(
    data: tuple[tuple[System, Any], Any], indices: Int[AnyArray, " batch"]) -> Batch:
  """The batch of some frames from a run's data, ((systems, forces), energies of this run)."""
  (systems, forces), energy = data
  return Batch(
      jax.tree.map(lambda leaf: leaf[indices], systems),
      Labels(energy[indices], forces[indices]))


def fit(dataset: Dataset, transform: LabelTransform) -> Fitted:
  """What a run makes of a label transform that was fitted to its training labels.

  Args:
    dataset: All frames, in float64.
    transform: Its scale becomes a number of the run, its shift is taken off every energy.

  Returns:
    The scale in eV; energies relative to the shift, float32 in eV; and the whole transform, which
    is saved with the trained variables.
  """
  shift = np.broadcast_to(
      np.asarray(transform.shift_of(dataset.systems.species), np.float64), (len(dataset),))

  def own(frames: Frames) -> np.ndarray:
    energy = np.asarray(dataset.labels.energy, np.float64)[frames]
    return (energy - shift[frames]).astype(np.float32)

  return Fitted({"scale": float(transform.scale)}, own, {"transform": transform._asdict()})


def transform_of(kept: Mapping[str, Any]) -> LabelTransform:
  """The label transform of a checkpoint from what `Fitted.kept` was."""
  return LabelTransform(**kept["transform"])


def _baseline(dataset: Dataset, train: Training, frames: Frames) -> dict[str, float]:
  energy, forces = dataset.labels
  return metrics.constant_predictor(
      Labels(energy[frames], forces[frames]), dataset.systems.species[frames],
      float(np.mean(energy[train])))


def _pairs(
    dataset: Dataset, frames: Frames, predicted: Labels, run: Fitted
) -> dict[str, Pair]:
  energy, forces = (np.asarray(label)[frames] for label in dataset.labels)
  known = np.asarray(known_forces(forces, dataset.systems.species[frames]))
  shift = np.asarray(transform_of(run.kept).shift_of(dataset.systems.species[frames]), np.float64)
  return {
      "energy": Pair(energy, np.asarray(predicted.energy, np.float64) + shift, "eV"),
      "forces": Pair(forces[known], np.asarray(predicted.forces, np.float64)[known], "eV/A")}


def _predictions(
    dataset: Dataset, frames: Frames, predicted: Labels, run: Fitted
) -> dict[str, np.ndarray]:
  return {f"{name}_{part}": getattr(pair, part)
          for name, pair in _pairs(dataset, frames, predicted, run).items()
          for part in ("true", "predicted")}
