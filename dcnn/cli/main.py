"""The command line: `dcnn`, `dcnn report` and `dcnn generate`.

The one place with prints and global settings of JAX. A user's mistake is told in one line
and leaves nothing behind; an error of ours keeps its traceback.
"""

import concurrent.futures
import contextlib
import contextvars
import gc
import logging
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from dcnn import jobs, sweeps
from dcnn.base import processes, version, wording
from dcnn.base.text import visible_text
from dcnn.cli import arguments, joining, streams
from dcnn.cli.arguments import FAILURE
from dcnn.data import generation
from dcnn.jobs import display, interruption, workdirs
from dcnn.results import records

USAGE = """\
dcnn trains derivative-constrained networks and compares what their ingredients buy.

  dcnn --config=NAME[:VARIANT] --workdir=DIR [--fresh] [--config.KEY=VALUE ...]
      Runs an experiment that comes with dcnn (ablations, rmd17) or, as FILE.py in place of NAME,
      that of a file, which is Python code. DIR/report.html is what to read.
      The same command continues what was interrupted; more seeds and arms extend what is
      finished. --fresh moves an old DIR aside first.

  dcnn --distributed [--coordinator_address=HOST:PORT --num_processes=N --process_id=I] ...
      The same with the devices of many machines: give it to all processes. SLURM, Open MPI
      and TPU pods need none of the other three.

  dcnn report DIR
      Draws the report again from the files in DIR, also while a sweep is under way.

  dcnn generate --smiles=SMILES --out=FILE.npz [--frames=2000] [--seed=0]
                [--temperature=500] [--workers=CORES]
      Makes a data set of a molecule by GFN2-xTB dynamics; needs the extra xtb.

  dcnn --help, dcnn --version

Examples:
  dcnn --config=ablations --workdir=results/ablations
  dcnn --config=ablations:smoke --workdir=results/smoke --config.seeds=0,1,2
  dcnn generate --smiles=CCO --out=ethanol.npz"""

CACHE_BYTES = 2**30  # of compiled programs, the oldest of which go first; one takes 1 to 3 MB
WORTH_KEEPING_SECONDS = 0.1

_python_format = warnings.formatwarning


def entry() -> int:
  """Runs the command line of this process and returns the exit status."""
  with streams.forgiving_streams(), wording.options_under("--"):
    return _entry()


def _entry() -> int:
  warnings.formatwarning = format_warning
  try:
    status = _status(sys.argv[1:])
  except Exception:  # a bug of ours, told before the other processes are left
    if processes.count() == 1:
      raise
    traceback.print_exc()
    status = FAILURE
  if status and processes.count() > 1:
    interruption.leave(status)  # the others would be waited for
  gc.freeze()  # or the interpreter spends a second looking for what it can collect before it ends
  return status


def _status(argv: Sequence[str]) -> int:
  try:
    run(argv)
  except arguments.Stop as stop:
    _complain(f"error: {_one_line(str(stop))}")
    return stop.status
  except KeyboardInterrupt:
    _complain("interrupted")
    return 128 + signal.SIGINT
  except _Interrupted as interrupted:
    interruption.leave(interrupted.status)
  except processes.FailedElsewhere as failed:
    return failed.status
  except processes.Lost as lost:
    joining.end_without(lost, _complain)
  return 0


class _Interrupted(Exception):
  """A signal ended a sweep; all has been written that will be."""

  def __init__(self, status: int) -> None:
    super().__init__()
    self.status = status


def run(argv: Sequence[str]) -> None:
  """Runs a command.

  Args:
    argv: the command line without the program's name.

  Raises:
    Stop: on a mistake of the user or a failure of the machine.
  """
  commands = {"report": report, "generate": generate}
  if not argv or {"-h", "--help"} & set(argv) or argv[0] == "help":
    display.say(USAGE)
  elif "--version" in argv:
    display.say(f"dcnn {version.__version__}")
  elif argv[0].startswith("-"):
    train(argv)
  elif argv[0] in commands:
    commands[argv[0]](argv[1:])
  else:
    raise arguments.Stop(
        f"unknown command {argv[0]!r}: {arguments.suggestion(argv[0], commands)}known are "
        f"{', '.join(commands)}; an experiment is run with --config=NAME --workdir=DIR")


