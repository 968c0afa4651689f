"""Trained networks in use: what a sweep measured comes back, in ASE, in files and without dcnn."""

import json
import pickle
import subprocess
import sys
import warnings

import ase
import ase.io
import daily
import jax
import numpy as np
import pytest
import tiny
from ase import units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet
from commands import assert_mistake, call

import dcnn
from dcnn import data, derivatives
from dcnn.base import System
from dcnn.configs import build
from dcnn.jobs import loading
from dcnn.sweeps import checkpoints, snapshots
from dcnn.tasks import forcefield
from dcnn.use.calculator import Calculator

ARMS = ({}, {"labels": "power_of_ten", "activation.c": 0.1})


def held_out(config):
  """The test frames of the first seed, as the reader gives them."""
  sources = build.load(config)
  return sources.dataset.take(build.build(config, sources).splits[0].test)


def assert_errors(arm, test, found):
  """Errors of each seed are those that the sweep has written down."""
  energy, forces = (np.asarray(each) for each in test.labels)
  measured = arm.metrics["test"]
  np.testing.assert_allclose(
      np.abs(found.energy - energy[:, None]).mean(axis=0), measured["energy_loss"], rtol=1e-6,
      atol=1e-6)
  np.testing.assert_allclose(
      np.abs(found.forces - forces[:, None]).mean(axis=(0, 2, 3)), measured["force_loss"],
      rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
  """A work directory with two arms of two seeds."""
  place = tmp_path_factory.mktemp("use") / "ethanol"
  dcnn.sweep(tiny.config(arms=ARMS), None, workdir=place)
  return place


@pytest.fixture(scope="module")
def ethanol(molecules):
  return dcnn.load(molecules)["base"]


def crystal(seed, atoms=4):
  """Copper of one of many shapes."""
  rng = np.random.default_rng(seed)
  image = bulk("Cu", cubic=True)
  del image[atoms:]
  image.set_cell(image.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), True)
  image.positions += 0.15 * rng.normal(size=image.positions.shape)
  return image


@pytest.fixture(scope="module")
def copper_file(tmp_path_factory):
  frames = []
  for seed in range(40):
    image = crystal(seed, 4 - seed % 2)
    image.calc = EMT()
    image.calc = SinglePointCalculator(
        image, energy=image.get_potential_energy(), forces=image.get_forces())
    frames.append(image)
  path = tmp_path_factory.mktemp("use") / "copper.extxyz"
  ase.io.write(str(path), frames)
  return path


@pytest.fixture(scope="module")
def copper_place(copper_file):
  place = copper_file.parent / "copper"
  dcnn.sweep(tiny.config(
      dataset=str(copper_file), model__cutoff=4.0, activation__name="silu"), None, workdir=place)
  return place


@pytest.fixture(scope="module")
def copper(copper_place):
  return dcnn.load(copper_place)["base"]


@pytest.mark.parametrize("name", daily.only(("SchNet",), tiny.NETWORKS))
def test_a_loaded_network_makes_the_errors_that_were_measured(name, tmp_path):
  """Also with a constant of irelu and labels of its own, which no weight holds."""
  config = tiny.config(arms=ARMS, model__name=name, **tiny.NETWORKS[name])
  dcnn.sweep(config, None, workdir=tmp_path)
  test = held_out(config)
  for arm in dcnn.load(tmp_path).values():
    assert_errors(arm, test, arm.predict(test.systems))


def test_a_sweep_hands_over_what_load_gives(molecules):
  config = tiny.config(arms=ARMS)
  result = dcnn.sweep(config, None, workdir=molecules)
  loaded = dcnn.load(molecules)
  assert list(loaded) == list(result.trained) == ["base", "power_of_ten,c=0.1"]
  for name, arm in loaded.items():
    other = result.trained[name]
    assert (arm.seeds, arm.cutoff, arm.elements) == (other.seeds, 5.0, (1, 6, 8))
    jax.tree.map(np.testing.assert_array_equal, arm.variables, other.variables)
    jax.tree.map(np.testing.assert_array_equal, arm.metrics, other.metrics)
  assert "SchNet for H, C, O, seeds 0, 1" in loaded._repr_html_()
  with pytest.raises(KeyError, match="unknown arm 'bsae': did you mean 'base'"):
    loaded["bsae"]


