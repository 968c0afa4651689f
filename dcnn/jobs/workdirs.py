"""The work directory of a sweep: who may use it, and whether it may be continued.

It belongs to one process at a time. What it was made with stands in its config.json; a command
that asks for something else is refused, unless that only adds to what is there.
"""

import contextlib
import json
import os
import pathlib
import platform
import re
import shlex
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import filelock

from dcnn import configs
from dcnn.base import files, wording
from dcnn.base.measures import Measures
from dcnn.configs.tasks import TASKS
from dcnn.jobs import looks, tracking
from dcnn.results import measures, storage
from dcnn.results.records import Result
from dcnn.sweeps import checkpoints, snapshots
from dcnn.sweeps.plans import Key
from dcnn.sweeps.snapshots import CHECKPOINTS, TUNING

LOCK = ".lock"
# Settings that change no run: what is compared, how it is told, and how the work is done.
SAFE_KEYS = ("question", "tables", "max_memory", "checkpoint_every", "on_divergence")
# Compared by themselves: the contents of the data, what may only grow, and what a look settles.
_OTHERWISE = ("dataset", "test_dataset", "seeds", "arms", "looks")
# Parts of config.json that comparing it and reading checkpoints need.
REQUIRED = ("config", "config.experiment", "config.arms", "seeds", "dataset", "dataset.name",
            "dataset.checksum", "environment")
VERSIONS = ("dcnn", "jax", "jaxlib", "flax", "optax", "numpy")
# What stands in a work directory beside folders of checkpoints.
FILES = (storage.CONFIG_FILE, storage.ROWS_FILE, storage.HISTORY_FILE, storage.PREDICTIONS_FILE,
         storage.SUMMARY_FILE, *storage.REPORT_FILES, tracking.STATE_FILE)
FOLDERS = (storage.FIGURES, CHECKPOINTS, TUNING)
_HALF_WRITTEN = re.compile(rf"\.(.+)\.[0-9a-f]{{16}}{re.escape(files.UNFINISHED)}", re.ASCII)


def _elsewhere() -> str:
  return wording.either(
      command="choose another --workdir, or pass --fresh to move this one aside",
      python="choose another workdir, or move this one aside")


def _advice() -> str:
  return (f"{_elsewhere().capitalize()}. What may change: more arms, more seeds, "
          f"{', '.join(SAFE_KEYS)}")


@contextlib.contextmanager
def claim(directory: pathlib.Path) -> Iterator[None]:
  """Holds a directory for this process alone; one that is left without work is as it was before.

  Args:
    directory: The directory; it is made where it is missing.

  Raises:
    ValueError: if another process holds it.
    OSError: if it cannot be made or written to.
  """
  missing = not directory.exists()
  directory.mkdir(parents=True, exist_ok=True)
  unlocked = not os.path.lexists(directory / LOCK)
  if not unlocked and not _is_our_lock(directory / LOCK):
    raise ValueError(f"{directory / LOCK} is not what dcnn wrote there: choose "
                     f"another {wording.workdir()}")
  lock = filelock.FileLock(directory / LOCK)
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout as error:
    raise ValueError(f"{directory} is in use by {_holder(directory)}: wait for it, or choose "
                     f"another {wording.workdir()}") from error
  try:
    # The system gives up the lock of a process that dies, however it dies.
    (directory / LOCK).write_text(json.dumps({"process": os.getpid(), "host": platform.node()}))
    yield
  finally:
    if missing and not holds_work(directory):
      _clear(directory)
    elif unlocked and not (directory / storage.CONFIG_FILE).exists():
      (directory / LOCK).unlink(missing_ok=True)
    lock.release()


@contextlib.contextmanager
def hold(directory: pathlib.Path, manifest: Mapping[str, Any]) -> Iterator[bool]:
  """Holds a directory for an experiment that may go there.

  Args:
    directory: The directory; it is made where it is missing.
    manifest: What `jobs.describe` says of the experiment.

  Yields:
    Whether it holds work that is continued.

  Raises:
    ValueError: if it cannot be a work directory, another process holds it, or `check` refuses.
    OSError: if it cannot be made.
  """
  _require_writable(directory)
  check_free(directory)
  with claim(directory):
    check(directory, manifest)
    yield holds_work(directory)