def train(argv: Sequence[str]) -> None:
  """`dcnn --config=... --workdir=...`: runs an experiment, or continues it, and reports.

  Of several processes the first writes and speaks, and the others say only what goes wrong.
  """
  asked = arguments.parse_train(argv)
  configure_jax(alone=asked.meeting is None)
  _quieten_libraries()
  check_xla_flags()
  if asked.meeting is not None:
    joining.join(asked.meeting, _complain)
  check_devices()
  first = processes.is_first()
  if not first:
    _be_quiet()
  with processes.together():
    config = arguments.load_config(asked.config)
    arguments.override(config, asked.overrides)
    with _told(), wording.options_under("config."):
      experiment = jobs.prepare(config)
    display.say(f"data: {experiment.data.summary}")
    manifest = jobs.describe(experiment, shlex.join(["dcnn", *argv]))
  with contextlib.ExitStack() as claim:
    with processes.together(), _told():
      jobs.check_same(manifest)
      if first:
        _claim(asked, manifest, claim)
    with _told(FAILURE), interruption.heeded(_complain if first else _ignore) as request:
      if first:
        workdirs.begin(asked.workdir, manifest)
      _run(experiment, manifest, asked.workdir, request, first)


def _claim(
    asked: arguments.Training, manifest: Mapping[str, Any], claim: contextlib.ExitStack
) -> None:
  """Holds the work directory, until `claim` is closed, if this experiment may go there."""
  if asked.fresh and workdirs.is_taken(asked.workdir):
    display.say(f"moved {asked.workdir} to {workdirs.move_aside(asked.workdir)}")
  if claim.enter_context(workdirs.hold(asked.workdir, manifest)):
    display.say(f"continuing {asked.workdir}")


def _run(
    experiment: jobs.Experiment, manifest: Mapping[str, Any], workdir: pathlib.Path,
    request: interruption.Request, first: bool,
) -> None:
  """Runs an experiment in a claimed directory; the first process writes all there is to write."""
  try:
    finished = _trained(experiment, manifest, workdir, request)
  except sweeps.Diverged as diverged:
    if not first:
      raise processes.FailedElsewhere(FAILURE) from diverged
    _write_so_far(workdir)
    raise arguments.Stop(str(diverged), FAILURE) from diverged
  except sweeps.Interrupted as interrupted:
    if first:
      _write_so_far(workdir)
    raise _Interrupted(request.status) from interrupted
  if first:
    workdirs.write(finished.result, workdir)
    _tell(finished.result, workdir)
  if request.is_made():
    raise _Interrupted(request.status)


def _trained(
    experiment: jobs.Experiment, manifest: Mapping[str, Any], workdir: pathlib.Path,
    request: interruption.Request,
) -> jobs.Finished:
  """Runs an experiment in another thread: this one hears signals while compiled code holds it.

  A request that comes in training is heard between two stretches of it; in compilation and
  evaluation, which are not cut short, all has been saved and nobody waits.

  Raises:
    Interrupted: after a request.
  """
  phase = ""
  with display.sweep_display(Console()) as show:
    def on_progress(progress: sweeps.Progress) -> None:
      nonlocal phase
      phase = progress.phase
      show(progress)

    worker = concurrent.futures.ThreadPoolExecutor(1).submit(
        contextvars.copy_context().run, jobs.run, experiment, on_progress, manifest=manifest,
        directory=workdir, should_stop=request.is_made)
    if processes.is_first():
      _load_report(request)
    while not concurrent.futures.wait([worker], timeout=0.1).done:
      if request.is_made() and phase != sweeps.TRAINING:
        raise sweeps.Interrupted
  with _parting(request):
    return worker.result()


@contextlib.contextmanager
def _parting(request: interruption.Request) -> Iterator[None]:
  """Parts from the other processes after what comes to the same end in all."""
  try:
    yield
  except (sweeps.Diverged, sweeps.Interrupted):
    processes.part()
    raise
  except processes.Lost as lost:
    if request.is_made():  # so were the others, who heard it first
      raise sweeps.Interrupted from lost
    raise
  processes.part()