def test_the_function_is_pure_and_its_energy_less_the_shift(ethanol):
  """One seed by hand, as in jax-md: the same energies, forces that are their derivative."""
  system = jax.tree.map(lambda leaf: leaf[0], data.load("ethanol").systems)
  batch = jax.tree.map(lambda leaf: leaf[None], system)
  expected = ethanol.predict(batch)
  for i in range(2):
    variables = jax.tree.map(lambda leaf, i=i: leaf[i], ethanol.variables)
    energy, forces = derivatives.energy_and_forces(ethanol.energy_fn)(
        variables, forcefield.in_single_precision(system))
    np.testing.assert_allclose(
        float(energy) + ethanol.shift(system.species)[i], expected.energy[0, i], atol=1e-5)
    np.testing.assert_allclose(forces, expected.forces[0, i], atol=1e-5)


def test_a_pickle_holds_all_but_the_program(ethanol):
  systems = jax.tree.map(lambda leaf: leaf[:3], data.load("ethanol").systems)
  copy = pickle.loads(pickle.dumps(ethanol))
  np.testing.assert_array_equal(copy.predict(systems).energy, ethanol.predict(systems).energy)


def test_failed_runs_are_left_out(tmp_path):
  """Of an arm of which all runs have failed it is said why it is not there."""
  config = tiny.config(arms=({}, {"activation.c": 1e29}), seeds=1)
  dcnn.sweep(config, None, workdir=tmp_path)
  trained = dcnn.load(tmp_path)
  assert list(trained) == ["base"]
  with pytest.raises(KeyError, match="all of its runs have failed"):
    trained["c=1e+29"]


def test_runs_of_an_older_dcnn_are_told_of_and_end_nothing(molecules):
  """They did not keep the domain; an arm of which all runs did is there all the same."""
  config = tiny.config(arms=ARMS)
  ended = {}
  for checkpoint in checkpoints.finished(molecules / "checkpoints"):
    ended |= snapshots.to_ended(checkpoint)
  older = {
      key: each._replace(kept={"transform": each.kept["transform"]}) if key.arm == "base" else each
      for key, each in ended.items()}
  trained = loading.hand_over(config, older, {})
  assert list(trained) == ["power_of_ten,c=0.1"]
  with pytest.raises(KeyError, match="saved by an older dcnn"):
    trained["base"]


@pytest.mark.nightly
def test_crystals_of_many_lists_share_a_program(copper):
  copy = pickle.loads(pickle.dumps(copper))  # with no program yet
  systems = [crystal(seed) for seed in range(120)]
  found = copy.predict(System(*(np.stack(each) for each in zip(*(
      (atoms.positions, atoms.numbers, atoms.cell.array) for atoms in systems), strict=True))))
  assert copy.respond._cache_size() == 1 and found.energy.shape == (120, 2)


def test_a_directory_without_runs_is_told_of(tmp_path, molecules):
  (tmp_path / "config.json").write_text((molecules / "config.json").read_text())
  with pytest.raises(ValueError, match="no checkpoints of finished runs there"):
    dcnn.load(tmp_path)


def test_what_is_far_from_the_training_data():
  systems = data.load("ethanol").systems
  known = data.domain(systems)
  frame = jax.tree.map(lambda leaf: leaf[5], systems)
  assert not data.remarks(known, frame)
  # The closest distances are those of training, to the last digit, and less is told of.
  pair = known.closest[0, 1]
  assert pair == min(
      np.linalg.norm(frame[i] - frame[j]) for frame in systems.positions
      for i in np.flatnonzero(systems.species[0] == 1)
      for j in np.flatnonzero(systems.species[0] == 6))
  squeezed = frame._replace(positions=0.7 * frame.positions)
  assert f"no closer than {pair:.3g} A" in data.remarks(known, squeezed)["the distance of H-C"]
  short = System(frame.positions[1:], frame.species[1:])
  assert list(data.remarks(known, short)) == ["the composition CH6O"]
  with pytest.raises(ValueError, match="has F, and the training data had H, C, O alone"):
    data.require_elements(known, np.array([9, 0]), "a structure")


