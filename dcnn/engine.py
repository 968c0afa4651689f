"""Compiles a run's functions for many runs: mapped over the runs, spread over the devices.

On an accelerator the runs of a device are vmapped. On a CPU they follow one another inside the
compiled program, because one run's state fits a core's cache and that of many does not
(BUILD_NOTES.md has the figures). In training no device talks to another.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from dcnn import processes, training
from dcnn.training import Program, RunState

AXIS = "runs"
DEFAULT_MEMORY_SHARE = 0.8


class Runs(NamedTuple):
  """The arguments of the runs of a launch, stacked along a leading `runs` axis.

  Attributes:
    hypers: the numbers of each run's arm.
    data: what only this run sees, for `program.take`.
    key: of the seed; initialisation and training fold in different numbers.
    valid: validation configurations, rows filled up with -1.
    scored: all configurations to evaluate after training, likewise.
  """

  hypers: dict[str, Float[Array | np.ndarray, " runs"]]
  data: Any
  key: Array
  valid: Int[np.ndarray, "runs valid_batches batch"]
  scored: Int[np.ndarray, "runs scored_batches batch"]


class Engine(NamedTuple):
  """The compiled functions of a group, for one number of runs.

  Attributes:
    place: puts stacked arguments on the devices, each run on one.
    share: puts what all runs see on every device.
    init: (runs) -> states.
    train: (states, runs, shared, batches, first, steps) -> states; the states are donated. The
      batches have been placed.
    validate: (states, runs, shared, steps) -> (states, validations); the states are donated.
    evaluate: (variables, runs, shared) -> sums of each batch of `scored`.
    compile_seconds: that all this took.
    bytes_needed: that training takes on a device.
  """

  place: Callable[[Any], Any]
  share: Callable[[Any], Any]
  init: Callable[[Runs], RunState]
  train: Callable[[RunState, Runs, Any, Any, int, int], RunState]
  validate: Callable[[RunState, Runs, Any, int], tuple[RunState, training.Validation]]
  evaluate: Callable[[Any, Runs, Any], dict[str, Array]]
  compile_seconds: float
  bytes_needed: int


def local_mesh(runs: int) -> Mesh:
  """The devices on one axis, `runs`; no more than there are runs, but some of each process."""
  return Mesh(np.array(processes.devices(runs)), (AXIS,))


def over_runs(function: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
  """From a function of one run to a function of many.

  Args:
    function: of one run's arguments, a pytree, and of what all runs share.
    mesh: with the axis `runs`.

  Returns:
    The same function with a leading `runs` axis on its first argument and its result. The number
    of runs must be a multiple of the number of devices.
  """
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  each = _one_after_another if on_cpu else jax.vmap

  def local(stacked, shared):
    return each(lambda one: function(one, shared))(stacked)

  return jax.shard_map(
      local, mesh=mesh, in_specs=(PartitionSpec(AXIS), PartitionSpec()),
      out_specs=PartitionSpec(AXIS), check_vma=False)


def build(program: Program, runs: Runs, shared: Any, batches: Any, mesh: Mesh) -> Engine:
  """Compiles initialisation, training and evaluation for runs of these shapes.

  Args:
    program: of the group.
    runs: stacked arguments; their number is a multiple of the number of devices.
    shared: the data that all runs see, for `program.take`.
    batches: the configurations of a chunk, (runs steps batch).
    mesh: the devices.

  Returns:
    The engine.
  """
  started = time.monotonic()
  split, common = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXIS,), ()))
  place, share = (functools.partial(processes.placed, sharding=where) for where in (split, common))
  runs, batches, shared = place(runs), place(batches), share(shared)

  def init_one(one: Runs, _):
    return training.init(program, jax.random.fold_in(one.key, 0), one.hypers)

  def train_one(arguments, shared_and_steps):
    state, one, rows = arguments
    everyone, first, steps = shared_and_steps
    return training.train(
        program, state, one.hypers, (everyone, one.data), rows, first=first, steps=steps,
        key=jax.random.fold_in(one.key, 1))

  def validate_one(arguments, shared_and_steps):
    state, one = arguments
    everyone, steps = shared_and_steps
    return training.validate(
        program, state, one.hypers, (everyone, one.data), steps=steps, valid=one.valid)

  def evaluate_one(arguments, everyone):
    variables, one = arguments
    return training.evaluate(program, variables, one.hypers, (everyone, one.data), one.scored)

  init = jax.jit(over_runs(init_one, mesh)).lower(runs, None).compile()
  states = jax.eval_shape(over_runs(init_one, mesh), runs, None)
  states = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split), states)
  count = share(np.int32(0))
  train = jax.jit(
      lambda states, runs, batches, shared, first, steps: over_runs(train_one, mesh)(
          (states, runs, batches), (shared, first, steps)),
      donate_argnums=0).lower(states, runs, batches, shared, count, count).compile()
  validate = jax.jit(
      lambda states, runs, shared, steps: over_runs(validate_one, mesh)(
          (states, runs), (shared, steps)),
      donate_argnums=0).lower(states, runs, shared, count).compile()
  evaluate = jax.jit(over_runs(evaluate_one, mesh)).lower(
      (states.best.variables, runs), shared).compile()
  return Engine(
      place=place,
      share=share,
      init=lambda runs: init(runs, None),
      train=lambda states, runs, shared, batches, first, steps: train(
          states, runs, batches, shared, share(np.int32(first)), share(np.int32(steps))),
      validate=lambda states, runs, shared, steps: validate(
          states, runs, shared, share(np.int32(steps))),
      evaluate=lambda variables, runs, shared: evaluate((variables, runs), shared),
      compile_seconds=time.monotonic() - started,
      bytes_needed=int(processes.from_all(
          max(map(_bytes_needed, (train, validate, evaluate)))).max()),
  )


def _bytes_needed(compiled: Any) -> int:
  memory = compiled.memory_analysis()
  return (memory.argument_size_in_bytes + memory.temp_size_in_bytes
          + memory.output_size_in_bytes - memory.alias_size_in_bytes)


def device_memory(device: Any) -> float:
  """Bytes that a device may be asked for; the devices of a CPU share the machine's.

  Args:
    device: of this process; of several processes the one with the least decides.
  """
  statistics = device.memory_stats() or {}
  if "bytes_limit" in statistics:
    available = float(statistics["bytes_limit"])
  else:
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (
        jax.local_device_count() * processes.on_this_machine())
  return float(processes.from_all(available).min()) * DEFAULT_MEMORY_SHARE


def _one_after_another(function: Callable) -> Callable:
  """As `jax.vmap`, but a loop inside the compiled program."""
  return lambda stacked: jax.lax.map(function, stacked)
