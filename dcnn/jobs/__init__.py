"""A job: from a configuration to a finished sweep, its files and its report."""

from dcnn.jobs.experiment import Experiment, Finished, check_same, describe, prepare, run
from dcnn.jobs.notebook import sweep, trained

__all__ = ["Experiment", "Finished", "check_same", "describe", "prepare", "run", "sweep", "trained"]
