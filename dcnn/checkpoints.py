"""The saved state of a sweep, through Orbax: written in the background, never half, never blindly.

A folder of checkpoints holds `finished/N`, one for each launch whose runs have all ended, and
`running/N`, the newest two states of the launch under way. Each carries digests of its files, so
that damage is found out when it is read. Reading runs no code of the files.
"""

import concurrent.futures
import errno
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import re
import shutil
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from dcnn import results

FINISHED, RUNNING = "finished", "running"
DIGESTS = "digests.json"  # of the other files of a checkpoint
KEPT = 2  # states of the launch under way
# Beginnings of the names of what is being written and of what is being removed.
_UNFINISHED, _TRASH = "unfinished", "trash"
_TRIAL = ".trial"  # folder of the save that is tried before training
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Checkpoint(NamedTuple):
  """Nested dictionaries of NumPy arrays, and a dictionary that fits into JSON."""

  arrays: dict[str, Any]
  record: dict[str, Any]


class Store:
  """Writes the checkpoints of a sweep in a thread of its own, one after another.

  It is a context: what is being saved at its end is waited for.
  """

  def __init__(self, directory: str | os.PathLike[str], *, writes: bool = True) -> None:
    """Checkpoints in `directory`, which is made with the first of them.

    Args:
      directory: claimed.
      writes: whether this process writes them; of several only one does, the others take part.
    """
    self._writes = writes
    self._directory = pathlib.Path(directory).absolute()
    self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
    self._pending: concurrent.futures.Future[None] | None = None
    self._trial: concurrent.futures.Future[None] | None = None
    if writes:
      _sweep_out(self._directory)
      self._trial = self._writer.submit(_try_saving, self._directory / RUNNING)

  def __enter__(self) -> "Store":
    """The store, which is closed when the context ends."""
    return self

  def __exit__(self, *error: object) -> None:
    """Waits for the last save, so that no other store meets it half done."""
    self._writer.shutdown()

  def check(self) -> None:
    """Waits for a save that has been tried since the store was made: training may begin.

    Raises:
      OSError: if checkpoints cannot be saved here.
    """
    if self._trial is not None:
      self._trial.result()

  def finished(self) -> list[Checkpoint]:
    """See `finished`."""
    return finished(self._directory)

  def running(self) -> Checkpoint | None:
    """See `running`."""
    return running(self._directory)

  def save_running(self, checkpoint: Checkpoint) -> None:
    """Saves the launch under way; returns at once unless the last save is still being written.

    Args:
      checkpoint: whose arrays nobody changes any more.

    Raises:
      OSError: if the last save failed.
    """
    self._start(RUNNING, checkpoint)

  def save_finished(self, checkpoint: Checkpoint) -> None:
    """Saves a launch that has ended, after which its states on the way are removed.

    Raises:
      OSError: if the last save failed.
    """
    self._start(FINISHED, checkpoint)

  def flush(self) -> None:
    """Waits until all is written.

    Raises:
      OSError: if the last save failed.
    """
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def _start(self, kind: str, checkpoint: Checkpoint) -> None:
    self.flush()
    if self._writes:
      self._pending = self._writer.submit(self._write, kind, checkpoint)

  def _write(self, kind: str, checkpoint: Checkpoint) -> None:
    folder = self._directory / kind
    try:
      folder.mkdir(parents=True, exist_ok=True)
      _save(folder / str(max(_numbers(folder), default=-1) + 1), checkpoint)
      keep = 0 if kind == FINISHED else KEPT
      states = sorted(_numbers(self._directory / RUNNING), reverse=True)
      for number in states[keep:]:
        _remove(self._directory / RUNNING / str(number))
    except Exception as error:  # Orbax and tensorstore pass on a full disk in many ways
      for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)
      raise _cannot_save(folder, error) from error


def finished(directory: str | os.PathLike[str]) -> list[Checkpoint]:
  """The launches that have ended, in the order in which they did.

  Raises:
    ValueError: if one cannot be read, naming it.
  """
  folder = pathlib.Path(directory).absolute() / FINISHED
  return [_finished(folder / str(number)) for number in sorted(_numbers(folder))]