def test_lists_and_all_pairs_have_the_same_domain():
  systems = jax.tree.map(lambda leaf: leaf[:50], data.load("ethanol").systems)
  dense = data.domain(systems)
  listed = data.domain(systems._replace(neighbours=data.neighbour_list(systems, 3.0)))
  near = dense.closest < 3.0
  np.testing.assert_allclose(listed.closest[near], dense.closest[near])
  assert listed.reach == 3.0 and np.isinf(dense.reach)


def atoms_of(name="ethanol", frame=0):
  systems = data.load(name).systems
  return ase.Atoms(numbers=systems.species[frame], positions=systems.positions[frame])


def test_the_calculator_is_an_ensemble(ethanol):
  atoms = atoms_of()
  atoms.positions += 1e4  # float32 has no digits left for bonds there
  atoms.calc = ethanol.calculator()
  found = ethanol.predict(jax.tree.map(lambda leaf: leaf[:1], data.load("ethanol").systems))
  energy, results = atoms.get_potential_energy(), atoms.calc.results
  assert type(energy) is float
  np.testing.assert_allclose(results["energy_comm"], found.energy[0], atol=1e-5)
  np.testing.assert_allclose(results["forces_comm"], found.forces[0], atol=1e-5)
  np.testing.assert_allclose(energy, results["energy_comm"].mean(), rtol=1e-12)
  np.testing.assert_allclose(results["energy_var"], results["energy_comm"].var(), rtol=1e-6)
  np.testing.assert_allclose(results["forces_var"], results["forces_comm"].var(axis=0), rtol=1e-5)
  assert atoms.get_forces().shape == (9, 3)
  # Foreign names among them would break copies of results by ASE.
  assert set(Calculator.implemented_properties) == {"energy", "free_energy", "forces", "stress"}
  with pytest.raises(PropertyNotImplementedError, match="periodic in all directions"):
    atoms.get_stress()


def test_the_calculator_refuses_and_warns_once(ethanol):
  atoms = atoms_of()
  atoms.calc = ethanol.calculator()
  atoms.numbers[0] = 7
  with pytest.raises(ValueError, match="has N, and the training data had H, C, O alone"):
    atoms.get_potential_energy()
  atoms = atoms_of()
  atoms.calc = ethanol.calculator()
  del atoms[8]
  with pytest.warns(UserWarning, match="the composition C2H5O is not in the training data"):
    atoms.get_potential_energy()
  atoms.positions[0] += 1e-3
  with warnings.catch_warnings():
    warnings.simplefilter("error", UserWarning)
    atoms.get_potential_energy()


@pytest.mark.nightly
def test_sizes_share_programs(ethanol):
  calculator = ethanol.calculator()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for count in (3, 4, 9, 5, 7, 2, 8, 6):
      atoms = atoms_of()[:count]
      atoms.calc = calculator
      energy = atoms.get_potential_energy()
      alone = System(atoms.positions[None], atoms.numbers[None])
      np.testing.assert_allclose(energy, ethanol.predict(alone).energy.mean(), atol=1e-5)
  assert calculator._atoms == 12


def test_programs_of_a_hundred_sizes_are_four(ethanol):
  copy = pickle.loads(pickle.dumps(ethanol))  # with no program yet
  calculator, rng = copy.calculator(), np.random.default_rng(0)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for count in [3, *rng.integers(3, 10, 30)]:
      atoms = atoms_of()[:count]
      atoms.calc = calculator
      atoms.get_potential_energy()
  assert copy.respond._cache_size() <= 4


