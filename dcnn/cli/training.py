"""The command that trains: joins other processes, claims a directory, hears signals, reports."""

import concurrent.futures
import contextlib
import contextvars
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from dcnn import jobs, sweeps
from dcnn.base import processes, wording
from dcnn.base.text import duration
from dcnn.cli import arguments, joining, runtime
from dcnn.cli.messages import FAILURE, Stop, complain, stop_on_errors
from dcnn.jobs import display, interruption, trackers, tracking, tuning, workdirs
from dcnn.results import records, storage


class Interrupted(Exception):
  """A signal ended a sweep; all has been written that will be. `status` is the exit status."""

  def __init__(self, status: int) -> None:
    """The signal decides the status."""
    super().__init__()
    self.status = status


def train(asked: arguments.Training, command: str) -> None:
  """Runs an experiment, or continues it, and reports.

  Of several processes the first writes and speaks, and the others say only what goes wrong.

  Args:
    asked: What the command line says.
    command: The command line, for the report.

  Raises:
    Stop: On a mistake of the user or a failure of the machine.
    Interrupted: After a signal.
    FailedElsewhere, Lost: If another process has failed or is gone.
  """
  assert asked.workdir is not None  # `parse_train` asks for it
  runtime.configure_jax(alone=asked.meeting is None)
  runtime.quieten_libraries()
  runtime.check_xla_flags()
  if asked.meeting is not None:
    joining.join(asked.meeting, complain)
  runtime.check_devices()
  first = processes.is_first()
  if not first:
    runtime.silence()
  with processes.fail_together():
    experiment = prepare(asked)
    manifest = jobs.describe(experiment, command)
  with contextlib.ExitStack() as claim:
    with processes.fail_together(), stop_on_errors():
      jobs.check_same(manifest)
      if first and asked.fresh and workdirs.is_taken(asked.workdir):
        display.say(f"moved {asked.workdir} to {workdirs.move_aside(asked.workdir)}")
      if first and claim.enter_context(workdirs.hold(asked.workdir, manifest)):
        display.say(f"continuing {asked.workdir}")
    say = complain if first else lambda text: None
    with stop_on_errors(FAILURE), interruption.listen_with_deadline(say) as request:
      if first:
        manifest = workdirs.begin(asked.workdir, manifest)
      names = asked.log if first else ()
      for name in names:
        display.say(f"{name}: {trackers.TRACKERS[name].place(asked.workdir)}")
      with tracking.tracked(names, asked.workdir, manifest) as on_results:
        _run(experiment, manifest, asked.workdir, request, first, on_results)


def prepare(asked: arguments.Training) -> jobs.Experiment:
  """Reads the experiment and its data, and says which data these are.

  Raises:
    Stop: On the first mistake that can be found before training.
  """
  config = arguments.load_config(asked.config)
  arguments.override(config, asked.overrides)
  with stop_on_errors(), wording.options_under("config."):
    experiment = jobs.prepare(config)
  display.say(f"data: {experiment.data.summary}")
  return experiment


def _run(
    experiment: jobs.Experiment, manifest: Mapping[str, Any], workdir: pathlib.Path,
    request: interruption.Request, first: bool, on_results: sweeps.OnResults | None,
) -> None:
  """Runs an experiment in a claimed directory; the first process writes all there is to write."""
  try:
    finished = _train_in_a_thread(experiment, manifest, workdir, request, on_results)
  except sweeps.Diverged as diverged:
    if not first:
      raise processes.FailedElsewhere(FAILURE) from diverged
    _write_so_far(workdir)
    raise Stop(str(diverged), FAILURE) from diverged
  except sweeps.Interrupted as interrupted:
    if first:
      _write_so_far(workdir)
    raise Interrupted(request.status) from interrupted
  if first:
    workdirs.write(finished.result, workdir)
    _summarise(finished.result, workdir)
  if request.is_made():
    raise Interrupted(request.status)


