"""Training, validation and test frames: at random, as blocks of a trajectory, or as published."""

from typing import NamedTuple

import jax
import numpy as np

from dcnn.base import Dataset
from dcnn.base.splits import Frames, Indices
from dcnn.base.wording import has_settings, option
from dcnn.data import fetching
from dcnn.data.named import SETS


class Splits(NamedTuple):
  """Three sets that have no frame in common.

  Attributes:
    train: The frames to train on.
    valid: The frames that choose the checkpoint of a run.
    test: The frames that choose nothing.
  """

  train: Dataset
  valid: Dataset
  test: Dataset


class Published(NamedTuple):
  """The numbers of the frames of a published split.

  Attributes:
    train: The frames to train on, validation included.
    test: The frames to test on.
  """

  train: Frames
  test: Frames


def split(
    dataset: Dataset, *, train: int, valid: int, test: int | None = None, seed: int) -> Splits:
  """Splits at random. Frames of one trajectory resemble each other: see `split_blocks`.

  Args:
    dataset: The set to split.
    train: Number of training frames, at least 1.
    valid: Number of validation frames.
    test: Number of test frames; by default all the rest.
    seed: Fixes the choice of frames. The same seed and sizes give the same test frames for every
      `train`.

  Returns:
    The three sets.

  Raises:
    ValueError: On sizes that do not fit, or on equal frames in two splits (see `distinct`).

  >>> from dcnn.data import load
  >>> train, valid, test = split(load("ethanol"), train=900, valid=100, seed=0)
  >>> len(train), len(valid), len(test)
  (900, 100, 1000)
  """
  return _take(
      dataset, split_indices(len(dataset), train=train, valid=valid, test=test, seed=seed))


def split_blocks(
    dataset: Dataset, *, train: int, valid: int, test: int | None = None, gap: int = 0) -> Splits:
  """Splits into contiguous blocks in the order of the file: training, validation, test.

  Args:
    dataset: A set whose frames are in time order.
    train: Number of training frames, at least 1.
    valid: Number of validation frames.
    test: Number of test frames; by default all the rest.
    gap: Number of frames left out between two blocks, so that neighbours in time are not on both
      sides.

  Returns:
    The three sets.

  Raises:
    ValueError: On sizes that do not fit, or on equal frames in two splits (see `distinct`).

  >>> from dcnn.data import load
  >>> train, valid, test = split_blocks(load("ethanol"), train=900, valid=100, gap=50)
  >>> len(train), len(valid), len(test)
  (900, 100, 900)
  """
  return _take(
      dataset, block_indices(len(dataset), train=train, valid=valid, test=test, gap=gap))


def split_indices(
    frames: int, *, train: int, valid: int, test: int | None = None, seed: int) -> Indices:
  """The numbers of the frames of `split`, for a set of `frames` frames.

  Training frames come from the front of one random order and test frames from its end: of two
  sizes of the training set the smaller is part of the larger, and both have the same test frames.

  >>> small, large = (split_indices(10, train=n, valid=2, test=3, seed=0) for n in (2, 5))
  >>> set(small.train) <= set(large.train), list(small.test) == list(large.test)
  (True, True)
  """
  if seed < 0:
    raise ValueError(f"seed must not be negative, got {seed}")
  test = _test_size(frames, train=train, valid=valid, test=test, gap=0)
  order = np.random.default_rng(seed).permutation(frames).astype(np.int64)
  end = frames - test
  return Indices(order[:train], order[end - valid:end], order[end:])


def block_indices(
    frames: int, *, train: int, valid: int, test: int | None = None, gap: int = 0) -> Indices:
  """The numbers of the frames of `split_blocks`, for a set of `frames` frames.

  >>> [block.tolist() for block in block_indices(9, train=3, valid=2, gap=1)]
  [[0, 1, 2], [4, 5], [7, 8]]
  """
  test = _test_size(frames, train=train, valid=valid, test=test, gap=gap)
  order = np.arange(frames, dtype=np.int64)
  # An empty validation block needs no second gap.
  start = train + gap
  end = start + valid + (gap if valid else 0)
  return Indices(order[:train], order[start:start + valid], order[end:end + test])


