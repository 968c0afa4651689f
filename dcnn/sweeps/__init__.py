"""The machine: trains many runs as one program, and can be stopped and continued."""

from dcnn.sweeps.sweep import (
    TRAINING,
    Diverged,
    Interrupted,
    OnResults,
    Outcome,
    Progress,
    run,
)

__all__ = [
    "TRAINING", "Diverged", "Interrupted", "OnResults", "Outcome", "Progress", "run"]
