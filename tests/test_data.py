"""Loading, units, checks and splits."""

import dataclasses
import io
import pathlib
import re
import time
import warnings
import zipfile

import ase
import ase.db
import ase.io
import catalogue
import hypothesis
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import strategies as st

from dcnn import data
from dcnn.base import BOHR, HARTREE, KCAL_PER_MOL, Dataset, Labels, System
from dcnn.data import embedded, loading

RMD17 = pathlib.Path(__file__).parents[1] / "../shared/data/rmd17_ethanol"

WATER = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
SPRINGS = {(0, 1): 45.0, (0, 2): 45.0, (1, 2): 8.0}  # eV/A^2, of water's bonds and its angle
STIFFNESS = 20.0  # eV/A^2


def water(frames: int = 5, seed: int = 0, spread: float = 0.03) -> dict[str, np.ndarray]:
  """Water in free space with springs between its atoms, as stiff as its bonds are."""
  shift = np.random.default_rng(seed).normal(scale=spread, size=(frames, 3, 3))
  positions, energy, forces = WATER + shift, np.full(frames, -140.0), np.zeros((frames, 3, 3))
  for (i, j), stiffness in SPRINGS.items():
    between = positions[:, j] - positions[:, i]
    length = np.linalg.norm(between, axis=-1, keepdims=True)
    stretch = length - np.linalg.norm(WATER[j] - WATER[i])
    energy += stiffness / 2 * stretch[:, 0] ** 2
    pull = stiffness * stretch * between / length
    forces[:, i] += pull
    forces[:, j] -= pull
  species = np.array([8, 1, 1], np.int32)
  return {"positions": positions, "energy": energy, "forces": forces, "species": species}


def tethered(frames: int = 5, seed: int = 0, spread: float = 0.05) -> dict[str, np.ndarray]:
  """Three atoms, each on a spring to its place: the difference quotient of energies is exact."""
  shift = np.random.default_rng(seed).normal(scale=spread, size=(frames, 3, 3))
  return {
      "positions": WATER + shift,
      "energy": -140.0 + STIFFNESS / 2 * np.square(shift).sum((1, 2)),
      "forces": -STIFFNESS * shift,
      "species": np.array([8, 1, 1], np.int32),
  }


def saved(path: pathlib.Path, arrays: dict) -> pathlib.Path:
  np.savez(path, **arrays)
  return path


def xyz_text(arrays: dict, *, energy="energy", forces="forces", extra="") -> str:
  lines = []
  for positions, total, force in zip(*(arrays[k] for k in ("positions", "energy", "forces")),
                                     strict=True):
    lines += [str(len(positions)), f"Properties=species:S:1:pos:R:3:{forces}:R:3 "
                                   f"{energy}={float(total)!r} {extra}"]
    lines += [" ".join(["OHH"[i], *map(repr, map(float, (*positions[i], *force[i])))])
              for i in range(len(positions))]
  return "\n".join(lines) + "\n"


def images(arrays: dict) -> list[ase.Atoms]:
  atoms = [ase.Atoms(arrays["species"], x) for x in arrays["positions"]]
  for image, energy, forces in zip(atoms, arrays["energy"], arrays["forces"], strict=True):
    image.calc = SinglePointCalculator(image, energy=energy, forces=forces)
  return atoms


def dataset(positions: np.ndarray, species=None) -> Dataset:
  frames, atoms = positions.shape[:2]
  if species is None:
    species = np.ones((frames, atoms), np.int32)
  return Dataset("test", System(positions, species),
                 Labels(np.arange(frames, dtype=float), np.zeros_like(positions)), "", "")


def assert_holds(found: Dataset, arrays: dict, atol: float = 0.0) -> None:
  np.testing.assert_allclose(found.systems.positions, arrays["positions"], rtol=1e-12, atol=atol)
  np.testing.assert_allclose(found.labels.energy, arrays["energy"], rtol=1e-12, atol=atol)
  np.testing.assert_allclose(found.labels.forces, arrays["forces"], rtol=1e-12, atol=atol)
  expected = np.broadcast_to(arrays["species"], found.systems.species.shape)
  np.testing.assert_array_equal(found.systems.species, expected)
  assert all(np.asarray(a).dtype == np.float64 for a in (found.systems.positions, *found.labels))


# Every way in gives the same numbers.

FAMILIES = {
    "dcnn": (dict(positions="positions", species="species", energy="energy", forces="forces"), 1.0),
    "md17": (dict(positions="R", species="z", energy="E", forces="F"), KCAL_PER_MOL),
    "rmd17": (dict(positions="coords", species="nuclear_charges", energy="energies",
                   forces="forces"), KCAL_PER_MOL),
}


@pytest.mark.parametrize("column", [False, True], ids=["flat", "column"])
@pytest.mark.parametrize("family", FAMILIES)
def test_npz_conventions(tmp_path, family, column):
  keys, unit = FAMILIES[family]
  arrays = water()
  stored = {keys[name]: array / (unit if name in ("energy", "forces") else 1)
            for name, array in arrays.items()}
  stored[keys["species"]] = stored[keys["species"]].astype(np.uint8)
  if column:
    stored[keys["energy"]] = stored[keys["energy"]][:, None]
  path = saved(tmp_path / "water.npz", stored)
  found = data.load(path)
  assert_holds(found, arrays)
  assert found.name == "water"
  assert found.checksum == data.checksum(path)
  assert len(found) == 5