def published_split(name: str, number: int = 1) -> Published:
  """The frames of a split that was published with a data set; fetches them as `load` does.

  Args:
    name: A name in `data.PUBLISHED`.
    number: Which of its splits, from 1.

  Raises:
    ValueError: If the set has no such split.
    OSError: If it cannot be fetched.
    ModuleNotFoundError: Without the extra `data`.

  >>> published_split("qm9")
  Traceback (most recent call last):
  ...
  ValueError: 'qm9' has no published split; rmd17/aspirin, ...
  """
  splits = SETS[name].splits if name in SETS else ()
  if not splits:
    having = ", ".join(known for known, each in SETS.items() if each.splits)
    raise ValueError(f"{name!r} has no published split; {having} have: take one of these, or split "
                     "at random or in blocks")
  if not 1 <= number <= len(splits):
    raise ValueError(f"{name} has the published splits 1 to {len(splits)}, got {number}")
  return Published(*(np.loadtxt(fetching.fetch(file), np.int64, ndmin=1).ravel()
                     for file in splits[number - 1]))


def published_indices(
    published: Published, *, train: int, valid: int, test: int | None = None, seed: int) -> Indices:
  """The numbers of the frames of each split, where training and test frames are published.

  Validation frames are drawn from the published training frames, which are so divided between the
  two; of two sizes of the training set the smaller is part of the larger.

  Args:
    published: The published split.
    train: Number of training frames, at least 1.
    valid: Number of validation frames.
    test: Number of test frames, the first of the published ones; by default all.
    seed: Fixes which of the published training frames are for validation.

  Raises:
    ValueError: On sizes that do not fit.

  >>> found = published_indices(
  ...     Published(np.array([3, 1, 4]), np.array([5, 9])), train=2, valid=1, seed=0)
  >>> sorted(map(int, [*found.train, *found.valid])), found.test
  ([1, 3, 4], array([5, 9]))
  """
  size = len(published.test) if test is None else test
  if size > len(published.test) or size < 0:
    raise ValueError(f"test={test}: the published split has {len(published.test)} test frames")
  if train + valid > len(published.train):
    raise ValueError(f"train={train}, valid={valid} need {train + valid} frames, the published "
                     f"split has {len(published.train)} for both: lower one of them")
  drawn = split_indices(len(published.train), train=train, valid=valid, test=0, seed=seed)
  return Indices(
      published.train[drawn.train], published.train[drawn.valid], published.test[:size])


def check_disjoint(dataset: Dataset, indices: Indices) -> None:
  """Refuses equal frames (same positions, species and cell, bit for bit) in two splits.

  Args:
    dataset: The whole set.
    indices: Numbers of the frames of each split.

  Raises:
    ValueError: Naming two such frames, by their numbers in the data set.

  >>> from dcnn.data import load
  >>> ethanol = load("ethanol")
  >>> check_disjoint(ethanol, split_indices(len(ethanol), train=5, valid=5, test=5, seed=0))
  """
  seen: dict[bytes, tuple[int, str]] = {}
  for name, frames in zip(Indices._fields, indices, strict=True):
    for frame in frames:
      other, where = seen.setdefault(_contents(dataset, frame), (int(frame), name))
      if where != name:
        advice = (f"{option('drop_repeated', True)} keeps the first of each" if has_settings()
                  else "data.distinct(dataset) removes repeated frames")
        raise ValueError(
            f"{dataset.name}: frame {other} ({where}) and frame {frame} ({name}) are the same "
            f"configuration, so errors on one would not be those of unseen data; {advice}")


def distinct(dataset: Dataset) -> Dataset:
  """The data set without repeated configurations: the first of each is kept.

  >>> from dcnn.data import load
  >>> ethanol = load("ethanol")
  >>> len(distinct(ethanol.take(np.array([3, 7, 3]))))
  2
  """
  seen = {_contents(dataset, frame): frame for frame in reversed(range(len(dataset)))}
  return dataset.take(np.sort(np.fromiter(seen.values(), np.int64)))


def _take(dataset: Dataset, indices: Indices) -> Splits:
  check_disjoint(dataset, indices)
  return Splits(*(dataset.take(frames) for frames in indices))


def _test_size(frames: int, *, train: int, valid: int, test: int | None, gap: int) -> int:
  """Size of the test split; refuses sizes that are not possible."""
  sizes = f"train={train}, valid={valid}, test={test}" + (f", gap={gap}" if gap else "")
  if train < 1 or min(valid, gap, test or 0) < 0:
    raise ValueError(f"expected train of at least 1 and no negative size, got {sizes}")
  rest = frames - train - valid - gap * (2 if valid else 1)
  if rest < (test or 0):
    raise ValueError(
        f"{sizes} need {frames - rest + (test or 0)} frames, the data set has {frames}: lower one "
        "of them, or take more frames")
  return rest if test is None else test


def _contents(dataset: Dataset, frame: int | np.integer) -> bytes:
  # Adding zero makes -0.0 and 0.0 one.
  leaves = jax.tree.leaves(dataset.systems._replace(neighbours=None))
  return b"".join((np.asarray(leaf[frame]) + 0).tobytes() for leaf in leaves)
