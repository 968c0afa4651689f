"""Hears that C++ is about to abort this process, while there is still time to say why.

Python cannot catch an abort: a handler written in Python would run after the C++ function has
returned, and `abort` never does. What runs in time is faulthandler, whose handler, in C, writes the
stacks of all threads to a file. Here that file is a pipe with room for a few bytes more, which
nobody reads. So the thread that aborts begins its report and then waits for room, and a thread of
ours, which sees that there is more in the pipe than before, explains the abort and ends the
process, or empties the pipe and thereby lets the abort go on.

Two simpler ways were tried with aborts in a thread of C++. `signal.set_wakeup_fd` writes its byte
and returns, and the process is gone before another thread has read it. A handler of ctypes
does hold the thread, but runs Python within a signal handler, and the package loads no ctypes.
"""

import faulthandler
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from dcnn.cli import streams

_POLL_SECONDS = 0.2
_ROOM = 64  # bytes left in the pipe; any report is longer
_MORE_THAN_A_PIPE_HOLDS = 2**20


def watch(explain: Callable[[str], None]) -> None:
  """Calls a function when C++ aborts this process; from now on, what C++ prints is held back.

  Args:
    explain: Gets what C++ has printed, and ends the process if it knows why. Where it returns, that
      text and the stacks of all threads are printed, and the abort goes on.
  """
  held = _hold_output()
  reader, size = _almost_full_pipe()

  def wait() -> None:
    import fcntl  # not on every system
    import termios

    request = termios.FIONREAD  # how many bytes the pipe holds
    while int.from_bytes(fcntl.ioctl(reader, request, bytes(4)), sys.byteorder) == size:
      time.sleep(_POLL_SECONDS)
    output = os.pread(held.fileno(), os.fstat(held.fileno()).st_size, 0).decode(errors="replace")
    explain(output)
    sys.stderr.write(output)
    faulthandler.dump_traceback(sys.stderr)
    # In place of the thread that aborts: its report reads the stacks of threads that run, and can
    # crash at it.
    faulthandler.disable()
    os.abort()

  threading.Thread(target=wait, daemon=True).start()


def _hold_output() -> IO[bytes]:
  """A file that gets what C++ prints from now on; Python goes on printing where it did."""
  held = tempfile.TemporaryFile()
  for number, name in ((1, "stdout"), (2, "stderr")):
    stream: Any = getattr(sys, name)
    stream.flush()
    setattr(sys, name, streams.forgiving_stream(os.dup(number), stream))
    os.dup2(held.fileno(), number)
  return held


def _almost_full_pipe() -> tuple[int, int]:
  """Lets faulthandler report to a pipe with `_ROOM` bytes left; its reading end, and what it holds.

  On Linux the room must lie at the end of the last page of the pipe, so that the pipe is filled
  anew, by one write, once it is known how much it holds.
  """
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  capacity = os.write(writer, bytes(_MORE_THAN_A_PIPE_HOLDS))
  os.read(reader, capacity)
  size = os.write(writer, b" " * (capacity - _ROOM))
  os.set_blocking(writer, True)
  faulthandler.enable(writer)
  return reader, size
