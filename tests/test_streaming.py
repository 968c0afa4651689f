"""Data in windows: the same frames, the same results, and never more of them than fit."""

import itertools
import math
import threading

import jax
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from dcnn import jobs
from dcnn.configs import build
from dcnn.sweeps import batches, plans, streaming
from dcnn.sweeps.batches import PADDING
from dcnn.tasks import forcefield

ARMS = ({}, {"activation.c": 0.25}, {"labels": "min_max"})
TOTAL = 40  # frames
SOURCES = build.load(tiny.config())


@st.composite
def rows_of_runs(draw):
  shape = draw(st.tuples(*(st.integers(1, 4),) * 3))
  entries = st.lists(
      st.integers(-1, TOTAL - 1), min_size=math.prod(shape), max_size=math.prod(shape))
  return np.array(draw(entries), np.int32).reshape(shape)


@given(rows_of_runs())
def test_places_lead_to_the_same_frames(rows):
  frames, places = streaming.reindex(rows, TOTAL)
  assert places.dtype == np.int32 and places.shape == rows.shape
  assert (np.diff(frames) > 0).all() and set(frames) == set(rows.ravel()) - {-1}
  np.testing.assert_array_equal(places >= 0, rows >= 0)
  np.testing.assert_array_equal(frames[places[places >= 0]], rows[rows >= 0])


def read(parts, size, runs):
  """What each run reads, batch after batch; and that each part has the size it should have."""
  told = []
  for part in parts:
    shared, own, rows = part.window
    assert rows.shape == (runs, size.rows, size.batch) and own.shape == (runs, size.frames)
    assert {len(leaf) for leaf in jax.tree.leaves(shared)} == {size.frames}
    assert rows.max() < size.frames and (rows[:, part.rows:] == PADDING).all()
    told += [[_one(shared, mine, places) for mine, places in zip(own, batch, strict=True)]
             for batch in np.moveaxis(rows[:, :part.rows], 1, 0)]
  return told


def _one(shared, own, places):
  leaves = jax.tree.leaves(forcefield.take((shared, own), places[places >= 0]))
  return [leaf.tobytes() for leaf in leaves], (places < 0).tolist()


def validation(feed):
  """Two rounds of it: the second begins where the first ended."""
  parts = feed.validation()
  ends = 0
  while ends < 2:
    part = next(parts)
    ends += not part.left
    yield part
  parts.close()


@settings(max_examples=50, deadline=None)
@given(
    budget=st.floats(0, 3e6), chunk=st.integers(1, 7), batch=st.integers(1, 6),
    valid=st.integers(1, 120), seeds=st.integers(1, 3), first=st.integers(0, 6),
    per_seed=st.booleans(), size=st.integers(1, 6))
