"""QM9 as it was published: an archive of small files, energies without forces."""

import io
import tarfile

import commands
import numpy as np
import pytest
from test_data import water

from dcnn import data
from dcnn.base import HARTREE


def molecule(positions, energies, symbols="OHH"):
  """A file of QM9 with four energies, the first of which is U0."""
  properties = ["gdb 1", *["1.5*^-6"] * 10, *map(repr, map(float, energies)), "6.469"]
  atoms = ["\t".join([symbol, *map(repr, map(float, place)), "-2.1*^-6"])
           for symbol, place in zip(symbols, positions, strict=True)]
  atoms[0] = atoms[0].replace("e-", "*^-")
  return "\n".join([str(len(symbols)), "\t".join(properties), *atoms, "1341.3\t1341.3", "O\tO",
                    "InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2", ""]).encode()


def archive(path, files):
  with tarfile.open(path, "w:bz2") as made:
    for name, content in files.items():
      entry = tarfile.TarInfo(name)
      entry.size = len(content)
      made.addfile(entry, io.BytesIO(content))
  return path


@pytest.fixture(scope="module")
def waters(tmp_path_factory):
  """Fifty molecules of water, whose U, H and G are 1, 2 and 3 hartree above U0."""
  arrays = water(50)
  arrays["positions"][0, 0, 0] = 1.5e-6
  files = {f"dsgdb9nsd_{i:06}.xyz": molecule(
      arrays["positions"][i], -76.4 + (arrays["energy"][i] + 140) / HARTREE + np.arange(4))
      for i in range(50)}
  return archive(tmp_path_factory.mktemp("qm9") / "dsgdb9nsd.xyz.tar.bz2",
                 files | {"readme.txt": b"not a molecule"}), arrays


def test_energies_are_read_and_forces_are_not_there(waters):
  path, arrays = waters
  found = data.load(path, format="qm9", incomplete="energies")
  np.testing.assert_allclose(found.systems.positions, arrays["positions"], atol=1e-12)
  np.testing.assert_allclose(
      found.labels.energy + 76.4 * HARTREE, arrays["energy"] + 140, atol=1e-6)
  assert np.isnan(found.labels.forces).all() and "hartree/angstrom" in found.summary
  free = data.load(path, format="qm9", incomplete="energies", energy_key="G")
  np.testing.assert_allclose(free.labels.energy - found.labels.energy, 3 * HARTREE)


def test_the_way_to_train_on_energies_is_told_and_works(waters, tmp_path, monkeypatch, capsys):
  (tmp_path / "exp.py").write_text(commands.TINY)
  command = (f"--config={tmp_path / 'exp.py'}", f"--workdir={tmp_path / 'run'}",
             f"--config.dataset={waters[0]}", "--config.data.format=qm9")
  commands.assert_mistake(*commands.call(monkeypatch, capsys, *command)[::2],
                          "--config.data.incomplete=energies", "a force weight of 0")
  status, _, errors = commands.call(
      monkeypatch, capsys, *command, "--config.data.incomplete=energies",
      "--config.loss.force_weight=0")
  assert status == 0, errors


@pytest.mark.parametrize("content, message", [
    (b"", "frame 0 is not a molecule of QM9"),
    (molecule(np.eye(3), np.arange(4), "OHX").replace(b"X", b"Xx"), "frame 0 is not a molecule"),
    (b"3\n" + b" ".join([b"1"] * 20) + b"\nO 0 0 0\nH 1 0 0\n", "3 atoms and ends after 2"),
    (b"1\n" + b" ".join([b"1"] * 20) + b"\nO 0 0\n", "frame 0"),
    (b"1" * 200_000, "has 200,000 bytes: this is not QM9"),
])
def test_what_is_no_molecule_is_refused(tmp_path, content, message):
  path = archive(tmp_path / "x.tar.bz2", {"a.xyz": content})
  with pytest.raises(ValueError, match=message):
    data.load(path, format="qm9", incomplete="energies")


def test_other_energies_and_damaged_archives_are_refused(waters, tmp_path):
  with pytest.raises(ValueError, match="unknown energy of QM9 'U1'.*known are U0, U, H, G"):
    data.load(waters[0], format="qm9", energy_key="U1")
  (tmp_path / "half.tar.bz2").write_bytes(waters[0].read_bytes()[:400])
  with pytest.raises(ValueError, match="not a whole archive, copy it again"):
    data.load(tmp_path / "half.tar.bz2", format="qm9")
