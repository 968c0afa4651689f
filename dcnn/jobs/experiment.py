"""Runs an experiment from its configuration: the engine of the command line and of notebooks."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from dcnn import configs, sweeps
from dcnn.base import processes, wording
from dcnn.configs import build
from dcnn.configs.settings import ConfigDict
from dcnn.jobs import interruption, provenance, workdirs
from dcnn.results.records import Result, Row, is_failed
from dcnn.sweeps import checkpoints, snapshots
from dcnn.sweeps.plans import Key, Plan, grouped

OnProgress = Callable[[sweeps.Progress], None]


class Experiment(NamedTuple):
  """A configuration that has been checked against its data.

  Attributes:
    config: valid.
    sources: the data.
    arms: full configuration of each arm, by name.
  """

  config: ConfigDict
  sources: build.Sources
  arms: dict[str, ConfigDict]


class Finished(NamedTuple):
  """What `run` returns.

  Attributes:
    result: tables, curves and provenance, ready to be saved.
    groups: trained variables.
  """

  result: Result
  groups: tuple[sweeps.Trained, ...]


def prepare(config: ConfigDict) -> Experiment:
  """Reads the data and finds every mistake that can be found before training.

  Args:
    config: from `default()`, changed.

  Returns:
    What `run` takes.

  Raises:
    ValueError: if the configuration is not valid, or does not fit the data.
    OSError: if the data cannot be read.
  """
  configs.validate(config)
  experiment = Experiment(config, build.load(config), configs.arm_settings(config))
  grouped(build.build(*experiment))
  build.warn_of_pitfalls(config, experiment.arms)
  return experiment


def describe(experiment: Experiment, command: str = "") -> dict[str, Any]:
  """What config.json says of an experiment before it runs: settings, data, versions, machine.

  Args:
    experiment: prepared.
    command: the command line, for the report.
  """
  config, dataset = experiment.config, experiment.sources.dataset
  with _full_precision():
    environment = provenance.environment()
  return {
      "config": configs.to_dict(config) | {
          "tables": [table._asdict() for table in configs.tables(config)]},
      "seeds": list(configs.seeds(config)),
      "dataset": {"name": dataset.name, "source": dataset.source, "checksum": dataset.checksum,
                  "frames": len(dataset)},
      "environment": environment,
      "command": command,
  }


def check_same(manifest: Mapping[str, Any]) -> None:
  """Makes sure that all processes are about to do the same.

  Args:
    manifest: of the experiment, from `describe`.

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
  digests = processes.from_all(np.array([
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
) -> Finished:
  """Runs an experiment: tunes learning rates if asked to, then trains every arm and seed.

  Args:
    experiment: prepared.
    on_progress: called after every stretch of training.
    manifest: of the experiment, where it has been made.
    directory: where checkpoints are kept and, if there are some, continued; none without it.
    kept: gets, where there is no directory, what would be saved there of the reported runs.
    should_stop: asked after every stretch.

  Returns:
    Results and trained variables.

  Raises:
    ValueError, OSError, Interrupted, Diverged, Lost: as `sweeps.run`.
  """
  with _full_precision():
    sweep_in = functools.partial(_sweep, directory, on_progress, should_stop)
    config, sources, arms = experiment
    tuning = {}
    if config.tuning.learning_rates:
      tuning = _tune(experiment, functools.partial(sweep_in, snapshots.TUNING))
      arms = {
          name: configs.with_overrides(
              settings, {"optimizer.learning_rate": tuning["chosen"][name]})
          for name, settings in arms.items()}
    outcome = sweep_in(snapshots.CHECKPOINTS, build.build(config, sources, arms), kept)
  record = {**(manifest or describe(experiment)), "timing": outcome.timing}
  result = Result(
      record | ({"tuning": tuning} if tuning else {}), outcome.rows, outcome.history,
      configs.tables(config), outcome.parity)
  return Finished(result, outcome.groups)


def sweep(
    config: ConfigDict,
    on_progress: OnProgress | Literal["display"] | None = "display",
    *,
    workdir: str | os.PathLike[str] | None = None,
) -> Result:
  """Runs an experiment and returns its result: the engine of the command line, for notebooks.

  The runs are spread over the devices of JAX. A CPU is one device unless told otherwise, before
  its first use: `jax.config.update("jax_num_cpu_devices", CORES)`, as the command line does.

  An interrupt (Ctrl-C, the stop button of a notebook) is heard between two stretches of training,
  about a second each, and after a compilation. It ends the sweep with a warning, and what there is
  so far is returned: `result.unfinished` counts the runs that have not ended. A second one raises
  KeyboardInterrupt at once.

  Args:
    config: from `configs.default()`, changed.
    on_progress: called after every stretch of training; by default progress is shown, on a
      terminal as a live view, elsewhere as a line now and then. None: nothing is shown.
    workdir: where all files that the command line would leave are written: checkpoints, results
      and report. What an equal sweep has left there is continued. Nothing is written without it.

  Returns:
    The result. `result.table(baseline=...)` compares its arms; `result.trained[arm]` holds the
    variables of its runs that have ended, as `checkpoints.load` describes them.

  Raises:
    ValueError: if the configuration is not valid, or `workdir` holds something else.
    OSError: if the data cannot be read, or `workdir` not be written to.
    Diverged: if a run became non-finite and `config.on_divergence` is `stop`; with a `workdir` all
      is saved.
  """
  with contextlib.ExitStack() as stack:
    with wording.options_under("config."):
      experiment = prepare(config)
    if on_progress == "display":
      from dcnn.jobs import display  # with rich, which a notebook that shows nothing does not need

      display.say(f"data: {experiment.sources.dataset.summary}")
    manifest = describe(experiment, "dcnn.sweep")
    directory = None if workdir is None else pathlib.Path(workdir).expanduser()
    if directory is not None:
      continued = stack.enter_context(workdirs.hold(directory, manifest))
      workdirs.begin(directory, manifest)
      if continued and on_progress == "display":
        from dcnn.jobs import display

        display.say(f"continuing {directory}")
    request = stack.enter_context(interruption.listen())
    kept = checkpoints.Memory()
    try:
      with _progress_display(on_progress) as show:
        finished = run(experiment, show, manifest=manifest, directory=directory, kept=kept,
                       should_stop=request.is_made)
    except sweeps.Interrupted:
      result = _so_far(experiment, manifest, directory, kept)
      _warn_of_interrupt(result, directory)
      return result
    except sweeps.Diverged:
      _so_far(experiment, manifest, directory, kept)
      raise
    if directory is not None:
      workdirs.write(finished.result, directory)
    return dataclasses.replace(finished.result, trained=checkpoints.by_arm(
        each for group in finished.groups for each in _trained_runs(group)))


def _progress_display(
    on_progress: OnProgress | Literal["display"] | None
) -> contextlib.AbstractContextManager[OnProgress]:
  if on_progress == "display":
    from rich.console import Console

    from dcnn.jobs import display

    return display.sweep_display(Console())
  return contextlib.nullcontext(on_progress or (lambda progress: None))


def _trained_runs(group: sweeps.Trained) -> Iterator[checkpoints.TrainedRun]:
  for i, each in enumerate(group.runs):
    yield checkpoints.TrainedRun(
        each.arm.name, each.seed, snapshots.of_run(group.best, i), snapshots.of_run(group.last, i),
        each.transform)


def _so_far(
    experiment: Experiment, manifest: Mapping[str, Any], directory: pathlib.Path | None,
    kept: checkpoints.Memory,
) -> Result:
  """The result of a sweep that did not come to its end; it is written if there is a directory."""
  config = experiment.config
  finished, state = kept.finished(), kept.running()
  if directory is not None:
    state = checkpoints.running(directory / snapshots.CHECKPOINTS)
    finished = checkpoints.finished(directory / snapshots.CHECKPOINTS)
  keys = [Key(arm, seed) for arm in experiment.arms for seed in configs.seeds(config)]
  rows, history = snapshots.results_of(finished, state, config.experiment, keys)
  result = Result(
      dict(manifest), rows, history, configs.tables(config), {}, checkpoints.by_arm(
          each for checkpoint in finished
          for each in checkpoints.trained_runs(checkpoint, str(directory))))
  if directory is not None and workdirs.holds_work(directory):
    workdirs.write(result, directory)
  return result


def _warn_of_interrupt(result: Result, directory: pathlib.Path | None) -> None:
  number = sum(result.unfinished.values())
  way_on = "the same call continues them" if directory else "only with a workdir can they go on"
  warnings.warn(f"interrupted: {number} runs are unfinished; {way_on}", stacklevel=3)


def _full_precision():
  """Accelerators would multiply float32 in fewer bits, too few for second derivatives."""
  return jax.default_matmul_precision("highest")


def _sweep(
    directory: pathlib.Path | None, on_progress: OnProgress, should_stop: Callable[[], bool],
    folder: str, plan: Plan, kept: checkpoints.Memory | None = None,
) -> sweeps.Outcome:
  store = contextlib.nullcontext(kept)
  if directory:
    store = checkpoints.Store(directory / folder, writes=processes.is_first())
  with store as opened:
    return sweeps.run(plan, on_progress, store=opened, should_stop=should_stop)


def _tune(experiment: Experiment, sweep_in: Callable[[Plan], sweeps.Outcome]) -> dict:
  """Chooses a learning rate for each arm on validation data, by the same grid and seeds for all.

  Returns:
    `learning_rates`, `seeds`, `scores` (of each arm and rate: geometric mean over seeds of the
    weighted validation errors; inf where a run diverged) and `chosen`.
  """
  config, sources, arms = experiment
  rates = [float(rate) for rate in config.tuning.learning_rates]
  candidates = {
      _tuning_name(name, rate): configs.with_overrides(settings, {"optimizer.learning_rate": rate})
      for name, settings in arms.items() for rate in rates}
  tuning = configs.with_overrides(config, {"on_divergence": "record"})  # a rate may be too large
  tuning.seeds = config.tuning.seeds
  outcome = sweep_in(build.build(tuning, sources, candidates))
  scores = {
      name: [
          _score(outcome.rows, _tuning_name(name, rate), settings) for rate in rates]
      for name, settings in arms.items()}
  chosen = {name: rates[int(np.argmin(values))] for name, values in scores.items()}
  at_edge = [name for name, rate in chosen.items() if rate in (min(rates), max(rates))]
  if at_edge:
    warnings.warn(
        f"the best learning rate lies at the edge of the grid for {', '.join(at_edge)}: widen "
        "tuning.learning_rates", stacklevel=2)
  return {"learning_rates": rates, "seeds": list(configs.tuning_seeds(config)),
          "scores": scores, "chosen": chosen}


def _tuning_name(arm: str, rate: float) -> str:
  return f"{arm} at learning_rate={rate:g}"


def _score(rows: Sequence[Row], arm: str, config: ConfigDict) -> float:
  """Geometric mean over seeds of the weighted validation errors; inf if a run diverged."""
  mine = [row for row in rows if row.arm == arm and row.split == "valid"]
  if any(is_failed(row.status) for row in mine):
    return math.inf
  energy, forces = (
      np.array([row.value for row in mine if row.metric == metric])
      for metric in ("energy_loss", "force_loss"))
  weighted = config.loss.energy_weight * energy
  if forces.size:  # else no forces are known
    weighted = weighted + config.loss.force_weight * forces
  with np.errstate(divide="ignore"):  # an exact run: nothing is better than 0
    return float(np.exp(np.mean(np.log(weighted))))
