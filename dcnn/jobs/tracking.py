"""What experiment trackers are told of a sweep, while it trains or from its files.

Either way they get lines of history.csv and of results.csv, so that both give the same runs: the
training loss terms and validation errors of every run at their steps, and at its end the test
errors and the status. A tracker can neither stop nor slow a training: each has a thread, which
gives up at the first error.
"""

import contextlib
import contextvars
import json
import pathlib
import queue
import secrets
import threading
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dcnn.base import files, wording
from dcnn.base.text import first_line
from dcnn.jobs.trackers import TRACKERS, OpenRun, Sweep, Writer
from dcnn.results.records import INTERRUPTED, Point, Result, Row
from dcnn.sweeps import OnResults

STATE_FILE = "trackers.json"
PATIENCE_SECONDS = 20.0  # that a sweep waits at its end for a tracker that takes nothing
_PATIENCE_AFTER_SIGNAL = 2.0  # of the nine in which an interrupted command must end

Key = tuple[str, int]  # an arm and a seed
_News = tuple[Sequence[Point], Sequence[Row]]


def log(name: str, directory: pathlib.Path, result: Result) -> int:
  """Tells a tracker all that the files of a work directory hold.

  Args:
    name: Of the tracker.
    directory: The work directory, which this process holds.
    result: What its files hold; it has rows.

  Returns:
    The number of runs told of: all that have begun.

  Raises:
    OSError: If the tracker fails; the text says with what.
  """
  state = _State(directory)
  runs = {key: lines for key, lines in _by_run(result.history, result.rows).items()
          if lines[0] or not lines[1][0].status.startswith(INTERRUPTED)}  # others have not begun
  sweep = Sweep(directory, result.rows[0].experiment, state.identity,
                result.config.get("arm_settings", {}))
  try:
    teller = _Teller(TRACKERS[name].start(sweep))
    ended = [key for key, lines in runs.items() if teller.tell(key, *lines)]
  except Exception as error:  # of a library, a server or a disk
    raise OSError(f"{name}: {first_line(error)}") from error
  state.add(name, ended)
  return len(runs)


@contextlib.contextmanager
def tracked(
    names: Sequence[str], directory: pathlib.Path, manifest: Mapping[str, Any]
) -> Iterator[OnResults | None]:
  """Tells trackers of a sweep while the context lasts.

  Args:
    names: Of the trackers, which `trackers.check` has found.
    directory: The work directory, which this process holds.
    manifest: The content of its config.json.

  Yields:
    The function to call with lines of history.csv and results.csv as they become known, which
    returns at once; None where there is no tracker.
  """
  if not names:
    yield None
    return
  state = _State(directory)
  sweep = Sweep(directory, manifest["config"]["experiment"], state.identity,
                manifest["arm_settings"])
  threads = [_Thread(name, sweep, state.complete(name)) for name in names]

  def on_results(history: Sequence[Point], rows: Sequence[Row]) -> None:
    for thread in threads:
      if thread.is_alive():  # one that has failed reads no more
        thread.news.put((history, rows))

  patience = _PATIENCE_AFTER_SIGNAL
  try:
    yield on_results
    patience = PATIENCE_SECONDS
  finally:
    for thread in threads:
      thread.news.put(None)
    since = time.monotonic()
    for thread in threads:
      thread.wait(since, patience)
      with contextlib.suppress(OSError):  # then these runs are told once more
        state.add(thread.name, thread.ended)


def is_left() -> bool:
  """Whether a tracker that nobody waits for any more still hangs: so may the end of the process."""
  return any(isinstance(thread, _Thread) for thread in threading.enumerate())


