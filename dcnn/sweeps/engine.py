"""Compiles a run's functions for many runs: mapped over the runs, spread over the devices.

On an accelerator the runs of a device are vmapped. On a CPU they follow one another inside the
compiled program, because one run's state fits a core's cache and that of many does not
(BUILD_NOTES.md has the figures). Runs never talk to each other; where one run has several devices,
each takes a shard of its batch, and the gradients are summed as one vector.
"""

import concurrent.futures
import functools
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from dcnn.base import processes
from dcnn.sweeps import training
from dcnn.sweeps.plans import Training
from dcnn.sweeps.training import Program, RunState

RUNS, BATCH = "runs", "batch"  # the axes of the mesh
DEFAULT_MEMORY_SHARE = 0.8
MANY_RUNS = 64  # on a device: their products are as fast without what Triton takes long to try
# What runs only once is compiled in half the time without optimisation.
ONLY_ONCE: dict[str, Any] = {"xla_backend_optimization_level": 0}


class Window(NamedTuple):
  """The data that the runs of a launch read for some batches: all there are, or a part.

  Attributes:
    shared: What all runs see alike; its leaves have a leading `frames` axis.
    own: What only one run sees; its leaves have leading axes `runs frames`.
    rows: The batches of each run, as positions in these data; -1 is padding.
  """

  shared: Any
  own: Any
  rows: Int[Any, "runs rows batch"]


class Windows(NamedTuple):
  """The windows that an engine is made for; their shapes are enough.

  Attributes:
    train: A window of training steps.
    scored: A window of evaluation.
    valid_rows: The number of batches of a whole validation.
    bytes: The memory that all live windows take on one device.
  """

  train: Window
  scored: Window
  valid_rows: int
  bytes: int


class Engine(NamedTuple):
  """The compiled functions of a group, for one number of runs.

  Attributes:
    shard: Puts stacked arguments on the devices: each run on one, or on those that share it.
    replicate: Puts what all runs see on every device.
    init: `(runs) -> states`.
    train: `(states, runs, window, first, steps) -> states`; the states are donated.
    evaluate: `(variables, runs, window, rows) -> sums` of each of the first rows, 0 for the
      others.
    validate: `(states, runs, sums, steps) -> (states, validations)`; the states are donated.
    programs: The compiled programs by name.
    compile_seconds: The seconds spent compiling.
    bytes_needed: The memory that one device needs to hold the runs and their data, and to train.
  """

  shard: Callable[[Any], Any]
  replicate: Callable[[Any], Any]
  init: Callable[[Training], RunState]
  train: Callable[[RunState, Training, Window, int, int], RunState]
  evaluate: Callable[[Any, Training, Window, int], dict[str, Array]]
  validate: Callable[[RunState, Training, Any, int], tuple[RunState, training.Validation]]
  programs: Mapping[str, jax.stages.Compiled]
  compile_seconds: float
  bytes_needed: int


def mesh_for(runs: int, devices_per_run: int = 1) -> Mesh:
  """The devices of all processes: axis `runs` spreads the runs, axis `batch` the batch of each.

  Args:
    runs: The number of runs to spread. The axis `runs` is no longer than this, but has devices of
      each process.
    devices_per_run: The length of the axis `batch`; divides the number of devices of a process.

  Returns:
    The mesh.
  """
  devices = processes.devices(runs, devices_per_run)
  return Mesh(np.array(devices).reshape(-1, devices_per_run), (RUNS, BATCH))


def one_after_another(mesh: Mesh) -> bool:
  """Whether the runs of a device follow one another, so that one alone needs working memory."""
  return mesh.devices.flat[0].platform == "cpu"


