"""Standard output and errors of a command, made so that printing cannot fail.

A reader that has gone (`dcnn ... | head -1`), a full device, a closed descriptor or an encoding
that lacks a character is no mistake of the user: the text is lost, and the work goes on.
Everything that is printed passes through the streams made here, whoever prints it.
"""

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

WAIT_SECONDS = 5.0  # for the reader of a pipe that does not block; then the text is dropped


class _Forgiving(io.RawIOBase):
  """A descriptor to write to, of which errors are passed over."""

  def __init__(self, descriptor: int) -> None:
    self._descriptor = descriptor
    self._lost = False

  def writable(self) -> bool:
    return True

  def fileno(self) -> int:
    return self._descriptor

  def isatty(self) -> bool:
    return os.isatty(self._descriptor)

  def write(self, data: Any, /) -> int:
    rest = memoryview(data).cast("B")
    size = rest.nbytes
    while rest and not self._lost:
      try:
        rest = rest[os.write(self._descriptor, rest):]
      except BlockingIOError:
        self._lost = not select.select([], [self._descriptor], [], WAIT_SECONDS)[1]
      except BrokenPipeError:
        self._lost = True  # nobody reads there any more
      except OSError:  # a device may have room again later
        break
    return size


def forgiving_stream(descriptor: int, like: Any = None) -> io.TextIOWrapper:
  """A text stream that writes to a descriptor and never fails.

  Args:
    descriptor: The number of an open file, which the stream does not close.
    like: A stream whose encoding is taken; characters that it lacks are written as escapes.
  """
  encoding = getattr(like, "encoding", None) or "utf-8"
  return io.TextIOWrapper(
      io.BufferedWriter(_Forgiving(descriptor)), encoding=encoding, errors="backslashreplace",
      line_buffering=True)


@contextlib.contextmanager
def forgiving_streams() -> Iterator[None]:
  """Makes standard output and errors such streams while the context lasts.

  A stream that is no descriptor, such as one that collects text in memory, stays as it is.
  """
  for number in (0, 1, 2):
    try:
      os.fstat(number)
    except OSError:  # a file opened later would get the number, and with it all that is printed
      opened = os.open(os.devnull, os.O_RDWR)
      if opened != number:
        os.dup2(opened, number)
        os.close(opened)
  before = sys.stdout, sys.stderr
  for name, number in (("stdout", 1), ("stderr", 2)):
    stream = getattr(sys, name)
    if stream is None:  # was closed when Python started
      setattr(sys, name, forgiving_stream(number))
      continue
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
      setattr(sys, name, forgiving_stream(stream.fileno(), stream))
  try:
    yield
  finally:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
    sys.stdout, sys.stderr = before
