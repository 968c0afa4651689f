"""Trained networks, from the checkpoints of a sweep or from its memory, ready for use."""

import math
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dcnn import configs, stats
from dcnn.base import objects, wording
from dcnn.configs import ConfigDict
from dcnn.jobs import restoring, workdirs
from dcnn.jobs.experiment import describe_settings
from dcnn.results import storage
from dcnn.results.records import Row, is_failed
from dcnn.sweeps import checkpoints, snapshots
from dcnn.sweeps.plans import Key
from dcnn.sweeps.snapshots import Ended
from dcnn.use.runs import Runs, Trained


def load(workdir: str | os.PathLike[str], config: ConfigDict | None = None) -> Trained:
  """The trained networks of a work directory, by the name of the arm.

  All that their use needs comes from the directory: settings, weights, label transforms, and what
  the training data had. Runs that failed are left out, with a warning.

  Args:
    workdir: The work directory of a sweep, which need not be finished.
    config: The configuration that it was made with; needed where that has functions or classes of
      your own, of which no file holds the code.

  Returns:
    For each arm a `use.ForceField` (or, of another task, a `use.Field`), with all seeds.

  Raises:
    ValueError: if there are no checkpoints of finished runs, one cannot be read, or the
      configuration is missing or another.
    OSError: if config.json cannot be read.
  """
  directory = pathlib.Path(workdir).expanduser()
  if not (directory / storage.CONFIG_FILE).is_file():
    raise ValueError(f"expected the work directory of a sweep, with {storage.CONFIG_FILE}, got "
                     f"{str(directory)!r}, which has none")
  record = storage.read_config(directory / storage.CONFIG_FILE, required=workdirs.REQUIRED)
  if config is None:
    own = restoring.objects_in(record["config"])
    if own:
      raise ValueError(
          f"{directory} was trained with {objects.name_of(own[0])}, a function or class of your "
          f"own, which no file there holds: {_with_configuration()}")
    config = restoring.restored(record["config"])
  else:
    workdirs.require_same_settings(
        directory, record, {**record, **describe_settings(config)})
  folder = directory / snapshots.CHECKPOINTS
  ended: dict[Key, Ended] = {}
  for checkpoint in checkpoints.finished(folder):
    ended |= snapshots.to_ended(checkpoint)
  if not ended:
    raise ValueError(f"{folder}: no checkpoints of finished runs there")
  return hand_over(config, ended, record)


def hand_over(
    config: ConfigDict, ended: Mapping[Key, Ended], record: Mapping[str, Any]) -> Trained:
  """The arms of a sweep for their user.

  Args:
    config: The configuration of the sweep.
    ended: Its runs that have ended.
    record: The content of its config.json.

  Returns:
    For each arm with a run that did not fail what its task hands over; of the others the reason.
  """
  section = configs.section_of(config)
  arms, failed = {}, {}
  for name, settings in configs.arm_settings(config).items():
    mine = {key.seed: each for key, each in ended.items() if key.arm == name}
    sound = {seed: each for seed, each in mine.items() if not _failed(each.rows)}
    if sound:
      try:
        arms[name] = section.use(
            settings, _stacked(name, sound, _calibration(record, name)),
            configs.effective(settings))
      except ValueError as error:  # the rest of the sweep can be used all the same
        failed[name] = str(error)
    else:
      failed[name] = "all of its runs have failed" if mine else "none of its runs has ended yet"
    lost = [seed for seed in mine if seed not in sound]
    if sound and lost:
      warnings.warn(f"arm {name!r}: runs of the seeds {', '.join(map(str, lost))} have failed and "
                    "are left out", stacklevel=3)
  return Trained(arms, failed)


def _with_configuration() -> str:
  return wording.either(command="give the command its --config, as in training",
                        python="pass the configuration, as in dcnn.load(DIR, config)")


def _failed(rows: Sequence[Row]) -> bool:
  return any(is_failed(row.status) for row in rows)


def _calibration(record: Mapping[str, Any], arm: str) -> dict[str, stats.Calibration]:
  """What config.json says of an arm; null stands for nan there."""
  return {
      quantity: stats.Calibration(*(
          math.nan if values[name] is None else values[name]
          for name in stats.Calibration._fields))
      for quantity, values in record.get("calibration", {}).get(arm, {}).items()}


def _stacked(
    arm: str, ended: Mapping[int, Ended], calibration: Mapping[str, stats.Calibration]) -> Runs:
  """The runs of an arm with a leading axis `seeds`."""
  seeds, runs = tuple(ended), list(ended.values())
  best, last, kept = (_stack(getattr(each, name) for each in runs)
                      for name in ("best", "last", "kept"))
  metrics: dict[str, dict[str, np.ndarray]] = {}
  for row in runs[0].rows:
    metrics.setdefault(row.split, {})[row.metric] = np.array([
        next(each.value for each in run.rows
             if (each.split, each.metric) == (row.split, row.metric)) for run in runs])
  return Runs(arm, seeds, best, last, kept, metrics, calibration)


def _stack(trees: Iterable[Any]) -> Any:
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
