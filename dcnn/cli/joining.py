"""Joins this process to the others of a sweep, and ends it in one line when one of them is gone.

JAX's runtime notices a lost process by its heartbeats and broken connections, and then aborts all
others from C++, with a dump. It has a callback for that, which jaxlib 0.10.1 cannot call with a
function of Python; so `aborts` watches for it.
"""

import re
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import jax

from dcnn.base import processes
from dcnn.cli import aborts
from dcnn.cli.arguments import Meeting
from dcnn.cli.messages import FAILURE, MISTAKE, Stop
from dcnn.jobs import interruption

MEETING_SECONDS = 120  # within which all processes must have started
HEARTBEAT_SECONDS = 30  # a process without a sign of life for so long counts as gone
SIGNAL_SECONDS = 2.0  # within which a signal that was sent to all processes reaches all
_CONTINUE = "What was saved can be continued: give the same command again"


def join(meeting: Meeting, say: Callable[[str], None]) -> None:
  """Makes the devices of all processes known to each; call it before the first use of JAX.

  From then on this process ends, with a line and exit status 1, when another one is gone.

  Args:
    meeting: Where the processes meet.
    say: Gets the line that says why this process ends.

  Raises:
    Stop: If JAX does not find out where to meet, or the processes do not fit together. If they do
      not meet in time, the process ends.
  """
  number: int | None = None  # of processes, once they have met

  def explain(output: str) -> None:
    explained = explanation(output, meeting, number)
    if explained:
      time.sleep(SIGNAL_SECONDS)  # where all processes are told to stop, that is the reason to give
      _leave(say, *explained)

  aborts.watch(explain)
  jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is for `interruption`
  try:
    jax.distributed.initialize(
        *meeting, initialization_timeout=MEETING_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    number = jax.process_count()
  except (ValueError, RuntimeError) as error:
    raise Stop(_refusal(str(error))) from error
  found = jax.process_count()
  if meeting.num_processes not in (None, found):
    raise Stop(f"--num_processes={meeting.num_processes}, but {found} processes have met: give "
               "the same number to all")
  owners = [device.process_index for device in jax.devices()]
  each = [owners.count(process) for process in range(found)]
  if len(set(each)) > 1:
    raise Stop(f"the processes have {', '.join(map(str, each))} devices, expected equally many: "
               "set JAX_NUM_CPU_DEVICES to one number for all, or give each as many accelerators")
  processes.all_gather(0)  # the first exchange has a time limit, so none may be late later


def end_without(error: processes.Lost, say: Callable[[str], None]) -> NoReturn:
  """Ends the process after an exchange that failed, because another process is gone.

  JAX's runtime knows which one, but learns of it later; of two processes it is the other.

  Args:
    error: What the exchange raised.
    say: Gets the line that says why this process ends.
  """
  total = processes.count()
  others = set(range(total)) - {jax.process_index()}
  alone = len(others) == 1
  time.sleep(SIGNAL_SECONDS if alone else 2 * HEARTBEAT_SECONDS)
  _leave(say, _gone(others if alone else set(), total, str(error)), FAILURE)


def explanation(output: str, meeting: Meeting, number: int | None) -> tuple[str, int] | None:
  """Why JAX's runtime aborts a process, and the exit status; None if not for a lost process.

  Args:
    output: What the runtime has printed.
    meeting: Where the processes meet.
    number: How many processes there are; None before they have met.

  Returns:
    A line for the user and the exit status, or None.
  """
  found = re.search(r"JAX distributed service detected fatal errors.*absl::Status: (.*)", output)
  if not found:
    return None
  status = found[1]
  if "CoordinationService/RegisterTask" in output[found.end():].partition("***")[0]:
    where = meeting.coordinator_address or "the address that JAX found"
    asked = meeting.num_processes
    return (f"--distributed: {asked or 'the'} processes did not meet at {where} within "
            f"{MEETING_SECONDS} s (JAX: {status.rstrip('. ')}). Process 0 must run on that host, "
            "the port be free there and reachable from all, and each process have an id of its "
            f"own, from 0 to {asked - 1 if asked else 'their number less 1'}"), MISTAKE
  if "tried to connect" in output:
    return ("a process came with a process id that is taken: two have the same, or one was "
            f"started again alone. {_CONTINUE}, to all processes"), FAILURE
  if "Failed to send RPC to coordination service" in status:
    return _gone({0}, number, "the connection to it broke"), FAILURE
  tasks = re.search(r"unhealthy \(stopped sending heartbeats\):\n([\d, \n]*\d)", output)
  which = set(map(int, re.findall(r"\d+", tasks[1]))) if tasks else set()
  return _gone(which, number, "it stopped sending heartbeats" if which else status), FAILURE


_last_word = threading.Lock()  # two threads may notice the same loss


def _leave(say: Callable[[str], None], text: str, status: int) -> NoReturn:
  _last_word.acquire()
  say(f"error: {text}")
  interruption.leave(status)


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
