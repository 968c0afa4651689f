"""Bad input ends in one line that names the file, the frame and the fix; nothing is written.

The tables below are the specification: how the input is made, and words that the line must have.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from commands import TINY, assert_mistake, call
from test_data import saved, water, xyz_text

from dcnn import configs
from dcnn.base import BOHR, HARTREE, KCAL_PER_MOL
from dcnn.cli import arguments
from dcnn.configs import build
from dcnn.results import storage
from dcnn.tasks import forcefield

FRAMES = 60
Make = Callable[[pathlib.Path], pathlib.Path | str]


# How files are made.


def npz(*, name: str = "w.npz", frames: int = FRAMES, **changes) -> Make:
  """Water with arrays replaced: by values, by functions of the array, or removed (None)."""
  def make(folder):
    arrays = water(frames)
    for key, value in changes.items():
      arrays[key] = value(arrays[key]) if callable(value) else value
    kept = {key: value for key, value in arrays.items() if value is not None}
    (folder / name).parent.mkdir(exist_ok=True)
    return saved(folder / name, kept)
  return make


def put(index, value) -> Callable[[np.ndarray], np.ndarray]:
  """An array with one entry replaced."""
  def change(array):
    array = np.array(array, float)
    array[index] = value
    return array
  return change


def renamed(**keys) -> Make:
  """Water under other keys."""
  return lambda folder: saved(folder / "w.npz", {
      keys.get(key, key): array for key, array in water(FRAMES).items()})


def xyz(change=lambda text: text, name: str = "w.xyz", frames: int = FRAMES) -> Make:
  """Water as extended XYZ, its text or its bytes changed."""
  def make(folder):
    content = change(xyz_text(water(frames)))
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name
  return make


def without_energy(index: int) -> Callable[[str], str]:
  """Removes the energy of one frame of five lines."""
  def change(text):
    lines = text.split("\n")
    lines[5 * index + 1] = lines[5 * index + 1].partition(" energy=")[0]
    return "\n".join(lines)
  return change


def binary(name: str, content: bytes) -> Make:
  """A file of these bytes."""
  def make(folder):
    (folder / name).write_bytes(content)
    return folder / name
  return make


def cut_short(folder):
  """The first half of an archive."""
  whole = saved(folder / "w.npz", water(FRAMES)).read_bytes()
  (folder / "w.npz").write_bytes(whole[:len(whole) // 2])
  return folder / "w.npz"


class Trap:
  """Writes a file when unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (pathlib.Path.touch, (self.path,))


def trapped(folder):
  """An archive that would write `touched` if it were unpickled."""
  bait = np.array([Trap(folder / "touched")] * FRAMES, object)
  return saved(folder / "w.npz", water(FRAMES) | {"energy": bait})


def mixed(folder):
  """Water, and from frame 30 on with the atoms in another order."""
  species = np.tile([8, 1, 1], (FRAMES, 1))
  species[30:] = [1, 8, 1]
  return saved(folder / "w.npz", water(FRAMES) | {"species": species})