@pytest.mark.parametrize("name, energy, length, force", [
    ("eV/angstrom", 1, 1, 1),
    ("kcal/mol/angstrom", 0.0433641042418, 1, 0.0433641042418),
    ("kJ/mol/angstrom", 0.0103642696562, 1, 0.0103642696562),
    ("kJ/mol/nm", 0.0103642696562, 10, 0.00103642696562),
    ("hartree/angstrom", 27.211386246, 1, 27.211386246),
    ("hartree/bohr", 27.211386246, 0.529177210903, 51.42206747632),
    ("hartree/bohr+angstrom", 27.211386246, 1, 51.42206747632),
])
def test_units(tmp_path, name, energy, length, force):
  arrays = water()
  stored = arrays | {"positions": arrays["positions"] / length, "energy": arrays["energy"] / energy,
                     "forces": arrays["forces"] / force}
  found = data.load(saved(tmp_path / "x.npz", stored), units=name)
  np.testing.assert_allclose(found.labels.energy, arrays["energy"], rtol=1e-9)
  np.testing.assert_allclose(found.labels.forces, arrays["forces"], rtol=1e-9)
  np.testing.assert_allclose(found.systems.positions, arrays["positions"], rtol=1e-9)


def test_units_declared_by_the_file(tmp_path):
  arrays = water()
  stored = {"R": arrays["positions"], "E": arrays["energy"], "F": arrays["forces"],
            "z": arrays["species"], "e_unit": "eV", "r_unit": "Ang"}
  assert_holds(data.load(saved(tmp_path / "x.npz", stored)), arrays)
  with pytest.raises(ValueError, match="the unit 'furlong'.*known are eV, .*units="):
    data.load(saved(tmp_path / "y.npz", stored | {"e_unit": "furlong"}))


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte-order mark"])
def test_extended_xyz(tmp_path, end, mark):
  arrays = water()
  path = tmp_path / "w.xyz"
  path.write_bytes((mark + xyz_text(arrays).replace("\n", end)).encode())
  assert_holds(data.load(path), arrays)


def test_extended_xyz_keys_cell_and_blank_lines(tmp_path):
  arrays = water()
  text = xyz_text(arrays, energy="REF_energy", forces="REF_forces",
                  extra='Lattice="50 0 0 0 50 0 0 0 50" pbc="F F F"')
  path = tmp_path / "w.extxyz"
  path.write_text("\n" + text + "\n \n" + text)
  found = data.load(path, energy_key="REF_energy", forces_key="REF_forces")
  assert len(found) == 10
  assert_holds(found.take(np.arange(5)), arrays)


@pytest.mark.parametrize("name", ["w.extxyz", "w.traj", "w.db", "w.json", "wo rds é@2.traj"])
def test_files_written_by_ase(tmp_path, name):
  arrays = water()
  ase.io.write(str(tmp_path / name), images(arrays), format={"extxyz": "extxyz"}.get(name[2:]))
  assert_holds(data.load(tmp_path / name), arrays, atol=1e-7)


def test_database_with_labels_under_data(tmp_path):
  arrays = water()
  with ase.db.connect(str(tmp_path / "w.db")) as rows:
    for i in range(5):
      rows.write(ase.Atoms(arrays["species"], arrays["positions"][i]),
                 key_value_pairs={"total": float(arrays["energy"][i])},
                 data={"gradient": -arrays["forces"][i], "pull": arrays["forces"][i]})
  assert_holds(data.load(tmp_path / "w.db", energy_key="total", forces_key="pull"), arrays)


def test_mixed_molecules_are_padded(tmp_path):
  hydrogen = "2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-30\nH 0 0 0 1 0 0\nH 0.8 0 0 " \
             "-1 0 0\n"
  path = tmp_path / "mixed.extxyz"
  path.write_text(xyz_text(water(2)) + hydrogen)
  found = data.load(path)
  assert found.systems.species.tolist() == [[8, 1, 1], [8, 1, 1], [1, 1, 0]]
  assert not np.any(found.systems.positions[2, 2]) and not np.any(found.labels.forces[2, 2])


def test_species_of_each_frame_mask_what_lies_under_padding(tmp_path):
  arrays = water(4)
  species = np.tile(arrays["species"], (4, 1))
  species[1, 2] = 0
  arrays["forces"][1, 2] = np.nan
  found = data.load(saved(tmp_path / "x.npz", arrays | {"species": species}))
  np.testing.assert_array_equal(found.systems.species, species)
  assert not np.any(found.systems.positions[1, 2]) and not np.any(found.labels.forces[1, 2])


def test_path_with_spaces_and_letters(tmp_path):
  folder = tmp_path / "Übung 1 été"
  folder.mkdir()
  assert len(data.load(str(saved(folder / "Wasser ø.npz", water())))) == 5


def test_take_keeps_order():
  found = dataset(np.arange(18.0).reshape(3, 2, 3)).take(np.array([2, 0]))
  assert found.labels.energy.tolist() == [2.0, 0.0]


# Splits.


@pytest.mark.parametrize("sizes", [(900, 100, None), (10, 0, 5), (1, 0, 0), (990, 5, 5)])
@pytest.mark.parametrize("kind", [
    lambda **sizes: data.split_indices(1000, seed=3, **sizes),
    lambda **sizes: data.block_indices(1000, **sizes)], ids=["random", "blocks"])
def test_split_sizes_and_disjointness(kind, sizes):
  train, valid, test = sizes
  found = kind(train=train, valid=valid, test=test)
  expected = (train, valid, 1000 - train - valid if test is None else test)
  assert tuple(map(len, found)) == expected
  together = np.concatenate(found)
  assert len(np.unique(together)) == len(together)
  assert together.dtype == np.int64 and together.min() >= 0 and together.max() < 1000


def test_random_split_depends_on_the_seed_alone():
  def indices(seed):
    return data.split_indices(100, train=50, valid=20, seed=seed)
  for first, again in zip(indices(1), indices(1), strict=True):
    np.testing.assert_array_equal(first, again)
  assert not np.array_equal(indices(1).train, indices(2).train)


