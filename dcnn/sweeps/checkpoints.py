"""The saved state of a sweep, through Orbax: written in the background, never half, never blindly.

A folder of checkpoints holds `finished/N`, one for each launch whose runs have all ended, and
`running/N`, the newest two states of the launch under way. Each carries digests of its files, so
that damage is found out when it is read. Reading runs no code of the files.
"""

import concurrent.futures
import contextlib
import contextvars
import errno
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import re
import secrets
import shutil
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dcnn.base import files, wording

FINISHED, RUNNING = "finished", "running"
DIGESTS = "digests.json"  # of the other files of a checkpoint
KEPT = 2  # states of the launch under way
# Beginnings of the names of what is being written and of what is being removed. A token follows,
# because nothing may be deleted that somebody else has put there; Orbax adds an ending of its own.
_UNFINISHED, _TRASH = "unfinished", "trash"
_TOKEN_BYTES = 8
_OURS = re.compile(
    rf"({_UNFINISHED}|{_TRASH})-\d+-[0-9a-f]{{{2 * _TOKEN_BYTES}}}(\.orbax-checkpoint-tmp(-\d+)?)?",
    re.ASCII)
# What shows that a numbered folder is a checkpoint: the first is the last that is written.
_MARKS = (DIGESTS, "_CHECKPOINT_METADATA")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TRIAL_SECONDS = 5.0  # of the nine in which an interrupted command must end
# Saves that are just being tried, by the folder of their store.
_trials: dict[pathlib.Path, concurrent.futures.Future[None]] = {}


class Checkpoint(NamedTuple):
  """Nested dictionaries of NumPy arrays, and a dictionary that fits into JSON."""

  arrays: dict[str, Any]
  record: dict[str, Any]


class Nothing:
  """Stands in for a `Store` where nothing is saved."""

  keeps = False  # whether it wants the states of a launch under way

  def finished(self) -> list[Checkpoint]:
    """No launches."""
    return []

  def running(self) -> Checkpoint | None:
    """No launch under way."""
    return None

  def save_running(self, checkpoint: Checkpoint) -> None:
    """Forgets it."""

  def save_finished(self, checkpoint: Checkpoint) -> None:
    """Forgets it."""

  def flush(self) -> None:
    """There is nothing to wait for."""

  def check(self) -> None:
    """Nothing is written, so that nothing can fail."""


class Memory(Nothing):
  """Stands in for a `Store` where nothing is written: what would be saved is kept."""

  keeps = True

  def __init__(self) -> None:
    """Nothing is kept yet."""
    self._finished: list[Checkpoint] = []
    self._running: Checkpoint | None = None

  def finished(self) -> list[Checkpoint]:
    """The launches that have ended, in the order in which they did."""
    return list(self._finished)

  def running(self) -> Checkpoint | None:
    """The newest state of the launch under way."""
    return self._running

  def save_running(self, checkpoint: Checkpoint) -> None:
    """Keeps the state of the launch under way in place of an earlier one."""
    self._running = checkpoint

  def save_finished(self, checkpoint: Checkpoint) -> None:
    """Keeps a launch that has ended, in place of its states on the way."""
    self._finished.append(checkpoint)
    self._running = None


class Store:
  """Writes the checkpoints of a sweep in a thread of its own, one after another.

  It is a context: what is being saved at its end is waited for.
  """

  keeps = True

  def __init__(self, directory: str | os.PathLike[str], *, writes: bool = True) -> None:
    """Checkpoints in `directory`, which is made with the first of them.

    Args:
      directory: The folder, in a work directory that this process holds.
      writes: Whether this process writes them; of several only one does, the others take part.
    """
    self._writes = writes
    self._directory = pathlib.Path(directory).absolute()
    self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
    self._pending: concurrent.futures.Future[None] | None = None
    self._trial: concurrent.futures.Future[None] | None = None
    if writes:
      _sweep_out(self._directory)
      self._trial = self._writer.submit(
          contextvars.copy_context().run, _try_saving, self._directory / RUNNING)
      _trials[self._directory] = self._trial
      self._trial.add_done_callback(lambda _: _trials.pop(self._directory, None))

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
      checkpoint: The state; nobody may change its arrays any more.

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
      context = contextvars.copy_context()  # messages are worded as those of this thread
      self._pending = self._writer.submit(context.run, self._write, kind, checkpoint)

  def _write(self, kind: str, checkpoint: Checkpoint) -> None:
    folder = self._directory / kind
    try:
      folder.mkdir(parents=True, exist_ok=True)
      # Larger than any that is there, whoever made it.
      number = max((int(path.name) for path in _numbered_folders(folder)), default=-1) + 1
      _save(folder / str(number), checkpoint)
      keep = 0 if kind == FINISHED else KEPT
      states = sorted(_numbers(self._directory / RUNNING), reverse=True)
      for number in states[keep:]:
        _remove(self._directory / RUNNING / str(number))
    except Exception as error:  # Orbax and tensorstore pass on a full disk in many ways
      for path in _leftovers(folder):
        shutil.rmtree(path, ignore_errors=True)
      raise _cannot_save(folder, error) from error


