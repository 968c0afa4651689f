"""How many runs train together: as many as fit the memory, in launches of equal size.

What the runs carry and their data take is known from shapes; only the compiled program tells what
working memory they need. A device whose runs follow one another needs the working memory of one
run. A device that trains all runs at once needs it for each of them.
"""

import bisect
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from dcnn.sweeps import engine, plans, streaming
from dcnn.sweeps.plans import Plan, Run
from dcnn.sweeps.training import Program


class Placement(NamedTuple):
  """How the runs of a group are put on the devices, for a display.

  Attributes:
    runs: The number of runs that are trained together.
    launches: The number of launches, one after another.
    devices: The number of devices that they use.
    devices_there: The number of devices that JAX has.
    devices_per_run: The number of devices that share the batch of a run.
    bytes_per_run: The memory of a run on a device, without the data.
    bytes_of_data: The most memory that the data take on a device.
    bytes_needed: The memory needed on a device in all.
    bytes_allowed: The memory that may be used on a device.
    streamed: Whether the data come from the host during training.
  """

  runs: int
  launches: int
  devices: int
  devices_there: int
  devices_per_run: int
  bytes_per_run: float
  bytes_of_data: int
  bytes_needed: int
  bytes_allowed: float
  streamed: bool


class Compiled(NamedTuple):
  """A group that is ready to be launched.

  Attributes:
    engine: The engine, for launches of `size` runs.
    layout: The windows of data that it is compiled for.
    size: The number of runs in a launch, padding included.
    placement: How the runs are put on the devices.
  """

  engine: engine.Engine
  layout: streaming.Layout
  size: int
  placement: Placement


def compile_group(
    plan: Plan, program: Program, runs: Sequence[Run], *, begun: int | None = None
) -> Compiled:
  """Compiles for all runs at once, or for as many as fit in memory.

  Args:
    plan: The plan of the sweep.
    program: The program of the group.
    runs: The runs to train.
    begun: The size of a launch that was begun before. It is kept, so that the rest is cut as it
      would have been.

  Returns:
    The engine, what it reads, and how the runs are placed.

  Raises:
    ValueError: if not even one run fits, with the numbers.
  """
  count = begun or len(runs)
  mesh = engine.mesh_for(count, plan.devices_per_run)
  spread = mesh.shape[engine.RUNS]
  budget = float(plan.max_memory or engine.device_memory(mesh.local_devices[0]))
  carried = engine.state_bytes(program, plans.stack(runs[:1]))
  once = each = 0.0  # working memory, as far as it is known: for a device and for each run on it

  def sizes(per_device: int) -> streaming.Layout:
    seeds = min(len({run.seed for run in runs}), per_device * spread)
    return streaming.choose_layout(
        plan, program.batch_size, runs, seeds=seeds, per_device=per_device, budget=budget)

  def expected(per_device: int) -> float:
    return sizes(per_device).bytes + once + per_device * (carried + each)

  per_device = math.ceil(count / spread)
  while True:
    layout, needed = sizes(per_device), expected(per_device)
    if needed <= budget:
      built = _build(plan, program, runs, per_device * spread, layout, mesh)
      needed = built.bytes_needed
      if needed <= budget:
        size = per_device * spread
        return Compiled(built, layout, size, _placement(runs, size, layout, built, mesh, budget))
      working = max(0.0, needed - layout.bytes - per_device * carried)
      one_alone = engine.one_after_another(mesh)
      once, each = (working, 0.0) if one_alone else (0.0, working / per_device)
    if per_device == 1 or begun:
      raise ValueError(_refusal(begun, float(needed), layout, budget))
    per_device = max(1, bisect.bisect_right(range(1, per_device), budget, key=expected))
    launches = math.ceil(count / (per_device * spread))
    per_device = math.ceil(count / (launches * spread))  # no launch is left almost empty


def _build(
    plan: Plan, program: Program, runs: Sequence[Run], size: int, layout: streaming.Layout,
    mesh: Mesh,
) -> engine.Engine:
  launch = next(plans.launches(runs, size))
  return engine.build(
      program, plans.stack(launch.padded), streaming.window_shapes(plan, layout, launch.padded),
      mesh)


def _placement(
    runs: Sequence[Run], size: int, layout: streaming.Layout, built: engine.Engine, mesh: Mesh,
    budget: float,
) -> Placement:
  return Placement(
      runs=min(size, len(runs)),
      launches=math.ceil(len(runs) / size),
      devices=mesh.size,
      devices_there=jax.device_count(),
      devices_per_run=mesh.shape[engine.BATCH],
      bytes_per_run=(built.bytes_needed - layout.bytes) * mesh.shape[engine.RUNS] / size,
      bytes_of_data=layout.bytes,
      bytes_needed=built.bytes_needed,
      bytes_allowed=budget,
      streamed=layout.streamed)


def _refusal(begun: int | None, needed: float, layout: streaming.Layout, budget: float) -> str:
  what = f"the launch of {begun} runs that was begun" if begun else "one run"
  data = f"{layout.bytes / 1e6:.3f} MB of it for " + (
      "the smallest part of the data that can be streamed" if layout.streamed else "the data")
  return (f"{what} needs {needed / 1e6:.3f} MB on a device, {data}, and {budget / 1e6:.3f} MB are "
          "allowed: take a smaller batch or network, or raise max_memory")
