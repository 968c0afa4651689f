"""What a set says of itself is true: units, missing labels, labels of other frames and atoms.

The cases are made of real configurations, 200 frames of each molecule, changed in one way.
"""

import shutil
import sqlite3
import warnings

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from test_data import saved, tethered, xyz_text

from dcnn import data, labels
from dcnn.base import BOHR, HARTREE, KCAL_PER_MOL, Labels, wording
from dcnn.data import checks, consistency, loading, physics, raw
from dcnn.data.units import UNITS, rare_units

KJ_PER_MOL = KCAL_PER_MOL / 4.184
# A small one, a large one and a stiff one; all others with --nightly.
QUICK = ("ethanol", "aspirin", "benzene")
MOLECULES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.nightly)
             for name in data.NAMES]


def frames_of(name: str = "ethanol", number: int = 200, start: int = 0) -> dict[str, np.ndarray]:
  found = data.load(name).take(np.arange(start, start + number))
  return {"positions": np.array(found.systems.positions),
          "species": found.systems.species[0].copy(),
          "energy": np.array(found.labels.energy), "forces": np.array(found.labels.forces)}


def md17(arrays: dict, *, energy=1.0, length=1.0, force=None, **extra) -> dict:
  """The arrays under MD17's keys, divided by units."""
  force = energy / length if force is None else force
  return {"R": arrays["positions"] / length, "z": arrays["species"],
          "E": arrays["energy"] / energy, "F": arrays["forces"] / force, **extra}


def rmd17(arrays: dict, **extra) -> dict:
  return {"coords": arrays["positions"], "nuclear_charges": arrays["species"],
          "energies": arrays["energy"], "forces": arrays["forces"], **extra}