def _require_writable(directory: pathlib.Path) -> None:
  where = str(directory)
  if not where.isprintable():  # bytes that are not UTF-8 come as halves of surrogate pairs
    raise ValueError(f"{wording.workdir()}={ascii(where)}: expected printable text, in UTF-8")
  existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
  if not existing.is_dir():
    raise ValueError(f"{wording.workdir()}={where}: {existing} is a file, expected a directory")
  if not os.access(existing, os.W_OK | os.X_OK):
    raise ValueError(f"{wording.workdir()}={where}: {existing} cannot be written to")


def move_aside(directory: pathlib.Path) -> pathlib.Path:
  """Renames a directory to the first free of NAME.1, NAME.2, ...; nothing in it changes.

  Raises:
    ValueError: if another process holds it, or this one stands in it.
  """
  place = directory.resolve()
  if place == pathlib.Path.cwd() or place in pathlib.Path.cwd().parents:
    raise ValueError(f"{directory} cannot be moved aside, because it is the current folder: choose "
                     f"another {wording.workdir()}, or go to another folder first")
  number = 1
  while os.path.lexists(aside := directory.with_name(f"{directory.name}.{number}")):
    number += 1
  with claim(directory):
    directory.rename(aside)
  return aside


def check_free(directory: pathlib.Path) -> None:
  """Makes sure that nothing of another kind stands where files and folders will be written.

  Found out before the training, not after it.

  Args:
    directory: The directory, which need not exist yet.

  Raises:
    ValueError: naming what is in the way.
  """
  figures = (directory / storage.FIGURES).glob("*.svg")
  wrong = [(path, "file") for path in (*(directory / name for name in (*FILES, LOCK)), *figures)
           if os.path.lexists(path) and not path.is_file()]
  wrong += [(path, "folder") for path in (directory / name for name in FOLDERS)
            if os.path.lexists(path) and not path.is_dir()]
  for path, kind in wrong:
    raise ValueError(f"{path} is in the way of the {kind} of this name: move it, or choose another "
                     f"{wording.workdir()}")
  for path in (directory / name for name in FOLDERS):
    if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
      raise ValueError(f"{path} cannot be written to: change its permissions, or choose another "
                       f"{wording.workdir()}")


def is_taken(directory: pathlib.Path) -> bool:
  """Whether a directory holds anything that a sweep there would continue or replace."""
  return any(os.path.lexists(directory / name) for name in (*FILES, *FOLDERS))


def holds_work(directory: pathlib.Path) -> bool:
  """Whether there is anything that training has made."""
  return (directory / storage.ROWS_FILE).exists() or any(
      checkpoints.has_any(directory / folder) for folder in (CHECKPOINTS, TUNING))


def check(directory: pathlib.Path, manifest: Mapping[str, Any]) -> None:
  """Makes sure that an experiment continues what a directory holds.

  Args:
    directory: The directory, which this process holds.
    manifest: What `jobs.describe` says of the experiment.

  Raises:
    ValueError: naming the first difference, if it does not, or if the checkpoints are gone.
  """
  if not holds_work(directory) or not (directory / storage.CONFIG_FILE).exists():
    _require_room(directory)
    return
  held, asked = _manifest(directory), json.loads(json.dumps(manifest))
  for problem in (_changed_setting(held, asked), looks.changed_plan(held, asked),
                  _fewer_runs(held, asked),
                  _changed_data(held, asked), _changed_version(held, asked),
                  _changed_surroundings(held, asked)):
    if problem:
      raise ValueError(f"{directory} holds work {problem}. {_advice()}")
  if not checkpoints.has_any(directory / CHECKPOINTS) and (
      not checkpoints.has_any(directory / TUNING)):
    raise ValueError(f"{directory} holds results and no checkpoints, so that they cannot be "
                     f"continued: {_elsewhere()}")
  for name in ("device", "git"):
    before, now = (record["environment"].get(name) for record in (held, asked))
    if before != now:
      warnings.warn(f"{directory} was begun with {name} {before!r}, and this is {now!r}: results "
                    "of both stand side by side", stacklevel=2)


