"""Evaluation in physical units, as sums and counts: never a mean of means.

`force_field_sums` runs on the device for one batch; `finish` adds batches up in float64 and
divides once. Energies are compared after the arm's shift has left both sides in float64. A scheme
without a shift keeps the whole energy, and with it the rounding of float32: 3e-5 eV at -310 eV,
5e-4 eV at -4209 eV. That belongs to such a scheme and is not corrected.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from dcnn.base import Labels, rounding

# Energy and forces within threshold (EFwT): the thresholds of the Open Catalyst project.
# L. Chanussot et al., ACS Catal. 11 (2021) 6059, section 3.
ENERGY_THRESHOLD = 0.02  # eV
FORCE_THRESHOLD = 0.03  # eV/A

UNITS: Mapping[str, str] = {
    "energy_loss": "eV",
    "force_loss": "eV/A",
    "energy_rmse": "eV",
    "force_rmse": "eV/A",
    "energy_skill": "1",
    "force_skill": "1",
    "efwt": "1",
}


def known_forces(
    forces: Float[Array | np.ndarray, "batch atoms 3"],
    species: Int[Array | np.ndarray, "batch atoms"],
) -> Bool[Array, "batch atoms 3"]:
  """Which force components are labels: those of real atoms in frames that have forces.

  Args:
    forces: eV/A, nan in frames without forces.
    species: atomic numbers, 0 on padded atoms.
  """
  return jnp.asarray(species > 0)[..., None] & ~jnp.isnan(forces)


def force_field_sums(
    predicted: Labels,
    reference: Labels,
    species: Int[Array | np.ndarray, "batch atoms"],
    counted: Bool[Array, " batch"],
) -> dict[str, Float[Array, ""]]:
  """Sums of errors over one batch, and the counts to divide them by.

  Args:
    predicted: energy (batch) in eV, forces (batch atoms 3) in eV/A.
    reference: the same, with energies relative to the same shift; forces nan where not known.
    species: atomic numbers, 0 on padded atoms.
    counted: false for the configurations that only fill up the last batch.

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
    reference: Labels, species: Array | np.ndarray, energy: float) -> dict[str, float]:
  """Errors of the predictor that knows no geometry: one energy, zero forces.

  Args:
    reference: labels of the split under test, float64: energy (frames), forces (frames atoms 3).
    species: (frames atoms), 0 on padded atoms.
    energy: the mean of the *training* energies, eV.

  Returns:
    `energy_loss` in eV and `force_loss` in eV/A: what skill is measured against. Zero where it
    is exact but for rounding; no `force_loss` where no forces are known.
  """
  forces = np.asarray(reference.forces)[np.asarray(species) > 0]
  known = forces[np.isfinite(forces)]
  error = float(np.abs(reference.energy - energy).mean())
  errors = {"energy_loss": error if error > rounding(np.asarray(reference.energy)) else 0.0}
  return {**errors, "force_loss": float(np.abs(known).mean())} if known.size else errors


def mean_absolute_errors(sums: Mapping[str, Any]) -> dict[str, Any]:
  """energy_loss in eV per configuration and force_loss in eV/A per component.

  Args:
    sums: what `force_field_sums` returned, added up over batches; of one run or of many.

  Returns:
    The two errors, energy_loss alone where no forces are known; nan where the sums are not finite.
  """
  errors = {"energy_loss": sums["energy_absolute"] / sums["frames"]}
  if not np.any(sums["components"]):
    return errors
  return {**errors, "force_loss": sums["force_absolute"] / sums["components"]}


def finish(
    sums: Mapping[str, Any], constant: Mapping[str, float]
) -> dict[str, float]:
  """From sums over batches to the reported metrics of one run.

  Args:
    sums: what `force_field_sums` returned, with a leading axis of batches.
    constant: errors of the constant predictor on the same split.

  Returns:
    The metrics of `UNITS`: mean absolute and root mean square errors of the energy of a
    configuration and of a force component; skill, 1 - error / error of the constant predictor,
    nan where that is exact (all energies equal, all forces zero); and the share of configurations
    with energy and forces within threshold. Those of energies alone where no forces are known.
  """
  total = {
      name: float(np.sum(np.asarray(values), dtype=np.float64)) for name, values in sums.items()}
  values = mean_absolute_errors(total)
  values["energy_rmse"] = float(np.sqrt(total["energy_squared"] / total["frames"]))
  values["energy_skill"] = _skill(values["energy_loss"], constant["energy_loss"])
  if "force_loss" in values:
    values["force_rmse"] = float(np.sqrt(total["force_squared"] / total["components"]))
    values["force_skill"] = _skill(values["force_loss"], constant["force_loss"])
    values["efwt"] = total["hits"] / total["labelled"]
  return {metric: values[metric] for metric in UNITS if metric in values}


def _skill(error: float, constant: float) -> float:
  """nan where the constant predictor makes no error: there is nothing to know better."""
  return 1 - error / constant if constant else math.nan
