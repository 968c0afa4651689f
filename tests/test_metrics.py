"""Metrics: sums over batches equal the figure over all frames at once, in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcnn.base import Labels
from dcnn.tasks import forcefield_metrics as metrics


@pytest.fixture
def case():
  rng = np.random.default_rng(0)
  species = np.array([[6, 1, 1]] * 5 + [[8, 1, 0]] * 4)
  real = (species > 0)[..., None]
  reference = Labels(rng.normal(size=9), rng.normal(size=(9, 3, 3)) * real)
  predicted = Labels(
      reference.energy + 0.05 * rng.normal(size=9),
      reference.forces + 0.1 * rng.normal(size=(9, 3, 3)))
  predicted.energy[0] = reference.energy[0] + 0.019
  predicted.forces[0] = reference.forces[0] + 0.029
  return predicted, reference, species


def on_device(predicted, reference, species, rows):
  counted = jnp.asarray(rows >= 0)
  rows = np.maximum(rows, 0)
  take = jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), (predicted, reference))
  return metrics.force_field_sums(*take, jnp.asarray(species[rows]), counted)


def totals(batches):
  """Sums over the batches of a split, as `outcomes.rows` makes them."""
  return {name: float(np.sum([batch[name] for batch in batches], dtype=np.float64))
          for name in batches[0]}


@pytest.mark.parametrize("rows", [
    [list(range(9))],
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, -1, -1, -1]],
], ids=["one_batch", "padded_batches"])
def test_finish_equals_numpy_over_all_frames(case, rows):
  predicted, reference, species = case
  sums = totals([on_device(predicted, reference, species, np.array(batch)) for batch in rows])
  constant = metrics.constant_predictor(reference, species, energy=0.25)
  found = metrics.finish(sums, constant)
  real = species > 0
  energy_error = predicted.energy - reference.energy
  force_error = (predicted.forces - reference.forces)[real]
  expected = {
      "energy_loss": np.abs(energy_error).mean(),
      "force_loss": np.abs(force_error).mean(),
      "energy_rmse": np.sqrt((energy_error**2).mean()),
      "force_rmse": np.sqrt((force_error**2).mean()),
      "energy_skill": 1 - np.abs(energy_error).mean() / np.abs(reference.energy - 0.25).mean(),
      "force_skill": 1 - np.abs(force_error).mean() / np.abs(reference.forces[real]).mean(),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
  hits = [abs(e) <= 0.02 and np.abs(f).max() <= 0.03 for e, f in zip(
      energy_error, (predicted.forces - reference.forces) * real[..., None], strict=True)]
  assert found["efwt"] == np.mean(hits) > 0


def test_every_metric_has_a_unit(case):
  predicted, reference, species = case
  sums = totals([on_device(predicted, reference, species, np.arange(9))])
  found = metrics.finish(sums, metrics.constant_predictor(reference, species, 0.0))
  assert [each.metric.name for each in metrics.METRICS] == list(found)
  assert all(each.metric.unit and each.metric.meaning for each in metrics.METRICS)


def test_a_perfect_prediction_has_skill_one(case):
  _, reference, species = case
  sums = totals([on_device(reference, reference, species, np.arange(9))])
  found = metrics.finish(sums, metrics.constant_predictor(reference, species, 0.0))
  assert (found["energy_loss"], found["force_skill"], found["efwt"]) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize("energy", [0.0, -4209.1])
def test_skill_is_undefined_where_the_constant_predictor_is_right(energy):
  """All energies equal and all forces zero, but for the rounding of a mean."""
  reference = Labels(np.full(7, energy), np.zeros((7, 2, 3)))
  constant = metrics.constant_predictor(
      reference, np.ones((7, 2), int), np.mean([energy] * 7) + 1e-12)
  assert constant == {"energy_loss": 1e-12 if energy == 0 else 0.0, "force_loss": 0.0}
  sums = {"energy_absolute": 0.7, "energy_squared": 0.1, "force_absolute": 4.2,
          "force_squared": 1.0, "hits": 0.0, "frames": 7.0, "labelled": 7.0,
          "components": 42.0}
  found = metrics.finish(sums, constant | {"energy_loss": 0.0})
  assert np.isnan(found["energy_skill"]) and np.isnan(found["force_skill"])
  assert found["energy_loss"] == pytest.approx(0.1) and found["force_loss"] == pytest.approx(0.1)
