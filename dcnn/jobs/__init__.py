"""A job: from a configuration to a finished sweep, its files and its report."""

from dcnn.jobs.experiment import Experiment, Finished, check_same, describe, prepare, run
from dcnn.jobs.loading import load
from dcnn.jobs.notebook import sweep

__all__ = ["Experiment", "Finished", "check_same", "describe", "load", "prepare", "run", "sweep"]