def test_training_sets_nest_and_share_their_test_frames():
  small = data.split_indices(1000, train=50, valid=50, test=500, seed=0)
  large = data.split_indices(1000, train=450, valid=50, test=500, seed=0)
  np.testing.assert_array_equal(small.train, large.train[:50])
  np.testing.assert_array_equal(small.valid, large.valid)
  np.testing.assert_array_equal(small.test, large.test)


def test_blocks_are_in_order_with_gaps():
  found = data.block_indices(20, train=8, valid=4, gap=2)
  assert [list(part) for part in found] == [
      [0, 1, 2, 3, 4, 5, 6, 7], [10, 11, 12, 13], [16, 17, 18, 19]]
  found = data.block_indices(20, train=8, valid=0, test=5, gap=2)
  assert [list(part) for part in found] == [[0, 1, 2, 3, 4, 5, 6, 7], [], [10, 11, 12, 13, 14]]


def test_split_returns_the_frames_of_the_indices():
  frames = dataset(np.random.default_rng(0).normal(size=(30, 2, 3)))
  indices = data.split_indices(30, train=20, valid=5, seed=1)
  for part, numbers in zip(data.split(frames, train=20, valid=5, seed=1), indices, strict=True):
    np.testing.assert_array_equal(part.labels.energy, numbers)
  blocks = data.split_blocks(frames, train=20, valid=5)
  np.testing.assert_array_equal(blocks.test.labels.energy, np.arange(25, 30))


SIZES = st.integers(-2, 40)


@hypothesis.given(st.integers(0, 60), SIZES, SIZES, st.none() | SIZES, st.integers(-1, 4))
def test_any_sizes_give_blocks_or_are_refused(frames, train, valid, test, gap):
  needs = train + valid + (test or 0) + gap * (2 if valid else 1)
  if train < 1 or min(valid, test or 0, gap) < 0 or needs > frames:
    with pytest.raises(ValueError, match=f"train={train}, valid={valid}, test={test}"):
      data.block_indices(frames, train=train, valid=valid, test=test, gap=gap)
    return
  found = data.block_indices(frames, train=train, valid=valid, test=test, gap=gap)
  assert tuple(map(len, found)) == (train, valid, frames - needs if test is None else test)
  blocks = [block for block in found if len(block)]
  for block in blocks:
    np.testing.assert_array_equal(np.diff(block), 1)
  assert blocks[0][0] == 0 and blocks[-1][-1] < frames
  for before, after in zip(blocks, blocks[1:], strict=False):
    assert after[0] - before[-1] == gap + 1


@hypothesis.given(
    st.integers(0, 60), SIZES, SIZES, st.none() | SIZES,
    st.one_of(st.integers(-1, 3), st.sampled_from((2**32, 2**64, 10**40))))
def test_any_sizes_split_at_random_or_are_refused(frames, train, valid, test, seed):
  sizes = dict(train=train, valid=valid, test=test)
  if seed < 0 or train < 1 or min(valid, test or 0) < 0 or train + valid + (test or 0) > frames:
    with pytest.raises(ValueError, match=f"train={train}, valid={valid}, test={test}|seed"):
      data.split_indices(frames, seed=seed, **sizes)
    return
  found = data.split_indices(frames, seed=seed, **sizes)
  assert tuple(map(len, found)) == (
      train, valid, frames - train - valid if test is None else test)
  together = np.concatenate(found)
  assert len(set(together.tolist())) == len(together)
  assert together.min() >= 0 and together.max() < frames
  smaller = data.split_indices(frames, seed=seed, train=1, valid=0, test=len(found.test))
  np.testing.assert_array_equal(smaller.test, found.test)
  np.testing.assert_array_equal(smaller.train, found.train[:1])


@pytest.mark.parametrize("call, message", [
    (lambda: data.split_indices(100, train=90, valid=20, seed=0),
     "train=90, valid=20, test=None need 110 frames, the data set has 100"),
    (lambda: data.split_indices(100, train=0, valid=20, seed=0), "train of at least 1"),
    (lambda: data.split_indices(100, train=10, valid=-1, seed=0), "no negative size"),
    (lambda: data.split_indices(100, train=10, valid=1, seed=-1), "seed must not be negative"),
    (lambda: data.block_indices(100, train=50, valid=40, test=10, gap=3), "need 106 frames"),
], ids=["too many", "none", "negative", "seed", "gap"])
def test_impossible_splits(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_repeated_frames_must_not_be_in_two_splits():
  positions = np.random.default_rng(0).normal(size=(10, 2, 3))
  positions[7] = positions[2]
  positions[2, 0, 0] = positions[7, 0, 0] = 0.0
  positions[7, 0, 0] *= -1  # the same number, other bits
  frames = dataset(positions)
  with pytest.raises(ValueError, match=r"frame 2 \(train\) and frame 7 \(valid\).*distinct"):
    data.split_blocks(frames, train=6, valid=2)
  data.split_blocks(frames, train=8, valid=1)  # both in one split: allowed
  kept = data.distinct(frames)
  assert kept.labels.energy.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]
  data.split_blocks(kept, train=6, valid=2)


def test_same_positions_of_other_species_are_no_repetition():
  positions = np.ones((2, 2, 3))
  frames = dataset(positions, np.array([[1, 1], [1, 2]], np.int32))
  data.split_blocks(frames, train=1, valid=0)


# Units that cannot be right.


def test_sensible_labels_pass_the_band(tmp_path):
  arrays = water(50)
  for energy in (-2080.0, -140.0, -10.0, 0.01):  # all electrons, valence, atomisation, strain
    stored = arrays | {"energy": arrays["energy"] + 140 + energy}
    data.load(saved(tmp_path / "x.npz", stored))