def hdf5(folder):
  """The start of an HDF5 file, under the name that ASE's own formats would have."""
  return binary("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(200))(folder)


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(200)
WIDE = "1\nProperties=species:S:1:pos:R:3 energy=1\nH" + " 0.0" * 10**6 + "\n"
ZEROS = np.zeros((FRAMES, 3, 3))


class Case(NamedTuple):
  """What is wrong, and what the line must say.

  Attributes:
    make: writes the data and returns its path; by default sound water.
    flags: further arguments.
    config: lines of the experiment file before its `return config`.
    words: of the line, besides the name of the file.
  """

  words: tuple[str, ...]
  make: Make = npz()
  flags: tuple[str, ...] = ()
  config: str = ""


def of_file(make: Make, *words: str, flags: tuple[str, ...] = ()) -> Case:
  """A mistake in a data file, whose name must be in the line."""
  return Case(("DATA", *words), make, flags)


def of_flags(flags: str, *words: str) -> Case:
  """A mistake on the command line."""
  return Case(words, flags=tuple(flags.split(" ")))


def of_config(config: str, *words: str) -> Case:
  """A mistake in the experiment file."""
  return Case(words, config=config)


WEIGHTS = "--config.loss.energy_weight=0 --config.loss.force_weight=0"
UNCHECKED = ("--config.data.check_units=False",)
NO_ENERGY = ("--config.loss.energy_weight=0",)
NO_FORCES = ("--config.loss.force_weight=0", *UNCHECKED)
EQUAL = np.full(FRAMES, -140.0)

REFUSED = {
    # Archives.
    "truncated npz": of_file(cut_short, "cut short", "copy it again"),
    "empty npz": of_file(binary("w.npz", b""), "the file is empty", "write it again"),
    "wrong magic": of_file(binary("w.npz", b"not a zip at all"), "begins with b'not a zi'",
                           "numpy.savez"),
    "pickled objects": of_file(trapped, "'energy' is a pickled", "Save it again as numbers"),
    "missing energy": of_file(npz(energy=None), "no array 'energy'", "energy_key="),
    "missing forces": of_file(npz(forces=None), "no array 'forces'", "forces_key="),
    "missing species": of_file(npz(species=None), "expected R, z, E, F (MD17)"),
    "misnamed positions": of_file(renamed(positions="xyz"), "xyz", "positions, species, energy"),
    "misnamed forces": of_file(renamed(forces="gradients"), "gradients", "forces_key="),
    "more frames": of_file(npz(energy=lambda e: e[:-1]), "shapes disagree", "(59,)", "60 frames"),
    "more atoms": of_file(npz(forces=ZEROS[:, :2]), "shapes disagree", "(60, 2, 3)", "3 atoms"),
    "flat positions": of_file(npz(positions=lambda x: x[0]), "shape (frames, atoms, 3)"),
    "zero frames": of_file(npz(frames=0), "no frames", "at least one"),
    "one frame": of_file(npz(frames=1), "train=20", "need 50 frames, the data set has 1"),
    "text": of_file(npz(energy=np.array(["a"] * FRAMES)), "'energy' must hold real numbers"),
    "NaN position": of_file(npz(positions=put((7, 1, 2), np.nan)), "frame 7: positions", "remove"),
    "NaN energy": of_file(npz(energy=put(59, np.nan)), "frame 59: energy not finite", "remove"),
    "Inf force": of_file(npz(forces=put((0, 2, 0), -np.inf)), "frame 0: forces not", "remove"),
    "beyond float32": of_file(npz(forces=put((4, 0, 0), 1e200)), "frame 4: forces", "remove"),
    "atoms on top of each other": of_file(
        npz(positions=lambda x: np.where(np.arange(60)[:, None, None] == 9, 0.0, x)),
        "frame 9: atoms 0 and 1 are 0 A apart", "Remove such frames"),
    "species 119": of_file(npz(species=[8, 1, 119]), "atom 2", "119", "from 1 to 118"),
    "species -1 in a frame": of_file(
        npz(species=put((5, 1), -1)(np.tile([8, 1, 1], (FRAMES, 1)))), "frame 5, atom 1", "-1.0"),
    "species 1.5": of_file(npz(species=[8, 1, 1.5]), "atom 2", "1.5"),
    "unknown provenance of units": of_file(
        lambda folder: saved(folder / "w.npz", {
            "R": water(FRAMES)["positions"], "E": water(FRAMES)["energy"], "z": [8, 1, 1],
            "F": water(FRAMES)["forces"], "e_unit": "furlong"}),
        "'furlong'", "--config.data.units="),
    # Units.
    "kcal/mol as eV": of_file(
        npz(energy=lambda e: e / KCAL_PER_MOL, forces=lambda f: f / KCAL_PER_MOL),
        "--config.data.units=kcal/mol/angstrom"),
    "energies in kcal/mol": of_file(
        npz(energy=lambda e: (e - 1860) / KCAL_PER_MOL), "frame ", "Are the energies in kcal/mol?",
        "units="),
    "hartree and bohr as eV": of_file(
        npz(positions=lambda x: x / BOHR, forces=lambda f: f * BOHR / HARTREE),
        "--config.data.units=hartree/bohr"),
    "unknown units": of_flags("--config.data.units=eV/A", "'eV/A'", "did you mean 'eV/angstrom'"),
    # Molecules.
    "mixed molecules": of_file(mixed, "frame 30 has other atoms", "take SchNet"),
    # Extended XYZ.
    "energy of frame 713": of_file(xyz(without_energy(713), frames=900), "frame 713", "'energy'",
                                   "energy_key="),
    "a million columns": of_file(xyz(lambda text: WIDE), "frame 0, atom 0: 1000001 columns"),
    "latin-1": of_file(xyz(lambda text: text.encode() + b"\xe9"), "UTF-8", "frame "),
    "truncated xyz": of_file(xyz(lambda text: text[:-100]), "frame 59, atom 2: 2 columns",
                             "cut short"),
    "words for numbers": of_file(xyz(lambda text: text.replace("\nO 0", "\nO x", 1)), "frame ",
                                 "positions must be numbers"),
    "columns of width 0": of_file(
        xyz(lambda text: text.replace("species:S:1:pos", "pos").replace(
            "forces:R:3", "forces:R:3:species:S:0")), "frame 0", "name:type:columns"),
    "crystals for the MLP": of_file(
        xyz(lambda text: text.replace("Prop", 'Lattice="9 0 0 0 9 0 0 0 9" Prop')),
        "it has periodic frames", "take SchNet", "F F F"),
    "periodic": of_file(xyz(lambda text: text.replace("Prop", "pbc=T Prop")), "frame 0", "F F F"),
    # No data at all.
    "hdf5": of_file(hdf5, "neither .npz nor", "extended XYZ"),
    "png": of_file(binary("w.png", PNG), "neither .npz nor", "extended XYZ"),
    "png as npz": of_file(binary("w.npz", PNG), "not an .npz archive", "PNG"),
    "png as xyz": of_file(binary("w.xyz", PNG), "UTF-8"),
    "directory": of_file(lambda folder: folder, "is a directory", "expected a file"),
    "unknown name": of_flags("--config.dataset=etanol", "'etanol'", "did you mean 'ethanol'"),
    "name with dots": of_flags("--config.dataset=../ethanol", "../ethanol: no such file"),
    "dots into the package": of_flags(
        "--config.dataset=../../dcnn/data/molecules/nothing.npz", "no such file"),
    "name too long": of_flags(f"--config.dataset={'x' * 300}.npz", "name too long"),
    # Where to write.
    "file as workdir": of_flags("--workdir=DATA", "is a file, expected a directory"),
    "workdir in a file": of_flags("--workdir=DATA/x", "is a file, expected a directory"),
    # Experiment files.
    "long workdir": of_flags(f"--workdir={'x' * 300}", "name too long"),
    "workdir that is not UTF-8": of_flags("--workdir=a\udcff", "expected printable text"),
    "memory for no run": of_flags(
        "--config.model.hidden=100000,100000", "one run needs", "take a smaller batch or network"),
    "network for no machine": of_flags(
        f"--config.model.hidden={10**12}", "from 1 to 1,000,000"),
    "steps beyond int32": of_flags(f"--config.steps={2**40}", "at most 2,147,483,647"),
    "config that leaves": of_config("  raise SystemExit(3)", "t.py, line 10", "SystemExit: 3"),
    "syntax error": of_config("  config.steps = = 3", "t.py, line 10", "SyntaxError"),
    "three levels down": of_config("  config.optimizer.adam.beta = 0.9", "t.py, line 10", "adam"),
    "three levels down, in a flag": of_flags("--config.optimizer.adam.beta=0.9",
                                             "optimizer.adam.beta", "known are"),
    "float for int": of_config("  config.batch_size = 4.0", "t.py, line 10", "int"),
    "float for int in a flag": of_flags("--config.steps=4.5", "--config.steps=4.5", "an integer"),
    "float for int in an arm": of_config(
        "  config.arms = ({}, {'model.features': 4.5})", "arm 'features=4.5'", "int"),
    "text for a number in an arm": of_config(
        "  config.arms = ({}, {'optimizer.learning_rate': 'fast'})", "arm 'fast'", "float"),
    "huge number in an arm": of_config(
        "  config.arms = ({}, {'activation.c': 10**400})", "arm ", "float"),
    "unknown key in an arm": of_config(
        "  config.arms = ({}, {'loss.energy.weight': 1.0})", "'loss.energy.weight'",
        "did you mean 'loss.energy_weight'"),
    "None": of_config("  config.optimizer.eps = None", "optimizer.eps must be of type float"),
    "None for a group": of_config("  config.model = None", "model"),
    "name that is not UTF-8": of_flags("--config.experiment=a\udcff", "experiment", "UTF-8"),
    # Numbers.
    "no seeds": of_flags("--config.seeds=0", "at least one seed"),
    "negative number of seeds": of_flags("--config.seeds=-3", "at least one seed", "-3"),
    "negative seed": of_flags("--config.seeds=0,-3", "between 0 and 2**32 - 1", "-3"),
    "huge number of seeds": of_flags(f"--config.seeds={2**40}", "more than 10000", "listed as"),
    "huge seed": of_flags(f"--config.seeds=({2**40},)", "between 0 and 2**32 - 1"),
    "duplicate seed": of_flags("--config.seeds=1,2,1", "[1] more than once"),
    "learning rate 0": of_flags("--config.optimizer.learning_rate=0", "learning_rate", "above 0"),
    "learning rate inf": of_flags("--config.optimizer.learning_rate=inf", "above 0, got inf"),
    "learning rate nan": of_flags("--config.optimizer.learning_rate=nan", "above 0, got nan"),
    "learning rate -1": of_flags("--config.optimizer.learning_rate=-1", "above 0, got -1"),
    "learning rate text": of_flags("--config.optimizer.learning_rate=fast", "=fast: expected a n"),
    "learning rate 1e-50": of_flags("--config.optimizer.learning_rate=1e-50", "within 1e-30"),
    "weight 1e-50": of_flags("--config.loss.energy_weight=1e-50", "energy_weight", "1e-30"),
    "large batch": of_flags("--config.batch_size=21", "batch_size 21", "20 training", "lower it"),
    "no validation": of_flags("--config.split.valid=0", "split.valid is 0", "chooses the checkp"),
    "no test": of_flags("--config.split.test=0", "no test frames", "lower"),
    "weights 0": of_flags(WEIGHTS, "are both 0: nothing would be trained"),
    # Arms.
    "identical arms": of_config("  config.arms = ({}, {'activation.c': 0.5})",
                                "arms 'base' and 'c=0.5' do the same", "remove one"),
    "arm twice": of_config("  config.arms = ({}, {})", "arm 'base' is listed twice"),
    # Labels with a weight that teach nothing.
    "equal energies": of_file(npz(energy=EQUAL), "arm 'base'",
                              "energies of all 20 training frames are -140 eV",
                              "loss.energy_weight=0"),
    "energies of zero": of_file(npz(energy=np.zeros(FRAMES)), "are 0 eV", "loss.energy_weight=0"),
    "energies equal but for rounding": of_file(
        npz(energy=-140.0 + 1e-14 * np.arange(FRAMES)), "loss.energy_weight=0"),
    "forces of zero": of_file(npz(forces=ZEROS), "all forces are zero", "check_units=False"),
    "forces of zero, unchecked": of_file(npz(forces=ZEROS), "all forces of the 20 training frames",
                                         "loss.force_weight=0", flags=UNCHECKED),
    "scale of equal energies": Case(
        ("arm 'base', labels=standardize", "none, power_of_ten or force_rms"),
        npz(energy=EQUAL), (*NO_ENERGY, "--config.labels=standardize")),
}


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  """All that lies in a folder."""
  return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def experiment(folder: pathlib.Path, config: str = "") -> pathlib.Path:
  """The tiny experiment with further lines; the first of them is line 10."""
  text = TINY.replace("  return config", f"{config}\n  return config") if config else TINY
  (folder / "t.py").write_text(text)
  return folder / "t.py"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(case, tmp_path, monkeypatch, capsys):
  data = case.make(tmp_path)
  file = experiment(tmp_path, case.config)
  monkeypatch.chdir(tmp_path)
  before = contents(tmp_path)
  status, output, errors = call(
      monkeypatch, capsys, f"--config={file}", f"--workdir={tmp_path / 'out'}",
      f"--config.dataset={data}", *(flag.replace("DATA", str(data)) for flag in case.flags))
  assert_mistake(status, errors, *(word.replace("DATA", str(data)) for word in case.words))
  assert len(errors) < 700
  assert contents(tmp_path) == before


def windows(text: str) -> str:
  """The text with a byte-order mark and Windows line ends."""
  return "\ufeff" + text.replace("\n", "\r\n")


ACCEPTED = {
    "windows line ends": Case((), xyz(lambda text: text.replace("\n", "\r\n"))),
    "byte-order mark": Case((), xyz(lambda text: "\ufeff" + text)),
    "spaces and letters": Case((), npz(name="Übung 1 été 水/Wasser ø,=:'.npz")),
    "code in the experiment file": Case(
        (), config="  import os, pathlib\n  os.environ['DCNN_TEST'] = pathlib.Path.cwd().name"),
    "odd steps": Case((), flags=("--config.steps=5",)),
    "chunk beyond the steps": Case((), flags=("--config.chunk=1000",)),
    "batch of all": Case((), flags=("--config.batch_size=20",)),
    "one test frame": Case((), flags=("--config.split.test=1",)),
    "seed 2**32 - 1": Case((), flags=(f"--config.seeds=({2**32 - 1},)",)),
    "equal energies without weight": Case((), npz(energy=EQUAL), NO_ENERGY),
    "zero energies without weight": Case(
        (), npz(energy=0 * EQUAL), (*NO_ENERGY, "--config.labels=force_rms")),
    "zero forces without weight": Case((), npz(forces=ZEROS), NO_FORCES),
}


@pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(case, tmp_path, monkeypatch):
  monkeypatch.setenv("DCNN_TEST", "")
  data = case.make(tmp_path)
  config = arguments.load_config(str(experiment(tmp_path, case.config)))
  arguments.override(config, [f"--config.dataset={data}", *case.flags])
  configs.validate(config)
  plan = build.build(config, sources := build.load(config))
  assert plan.problem.frames == len(sources.dataset) == FRAMES
  fitted = plan.arms[0].fit(plan.splits[0].train)
  train = sources.dataset.take(plan.splits[0].train).labels
  transform = forcefield.transform_of(fitted.kept)
  assert all(np.isfinite(label).all() for label in transform(train))
  assert np.isfinite(fitted.own(plan.splits[0].train)).all()


RUNS = {
    "windows, byte-order mark, spaces and letters": Case(
        (), xyz(windows, name="Übung 1 été 水.xyz"), ("--config.steps=5", "--config.chunk=2")),
    "equal energies without weight": Case(("energy_skill",), npz(energy=EQUAL), NO_ENERGY),
    "zero forces without weight": Case(("force_skill",), npz(forces=ZEROS), NO_FORCES),
}


@pytest.mark.parametrize("case", RUNS.values(), ids=RUNS)
def test_runs_to_the_report(case, tmp_path, monkeypatch, capsys):
  """Skill is not defined against a constant predictor that is right, and then not a number."""
  data, workdir = case.make(tmp_path), tmp_path / "Läufe 水" / "out put"
  told = call(monkeypatch, capsys, f"--config={experiment(tmp_path)}", f"--workdir={workdir}",
              f"--config.dataset={data}", *case.flags)
  assert (told[0], told[2]) == (0, "")
  found = storage.load(workdir)
  assert {row.metric for row in found.rows if np.isnan(row.value)} == set(case.words)
  assert all(row.status == "finished" for row in found.rows)
  assert (workdir / "report.html").stat().st_size > 1000
