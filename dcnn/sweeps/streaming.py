"""How the data of a launch come to its devices: whole, or streamed from the host in windows.

Data that take a small enough share of the memory stay on the devices. Of larger ones the frames
that the coming batches need are gathered on the host, which holds all frames in RAM, and sent by
a thread while the devices work on those before. Arms share the order of the data, so that a window
holds each frame once, however many runs read it. The compiled functions are the same in both
cases, and so is every bit of their results: only how many frames an array holds differs.
"""

import concurrent.futures
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Int, Shaped

from dcnn.sweeps import batches, plans
from dcnn.sweeps.batches import PADDING
from dcnn.sweeps.engine import Engine, Window, Windows
from dcnn.sweeps.plans import Launch, Plan, Run

DATA_SHARE = 0.5  # of the memory that a launch may use, at most, is for its data
AHEAD = 2  # windows of a kind that are live at a time: one in use, one on its way
KINDS = 2  # of windows: for training and for evaluation
# XLA compiles a loop over a single row into another program than a loop over many.
FEWEST_ROWS = 2
INDEX_BYTES = 4

Item = TypeVar("Item")
Rows = Int[np.ndarray, "rows batch"]
Batches = Int[np.ndarray, "runs rows batch"]


class Size(NamedTuple):
  """The size of a window.

  Attributes:
    rows: The number of batches that it serves.
    batch: The number of frames in each.
    frames: The number of frames that it can hold.
  """

  rows: int
  batch: int
  frames: int


class Layout(NamedTuple):
  """How much of the data is on the devices at a time.

  Attributes:
    streamed: Whether the data come in windows; otherwise all frames stay on the devices.
    train: The size of the windows of training.
    scored: The size of the windows of evaluation.
    bytes: The most memory that the data take on a device.
  """

  streamed: bool
  train: Size
  scored: Size
  bytes: int


class Part(NamedTuple):
  """A window on the devices and what it serves; none crosses the end of a chunk of training.

  Attributes:
    first: The number of its first batch; in training that is a step.
    rows: The number of its batches.
    left: The number of batches of the same chunk or evaluation that come after it.
    window: The data.
  """

  first: int
  rows: int
  left: int
  window: Window


class Feed(NamedTuple):
  """The windows of a launch, each made while the one before is in use.

  Attributes:
    training: `(step) -> parts` of training from this step on.
    validation: `() -> parts` of the validation split, over and over.
    scored: `() -> parts` of all splits.
  """

  training: Callable[[int], Generator[Part, None, None]]
  validation: Callable[[], Generator[Part, None, None]]
  scored: Callable[[], Generator[Part, None, None]]


def choose_layout(
    plan: Plan, batch_size: int, runs: Sequence[Run], *, seeds: int, per_device: int, budget: float
) -> Layout:
  """Decides whether data are streamed, and in windows of which sizes.

  Args:
    plan: The plan of the sweep.
    batch_size: Frames in the batch of a training step.
    runs: The runs to train, of which the first shows how large what a run alone sees is.
    seeds: The number of seeds in a launch.
    per_device: The number of runs of a launch on a device.
    budget: The bytes that a launch may take on a device.

  Returns:
    All data where they take at most `DATA_SHARE` of the budget; else windows that together take
    no more, if that is enough for `FEWEST_ROWS` batches in each.
  """
  total, scored_batch = plan.problem.frames, batches.evaluation_batch(plan)
  first = np.arange(1)
  frame = _bytes(plan.problem.shared(first)) + per_device * _bytes(runs[0].fitted.own(first))
  streamed = total * frame > DATA_SHARE * budget
  limit = DATA_SHARE * budget / (AHEAD * KINDS)

  def window_size(rows: int, batch: int, orders: int) -> Size:
    row = batch * (orders * frame + per_device * INDEX_BYTES)
    rows = max(FEWEST_ROWS, int(min(rows, limit // row)) if streamed else rows)
    return Size(rows, batch, min(total, orders * rows * batch) if streamed else total)

  train = window_size(plan.chunk, batch_size, seeds)
  scored = window_size(_valid_rows(plan), scored_batch, seeds if plans.splits_differ(plan) else 1)
  frames = AHEAD * (train.frames + scored.frames) if streamed else total
  entries = AHEAD * (train.rows * train.batch + scored.rows * scored.batch)
  return Layout(
      streamed, train, scored, frames * frame + entries * per_device * INDEX_BYTES)


def window_shapes(plan: Plan, layout: Layout, runs: Sequence[Run]) -> Windows:
  """The shapes of the windows of a launch, for `engine.build`.

  Args:
    plan: The plan of the sweep.
    layout: The sizes of the windows.
    runs: The runs of a launch, padded.
  """
  first, number = np.arange(1), len(runs)
  shared, own = plan.problem.shared(first), runs[0].fitted.own(first)

  def window(size: Size) -> Window:
    return Window(
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size.frames, *leaf.shape[1:]), leaf.dtype), shared),
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
            (number, size.frames, *leaf.shape[1:]), leaf.dtype), own),
        jax.ShapeDtypeStruct((number, size.rows, size.batch), np.int32))

  return Windows(window(layout.train), window(layout.scored), _valid_rows(plan), layout.bytes)


