"""Which frames of a data set belong to which split."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

Frames = Int[np.ndarray, " frames"]
Training = Int[np.ndarray, " train"]


class Indices(NamedTuple):
  """The frames of each split, by number, int64; each split may be empty.

  Attributes:
    train: The frames to train on.
    valid: The frames that choose the checkpoint of a run.
    test: The frames that choose nothing.
  """

  train: Training
  valid: Int[np.ndarray, " valid"]
  test: Int[np.ndarray, " test"]