@pytest.mark.parametrize("energy, length, force, units, message", [
    (KCAL_PER_MOL, 1, KCAL_PER_MOL, None, "They fit kcal/mol/angstrom: set units="),
    (HARTREE, BOHR, HARTREE / BOHR, None, r"set units='hartree/bohr',"),
    (HARTREE, 1, HARTREE / BOHR, None, r"set units='hartree/bohr\+angstrom'"),
    (1, 1, 1, "kcal/mol/angstrom", "set units='eV/angstrom'"),
    (1, 1, KCAL_PER_MOL**2, None, "532 times too large"),
    (1, 1, 1e-9, None, "check_units=False"),
    (1, BOHR**-1, 1, None, "closest atoms.*expected at least 0.6 A"),
    (KCAL_PER_MOL, 1, 1, None, "energy -461.*Are the energies in kcal/mol"),
], ids=["kcal", "hartree/bohr", "hartree/bohr+angstrom", "eV", "532", "tiny", "lengths", "energy"])
def test_wrong_units_are_named(tmp_path, energy, length, force, units, message):
  arrays = water(50)
  stored = arrays | {"energy": (arrays["energy"] - 1860) / energy,
                     "positions": arrays["positions"] / length, "forces": arrays["forces"] / force}
  path = saved(tmp_path / "x.npz", stored)
  with pytest.raises(ValueError, match=message) as error:
    data.load(path, units=units)
  assert str(path) in str(error.value) and "\n" not in str(error.value)
  data.load(path, units=units, check_units=False)


def test_forces_of_zero(tmp_path):
  path = saved(tmp_path / "x.npz", water() | {"forces": np.zeros((5, 3, 3))})
  with pytest.raises(ValueError, match="all forces are zero"):
    data.load(path)


def test_unknown_units():
  with pytest.raises(ValueError, match="unknown units 'ev/A': did you mean 'eV/angstrom'.*bohr"):
    data.load("ethanol", units="ev/A")


# Forces that are not minus the gradient of the energies.


def loaded_with_warnings(path, **options) -> tuple[Dataset, list[str]]:
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = data.load(path, **options)
  return found, [str(warning.message) for warning in caught]


MIXES = {
    "right": (1, 1, None, ""),
    "slope 1.4": (1.4, 1, None, ""),
    "slope 0.7": (0.7, 1, None, ""),
    "gradients": (1, -1, None, "-1 times .*correlation -1.00.*gradients instead of forces.*sign"),
    "kcal/mol": (1 / KCAL_PER_MOL, 1, None, "23.1 times .*: energies in kcal/mol. Then convert"),
    "forces in kcal/mol": (1, 1 / KCAL_PER_MOL, None, "0.0434 times.*: forces in kcal/mol/ang"),
    "kJ/mol": (4.184 / KCAL_PER_MOL, 1, None, "96.5 times .*: energies in kJ/mol"),
    "kJ beside kcal": (4.184, 1, "kcal/mol/angstrom", "4.18 times .*: energies in kJ/mol. Then"),
    "two others": (4.184 / KCAL_PER_MOL, 1 / KCAL_PER_MOL, None,
                   "4.18 times .*: energies in kJ/mol and forces in kcal/mol/angstrom"),
    "hartree": (1 / HARTREE, 1, None, "0.0367 times .*: energies in hartree"),
    "forces in hartree/bohr": (1, BOHR / HARTREE, None, "51.4 times .*: forces in hartree/bohr"),
    "bohr beside angstrom": (1, BOHR, "hartree/angstrom",
                             r"1.89 times .*set units='hartree/bohr\+angstrom'"),
    "both": (1 / KCAL_PER_MOL, -1, None, "-23.1 times .*gradients.*; and energies in kcal/mol"),
    "nothing known": (7, 1, None, "7 times .*other methods, frames or units"),
}


@pytest.mark.parametrize("energy, force, units, message", MIXES.values(), ids=MIXES)
def test_finite_differences_tell_mixed_units(tmp_path, energy, force, units, message):
  """The springs are harmonic, so that the difference quotient is exact."""
  arrays = tethered(100)
  mixed = arrays | {"energy": energy * arrays["energy"], "forces": force * arrays["forces"]}
  path = saved(tmp_path / "x.npz", mixed)
  _, told = loaded_with_warnings(path, units=units, check_units=False)
  assert len(told) == bool(message)
  assert re.search(message, "".join(told))


