"""What a user sees while a sweep or a generation runs: live on a terminal, else plain lines."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dcnn.base.text import visible_text
from dcnn.sweeps.memory import Placement as Choice
from dcnn.sweeps.sweep import TRAINING, Progress

SECONDS_BETWEEN_LINES = 5.0
REFRESHES_PER_SECOND = 4
_MEV = 1000.0  # meV in an eV
_LINES_AROUND_ARMS = 7  # of a live view: bar, numbers, heading, blanks, and the cursor's
_NARROWEST_COLUMN = 24  # characters of an arm's name, its number and the gaps
_GAP = 2


class Status(NamedTuple):
  """Where a sweep stands, and since when.

  Attributes:
    progress: the latest; None before the first chunk.
    elapsed: seconds from the start to `progress`.
    since: seconds from `progress` to now.
  """

  progress: Progress | None
  elapsed: float
  since: float

  @property
  def rate(self) -> float:
    """Steps a second, all runs together, compilation left out; nan before the first chunk."""
    if self.progress is None or self.progress.done == self.progress.reused:
      return math.nan
    seconds = self.elapsed - self.progress.compile_seconds
    done = self.progress.done - self.progress.reused
    return done / seconds if seconds > 0 else math.nan

  @property
  def left(self) -> float:
    """Seconds until the last step; nan where the rate is not known."""
    if self.progress is None or not self.rate > 0:
      return math.nan
    return max(0.0, (self.progress.total - self.progress.done) / self.rate - self.since)


@contextlib.contextmanager
def sweep_display(console: Console) -> Iterator[Callable[[Progress], None]]:
  """Shows where a sweep stands while the context lasts.

  Args:
    console: to show it on.

  Yields:
    The function to call after every chunk.
  """
  clock = _Clock()

  def view() -> RenderableType:
    return sweep_view(clock.status(), console.width, console.height)

  with _shown(console, view, lambda: sweep_line(clock.status())) as say:
    phase, said_end, choice = "", False, None

    def on_progress(progress: Progress) -> None:
      nonlocal phase, said_end, choice
      clock.update(progress)
      if progress.placement not in (choice, None):
        choice = progress.placement
        _print(console, choice_line(choice))
      turn = progress.phase not in (phase, TRAINING)
      end = progress.phase == TRAINING and progress.done == progress.total and not said_end
      phase, said_end = progress.phase, progress.done == progress.total and (said_end or end)
      say(turn or end)

    yield on_progress


@contextlib.contextmanager
def fraction_display(console: Console, title: str) -> Iterator[Callable[[float], None]]:
  """Shows how much of a task is done while the context lasts.

  Args:
    console: to show it on.
    title: of the task.

  Yields:
    The function to call with the fraction done, 0 to 1.
  """
  started, done = time.monotonic(), 0.0

  def line() -> str:
    elapsed = time.monotonic() - started
    left = elapsed * (1 - done) / done if done else math.nan
    return f"{title}: {done:.0%}, {duration(elapsed)} gone, {duration(left)} left"

  with _shown(console, lambda: Group(_bar(done, console.width), _text(line())), line) as say:
    def on_progress(fraction: float) -> None:
      nonlocal done
      done = fraction
      say(fraction >= 1)

    yield on_progress


@contextlib.contextmanager
def _shown(
    console: Console, view: Callable[[], RenderableType], line: Callable[[], str]
) -> Iterator[Callable[[bool], None]]:
  """Draws `view` over and over; where that is not possible, prints `line` now and then.

  Yields:
    The function to call on news; its argument says whether they must be told at once.
  """
  if is_live(console):
    with Live(get_renderable=view, console=console, transient=True,
              refresh_per_second=REFRESHES_PER_SECOND):
      yield lambda at_once: None
  else:
    _print(console, line())
    yield throttled(lambda: _print(console, line()))


def say(text: str, file: Any = None) -> None:
  """Prints lines: the one function that writes to a terminal or a log, but for live views.

  Args:
    text: whatever it was made of; what does not print is shown as its escape.
    file: standard output by default.
  """
  print(visible_text(text), file=file, flush=True)


def _print(console: Console, line: str) -> None:
  """A line that stays: above a live view, or in a log, where nothing may fold it."""
  if is_live(console):
    console.print(_text(line), highlight=False, soft_wrap=True)
  else:
    say(line, console.file)


def _text(text: str, style: str = "") -> Text:
  """Text for a live view: no markup, whatever it holds, and nothing that does not print."""
  return Text(visible_text(text), style=style)


def is_live(console: Console) -> bool:
  """Whether the console can redraw what it has shown. `FORCE_COLOR` alone makes no terminal."""
  return console.file.isatty() and not console.is_dumb_terminal


def throttled(
    say: Callable[[], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[bool], None]:
  """Calls `say` at most every few seconds, and whenever it is asked to do so `at_once`."""
  said = clock()

  def call(at_once: bool) -> None:
    nonlocal said
    if at_once or clock() - said >= SECONDS_BETWEEN_LINES:
      said = clock()
      say()

  return call


def choice_line(choice: Choice) -> str:
  """How the runs of a group are put on the devices, and what they take there."""
  launches = "1 launch" if choice.launches == 1 else f"{choice.launches:,} launches"
  runs = "1 run" if choice.runs == 1 else f"{choice.runs:,} runs"
  devices = "1 device" if choice.devices == 1 else f"{choice.devices} devices"
  if choice.devices < choice.devices_there:
    devices = f"{choice.devices} of {choice.devices_there} devices (see devices_per_run)"
  shared = f", {choice.devices_per_run} a run" if choice.devices_per_run > 1 else ""
  streamed = " at a time, streamed from the host" if choice.streamed else ""
  return (f"{launches} of {runs} on {devices}{shared}; on each {_memory(choice.bytes_needed)} of "
          f"{_memory(choice.bytes_allowed)} allowed: {_memory(choice.bytes_per_run)} a run, "
          f"{_memory(choice.bytes_of_data)} of data{streamed}")


def _memory(size: int | float) -> str:
  """Bytes in the largest unit of which there is one."""
  unit, name = next((unit, name) for unit, name in (
      (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")) if size >= unit or name == "B")
  return f"{size / unit:,.1f} {name}"


def sweep_line(status: Status) -> str:
  """A sweep's progress in a line, for logs."""
  progress = status.progress
  if progress is None:
    return f"preparing, {duration(status.since)}"
  share = f"{progress.done / progress.total:.0%}"
  if progress.phase != TRAINING:
    return f"{share}, {progress.phase}"
  return ", ".join([share, *_numbers(status), *_remarks(progress)])