def test_windows_hold_what_the_batches_need_and_no_more_than_fits(
    budget, chunk, batch, valid, seeds, first, per_seed, size):
  config = tiny.config(arms=ARMS[:2], steps=7, chunk=chunk, batch_size=batch, split__valid=valid,
                       seeds=seeds, split__per_seed=per_seed)
  plan = build.build(config, SOURCES)
  group, = plans.make_groups(plan)
  launch = next(plans.launches(group.runs, size))

  def feed(budget):
    layout = streaming.choose_layout(
        plan, batch, launch.padded, seeds=min(seeds, size), per_device=size, budget=budget)
    shared = streaming.resident_data(plan, layout, tiny.HOST)
    return layout, streaming.make_feed(plan, launch, layout, tiny.HOST, shared)

  (all_frames, whole), (layout, parts) = feed(math.inf), feed(budget)
  assert not all_frames.streamed
  assert layout.bytes <= budget or min(layout.train.rows, layout.scored.rows) == 2
  taken = list(parts.training(first))
  steps = [part.first + i for part in taken for i in range(part.rows)]
  assert steps == list(range(first, 7))
  assert all(part.first // chunk == (part.first + part.rows - 1) // chunk for part in taken)
  assert read(taken, layout.train, size) == read(whole.training(first), all_frames.train, size)
  for kind in (validation, lambda feed: feed.scored()):
    assert read(kind(parts), layout.scored, size) == read(kind(whole), all_frames.scored, size)


OPTIONS = {"arms": ARMS, "steps": 7, "chunk": 5, "split__valid": 230, "max_memory": 0.2,
           "optimizer__ema_decay": 0.9}


def swept(config):
  placements = []
  finished = jobs.run(
      jobs.prepare(config), lambda progress: placements.append(progress.placement))
  return finished, placements[-1]


@pytest.mark.parametrize("make, shares, listed_from", [
    pytest.param(tiny.config, (0.0,), 99, id="schnet", marks=pytest.mark.nightly),
    pytest.param(tiny.config, (0.0,), 9, id="lists", marks=pytest.mark.nightly),
    pytest.param(tiny.mlp, (0.0, 0.0004), 99, id="mlp")])
def test_streamed_equals_on_the_device_bit_for_bit(make, shares, listed_from, monkeypatch):
  """Also with a chunk and a validation that the windows do not divide."""
  monkeypatch.setattr(streaming, "DATA_SHARE", math.inf)
  monkeypatch.setattr(forcefield, "LISTED_FROM", listed_from)
  expected, placement = swept(make(**OPTIONS))
  assert not placement.streamed
  for share in shares:
    monkeypatch.setattr(streaming, "DATA_SHARE", share)
    found, placement = swept(make(**OPTIONS))
    assert placement.streamed and placement.launches == 1
    assert (found.result.rows, found.result.history) == (
        expected.result.rows, expected.result.history)
    for name, values in expected.outcome.predictions.items():
      np.testing.assert_array_equal(found.outcome.predictions[name], values)
    assert list(found.outcome.ended) == list(expected.outcome.ended)
    for mine, theirs in zip(
        found.outcome.ended.values(), expected.outcome.ended.values(), strict=True):
      jax.tree.map(np.testing.assert_array_equal, (mine.best, mine.last),
                   (theirs.best, theirs.last))


def test_each_item_is_made_while_the_one_before_is_used():
  """And the one after it is not: no more than two are there at a time."""
  made, threads, begun = [], set(), [threading.Event() for _ in range(6)]

  def items():
    for i in range(5):
      made.append(i)
      threads.add(threading.current_thread().name)
      begun[i].set()
      yield i
    begun[5].set()

  for item in streaming.prefetch(items()):
    assert begun[item + 1].wait(60)  # in the thread, while `item` is in use
    assert len(made) == min(5, item + 2)
  assert made == list(range(5))
  assert all(name.startswith("windows") for name in threads)


def test_a_closed_iterator_leaves_no_thread():
  before = threading.active_count()
  items = streaming.prefetch(itertools.count())
  assert next(items) == 0
  items.close()
  assert threading.active_count() == before


def test_an_error_of_the_thread_reaches_the_caller(monkeypatch):
  calls, gather_window = itertools.count(), streaming.gather_window

  def failing(*arguments):
    if next(calls) == 3:
      raise OSError("the host's data cannot be read")
    return gather_window(*arguments)

  monkeypatch.setattr(streaming, "gather_window", failing)
  monkeypatch.setattr(streaming, "DATA_SHARE", 0.0)
  before = threading.active_count()
  with pytest.raises(OSError, match="the host's data cannot be read"):
    jobs.sweep(tiny.mlp(seeds=1))
  assert threading.active_count() == before


def test_arms_share_the_frames_of_a_seed():
  """Three arms take no more frames than one."""
  config = tiny.config(arms=ARMS, seeds=1)
  plan = build.build(config, build.load(config))
  group, = plans.make_groups(plan)
  launch = next(plans.launches(group.runs, 3))
  rows = batches.chunk_batches(launch.padded, plan, 4, 0)
  made = streaming.gather_window(plan, launch, rows, streaming.Size(3, 4, 12))
  assert rows.shape == (3, 3, 4) and np.ptp(made.rows, axis=0).max() == 0