@pytest.mark.parametrize("change", [
    lambda arrays: {name: array[:40] for name, array in arrays.items() if name != "species"},
    lambda arrays: {"positions": 3 * arrays["positions"]},
    lambda arrays: {"energy": np.zeros(100)},
    lambda arrays: {"forces": np.zeros((100, 3, 3))},
    lambda arrays: {name: np.repeat(arrays[name][:1], 100, axis=0) for name in arrays
                    if name != "species"},
    lambda arrays: {"species": np.arange(300).reshape(100, 3) // 3 + 1},
], ids=["few", "far", "no energies", "no forces", "equal frames", "other molecules"])
def test_frames_that_no_difference_can_judge(tmp_path, change):
  arrays = tethered(100)
  arrays |= {"forces": -arrays["forces"]}
  path = saved(tmp_path / "x.npz", arrays | change(arrays))
  assert loaded_with_warnings(path, check_units=False)[1] == []


def test_right_energies_that_are_noisy_pass(tmp_path):
  """Errors of either that leave a correlation of 0.91 leave the slope near 1, too."""
  for name in ("energy", "forces"):
    arrays = tethered(300)
    noise = np.random.default_rng(2).normal(size=arrays[name].shape)
    scale = {"energy": 0.036, "forces": 0.75}[name]
    path = saved(tmp_path / "x.npz", arrays | {name: arrays[name] + scale * noise})
    assert loaded_with_warnings(path)[1] == []


# Bad input: one line that names the file, the frame and the fix.


def changed(name, index, value):
  def change(arrays):
    arrays[name] = arrays[name].astype(float)
    arrays[name][index] = value
  return change


BAD_ARRAYS = {
    "NaN in positions": (changed("positions", (3, 1, 2), np.nan), "frame 3: positions not finite"),
    "NaN in energy": (changed("energy", 4, np.nan), "frame 4: energy not finite"),
    "infinite force": (changed("forces", (2, 0, 0), -np.inf), "frame 2: forces not finite"),
    "species 119": (changed("species", 1, 119), "species holds 119.*from 1 to 118"),
    "species 0": (changed("species", 1, 0), "from 1 to 118"),
    "species -1": (changed("species", 1, -1), "from 1 to 118"),
    "species 1.5": (changed("species", 1, 1.5), "holds 1.5"),
    "species NaN": (changed("species", 1, np.nan), "holds nan"),
    "coincident atoms": (lambda a: a["positions"].__setitem__((3, 1), a["positions"][3, 2]),
                         "frame 3: atoms 1 and 2 are 0 A apart"),
    "frames disagree": (lambda a: a.update(forces=a["forces"][1:]),
                        r"shapes disagree.*\(4, 3, 3\)"),
    "atoms disagree": (lambda a: a.update(species=[8, 1]), r"shapes disagree.*species \(2,\)"),
    "energies of atoms": (lambda a: a.update(energy=np.zeros((5, 3))), "shapes disagree"),
    "one frame without axis": (lambda a: a.update(positions=WATER),
                               r"must have shape \(frames, atoms, 3\)"),
    "zero frames": (lambda a: a.update({k: a[k][:0] for k in ("positions", "energy", "forces")}),
                    "no frames"),
    "only padding": (lambda a: a.update(species=np.diag([1, 1, 1, 0, 1])[:, :3] * 0),
                     "frame 0 has no atoms"),
    "no energy": (lambda a: a.pop("energy"), "no array 'energy'.*positions.*energy_key="),
    "no forces": (lambda a: a.pop("forces"), "no array 'forces'.*forces_key="),
    "other keys": (lambda a: a.pop("positions"), r"has the arrays energy.*expected R, z, E, F"),
    "text": (lambda a: a.update(energy=np.array(["a"] * 5)), "real numbers, got dtype"),
    "complex": (lambda a: a.update(energy=a["energy"] + 0j), "real numbers, got dtype complex"),
    "objects": (lambda a: a.update(energy=np.array([{}] * 5, object)), "unpickling can run code"),
}


@pytest.mark.parametrize("change, message", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays(tmp_path, change, message):
  arrays = water()
  change(arrays)
  path = saved(tmp_path / "bad.npz", arrays)
  with pytest.raises(ValueError, match=message) as error:
    data.load(path)
  assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


class _Trap:
  """Creates a file when unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (pathlib.Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_archive_that_runs_code(tmp_path, name):
  touched = tmp_path / "touched"
  bait = np.array([_Trap(touched)], object)
  if name == "x.npz":
    np.savez(tmp_path / name, **water() | {"energy": bait})
  else:
    np.save(tmp_path / name, bait, allow_pickle=True)
  with pytest.raises(ValueError, match="never done|neither .npz"):
    data.load(tmp_path / name)
  assert not touched.exists()


def test_archive_that_would_fill_the_memory(tmp_path):
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
      header, {"descr": "<f8", "fortran_order": False, "shape": (10**13, 3, 3)})
  path = saved(tmp_path / "x.npz", {k: v for k, v in water().items() if k != "positions"})
  with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("positions.npy", header.getvalue())
  with pytest.raises(ValueError, match="'positions' cannot be read"):
    data.load(path)
  bomb = tmp_path / "bomb.npz"
  np.savez_compressed(bomb, positions=np.zeros((5_000_000, 1, 3), np.float64), species=[1],
                      energy=0, forces=0)
  with pytest.raises(ValueError, match="bytes would become 120000"):
    data.load(bomb)


BAD_BYTES = {
    "empty.npz": (b"", "the file is empty"),
    "magic.npz": (b"not a zip file at all", r"not an .npz archive.*b'not a zi'"),
    "picture.npz": (b"\x89PNG\r\n\x1a\n" + b"0" * 100, "not an .npz archive"),
    "picture.png": (b"\x89PNG\r\n\x1a\n" + b"0" * 100, "neither .npz nor.*Write it as extended"),
    "table.h5": (b"\x89HDF\r\n\x1a\n" + b"0" * 100, "neither .npz nor.*Write it as extended"),
    "noise.db": (b"noise" * 100, "ASE cannot read it"),
    "noise.traj": (b"noise" * 100, "neither|ASE cannot read it"),
    "server.mysql": (b"noise", "neither .npz nor"),
    "no_suffix": (b"noise", "neither .npz nor"),
    "empty.xyz": (b"", "the file is empty"),
    "blank.xyz": (b"\n\n", "no frames"),
    "latin.xyz": (b"1\n\xe9\nH 0 0 0\n", "frame 0 or one soon after it is not UTF-8"),
    "words.xyz": (b"hello\n", "frame 0 begins with 'hello', expected its number of atoms"),
    "count.xyz": (b"99999999999\nx\nH 0 0 0\n", "frames of 99999999999 atoms: at most 10000"),
    "digits.xyz": (b"9" * 5000 + b"\n", "frame 0 begins with"),
    "columns.xyz": (b"1\nProperties=species:S:1:pos:R:3:x:R:99999999999 energy=1\nH 0 0 0\n",
                    "frame 0, atom 0: 4 columns, Properties announces 100000000003"),
    "properties.xyz": (b"1\nProperties=species:S energy=1\nH 0 0 0\n", "must be name:type:columns"),
    "element.xyz": (b"1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nQq 0 0 0 0 0 0\n",
                    "frame 0: 'Qq' is not the symbol"),
    "ghost.xyz": (b"1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nX 0 0 0 0 0 0\n",
                  "frame 0: 'X' is not the symbol of an element"),
    "fraction.xyz": (b"1\nProperties=Z:R:1:pos:R:3:forces:R:3 energy=1\n1.5 0 0 0 0 0 0\n",
                     "frame 0: species '1.5', expected an atomic number"),
    "width.xyz": (b"1\nProperties=pos:R:3:forces:R:3:species:S:0 energy=1\n0 0 0 0 0 0\n",
                  "must be name:type:columns"),
    "number.xyz": (b"1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nH 0 0 a 0 0 0\n",
                   "frame 0: positions must be numbers"),
    "energy.xyz": (b"1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=low\nH 0 0 0 0 0 0\n",
                   "frame 0: energy must be one number, got 'low'"),
    "forces.xyz": (b"1\nProperties=species:S:1:pos:R:3 energy=1\nH 0 0 0\n",
                   "no array 'forces' in any frame.*forces_key=, or train on energies alone"),
    "comment.xyz": (b"1\n" + b"a=1 " * 300_000 + b"\nH 0 0 0\n", "comment line has 1200"),
}


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_files(tmp_path, name):
  contents, message = BAD_BYTES[name]
  path = tmp_path / name
  path.write_bytes(contents)
  with pytest.raises(ValueError, match=message) as error:
    data.load(path)
  assert str(path) in str(error.value)


@pytest.mark.parametrize("header, message", [
    ({"descr": "<f8", "shape": (10**9, 3, 3)}, "is 72000000000 bytes, the archive holds 360"),
    ({"descr": "<f8", "shape": (-5, -3, 3)}, r"shape \(-5, -3, 3\).*damaged; save it again"),
    ({"descr": "<f4", "shape": (5, 3, 3)}, "is 180 bytes, the archive holds 360"),
    ({"descr": [("a", "<f8")], "shape": (5, 3, 3)}, "must hold real numbers"),
    ({"descr": "|V8", "shape": (5, 3, 3)}, "must hold real numbers"),
], ids=["huge", "negative", "short", "structured", "void"])
def test_headers_that_lie(tmp_path, header, message):
  content = io.BytesIO()
  np.lib.format.write_array_header_1_0(content, header | {"fortran_order": False})
  arrays = water()
  path = saved(tmp_path / "x.npz", {k: v for k, v in arrays.items() if k != "forces"})
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("forces.npy", content.getvalue() + arrays["forces"].tobytes())
  with pytest.raises(ValueError, match=message) as error:
    data.load(path)
  assert "'forces'" in str(error.value)


def test_fortran_order_is_read(tmp_path):
  arrays = water()
  path = saved(tmp_path / "x.npz", arrays | {"forces": np.asfortranarray(arrays["forces"])})
  assert_holds(data.load(path), arrays)


@pytest.mark.parametrize("name", ["x.npz", "x.xyz"])
def test_molecules_whose_pairs_fill_the_memory(tmp_path, name):
  """10,001 atoms; and one such frame among small ones must not pad all of them."""
  arrays = {"positions": 3.0 * np.arange(30003).reshape(1, 10001, 3), "energy": [-1.0],
            "forces": np.ones((1, 10001, 3)), "species": np.ones(10001, int)}
  path = tmp_path / name
  if name == "x.npz":
    saved(path, arrays)
  else:
    rows = "\n".join(f"H {3 * i} 0 0 1 1 1" for i in range(10001))
    path.write_text(f"10001\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1\n{rows}\n"
                    + xyz_text(water()))
  with pytest.raises(ValueError, match="frames of 10001 atoms: at most 10000 are read"):
    data.load(path)


def test_more_than_the_memory_is_one_line(tmp_path, monkeypatch):
  def read(path, keys):
    raise MemoryError
  path = saved(tmp_path / "x.npz", water())
  monkeypatch.setattr(loading.npz, "read_npz", read)
  with pytest.raises(ValueError, match="x.npz: too large for this machine's memory"):
    data.load(path)


def test_truncated_archive(tmp_path):
  whole = saved(tmp_path / "whole.npz", water(50)).read_bytes()
  for length in range(1, len(whole), len(whole) // 20):
    path = tmp_path / "cut.npz"
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match="cut short"):
      data.load(path)


def test_missing_energy_is_reported_with_its_frame(tmp_path):
  text = xyz_text(water(900)).split("\n")
  text[713 * 5 + 1] = re.sub("energy=[^ ]*", "step=5", text[713 * 5 + 1])
  path = tmp_path / "w.extxyz"
  path.write_text("\n".join(text))
  with pytest.raises(ValueError, match="frame 713 has no 'energy'; it has: forces, pos"):
    data.load(path)


def test_missing_labels_in_a_trajectory(tmp_path):
  atoms = images(water())
  atoms[3].calc = None
  ase.io.write(str(tmp_path / "w.traj"), atoms)
  with pytest.raises(ValueError, match="frame 3 has no 'energy'; it has: nothing.*energy_key="):
    data.load(tmp_path / "w.traj")
  with pytest.raises(ValueError, match="5 frames .* no 'gold'; they have: energy, forces; did"):
    data.load(tmp_path / "w.traj", energy_key="gold")


# Periodic frames.

CELL = np.array([[9.0, 0.5, 0.0], [0.0, 8.0, 0.25], [1.0, 0.0, 7.0]])
PERIODIC = {"bulk": (True, True, True), "slab": (True, True, False), "wire": (False, True, False)}


def periodic_images(arrays: dict, pbc) -> list[ase.Atoms]:
  atoms = images(arrays)
  for image in atoms:
    labels = image.calc
    image.set_cell(CELL)
    image.set_pbc(pbc)
    image.calc = SinglePointCalculator(image, **labels.results)
  return atoms


@pytest.mark.parametrize("name", ["w.extxyz", "w.traj", "w.db"])
@pytest.mark.parametrize("kind", PERIODIC)
def test_periodic_files_written_by_ase(tmp_path, name, kind):
  arrays, pbc = water(), PERIODIC[kind]
  ase.io.write(str(tmp_path / name), periodic_images(arrays, pbc))
  found = data.load(tmp_path / name)
  assert_holds(found, arrays, atol=1e-6)
  expected = np.where(np.array(pbc)[:, None], CELL, 0.0)
  np.testing.assert_allclose(found.systems.cell, np.tile(expected, (5, 1, 1)), atol=1e-7)
  assert found.take(np.array([3, 1])).systems.cell.shape == (2, 3, 3)


def test_a_lattice_alone_means_periodic(tmp_path):
  path = tmp_path / "w.xyz"
  path.write_text(xyz_text(water(), extra='Lattice="9 0.5 0 0 8 0.25 1 0 7"'))
  np.testing.assert_array_equal(data.load(path).systems.cell[4], CELL)


def test_units_of_a_cell(tmp_path):
  path = tmp_path / "w.xyz"
  path.write_text(xyz_text(water(), extra='Lattice="9 0.5 0 0 8 0.25 1 0 7"'))
  found = data.load(path, units="hartree/bohr", check_units=False)
  np.testing.assert_allclose(found.systems.cell[0], CELL * BOHR, rtol=1e-12)


def test_molecules_beside_crystals_have_a_cell_of_zeros(tmp_path):
  atoms = images(water())
  atoms[2] = periodic_images(water(), True)[2]
  ase.io.write(str(tmp_path / "w.traj"), atoms)
  cell = data.load(tmp_path / "w.traj").systems.cell
  assert not cell[[0, 1, 3, 4]].any() and (cell[2] == CELL).all()


def test_joining_a_periodic_set_and_molecules(tmp_path):
  ase.io.write(str(tmp_path / "w.traj"), periodic_images(water(), True))
  crystals, molecules = data.load(tmp_path / "w.traj"), data.load(
      saved(tmp_path / "w.npz", water(3)))
  assert molecules.systems.cell is None and data.join(molecules, molecules).systems.cell is None
  cell = data.join(crystals, molecules).systems.cell
  assert cell.shape == (8, 3, 3) and (cell[:5] == CELL).all() and not cell[5:].any()


@pytest.mark.parametrize("shape", [(3, 3), (5, 3, 3)])
def test_npz_with_cells(tmp_path, shape):
  path = saved(tmp_path / "w.npz", water() | {"cell": np.broadcast_to(CELL, shape)})
  np.testing.assert_array_equal(data.load(path).systems.cell, np.tile(CELL, (5, 1, 1)))


@pytest.mark.parametrize("change, message", [
    ({"cell": np.ones(6)}, r"cell must have shape \(3, 3\) or \(5, 3, 3\), got \(6,\)"),
    ({"pbc": np.ones(3, bool)}, "the archive has pbc: a periodic set needs"),
    ({"lattice": CELL, "cell": CELL}, "the archive has cell, lattice"),
    ({"cell": 0.01 * CELL}, "frame 0: the faces of the cell"),
], ids=["shape", "pbc", "lattice", "flat"])
def test_npz_with_bad_cells(tmp_path, change, message):
  with pytest.raises(ValueError, match=message):
    data.load(saved(tmp_path / "w.npz", water() | change))


@pytest.mark.parametrize("extra, message", [
    ("pbc=T", "frame 0 is periodic.*has no cell"),
    ('pbc="T T T" Lattice="9 0 0 0 8 0 0 0 0"', "its lattice vector 2 is zero"),
    ("pbc=T Lattice=9", "cannot read the comment line"),
    ("pbc=yes", "pbc must be T or F"),
    ('pbc="T F"', "pbc must be T or F"),
    ('Lattice="9 0 0 9 0 0 0 0 9"', "the faces of the cell.*0 A apart"),
], ids=["no cell", "zero", "number", "word", "two", "plane"])
def test_bad_cells(tmp_path, extra, message):
  path = tmp_path / "w.xyz"
  path.write_text(xyz_text(water(), extra=extra))
  with pytest.raises(ValueError, match=message):
    data.load(path)


def test_closest_images_are_found(tmp_path):
  """Two atoms 0.05 A apart through the face of the cell."""
  arrays = water()
  arrays["positions"][2, 1] = arrays["positions"][2, 0] + [8.95, 0, 0]
  path = tmp_path / "w.xyz"
  path.write_text(xyz_text(arrays, extra='Lattice="9 0 0 0 9 0 0 0 9"'))
  with pytest.raises(ValueError, match="frame 2: atoms 0 and 1 are 0.05 A apart"):
    data.load(path)


def test_the_same_positions_in_another_cell_are_another_frame():
  frames = dataset(np.zeros((4, 2, 3)))
  cells = np.arange(1.0, 5.0)[:, None, None] * np.eye(3)
  crystals = dataclasses.replace(frames, systems=frames.systems._replace(cell=cells))
  assert len(data.distinct(frames)) == 1 and len(data.distinct(crystals)) == 4


def test_a_million_columns(tmp_path):
  path = tmp_path / "wide.xyz"
  path.write_text("1\nProperties=species:S:1:pos:R:3 energy=1\nH" + " 0.0" * 10**6 + "\n")
  start = time.perf_counter()
  with pytest.raises(ValueError, match="atom 0: 1000001 columns, Properties announces 4"):
    data.load(path)
  assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name, kind, message", [
    ("etanol", ValueError, "unknown data set 'etanol': did you mean 'ethanol'.*uracil"),
    ("Salicylic acid", ValueError, "did you mean 'salicylic_acid'"),
    ("xyzzy", ValueError, "unknown data set 'xyzzy': Embedded are aspirin"),
    ("nothing.npz", FileNotFoundError, "nothing.npz: no such file"),
    ("../ethanol", FileNotFoundError, "no such file"),
    ("../../molecules/ethanol.npz", FileNotFoundError, "no such file"),
    (".", OSError, "is a directory"),
    ("", OSError, "is a directory"),
    ("/", OSError, "is a directory"),
])
def test_names_that_are_no_data(tmp_path, monkeypatch, name, kind, message):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(kind, match=message):
    data.load(name)


# The embedded molecules.


def load_embedded(name: str) -> Dataset:
  try:
    return data.load(name)
  except FileNotFoundError:
    pytest.skip(f"the embedded {name} has not been generated")


def _formula(species: np.ndarray) -> dict[int, int]:
  numbers, counts = np.unique(species, return_counts=True)
  return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


@pytest.mark.parametrize("name, formula", [
    ("aspirin", {1: 8, 6: 9, 8: 4}),
    ("benzene", {1: 6, 6: 6}),
    ("ethanol", {1: 6, 6: 2, 8: 1}),
    ("malonaldehyde", {1: 4, 6: 3, 8: 2}),
    ("naphthalene", {1: 8, 6: 10}),
    ("salicylic_acid", {1: 6, 6: 7, 8: 3}),
    ("toluene", {1: 8, 6: 7}),
    ("uracil", {1: 4, 6: 4, 7: 2, 8: 2}),
])
def test_embedded_molecule_is_sound(name, formula):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    frames = load_embedded(name)
  assert len(frames) == 2000 and frames.name == name
  assert _formula(frames.systems.species[0]) == formula
  positions, energy, forces = frames.systems.positions, frames.labels.energy, frames.labels.forces
  assert len(data.distinct(frames)) == 2000
  assert 0.7 < np.sqrt(np.mean(np.square(forces))) < 1.6  # eV/A
  np.testing.assert_allclose(forces.sum(axis=1), 0, atol=1e-4)
  # A classical harmonic molecule at temperature T: Var E = (3 atoms - 6) / 2 (k T)^2.
  harmonic = 8.617333e-5 * 500 * np.sqrt((3 * positions.shape[1] - 6) / 2)
  assert 0.75 < energy.std() / harmonic < 1.35
  assert "GFN2-xTB" in frames.source and "500 K" in frames.source


@pytest.mark.parametrize("name", embedded.NAMES)
def test_embedded_forces_are_the_derivative_of_the_energy(tmp_path, name):
  frames = load_embedded(name)
  arrays = dict(positions=frames.systems.positions, species=frames.systems.species)
  path = saved(tmp_path / "x.npz", arrays | dict(
      energy=frames.labels.energy / KCAL_PER_MOL, forces=-frames.labels.forces))
  (told,) = loaded_with_warnings(path, check_units=False)[1]
  slope, correlation = map(float, re.findall(r"changes by (\S+) .*correlation (\S+)\)", told)[0])
  assert -1.05 < slope * KCAL_PER_MOL < -0.95 and correlation < -0.96


@pytest.mark.parametrize("name", embedded.NAMES)
def test_embedded_checksums_stand_in_the_readme(name):
  found = load_embedded(name)
  readme = pathlib.Path(embedded.__file__).with_name("molecules") / "README.md"
  row = next((line for line in readme.read_text().splitlines()
              if line.startswith(f"| {name} |")), "")
  assert found.checksum in row, f"README.md needs this table:\n{catalogue.table()}"


def test_embedded_files_fit_the_wheel():
  folder = pathlib.Path(embedded.__file__).with_name("molecules")
  assert sum(path.stat().st_size for path in folder.glob("*.npz")) < 8e6


def test_missing_embedded_file(monkeypatch):
  monkeypatch.setattr(embedded.importlib.resources, "files", lambda package: pathlib.Path("."))
  with pytest.raises(FileNotFoundError, match="ethanol is missing.*dcnn generate --smiles='CCO'"):
    data.load("ethanol")


# Data of others.


@pytest.mark.skipif(not RMD17.is_dir(), reason="rMD17 ethanol lies beside the project, not in it")
def test_rmd17_constant_predictor():
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    train, test = (data.load(RMD17 / f"{name}.extxyz") for name in ("train", "test"))
  assert len(train) == len(test) == 1000
  energy_error = np.abs(test.labels.energy - train.labels.energy.mean()).mean()
  assert round(1000 * energy_error) == 143  # meV
  assert round(1000 * np.abs(test.labels.forces).mean()) == 878  # meV/A


@pytest.mark.skipif(not RMD17.is_dir(), reason="rMD17 ethanol lies beside the project, not in it")
@pytest.mark.parametrize("factor, message", [
    (1 / KCAL_PER_MOL, "kcal/mol"), (KCAL_PER_MOL**-2, "532 times"), (1 / HARTREE, "hartree")])
def test_rmd17_in_wrong_units(tmp_path, factor, message):
  train = data.load(RMD17 / "train.extxyz")
  path = saved(tmp_path / "x.npz", dict(
      positions=train.systems.positions, species=train.systems.species,
      energy=train.labels.energy * factor, forces=train.labels.forces * factor))
  with pytest.raises(ValueError, match=message):
    data.load(path)


@pytest.mark.skipif(not RMD17.is_dir(), reason="rMD17 ethanol lies beside the project, not in it")
def test_isolated_atoms_have_no_forces():
  with pytest.raises(ValueError, match="no array 'forces' in any frame"):
    data.load(RMD17 / "isolated_atoms.extxyz")


