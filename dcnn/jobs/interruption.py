"""SIGINT and SIGTERM as requests to stop, with a time after which the process stops regardless."""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
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
def listen() -> Iterator[Request]:
  """Turns Ctrl-C, or the stop button of a notebook, into a request while the context lasts.

  A second one raises KeyboardInterrupt where the program stands. Afterwards signals are handled as
  before. In a thread other than the main one, which gets no signals, no request is ever made.

  Yields:
    The request.
  """
  def interrupt(number: int) -> NoReturn:
    raise KeyboardInterrupt

  request = Request()
  # A handler that was not set from Python is None, and could not be restored.
  if (threading.current_thread() is not threading.main_thread()
      or signal.getsignal(signal.SIGINT) is None):
    yield request
    return
  restore = _handle((signal.SIGINT,), request, lambda number: None, interrupt)
  try:
    yield request
  finally:
    restore()


@contextlib.contextmanager
def listen_with_deadline(say: Callable[[str], None]) -> Iterator[Request]:
  """Turns SIGINT and SIGTERM into a request while the context lasts, for a command.

  Whoever runs in the context asks for the request and ends in good order. A second Ctrl-C, or the
  end of the time of grace, ends the process at once.

  Args:
    say: Gets lines for the user, about what happens.

  Yields:
    The request.
  """
  request = Request()

  def begin_to_end(number: int) -> None:
    say(f"{signal.Signals(number).name}: saving what there is; a second Ctrl-C stops at once")
    timer = threading.Timer(GRACE_SECONDS, end_late)
    timer.daemon = True
    timer.start()

  def end_late() -> None:
    say(f"{GRACE_SECONDS:g} s are over: stopped before all was told; what is saved is intact")
    leave(request.status)

  def end_at_once(number: int) -> None:
    if number == signal.SIGINT:  # schedulers repeat a SIGTERM
      leave(request.status)

  restore = _handle(SIGNALS, request, begin_to_end, end_at_once)
  try:
    yield request
  finally:
    if not request.is_made():  # after a signal, the time of grace runs to the end of the process
      restore()


def _handle(
    signals: Sequence[signal.Signals], request: Request, first: Callable[[int], None],
    later: Callable[[int], None],
) -> Callable[[], None]:
  """Makes a request of the first of these signals that comes.

  Args:
    signals: The signals to handle.
    request: Gets the number of the first signal.
    first: Called with the number of the first signal.
    later: Called with the number of each later one.

  Returns:
    A function that restores the handlers there were before.
  """
  def handle(number: int, frame: object) -> None:
    del frame
    if request.is_made():
      later(number)
      return
    request.signal = number
    first(number)

  before = {number: signal.signal(number, handle) for number in signals}

  def restore() -> None:
    for number, handler in before.items():
      signal.signal(number, handler)

  return restore


def leave(status: int) -> NoReturn:
  """Ends the process without waiting for compiled code in other threads to return."""
  try:
    sys.stdout.flush()
    sys.stderr.flush()
  finally:
    os._exit(status)