def loaded(path, **options):
  """The set and its warnings."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = data.load(path, **options)
  return found, [str(warning.message) for warning in caught]


def refused(path, **options) -> str:
  with pytest.raises(ValueError) as error:
    data.load(path, **options)
  text = str(error.value)
  assert str(path) in text and "\n" not in text
  return text


# Units.


@pytest.mark.parametrize("name", MOLECULES)
@pytest.mark.parametrize("number", [3, 5, 200])
def test_bonds_tell_the_units(name, number):
  """Of any numbers of a molecule the units that they are in fit, and no others but by a length."""
  arrays = frames_of(name, number, start=700)
  for unit in UNITS.values():
    stored = arrays["positions"] / unit.length, arrays["energy"] / unit.energy, (
        arrays["forces"] / unit.force)
    species = np.tile(arrays["species"], (number, 1))
    numbers = raw.Raw(stored[0], species, stored[1], stored[2], "", raw.Keys())
    fitting = physics.fitting_units(numbers, UNITS.values())
    assert unit.name in fitting
    assert {name.rpartition("/")[0] for name in fitting} == {unit.name.rpartition("/")[0]}


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("energy, length, name", [
    (1.0, 1.0, "eV/angstrom"), (KJ_PER_MOL, 1.0, "kJ/mol/angstrom"),
    (HARTREE, BOHR, "hartree/bohr"), (1.0, BOHR, "eV/bohr"), (KCAL_PER_MOL, BOHR, "kcal/mol/bohr"),
], ids=["eV", "kJ", "hartree", "eV and bohr", "kcal and bohr"])
@pytest.mark.parametrize("molecule", ["ethanol", "aspirin"])
def test_keys_alone_do_not_tell_units(tmp_path, molecule, energy, length, name, scale):
  arrays = frames_of(molecule)
  stored = md17(arrays, energy=energy / scale, length=length)
  text = refused(saved(tmp_path / "x.npz", stored))
  assert "MD17" in text and "units=" in text and name in text


@pytest.mark.parametrize("molecule", MOLECULES)
def test_md17_in_kcal_per_mol_is_read(tmp_path, molecule):
  arrays = frames_of(molecule)
  found, told = loaded(saved(tmp_path / "x.npz", md17(arrays, energy=KCAL_PER_MOL)))
  np.testing.assert_allclose(found.labels.forces, arrays["forces"], atol=1e-6)
  assert told == [] and "which the numbers confirm" in found.summary


def test_nothing_with_a_scale_is_not_guessed(tmp_path):
  """Argon in free space could be in any unit, unless its electrons are all counted."""
  positions = np.array([[0.0, 0, 0], [3.8, 0, 0]]) + np.random.default_rng(0).normal(
      scale=0.1, size=(40, 2, 3))
  pull = np.array([[1.0, 0, 0], [-1.0, 0, 0]]) * np.linspace(-4, 4, 40)[:, None, None]
  energy = np.linspace(-10.0, -9.0, 40)
  stored = {"R": positions, "z": [18, 18], "E": energy, "F": pull}
  assert "nothing in these numbers tells" in refused(saved(tmp_path / "x.npz", stored))
  data.load(tmp_path / "x.npz", units="kcal/mol/angstrom")
  total = 2 * physics.atomic_energies(np.array([18]))[0] * HARTREE / KCAL_PER_MOL
  data.load(saved(tmp_path / "y.npz", stored | {"E": energy + total}))


def test_wrong_units_are_refused_even_if_given(tmp_path):
  path = saved(tmp_path / "x.npz", md17(frames_of()))
  text = refused(path, units="kcal/mol/angstrom")
  assert "fit eV/angstrom" in text and "check_units=False" in text
  data.load(path, units="kcal/mol/angstrom", check_units=False)
  data.load(path, units="eV/angstrom")


DECLARED = {
    "eV": (1.0, 1.0, None, {"e_unit": "eV"}),
    "bytes": (1.0, 1.0, None, {"e_unit": b"eV", "r_unit": b"Angstrom"}),
    "array of bytes": (HARTREE, BOHR, None, {"e_unit": np.array([b"Hartree"]), "r_unit": "bohr"}),
    "kJ/mol and nm": (KJ_PER_MOL, 10.0, None, {"e_unit": "kJ/mol", "r_unit": "nm"}),
    "a length alone": (KCAL_PER_MOL, BOHR, None, {"r_unit": "Bohr"}),
    "three": (1.0, 1.0, HARTREE / BOHR, {"e_unit": "eV", "r_unit": "Ang", "f_unit": "Ha/bohr"}),
    "other names": (HARTREE, 1.0, None, {"energy_unit": "Hartree", "length_unit": "Å"}),
}


@pytest.mark.parametrize("family", [md17, rmd17])
@pytest.mark.parametrize("energy, length, force, said", DECLARED.values(), ids=DECLARED)
def test_declared_units_hold(tmp_path, family, energy, length, force, said):
  arrays = frames_of()
  force = energy / length if force is None else force
  stored = arrays | {"positions": arrays["positions"] / length, "energy": arrays["energy"] / energy,
                     "forces": arrays["forces"] / force}
  found, told = loaded(saved(tmp_path / "x.npz", family(stored, **said)))
  assert told == []
  np.testing.assert_allclose(found.systems.positions, arrays["positions"], rtol=1e-6)
  np.testing.assert_allclose(found.labels.energy, arrays["energy"], rtol=1e-9)
  np.testing.assert_allclose(found.labels.forces, arrays["forces"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("said, words", [
    ({"e_unit": "kcals/mole"}, ("'kcals/mole'", "did you mean 'kcal/mol'", "hartree")),
    ({"r_unit": b"furlong"}, ("'furlong'", "angstrom, bohr")),
    ({"e_unit": "eV", "f_unit": "eV per A"}, ("forces",)),
    ({"e_unit": np.arange(3)}, ("energies",)),
])
def test_unknown_units_are_listed(tmp_path, said, words):
  text = refused(saved(tmp_path / "x.npz", rmd17(frames_of(), **said)))
  assert all(word in text for word in words) and "units=" in text


def test_any_energy_over_any_length_is_a_unit(tmp_path):
  arrays = frames_of(number=20)
  for unit in rare_units():
    stored = {"positions": arrays["positions"] / unit.length, "species": arrays["species"],
              "energy": arrays["energy"] / unit.energy, "forces": arrays["forces"] / unit.force}
    found = data.load(saved(tmp_path / "x.npz", stored), units=unit.name)
    np.testing.assert_allclose(found.labels.forces, arrays["forces"], rtol=1e-9, atol=1e-12)


# One frame decides nothing about the others.


@pytest.mark.parametrize("factor", [40.0, 300.0, 1e6])
@pytest.mark.parametrize("units", [None, "eV/angstrom", "kcal/mol/angstrom"])
def test_a_frame_with_huge_forces_is_named(tmp_path, factor, units):
  arrays = frames_of()
  arrays["forces"][137] *= factor
  text = refused(saved(tmp_path / "x.npz", arrays), units=units)
  assert "frame 137 of 200" in text and "units=" not in text.replace("check_units=", "")


def test_a_frame_in_another_unit_is_named(tmp_path):
  arrays = frames_of()
  arrays["forces"][[7, 60]] *= 0.5 / KCAL_PER_MOL
  assert "2 frames (7, 60)" in " ".join(loaded(saved(tmp_path / "x.npz", arrays))[1])
  arrays = frames_of()
  arrays["energy"][9] += 40.0
  (told,) = loaded(saved(tmp_path / "y.npz", arrays))[1][:1]
  assert "frame 9 of 200" in told and "+" in told
  arrays = frames_of()
  arrays["positions"][11] /= BOHR
  assert any("frame 11 " in told for told in loaded(saved(tmp_path / "z.npz", arrays))[1])


def test_relaxed_and_toy_sets_are_told_so(tmp_path):
  arrays = frames_of()
  relaxed = arrays | {"positions": np.repeat(arrays["positions"][:1], 200, axis=0) + 1e-6 * (
      arrays["positions"] - arrays["positions"][:1]), "forces": 1e-6 * arrays["forces"]}
  text = refused(saved(tmp_path / "x.npz", relaxed))
  assert "relaxed geometries" in text and "check_units=False" in text
  images = [ase.Atoms(arrays["species"], x) for x in relaxed["positions"][:20]]
  for image, energy, forces in zip(images, arrays["energy"], relaxed["forces"], strict=False):
    image.calc = SinglePointCalculator(image, energy=energy, forces=forces)
  ase.io.write(tmp_path / "x.traj", images)
  text = refused(tmp_path / "x.traj")
  assert "relaxed" in text and "fit " not in text


# Labels that are missing.

SENTINELS = {
    "zeros": ("energy", slice(50, 60), 0.0, "10 frames (50, 51, 52, 53, 54, ...) of 200"),
    "most are zero": ("energy", slice(0, 150), 0.0, "150 frames (0, 1, 2, 3, 4, ...) of 200"),
    "one -999": ("energy", 137, -999.0, "frame 137 of 200"),
    "one zero": ("energy", 3, 0.0, "frame 3 of 200"),
    "the mean": ("energy", [4, 8, 9], -309.587, "3 frames (4, 8, 9) of 200"),
    "half the forces": ("forces", slice(None, None, 2), 0.0, "100 frames (0, 2, 4, 6, 8, ...)"),
    "forces of 1e20": ("forces", [5, 7], 1e20, "2 frames (5, 7) of 200"),
}


@pytest.mark.parametrize("key, index, value, words", SENTINELS.values(), ids=SENTINELS)
def test_numbers_that_stand_for_missing_labels(tmp_path, key, index, value, words):
  arrays = frames_of()
  arrays[key][index] = value
  path = saved(tmp_path / "x.npz", arrays)
  text = refused(path)
  assert words in text and "missing" in text and "incomplete='skip'" in text
  found, _ = loaded(path, incomplete="skip")
  kept = np.setdiff1d(np.arange(200), np.arange(200)[index])
  np.testing.assert_array_equal(found.labels.energy, arrays["energy"][kept])
  assert f"{len(kept)} of 200 frames" in found.summary


def test_repeated_configurations_and_few_digits_are_no_missing_labels(tmp_path):
  arrays = frames_of()
  repeated = {key: array if key == "species" else array[np.r_[0:100, [7] * 20, 100:180]]
              for key, array in arrays.items()}
  assert len(data.load(saved(tmp_path / "x.npz", repeated))) == 200
  found, told = loaded(saved(tmp_path / "y.npz", arrays | {"energy": arrays["energy"].round(2)}))
  assert len(found) == 200 and len(told) == 1 and "2 decimals" in told[0]


def with_single_atoms(path, arrays, extra=((1, -13.0), (6, -1000.0))):
  """Frames of a molecule and, behind them, single atoms without forces."""
  images = []
  for i, x in enumerate(arrays["positions"]):
    images.append(ase.Atoms(arrays["species"], x))
    images[-1].calc = SinglePointCalculator(
        images[-1], energy=arrays["energy"][i], forces=arrays["forces"][i])
  for element, energy in extra:
    images.append(ase.Atoms([element], [[0.0, 0, 0]]))
    images[-1].calc = SinglePointCalculator(images[-1], energy=energy)
  ase.io.write(path, images)
  return path


@pytest.mark.parametrize("name", ["x.extxyz", "x.traj", "x.db"])
def test_isolated_atoms(tmp_path, name):
  arrays = frames_of("benzene", 100)
  path = with_single_atoms(tmp_path / name, arrays)
  text = refused(path)
  assert "2 frames (100, 101) of 102: single atoms without forces" in text
  assert all(f"incomplete='{way}'" in text for way in ("skip", "energies", "references"))
  assert len(loaded(path, incomplete="skip")[0]) == 100
  found = loaded(path, incomplete="references")[0]
  assert len(found) == 100 and found.references == {1: -13.0, 6: -1000.0}
  found = loaded(path, incomplete="energies")[0]
  assert len(found) == 102 and np.isnan(found.labels.forces[100:, 0]).all()
  assert not np.isnan(found.labels.forces[:100]).any()
  assert "2 frames without forces" in found.summary


def test_references_are_the_atomic_shift():
  found = data.load("benzene")
  some = Labels(found.labels.energy[:5], found.labels.forces[:5])
  transform = labels.fit(
      "atomic_reference", some, found.systems.species[:5], references={1: -13.0, 6: -1000.0})
  assert transform.shift_of(np.array([[6, 1, 1, 0]])) == -1026.0
  with pytest.raises(ValueError, match=r"received none for the atomic numbers \[6\]"):
    labels.fit("atomic_reference", some, found.systems.species[:5], references={1: -13.0})


def test_single_atoms_that_disagree(tmp_path):
  path = with_single_atoms(tmp_path / "x.extxyz", frames_of("benzene", 60),
                           ((1, -13.0), (1, -13.6), (6, -1000.0)))
  assert "frame 61" in refused(path, incomplete="references")


def test_labels_ignore_frames_without_forces():
  found = data.load("ethanol").take(np.arange(50))
  forces = found.labels.forces.copy()
  forces[10:] = np.nan
  few = Labels(found.labels.energy, forces)
  transform = labels.force_rms(few, found.systems.species)
  assert transform.scale == pytest.approx(np.sqrt(np.mean(forces[:10] ** 2)))
  forces[3, 2, 1] = np.nan
  with pytest.raises(ValueError, match="forces not finite in 1 of 50 frames, first in frame 3"):
    labels.standardize(few)


# Labels of other frames and atoms.

WRONG = {
    "forces of another frame": lambda a: {"forces": np.roll(a["forces"], 1, axis=0)},
    "forces of a far frame": lambda a: {"forces": np.roll(a["forces"], 50, axis=0)},
    "forces in another order": lambda a: {"forces": a["forces"][:, np.argsort(a["species"])]},
    "energies of the next frame": lambda a: {"energy": np.roll(a["energy"], -1)},
    "mirrored in x": lambda a: {"positions": a["positions"] * [-1, 1, 1]},
    "mirrored in z": lambda a: {"positions": a["positions"] * [1, 1, -1]},
    "axes exchanged": lambda a: {"forces": a["forces"][..., [1, 0, 2]]},
    "gradients": lambda a: {"forces": -a["forces"]},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("molecule", MOLECULES)
def test_wrong_labels_are_warned_of(tmp_path, molecule, change):
  arrays = frames_of(molecule)
  told = loaded(saved(tmp_path / "x.npz", arrays | change(arrays)))[1]
  assert any("near frames" in text for text in told), told


@pytest.mark.parametrize("number", [30, 60, 100, 200, 1000])
@pytest.mark.parametrize("molecule", MOLECULES)
def test_right_labels_are_not(tmp_path, molecule, number):
  frames = np.random.default_rng(number).permutation(2000)[:number]
  found = data.load(molecule).take(frames)
  arrays = {"positions": found.systems.positions, "species": found.systems.species,
            "energy": found.labels.energy, "forces": found.labels.forces}
  assert loaded(saved(tmp_path / "x.npz", arrays))[1] == []


@pytest.mark.parametrize("molecule", MOLECULES)
def test_turned_frames_have_the_correlation_of_right_labels(molecule):
  """Frames turned at random are as near as before once they are turned back."""
  arrays = frames_of(molecule)
  turns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 3, 3)))
  turns[:, 0] *= np.linalg.det(turns)[:, None]
  numbers = raw.Raw(arrays["positions"] @ turns, np.tile(arrays["species"], (200, 1)),
                    arrays["energy"], arrays["forces"] @ turns, "", raw.Keys())
  assert consistency.correlation(consistency.near_pairs(numbers)) > 0.93


@pytest.mark.parametrize("number", [10, 30])
@pytest.mark.parametrize("name", ["forces of a far frame", "forces in another order",
                                  "mirrored in x", "axes exchanged"])
def test_few_frames_are_judged_by_torque(tmp_path, name, number):
  arrays = frames_of(number=2 * number)
  wrong = {key: array if key == "species" else array[::2]
           for key, array in (arrays | WRONG[name](arrays)).items()}
  (told,) = loaded(saved(tmp_path / "x.npz", wrong))[1]
  assert "would turn the molecule" in told


def test_single_frames_of_wrong_labels_are_named(tmp_path):
  for change, value in (("forces", 10.0), ("energy", 1.002)):
    arrays = frames_of()
    arrays[change][137] *= value
    told = " ".join(loaded(saved(tmp_path / "x.npz", arrays))[1])
    assert "frame 137" in told and "2 frames" not in told
  arrays = frames_of()
  arrays["forces"][[9, 20]] = arrays["forces"][[100, 130]]
  assert "2 frames (9, 20)" in " ".join(loaded(saved(tmp_path / "x.npz", arrays))[1])


def test_species_in_another_order(tmp_path):
  arrays = frames_of()
  for name, species in {
      "reversed": arrays["species"][::-1], "sorted": np.sort(arrays["species"])[::-1],
      "carbon and oxygen exchanged": np.where(
          arrays["species"] == 8, 6, np.where(np.arange(9) == 0, 8, arrays["species"]))}.items():
    told = loaded(saved(tmp_path / "x.npz", arrays | {"species": species}))[1]
    assert any("species" in text and "order" in text for text in told), name


def test_atoms_held_fixed(tmp_path):
  arrays = frames_of()
  arrays["forces"][:, [3, 5]] = 0.0
  told = loaded(saved(tmp_path / "x.npz", arrays))[1]
  assert "atoms 3, 5 (2 in all)" in told[0] and "held fixed" in told[0]


# Two energies, digits, names.


def with_free_energy(path, arrays, free):
  images = []
  for i, x in enumerate(arrays["positions"]):
    images.append(ase.Atoms(arrays["species"], x))
    images[-1].calc = SinglePointCalculator(
        images[-1], energy=arrays["energy"][i], forces=arrays["forces"][i], free_energy=free[i])
  ase.io.write(path, images)
  return path


@pytest.mark.parametrize("name", ["x.extxyz", "x.traj", "x.npz"])
@pytest.mark.parametrize("matching", ["energy", "free_energy"])
def test_the_energy_that_forces_belong_to(tmp_path, name, matching):
  arrays = frames_of()
  other = arrays["energy"] + np.random.default_rng(0).normal(scale=0.2, size=200)
  energies = {"energy": other, "free_energy": other} | {matching: arrays["energy"]}
  if name == "x.npz":
    path = saved(tmp_path / name, arrays | energies)
  else:
    path = with_free_energy(tmp_path / name, arrays | energies, energies["free_energy"])
  found, told = loaded(path)
  np.testing.assert_allclose(found.labels.energy, arrays["energy"])
  assert len(told) == 1 and f"{matching} is taken" in told[0] and "energy_key=" in told[0]
  assert f"read {matching}, " in found.summary
  chosen, told = loaded(path, energy_key="energy")
  np.testing.assert_allclose(chosen.labels.energy, energies["energy"])


def test_free_energy_is_the_definition_where_nothing_tells(tmp_path):
  arrays = frames_of(number=10)
  found, told = loaded(with_free_energy(tmp_path / "x.traj", arrays, arrays["energy"] - 0.5))
  np.testing.assert_allclose(found.labels.energy, arrays["energy"] - 0.5)
  assert told == [] and "read free_energy" in found.summary and "left out energy" in found.summary


@pytest.mark.parametrize("store, unit, told", [
    (lambda e: (e - 16583.0) / KCAL_PER_MOL, "kcal/mol/angstrom", "1.4 meV, because they are of"),
    (lambda e: e - 16583.0, None, "2 meV, because they are of type float32"),
])
def test_energies_in_single_precision(tmp_path, store, unit, told):
  arrays = frames_of("aspirin")
  unit_value = KCAL_PER_MOL if unit else 1.0
  stored = arrays | {"energy": store(arrays["energy"]).astype(np.float32),
                     "forces": arrays["forces"] / unit_value}
  (text,) = loaded(saved(tmp_path / "x.npz", stored), units=unit)[1]
  assert told in text
  exact = stored | {"energy": store(arrays["energy"])}
  assert loaded(saved(tmp_path / "y.npz", exact), units=unit)[1] == []


@pytest.mark.parametrize("wrong, role", [
    ("Energy", "energy"), ("REF_energy", "energy"), ("dft_total_energy", "energy"),
    ("force", "forces"), ("REF_forces", "forces"), ("Forces", "forces"),
])
def test_the_key_that_is_meant_is_named(tmp_path, wrong, role):
  arrays = frames_of(number=20)
  arrays["species"] = np.array([8, 1, 1])
  arrays |= {key: arrays[key][:, [2, 3, 4]] for key in ("positions", "forces")}
  path = tmp_path / "x.extxyz"
  path.write_text(xyz_text(arrays, **{role: wrong}))
  text = refused(path)
  assert f"did you mean {wrong!r}" in text and f"{role}_key={wrong!r}" in text
  arrays = frames_of()
  arrays[wrong] = arrays.pop(role)
  path = saved(tmp_path / "x.npz", arrays)
  assert f"{role}_key={wrong!r}" in refused(path)
  assert len(data.load(path, **{f"{role}_key": wrong})) == 200


def test_all_keys_can_be_chosen(tmp_path):
  arrays = frames_of()
  stored = {"xyz": arrays["positions"], "atom_types": arrays["species"], "U": arrays["energy"],
            "grad": arrays["forces"]}
  path = saved(tmp_path / "x.npz", stored)
  assert "positions_key=" in refused(path)
  found = data.load(path, positions_key="xyz", species_key="atom_types", energy_key="U",
                    forces_key="grad")
  np.testing.assert_allclose(found.labels.energy, arrays["energy"])
  assert "did you mean" in refused(path, positions_key="xyy", species_key="atom_types")


def test_names_of_atoms_are_no_elements(tmp_path):
  arrays = frames_of(number=3)
  arrays |= {key: arrays[key][:, [2, 3, 4]] for key in ("positions", "forces")}
  text = xyz_text(arrays).replace("\nH ", "\nHO ").replace("\nO ", "\nCA ")
  (tmp_path / "x.xyz").write_text(text)
  told = loaded(tmp_path / "x.xyz", check_units=False)[1]
  assert any("'HO' as holmium" in each and "'CA' as calcium" in each for each in told)
  (tmp_path / "y.xyz").write_text(xyz_text(arrays))
  assert not any("holmium" in each for each in loaded(tmp_path / "y.xyz", check_units=False)[1])


# Files beside each other, and what is done to files.


def test_a_test_set_with_a_new_element_is_refused(tmp_path):
  train, arrays = data.load("ethanol"), frames_of()
  arrays["species"][-1] = 9
  test = data.load(saved(tmp_path / "x.npz", arrays), check_units=False)
  with pytest.raises(ValueError, match="x has F in 200 of 200 frames.*which has H, C, O"):
    data.check_test_set(train, test)


@pytest.mark.parametrize("change, word", [
    (lambda a: {"energy": a["energy"] + 300}, "+300"),
    (lambda a: {"energy": a["energy"] - 5}, "-5"),
    (lambda a: {"forces": a["forces"] / KCAL_PER_MOL}, "times as stiff"),
    (lambda a: {"positions": 1.3 * a["positions"]}, "times as long"),
])
def test_a_test_set_of_another_kind_is_warned_of(tmp_path, change, word):
  arrays = frames_of(start=1000)
  test, _ = loaded(saved(tmp_path / "x.npz", arrays | change(arrays)), check_units=False)
  with pytest.warns(UserWarning, match="x beside ethanol") as caught:
    data.check_test_set(data.load("ethanol"), test)
  assert word in str(caught[0].message)


def test_test_sets_of_one_kind_pass():
  """Also of another molecule, and where compositions tell nothing of each other."""
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    ethanol = data.load("ethanol")
    for start in range(0, 1000, 250):
      few = ethanol.take(np.arange(start, start + 9))
      data.check_test_set(ethanol.take(np.arange(1000, 2000)), few)
    data.check_test_set(data.load("salicylic_acid"), data.load("toluene"))


def test_files_are_not_changed(tmp_path):
  database = sqlite3.connect(tmp_path / "mine.db")
  database.execute("CREATE TABLE letters (text)")
  database.commit()
  database.close()
  before = (tmp_path / "mine.db").read_bytes()
  text = refused(tmp_path / "mine.db")
  assert "no database of ASE" in text and "letters" in text
  assert (tmp_path / "mine.db").read_bytes() == before
  arrays = frames_of(number=10)
  with ase.db.connect(tmp_path / "ours.db") as rows:
    for i, x in enumerate(arrays["positions"]):
      atoms = ase.Atoms(arrays["species"], x)
      atoms.calc = SinglePointCalculator(
          atoms, energy=arrays["energy"][i], forces=arrays["forces"][i])
      rows.write(atoms)
  before = (tmp_path / "ours.db").read_bytes()
  (tmp_path / "ours.db").chmod(0o444)
  assert len(data.load(tmp_path / "ours.db")) == 10
  assert (tmp_path / "ours.db").read_bytes() == before
  assert {path.name for path in tmp_path.iterdir()} == {"mine.db", "ours.db"}


@pytest.mark.parametrize("name", ["w.xyz", "w.npz", "w.traj", "w.db", "w.extxyz"])
def test_files_whose_size_says_nothing(tmp_path, name):
  with open(tmp_path / name, "wb") as file:
    file.truncate(3 * 2**30)
  assert "almost none were ever written" in refused(tmp_path / name)


@pytest.mark.parametrize("content, words", [
    (b"\0" * 30_000_000, "a line of more than"), (b"\n" * 5000, "blank lines"),
    (b"7" * 25_000_000, "a line of more than"),
], ids=["zeros", "blank lines", "digits"])
def test_endless_lines(tmp_path, content, words):
  (tmp_path / "w.xyz").write_bytes(content)
  assert words in refused(tmp_path / "w.xyz")


def test_home_directory_and_formats(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  arrays = frames_of(number=10)
  saved(tmp_path / "x.npz", arrays)
  shutil.copy(tmp_path / "x.npz", tmp_path / "x.data")
  assert len(data.load("~/x.npz")) == len(data.load("~/x.data", format="npz")) == 10
  assert "did you mean 'extxyz'" in refused(tmp_path / "x.data", format="extxzy")
  with pytest.raises(ValueError, match="incomplete='skipp': did you mean 'skip'"):
    data.load("ethanol", incomplete="skipp")


def test_padding_of_all_frames_is_cut_off(tmp_path):
  arrays = frames_of()
  padded = arrays | {
      "positions": np.pad(arrays["positions"], ((0, 0), (0, 2), (0, 0)), constant_values=7.0),
      "forces": np.pad(arrays["forces"], ((0, 0), (0, 2), (0, 0))),
      "species": np.tile(np.append(arrays["species"], [0, 0]), (200, 1))}
  found = data.load(saved(tmp_path / "x.npz", padded))
  np.testing.assert_array_equal(found.systems.positions, arrays["positions"])
  assert "9 atoms" in found.summary


# What is said.


def test_the_summary_says_what_was_read_and_left_out(tmp_path):
  arrays = frames_of("benzene")
  path = saved(tmp_path / "b.npz", arrays | {"dipole": np.zeros(3), "charges": np.zeros(3)})
  found = data.load(path)
  for words in ("b.npz: 200 frames of 12 atoms (H, C)", "read energy, forces, positions, species",
                "left out charges, dipole", "eV/angstrom, the convention", "RMS force 1.1",
                "closest atoms 0.9"):
    assert words in found.summary
  assert "\n" not in found.summary
  assert len(repr(found)) < 400 and "<b>" in found._repr_html_()


def test_options_are_named_as_the_user_writes_them():
  assert wording.option("units", "eV/angstrom") == "units='eV/angstrom'"
  with wording.options_under("--config."), wording.options_under("data."):
    assert wording.option("units", "eV/angstrom") == "--config.data.units=eV/angstrom"
    assert wording.option("energy_key") == "--config.data.energy_key="
    assert wording.option("check_units", False) == "--config.data.check_units=False"
  assert wording.option("check_units", False) == "check_units=False"


def test_missing_numbers_do_not_reach_the_checks():
  """Masks of what is missing are of frames, and never of a whole set of zeros."""
  zeros = raw.Raw(np.zeros((6, 2, 3)), np.ones((6, 2), int), np.zeros(6), np.zeros((6, 2, 3)), "",
                  raw.Keys())
  assert not checks.constant_forces(zeros).any() and not checks.frames_without_forces(zeros).any()
  assert not checks.frames_without_energy(zeros, UNITS["eV/angstrom"]).any()
  assert loading.INCOMPLETE[0] == "refuse"


# What is right and looks odd.


@pytest.mark.parametrize("decimals", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("unit", ["eV/angstrom", "kcal/mol/angstrom"])
@pytest.mark.parametrize("number", [200, 1000, 2000])
def test_rounded_energies_are_not_missing(tmp_path, decimals, unit, number):
  arrays, size = frames_of("benzene", number), UNITS[unit].energy
  stored = arrays | {"energy": (arrays["energy"] / size).round(decimals),
                     "forces": arrays["forces"] / size}
  assert len(loaded(saved(tmp_path / "x.npz", stored), units=unit)[0]) == number


def test_turned_copies_and_symmetric_crystals_are_right(tmp_path):
  arrays = frames_of(number=30)
  turns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 3, 3)))
  copies = {key: np.concatenate([arrays[key], arrays[key][:1] @ turns])
            for key in ("positions", "forces")}
  energy = np.append(arrays["energy"], np.full(10, arrays["energy"][0]))
  assert len(data.load(saved(tmp_path / "x.npz", arrays | copies | {"energy": energy}))) == 40
  crystals = []
  for i in range(30):
    crystal = bulk("Al", cubic=True) * (2, 2, 2)
    if i % 3:
      crystal.rattle(0.1, seed=i)
    else:
      crystal.set_cell(crystal.cell * (0.98 + 0.002 * i), scale_atoms=True)
    crystal.calc = EMT()
    forces = crystal.get_forces() if i % 3 else np.zeros((32, 3))
    crystal.calc = SinglePointCalculator(
        crystal, energy=crystal.get_potential_energy(), forces=forces)
    crystals.append(crystal)
  ase.io.write(tmp_path / "x.traj", crystals)
  found, told = loaded(tmp_path / "x.traj")
  assert len(found) == 30 and told == []
  crystals[4].calc = SinglePointCalculator(
      crystals[4], energy=crystals[4].get_potential_energy(), forces=np.zeros((32, 3)))
  ase.io.write(tmp_path / "y.traj", crystals)
  assert "frame 4 of 30" in refused(tmp_path / "y.traj")


@pytest.mark.parametrize("keys", [
    {"energy_unit": "kcal/mol"}, {"e_unit": "kcal/mol", "r_unit": "Ang"},
    {"units": "kcal/mol/angstrom"}, {"units": "kcal/mol"}], ids=str)
def test_extended_xyz_declares_units(tmp_path, keys):
  arrays = frames_of(number=20)
  images = []
  for x, energy, forces in zip(arrays["positions"], arrays["energy"] / KCAL_PER_MOL,
                               arrays["forces"] / KCAL_PER_MOL, strict=True):
    images.append(ase.Atoms(arrays["species"], x, info=dict(keys)))
    images[-1].calc = SinglePointCalculator(images[-1], energy=energy, forces=forces)
  ase.io.write(tmp_path / "x.extxyz", images)
  found, told = loaded(tmp_path / "x.extxyz")
  np.testing.assert_allclose(found.labels.energy, arrays["energy"], rtol=1e-9)
  assert told == [] and "as the file declares" in found.summary


def test_an_unknown_unit_can_be_overridden(tmp_path):
  arrays = frames_of()
  path = saved(tmp_path / "x.npz", rmd17(arrays, e_unit="electronvoltz"))
  assert "did you mean 'electronvolt" in refused(path)
  assert len(data.load(path, units="eV/angstrom")) == 200


def test_two_units_in_one_file(tmp_path):
  arrays = frames_of()
  for key in ("energy", "forces"):
    arrays[key][::2] /= KCAL_PER_MOL
  text = refused(saved(tmp_path / "x.npz", arrays))
  assert "two sizes" in text and "kcal/mol/angstrom and eV/angstrom" in text


def test_many_wrong_labels_are_warned_of(tmp_path):
  arrays = frames_of()
  arrays["energy"][::7] += np.resize([0.6, -0.6], 29)
  assert any("near frames" in text for text in loaded(saved(tmp_path / "x.npz", arrays))[1])


def test_net_forces_are_warned_of_unless_something_holds_the_molecule(tmp_path):
  arrays = frames_of()
  pushed = arrays | {"forces": arrays["forces"] + 0.15}
  assert any("would move" in text for text in loaded(saved(tmp_path / "x.npz", pushed))[1])
  held = tethered(300)
  assert loaded(saved(tmp_path / "y.npz", held))[1] == []


def test_repeated_configurations_with_other_energies(tmp_path):
  arrays = frames_of()
  twice = {key: array if key == "species" else np.concatenate([array, array[:20]])
           for key, array in arrays.items()}
  twice["energy"][200:] += 0.3
  (told,) = loaded(saved(tmp_path / "x.npz", twice))[1]
  assert "20 frames (200, 201, 202, 203, 204, ...) repeat configurations" in told


def test_a_huge_frame_among_small_ones_does_not_fill_the_memory(tmp_path):
  lines = ["3", "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0",
           "O 0 0 0 0 0 0.1", "H 0 0 0.96 0 0 -0.1", "H 0.9 0 -0.3 0 0 0"] * 1000
  lines += ["9000", "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0"]
  lines += [f"Ar {4 * i} 0 0 0 0 0" for i in range(9000)]
  (tmp_path / "x.xyz").write_text("\n".join(lines) + "\n")
  assert "frame 1000 has 9,000 atoms" in refused(tmp_path / "x.xyz")


@pytest.mark.parametrize("way", ["skip", "energies"])
def test_sets_without_any_energy(tmp_path, way):
  (tmp_path / "x.xyz").write_text("1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n" * 5)
  refused(tmp_path / "x.xyz", incomplete=way)
