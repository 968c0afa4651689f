"""Frames without forces through the real command: for their energies alone, or as references."""

import jax.numpy as jnp
import numpy as np
import pytest
from commands import TINY, assert_mistake, call
from test_data import saved
from test_labelled_data import frames_of, with_single_atoms

from dcnn import jobs
from dcnn.base import Labels
from dcnn.results import storage
from dcnn.tasks import forcefield_metrics as metrics

SCHNET = TINY.replace('config.model.name, config.model.hidden = "MLP", (4,)',
                      "config.model.features, config.model.blocks, config.model.radial = 4, 1, 4")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
  """`dcnn` on a tiny SchNet with data: status, output and errors."""
  def run(data, *flags, workdir="out"):
    (tmp_path / "tiny.py").write_text(SCHNET)
    return call(monkeypatch, capsys, f"--config={tmp_path / 'tiny.py'}",
                f"--workdir={tmp_path / workdir}", f"--config.dataset={data}", *flags)
  return run


ENERGIES = "--config.data.incomplete=energies"


def test_energies_alone(command, tmp_path):
  """Nothing is said of forces that nobody knows, and the rest is as with forces of no weight."""
  arrays = frames_of(number=60)
  known = saved(tmp_path / "known.npz", arrays)
  del arrays["forces"]
  path = saved(tmp_path / "x.npz", arrays)
  status, _, errors = command(path)
  assert_mistake(status, errors, "no array 'forces'", f"or train on energies alone with {ENERGIES}")
  status, _, errors = command(path, ENERGIES)
  assert_mistake(status, errors, "none of the 20 training frames has forces",
                 "loss.force_weight=0")
  status, output, errors = command(path, ENERGIES, "--config.loss.force_weight=0")
  assert (status, errors) == (0, "")
  assert "60 frames without forces" in output
  found = storage.load(tmp_path / "out")
  assert {row.metric for row in found.rows} == {"energy_loss", "energy_rmse", "energy_skill"}
  assert {point.metric for point in found.history} == {"loss_energy", "energy_loss"}
  assert "force_loss" not in found.table(baseline="base")
  report = (tmp_path / "out" / "report.md").read_text()
  assert "Without figures" not in report and (tmp_path / "out/figures/parity.svg").exists()
  assert command(known, "--config.loss.force_weight=0", workdir="known")[0] == 0
  with_forces = {row[:5]: row.value for row in storage.load(tmp_path / "known").rows}
  assert all(with_forces[row[:5]] == row.value for row in found.rows)


def test_some_forces(command, tmp_path):
  """Training with all forces of the training frames, and errors over those that are known."""
  arrays = frames_of(number=60)
  arrays["forces"][::3] = np.nan
  path = saved(tmp_path / "x.npz", arrays)
  status, output, errors = command(path, ENERGIES)
  assert (status, errors) == (0, "")
  assert "20 frames without forces" in output
  found = storage.load(tmp_path / "out")
  assert all(np.isfinite(row.value) and row.status == "finished" for row in found.rows)
  assert {row.metric for row in found.rows} == {each.metric.name for each in metrics.METRICS}
  assert len(found.predictions["forces_true"]) == len(found.predictions["forces_predicted"])
  assert np.isfinite(found.predictions["forces_true"]).all()


def test_isolated_atoms_as_references(command, tmp_path):
  path = with_single_atoms(tmp_path / "x.extxyz", frames_of("benzene", 60))
  status, output, errors = command(
      path, "--config.data.incomplete=references", "--config.labels=atomic_reference")
  assert (status, errors) == (0, "")
  assert "60 of 62 frames" in output and "2 atomic references" in output
  transform = jobs.load(tmp_path / "out")["base"].transform
  np.testing.assert_allclose(np.asarray(transform.atomic)[0, [1, 6]], [-13.0, -1000.0])


def test_sums_are_of_what_is_known():
  forces = np.ones((3, 2, 3))
  forces[1] = np.nan
  reference = Labels(np.zeros(3), forces)
  predicted = Labels(np.zeros(3), np.full((3, 2, 3), 1.5))
  species = np.array([[1, 1], [1, 1], [1, 0]])
  sums = metrics.force_field_sums(predicted, reference, species, jnp.ones(3, bool))
  assert sums["components"] == 9 and sums["force_absolute"] == 4.5
  assert sums["labelled"] == 2 and sums["frames"] == 3