def over_runs(function: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
  """From a function of one run to a function of many.

  Args:
    function: A function of one run's arguments, a pytree, and of what all runs share.
    mesh: The devices. Along another axis than `runs` the function may ask for its index.

  Returns:
    The same function with a leading `runs` axis on its first argument and its result. The number
    of runs must be a multiple of the length of the axis.
  """
  each = _one_after_another if one_after_another(mesh) else jax.vmap

  def local(stacked, shared):
    return each(lambda one: function(one, shared))(stacked)

  return jax.shard_map(
      local, mesh=mesh, in_specs=(PartitionSpec(RUNS), PartitionSpec()),
      out_specs=PartitionSpec(RUNS), check_vma=False)


def build(program: Program, runs: Training, windows: Windows, mesh: Mesh) -> Engine:
  """Compiles initialisation, training and evaluation for runs of these shapes.

  Args:
    program: The program of the group.
    runs: Stacked arguments; their number is a multiple of the length of the axis `runs`.
    windows: The shapes of what the runs will read.
    mesh: The devices.

  Returns:
    The compiled functions.
  """
  started = time.monotonic()
  program = program._replace(psum=_psum(mesh))
  split, common = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((RUNS,), ()))
  shard, replicate = (
      functools.partial(processes.place, sharding=where) for where in (split, common))
  runs, count = shard(runs), replicate(np.int32(0))
  train_window, scored_window = (
      Window(_shapes(shared, common), *_shapes((own, rows), split))
      for shared, own, rows in (windows.train, windows.scored))

  functions = _functions_of_runs(program, mesh)

  # What one program returns another is compiled to take, so that all place it alike.
  jit = functools.partial(jax.jit, out_shardings=split)
  traced_init = jit(functions.init).trace(runs)
  states = _shapes(traced_init.out_info, split)
  best = states.best.variables
  traced_evaluate = jit(functions.evaluate).trace(best, runs, scored_window, count)
  sums = {
      name: jax.ShapeDtypeStruct((leaf.shape[0], windows.valid_rows), leaf.dtype, sharding=split)
      for name, leaf in traced_evaluate.out_info.items()}
  programs = _compile_all({
      "init": lambda: traced_init,
      "evaluate": lambda: traced_evaluate,
      "train": lambda: jit(functions.train, donate_argnums=0).trace(
          states, runs, train_window, count, count),
      "validate": lambda: jit(functions.validate, donate_argnums=0).trace(
          states, runs, sums, count),
  }, _compiler_options(mesh, len(runs.key)))
  carried: Any = programs["init"].memory_analysis()
  return Engine(
      shard=shard,
      replicate=replicate,
      init=programs["init"],
      train=lambda states, runs, window, first, steps: programs["train"](
          states, runs, window, replicate(np.int32(first)), replicate(np.int32(steps))),
      evaluate=lambda variables, runs, window, rows: programs["evaluate"](
          variables, runs, window, replicate(np.int32(rows))),
      validate=lambda states, runs, sums, steps: programs["validate"](
          states, runs, shard(sums), replicate(np.int32(steps))),
      programs=programs,
      compile_seconds=time.monotonic() - started,
      bytes_needed=int(processes.all_gather(
          windows.bytes + carried.argument_size_in_bytes + carried.output_size_in_bytes + max(
              _working_bytes(programs[name]) for name in ("train", "evaluate", "validate"))).max()),
  )


class _Functions(NamedTuple):
  """What is compiled, of all runs of a launch; the arguments are those of `Engine`."""

  init: Callable[[Training], RunState]
  train: Callable[..., RunState]
  evaluate: Callable[..., dict[str, Array]]
  validate: Callable[..., tuple[RunState, training.Validation]]


def _functions_of_runs(program: Program, mesh: Mesh) -> _Functions:
  """The functions of one run, mapped over the runs of a launch and sharded over the devices."""
  def init_one(one: Training, _):
    return _init(program, one)

  def train_one(arguments, everyone):
    state, one, own, rows = arguments
    shared, first, steps = everyone
    return training.train(
        program, state, one.hypers, (shared, own), _shard_of(rows, mesh), first=first, steps=steps,
        key=jax.random.fold_in(one.key, 1))

  def evaluate_one(arguments, everyone):
    variables, one, own, rows = arguments
    shared, count = everyone
    return training.evaluate(
        program, variables, one.hypers, (shared, own), _shard_of(rows, mesh), count=count)

  def validate_one(arguments, steps):
    state, one, sums = arguments
    return training.validate(program, state, one.hypers, sums, steps=steps)

  init, train, evaluate, validate = (
      over_runs(function, mesh) for function in (init_one, train_one, evaluate_one, validate_one))

  def init_all(runs):
    return init(runs, None)

  def train_all(states, runs, window, first, steps):
    return train((states, runs, window.own, window.rows), (window.shared, first, steps))

  def evaluate_all(variables, runs, window, rows):
    return evaluate((variables, runs, window.own, window.rows), (window.shared, rows))

  def validate_all(states, runs, sums, steps):
    return validate((states, runs, sums), steps)

  return _Functions(init_all, train_all, evaluate_all, validate_all)