def running(directory: str | os.PathLike[str]) -> Checkpoint | None:
  """The newest readable state of the launch under way; None if none was ever saved.

  Warns, once, where the newest cannot be read and the one before is taken.

  Raises:
    ValueError: if there are some and none can be read.
  """
  folder = pathlib.Path(directory).absolute() / RUNNING
  failures = []
  for number in sorted(_numbers(folder), reverse=True):
    path = folder / str(number)
    try:
      checkpoint = _read(path)
    except Exception as error:  # a damaged file fails in many ways
      if not path.exists():  # a sweep under way has replaced it by a newer one
        return running(directory)
      failures.append(f"{path}: {_reason(error)}")
      continue
    if failures:
      warnings.warn(f"damaged checkpoint passed over ({'; '.join(failures)}): going on from "
                    f"{path}, the one before", stacklevel=2)
    return checkpoint
  if failures:
    raise ValueError(
        f"no checkpoint can be read ({'; '.join(failures)}). Nothing was changed; --fresh moves "
        "the directory aside and starts over")
  return None


def has_any(directory: str | os.PathLike[str]) -> bool:
  """Whether there is a checkpoint, readable or not, in this form or another."""
  directory = pathlib.Path(directory)
  kinds = (directory / FINISHED, directory / RUNNING)
  if not directory.exists():
    return False
  return any(map(_numbers, kinds)) or any(path not in kinds for path in directory.iterdir())


