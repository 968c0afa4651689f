"""Databases of LMDB: those of ASE are read, and pickles are refused without looking into them."""

import pathlib
import pickle
import sys

import ase
import ase.db
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from test_data import water

from dcnn import data


def lmdb_file(path, write):
  pytest.importorskip("ase_db_backends", reason="databases of LMDB need the extra `lmdb`")
  import lmdb

  with lmdb.open(str(path), subdir=False, map_size=10**7) as opened, opened.begin(
      write=True) as writing:
    write(writing)
  pathlib.Path(f"{path}-lock").unlink()
  return path


class Forbidden:
  """Fails if anybody unpickles it."""

  def __reduce__(self):
    return (exec, ("raise SystemExit('unpickled')",))


def old_lmdb(path):
  """As the first files of OC22: pickles of some class, and their number."""
  return lmdb_file(path, lambda writing: (
      writing.put(b"0", pickle.dumps(Forbidden())), writing.put(b"length", pickle.dumps(1))))


@pytest.mark.parametrize("name", ["w.aselmdb", "w.lmdb"])
def test_a_database_of_lmdb(tmp_path, name):
  pytest.importorskip("ase_db_backends", reason="databases of LMDB need the extra `lmdb`")
  arrays = water(20)
  with ase.db.connect(tmp_path / name, type="aselmdb") as database:
    for frame in range(20):
      atoms = ase.Atoms("OH2", arrays["positions"][frame], cell=[9, 9, 9], pbc=True)
      atoms.calc = SinglePointCalculator(
          atoms, energy=arrays["energy"][frame], forces=arrays["forces"][frame])
      database.write(atoms, sid=frame)
  (tmp_path / f"{name}-lock").unlink()
  before = (tmp_path / name).read_bytes()
  found = data.load(tmp_path / name)
  np.testing.assert_allclose(found.labels.forces, arrays["forces"])
  np.testing.assert_allclose(found.labels.energy, arrays["energy"])
  assert found.systems.cell.shape == (20, 3, 3)
  assert (tmp_path / name).read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["data.0000.lmdb", "data.mdb", "x.aselmdb"])
def test_pickled_lmdb_is_refused_with_the_way_to_convert_it(tmp_path, name):
  path = old_lmdb(tmp_path / name)
  with pytest.raises(ValueError, match="never done. Take the traj.*ase.db.connect") as error:
    data.load(path)
  assert "\n" not in str(error.value) and len(list(tmp_path.iterdir())) == 1


def test_a_damaged_database_of_lmdb(tmp_path):
  path = old_lmdb(tmp_path / "x.lmdb")
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(ValueError, match="not a whole LMDB database"):
    data.load(path)


def test_lmdb_without_its_extra(tmp_path, monkeypatch):
  (tmp_path / "x.lmdb").write_bytes(bytes(16) + b"\xde\xc0\xef\xbe" + bytes(4096))
  monkeypatch.setitem(sys.modules, "ase_db_backends", None)
  monkeypatch.setitem(sys.modules, "ase_db_backends.aselmdb", None)
  with pytest.raises(ModuleNotFoundError, match=r"x.lmdb: an LMDB.*pip install 'dcnn\[lmdb\]'"):
    data.load(tmp_path / "x.lmdb")
