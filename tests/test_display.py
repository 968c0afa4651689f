"""What a user sees while a sweep runs."""

import io
import math

import pytest
from rich.console import Console

from dcnn.base.measures import Metric
from dcnn.jobs import display
from dcnn.sweeps.memory import Placement
from dcnn.sweeps.sweep import Progress

FORCE = Metric("force_loss", "eV/A", "error")
NAMES = [
    f"c={c}{matched}{labels}" for labels in ("", ",standardize", ",min_max")
    for matched in ("", ",init_matched") for c in (0.1, 0.25, 0.5, 0.75, 1.0, 2.0)]


def progress(done=50, arms=2, **changes):
  names = [*NAMES, *(f"c={i}" for i in range(len(NAMES), arms))]
  losses = {name: 0.0123 * (i + 1) for i, name in enumerate(names[:arms])}
  return Progress(
      phase="training", done=done, total=200, reused=0, watched=losses, metric=FORCE, diverged=0,
      compile_seconds=2.0)._replace(**changes)


def drawn(renderable, width=80, height=24):
  console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
  console.print(renderable)
  return console.file.getvalue().rstrip("\n").splitlines()


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_rate_and_time_left_leave_compilation_out():
  status = display.Status(progress(done=50), elapsed=7.0, since=1.0)
  assert status.rate == 10  # 50 steps in 7 - 2 seconds
  assert status.left == 14  # 150 steps at 10 a second, 1 second ago


@pytest.mark.parametrize("status", [
    display.Status(None, 3.0, 0.0), display.Status(progress(done=0), 7.0, 0.0),
    display.Status(progress(), 2.0, 0.0)], ids=["no_chunk", "no_step", "no_time"])
def test_unknown_time_left(status):
  assert math.isnan(status.left)
  assert display.sweep_line(status) and drawn(display.sweep_view(status, 80, 24))


def test_time_left_is_not_negative():
  assert display.Status(progress(done=199), 4.0, 60.0).left == 0


def test_what_was_reused_took_no_time():
  status = display.Status(progress(done=150, reused=100), elapsed=7.0, since=0.0)
  assert status.rate == 10 and status.left == 5


@pytest.mark.parametrize("phase", ["compiling", "evaluating"])
def test_phases_without_steps(phase):
  status = display.Status(progress(phase=phase), 7.0, 3.0)
  assert display.sweep_line(status) == f"25%, {phase}"
  assert f"{phase}, 3.0 s" in drawn(display.sweep_view(status, 80, 24))[1]


def test_line():
  status = display.Status(progress(done=50, diverged=1), 7.0, 0.0)
  assert display.sweep_line(status) == (
      "25%, 50 of 200 steps of all runs, 10 steps/s, 15.0 s left, compiled in 2.0 s, "
      "1 run diverged")


@pytest.mark.parametrize("arms, width, height", [
    (1, 80, 24), (25, 80, 24), (36, 80, 24), (35, 120, 40), (300, 80, 24), (300, 20, 8)])
def test_view_fits_the_terminal(arms, width, height):
  view = display.sweep_view(display.Status(progress(arms=arms), 7.0, 0.0), width, height)
  lines = drawn(view, width, height)
  # On a terminal narrower than the numbers their lines fold.
  assert len(lines) < height or width < 80
  assert max(map(len, lines)) <= width


def test_view_shows_each_arm_in_order():
  heading, values = display.watched_text(progress(arms=25).watched, FORCE)
  lines = drawn(display.arms_table(values, 80, 17))
  assert heading == "validation force_loss, meV/Å" and len(lines) == 13
  assert lines[0].split() == ["c=0.1", "12.3", "c=0.25,standardize", "172"]
  assert lines[12].split() == ["c=0.1,standardize", "160"]


@pytest.mark.parametrize("metric, values, heading, texts", [
    (Metric("u_loss", "1", "error"), [0.0123, 2.0], "validation u_loss", ["0.0123", "2.00"]),
    (Metric("heat", "K", "error"), [123.4, 45.67], "validation heat, K", ["123", "45.7"]),
    (Metric("heat", "K", "error"), [0.5, math.nan], "validation heat, mK", ["500", "–"]),
    (Metric("a", "m/s", "error"), [math.nan] * 2, "validation a, m/s", ["–", "–"]),
    (FORCE, [0.0, 3e7], "validation force_loss, eV/Å", ["0.00", "3.00e+07"]),
], ids=["no-unit", "large", "one-nan", "nothing-yet", "zero"])
def test_the_watched_metric_of_any_task(metric, values, heading, texts):
  found = display.watched_text(dict(zip("ab", values, strict=True)), metric)
  assert found == (heading, dict(zip("ab", texts, strict=True)))
  view = display.sweep_view(display.Status(
      progress(watched=dict(zip("ab", values, strict=True)), metric=metric), 7.0, 0.0), 80, 24)
  assert heading in drawn(view)


def test_arms_that_do_not_fit_are_counted():
  values = display.watched_text(progress(arms=60).watched, FORCE)[1]
  lines = drawn(display.arms_table(values, 80, 10))
  assert len(lines) == 10 and lines[-1].rstrip().endswith("and 31 more")
  assert sum(line.count("c=") for line in lines) == 60 - 31


def test_diverged_arm_has_a_dash():
  (line,) = drawn(display.arms_table(display.watched_text({"c=100": math.nan}, FORCE)[1], 80, 10))
  assert line.split() == ["c=100", "–"]


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "a\\[b"])
def test_names_are_no_markup(name):
  assert drawn(display.arms_table({name: "1.0"}, 80, 10))[0].startswith(name)


