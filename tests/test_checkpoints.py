"""Checkpoints on disk: what comes back, in which order, and that reading runs no code."""

import errno
import importlib.metadata
import pickle
import subprocess
import sys
import threading
import warnings

import commands
import numpy as np
import pytest

from dcnn.labels import LabelTransform
from dcnn.sweeps import checkpoints, sweep
from dcnn.sweeps.checkpoints import Checkpoint, Store
from dcnn.tasks import forcefield


def checkpoint(number, size=3):
  arrays = {"state": {"params.w": np.full((2, size), number, np.float32),
                      "flags": np.array([True, False]), "step": np.int32(number)[None]}}
  return Checkpoint(arrays, {"step": number, "score": float("inf"), "runs": [["a/b", 0]]})


def assert_same(one, two):
  assert one.record == two.record and one.arrays["state"].keys() == two.arrays["state"].keys()
  for name, leaf in one.arrays["state"].items():
    other = two.arrays["state"][name]
    assert leaf.dtype == other.dtype
    np.testing.assert_array_equal(leaf, other)


def test_the_newest_two_states_are_kept(tmp_path):
  with Store(tmp_path) as store:
    assert store.running() is None and store.finished() == [] and not checkpoints.has_any(tmp_path)
    for number in range(4):
      store.save_running(checkpoint(number))
  assert {path.name for path in (tmp_path / "running").iterdir()} == {"2", "3"}
  assert_same(checkpoints.running(tmp_path), checkpoint(3))


def test_a_launch_that_has_ended_replaces_its_states(tmp_path):
  with Store(tmp_path) as store:
    for number in range(2):
      store.save_running(checkpoint(number))
      store.save_finished(checkpoint(10 + number))
  assert checkpoints.running(tmp_path) is None and checkpoints.has_any(tmp_path)
  for found, number in zip(checkpoints.finished(tmp_path), (10, 11), strict=True):
    assert_same(found, checkpoint(number))


def test_training_does_not_wait_for_a_save(tmp_path, monkeypatch):
  """A save returns while it is being written; the next one waits for it."""
  save, go_on = checkpoints._save, threading.Event()

  def slow(path, saved):
    assert go_on.wait(10)
    save(path, saved)

  monkeypatch.setattr(checkpoints, "_save", slow)
  with Store(tmp_path) as store:
    store.save_running(checkpoint(0))
    assert not (tmp_path / "running" / "0").exists()
    go_on.set()
    store.flush()
    assert (tmp_path / "running" / "0").exists()


def test_a_failed_save_is_told_of_at_the_next(tmp_path, monkeypatch):
  def full(path, saved):
    raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device\nmore")

  with Store(tmp_path) as store:
    store.save_running(checkpoint(0))
    store.flush()
    monkeypatch.setattr(checkpoints, "_save", full)
    store.save_running(checkpoint(1))
    with pytest.raises(OSError, match="cannot save .*No space left on device.*intact") as error:
      store.save_running(checkpoint(2))
    assert "\n" not in str(error.value)
  assert_same(checkpoints.running(tmp_path), checkpoint(0))