def _train_in_a_thread(
    experiment: jobs.Experiment, manifest: Mapping[str, Any], workdir: pathlib.Path,
    request: interruption.Request, on_results: sweeps.OnResults | None,
) -> jobs.Finished:
  """Runs an experiment in another thread: this one hears signals while compiled code holds it.

  A request that comes in training is heard between two segments of it. Compilations and
  evaluations cannot be cut short; all has been saved before they begin, so that nobody waits for
  them.

  Raises:
    sweeps.Interrupted: After a request.
  """
  phase = ""
  with display.sweep_display(Console()) as show:
    def on_progress(progress: sweeps.Progress) -> None:
      nonlocal phase
      if (request.is_made() and processes.count() == 1  # several must agree
          and sweeps.TRAINING == progress.phase != phase):
        raise sweeps.Interrupted  # nobody waits for this thread: it may write nothing any more
      phase = progress.phase
      show(progress)

    worker = concurrent.futures.ThreadPoolExecutor(1).submit(
        contextvars.copy_context().run, jobs.run, experiment, on_progress, manifest=manifest,
        directory=workdir, should_stop=request.is_made,
        on_tuned=lambda tuned: display.say(tuning.summary(tuned)), on_results=on_results)
    if processes.is_first():
      _import_report(request)
    while not concurrent.futures.wait([worker], timeout=0.1).done:
      if request.is_made() and phase != sweeps.TRAINING:
        raise sweeps.Interrupted
  with _leave_others(request):
    return worker.result()


@contextlib.contextmanager
def _leave_others(request: interruption.Request) -> Iterator[None]:
  """Shuts the distributed runtime down after an outcome that all processes share."""
  try:
    yield
  except (sweeps.Diverged, sweeps.Interrupted):
    processes.shutdown()
    raise
  except processes.Lost as lost:
    if request.is_made():  # so have the others been asked to stop, and they heard it first
      raise sweeps.Interrupted from lost
    raise
  processes.shutdown()


def _import_report(request: interruption.Request) -> None:
  """Imports what the report will need, for a second or two, while XLA compiles in other threads.

  A request to stop is heard between the imports: tracing holds Python, so that each may take long.
  """
  def import_statistics() -> None:
    import scipy.stats

    del scipy

  def import_figures() -> None:
    from dcnn.results import report

    with contextlib.suppress(Exception):  # the report will say what is wrong with Matplotlib
      report.load_figures()

  for load in (import_statistics, import_figures):
    if not request.is_made():
      load()


def _write_so_far(workdir: pathlib.Path) -> None:
  """Writes results and report of what has ended or been validated, and says how to go on."""
  if not workdirs.holds_work(workdir):
    return
  try:
    result = workdirs.so_far(workdir)
  except ValueError as error:  # an evaluation nobody waited for may be replacing what is read
    complain(f"no report of what there is so far: {error}")
    return
  storage.save(result, workdir)
  unfinished = sum(result.unfinished.values())
  display.say(f"{unfinished} runs are unfinished"
        + ("; the same command continues them" if unfinished else ""))
  display.say(f"results so far: {workdir}")
  workdirs.draw(workdir)
  display.say(f"report so far: {workdir / 'report.html'}")


def _summarise(result: records.Result, workdir: pathlib.Path) -> None:
  """Says what came out: tables, times, and where the files are."""
  console = Console()
  text = result.table() if result.tables else ""
  if display.is_live(console) and max(map(len, text.splitlines()), default=0) > console.width:
    text = f"tables: {workdir / 'report.md'} (too wide for this terminal)"
  if text:
    display.say(text + "\n")
  timing = result.config["timing"]
  display.say(f"{timing['runs']} runs: compiled in {duration(timing['compile_seconds'])}, trained "
              f"in {duration(timing['train_seconds'])}, evaluated in "
              f"{duration(timing['evaluate_seconds'])}")
  display.say(f"results: {workdir}")
  display.say(f"report: {workdir / 'report.html'}")