def test_energy_is_conserved(ethanol):
  """Kinetic and potential energy together, over 50 steps of a quarter of a femtosecond."""
  atoms = atoms_of()
  atoms.calc = ethanol.calculator()
  atoms.set_velocities(0.01 * np.random.default_rng(0).normal(size=(9, 3)))
  dynamics, energies = VelocityVerlet(atoms, 0.25 * units.fs), []
  dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
  dynamics.run(50)
  kinetic = atoms.get_kinetic_energy()
  assert np.ptp(energies) < 1e-3 * 9 and kinetic > 0


@pytest.mark.nightly
def test_stresses_are_those_of_finite_differences(copper):
  atoms = crystal(3)
  atoms.calc = copper.calculator()
  numerical = calculate_numerical_stress(atoms, eps=1e-3)
  np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-4)
  results = atoms.calc.results
  assert results["stress_comm"].shape == (2, 6) and results["stress_var"].shape == (6,)


def test_lists_serve_while_atoms_move_less_than_half_the_skin(copper):
  atoms, calculator = crystal(4), copper.calculator(skin=1.0)
  atoms.calc = calculator
  made = []
  build_list = calculator._with_list
  calculator._with_list = lambda system: made.append(1) or build_list(system)
  for step, lists in ((0.0, 1), (0.2, 1), (0.2, 1), (0.3, 2), (0.05, 2)):
    atoms.positions[0, 0] += step
    energy = atoms.get_potential_energy()
    assert len(made) == lists
    alone = System(atoms.positions[None], atoms.numbers[None], atoms.cell.array[None])
    np.testing.assert_allclose(energy, copper.predict(alone).energy.mean(), atol=1e-5)
  atoms.set_cell(1.02 * atoms.cell.array, scale_atoms=True)  # a strain is no motion
  atoms.get_potential_energy()
  assert len(made) == 2


def test_crystals_make_the_errors_that_were_measured(copper, copper_file):
  test = held_out(tiny.config(dataset=str(copper_file), model__cutoff=4.0))
  found = copper.predict(test.systems)
  known = test.systems.species > 0
  error = np.abs(found.forces - test.labels.forces[:, None])[:, 0][known].mean()
  np.testing.assert_allclose(error, copper.metrics["test"]["force_loss"][0], atol=1e-6)
  assert found.stress.shape == (10, 2, 3, 3)


def test_networks_without_lists_refuse_crystals(tmp_path):
  result = dcnn.sweep(tiny.mlp(seeds=1), None)
  atoms = atoms_of()
  atoms.set_cell(20 * np.eye(3))
  atoms.pbc = True
  atoms.calc = result.trained["base"].calculator()
  with pytest.raises(ValueError, match="reads no neighbour lists"):
    atoms.get_potential_energy()


