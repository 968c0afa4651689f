"""The command line: `dcnn`, `dcnn report` and `dcnn generate`.

The one place with prints and global settings of JAX. A user's mistake is told in one line
and leaves nothing behind; an error of ours keeps its traceback.
"""

import concurrent.futures
import contextlib
import importlib.metadata
import json
import os
import pathlib
import shlex
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from rich.console import Console

from dcnn import arguments, configs, display, results, running, sweeps
from dcnn.data import generation

USAGE = """\
dcnn trains derivative-constrained networks and compares what their ingredients buy.

  dcnn --config=FILE.py[:VARIANT] --workdir=DIR [--config.KEY=VALUE ...]
      Runs the experiment of a file, which is Python code. DIR/report.html is what to read.

  dcnn report DIR
      Draws the report again from the files in DIR.

  dcnn generate --smiles=SMILES --out=FILE.npz [--frames=2000] [--seed=0]
                [--temperature=500] [--workers=CORES]
      Makes a data set of a molecule by GFN2-xTB dynamics; needs the extra xtb.

  dcnn --help, dcnn --version

Examples:
  dcnn --config=experiments/ablations.py --workdir=results/ablations
  dcnn --config=experiments/ablations.py:smoke --workdir=results/smoke --config.seeds=0,1,2
  dcnn generate --smiles=CCO --out=ethanol.npz"""

FAILURE = 1  # exit status: something may have been written
INTERRUPTED = 130

_python_format = warnings.formatwarning
_Returned = TypeVar("_Returned")


def entry() -> int:
  """Runs the command line of this process and returns the exit status."""
  warnings.formatwarning = format_warning
  try:
    run(sys.argv[1:])
  except arguments.Stop as stop:
    print(f"dcnn: error: {_one_line(str(stop))}", file=sys.stderr)
    return stop.status
  except KeyboardInterrupt:
    return _interrupted()
  return 0


def run(argv: Sequence[str]) -> None:
  """Runs a command.

  Args:
    argv: the command line without the program's name.

  Raises:
    Stop: on a mistake of the user or a failure of the machine.
  """
  commands = {"report": report, "generate": generate}
  if not argv or {"-h", "--help"} & set(argv) or argv[0] == "help":
    print(USAGE)
  elif "--version" in argv:
    print(f"dcnn {importlib.metadata.version('dcnn')}")
  elif argv[0].startswith("-"):
    train(argv)
  elif argv[0] in commands:
    commands[argv[0]](argv[1:])
  else:
    raise arguments.Stop(
        f"unknown command {argv[0]!r}: {arguments.suggestion(argv[0], commands)}known are "
        f"{', '.join(commands)}; an experiment is run with --config=FILE.py --workdir=DIR")


def train(argv: Sequence[str]) -> None:
  """`dcnn --config=... --workdir=...`: runs an experiment and writes its report."""
  file, workdir, overrides = arguments.parse_train(argv)
  configure_jax()
  config = arguments.load_config(file)
  arguments.override(config, overrides)
  with _told():
    configs.validate(config)
  check_workdir(workdir, config)
  try:
    with _told(), display.sweep_display(Console()) as on_progress:
      finished = _interruptible(lambda: running.run(
          config, on_progress, command=shlex.join(["dcnn", *argv])))
  except KeyboardInterrupt:
    os._exit(_interrupted())  # an orderly end would wait for compiled code to return
  with _told(FAILURE):
    _write(finished, workdir)
  _tell(finished.result, workdir)


def report(argv: Sequence[str]) -> None:
  """`dcnn report DIR`: draws the report of a finished run again."""
  directories = arguments.parse(arguments.flag_values(), argv)
  if len(directories) != 1:
    raise arguments.Stop("expected one directory, as in `dcnn report results/ablations`, got "
                         f"{shlex.join(directories) or 'none'}")
  directory = pathlib.Path(directories[0])
  if not directory.is_dir():
    raise arguments.Stop(f"{directory}: no such directory")
  with _told():
    results.load(directory)
  with _told(FAILURE):
    _draw(directory)
  print(f"report: {directory / 'report.html'}")


def generate(argv: Sequence[str]) -> None:
  """`dcnn generate`: makes a data set of a molecule."""
  values = arguments.parse_generate(argv)
  out = pathlib.Path(values.out)
  with _told(), display.fraction_display(Console(), f"generating {out.name}") as on_progress:
    arrays = generation.generate(
        values.smiles, frames=values.frames, seed=values.seed, temperature=values.temperature,
        workers=values.workers, on_progress=on_progress)
  with _told(FAILURE):
    generation.save(arrays, out)
  frames, atoms, _ = arrays["positions"].shape
  print(f"wrote {out}: {frames:,} frames of {atoms} atoms; train on it with "
        f"{shlex.quote(f'--config.dataset={out}')}")