def finished(directory: str | os.PathLike[str]) -> list[Checkpoint]:
  """The launches that have ended, in the order in which they did.

  Raises:
    ValueError: if one cannot be read, naming it.
  """
  folder = pathlib.Path(directory).absolute() / FINISHED
  return [_read_finished(folder / str(number)) for number in sorted(_numbers(folder))]


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
        f"no checkpoint can be read ({'; '.join(failures)}). Nothing was changed; "
        + wording.either(command="--fresh moves the directory aside and starts over",
                         python="once the directory is moved aside, the same call starts over"))
  return None


def has_any(directory: str | os.PathLike[str]) -> bool:
  """Whether there is a checkpoint, readable or not, in this form or another."""
  directory = pathlib.Path(directory)
  kinds = (directory / FINISHED, directory / RUNNING)
  if not directory.exists():
    return False
  return any(map(_numbers, kinds)) or any(path not in kinds for path in directory.iterdir())


def stack_kept(kept: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
  """What a checkpoint holds of `Fitted.kept` of its runs, which need not all have every value.

  Args:
    kept: Named records of values of each run; a value may be None.

  Returns:
    By record and name the values of the runs that have it, stacked, and under `with_NAME` the
    positions of these runs where not all have it.
  """
  stacked: dict[str, dict[str, Any]] = {}
  for record in kept[0]:
    stacked[record] = {}
    for name in kept[0][record]:
      having = [i for i, run in enumerate(kept) if run[record][name] is not None]
      if having:  # Orbax refuses arrays without elements
        stacked[record][name] = np.stack([np.float64(kept[i][record][name]) for i in having])
      if 0 < len(having) < len(kept):
        stacked[record][f"with_{name}"] = np.array(having)
  return stacked


def kept_of(arrays: Mapping[str, Any], run: int) -> dict[str, Any]:
  """What `stack_kept` was given of one run, without the values that are None."""
  kept: dict[str, Any] = {}
  for record, values in arrays.items():
    if record in ("variables", "curves"):
      continue
    if not isinstance(values, Mapping):  # of a dcnn before 0.2
      kept[record] = values[run]
      continue
    kept[record] = {}
    for name, stacked in values.items():
      having = values.get(f"with_{name}", range(len(stacked)))
      if not name.startswith("with_") and run in having:
        kept[record][name] = stacked[list(having).index(run)]
  return kept


def pack(saved: tuple[list[Checkpoint], Checkpoint | None]) -> bytes:
  """What `finished` and `running` gave, for another process."""
  found, running = saved
  every = [*found, running] if running is not None else found
  leaves, form = jax.tree.flatten([checkpoint.arrays for checkpoint in every])
  places = jax.tree.unflatten(form, range(len(leaves)))
  record = json.dumps([places, [checkpoint.record for checkpoint in every], len(found)])
  file = io.BytesIO()
  np.savez(file, *leaves, record=np.array(record))
  return file.getvalue()


def unpack(data: bytes) -> tuple[list[Checkpoint], Checkpoint | None]:
  """What `pack` was given."""
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    places, records, found = json.loads(str(arrays["record"]))
    every = [
        Checkpoint(jax.tree.map(lambda place: arrays[f"arr_{place}"], tree), record)
        for tree, record in zip(places, records, strict=True)]
  return every[:found], every[found] if found < len(every) else None


def _read_finished(path: pathlib.Path) -> Checkpoint:
  try:
    return _read(path)
  except Exception as error:  # a damaged file fails in many ways
    raise ValueError(
        f"{path}: the checkpoint cannot be read ({_reason(error)}). Nothing was changed: "
        "remove that folder to train its runs again, or "
        + wording.either(command="pass --fresh to start over in a new directory",
                         python="choose another workdir to start over")) from error


def _try_saving(folder: pathlib.Path) -> None:
  """Saves something small and reads it back, so that what is broken shows before training.

  Importing Orbax takes most of its time, and is needed for the first checkpoint anyway.

  Raises:
    OSError: if that fails.
  """
  trial = _temporary_name(folder / "0", _TRASH)
  try:
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
                 f"{advice}, then {wording.again()}")