def _compiler_options(mesh: Mesh, runs: int) -> dict[str, Any]:
  """For XLA and this number of runs; the figures are in BUILD_NOTES.md."""
  platform = mesh.devices.flat[0].platform
  if platform == "gpu" and runs >= MANY_RUNS * mesh.shape[RUNS]:
    return {"xla_gpu_enable_triton_gemm": False}
  if platform != "cpu":
    return {}
  options: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}
  busy = len(mesh.local_devices) * processes.on_this_machine()
  if busy >= processes.usable_cores():
    # Loops are not to be split over cores that work for other devices.
    options["xla_disable_hlo_passes"] = "cpu-parallel-task-assigner"
  return options


def _compile_all(
    traces: Mapping[str, Callable[[], jax.stages.Traced]], options: Mapping[str, Any],
) -> dict[str, jax.stages.Compiled]:
  """Compiles programs side by side: XLA works in a thread while the next one is traced."""
  with concurrent.futures.ThreadPoolExecutor() as threads:
    pending = {
        name: threads.submit(
            _compile, trace().lower(), ONLY_ONCE if name == "init" else options)
        for name, trace in traces.items()}
    return {name: each.result() for name, each in pending.items()}


def _compile(lowered: jax.stages.Lowered, options: Mapping[str, Any]) -> jax.stages.Compiled:
  """Compiles a program, without the options that this XLA does not have: they save time alone."""
  try:
    return lowered.compile(dict(options))
  except jax.errors.JaxRuntimeError as error:
    unknown = re.search(r"No such compile option: '(\w+)'", str(error))
    if not unknown or unknown[1] not in options:
      raise
    warnings.warn(f"XLA of jax {jax.__version__} no longer knows {unknown[1]}, which made dcnn "
                  "faster: results are the same to rounding", stacklevel=2)
    return _compile(lowered, {
        name: value for name, value in options.items() if name != unknown[1]})


def state_bytes(program: Program, runs: Training) -> int:
  """The memory of what one run carries from step to step, found without compiling anything."""
  one = jax.tree.map(lambda leaf: leaf[0], runs)
  return sum(
      leaf.size * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(jax.eval_shape(functools.partial(_init, program), one)))


def _init(program: Program, one: Training) -> RunState:
  return training.init(program, jax.random.fold_in(one.key, 0), one.hypers)


def _shard_of(batches: Int[Array, "rows batch"], mesh: Mesh) -> Int[Array, "rows shard"]:
  """The shard of each batch that is for this device."""
  devices = mesh.shape[BATCH]
  if devices == 1:
    return batches
  return batches.reshape(len(batches), devices, -1)[:, jax.lax.axis_index(BATCH)]


def _psum(mesh: Mesh) -> training.Psum:
  """The sum over the devices of a run."""
  if mesh.shape[BATCH] == 1:
    return training.identity

  def psum(tree):
    # As one vector: on a CPU each array of a tree would wait for the other devices anew.
    vector, unravel = ravel_pytree(tree)
    return unravel(jax.lax.psum(vector, BATCH))

  return psum


def _shapes(tree: Any, where: NamedSharding) -> Any:
  return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree)


def _working_bytes(compiled: jax.stages.Compiled) -> int:
  """What a program needs beside its arguments."""
  memory: Any = compiled.memory_analysis()
  return (memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes)


def device_memory(device: Any) -> float:
  """Bytes that may be used on a device; the devices of a CPU share the machine's memory.

  Args:
    device: A device of this process. Of several processes the one with the least decides.

  Returns:
    80 % of what the device has.
  """
  statistics = device.memory_stats() or {}
  if "bytes_limit" in statistics:
    available = float(statistics["bytes_limit"])
  else:
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (
        jax.local_device_count() * processes.on_this_machine())
  return float(processes.all_gather(available).min()) * DEFAULT_MEMORY_SHARE


def _one_after_another(function: Callable) -> Callable:
  """As `jax.vmap`, but a loop inside the compiled program."""
  return lambda stacked: jax.lax.map(function, stacked)
