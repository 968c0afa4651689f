"""What a user sees while a sweep or a generation runs: live on a terminal, else plain lines."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dcnn.base.measures import Metric
from dcnn.base.text import display_unit, duration, number_text, visible_text
from dcnn.sweeps.memory import Placement
from dcnn.sweeps.sweep import TRAINING, Progress

SECONDS_BETWEEN_LINES = 5.0
REFRESHES_PER_SECOND = 4
_LINES_AROUND_ARMS = 7  # of a live view: bar, numbers, heading, blanks, and the cursor's
_NARROWEST_COLUMN = 24  # characters for an arm's name, its number and the gaps
_GAP = 2


class Status(NamedTuple):
  """Where a sweep stands, and since when.

  Attributes:
    progress: The latest progress; None before the first.
    elapsed: Seconds from the start to `progress`.
    since: Seconds from `progress` to now.
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
    console: The console to show it on.

  Yields:
    The function to call after every segment of training.
  """
  clock = _Clock()

  def view() -> RenderableType:
    return sweep_view(clock.status(), console.width, console.height)

  with _live_view(console, view, lambda: sweep_line(clock.status())) as say:
    phase, said_end, placement = "", False, None

    def on_progress(progress: Progress) -> None:
      nonlocal phase, said_end, placement
      clock.update(progress)
      if progress.placement not in (placement, None):
        placement = progress.placement
        _print(console, placement_line(placement))
      turn = progress.phase not in (phase, TRAINING)
      end = progress.phase == TRAINING and progress.done == progress.total and not said_end
      phase, said_end = progress.phase, progress.done == progress.total and (said_end or end)
      say(turn or end)

    yield on_progress


@contextlib.contextmanager
def fraction_display(console: Console, title: str) -> Iterator[Callable[[float], None]]:
  """Shows how much of a task is done while the context lasts.

  Args:
    console: The console to show it on.
    title: What is being done, in a few words.

  Yields:
    The function to call with the fraction done, 0 to 1.
  """
  started, done = time.monotonic(), 0.0

  def line() -> str:
    elapsed = time.monotonic() - started
    left = elapsed * (1 - done) / done if done else math.nan
    return f"{title}: {done:.0%}, {duration(elapsed)} gone, {_time_left(left)}"

  with _live_view(console, lambda: Group(_bar(done, console.width), _text(line())), line) as say:
    def on_progress(fraction: float) -> None:
      nonlocal done
      done = fraction
      say(fraction >= 1)

    yield on_progress


@contextlib.contextmanager
def _live_view(
    console: Console, view: Callable[[], RenderableType], line: Callable[[], str]
) -> Iterator[Callable[[bool], None]]:
  """Draws `view` over and over; where that is not possible, prints `line` now and then.

  Args:
    console: The console to draw on.
    view: Makes what a terminal shows.
    line: Makes the line that a log gets.

  Yields:
    The function to call on news; its argument says whether the news must be printed at once.
  """
  if is_live(console):
    with Live(get_renderable=view, console=console, transient=True,
              refresh_per_second=REFRESHES_PER_SECOND):
      yield lambda at_once: None
  else:
    _print(console, line())
    yield throttle(lambda: _print(console, line()))


def say(text: str, file: Any = None) -> None:
  """Prints lines: the one function that writes to a terminal or a log, but for live views.

  Args:
    text: Any text; characters that do not print are shown as their escapes.
    file: The stream to print to, standard output by default.
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


