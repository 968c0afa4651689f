"""Signals as requests, and the ways in which a process leaves at once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dcnn.jobs import interruption

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture
def left(monkeypatch):
  """The exit statuses with which the process would have left."""
  statuses = []
  monkeypatch.setattr(interruption, "leave", statuses.append)
  monkeypatch.setattr(interruption, "GRACE_SECONDS", 0.3)
  handlers = {number: signal.getsignal(number) for number in interruption.SIGNALS}
  yield statuses
  for timer in threading.enumerate():
    if isinstance(timer, threading.Timer):
      timer.join()  # or it would end this process, once `leave` is itself again
  for number, handler in handlers.items():
    signal.signal(number, handler)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_a_request(left, number, status):
  told = []
  with interruption.listen_with_deadline(told.append) as request:
    assert not request.is_made()
    os.kill(os.getpid(), number)
    assert request.is_made() and request.status == status
  assert told == [f"{number.name}: saving what there is; a second Ctrl-C stops at once"]
  assert left == []
  time.sleep(0.5)
  assert left == [status]  # the time of grace is over
  assert "0.3 s are over: stopped before all was told" in told[-1]


def test_a_second_interrupt_leaves_at_once(left):
  with interruption.listen_with_deadline(lambda text: None):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # schedulers repeat themselves
    assert left == []
    os.kill(os.getpid(), signal.SIGINT)
    assert left == [143]


def test_without_a_signal_all_is_as_before():
  before = [signal.getsignal(number) for number in interruption.SIGNALS]
  with interruption.listen_with_deadline(lambda text: None):
    pass
  assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_DFL, signal.SIG_IGN],
                ids=["python", "default", "ignored"])
def handler(request):
  """What a program has set for Ctrl-C before it calls us."""
  before = signal.signal(signal.SIGINT, request.param)
  yield request.param
  signal.signal(signal.SIGINT, before)


def test_in_a_notebook_the_first_interrupt_is_a_request_and_the_second_interrupts(handler):
  with interruption.listen() as request:
    os.kill(os.getpid(), signal.SIGINT)
    assert request.is_made() and request.status == 130
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(1)
  assert signal.getsignal(signal.SIGINT) == handler


def test_in_another_thread_no_request_is_made(handler):
  handlers = []

  def train():
    with interruption.listen() as request:
      handlers.append((signal.getsignal(signal.SIGINT), request.is_made()))

  thread = threading.Thread(target=train)
  thread.start()
  thread.join()
  assert handlers == [(handler, False)]


DEAF = """
import sys, time
from dcnn.jobs import interruption
interruption.GRACE_SECONDS = float(sys.argv[1])
with interruption.listen_with_deadline(lambda text: print(text, flush=True)):
  print("ready", flush=True)
  while True:
    time.sleep(0.01)
"""


@pytest.mark.parametrize("numbers, grace, status", [
    ((signal.SIGINT, signal.SIGINT), 600, 130), ((signal.SIGTERM, signal.SIGINT), 600, 143),
    ((signal.SIGINT,), 0.2, 130), ((signal.SIGTERM,), 0.2, 143)],
    ids=["twice", "term-int", "grace-int", "grace-term"])
def test_a_process_that_never_asks_is_ended_all_the_same(numbers, grace, status):
  with subprocess.Popen([sys.executable, "-c", DEAF, str(grace)], stdout=subprocess.PIPE,
                        text=True) as process:
    for number in numbers:
      assert process.stdout.readline() and process.poll() is None
      process.send_signal(number)
    started = time.monotonic()
    assert process.wait(timeout=60) == status and time.monotonic() - started < 5