FAILURES = {
    "full disk": (OSError(errno.ENOSPC, "No space"), "make room", "No space left on device"),
    "quota": (OSError(errno.EDQUOT, "quota"), "make room", "quota"),
    "file too large": (OSError(errno.EFBIG, "large"), "make room", "File too large"),
    "tensorstore's full disk": (
        ValueError("INTERNAL: write failed [os_error_code='28']"), "make room", "No space left"),
    "denied": (PermissionError(errno.EACCES, "no"), "mend that", "Permission denied (orbax-"),
    "read-only": (OSError(errno.EROFS, "no"), "mend that", "Read-only file system"),
    "other library": (AttributeError("module 'jax' has no attribute 'x'\nmore"),
                      "install another version", "fails with AttributeError: module 'jax' has no"),
    "wrong call": (TypeError(), "install another version", "fails with TypeError: TypeError"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_save_that_cannot_be_is_found_before_training(tmp_path, monkeypatch, name):
  """Room is asked for where the disk is full, and there alone."""
  error, advice, reason = FAILURES[name]

  def fail(path, saved):
    path.mkdir()
    raise error

  monkeypatch.setattr(checkpoints, "_save", fail)
  with Store(tmp_path) as store, pytest.raises(OSError, match="cannot save") as told:
    store.check()
  text = str(told.value)
  assert advice in text and reason in text and "\n" not in text
  assert ("make room" in text) == (advice == "make room")
  if advice != "make room":
    assert f"orbax-checkpoint {importlib.metadata.version('orbax-checkpoint')}" in text
  assert list((tmp_path / "running").iterdir()) == []
  assert not checkpoints.has_any(tmp_path)


def test_a_full_disk_behind_another_error_is_a_full_disk(tmp_path, monkeypatch):
  def fail(path, saved):
    try:
      raise OSError(errno.ENOSPC, "full")
    finally:
      raise RuntimeError("event loop is closed")  # while it is cleaned up

  monkeypatch.setattr(checkpoints, "_save", fail)
  with Store(tmp_path) as store, pytest.raises(OSError, match="No space left.*make room"):
    store.check()


def test_what_is_tried_before_training_leaves_nothing(tmp_path):
  killed = tmp_path / "running" / f"trash-0-{'0' * 16}" / "0"  # by a process that was killed
  killed.mkdir(parents=True)
  with Store(tmp_path) as store:
    store.check()
    assert list((tmp_path / "running").iterdir()) == [] and not checkpoints.has_any(tmp_path)


def test_a_broken_orbax_ends_a_sweep_before_training(tmp_path, monkeypatch, capsys):
  """One line, exit status 1, and nothing is left behind."""
  def broken():
    raise AttributeError("module 'jax.experimental.layout' has no attribute 'DeviceLocalLayout'")

  monkeypatch.setattr(checkpoints, "_orbax", broken)
  monkeypatch.setattr(sweep, "_train", None)  # never called
  experiment, workdir = tmp_path / "tiny.py", tmp_path / "results"
  experiment.write_text(commands.TINY)
  status, _, errors = commands.call(
      monkeypatch, capsys, f"--config={experiment}", f"--workdir={workdir}")
  (line,) = errors.splitlines()
  assert status == 1 and "DeviceLocalLayout" in line and "orbax-checkpoint" in line
  assert "make room" not in line and not workdir.exists()


def test_a_process_that_does_not_write_tries_nothing(tmp_path):
  with Store(tmp_path / "none", writes=False) as store:
    store.check()
  assert not (tmp_path / "none").exists()


def test_half_removed_checkpoints_are_no_checkpoints(tmp_path):
  with Store(tmp_path) as store:
    store.save_running(checkpoint(0))
  for kind in ("trash", "unfinished"):
    (tmp_path / "running" / f"{kind}-7-{'0a' * 8}" / "arrays").mkdir(parents=True)
  with warnings.catch_warnings(), Store(tmp_path) as store:
    warnings.simplefilter("ignore")
    assert_same(store.running(), checkpoint(0))
  assert [path.name for path in (tmp_path / "running").iterdir()] == ["0"]


FOREIGN = ("trash-photos", "unfinished-thesis", "trash-7", "unfinished-3", "trash-7-0a", "2024",
           "٣", "007", f"trash-x-{'0a' * 8}", f"my-trash-7-{'0a' * 8}")


@pytest.mark.parametrize("kind", ["running", "finished"])
@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_keep_beside_checkpoints_stays(tmp_path, kind, name):
  """While states are saved and replaced, when a store is opened, and when a folder is cleared."""
  thesis = tmp_path / kind / name / "thesis.tex"
  thesis.parent.mkdir(parents=True)
  thesis.write_text("mine")
  for _ in range(2):
    with Store(tmp_path) as store:
      for number in range(3):
        store.save_running(checkpoint(number))
      store.flush()
      assert_same(store.running(), checkpoint(2))
      store.save_finished(checkpoint(9))
  assert checkpoints.running(tmp_path) is None and len(checkpoints.finished(tmp_path)) == 2
  checkpoints.clear(tmp_path)
  assert thesis.read_text() == "mine"


def test_links_are_not_followed(tmp_path):
  """Not even those that have the name of something of ours."""
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos" / "me.jpg").touch()
  folder = tmp_path / "checkpoints" / "running"
  folder.mkdir(parents=True)
  for name in (f"trash-7-{'0a' * 8}", f"unfinished-7-{'0a' * 8}", "5"):
    (folder / name).symlink_to(tmp_path / "photos", target_is_directory=True)
  with Store(tmp_path / "checkpoints") as store:
    store.save_running(checkpoint(0))
    store.save_finished(checkpoint(1))
  checkpoints.clear(tmp_path / "checkpoints")
  assert len(list(folder.iterdir())) == 3 and (tmp_path / "photos" / "me.jpg").exists()


def test_a_file_kept_inside_a_checkpoint_stays(tmp_path):
  with Store(tmp_path) as store:
    store.save_running(checkpoint(0))
    store.flush()
    notes = tmp_path / "running" / "0" / "notes.txt"
    notes.write_text("mine")
    store.save_finished(checkpoint(1))
  assert notes.read_text() == "mine"


def test_a_folder_without_checkpoints_is_cleared(tmp_path):
  (tmp_path / "c" / "running" / f"unfinished-0-{'0a' * 8}.orbax-checkpoint-tmp").mkdir(parents=True)
  checkpoints.clear(tmp_path / "c")
  assert not (tmp_path / "c").exists()


REFERENCES = np.where(np.arange(119) % 2, np.nan, np.arange(119.0))


@pytest.mark.parametrize("transforms", [
    [LabelTransform(-3.0, 2.0)], [LabelTransform(0.0, 1.0, REFERENCES)],
    [LabelTransform(0.0, 1.0, REFERENCES), LabelTransform(5.0, 3.0),
     LabelTransform(0.0, 2.0, 2 * REFERENCES)]], ids=["number", "references", "mixed"])
def test_label_transforms_are_kept_whole(tmp_path, transforms):
  arms = [str(number) for number in range(len(transforms))]
  weights = {"w": np.arange(len(arms), dtype=np.float32)[:, None]}
  with Store(tmp_path) as store:
    store.save_finished(Checkpoint(
        {"variables": {"best": weights, "last": weights},
         **checkpoints.stack_kept([{"transform": each._asdict()} for each in transforms])},
        {"runs": [[arm, 7] for arm in arms]}))
  read, = checkpoints.finished(tmp_path)
  for i, transform in enumerate(transforms):
    one = forcefield.transform_of(checkpoints.kept_of(read.arrays, i))
    assert (one.shift, one.scale) == (transform.shift, transform.scale)
    np.testing.assert_array_equal(one.atomic, transform.atomic)


def test_a_state_replaced_while_it_is_read_is_not_damaged(tmp_path, monkeypatch):
  """A report may be asked for while the sweep goes on saving."""
  read, store = checkpoints._read, Store(tmp_path)

  def read_late(path):
    monkeypatch.setattr(checkpoints, "_read", read)
    for number in (1, 2, 3):
      store.save_running(checkpoint(number))
    store.flush()
    return read(path)

  with store, warnings.catch_warnings():
    warnings.simplefilter("error")
    store.save_running(checkpoint(0))
    store.flush()
    monkeypatch.setattr(checkpoints, "_read", read_late)
    assert_same(store.running(), checkpoint(3))


READ = """
import sys
from dcnn.sweeps import checkpoints
checkpoints.running(sys.argv[1])  # all that is imported late is imported now
suspicious = []
def hook(event, arguments):
  if event in ("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect", "import"):
    suspicious.append((event, str(arguments)[:80]))
sys.addaudithook(hook)
print(checkpoints.running(sys.argv[1]) is not None, suspicious)
"""


def test_reading_runs_no_code(tmp_path):
  """Not even of a checkpoint in whose files somebody has put pickles."""
  with Store(tmp_path) as store:
    store.save_running(checkpoint(0))
  told = subprocess.run(
      [sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, timeout=60)
  assert told.stdout == "True []\n", told.stderr
  harm = pickle.dumps(Harm())
  for file in [path for path in (tmp_path / "running" / "0").rglob("*")
               if path.is_file() and path.name != checkpoints.DIGESTS]:
    before = file.read_bytes()
    file.write_bytes(harm)
    with pytest.raises(ValueError, match=f"no checkpoint can be read .*{file.name} is damaged"):
      checkpoints.running(tmp_path)
    file.write_bytes(before)
  assert not Harm.done


class Harm:
  """Runs code when it is unpickled."""

  done: list = []

  def __reduce__(self):
    return (self.done.append, (1,))


def test_a_folder_is_cleared_after_the_save_that_is_being_tried_there(tmp_path, monkeypatch):
  """What an interrupt in the first seconds leaves: nothing, however slow the trial is."""
  started, go_on = threading.Event(), threading.Event()
  save = checkpoints._save

  def slow(*arguments):
    started.set()
    assert go_on.wait(60)
    save(*arguments)

  monkeypatch.setattr(checkpoints, "_save", slow)
  store = Store(tmp_path / "checkpoints")
  assert started.wait(60)
  threading.Timer(0.5, go_on.set).start()
  checkpoints.clear(tmp_path / "checkpoints")
  assert not (tmp_path / "checkpoints").exists()
  store.check()