@pytest.mark.parametrize("name, shown", [
    ("\x1b[2J", "\\x1b[2J"), ("\u202eabc", "\\u202eabc"), ("a\tb", "a\\tb"), ("\x00", "\\x00"),
    ("\ud800", "\\ud800"), ("[bold]é", "[bold]é")],
    ids=["escape", "bidi", "tab", "nul", "surrogate", "plain"])
def test_names_show_what_does_not_print(name, shown, monkeypatch):
  (line,) = drawn(display.arms_table({name: "1.0"}, 80, 10))
  assert line.split()[0] == shown
  monkeypatch.setenv("TERM", "xterm")
  for file in (io.StringIO(), Terminal()):
    display._print(Console(file=file, width=80, color_system=None), f"arm {name}")
    assert f"arm {shown}" in file.getvalue() and name not in file.getvalue().replace(shown, "")


@pytest.mark.parametrize("width, expected", [
    (9, "abcdefghi"), (8, "abcd…ghi"), (5, "ab…hi"), (2, "a…"), (1, "…")])
def test_short_name(width, expected):
  assert display.short_name("abcdefghi", width) == expected
  assert len(expected) == width


def test_throttle():
  now, said = [0.0], []
  say = display.throttle(lambda: said.append(now[0]), clock=lambda: now[0])
  for now[0] in range(13):
    say(now[0] == 12)
  assert said == [5, 10, 12]


def test_terminal_shows_a_bar(monkeypatch):
  monkeypatch.setenv("TERM", "xterm")
  terminal = Terminal()
  with display.sweep_display(Console(file=terminal, width=80, height=24)) as on_progress:
    on_progress(progress())
  shown = terminal.getvalue()
  assert "25%" in shown and "50 of 200 steps" in shown and "c=0.25" in shown and "24.6" in shown


def test_log_gets_lines(monkeypatch):
  monkeypatch.setenv("FORCE_COLOR", "1")
  log = io.StringIO()
  with display.sweep_display(Console(file=log)) as on_progress:
    for phase, done in (("compiling", 0), ("training", 50), ("training", 200),
                        ("evaluating", 200), ("training", 200)):
      on_progress(progress(done=done, phase=phase))
  start, compiling, end, evaluating = log.getvalue().splitlines()
  assert (start, compiling) == ("preparing, 0.0 s", "0%, compiling")
  assert end.startswith("100%, 200 of 200 steps") and evaluating == "100%, evaluating"


PLACEMENT = Placement(
    runs=20, launches=12, devices=8, devices_there=8, devices_per_run=2, bytes_per_run=3.14e6,
    bytes_of_data=250e6, bytes_needed=1_260_000_000, bytes_allowed=8e9, streamed=True)


@pytest.mark.parametrize("placement, text", [
    (PLACEMENT, "12 launches of 20 runs on 8 devices, 2 a run; on each 1.3 GB of 8.0 GB allowed: "
             "3.1 MB a run, 250.0 MB of data at a time, streamed from the host"),
    (PLACEMENT._replace(
        runs=1, launches=1, devices=1, devices_there=1, devices_per_run=1, streamed=False),
     "1 launch of 1 run on 1 device; on each 1.3 GB of 8.0 GB allowed: 3.1 MB a run, 250.0 MB of "
     "data"),
    (PLACEMENT._replace(runs=3, launches=1, devices=6),
     "1 launch of 3 runs on 6 of 8 devices (see devices_per_run), 2 a run; on each 1.3 GB of 8.0 "
     "GB allowed: 3.1 MB a run, 250.0 MB of data at a time, streamed from the host")],
    ids=["several", "one", "idle"])
def test_placement(placement, text):
  assert display.placement_line(placement) == text


@pytest.mark.parametrize("size, text", [
    (0, "0.0 B"), (999, "999.0 B"), (1000, "1.0 kB"), (2.5e6, "2.5 MB"), (1e9, "1.0 GB"),
    (1e13, "10,000.0 GB")])
def test_memory(size, text):
  assert display._memory(size) == text


@pytest.mark.parametrize("file", [io.StringIO, Terminal], ids=["log", "terminal"])
def test_the_placement_of_each_group_is_printed_once_and_whole(file, monkeypatch):
  monkeypatch.setenv("TERM", "xterm")
  shown = file()
  with display.sweep_display(Console(file=shown, width=60, height=24)) as on_progress:
    for placement in (None, PLACEMENT, PLACEMENT, PLACEMENT._replace(runs=7)):
      on_progress(progress(placement=placement))
  for placement in (PLACEMENT, PLACEMENT._replace(runs=7)):
    assert shown.getvalue().count(display.placement_line(placement)) == 1


def test_second_sweep_starts_anew():
  clock = display._Clock()
  clock.update(progress(done=200))
  clock._started -= 100
  clock.update(progress(done=10, total=1000))
  assert clock.status().elapsed < 1


def test_drawn_numbers_are_a_copy():
  """The sweep goes on changing its dictionary."""
  clock, latest = display._Clock(), progress()
  clock.update(latest)
  latest.watched["c=9"] = 1.0
  drawn_progress = clock.status().progress
  assert drawn_progress is not None and "c=9" not in drawn_progress.watched


@pytest.mark.parametrize("fraction, text", [
    (0.0, "water: 0%, 0.0 s gone, time left unknown"),
    (1.0, "water: 100%, 0.0 s gone, 0.0 s left")])
def test_fraction(fraction, text):
  log = io.StringIO()
  with display.fraction_display(Console(file=log), "water") as on_progress:
    on_progress(fraction)
  assert log.getvalue().splitlines()[-1] == text
