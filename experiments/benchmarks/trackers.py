"""What does it cost to log a sweep to TensorBoard while it trains?

Claim tested: less than 2 % of its CPU time. The same sweep, 3 arms x 5 seeds of a tiny SchNet that
is validated every 20 of its 4,000 steps, is trained without and with the tracker in alternation, in
this process. CPU time is compared, because the tracker has a thread of its own: that of the thread
alone, as a share of the sweep's, and the ratio of the two sweeps, which other work on the machine
disturbs more. Compilation is part of it.

  python -m experiments.benchmarks.trackers [--rounds=5]
"""

import argparse
import logging
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence

import jax

from dcnn import configs, jobs
from dcnn.base import processes
from dcnn.jobs import tracking


def overhead_config() -> configs.ConfigDict:
  """A sweep that trains little for each line of its history."""
  config = configs.default()
  config.experiment = "overhead"
  config.arms = tuple({"activation.c": c} for c in (0.25, 0.5, 1.0))
  config.model.features, config.model.blocks, config.model.radial = 8, 1, 8
  config.split.train, config.split.valid, config.split.test = 200, 20, 200
  config.steps, config.chunk, config.batch_size, config.seeds = 4000, 20, 5, 5
  return config


def cpu_seconds(experiment: jobs.Experiment, names: Sequence[str]) -> float:
  """The CPU time of a sweep in an empty work directory, until its trackers have ended."""
  manifest = jobs.describe(experiment)
  with tempfile.TemporaryDirectory() as name:
    started = time.process_time()
    with tracking.tracked(names, pathlib.Path(name), manifest) as on_results:
      jobs.run(experiment, manifest=manifest, directory=pathlib.Path(name), on_results=on_results)
    return time.process_time() - started


def main() -> None:
  """Prints the share and the ratio, medians over the rounds."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--rounds", type=int, default=5, help="pairs of sweeps")
  rounds = parser.parse_args().rounds
  logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax tells of every save
  jax.config.update("jax_num_cpu_devices", processes.usable_cores())
  experiment, spent = jobs.prepare(overhead_config()), []
  tell = tracking._Thread.run

  def timed(thread: tracking._Thread) -> None:
    started = time.thread_time()
    tell(thread)
    spent.append(time.thread_time() - started)

  tracking._Thread.run = timed
  cpu_seconds(experiment, ("tensorboard",))  # imports
  spent.clear()
  pairs = [(cpu_seconds(experiment, ()), cpu_seconds(experiment, ("tensorboard",)))
           for _ in range(rounds)]
  share = statistics.median(
      thread / logged for thread, (_, logged) in zip(spent, pairs, strict=True))
  ratio = statistics.median(logged / plain for plain, logged in pairs)
  print(f"CPU time of a sweep {statistics.median(plain for plain, _ in pairs):.2f} s, of the "
        f"tracker's thread {1000 * statistics.median(spent):.0f} ms: {100 * share:.2f} %; "
        f"with the tracker {ratio:.3f} times")


if __name__ == "__main__":
  main()
