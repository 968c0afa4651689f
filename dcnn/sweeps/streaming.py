"""How the data of a launch come to its devices: whole, or a window at a time.

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

from dcnn.sweeps import plans
from dcnn.sweeps.engine import Engine, Window, Windows
from dcnn.sweeps.plans import Launch, Plan

DATA_SHARE = 0.5  # of the memory that a launch may use, at most, is for its data
AHEAD = 2  # windows of a kind that are there at a time: one in use, one on its way
KINDS = 2  # of windows: for training and for evaluation
# Of a loop over a single row XLA makes another program than of a loop over many.
FEWEST_ROWS = 2
ENTRY_BYTES = 4  # of an index, and of a run's energy of a frame
FILLING = -1

Item = TypeVar("Item")
Rows = Int[np.ndarray, "rows batch"]
Batches = Int[np.ndarray, "runs rows batch"]


class Size(NamedTuple):
  """Of a window: the batches that it serves, their length, and the frames that it can hold."""

  rows: int
  batch: int
  frames: int


class Layout(NamedTuple):
  """How much of the data is on the devices at a time.

  Attributes:
    streamed: whether the data come in windows; else all frames stay on the devices.
    train, scored: sizes of the windows of training and of evaluation.
    bytes: that the data take on a device at most.
  """

  streamed: bool
  train: Size
  scored: Size
  bytes: int


class Part(NamedTuple):
  """A window on the devices and what it serves; none crosses the end of a chunk of training.

  Attributes:
    first: number of its first batch; in training that is a step.
    rows: its batches.
    left: batches of the same chunk or evaluation that come after it.
    window: the data.
  """

  first: int
  rows: int
  left: int
  window: Window


class Feed(NamedTuple):
  """The windows of a launch, each made while the one before is in use.

  Attributes:
    training: (step) -> those of training from this step on.
    validation: those of the validation split, over and over.
    scored: those of all splits.
  """

  training: Callable[[int], Generator[Part, None, None]]
  validation: Callable[[], Generator[Part, None, None]]
  scored: Callable[[], Generator[Part, None, None]]


def layout(
    plan: Plan, batch_size: int, *, seeds: int, per_device: int, budget: float
) -> Layout:
  """Decides whether data are streamed, and in windows of which sizes.

  Args:
    plan: of the sweep.
    batch_size: configurations a step.
    seeds: how many of them a launch has.
    per_device: runs of a launch on a device.
    budget: bytes that a launch may take on a device.

  Returns:
    All data where they take at most `DATA_SHARE` of the budget; else windows that together take
    no more, if that is enough for `FEWEST_ROWS` batches in each.
  """
  total, scored_batch = len(plan.dataset), plans.evaluation_batch(plan)
  frame = _frame_bytes(plan) + per_device * ENTRY_BYTES
  streamed = total * frame > DATA_SHARE * budget
  limit = DATA_SHARE * budget / (AHEAD * KINDS)

  def fitted(rows: int, batch: int, orders: int) -> Size:
    row = batch * (orders * frame + per_device * ENTRY_BYTES)
    rows = max(FEWEST_ROWS, int(min(rows, limit // row)) if streamed else rows)
    return Size(rows, batch, min(total, orders * rows * batch) if streamed else total)

  train = fitted(plan.chunk, batch_size, seeds)
  scored = fitted(_valid_rows(plan), scored_batch, seeds if _splits_differ(plan) else 1)
  frames = AHEAD * (train.frames + scored.frames) if streamed else total
  entries = AHEAD * (train.rows * train.batch + scored.rows * scored.batch)
  return Layout(
      streamed, train, scored, frames * frame + entries * per_device * ENTRY_BYTES)


def described(plan: Plan, sizes: Layout, runs: int) -> Windows:
  """The shapes of the windows of `runs` runs, for `engine.build`."""
  example = plans.shared_data(plan.dataset.take(np.arange(1)))

  def window(size: Size) -> Window:
    return Window(
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size.frames, *leaf.shape[1:]), leaf.dtype), example),
        jax.ShapeDtypeStruct((runs, size.frames), np.float32),
        jax.ShapeDtypeStruct((runs, size.rows, size.batch), np.int32))

  return Windows(window(sizes.train), window(sizes.scored), _valid_rows(plan), sizes.bytes)


def whole(plan: Plan, sizes: Layout, built: Engine) -> Any:
  """What all runs see alike, on every device, for all launches; nothing if it is streamed."""
  return None if sizes.streamed else built.share(plans.shared_data(plan.dataset))


def feed(plan: Plan, launch: Launch, sizes: Layout, built: Engine, shared: Any) -> Feed:
  """The windows of a launch.

  Args:
    plan: of the sweep.
    launch: whose data are wanted.
    sizes: of its windows.
    built: puts them on the devices.
    shared: from `whole`.
  """
  runs = launch.filled
  own = None if sizes.streamed else built.place(
      plans.energies(runs, plan.dataset, np.arange(len(plan.dataset))))

  def window(batches: Batches, size: Size) -> Window:
    if not sizes.streamed:
      return Window(shared, own, built.place(_filled(batches, 1, size.rows, FILLING)))
    made = gathered(plan, launch, batches, size)
    return Window(built.share(made.shared), *built.place((made.own, made.rows)))

  def parts(batches: Sequence[Rows], size: Size, number: int = 0) -> Iterator[Part]:
    """Of the batches of each run; runs may share theirs, and nothing is copied for all rows."""
    total = len(batches[0])
    for first in range(0, total, size.rows):
      rows = min(size.rows, total - first)
      mine = np.stack([each[first:first + rows] for each in batches])
      yield Part(number + first, rows, total - first - rows, window(mine, size))

  def training(step: int) -> Iterator[Part]:
    while step < plan.steps:
      start = step - step % plan.chunk
      batches = plans.chunk_batches(runs, plan, sizes.train.batch, start)[:, step - start:]
      yield from parts(list(batches), sizes.train, step)
      step += batches.shape[1]

  def batches_of(splits: Sequence[str]) -> list[Rows]:
    by_seed = {each.seed: plans.scored_batches(each, plan) for each in runs}
    rows = {seed: np.concatenate([mine[split] for split in splits])
            for seed, mine in by_seed.items()}
    return [rows[each.seed] for each in runs]

  def validation() -> Iterator[Part]:
    batches = batches_of(["valid"])
    while True:
      yield from parts(batches, sizes.scored)

  def scored() -> Iterator[Part]:
    yield from parts(batches_of(plan.splits[0]._fields), sizes.scored)

  return Feed(
      lambda step: prefetched(training(step)), lambda: prefetched(validation()),
      lambda: prefetched(scored()))


def gathered(plan: Plan, launch: Launch, batches: Batches, size: Size) -> Window:
  """The window of these batches, on the host, filled up to its size."""
  frames, rows = reindexed(batches, len(plan.dataset))
  assert len(frames) <= size.frames and rows.shape[1] <= size.rows, (len(frames), rows.shape, size)
  shared = plans.shared_data(plan.dataset.take(frames))
  own = plans.energies(launch.filled, plan.dataset, frames)
  return Window(
      jax.tree.map(lambda leaf: _filled(leaf, 0, size.frames, 0), shared),
      _filled(own, 1, size.frames, 0), _filled(rows, 1, size.rows, FILLING))


def reindexed(
    batches: Int[np.ndarray, "*rows batch"], total: int
) -> tuple[Int[np.ndarray, " frames"], Int[np.ndarray, "*rows batch"]]:
  """The frames that batches need, and the batches as places among these.

  Args:
    batches: frames by number; -1 is filling, and stays so.
    total: number of frames in the data.

  Returns:
    Each frame once, in ascending order, and places: `frames[places]` is `batches`.
  """
  needed = np.zeros(total + 1, bool)  # the last entry is that of -1
  needed[batches] = True
  frames = np.flatnonzero(needed[:-1])
  places = np.full(total + 1, FILLING, np.int32)
  places[frames] = np.arange(len(frames))
  return frames, places[batches]


def prefetched(items: Iterator[Item]) -> Generator[Item, None, None]:
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


def _frame_bytes(plan: Plan) -> int:
  """What a frame takes of what all runs see alike."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(
      plans.shared_data(plan.dataset.take(np.arange(1)))))


def _valid_rows(plan: Plan) -> int:
  """Batches of a validation."""
  return -(-len(plan.splits[0].valid) // plans.evaluation_batch(plan))


def _splits_differ(plan: Plan) -> bool:
  first, *others = plan.splits
  return any(not np.array_equal(a, b) for each in others for a, b in zip(first, each, strict=True))


def _filled(
    array: Shaped[np.ndarray, "..."], axis: int, length: int, value: int
) -> Shaped[np.ndarray, "..."]:
  """An array with entries of `value` added to an axis until it has this length."""
  shape = list(array.shape)
  shape[axis] = length - shape[axis]
  return np.concatenate([array, np.full(shape, value, array.dtype)], axis=axis)
