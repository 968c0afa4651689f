"""Several processes as one: what all must know, and what only the first may decide.

All processes run the same Python and launch the same compiled programs in the same order, each on
its own devices. What depends on a clock, a signal or a disk differs between them, so it is
exchanged here before it decides anything. With one process every function is an identity.
"""

import contextlib
import functools
import os
import platform
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Value = TypeVar("Value")
_BLOCK = 1 << 26  # bytes told at a time: they lie on every device meanwhile


class Lost(Exception):
  """An exchange with another process failed: it is gone, or cannot be reached any more."""


class FailedElsewhere(Exception):
  """Another process failed and has said why; `status` is the exit status of all."""

  def __init__(self, status: int) -> None:
    """The text says no more than which status."""
    super().__init__(f"another process failed with exit status {status}")
    self.status = status


def count() -> int:
  """How many there are; starts no device unless there are several."""
  return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
  """Whether this process is the one that writes files and speaks to the user."""
  return count() == 1 or jax.process_index() == 0


def shutdown() -> None:
  """Shuts the distributed runtime down, when all processes do; after it none waits for another."""
  if count() > 1:
    with _translate_loss():
      jax.distributed.shutdown()


def devices(groups: int, size: int = 1) -> list[Any]:
  """Devices for about `groups` groups of `size`, or all there are; equally many of each process.

  A program must have devices of every process that launches it, so there may be more than asked
  for. The devices of a process stand side by side.
  """
  each = -(-groups // count()) * size
  by_process: dict[int, list[Any]] = {}
  for device in jax.devices():
    by_process.setdefault(device.process_index, []).append(device)
  return [
      device for mine in by_process.values()
      for device in mine[:min(each, len(mine) // size * size)]]


def place(tree: Any, sharding: NamedSharding) -> Any:
  """Puts arrays that all processes hold onto the devices; each process fills its own.

  Args:
    tree: A pytree of NumPy or JAX arrays, the same in all processes.
    sharding: The sharding over devices of all processes.
  """
  if count() == 1:
    return jax.device_put(tree, sharding)
  # device_put would first compare the arrays of all processes, element by element.
  return jax.tree.map(
      lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda part: leaf[part]),
      tree)


def to_host(tree: Any) -> Any:
  """Gathers arrays that lie on devices of all processes to NumPy arrays in every process.

  Raises:
    Lost: if a process is gone.
  """
  if count() == 1:
    return jax.tree.map(np.asarray, tree)
  mesh = jax.tree.leaves(tree)[0].sharding.mesh
  _meet_on(mesh)
  everywhere = jax.jit(_same, out_shardings=NamedSharding(mesh, PartitionSpec()))
  with _translate_loss():
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), everywhere(tree))


def all_gather(numbers: Any) -> np.ndarray:
  """The numbers of each process along a leading axis, `processes`.

  Args:
    numbers: A NumPy array or a number, of one shape and type in all processes.

  Raises:
    Lost: if a process is gone.
  """
  mine = np.asarray(numbers)
  if count() == 1:
    return mine[None]
  with _translate_loss():  # as bytes, because JAX would round float64
    told = multihost_utils.process_allgather(np.frombuffer(mine.tobytes(), np.uint8))
  return np.frombuffer(told.tobytes(), mine.dtype).reshape(count(), *mine.shape)


def on_this_machine() -> int:
  """How many of the processes run on this machine.

  Raises:
    Lost: if a process is gone.
  """
  machines = all_gather(zlib.crc32(platform.node().encode()))
  return int((machines == machines[jax.process_index() if count() > 1 else 0]).sum())


def usable_cores() -> int:
  """Cores that this process may use; other processes may have them, too."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def broadcast(
    make: Callable[[], Value], pack: Callable[[Value], bytes], unpack: Callable[[bytes], Value]
) -> Value:
  """What the first process makes, in all processes.

  Args:
    make: Makes it; called in the first process only.
    pack: Turns it into bytes; not called where there is only one process.
    unpack: Undoes `pack`.

  Raises:
    Lost: if a process is gone.
  """
  if count() == 1:
    return make()
  made = make() if is_first() else None
  data = np.frombuffer(pack(made), np.uint8) if made is not None else np.zeros(0, np.uint8)
  size = int(all_gather(np.int64(len(data)))[0])
  told = np.resize(data, size) if size else data
  blocks = np.split(told, range(_BLOCK, size, _BLOCK))
  with _translate_loss():
    whole = b"".join(
        multihost_utils.broadcast_one_to_all(block).tobytes() for block in blocks)
  return made if made is not None else unpack(whole)


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
  """What is done in the context succeeds in all processes, or fails in all.

  After a failure the distributed runtime is shut down. The first of the processes that failed
  raises its error, so that a mistake made everywhere is reported once.

  Raises:
    FailedElsewhere: in the other processes.
    Lost: if a process is gone.
  """
  if count() == 1:
    yield
    return
  error = None
  try:
    yield
  except Exception as raised:  # whatever it is, the others must hear of it first
    error = raised
  statuses = all_gather(getattr(error, "status", 1) if error else 0)
  if not statuses.any():
    return
  first = int(np.flatnonzero(statuses)[0])
  mine = jax.process_index()
  shutdown()
  if error is not None and mine == first:
    raise error
  raise FailedElsewhere(int(statuses[first]))


@contextlib.contextmanager
def _translate_loss() -> Iterator[None]:
  try:
    yield
  except (ValueError, RuntimeError) as error:  # jaxlib raises either, by where it notices
    raise Lost(str(error).strip().partition("\n")[0]) from error


@functools.lru_cache
def _meet_on(mesh: Mesh) -> None:
  """Devices that exchange something for the first time must all come within half a minute."""
  del mesh
  all_gather(0)


def _same(tree: Any) -> Any:
  """At the top of the module, so that it is compiled once for each shape."""
  return tree
