"""Joins this process to the others of a sweep, and ends it in one line when one of them is gone.

JAX's runtime notices a lost process by its heartbeats and broken connections, and then aborts all
others from C++, with a dump. It has a callback for that, which jaxlib 0.10.1 cannot call with a
function of Python. So what C++ prints is held back, and a thread of ours watches for the abort.
"""

import contextlib
import dataclasses
import faulthandler
import os
import re
import select
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any, NoReturn

import jax

from dcnn.base import processes
from dcnn.cli import streams
from dcnn.cli.arguments import FAILURE, MISTAKE, Meeting, Stop
from dcnn.jobs import interruption

MEETING_SECONDS = 120  # in which all processes must have started
HEARTBEAT_SECONDS = 30  # without a sign of life, after which a process counts as gone
SIGNAL_SECONDS = 2.0  # in which a signal that was sent to all reaches all
_POLL_SECONDS = 0.2
_ROOM = 64  # bytes of a report of an abort; any is longer
_CONTINUE = "What was saved can be continued: give the same command again"


@dataclasses.dataclass
class _Company:
  """The processes as far as they are known, and how the user is told of them."""

  meeting: Meeting
  say: Callable[[str], None]
  number: int | None = None  # once they have met


def join(meeting: Meeting, say: Callable[[str], None]) -> None:
  """Makes the devices of all processes known to each; before the first use of JAX.

  From then on this process ends, with a line and exit status 1, when another is gone.

  Args:
    meeting: where the processes meet.
    say: told why this process ends, in a line.

  Raises:
    Stop: if JAX does not find out where to meet, or the processes do not fit together. If they do
      not meet in time, the process ends.
  """
  company = _Company(meeting, say)
  _watch_for_abort(company, _held_output())
  jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is for `interruption`
  try:
    jax.distributed.initialize(
        *meeting, initialization_timeout=MEETING_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    company.number = jax.process_count()
  except (ValueError, RuntimeError) as error:
    raise Stop(_refusal(str(error))) from error
  _check_numbers(meeting)


def end_without(error: processes.Lost, say: Callable[[str], None]) -> NoReturn:
  """Ends the process after an exchange that failed, because another process is gone.

  JAX's runtime knows which one, but learns of it later; of two processes it is the other.

  Args:
    error: of the exchange.
    say: told why, in a line.
  """
  total = processes.count()
  others = set(range(total)) - {jax.process_index()}
  alone = len(others) == 1
  time.sleep(SIGNAL_SECONDS if alone else 2 * HEARTBEAT_SECONDS)
  _leave(say, _gone(others if alone else set(), total, str(error)), FAILURE)


def explanation(output: str, meeting: Meeting, number: int | None) -> tuple[str, int] | None:
  """Why JAX's runtime aborts a process, and the exit status; None if not for a lost process.

  Args:
    output: what the runtime has printed.
    meeting: where the processes meet.
    number: of processes, once they have met.
  """
  found = re.search(r"JAX distributed service detected fatal errors.*absl::Status: (.*)", output)
  if not found:
    return None
  status = found[1]
  if "CoordinationService/RegisterTask" in output[found.end():].partition("***")[0]:
    return _no_meeting(meeting, status), MISTAKE
  if "tried to connect" in output:
    return ("a process came with a process id that is taken: two have the same, or one was "
            f"started again alone. {_CONTINUE}, to all processes"), FAILURE
  if "Failed to send RPC to coordination service" in status:
    return _gone({0}, number, "the connection to it broke"), FAILURE
  tasks = re.search(r"unhealthy \(stopped sending heartbeats\):\n([\d, \n]*\d)", output)
  which = set(map(int, re.findall(r"\d+", tasks[1]))) if tasks else set()
  return _gone(which, number, "it stopped sending heartbeats" if which else status), FAILURE


def _held_output() -> IO[bytes]:
  """A file that gets what C++ prints from now on; Python goes on printing where it did."""
  held = tempfile.TemporaryFile()
  for number, name in ((1, "stdout"), (2, "stderr")):
    stream: Any = getattr(sys, name)
    stream.flush()
    setattr(sys, name, streams.forgiving(os.dup(number), stream))
    os.dup2(held.fileno(), number)
  return held


def _watch_for_abort(company: _Company, held: IO[bytes]) -> None:
  """Ends the process in our words when C++ aborts it.

  Python's report of the abort goes to a pipe that is almost full, so that the thread that aborts
  comes no further than to begin it, and a thread of ours has the time to say why.
  """
  import fcntl  # not on every system
  import termios

  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  block = b" " * select.PIPE_BUF
  with contextlib.suppress(BlockingIOError):
    while True:
      os.write(writer, block)
  os.read(reader, len(block))
  os.write(writer, block[_ROOM:])
  os.set_blocking(writer, True)

  def waiting() -> int:
    return struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, struct.pack("i", 0)))[0]

  filling = waiting()
  faulthandler.enable(writer)

  def watch() -> None:
    while waiting() == filling:
      time.sleep(_POLL_SECONDS)
    output = os.pread(held.fileno(), os.fstat(held.fileno()).st_size, 0).decode(errors="replace")
    explained = explanation(output, company.meeting, company.number)
    if explained:
      time.sleep(SIGNAL_SECONDS)  # where all are told to stop, that is the reason to give
      _leave(company.say, *explained)
    sys.stderr.write(output)
    os.read(reader, filling)
    while True:  # until the thread that aborts has ended the process
      sys.stderr.write(os.read(reader, len(block)).decode(errors="replace"))

  threading.Thread(target=watch, daemon=True).start()


