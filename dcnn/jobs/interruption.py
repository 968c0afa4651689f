"""SIGINT and SIGTERM as requests to stop, with a time after which the process stops regardless."""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

GRACE_SECONDS = 9.0  # schedulers kill after thirty, impatient users after ten
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass
class Request:
  """Whether a signal has come, and which; none is 0."""

  signal: int = 0

  def is_made(self) -> bool:
    """Whether a signal has come."""
    return self.signal != 0

  @property
  def status(self) -> int:
    """Exit status of a process that the signal ends; SIGTERM where another process had it."""
    return 128 + (self.signal or signal.SIGTERM)


@contextlib.contextmanager
def heeded(say: Callable[[str], None]) -> Iterator[Request]:
  """Turns the signals into a request while the context lasts.

  Whoever runs in the context asks for the request and ends in good order. A second Ctrl-C, or the
  end of the time of grace, ends the process at once.

  Args:
    say: told what happens, in a line.

  Yields:
    The request.
  """
  request = Request()

  def handle(number: int, frame: object) -> None:
    del frame
    if request.is_made():
      if number == signal.SIGINT:
        leave(request.status)
      return
    request.signal = number
    say(f"{signal.Signals(number).name}: saving what there is; a second Ctrl-C stops at once")
    timer = threading.Timer(GRACE_SECONDS, leave_late)
    timer.daemon = True
    timer.start()

  def leave_late() -> None:
    say(f"{GRACE_SECONDS:g} s are over: stopped before all was told; what is saved is intact")
    leave(request.status)

  before = {number: signal.signal(number, handle) for number in SIGNALS}
  try:
    yield request
  finally:
    if not request.is_made():  # after a signal, the time of grace runs to the end of the process
      for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def listen() -> Iterator[Request]:
  """Turns Ctrl-C, or the stop button of a notebook, into a request while the context lasts.

  A second one raises KeyboardInterrupt where the program stands. Afterwards signals are handled as
  before. In a thread other than the main one, which gets no signals, no request is ever made.

  Yields:
    The request.
  """
  request = Request()

  def handle(number: int, frame: object) -> None:
    del frame
    if request.is_made():
      raise KeyboardInterrupt
    request.signal = number

  before = signal.getsignal(signal.SIGINT)
  if before is None or threading.current_thread() is not threading.main_thread():
    yield request
    return
  signal.signal(signal.SIGINT, handle)
  try:
    yield request
  finally:
    signal.signal(signal.SIGINT, before)


def leave(status: int) -> NoReturn:
  """Ends the process without waiting for compiled code in other threads to return."""
  try:
    sys.stdout.flush()
    sys.stderr.flush()
  finally:
    os._exit(status)