def report(argv: Sequence[str]) -> None:
  """`dcnn report DIR`: draws the report of a finished run again."""
  directories = arguments.parse(arguments.flag_values(), argv)
  if len(directories) != 1:
    raise arguments.Stop("expected one directory, as in `dcnn report results/ablations`, got "
                         f"{shlex.join(directories) or 'none'}")
  directory = arguments.home_path(directories[0])
  if not directory.is_dir():
    raise arguments.Stop(f"{directory}: no such directory")
  _quieten_libraries()
  with _told():
    workdirs.check_free(directory)
    unfinished = workdirs.is_unfinished(directory)
    result = workdirs.so_far(directory) if unfinished else records.load(directory)
  with _told(FAILURE):
    if unfinished and workdirs.is_unfinished(directory):  # still; its own results are better
      records.save(result, directory)
    workdirs.draw(directory)
  display.say(f"report: {directory / 'report.html'}")


def generate(argv: Sequence[str]) -> None:
  """`dcnn generate`: makes a data set of a molecule."""
  values = arguments.parse_generate(argv)
  out = arguments.home_path(values.out)
  with _told(), display.fraction_display(Console(), f"generating {out.name}") as on_progress:
    arrays = generation.generate(
        values.smiles, frames=values.frames, seed=values.seed, temperature=values.temperature,
        workers=values.workers, on_progress=on_progress)
  with _told(FAILURE):
    out = free_name(out)  # another may have written there meanwhile, and this took minutes
    generation.save(arrays, out)
  frames, atoms, _ = arrays["positions"].shape
  display.say(f"wrote {out}: {frames:,} frames of {atoms} atoms; train on it with "
        f"{shlex.quote(f'--config.dataset={out}')}")


def free_name(path: pathlib.Path) -> pathlib.Path:
  """The path, or where there is something the first free of NAME.1.npz, NAME.2.npz, ..."""
  free, number = path, 0
  while os.path.lexists(free):
    number += 1
    free = path.with_suffix(f".{number}{path.suffix}")
  return free


def configure_jax(*, alone: bool = True) -> None:
  """Global settings of JAX; they must come before its first array.

  Args:
    alone: whether there are no other processes; else JAX's own settings say what is kept, because
      on GPUs a process that compiles waits for those that found the program in their cache.
  """
  # A sweep spreads its runs over devices, and a CPU is one device unless told otherwise.
  if "JAX_NUM_CPU_DEVICES" not in os.environ and (
      "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", "")):
    jax.config.update("jax_num_cpu_devices", processes.usable_cores())
  if alone:
    _keep_compiled()


def check_xla_flags() -> None:
  """Makes sure that XLA takes the flags in its variable, if there are any.

  It aborts a process that gives it others, so another process tries them, for a second or two.

  Raises:
    Stop: with what XLA says of the first that it does not take.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  if not flags.strip():
    return
  tried = subprocess.run(
      [sys.executable, "-c", "import jax; jax.devices('cpu')"], capture_output=True, text=True,
      errors="replace", env={**os.environ, "JAX_PLATFORMS": "cpu"})
  if tried.returncode:
    lines = [line for line in tried.stderr.splitlines() if "flag" in line.lower()] or [""]
    said = re.sub(r"^[A-Z]\d{4} .*?\] ", "", lines[0])[:200]
    raise arguments.Stop(
        f"XLA_FLAGS={shlex.quote(flags)}: XLA refuses it ({said or 'it ends at once'}): correct or "
        "unset XLA_FLAGS", FAILURE)


def check_devices() -> None:
  """Starts JAX's devices, so that a failure is told before anything else is done.

  Raises:
    Stop: with what the variables that JAX reads hold.
  """
  try:
    jax.devices()
  except Exception as error:  # JAX raises RuntimeError, AssertionError and others
    held = [f"{name}={shlex.quote(os.environ[name])}" for name in (
        "JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES",
        "JAX_CUDA_VISIBLE_DEVICES") if name in os.environ]
    reason = (str(error).strip().splitlines() or ["it gives no reason"])[0][:300]
    advice = ("correct it, or unset it for the devices that JAX finds by itself" if held else
              "set JAX_PLATFORMS=cpu to compute on the CPU")
    raise arguments.Stop(
        f"{' '.join(held) or 'JAX'}: JAX finds no device to compute on ({reason}): {advice}",
        FAILURE) from error


def _keep_compiled() -> None:
  """Compiled programs are kept for the next process; JAX's own settings choose otherwise."""
  settings: Any = jax.config
  folder = _cache_folder()
  if folder is None or settings.jax_compilation_cache_dir:
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING_SECONDS)
  # It only saves time: on a full disk the checkpoints are what to speak of.
  warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")


