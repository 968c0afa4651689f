"""An experiment: a configuration that is checked against its data, described, and run."""

import contextlib
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dcnn import configs, sweeps
from dcnn.base import processes, provenance
from dcnn.configs import ConfigDict, build
from dcnn.configs.sections import Data
from dcnn.jobs import looks, tuning
from dcnn.results import measures, storage
from dcnn.results.records import Result
from dcnn.sweeps import checkpoints, snapshots
from dcnn.sweeps.plans import Plan, make_groups

OnProgress = Callable[[sweeps.Progress], None]
OnTuned = Callable[[Mapping[str, Any]], None]


class Experiment(NamedTuple):
  """A configuration that has been checked against its data.

  Attributes:
    config: The configuration, which is valid.
    data: What it names.
    arms: The full configuration of each arm, by name.
  """

  config: ConfigDict
  data: Data
  arms: dict[str, ConfigDict]


class Finished(NamedTuple):
  """What `run` returns.

  Attributes:
    result: Tables, curves and provenance, ready to be saved.
    outcome: What the sweep left behind, with the trained variables.
  """

  result: Result
  outcome: sweeps.Outcome


def prepare(config: ConfigDict) -> Experiment:
  """Reads the data and finds every mistake that can be found before training.

  Args:
    config: A configuration from `configs.default()`, changed.

  Returns:
    What `run` takes.

  Raises:
    ValueError: if the configuration is not valid, or does not fit the data.
    OSError: if the data cannot be read.
  """
  configs.validate(config)
  experiment = Experiment(config, build.load(config), configs.arm_settings(config))
  make_groups(build.build(*experiment))
  build.warn_of_pitfalls(config, experiment.arms)
  return experiment


def describe(experiment: Experiment, command: str = "") -> dict[str, Any]:
  """What config.json says of an experiment before it runs: settings, data, versions, machine.

  Args:
    experiment: A prepared experiment.
    command: The command line, for the report.

  Returns:
    A dictionary that fits into JSON.
  """
  with full_precision():
    environment = provenance.environment()
  return {
      **describe_settings(experiment.config),
      "dataset": experiment.data.facts,
      "environment": environment,
      "command": command,
  }


def describe_settings(config: ConfigDict) -> dict[str, Any]:
  """The part of `describe` that follows from the configuration alone.

  Args:
    config: A valid configuration.
  """
  arms = configs.arm_settings(config)
  return {
      "config": configs.to_dict(config) | {
          "tables": [storage.table_record(table) for table in configs.tables(config)]},
      "seeds": list(configs.seeds(config)),
      "measures": measures.to_record(configs.section_of(config).measures(config)),
      "arm_settings": configs.settings_that_matter(arms),
      "glossary": configs.glossary(arms),
  }


def check_same(manifest: Mapping[str, Any]) -> None:
  """Makes sure that all processes are about to do the same.

  Args:
    manifest: What `describe` says of the experiment.

  Raises:
    ValueError: in all processes, naming the first that differs and in what.
    Lost: if another process is gone.
  """
  environment = manifest["environment"]
  parts = {
      "configuration": [manifest["config"], manifest["seeds"]],
      "data": manifest["dataset"]["checksum"],
      "versions": environment["versions"],
      "device": [environment[name] for name in ("platform", "matmul_precision", "float64")],
      "settings of JAX and XLA": [environment[name] for name in ("settings", "variables")]}
  digests = processes.all_gather(np.array([
      hashlib.sha256(json.dumps(part, sort_keys=True).encode()).digest()[:8]
      for part in parts.values()], np.dtype("S8")).view(np.uint64))
  for process, differs in enumerate(digests != digests[0]):
    if differs.any():
      what = list(parts)[int(np.argmax(differs))]
      raise ValueError(f"process {process} has other {what} than process 0: give the same command, "
                       "with the same files and versions, to all processes")


def run(
    experiment: Experiment,
    on_progress: OnProgress = lambda progress: None,
    *,
    manifest: Mapping[str, Any] | None = None,
    directory: pathlib.Path | None = None,
    kept: checkpoints.Memory | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_tuned: OnTuned = lambda tuned: None,
    on_results: sweeps.OnResults | None = None,
) -> Finished:
  """Runs an experiment: tunes learning rates if asked to, then trains every arm and seed.

  Args:
    experiment: A prepared experiment.
    on_progress: Called after every segment of training.
    manifest: What `describe` says of the experiment, where it has been made.
    directory: Where checkpoints are kept and, if there are some, continued; none without it.
    kept: Gets, where there is no directory, what would be saved there of the reported runs.
    should_stop: Asked after every segment.
    on_tuned: Called with what `tuning.choose_learning_rates` returns, before the reported runs.
    on_results: Called with lines of history.csv and of results.csv as they become known, see
      `sweeps.run`; those of the tuning are not reported.

  Returns:
    Results and trained variables.

  Raises:
    ValueError, OSError, Interrupted, Diverged, Lost: as `sweeps.run`.
  """
  with full_precision():
    sweep_in = functools.partial(_sweep, directory, on_progress, should_stop)
    config, data, arms = experiment
    tuned = {}
    if config.tuning.learning_rates:
      tuned = tuning.choose_learning_rates(
          config, data, arms, functools.partial(sweep_in, snapshots.TUNING))
      on_tuned(tuned)
      arms = tuning.with_learning_rates(arms, tuned["chosen"])
    outcome = sweep_in(
        snapshots.CHECKPOINTS, build.build(config, data, arms), kept, on_results)
  record = looks.with_look(manifest or describe(experiment), len(configs.seeds(config)))
  record["timing"] = outcome.timing
  if outcome.calibrations:
    record["calibration"] = outcome.calibrations
  return Finished(
      Result(record | ({"tuning": tuned} if tuned else {}), outcome.rows, outcome.history,
             configs.tables(config), outcome.predictions),
      outcome)


def full_precision():
  """Accelerators would multiply float32 in fewer bits, too few for second derivatives."""
  return jax.default_matmul_precision("highest")


def _sweep(
    directory: pathlib.Path | None, on_progress: OnProgress, should_stop: Callable[[], bool],
    folder: str, plan: Plan, kept: checkpoints.Memory | None = None,
    on_results: sweeps.OnResults | None = None,
) -> sweeps.Outcome:
  store = contextlib.nullcontext(kept)
  if directory:
    store = checkpoints.Store(directory / folder, writes=processes.is_first())
  with store as opened:
    return sweeps.run(
        plan, on_progress, store=opened, should_stop=should_stop, on_results=on_results)