def throttle(
    say: Callable[[], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[bool], None]:
  """A function that calls `say` at most every few seconds, and whenever it is asked to `at_once`.

  Args:
    say: The function to call.
    clock: Gives the time in seconds.
  """
  said = clock()

  def call(at_once: bool) -> None:
    nonlocal said
    if at_once or clock() - said >= SECONDS_BETWEEN_LINES:
      said = clock()
      say()

  return call


def placement_line(placement: Placement) -> str:
  """How the runs of a group are put on the devices, and how much memory they take there."""
  launches = "1 launch" if placement.launches == 1 else f"{placement.launches:,} launches"
  runs = "1 run" if placement.runs == 1 else f"{placement.runs:,} runs"
  devices = "1 device" if placement.devices == 1 else f"{placement.devices} devices"
  if placement.devices < placement.devices_there:
    devices = f"{placement.devices} of {placement.devices_there} devices (see devices_per_run)"
  shared = f", {placement.devices_per_run} a run" if placement.devices_per_run > 1 else ""
  streamed = " at a time, streamed from the host" if placement.streamed else ""
  return (f"{launches} of {runs} on {devices}{shared}; on each {_memory(placement.bytes_needed)} "
          f"of {_memory(placement.bytes_allowed)} allowed: {_memory(placement.bytes_per_run)} a "
          f"run, {_memory(placement.bytes_of_data)} of data{streamed}")


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
  return ", ".join([share, *_numbers(status, progress), *_remarks(progress)])


def sweep_view(status: Status, width: int, height: int) -> RenderableType:
  """A sweep's progress for a terminal: a bar, its numbers, and the watched metric of each arm.

  Args:
    status: Where the sweep stands.
    width: The width of the terminal, characters.
    height: The height of the terminal, lines.

  Returns:
    What rich can draw in no more than this space.
  """
  progress = status.progress
  if progress is None:
    return _text(f"preparing, {duration(status.since)}")
  remarks = _text(", ".join(_remarks(progress)), style="yellow" if progress.diverged else "")
  heading, values = watched_text(progress.watched, progress.metric)
  return Group(
      _bar(progress.done / progress.total, width),
      _text(", ".join(_numbers(status, progress)) if progress.phase == TRAINING
           else f"{progress.phase}, {duration(status.since)}"),
      remarks,
      _text(""),
      _text(heading, style="bold"),
      arms_table(values, width, height - _LINES_AROUND_ARMS))


def watched_text(watched: Mapping[str, float], metric: Metric) -> tuple[str, dict[str, str]]:
  """The heading of the watched metric, with the unit in which it is shown, and its values.

  Args:
    watched: The value of the metric for each arm, in the metric's own unit; nan where there is
      none yet.
    metric: The metric.

  Returns:
    The heading, and the text of each arm's value.
  """
  unit = display_unit(metric.unit, np.array(list(watched.values()), np.float64))
  heading = f"validation {metric.name}" + (f", {unit.name}" if metric.unit != "1" else "")
  return heading, {arm: number_text(unit.factor * value) for arm, value in watched.items()}


def arms_table(values: Mapping[str, str], width: int, height: int) -> Table:
  """Arms and the texts of their values in as few columns as fit, read downwards.

  Args:
    values: The text of each arm's value.
    width: The width of the space there is, characters.
    height: The height of the space there is, lines.

  Returns:
    A table; arms that do not fit are counted in its last cell.
  """
  height = max(1, height)
  columns = max(1, min(width // _NARROWEST_COLUMN, math.ceil(len(values) / height)))
  cells = list(values.items())
  if len(cells) > columns * height:
    hidden = len(cells) - columns * height + 1
    cells = [*cells[:-hidden], (f"and {hidden} more", "")]
  rows = math.ceil(len(cells) / columns)
  name_width = width // columns - max(len(value) for _, value in cells) - 2 * _GAP
  table = Table.grid(padding=(0, _GAP, 0, 0))
  for _ in range(columns):
    table.add_column()
    table.add_column(justify="right")
  for row in range(rows):
    table.add_row(*(
        _text(text) for name, value in cells[row::rows]
        for text in (short_name(visible_text(name), name_width), value)))
  return table


def short_name(name: str, width: int) -> str:
  """A name with its middle left out where it is too long: arms often differ at their ends.

  Args:
    name: The name.
    width: The most characters that it may take.
  """
  if len(name) <= width:
    return name
  tail = max(0, width - 1) // 2
  return name[:max(0, width - 1 - tail)] + "…" + (name[-tail:] if tail else "")


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


def _numbers(status: Status, progress: Progress) -> list[str]:
  rate = "?" if math.isnan(status.rate) else f"{status.rate:,.0f}"
  return [f"{progress.done:,} of {progress.total:,} steps of all runs", f"{rate} steps/s",
          _time_left(status.left)]


def _time_left(seconds: float) -> str:
  return "time left unknown" if math.isnan(seconds) else f"{duration(seconds)} left"


def _remarks(progress: Progress) -> list[str]:
  runs = "run" if progress.diverged == 1 else "runs"
  return [f"compiled in {progress.compile_seconds:.1f} s", f"{progress.diverged} {runs} diverged"]


def _bar(share: float, width: int) -> RenderableType:
  bar = Table.grid(padding=(0, 1, 0, 0))
  bar.add_row(ProgressBar(total=1.0, completed=share, width=max(10, min(60, width - 7))),
              _text(f"{share:.0%}"))
  return bar
