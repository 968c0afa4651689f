"""Molecular dynamics with GFN2-xTB."""

import json
import multiprocessing

import numpy as np
import pytest

from dcnn import data
from dcnn.data import generation

EXTRA = "generating data needs the extra xtb (tblite, rdkit)"


@pytest.fixture
def xtb():
  pytest.importorskip("tblite", reason=EXTRA)
  pytest.importorskip("rdkit", reason=EXTRA)


@pytest.fixture
def trajectory(xtb, monkeypatch):
  """`_trajectory` in this process, a hundred times shorter than in earnest."""
  monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored afterwards; `_trajectory` sets it too
  monkeypatch.setattr(generation, "EQUILIBRATION_STEPS", 20)
  monkeypatch.setattr(generation, "STEPS_PER_FRAME", 2)
  monkeypatch.setattr(generation, "_counters", [0], raising=False)

  def run(entropy=0, frames=3):
    species, start = generation._first_geometry("O", seed=1)
    job = generation._Job(species, start, frames, np.array([entropy]), 500.0)
    return generation._trajectory(0, job)
  return run


def generated(frames: int = 4) -> dict[str, np.ndarray]:
  """What `generate` returns, without dynamics."""
  random = np.random.default_rng(0)
  water = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
  shift = random.normal(scale=0.05, size=(frames, 3, 3))
  return {
      "positions": (water + shift).astype(np.float32),
      "energy": -140 + np.square(shift).sum((1, 2)),
      "forces": (-20 * shift).astype(np.float32),
      "species": np.array([8, 1, 1], np.int32),
      "provenance": np.array(json.dumps(generation._provenance("O", 7, 500.0, frames))),
  }


def test_shares_are_even():
  assert generation._shares(10, 4) == [3, 3, 2, 2]
  assert generation._shares(2, 4) == [1, 1, 0, 0]


def test_embedded_molecules_have_their_own_seeds():
  seeds = [molecule.seed for molecule in generation.MOLECULES.values()]
  assert len(set(seeds)) == len(seeds) == 8
  assert data.NAMES == tuple(generation.MOLECULES)


def test_save_and_load(tmp_path, xtb):
  arrays = generated()
  data.save(arrays, tmp_path / "water.npz")
  assert [path.name for path in tmp_path.iterdir()] == ["water.npz"]
  found = data.load(tmp_path / "water.npz")
  np.testing.assert_array_equal(found.systems.positions, arrays["positions"].astype(float))
  np.testing.assert_array_equal(found.labels.energy, arrays["energy"])
  np.testing.assert_array_equal(found.labels.forces, arrays["forces"].astype(float))
  np.testing.assert_array_equal(found.systems.species, np.tile([8, 1, 1], (4, 1)))
  assert found.source.startswith("water.npz: GFN2-xTB, Langevin, 500 K")
  assert "seed 7" in found.source and "tblite" in found.source


def test_failed_save_leaves_the_old_file(tmp_path):
  path = tmp_path / "water.npz"
  path.write_bytes(b"old")
  with pytest.raises(ValueError, match="allow_pickle"):
    data.save({"energy": np.array([{}], object)}, path)
  assert path.read_bytes() == b"old"


def test_first_geometry_depends_on_the_seed(xtb):
  species, first = generation._first_geometry("CCO", seed=1)
  _, again = generation._first_geometry("CCO", seed=1)
  _, other = generation._first_geometry("CCO", seed=2)
  assert species.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
  np.testing.assert_array_equal(first, again)
  assert not np.allclose(first, other)


def test_trajectory_depends_on_its_seed(trajectory):
  first, again, other = trajectory(1), trajectory(1), trajectory(2)
  for one, two in zip(first, again, strict=True):
    np.testing.assert_array_equal(one, two)
  assert not np.allclose(first[0], other[0])


def test_trajectory_forces_are_the_derivative_of_the_energy(trajectory):
  """A step of 1 fs is short: E_2 - E_1 = -(F_1 + F_2) . (x_2 - x_1) / 2 closely."""
  positions, energy, forces = trajectory(frames=10)
  assert positions.shape == forces.shape == (10, 3, 3) and energy.dtype == np.float64
  # Steps of the centred positions differ from the true ones by a shift, along which no work is
  # done, because the forces sum to zero.
  work = np.sum((forces[1:] + forces[:-1]) * np.diff(positions, axis=0), axis=(1, 2)) / 2
  np.testing.assert_allclose(np.diff(energy), -work, atol=0.03 * np.abs(work).max())
  np.testing.assert_allclose(forces.sum(axis=1), 0, atol=1e-6)
  mass = np.array([15.999, 1.008, 1.008])
  np.testing.assert_allclose(np.einsum("a,fai->fi", mass, positions), 0, atol=1e-10)


@pytest.mark.parametrize("smiles, message", [
    ("", "RDKit cannot read the SMILES ''.*'CCO'"),
    ("not a molecule", "cannot read the SMILES"),
    ("C1CC", "cannot read the SMILES"),
    ("C[NH3+]", r"charge \+1"),
    ("[CH3]", "1 unpaired"),
    ("O.O", r"2 part\(s\)"),
])
def test_bad_smiles(xtb, smiles, message):
  with pytest.raises(ValueError, match=message) as error:
    data.generate(smiles, frames=1, seed=0)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("sizes, message", [
    (dict(frames=0), "frames must be at least 1, got 0"),
    (dict(frames=1, workers=0), "workers must be at least 1, got 0")])
def test_bad_sizes(sizes, message):
  with pytest.raises(ValueError, match=message):
    data.generate("O", seed=0, **sizes)


def test_missing_extra(monkeypatch):
  monkeypatch.setattr(generation.importlib.util, "find_spec", lambda package: None)
  with pytest.raises(ModuleNotFoundError, match=r"pip install 'dcnn\[xtb\]'"):
    data.generate("O", frames=1, seed=0)


@pytest.mark.parametrize("force", [41.0, np.nan])
def test_broken_molecule(force):
  forces = np.zeros((5, 3, 3))
  forces[3, 1, 2] = force
  with pytest.raises(ValueError, match="frame 3 of 'O' has a force component.*molecule broke"):
    generation._check_intact(forces, "O")


def test_failure_in_a_process_is_raised_and_ends_the_others(xtb):
  """The second trajectory fails at once (an element without parameters), the first runs long."""
  water = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
  before = multiprocessing.active_children()
  jobs = [generation._Job(np.array(species), water, 10**6, np.array([1]), 500.0)
          for species in ([8, 1, 1], [8, 1, 118])]
  with pytest.raises(Exception, match=r"(?i)element|singlepoint|supported|118|parameter"):
    generation._run(jobs, 2, lambda fraction: None)
  for process in set(multiprocessing.active_children()) - set(before):
    process.join(10)
    assert not process.is_alive()


@pytest.mark.nightly
def test_number_of_processes_does_not_change_the_result(xtb):
  progress = []
  one = data.generate("[H][H]", frames=2, seed=0, workers=1, on_progress=progress.append)
  two = data.generate("[H][H]", frames=2, seed=0, workers=2)
  assert one.keys() == two.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], two[name])
  assert not np.allclose(one["positions"][0], one["positions"][1])
  assert one["species"].tolist() == [1, 1] and one["positions"].dtype == np.float32
  assert progress[-1] == 1.0 and progress == sorted(progress)
  assert json.loads(str(one["provenance"]))["seed"] == 0