class _State:
  """trackers.json: the identity of a work directory, and the runs that trackers have whole."""

  def __init__(self, directory: pathlib.Path) -> None:
    self._path = directory / STATE_FILE
    self._content: dict[str, Any] = {"identity": secrets.token_hex(8), "complete": {}}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
      content = json.loads(self._path.read_text(encoding="utf-8"))
      complete = {name: [[str(arm), int(seed)] for arm, seed in runs]
                  for name, runs in content["complete"].items()}
      self._content = {"identity": str(content["identity"]), "complete": complete}
    files.write_json(self._path, self._content)

  @property
  def identity(self) -> str:
    return self._content["identity"]

  def complete(self, name: str) -> set[Key]:
    return {(arm, seed) for arm, seed in self._content["complete"].get(name, ())}

  def add(self, name: str, runs: Iterable[Key]) -> None:
    self._content["complete"][name] = sorted(map(list, self.complete(name).union(runs)))
    files.write_json(self._path, self._content)


class _Teller:
  """Tells one tracker of runs: opens each at its first line, and closes it with its last."""

  def __init__(self, open_run: OpenRun) -> None:
    self._open_run = open_run
    self._open: dict[Key, Writer] = {}

  def tell(self, key: Key, points: Sequence[Point], rows: Sequence[Row]) -> bool:
    """Takes lines of a run; returns whether it has ended with them."""
    if key not in self._open:
      self._open[key] = self._open_run(*key)
    if points:
      self._open[key].log(_curve(points))
    if not rows:
      return False
    test = {f"test/{row.metric}": row.value for row in rows if row.split == "test"}
    self._open.pop(key).end(rows[0].status, rows[0].step, test)
    return not rows[0].status.startswith(INTERRUPTED)

  def leave(self) -> None:
    """Closes the runs that have not ended."""
    while self._open:
      self._open.popitem()[1].end(INTERRUPTED, 0, {})


class _Thread(threading.Thread):
  """Tells a tracker in the background, until there is no more news or it fails.

  Attributes:
    news: What it is to tell; None ends it.
    ended: The runs that the tracker has whole.
  """

  def __init__(self, tracker: str, sweep: Sweep, complete: Collection[Key]) -> None:
    super().__init__(name=tracker, daemon=True)  # one that hangs must not keep the process
    self.news: queue.SimpleQueue[_News | None] = queue.SimpleQueue()
    self.ended: list[Key] = []
    self._complete, self._moved, self._has_warned = complete, time.monotonic(), False
    self._start, self._context = TRACKERS[tracker].start, contextvars.copy_context()
    self._sweep = sweep
    self.start()

  def run(self) -> None:
    self._context.run(self._tell)

  def wait(self, since: float, patience: float) -> None:
    """Waits as long as it takes news at least every `patience` seconds, at first from `since`."""
    while self.is_alive() and time.monotonic() - max(since, self._moved) < patience:
      self.join(0.05)
    if self.is_alive():
      self._warn(f"it took nothing for {patience:g} s")

  def _tell(self) -> None:
    try:
      teller = _Teller(self._start(self._sweep))
      for history, rows in iter(self.news.get, None):
        for key, lines in _by_run(history, rows).items():
          if key not in self._complete and teller.tell(key, *lines):
            self.ended.append(key)
          self._moved = time.monotonic()
      teller.leave()
    except Exception as error:  # of a library, a server or a disk
      self._warn(first_line(error))

  def _warn(self, reason: str) -> None:
    if self._has_warned:
      return
    self._has_warned = True
    way = wording.either(command=f"`dcnn log DIR --to={self.name}` tells it all afterwards",
                         python="it can be told all afterwards, from the work directory")
    warnings.warn(f"{self.name} is not told any more ({reason}); {way}", stacklevel=2)


def _by_run(
    history: Iterable[Point], rows: Iterable[Row]
) -> dict[tuple[str, int], tuple[list[Point], list[Row]]]:
  """The lines of each run, by arm and seed."""
  runs: dict[tuple[str, int], tuple[list[Point], list[Row]]] = {}
  for point in history:
    runs.setdefault((point.arm, point.seed), ([], []))[0].append(point)
  for row in rows:
    runs.setdefault((row.arm, row.seed), ([], []))[1].append(row)
  return runs


def _curve(points: Iterable[Point]) -> dict[int, dict[str, float]]:
  """By step the values by `split/metric`."""
  curve: dict[int, dict[str, float]] = {}
  for point in points:
    curve.setdefault(point.step, {})[f"{point.split}/{point.metric}"] = point.value
  return curve
