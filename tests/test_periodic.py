"""Crystals through the whole engine: from a file that ASE wrote to results on test frames."""

import ase.io
import numpy as np
import pytest
import tiny
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from commands import TINY, call

from dcnn import jobs
from dcnn.configs import build
from dcnn.configs import forcefield as configs_forcefield
from dcnn.results import storage
from dcnn.sweeps import batches
from dcnn.tasks import forcefield

FRAMES = 40
CRYSTAL = '''
  config.model.name, config.model.cutoff = "SchNet", 4.0
  config.model.features, config.model.blocks, config.model.radial = 8, 1, 8
  config.activation.name, config.split.test, config.labels = "silu", 10, "standardize"
  config.optimizer.learning_rate = 1e-2
  config.steps, config.chunk = 60, 10
'''


def images(pbc=True) -> list[ase.Atoms]:
  """Copper of four atoms in cells of many shapes, with EMT labels; every second lacks one."""
  frames = []
  for seed in range(FRAMES):
    rng = np.random.default_rng(seed)
    image = bulk("Cu", cubic=True)
    if seed % 2:
      del image[3]
    image.set_cell(image.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), True)
    image.positions += 0.15 * rng.normal(size=image.positions.shape)
    image.pbc = pbc
    image.calc = EMT()
    energy, forces = image.get_potential_energy(), image.get_forces()
    image.calc = SinglePointCalculator(image, energy=energy, forces=forces)
    frames.append(image)
  return frames


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("crystal") / "copper.extxyz"
  ase.io.write(str(path), images())
  return path


@pytest.mark.nightly
def test_crystals_train_by_the_command_line(file, tmp_path, monkeypatch, capsys):
  (tmp_path / "t.py").write_text(TINY.replace("  return config", CRYSTAL + "  return config"))
  status, _, errors = call(
      monkeypatch, capsys, f"--config={tmp_path / 't.py'}", f"--workdir={tmp_path / 'out'}",
      f"--config.dataset={file}")
  assert status == 0, errors
  found = storage.load(tmp_path / "out")
  curve = [point.value for point in found.history
           if (point.split, point.metric) == ("valid", "force_loss")]
  assert len(curve) == 6 and curve[-1] < 0.8 * curve[0]
  assert found.errors("force_skill")["base"][0] > 0


def plan_of(config):
  return build.build(config, build.load(config))


def systems_of(plan):
  """What all runs see of all frames, without their forces."""
  return plan.problem.shared(np.arange(plan.problem.frames))[0]


def test_cells_and_lists_go_along_into_batches(file):
  plan = plan_of(tiny.config(dataset=str(file), model__cutoff=4.0))
  shared = plan.problem.shared(np.arange(FRAMES))
  systems, _ = shared
  assert systems.neighbours.first.dtype == systems.neighbours.shifts.dtype == np.int8
  assert systems.cell.dtype == systems.neighbours.positions.dtype == np.float32
  batch = plan.problem.take((shared, np.zeros(FRAMES, np.float32)), np.array([3, 1]))
  assert batch.systems.cell.shape == (2, 3, 3)
  np.testing.assert_array_equal(batch.systems.neighbours.second, systems.neighbours.second[[3, 1]])


def test_one_list_serves_arms_of_all_cutoffs(file):
  plan = plan_of(tiny.config(
      dataset=str(file), arms=({"model.cutoff": 3.0}, {"model.cutoff": 4.0}, {})))
  assert (systems_of(plan).neighbours.radius == 5.0).all()


def test_a_cutoff_that_no_list_serves_is_one_line(file):
  with pytest.raises(ValueError, match="copper, model.cutoff=500: frame 0: about .* pairs"):
    plan_of(tiny.config(dataset=str(file), model__cutoff=500.0))


def test_large_frames_are_evaluated_few_at_a_time(monkeypatch):
  config = tiny.config()
  # All of them: as many as bound the memory are more.
  assert batches.evaluation_batch(plan_of(config)) == 10
  monkeypatch.setattr(forcefield, "EVALUATION_ATOMS", 40)
  assert batches.evaluation_batch(plan_of(config)) == 4


@pytest.mark.nightly
def test_molecules_give_the_same_with_lists_and_without(monkeypatch):
  """From labels to test errors; which of the two is taken, the number of atoms decides."""
  config = tiny.config(seeds=1)
  dense = jobs.sweep(config)
  monkeypatch.setattr(forcefield, "LISTED_FROM", 9)
  assert systems_of(plan_of(config)).neighbours is not None
  listed = jobs.sweep(config)
  for metric in ("energy_loss", "force_loss", "force_rmse"):
    np.testing.assert_allclose(
        listed.errors(metric)["base"], dense.errors(metric)["base"], rtol=1e-4)


def test_a_network_of_all_pairs_has_no_list(monkeypatch):
  monkeypatch.setattr(forcefield, "LISTED_FROM", 9)
  assert systems_of(plan_of(tiny.mlp())).neighbours is None


def test_a_list_serves_only_networks_that_read_it(monkeypatch):
  """It is not built for others, and reaches as far as the cutoffs of those that do."""
  monkeypatch.setattr(forcefield, "LISTED_FROM", 9)
  alone = tiny.config(model__name="DimeNetPlusPlus", model__cutoff=7.0)
  dataset = configs_forcefield.load(alone).dataset

  def listed(*arms):
    named = {str(number): arm for number, arm in enumerate(arms)}
    return configs_forcefield.with_neighbours(dataset, named).systems.neighbours

  assert listed(alone) is None
  assert (listed(alone, tiny.config(model__cutoff=3.0)).radius == 3.0).all()


def test_periodic_frames_are_refused_for_a_network_without_lists(file):
  with pytest.raises(ValueError, match="periodic frames, and DimeNetPlusPlus reads the angles"):
    plan_of(tiny.config(dataset=str(file), model__name="DimeNetPlusPlus"))
