"""Metrics of force fields in physical units, from sums and counts: never a mean of means.

`force_field_sums` runs on the device for one batch; `finish` divides the totals of a split, in
float64, once. Energies are compared after the arm's shift has left both sides in float64. A scheme
without a shift keeps the whole energy, and with it the rounding of float32: 3e-5 eV at -310 eV,
5e-4 eV at -4209 eV. That belongs to such a scheme and is not corrected.

`METRICS` is the table of what is reported. A line of it, with the sums that it needs in
`force_field_sums`, is all that a new metric takes; a user's own is a `FrameMetric`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from dcnn.base import Labels, known_forces, objects, rounding
from dcnn.base.measures import Metric

# Energy and forces within threshold (EFwT): the thresholds of the Open Catalyst project.
# L. Chanussot et al., ACS Catal. 11 (2021) 6059, section 3.
ENERGY_THRESHOLD = 0.02  #: Threshold of the energy, eV.
FORCE_THRESHOLD = 0.03  #: Threshold of each force component, eV/angstrom.

#: Sums or metrics by name.
Values = Mapping[str, Any]
#: Atomic numbers; 0 is padding.
Species = Int[Array | np.ndarray, "batch atoms"]

_LOSS = (
    "Mean absolute error on test data that chose nothing, in the physical units of the data: "
    "of the energy of a configuration, and of a Cartesian force component.")
_RMSE = (
    "Root mean square error, of the energy of a configuration and of a Cartesian force component.")
_SKILL = (
    "1 − error / error of the constant predictor, which answers with the mean training energy and "
    "zero force. Shown is 1 − the geometric mean of these ratios over the finished runs. A run of "
    "skill ≤ 0 has learnt nothing of use.")
_EFWT = (
    "Share of the configurations with the energy within 20 meV and every force component within "
    "30 meV/Å; median over the finished runs.")


class _Reported(NamedTuple):
  """A metric, and its value from the totals of a split.

  Attributes:
    metric: How it is named and told.
    value: `(totals, values so far, baseline) -> value`.
    of_forces: Whether it exists only where forces are known.
  """

  metric: Metric
  value: Callable[[Values, Values, Values], Any]
  of_forces: bool


def _skill(error: float, constant: float) -> float:
  """Skill, or nan where the constant predictor makes no error: nothing can be known better."""
  return 1 - error / constant if constant else math.nan


#: Every metric that is reported of a force field, in the order of the tables.
METRICS: tuple[_Reported, ...] = (
    _Reported(
        Metric("energy_loss", "eV", "error", compared=True, label="energy", subject="energies",
               meaning=_LOSS),
        lambda sums, values, constant: sums["energy_absolute"] / sums["frames"], False),
    _Reported(
        Metric("force_loss", "eV/A", "error", compared=True, label="force", subject="forces",
               meaning=_LOSS),
        lambda sums, values, constant: sums["force_absolute"] / sums["components"], True),
    _Reported(
        Metric("energy_rmse", "eV", "error", label="energy", subject="energies", meaning=_RMSE),
        lambda sums, values, constant: float(np.sqrt(sums["energy_squared"] / sums["frames"])),
        False),
    _Reported(
        Metric("force_rmse", "eV/A", "error", label="force", subject="forces", meaning=_RMSE),
        lambda sums, values, constant: float(np.sqrt(sums["force_squared"] / sums["components"])),
        True),
    _Reported(
        Metric("energy_skill", "1", "skill", label="energy", subject="energies", of="energy_loss",
               meaning=_SKILL),
        lambda sums, values, constant: _skill(values["energy_loss"], constant["energy_loss"]),
        False),
    _Reported(
        Metric("force_skill", "1", "skill", label="force", subject="forces", of="force_loss",
               meaning=_SKILL),
        lambda sums, values, constant: _skill(values["force_loss"], constant["force_loss"]), True),
    _Reported(
        Metric("efwt", "1", "share", label="EFwT", meaning=_EFWT),
        lambda sums, values, constant: sums["hits"] / sums["labelled"], True),
)
FOLLOWED = ("energy_loss", "force_loss")  #: The metrics that are followed during training.


class FrameMetric(NamedTuple):
  """A user's own metric: the mean over configurations of one number for each.

  Attributes:
    function: `(predicted, reference, species) -> number`, of one configuration. The two are
      `Labels`, with energies relative to the same shift, in eV and eV/A. Where it is nan for
      `predicted = reference`, because a label is not known, the configuration is left out.
    unit: The unit of the number.
    kind: How the metric is summarised over seeds, see `Metric`.
    compared: Whether tables and tests compare arms by it, which needs positive numbers.
  """

  function: Callable[[Labels, Labels, Any], Any]
  unit: str = "1"
  kind: Literal["error", "skill", "share"] = "error"
  compared: bool = False

  @property
  def name(self) -> str:
    """The name of the function, under which results.csv has it."""
    return objects.name_of(self.function)

  @property
  def metric(self) -> Metric:
    """How it is told."""
    return Metric(self.name, self.unit, self.kind, self.compared, label=self.name,
                  subject=self.name, meaning=(self.function.__doc__ or self.name).strip())


def force_field_sums(
    predicted: Labels,
    reference: Labels,
    species: Species,
    counted: Bool[Array, " batch"],
) -> dict[str, Float[Array, ""]]:
  """Sums of errors over one batch, and the counts to divide them by.

  Args:
    predicted: Energies (batch) in eV and forces (batch atoms 3) in eV/A.
    reference: The same, with energies relative to the same shift; forces are nan where not known.
    species: Atomic numbers, 0 on padded atoms.
    counted: False for the configurations that only pad the last batch.

  Returns:
    Sums by name, and the counts: `frames`, `labelled` of them with forces, and `components`.
  """
  energy_error = jnp.where(counted, predicted.energy - reference.energy, 0.0)
  known = counted[:, None, None] & known_forces(reference.forces, species)
  force_error = jnp.where(known, predicted.forces - reference.forces, 0.0)
  labelled = jnp.any(known, axis=(1, 2))
  hit = labelled & (jnp.abs(energy_error) <= ENERGY_THRESHOLD) & (
      jnp.max(jnp.abs(force_error), axis=(1, 2)) <= FORCE_THRESHOLD)
  return {
      "energy_absolute": jnp.sum(jnp.abs(energy_error)),
      "energy_squared": jnp.sum(jnp.square(energy_error)),
      "force_absolute": jnp.sum(jnp.abs(force_error)),
      "force_squared": jnp.sum(jnp.square(force_error)),
      "hits": jnp.sum(hit).astype(jnp.float32),
      "frames": jnp.sum(counted).astype(jnp.float32),
      "labelled": jnp.sum(labelled).astype(jnp.float32),
      "components": jnp.sum(known).astype(jnp.float32),
  }


def constant_predictor(
    reference: Labels, species: Int[Array | np.ndarray, "frames atoms"], energy: float
) -> dict[str, float]:
  """Errors of the predictor that knows no geometry: one energy, zero forces.

  Args:
    reference: The labels under test, float64: energy (frames) in eV, forces (frames atoms 3) in
      eV/A.
    species: Atomic numbers (frames atoms), 0 on padded atoms.
    energy: The mean of the *training* energies, eV.

  Returns:
    `energy_loss` in eV and `force_loss` in eV/A, which skill is measured against. They are zero
    where the predictor is exact but for rounding; there is no `force_loss` where no forces are
    known.
  """
  forces = np.asarray(reference.forces)[np.asarray(species) > 0]
  known = forces[np.isfinite(forces)]
  error = float(np.abs(reference.energy - energy).mean())
  errors = {"energy_loss": error if error > rounding(np.asarray(reference.energy)) else 0.0}
  return {**errors, "force_loss": float(np.abs(known).mean())} if known.size else errors


def mean_absolute_errors(sums: Values) -> dict[str, Any]:
  """The errors that are followed during training.

  Args:
    sums: What `force_field_sums` returned, added up over batches; of one run or of many.

  Returns:
    energy_loss in eV per configuration and force_loss in eV/A per component, or energy_loss alone
    where no forces are known; nan where the sums are not finite.
  """
  forces = bool(np.any(sums["components"]))
  return {each.metric.name: each.value(sums, {}, {}) for each in METRICS
          if each.metric.name in FOLLOWED and (forces or not each.of_forces)}


def finish(sums: Values, constant: Values) -> dict[str, float]:
  """The reported metrics of one run and split.

  Args:
    sums: The totals of `force_field_sums` over a split, as floats.
    constant: The errors of the constant predictor on the same split.

  Returns:
    The values of `METRICS` by name: mean absolute and root mean square errors of the energy of a
    configuration and of a force component; skill, 1 - error / error of the constant predictor,
    nan where that is exact (all energies equal, all forces zero); and the share of configurations
    with energy and forces within threshold. Only those of energies where no forces are known.
  """
  values: dict[str, float] = {}
  for each in METRICS:
    if sums["components"] or not each.of_forces:
      values[each.metric.name] = each.value(sums, values, constant)
  return values


def frame_metric_sums(
    metrics: Sequence[FrameMetric], predicted: Labels, reference: Labels, species: Species,
    counted: Bool[Array, " batch"],
) -> dict[str, Float[Array, ""]]:
  """Sums and counts of users' own metrics over one batch; arguments as of `force_field_sums`."""
  sums = {}
  for each in metrics:
    function = jax.vmap(each.function)
    known = counted & ~jnp.isnan(function(reference, reference, jnp.asarray(species)))
    values = jnp.where(known, function(predicted, reference, jnp.asarray(species)), 0.0)
    sums |= {f"{each.name}_sum": jnp.sum(values),
             f"{each.name}_count": jnp.sum(known).astype(jnp.float32)}
  return sums


def frame_metric_values(metrics: Sequence[FrameMetric], sums: Values) -> dict[str, float]:
  """The means of users' own metrics from totals over a split; none where no label is known."""
  return {each.name: sums[f"{each.name}_sum"] / sums[f"{each.name}_count"]
          for each in metrics if sums[f"{each.name}_count"]}
