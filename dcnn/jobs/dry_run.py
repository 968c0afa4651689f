"""What an experiment would take, its tuning included, without running it."""

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dcnn.configs import build
from dcnn.jobs import tuning
from dcnn.jobs.experiment import Experiment, full_precision
from dcnn.sweeps import checkpoints, estimates, snapshots
from dcnn.sweeps.estimates import Estimate
from dcnn.sweeps.plans import Key, Plan


class Stage(NamedTuple):
  """A group of an experiment.

  Attributes:
    tuning: Whether its runs choose learning rates; otherwise they are reported.
    estimate: What its runs will take.
  """

  tuning: bool
  estimate: Estimate


def estimate_stages(
    experiment: Experiment, directory: pathlib.Path | None = None,
    on_stage: Callable[[Stage], None] = lambda stage: None,
) -> tuple[Stage, ...]:
  """Estimates what an experiment takes, group after group; nothing is written.

  Args:
    experiment: An experiment that `prepare` has checked.
    directory: A work directory; the runs that have ended in it are left out.
    on_stage: Called with each group as soon as it has been measured.

  Returns:
    The groups that are to be trained, those of the tuning first.

  Raises:
    ValueError: If not even one run fits in memory.
  """
  stages = []
  with full_precision():
    for folder, plan in _plans(experiment).items():
      ended = set() if directory is None else {
          Key(*run) for checkpoint in checkpoints.finished(directory / folder)
          for run in checkpoint.record["runs"]}
      for estimate in estimates.estimate(plan, ended):
        stages.append(Stage(folder == snapshots.TUNING, estimate))
        on_stage(stages[-1])
  return tuple(stages)


def _plans(experiment: Experiment) -> Mapping[str, Plan]:
  """The plans of an experiment by the folders of their checkpoints, in the order of training."""
  config, data, arms = experiment
  reported = {snapshots.CHECKPOINTS: build.build(config, data, arms)}
  if not config.tuning.learning_rates:
    return reported
  return {snapshots.TUNING: tuning.make_plan(config, data, arms), **reported}