def configure_jax() -> None:
  """Global settings of JAX; they must come before its first array."""
  # A sweep spreads its runs over devices, and a CPU is one device unless told otherwise.
  if "JAX_NUM_CPU_DEVICES" not in os.environ and (
      "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", "")):
    jax.config.update("jax_num_cpu_devices", arguments.usable_cores())


def check_workdir(workdir: pathlib.Path, config: configs.ConfigDict) -> None:
  """Makes sure that the results can be written, before any are computed.

  Args:
    workdir: that exists or not; it may hold the results of an equal configuration.
    config: of the results to come.

  Raises:
    Stop: if it cannot be written to, or holds the results of another configuration.
  """
  existing = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
  if not existing.is_dir():
    raise arguments.Stop(f"--workdir={workdir}: {existing} is a file, expected a directory")
  if not os.access(existing, os.W_OK | os.X_OK):
    raise arguments.Stop(f"--workdir={workdir}: {existing} cannot be written to")
  if not (workdir / results.CONFIG_FILE).exists():
    return
  difference = first_difference(_held_config(workdir), _json_config(config), "config")
  if difference is not None:
    key, held, asked = difference
    raise arguments.Stop(f"{workdir} holds results of {key}={_shown(held)}, and {_shown(asked)} "
                         "is asked for: choose another --workdir")


def first_difference(held: Any, asked: Any, key: str) -> tuple[str, Any, Any] | None:
  """The first key at which two nested dictionaries differ, with both values; None if equal."""
  if not isinstance(held, dict) or not isinstance(asked, dict):
    return None if held == asked else (key, held, asked)
  for name in [*asked, *(name for name in held if name not in asked)]:
    found = first_difference(held.get(name), asked.get(name), f"{key}.{name}")
    if found is not None:
      return found
  return None


def _write(finished: running.Finished, workdir: pathlib.Path) -> None:
  """All files of a finished experiment.

  `checkpoints/` holds what `sweeps.by_arm` returns.
  """
  from dcnn import checkpoints  # Orbax takes a second to import

  results.save(finished.result, workdir)
  checkpoints.save(sweeps.by_arm(finished.groups), workdir / "checkpoints")
  _draw(workdir)


def _draw(directory: pathlib.Path) -> None:
  from dcnn import report  # Matplotlib takes a second to import

  report.write(directory)


def _tell(result: results.Result, workdir: pathlib.Path) -> None:
  """The end of a training command: tables, times, and where the files are."""
  console = Console()
  text = result.table() if result.tables else ""
  if display.is_live(console) and max(map(len, text.splitlines()), default=0) > console.width:
    text = f"tables: {workdir / 'report.md'} (too wide for this terminal)"
  if text:
    print(text + "\n")
  timing = result.config["timing"]
  print(f"{timing['runs']} runs: compiled in {timing['compile_seconds']:.1f} s, trained in "
        f"{timing['train_seconds']:.1f} s, evaluated in {timing['evaluate_seconds']:.1f} s")
  print(f"results: {workdir}")
  print(f"report: {workdir / 'report.html'}")


def _interrupted() -> int:
  print("dcnn: interrupted", file=sys.stderr, flush=True)
  return INTERRUPTED


def _interruptible(function: Callable[[], _Returned]) -> _Returned:
  """Calls in another thread: this one hears Ctrl-C while compiled code holds the other."""
  return concurrent.futures.ThreadPoolExecutor(1).submit(function).result()


def format_warning(message, category, filename, lineno, line=None) -> str:
  """One line for our warnings, which are for the user; Python's format for those of libraries."""
  if category is UserWarning:
    return f"dcnn: warning: {_one_line(str(message))}\n"
  return _python_format(message, category, filename, lineno, line)


@contextlib.contextmanager
def _told(status: int = arguments.MISTAKE) -> Iterator[None]:
  """Ends with one line on what our checks refuse and what the machine denies.

  A ValueError that a library raises is a bug of ours and keeps its traceback.
  """
  try:
    yield
  except ValueError as error:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if not frame.f_globals.get("__name__", "").startswith("dcnn."):
      raise
    raise arguments.Stop(str(error), status) from error
  except (OSError, ModuleNotFoundError) as error:
    raise arguments.Stop(arguments.message(error), status) from error


def _one_line(text: str) -> str:
  return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _held_config(workdir: pathlib.Path) -> dict:
  try:
    return json.loads((workdir / results.CONFIG_FILE).read_text(encoding="utf-8"))["config"]
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise arguments.Stop(f"{workdir / results.CONFIG_FILE} is not a config that dcnn wrote "
                         f"({arguments.message(error)}): choose another --workdir") from error


def _json_config(config: configs.ConfigDict) -> dict:
  """The configuration as `results.save` writes it."""
  tables = [table._asdict() for table in configs.tables(config)]
  return json.loads(json.dumps({**configs.to_dict(config), "tables": tables}))


def _shown(value: Any) -> str:
  return textwrap.shorten(json.dumps(value), 60, placeholder=" ...")


if __name__ == "__main__":
  sys.exit(entry())