_last_word = threading.Lock()  # two threads may notice the same loss


def _leave(say: Callable[[str], None], text: str, status: int) -> NoReturn:
  _last_word.acquire()
  say(f"error: {text}")
  interruption.leave(status)


def _no_meeting(meeting: Meeting, status: str) -> str:
  where = meeting.coordinator_address or "the address that JAX found"
  number = meeting.num_processes
  return (f"--distributed: {number or 'the'} processes did not meet at {where} within "
          f"{MEETING_SECONDS} s (JAX: {status.rstrip('. ')}). Process 0 must run on that host, the "
          "port be free there and reachable from all, and each process have an id of its own, "
          f"from 0 to {number - 1 if number else 'their number less 1'}")


def _gone(which: set[int], number: int | None, reason: str) -> str:
  of_all = f" of {number}" if number else ""
  names = f"process {', '.join(map(str, sorted(which)))}" if which else "one process"
  return f"{names}{of_all} is gone ({reason}). {_CONTINUE}"


def _refusal(error: str) -> str:
  if "must be called before" in error or "only be called once" in error:
    return ("--distributed: JAX has been started already; expected a process that has not used it, "
            "as the command `dcnn` is")
  if "should be defined" in error or "must be defined" in error:
    return ("--distributed: found no SLURM, Open MPI or TPU pod that started this process. Start "
            "it with srun or mpirun, or give --coordinator_address=HOST:PORT, --num_processes=N "
            "and --process_id=I")
  return f"--distributed: the processes cannot join: {error}"


def _check_numbers(meeting: Meeting) -> None:
  """Makes sure that there are as many processes and devices as expected."""
  found = jax.process_count()
  if meeting.num_processes not in (None, found):
    raise Stop(f"--num_processes={meeting.num_processes}, but {found} processes have met: give "
               "the same number to all")
  owners = [device.process_index for device in jax.devices()]
  each = [owners.count(process) for process in range(found)]
  if len(set(each)) > 1:
    raise Stop(f"the processes have {', '.join(map(str, each))} devices, expected equally many: "
               "set JAX_NUM_CPU_DEVICES to one number for all, or give each as many accelerators")
  processes.from_all(0)  # the first exchange has a time limit, so none may be late later