def _orbax_version() -> str:
  try:
    return f"orbax-checkpoint {importlib.metadata.version('orbax-checkpoint')}"
  except importlib.metadata.PackageNotFoundError:
    return "orbax-checkpoint without a version"


def _save(path: pathlib.Path, checkpoint: Checkpoint) -> None:
  """Writes a checkpoint and the digests of its files under another name, then renames it."""
  ocp = _orbax()
  unfinished = _temporary_name(path, _UNFINISHED)
  with _checkpointer(ocp) as checkpointer:
    checkpointer.save(unfinished, args=ocp.args.Composite(
        arrays=ocp.args.StandardSave(checkpoint.arrays),
        record=ocp.args.JsonSave(checkpoint.record)))
  files.write_json(unfinished / DIGESTS, _digests(unfinished))
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
  """Numbers of the checkpoints in a folder, sound or damaged."""
  return [int(path.name) for path in _numbered_folders(folder) if _is_checkpoint(path)]


def _numbered_folders(folder: pathlib.Path) -> list[pathlib.Path]:
  if not folder.is_dir():
    return []
  return [path for path in folder.iterdir() if re.fullmatch("0|[1-9][0-9]*", path.name)]


def _is_checkpoint(path: pathlib.Path) -> bool:
  """Whether we made a numbered folder; one that has lost all it held may be ours, too."""
  if path.is_symlink() or not path.is_dir():
    return False
  names = {each.name for each in path.iterdir()}
  return not names or bool(names & set(_MARKS))


def _temporary_name(path: pathlib.Path, kind: str) -> pathlib.Path:
  """The name of a checkpoint while it is written or removed, which nobody can have foreseen."""
  return path.with_name(f"{kind}-{path.name}-{secrets.token_hex(_TOKEN_BYTES)}")


def _leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
  """What a save or a removal that was cut short has left in a folder."""
  if not folder.is_dir():
    return []
  return [path for path in sorted(folder.iterdir())
          if _OURS.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]


def _remove(path: pathlib.Path) -> None:
  """Under another name first: a removal cut short must not leave half a checkpoint.

  A checkpoint in which somebody keeps a file of his own stays.
  """
  if _has_foreign_files(path):
    return
  trash = _temporary_name(path, _TRASH)
  path.rename(trash)
  shutil.rmtree(trash, ignore_errors=True)


def _has_foreign_files(path: pathlib.Path) -> bool:
  """Whether there are files that the list of digests does not name; any, if it cannot be read."""
  try:
    listed = {*json.loads((path / DIGESTS).read_text()), DIGESTS}
  except (OSError, ValueError, TypeError):
    return any(path.iterdir())
  return any(each.relative_to(path).as_posix() not in listed
             for each in path.rglob("*") if each.is_symlink() or not each.is_dir())


def _sweep_out(directory: pathlib.Path) -> None:
  """Removes what a killed process left half written or half removed, and says so of the first."""
  for path in (*_leftovers(directory / FINISHED), *_leftovers(directory / RUNNING)):
    if path.name.startswith(_UNFINISHED):
      warnings.warn(f"{path}: this save was cut short; going on from the one before it",
                    stacklevel=3)
    shutil.rmtree(path, ignore_errors=True)


def clear(directory: str | os.PathLike[str]) -> None:
  """Removes a folder that holds no checkpoint; what is in it and not ours stays, and so does it.

  A save that is just being tried there is waited for: it would leave the folder behind.
  """
  directory = pathlib.Path(directory)
  trial = _trials.get(directory.absolute())
  if trial is not None:
    concurrent.futures.wait([trial], _TRIAL_SECONDS)
  for folder in (directory / FINISHED, directory / RUNNING):
    for path in _leftovers(folder):
      shutil.rmtree(path, ignore_errors=True)
  for folder in (directory / FINISHED, directory / RUNNING, directory):
    with contextlib.suppress(OSError):  # missing, or not empty
      folder.rmdir()


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