def test_files_are_predicted(ethanol, tmp_path):
  """Energies and forces are those of `predict`; labels stay; errors are those of NumPy."""
  dataset = data.load("ethanol").take(np.arange(7))
  frames = []
  for i in range(7):
    atoms = ase.Atoms(numbers=dataset.systems.species[i], positions=dataset.systems.positions[i])
    if i != 3:
      atoms.calc = SinglePointCalculator(
          atoms, energy=dataset.labels.energy[i], forces=dataset.labels.forces[i])
    frames.append(atoms)
  ase.io.write(str(tmp_path / "in.extxyz"), frames)
  seen = []
  report = ethanol.predict_file(
      tmp_path / "in.extxyz", tmp_path / "out.extxyz", on_progress=seen.append)
  found, written = ethanol.predict(dataset.systems), ase.io.read(tmp_path / "out.extxyz", ":")
  for i, atoms in enumerate(written):
    np.testing.assert_allclose(atoms.get_potential_energy(), found.energy[i].mean(), atol=1e-6)
    np.testing.assert_allclose(atoms.get_forces(), found.forces[i].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(atoms.info["energy_std"], found.energy[i].std(), atol=1e-6)
    np.testing.assert_allclose(
        atoms.arrays["forces_std"], found.forces[i].std(axis=0), atol=1e-6)
    assert ("REF_energy" in atoms.info) == ("REF_forces" in atoms.arrays) == (i != 3)
    if i != 3:
      np.testing.assert_allclose(atoms.info["REF_energy"], dataset.labels.energy[i])
  labelled = np.arange(7) != 3
  errors = np.abs(found.energy - dataset.labels.energy[:, None])[labelled]
  np.testing.assert_allclose(report.errors[:2, 0], errors.mean(axis=0), atol=1e-6)
  mean = np.abs(found.forces.mean(axis=1) - dataset.labels.forces)[labelled].mean()
  np.testing.assert_allclose(report.errors[2, 1], mean, atol=1e-6)
  assert report.labelled == (6, 6) and not report.remarks and seen[-1] == 1
  assert "6 configurations with energies and 6 with forces" in " ".join(report.lines("o"))


def test_files_without_labels_are_predicted_by_the_command_line(
    copper_place, tmp_path, monkeypatch, capsys):
  """Of crystals with stresses; what has no label has no error, and what is far is told of."""
  frames = [crystal(seed) for seed in (50, 51)] + [bulk("Cu", "fcc", 2.6, cubic=True)]
  ase.io.write(str(tmp_path / "in.extxyz"), frames)
  out = tmp_path / "out.extxyz"
  status, output, errors = call(
      monkeypatch, capsys, "predict", str(copper_place), str(tmp_path / "in.extxyz"),
      f"--out={out}")
  assert (status, errors) == (0, "")
  assert "3 configurations by the mean of 2 seeds" in output and "mean absolute" not in output
  assert "note: 1 configuration is far from the training data in the distance of Cu-Cu" in output
  written = ase.io.read(out, ":")
  assert written[0].get_stress().shape == (6,) and "REF_energy" not in written[0].info


@pytest.mark.parametrize("words, said", [
    (("predict",), "expected DIR FILE"),
    (("predict", "DIR", "ethanol"), "--out is missing"),
    (("predict", "DIR", "ethanol", "--out=OUT.xyz"), "ends in .extxyz"),
    (("predict", "DIR", "ethanol", "--out=nowhere/o.extxyz"), "nowhere is no directory"),
    (("predict", "DIR", "ethanol", "--out=OUT.extxyz"), "which arm to take of base, power_of_ten"),
    (("predict", "DIR", "ethanol", "--out=OUT.extxyz", "--arm=bsae"), "did you mean 'base'"),
    (("predict", "DIR", "ethanol", "--out=OUT.extxyz", "--arn=base"), "did you mean '--arm'"),
    (("predict", "DIR", "ethanl", "--out=OUT.extxyz", "--arm=base"), "did you mean 'ethanol'"),
    (("predict", "DIR", "uracil", "--out=OUT.extxyz", "--arm=base"), "uracil has N, and the train"),
    (("predict", "nowhere", "ethanol", "--out=OUT.extxyz"), "no such directory"),
    (("predict", "DIR", "none.xyz", "--out=OUT.extxyz", "--arm=base"), "none.xyz: no such file"),
    (("export", "DIR", "--out=OUT.jaxexport", "--arm=base", "--atoms=0"), "--atoms=0"),
    (("export", "DIR", "DIR", "--out=OUT.jaxexport"), "expected DIR"),
], ids=lambda value: " ".join(value[:5]) if isinstance(value, tuple) else "")
def test_mistakes(words, said, molecules, tmp_path, monkeypatch, capsys):
  words = [word.replace("DIR", str(molecules)).replace("OUT", str(tmp_path / "o"))
           for word in words]
  status, _, errors = call(monkeypatch, capsys, *words)
  assert_mistake(status, errors, said)
  assert not list(tmp_path.iterdir())


# A process that has JAX and no dcnn.
ALONE = """
import sys
sys.modules["dcnn"] = None
import jax, numpy as np
from jax import export

place = sys.argv[1]
program = export.deserialize(bytearray(open(place + ".jaxexport", "rb").read()))
arguments = np.load(place + ".npz")
results = program.call(*(arguments[name] for name in arguments.files))
np.savez(place + "_out.npz", *map(np.asarray, results))
"""


def alone(place, **arguments):
  """What an exported program gives in a process without dcnn."""
  np.savez(f"{place}.npz", **arguments)
  done = subprocess.run([sys.executable, "-c", ALONE, str(place)], capture_output=True, text=True)
  assert not done.returncode, done.stderr
  found = np.load(f"{place}_out.npz")
  return [found[name] for name in found.files]


def test_an_export_needs_no_dcnn(ethanol, tmp_path):
  pytest.importorskip("flatbuffers", reason="the extra export is not installed")
  ethanol.export(tmp_path / "e.jaxexport")
  record = json.loads((tmp_path / "e.jaxexport.json").read_text())
  systems = jax.tree.map(lambda leaf: leaf[:5], data.load("ethanol").systems)
  energies, forces = alone(
      tmp_path / "e", positions=systems.positions.astype(np.float32), species=systems.species)
  program = jax.export.deserialize(bytearray((tmp_path / "e.jaxexport").read_bytes()))
  expected = program.call(systems.positions.astype(np.float32), systems.species)
  np.testing.assert_array_equal(energies, expected[0])
  np.testing.assert_array_equal(forces, expected[1])
  np.testing.assert_allclose(forces, ethanol.predict(systems).forces, atol=1e-6)
  total = energies.astype(np.float64) + record["shift"] + np.array([[
      sum(atomic[str(element)] for element in frame) for atomic in record["atomic"]]
      for frame in systems.species.tolist()])
  np.testing.assert_allclose(total, ethanol.predict(systems).energy, atol=1e-5)
  assert record["seeds"] == [0, 1] and record["arguments"]["positions"][1] == ["frames", "9", "3"]


def test_an_export_of_crystals_takes_any_number_of_atoms(copper, tmp_path):
  pytest.importorskip("flatbuffers", reason="the extra export is not installed")
  copper.export(tmp_path / "c.jaxexport", periodic=True)
  atoms = crystal(7) * (2, 1, 1)
  system = System(atoms.positions, atoms.numbers, atoms.cell.array)
  near = data.neighbour_list(system, 4.0)
  energies, forces, virials = alone(
      tmp_path / "c", positions=atoms.positions.astype(np.float32),
      species=atoms.numbers.astype(np.int32), cell=atoms.cell.array.astype(np.float32),
      first=near.first, second=near.second, shifts=near.shifts)
  expected = copper.predict(jax.tree.map(lambda leaf: leaf[None], system))
  shift = copper.shift(atoms.numbers)
  np.testing.assert_allclose(energies + shift, expected.energy[0], atol=1e-4)
  np.testing.assert_allclose(forces, expected.forces[0], atol=1e-5)
  np.testing.assert_allclose(-virials / atoms.get_volume(), expected.stress[0], atol=1e-6)


def test_a_file_is_not_replaced_by_its_predictions(ethanol, tmp_path):
  path = tmp_path / "few.extxyz"
  ase.io.write(path, atoms_of())
  before = path.read_bytes()
  with pytest.raises(ValueError, match="is the file to predict: choose another name"):
    ethanol.predict_file(path, path)
  assert path.read_bytes() == before


def test_labels_in_other_units_are_told_of(ethanol, tmp_path):
  path = tmp_path / "kcal.extxyz"
  frames = data.load("ethanol")
  images = []
  for i in range(20):
    image = ase.Atoms(numbers=frames.systems.species[i], positions=frames.systems.positions[i])
    image.calc = SinglePointCalculator(
        image, energy=float(frames.labels.energy[i]) * 23.06,
        forces=np.asarray(frames.labels.forces[i]) * 23.06)
    images.append(image)
  ase.io.write(path, images)
  with pytest.warns(UserWarning, match="the labels may be in other units"):
    ethanol.predict_file(path, tmp_path / "out.extxyz")
