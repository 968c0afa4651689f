"""What does it cost to stream the data from the host while SchNet trains?

Claim tested: training on data that do not fit the device is at most 10 % slower than on data that
do. 400,000 frames of ethanol (embedded ones, moved by a little noise; 102 MB on a device), SchNet
with 64 features, batches of 32. The same runs train on the whole data and on windows of them, in
turns, so that what else the machine does meets both; each turn starts a new feed, whose first
window nobody has made ahead. The ratio of processor times counts the work of the thread, too, and
holds on a machine that is busy with other things.

  python -m experiments.benchmarks.streaming [--runs=1] [--rounds=15]
"""

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from dcnn import configs
from dcnn.base import systems
from dcnn.configs import build
from dcnn.configs.forcefield import Sources
from dcnn.sweeps import memory, plans, streaming

FRAMES, CHUNK, CHUNKS_A_TURN, BATCH = 400_000, 40, 2, 32
ALLOWED = 0.15  # GB, less than twice what the data take, and more than the runs do


def repeat_frames(dataset: systems.Dataset, frames: int) -> systems.Dataset:
  """A data set with its frames repeated and moved by 1e-3 angstrom, so that none are equal."""
  chosen = dataset.take(np.arange(frames) % len(dataset))
  noise = np.random.default_rng(0).normal(0.0, 1e-3, chosen.systems.positions.shape)
  return dataclasses.replace(
      chosen, systems=chosen.systems._replace(positions=chosen.systems.positions + noise))


def turn(plan: plans.Plan) -> tuple[memory.Placement, Callable[[], np.ndarray]]:
  """How the runs of a plan of one group are placed, and a function that trains them.

  The function returns seconds a step, of the clock and of the processor.
  """
  group, = plans.make_groups(plan)
  engine, layout, size, placement = memory.compile_group(plan, group.program, group.runs)
  launch = next(plans.launches(group.runs, size))
  arguments = engine.shard(plans.stack(launch.padded))
  feed = streaming.make_feed(
      plan, launch, layout, engine, streaming.resident_data(plan, layout, engine))
  steps = CHUNK * CHUNKS_A_TURN

  def now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])

  def train() -> np.ndarray:
    state = jax.block_until_ready(engine.init(arguments))
    started, done = now(), 0
    with contextlib.closing(feed.training(0)) as parts:
      while done < steps:
        part = next(parts)
        state = engine.train(state, arguments, part.window, 0, part.rows)
        jax.block_until_ready(state.step)
        done += part.rows
      return (now() - started) / steps

  return placement, train


def main() -> None:
  """Prints the seconds of a step of both, and their ratio."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--runs", type=int, default=1)
  parser.add_argument("--rounds", type=int, default=15)
  options = parser.parse_args()
  config = configs.default()
  config.labels, config.batch_size, config.seeds = "standardize", BATCH, options.runs
  config.chunk, config.steps = CHUNK, 100 * CHUNK
  config.split.train = FRAMES - 2 * BATCH
  config.split.valid = BATCH
  source = build.load(config).dataset
  plan = build.build(config, Sources(repeat_frames(source, FRAMES), 0))
  (resident, on_device), (windowed, from_host) = (
      turn(plan._replace(max_memory=allowed)) for allowed in (None, ALLOWED * 1e9))
  assert windowed.streamed and not resident.streamed and windowed.launches == 1
  on_device(), from_host()
  pairs = np.array([(on_device(), from_host()) for _ in range(options.rounds)])
  (whole, _), (parts, _) = np.median(pairs, axis=0)
  clock, processor = np.median(pairs[:, 1] / pairs[:, 0], axis=0)
  low, high = np.quantile(pairs[:, 1] / pairs[:, 0], (0.25, 0.75), axis=0)
  print(f"{jax.devices()[0].device_kind}, {resident.devices} devices, {options.runs} runs, batch "
        f"{BATCH}: {1e3 * whole:.2f} ms a step on the device ({resident.bytes_of_data / 1e6:.0f} "
        f"MB of data), {1e3 * parts:.2f} streamed ({windowed.bytes_of_data / 1e6:.1f} MB)")
  print(f"streamed / on the device, medians of {options.rounds} pairs with quartiles: time "
        f"{clock:.3f} [{low[0]:.3f}, {high[0]:.3f}], processor time {processor:.3f} "
        f"[{low[1]:.3f}, {high[1]:.3f}]")


if __name__ == "__main__":
  main()