def resident_data(plan: Plan, layout: Layout, built: Engine) -> Any:
  """What all runs see alike, on every device, for all launches; None if it is streamed."""
  if layout.streamed:
    return None
  return built.replicate(plan.problem.shared(np.arange(plan.problem.frames)))


def make_feed(plan: Plan, launch: Launch, layout: Layout, built: Engine, shared: Any) -> Feed:
  """The windows of a launch.

  Args:
    plan: The plan of the sweep.
    launch: The runs whose data are wanted.
    layout: The sizes of the windows.
    built: The engine, which puts them on the devices.
    shared: What `resident_data` gave.

  Returns:
    Functions that give the windows in order.
  """
  runs = launch.padded
  own = None if layout.streamed else built.shard(
      plans.own_data(runs, np.arange(plan.problem.frames)))

  def window(rows: Batches, size: Size) -> Window:
    if not layout.streamed:
      return Window(shared, own, built.shard(_pad(rows, 1, size.rows, PADDING)))
    made = gather_window(plan, launch, rows, size)
    return Window(built.replicate(made.shared), *built.shard((made.own, made.rows)))

  def parts(rows_of_runs: Sequence[Rows], size: Size, number: int = 0) -> Iterator[Part]:
    """The parts of each run's rows; runs may share theirs, and nothing is copied for all rows."""
    total = len(rows_of_runs[0])
    for first in range(0, total, size.rows):
      count = min(size.rows, total - first)
      stacked = np.stack([rows[first:first + count] for rows in rows_of_runs])
      yield Part(number + first, count, total - first - count, window(stacked, size))

  def training(step: int) -> Iterator[Part]:
    while step < plan.steps:
      start = step - step % plan.chunk
      rows = batches.chunk_batches(runs, plan, layout.train.batch, start)[:, step - start:]
      yield from parts(list(rows), layout.train, step)
      step += rows.shape[1]

  def rows_of(splits: Sequence[str]) -> list[Rows]:
    by_seed = {run.seed: batches.evaluation_batches(run, plan) for run in runs}
    rows = {seed: np.concatenate([mine[split] for split in splits])
            for seed, mine in by_seed.items()}
    return [rows[run.seed] for run in runs]

  def validation() -> Iterator[Part]:
    rows = rows_of(["valid"])
    while True:
      yield from parts(rows, layout.scored)

  def scored() -> Iterator[Part]:
    yield from parts(rows_of(plan.splits[0]._fields), layout.scored)

  return Feed(
      lambda step: prefetch(training(step)), lambda: prefetch(validation()),
      lambda: prefetch(scored()))


def gather_window(plan: Plan, launch: Launch, rows: Batches, size: Size) -> Window:
  """The window of these batches, on the host, padded to its size."""
  frames, positions = reindex(rows, plan.problem.frames)
  assert len(frames) <= size.frames and rows.shape[1] <= size.rows, (len(frames), rows.shape, size)

  def pad_frames(tree: Any, axis: int) -> Any:
    return jax.tree.map(lambda leaf: _pad(leaf, axis, size.frames, 0), tree)

  return Window(
      pad_frames(plan.problem.shared(frames), 0),
      pad_frames(plans.own_data(launch.padded, frames), 1),
      _pad(positions, 1, size.rows, PADDING))


def reindex(
    rows: Int[np.ndarray, "*rows batch"], total: int
) -> tuple[Int[np.ndarray, " frames"], Int[np.ndarray, "*rows batch"]]:
  """The frames that batches need, and the batches as positions among these.

  Args:
    rows: Frames by number; -1 is padding, and stays so.
    total: The number of frames in the data.

  Returns:
    Each frame once, in ascending order, and positions: `frames[positions]` is `rows`.
  """
  needed = np.zeros(total + 1, bool)  # the last entry is that of -1
  needed[rows] = True
  frames = np.flatnonzero(needed[:-1])
  positions = np.full(total + 1, PADDING, np.int32)
  positions[frames] = np.arange(len(frames))
  return frames, positions[rows]


def prefetch(items: Iterator[Item]) -> Generator[Item, None, None]:
  """The same items, each made in a thread while the one before is in use.

  An error in making one is raised where it would be used. Closing the iterator waits for the
  item that is being made.
  """
  end = object()
  with concurrent.futures.ThreadPoolExecutor(1, "windows") as maker:
    coming = maker.submit(next, items, end)
    while (item := coming.result()) is not end:
      coming = maker.submit(next, items, end)
      yield item  # pyright: ignore[reportReturnType]


def _bytes(tree: Any) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _valid_rows(plan: Plan) -> int:
  """The number of batches of a validation."""
  return -(-len(plan.splits[0].valid) // batches.evaluation_batch(plan))


def _pad(
    array: Shaped[np.ndarray, "..."], axis: int, length: int, value: int
) -> Shaped[np.ndarray, "..."]:
  """An array with entries of `value` added to an axis until it has this length."""
  shape = list(array.shape)
  shape[axis] = length - shape[axis]
  return np.concatenate([array, np.full(shape, value, array.dtype)], axis=axis)