def sweep_view(status: Status, width: int, height: int) -> RenderableType:
  """A sweep's progress for a terminal: a bar, its numbers, and force_loss of each arm.

  Args:
    status: of the sweep.
    width, height: of the terminal, characters.

  Returns:
    What rich can draw in no more than this space.
  """
  progress = status.progress
  if progress is None:
    return _text(f"preparing, {duration(status.since)}")
  remarks = _text(", ".join(_remarks(progress)), style="yellow" if progress.diverged else "")
  return Group(
      _bar(progress.done / progress.total, width),
      _text(", ".join(_numbers(status)) if progress.phase == TRAINING
           else f"{progress.phase}, {duration(status.since)}"),
      remarks,
      _text(""),
      _text("validation force_loss, meV/A", style="bold"),
      arms_table(progress.watched, width, height - _LINES_AROUND_ARMS))


def arms_table(force_loss: Mapping[str, float], width: int, height: int) -> Table:
  """Arms and their force_loss in as few columns as fit, read downwards.

  Args:
    force_loss: of each arm, eV/A; nan is shown as a dash.
    width, height: of the space there is, characters.

  Returns:
    A table; arms that do not fit are counted in its last cell.
  """
  height = max(1, height)
  columns = max(1, min(width // _NARROWEST_COLUMN, math.ceil(len(force_loss) / height)))
  shown = list(force_loss.items())
  if len(shown) > columns * height:
    hidden = len(shown) - columns * height + 1
    shown = [*shown[:-hidden], (f"and {hidden} more", None)]
  rows = math.ceil(len(shown) / columns)
  name_width = width // columns - max(len(_milli(value)) for _, value in shown) - 2 * _GAP
  table = Table.grid(padding=(0, _GAP, 0, 0))
  for _ in range(columns):
    table.add_column()
    table.add_column(justify="right")
  for row in range(rows):
    cells = []
    for name, value in shown[row::rows]:
      cells += [_text(shortened(visible_text(name), name_width)), _text(_milli(value))]
    table.add_row(*cells)
  return table


def shortened(name: str, width: int) -> str:
  """A name with its middle left out where it is too long: arms often differ at their ends."""
  if len(name) <= width:
    return name
  tail = max(0, width - 1) // 2
  return name[:max(0, width - 1 - tail)] + "…" + (name[-tail:] if tail else "")


def duration(seconds: float) -> str:
  """Hours, minutes and seconds; a question mark for nan."""
  if math.isnan(seconds):
    return "?"
  minutes, second = divmod(round(seconds), 60)
  return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


class _Clock:
  """Remembers the latest progress and when it came; starts anew where the count of steps does."""

  def __init__(self) -> None:
    self._started = self._updated = time.monotonic()
    self._progress: Progress | None = None

  def update(self, progress: Progress) -> None:
    if self._progress is not None and progress.done < self._progress.done:
      self._started = self._updated  # a second sweep: tuning goes before
    # The sweep goes on changing its dictionary while another thread draws this one.
    self._progress = progress._replace(watched=dict(progress.watched))
    self._updated = time.monotonic()

  def status(self) -> Status:
    return Status(
        self._progress, self._updated - self._started, time.monotonic() - self._updated)


def _numbers(status: Status) -> list[str]:
  progress = status.progress
  assert progress is not None
  rate = "?" if math.isnan(status.rate) else f"{status.rate:,.0f}"
  return [f"{progress.done:,} of {progress.total:,} steps of all runs", f"{rate} steps/s",
          f"{duration(status.left)} left"]


def _remarks(progress: Progress) -> list[str]:
  runs = "run" if progress.diverged == 1 else "runs"
  return [f"compiled in {progress.compile_seconds:.1f} s", f"{progress.diverged} {runs} diverged"]


def _bar(share: float, width: int) -> RenderableType:
  bar = Table.grid(padding=(0, 1, 0, 0))
  bar.add_row(ProgressBar(total=1.0, completed=share, width=max(10, min(60, width - 7))),
              _text(f"{share:.0%}"))
  return bar


def _milli(value: float | None) -> str:
  if value is None:
    return ""
  if not math.isfinite(value):
    return "-"
  return f"{_MEV * value:,.1f}" if _MEV * value < 100 else f"{_MEV * value:,.0f}"