def _cache_folder() -> pathlib.Path | None:
  """The user's cache, where it can be written to."""
  try:
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(cache) / "dcnn" / "compiled"  # of JAX alone, which deletes in it
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # no home, or none to write to
    return None
  return folder if os.access(folder, os.W_OK) else None


def _quieten_libraries() -> None:
  """A failed save ends in a line of ours; Orbax and asyncio would tell of each array first.

  Matplotlib tells of a font cache that it cannot write, which only saves time, and of settings of
  the user, which are not used.
  """
  for name in ("absl", "asyncio", "matplotlib"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  hook = sys.unraisablehook

  def unraisable(raised: Any) -> None:
    if str(raised.exc_value) != "Event loop is closed":
      hook(raised)

  sys.unraisablehook = unraisable


def _write_so_far(workdir: pathlib.Path) -> None:
  """Results and report of what has ended or been validated, and how to go on."""
  if not workdirs.holds_work(workdir):
    return
  try:
    result = workdirs.so_far(workdir)
  except ValueError as error:  # an evaluation nobody waited for may be replacing what is read
    _complain(f"no report of what there is so far: {error}")
    return
  records.save(result, workdir)
  unfinished = sum(result.unfinished.values())
  display.say(f"{unfinished} runs are unfinished"
        + ("; the same command continues them" if unfinished else ""))
  display.say(f"results so far: {workdir}")
  workdirs.draw(workdir)
  display.say(f"report so far: {workdir / 'report.html'}")


def _load_report(request: interruption.Request) -> None:
  """Imports what the report will need, for a second or two, while XLA compiles in other threads.

  A request to stop is heard in between: tracing holds Python, so that each may take long.
  """
  def load_statistics() -> None:
    import scipy.stats

    del scipy

  def load_figures() -> None:
    from dcnn.results import report

    with contextlib.suppress(Exception):  # the report will tell what is wrong with Matplotlib
      report.load_figures()

  for load in (load_statistics, load_figures):
    if not request.is_made():
      load()


def _tell(result: records.Result, workdir: pathlib.Path) -> None:
  """The end of a training command: tables, times, and where the files are."""
  console = Console()
  text = result.table() if result.tables else ""
  if display.is_live(console) and max(map(len, text.splitlines()), default=0) > console.width:
    text = f"tables: {workdir / 'report.md'} (too wide for this terminal)"
  if text:
    display.say(text + "\n")
  timing = result.config["timing"]
  display.say(f"{timing['runs']} runs: compiled in {timing['compile_seconds']:.1f} s, trained in "
        f"{timing['train_seconds']:.1f} s, evaluated in {timing['evaluate_seconds']:.1f} s")
  display.say(f"results: {workdir}")
  display.say(f"report: {workdir / 'report.html'}")


def _be_quiet() -> None:
  """For a process that others speak for; its errors are told all the same."""
  sys.stdout = open(os.devnull, "w")
  warnings.simplefilter("ignore")


def _ignore(text: str) -> None:
  del text


def _complain(text: str) -> None:
  display.say(f"dcnn: {text}", sys.stderr)


def format_warning(message, category, filename, lineno, line=None) -> str:
  """One line for our warnings, which are for the user; Python's format for those of libraries."""
  if category is UserWarning:
    return f"dcnn: warning: {visible_text(_one_line(str(message)))}\n"
  return visible_text(_python_format(message, category, filename, lineno, line))


@contextlib.contextmanager
def _told(denied: int = arguments.MISTAKE) -> Iterator[None]:
  """Ends with one line on what our checks refuse, and on what the machine denies.

  A ValueError that a library raises is a bug of ours and keeps its traceback.

  Args:
    denied: exit status of the latter.
  """
  try:
    yield
  except ValueError as error:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if not frame.f_globals.get("__name__", "").startswith("dcnn."):
      raise
    raise arguments.Stop(str(error)) from error
  except (OSError, ModuleNotFoundError) as error:
    raise arguments.Stop(arguments.message(error), denied) from error


def _one_line(text: str) -> str:
  return " ".join(line.strip() for line in text.splitlines() if line.strip())


if __name__ == "__main__":
  sys.exit(entry())
