"""Which frames are in which batch.

The order of training follows from (seed, epoch) alone; evaluation takes the frames as they come.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from dcnn.sweeps.plans import Plan, Run

PADDING = -1  # a place of a batch that holds no frame


def batch_order(
    seed: int, train: Int[np.ndarray, " train"], *, batch_size: int, start: int, steps: int
) -> Int[np.ndarray, "steps batch"]:
  """The training frames of steps start ... start + steps - 1.

  Each epoch is a permutation drawn from (seed, epoch) alone, so that a resumed run and a straight
  run see the same batches. What is left of an epoch after its last whole batch is not used.

  Args:
    seed: The seed of the run.
    train: The training frames by number.
    batch_size: Frames in a batch, at most `len(train)`.
    start: The first step.
    steps: The number of steps.

  Returns:
    The frames of each step by number, int32.

  Raises:
    ValueError: if a batch is larger than the training set.
  """
  if not 1 <= batch_size <= len(train):
    raise ValueError(
        f"batch_size must be between 1 and the {len(train)} training frames, "
        f"got {batch_size}")
  per_epoch = len(train) // batch_size
  epochs = range(start // per_epoch, (start + steps - 1) // per_epoch + 1)
  orders = [
      np.random.default_rng([seed, epoch]).permutation(train)[:per_epoch * batch_size]
      for epoch in epochs
  ]
  rows = np.concatenate(orders).reshape(-1, batch_size).astype(np.int32)
  skip = start - epochs[0] * per_epoch
  return rows[skip:skip + steps]


def pad_batches(
    indices: Int[np.ndarray, " frames"], batch_size: int
) -> Int[np.ndarray, "batches batch"]:
  """Indices in rows of `batch_size`, the last row padded with -1."""
  rows = -(-len(indices) // batch_size)
  padded = np.full(rows * batch_size, PADDING, np.int32)
  padded[:len(indices)] = indices
  return padded.reshape(rows, batch_size)


def evaluation_batch(plan: Plan) -> int:
  """Frames in a batch of evaluation: for every split as many as validation can fill."""
  size = min(plan.problem.evaluation_batch, len(plan.splits[0].valid))
  return -(-size // plan.devices_per_run) * plan.devices_per_run


def evaluation_batches(run: Run, plan: Plan) -> dict[str, Int[np.ndarray, "batches batch"]]:
  """The batches in which each split is evaluated, the last of each padded with -1."""
  size = evaluation_batch(plan)
  return {name: pad_batches(indices, size) for name, indices in run.splits._asdict().items()}


def chunk_batches(
    runs: Sequence[Run], plan: Plan, batch_size: int, start: int
) -> Int[np.ndarray, "runs steps batch"]:
  """The training batches of the chunk that begins at step `start`; runs of a seed share theirs."""
  steps = min(plan.chunk, plan.steps - start)
  orders: dict[int, np.ndarray] = {}
  for run in runs:
    if run.seed not in orders:
      orders[run.seed] = batch_order(
          run.seed, run.splits.train, batch_size=batch_size, start=start, steps=steps)
  return np.stack([orders[run.seed] for run in runs])