def require_same_settings(
    directory: pathlib.Path, held: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
  """Makes sure that a configuration is the one with which a directory was made.

  Args:
    directory: The directory, for the message.
    held: The content of its config.json.
    asked: What `jobs.describe` says of the configuration.

  Raises:
    ValueError: naming the first difference.
  """
  asked = json.loads(json.dumps(asked))
  problem = _changed_setting(held, asked) or _fewer_runs(held, asked)
  if problem:
    raise ValueError(f"{directory} holds work {problem}: give the configuration of that sweep")


def begin(directory: pathlib.Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
  """Writes down what a held and checked directory is for, and sweeps up unfinished files.

  Returns:
    What has been written: the manifest, with the looks that the directory has had.
  """
  for folder in (directory, directory / storage.FIGURES):
    for path in folder.iterdir() if folder.is_dir() else ():
      name = _HALF_WRITTEN.fullmatch(path.name)
      if name and (name[1] in FILES or folder != directory) and path.is_file():
        path.unlink()
  path = directory / storage.CONFIG_FILE
  had = _manifest(directory).get("looks") if path.exists() else None
  record = {**manifest, **({"looks": had} if had else {})}
  files.write_json(path, record)
  return record


def write(result: Result, directory: pathlib.Path) -> None:
  """Writes the files of a result and its report."""
  storage.save(result, directory)
  draw(directory)


def draw(directory: pathlib.Path) -> None:
  """Writes the report of the files in a directory."""
  from dcnn.results import report  # Matplotlib takes a second to import

  report.write(directory)


def so_far(directory: pathlib.Path) -> Result:
  """The result of a sweep that has not ended, from its checkpoints.

  Raises:
    ValueError: if a checkpoint cannot be read.
  """
  record = _manifest(directory)
  arms = [configs.arm_name(arm) for arm in record["config"]["arms"]]
  keys = [Key(arm, seed) for arm in arms for seed in record["seeds"]]
  rows, history = snapshots.so_far(
      directory / CHECKPOINTS, record["config"]["experiment"], keys, _measures(record))
  return Result(record, rows, history, storage.tables_of(record), {})


def task_of(record: Mapping[str, Any]) -> str:
  """The task of a config.json; before 0.3 there was one, the first of the table."""
  return record.get("config", {}).get("task", next(iter(TASKS)))


def _measures(record: Mapping[str, Any]) -> Measures:
  if "measures" in record:
    return measures.from_record(record["measures"])
  task = task_of(record)
  return TASKS[task].measures(configs.default(task))


def is_begun(directory: pathlib.Path) -> bool:
  """Whether a directory has been claimed for a sweep that has left nothing there yet."""
  return (directory / storage.CONFIG_FILE).is_file() and not holds_work(directory)


def is_unfinished(directory: pathlib.Path) -> bool:
  """Whether a directory holds checkpoints of a sweep that has not come to its end."""
  return checkpoints.has_any(directory / CHECKPOINTS) and "timing" not in _manifest(directory)


def _manifest(directory: pathlib.Path) -> dict[str, Any]:
  path = directory / storage.CONFIG_FILE
  try:
    return storage.read_config(path, required=REQUIRED)
  except (OSError, ValueError) as error:
    problem = str(error).removeprefix(f"{path}: ")
  raise ValueError(f"{path} is not what dcnn wrote there ({problem}). {_advice()}")


def _changed_setting(held: Mapping, asked: Mapping) -> str:
  before, now = (
      {key: value for key, value in record["config"].items()
       if key not in (*SAFE_KEYS, *_OTHERWISE)} for record in (held, asked))
  difference = first_difference(before, now, "config")
  if difference is None:
    return ""
  key, old, new = difference
  if key.endswith(".digest"):
    return (f"with another version of the function or class at {key.removesuffix('.digest')}, "
            "which has been changed since: restore it to continue")
  why = ": learning rates follow a schedule over all steps" if key == "config.steps" else ""
  return f"of {key}={_shown(old)}, and {_shown(new)} is asked for{why}"


def _fewer_runs(held: Mapping, asked: Mapping) -> str:
  arms = [arm for arm in held["config"]["arms"] if arm not in asked["config"]["arms"]]
  if arms:
    name = configs.arm_name(arms[0])
    if name in map(configs.arm_name, asked["config"]["arms"]):
      return (f"on another version of the arm {name!r}, of which a function or class has been "
              "changed since: restore it to continue")
    return f"on the arm {_shown(arms[0])}, which is not asked for"
  seeds = sorted(set(held["seeds"]) - set(asked["seeds"]))
  return f"on the seeds {_shown(seeds)}, which are not asked for" if seeds else ""


def _changed_data(held: Mapping, asked: Mapping) -> str:
  before, now = held["dataset"], asked["dataset"]
  if before["checksum"] == now["checksum"]:
    return ""
  return (f"on {before['name']} with SHA-256 {before['checksum'][:12]}..., and the data are now "
          f"{now['name']} with {now['checksum'][:12]}...")


def _changed_version(held: Mapping, asked: Mapping) -> str:
  before, now = (record["environment"].get("versions", {}) for record in (held, asked))
  for name in VERSIONS:
    if before.get(name) != now.get(name):
      return (f"of {name} {before.get(name)}, and this is {name} {now.get(name)}: install the "
              f"former to continue")
  return ""


def _changed_surroundings(held: Mapping, asked: Mapping) -> str:
  """What decides numbers and is set outside of the configuration, and how to set it as before."""
  before, now = (record["environment"] for record in (held, asked))
  for name, (what, way) in SURROUNDINGS.items():
    old, new = before.get(name), now.get(name)
    if name in before and old != new:
      return (f"with {what.format(_shown(old))}, and this is with {what.format(_shown(new))}: "
              f"{way(old)} to continue")
  for group in ("settings", "variables"):
    old, new = before.get(group), now.get(group)
    for name in sorted({*old, *new}) if isinstance(old, dict) and isinstance(new, dict) else ():
      if old.get(name) != new.get(name):
        name_of = name.upper()
        return (f"with {name_of} {_setting(old.get(name))}, and this is with {name_of} "
                f"{_setting(new.get(name))}: {_restored(name_of, old.get(name))} to continue")
  return ""


def _setting(value: Any) -> str:
  return "not set" if value is None else f"at {_shown(value)}"


def _restored(name: str, value: Any) -> str:
  return f"unset {name}" if value is None else f"set {name}={shlex.quote(str(value))}"


def _restored_devices(number: Any) -> str:
  return (f"set JAX_NUM_CPU_DEVICES={number} and give it no more than {number} cores (on a CPU), "
          f"or give it {number} accelerators in all (CUDA_VISIBLE_DEVICES)")


# Of provenance.environment: what it is, with {} for its value, and the way back to a value.
SURROUNDINGS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "platform": ("platform {}", lambda old: (
        "set JAX_PLATFORMS=cpu" if old == "cpu" else f"run it on a {old}, which JAX must find,")),
    "float64": ("float64 {}", lambda old: (
        "set JAX_ENABLE_X64=1" if old else "unset JAX_ENABLE_X64")),
    "devices": ("{} devices", _restored_devices),
    "matmul_precision": ("matmul_precision {}", lambda old: (
        f"set JAX_DEFAULT_MATMUL_PRECISION={old}")),
    "loop_threads": ("loops spread over {} threads", lambda old: (
        f"give it {old} cores" if old != 1 else "give it as many devices as cores")),
}


def first_difference(held: Any, asked: Any, key: str) -> tuple[str, Any, Any] | None:
  """The first key at which two nested dictionaries differ, with both values; None if equal."""
  if not isinstance(held, dict) or not isinstance(asked, dict):
    return None if held == asked else (key, held, asked)
  for name in [*asked, *(name for name in held if name not in asked)]:
    found = first_difference(held.get(name), asked.get(name), f"{key}.{name}")
    if found is not None:
      return found
  return None


def _holder(directory: pathlib.Path) -> str:
  try:
    holder = json.loads((directory / LOCK).read_text())
    return f"process {holder['process']} on {holder['host']}"
  except (OSError, ValueError, TypeError, KeyError):
    return "another process"


def _require_room(directory: pathlib.Path) -> None:
  """Makes sure that a directory without work of ours has no files that ours would replace."""
  if (directory / storage.CONFIG_FILE).exists():
    _manifest(directory)
    return
  for name in (*FILES, *FOLDERS):
    if os.path.lexists(directory / name):
      raise ValueError(f"{directory / name} is not what dcnn wrote there, and would be replaced. "
                       f"{_elsewhere().capitalize()}")


def _is_our_lock(path: pathlib.Path) -> bool:
  """Whether the lock may be taken: it is empty, or holds what `claim` writes."""
  if path.is_symlink() or not path.is_file():
    return False
  try:
    text = path.read_text()
    return not text or {"process", "host"} == set(json.loads(text))
  except (OSError, ValueError, TypeError):
    return False


def _clear(directory: pathlib.Path) -> None:
  """Removes our files of a directory in which nothing was trained, and it, if it is then empty."""
  with contextlib.suppress(OSError):
    for name in (storage.CONFIG_FILE, tracking.STATE_FILE, LOCK):
      (directory / name).unlink(missing_ok=True)
    for folder in (CHECKPOINTS, TUNING):
      checkpoints.clear(directory / folder)
    directory.rmdir()


def _shown(value: Any) -> str:
  return textwrap.shorten(json.dumps(value), 60, placeholder=" ...")
