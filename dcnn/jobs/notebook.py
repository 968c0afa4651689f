"""Sweeps from a notebook: one call that checks, shows progress, can be interrupted, and returns."""

import contextlib
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from dcnn import configs, sweeps
from dcnn.base import wording
from dcnn.configs import ConfigDict
from dcnn.jobs import interruption, tuning, workdirs
from dcnn.jobs.experiment import Experiment, OnProgress, OnTuned, describe, prepare, run
from dcnn.jobs.loading import hand_over
from dcnn.results.records import Result
from dcnn.sweeps import checkpoints, snapshots
from dcnn.sweeps.plans import Key


def sweep(
    config: ConfigDict,
    on_progress: OnProgress | Literal["display"] | None = "display",
    *,
    workdir: str | os.PathLike[str] | None = None,
) -> Result:
  """Runs an experiment and returns its result: the engine of the command line, for notebooks.

  The runs are spread over the devices of JAX. A CPU is one device unless told otherwise, before
  its first use: `jax.config.update("jax_num_cpu_devices", CORES)`, as the command line does.

  An interrupt (Ctrl-C, the stop button of a notebook) is heard between two segments of training,
  about a second each, and after a compilation. It ends the sweep with a warning, and what there is
  so far is returned: `result.unfinished` counts the runs that have not ended. A second one raises
  KeyboardInterrupt at once.

  Args:
    config: A configuration from `configs.default()`, changed.
    on_progress: Called after every segment of training. By default progress is shown, on a
      terminal as a live view, elsewhere as a line now and then. With None nothing is shown.
    workdir: Where all files that the command line would leave are written: checkpoints, results
      and report. What an equal sweep has left there is continued. Nothing is written without it.

  Returns:
    The result. `result.table(baseline=...)` compares its arms; `result.trained[arm]` is what an
    arm has become, with all seeds that have ended, as `load` gives it.

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

      display.say(f"data: {experiment.data.summary}")
    manifest = describe(experiment, "dcnn.sweep")
    directory = None if workdir is None else pathlib.Path(workdir).expanduser()
    if directory is not None:
      continued = stack.enter_context(workdirs.hold(directory, manifest))
      manifest = workdirs.begin(directory, manifest)
      if continued and on_progress == "display":
        from dcnn.jobs import display

        display.say(f"continuing {directory}")
    request = stack.enter_context(interruption.listen())
    kept = checkpoints.Memory()
    try:
      with _progress_display(on_progress) as show:
        finished = run(experiment, show, manifest=manifest, directory=directory, kept=kept,
                       should_stop=request.is_made, on_tuned=_tuned_display(on_progress))
    except sweeps.Interrupted:
      result = _so_far(experiment, manifest, directory, kept)
      way_on = "the same call continues them" if directory else "only with a workdir can they go on"
      warnings.warn(f"interrupted: {sum(result.unfinished.values())} runs are unfinished; {way_on}",
                    stacklevel=2)
      return result
    except sweeps.Diverged:
      _so_far(experiment, manifest, directory, kept)
      raise
    if directory is not None:
      workdirs.write(finished.result, directory)
    return dataclasses.replace(finished.result, trained=hand_over(
        config, finished.outcome.ended, finished.result.config))


def _progress_display(
    on_progress: OnProgress | Literal["display"] | None
) -> contextlib.AbstractContextManager[OnProgress]:
  if on_progress == "display":
    from rich.console import Console

    from dcnn.jobs import display

    return display.sweep_display(Console())
  return contextlib.nullcontext(on_progress or (lambda progress: None))


def _tuned_display(on_progress: OnProgress | Literal["display"] | None) -> OnTuned:
  if on_progress == "display":
    from dcnn.jobs import display

    return lambda tuned: display.say(tuning.summary(tuned))
  return lambda tuned: None


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
  rows, history = snapshots.results_of(
      finished, state, config.experiment, keys, configs.section_of(config).measures(config))
  ended = {key: each for checkpoint in finished
           for key, each in snapshots.to_ended(checkpoint).items()}
  result = Result(dict(manifest), rows, history, configs.tables(config), {},
                  hand_over(config, ended, manifest))
  if directory is not None and workdirs.holds_work(directory):
    workdirs.write(result, directory)
  return result