def load(directory: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
  """Trained variables with what their use needs, by the name of the arm.

  Args:
    directory: `checkpoints` in the work directory of a sweep.

  Returns:
    For each arm `best` (chosen on validation data) and `last` (variables, leading axis `seeds`),
    `seed`, and `shift` and `scale` of its labels: energy = scale * network + shift, in eV. `shift`
    is that of the first frame; a scheme with atomic references has another for each composition.

  Raises:
    ValueError: if there is none, or one cannot be read.
  """
  launches = finished(directory)
  if not launches:
    raise ValueError(f"{directory}: no checkpoints of finished runs there")
  parts: dict[str, list[Any]] = {}
  for arrays, record in launches:
    runs = [tuple(run) for run in record["runs"]]
    for name in dict.fromkeys(arm for arm, _ in runs):
      rows = np.array([i for i, (arm, _) in enumerate(runs) if arm == name])
      mine = jax.tree.map(lambda leaf, rows=rows: leaf[rows], arrays["variables"])
      seeds = np.array([runs[i][1] for i in rows])
      labels = {key: arrays[key][rows] for key in ("shift", "scale")}
      parts.setdefault(name, []).append({**mine, **labels, "seed": seeds})
  return {name: jax.tree.map(lambda *leaves: np.concatenate(leaves), *listed)
          for name, listed in parts.items()}


def packed(saved: tuple[list[Checkpoint], Checkpoint | None]) -> bytes:
  """What `finished` and `running` gave, for another process."""
  found, running = saved
  every = [*found, running] if running is not None else found
  leaves, form = jax.tree.flatten([checkpoint.arrays for checkpoint in every])
  places = jax.tree.unflatten(form, range(len(leaves)))
  record = json.dumps([places, [checkpoint.record for checkpoint in every], len(found)])
  file = io.BytesIO()
  np.savez(file, *leaves, record=np.array(record))
  return file.getvalue()


def unpacked(data: bytes) -> tuple[list[Checkpoint], Checkpoint | None]:
  """What `packed` was given."""
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    places, records, found = json.loads(str(arrays["record"]))
    every = [
        Checkpoint(jax.tree.map(lambda place: arrays[f"arr_{place}"], tree), record)
        for tree, record in zip(places, records, strict=True)]
  return every[:found], every[found] if found < len(every) else None


def _finished(path: pathlib.Path) -> Checkpoint:
  try:
    return _read(path)
  except Exception as error:  # a damaged file fails in many ways
    raise ValueError(
        f"{path}: the checkpoint cannot be read ({_reason(error)}). Nothing was changed: "
        "remove that folder to train its runs again, or pass --fresh to start over in a new "
        "directory") from error


def _try_saving(folder: pathlib.Path) -> None:
  """Saves something small and reads it back, so that what is broken shows before training.

  Importing Orbax takes most of its time, and is needed for the first checkpoint anyway.

  Raises:
    OSError: if that fails.
  """
  trial = folder / _TRIAL
  try:
    shutil.rmtree(trial, ignore_errors=True)  # of a process that was killed
    trial.mkdir(parents=True)
    _save(trial / "0", Checkpoint({"number": np.arange(2)}, {"step": 0}))
    _read(trial / "0")
  except Exception as error:  # as above
    raise _cannot_save(folder, error) from error
  finally:
    shutil.rmtree(trial, ignore_errors=True)


def _cannot_save(folder: pathlib.Path, error: Exception) -> OSError:
  """For the user: what failed, and what helps against it."""
  reason, code = _reason(error), _system_error(error)
  if code in _FULL:
    advice = "make room"
  elif code is not None:
    reason, advice = f"{reason} ({_orbax_version()})", "mend that"
  else:
    reason = f"{_orbax_version()} fails with {type(error).__name__}: {reason}"
    advice = "install another version of it"
  return OSError(f"{folder}: cannot save a checkpoint: {reason}. What was saved before is intact: "
                 f"{advice}, then give the same command again")


def _orbax_version() -> str:
  try:
    return f"orbax-checkpoint {importlib.metadata.version('orbax-checkpoint')}"
  except importlib.metadata.PackageNotFoundError:
    return "orbax-checkpoint without a version"


def _save(path: pathlib.Path, checkpoint: Checkpoint) -> None:
  """Writes a checkpoint and the digests of its files under another name, then renames it."""
  ocp = _orbax()
  unfinished = path.with_name(f"{_UNFINISHED}-{path.name}")
  with _checkpointer(ocp) as checkpointer:
    checkpointer.save(unfinished, args=ocp.args.Composite(
        arrays=ocp.args.StandardSave(checkpoint.arrays),
        record=ocp.args.JsonSave(checkpoint.record)))
  results.write_json(unfinished / DIGESTS, _digests(unfinished))
  unfinished.rename(path)


def _read(path: pathlib.Path) -> Checkpoint:
  """Reads a checkpoint whose files are as they were written.

  Raises:
    ValueError: naming a file that is not; Orbax would fill the screen first.
    OSError: if a file cannot be read.
  """
  written = json.loads((path / DIGESTS).read_text())
  found = _digests(path)
  for name, digest in written.items():
    if found.get(name) != digest:
      raise ValueError(f"{name} is {'damaged' if name in found else 'missing'}")
  ocp = _orbax()
  with _checkpointer(ocp) as checkpointer:
    read = checkpointer.restore(path, args=ocp.args.Composite(
        arrays=ocp.args.StandardRestore(), record=ocp.args.JsonRestore()))
  return Checkpoint(jax.tree.map(np.asarray, read.arrays), dict(read.record))


def _orbax() -> Any:
  """Orbax, which takes half a second to import: in the thread that saves, while others train."""
  import orbax.checkpoint

  return orbax.checkpoint


def _checkpointer(ocp: Any) -> Any:
  # Of several processes one alone comes here; Orbax would wait for the others.
  me = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
  return ocp.Checkpointer(
      ocp.CompositeCheckpointHandler(
          composite_options=ocp.CompositeOptions(multiprocessing_options=alone)),
      multiprocessing_options=alone)


def _digests(folder: pathlib.Path) -> dict[str, str]:
  """SHA-256 of all files but the one that lists them."""
  digests = {}
  for path in sorted(folder.rglob("*")):
    if path.is_file() and path.name != DIGESTS:
      with path.open("rb") as file:
        name = path.relative_to(folder).as_posix()
        digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
  return digests


def _numbers(folder: pathlib.Path) -> list[int]:
  if not folder.is_dir():
    return []
  return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


def _remove(path: pathlib.Path) -> None:
  """Under another name first: a removal cut short must not leave half a checkpoint."""
  trash = path.with_name(f"{_TRASH}-{path.name}")
  shutil.rmtree(trash, ignore_errors=True)
  path.rename(trash)
  shutil.rmtree(trash, ignore_errors=True)


def _sweep_out(directory: pathlib.Path) -> None:
  """Removes what a killed process left half written or half removed, and says so of the first."""
  for kind in (FINISHED, RUNNING):
    folder = directory / kind
    for path in folder.iterdir() if folder.is_dir() else ():
      if path.name.startswith(_UNFINISHED):
        warnings.warn(f"{path}: this save was cut short; going on from the one before it",
                      stacklevel=3)
      if path.name.startswith((_UNFINISHED, _TRASH)):  # the rest is the user's own
        shutil.rmtree(path, ignore_errors=True)


def _reason(error: BaseException) -> str:
  """What the system said, where that is known; else the first line."""
  code = _system_error(error)
  if code is not None:
    return os.strerror(code)
  return (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__


def _system_error(error: BaseException) -> int | None:
  """The number of the system's error behind an error, where there is one.

  Libraries raise errors of their own for it, or others while they clean up after it.
  """
  behind: BaseException | None = error
  while behind is not None:
    if isinstance(behind, OSError) and behind.errno:
      return behind.errno
    text = str(behind)
    code = re.search(r"os_error_code='(\d+)'", text)  # of tensorstore
    if code:
      return int(code[1])
    for full in _FULL:
      if os.strerror(full) in text:
        return full
    behind = behind.__cause__ or behind.__context__
  return None
