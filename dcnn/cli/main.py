"""The command line: `dcnn`, and `dcnn` with the name of another command.

Only this package prints and makes global settings of JAX. A user's mistake is told in one line and
leaves nothing behind; an error of ours keeps its traceback.
"""

import gc
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console

from dcnn.base import processes, version, wording
from dcnn.base.text import suggestion
from dcnn.cli import (
    answers,
    arguments,
    beginning,
    joining,
    logs,
    previews,
    runtime,
    streams,
    training,
    uses,
)
from dcnn.cli.messages import FAILURE, Stop, complain, format_warning, one_line, stop_on_errors
from dcnn.data import generation
from dcnn.jobs import display, interruption, tracking, workdirs
from dcnn.results import storage

USAGE = """\
dcnn trains derivative-constrained networks and compares what their ingredients buy.

  dcnn --config=NAME[:VARIANT] --workdir=DIR [--fresh] [--config.KEY=VALUE ...]
      Runs an experiment that comes with dcnn (ablations, molecules, paper, rmd17 and more) or, as
      FILE.py in place of NAME, that of a file, which is Python code. DIR/report.html is what to
      read. The same command continues what was interrupted; more seeds and arms extend what is
      finished. --fresh moves an old DIR aside first.

  dcnn --config=... --print_config
  dcnn --config=... [--workdir=DIR] --dry_run
      Prints the whole configuration, as a command to paste; or the launches, memory and time that
      the same command without --dry_run would take. Nothing is written.

  dcnn --distributed [--coordinator_address=HOST:PORT --num_processes=N --process_id=I] ...
      The same with the devices of many machines: give it to all processes. SLURM, Open MPI
      and TPU pods need none of the other three.

  dcnn report DIR
      Draws the report again from the files in DIR, also while a sweep is under way.

  dcnn --config=... --workdir=DIR --log=tensorboard
  dcnn log DIR --to=tensorboard
      Shows the curves in an experiment tracker, tensorboard, wandb or mlflow, while they are
      trained or afterwards; each needs the extra of its name. dcnn log --help says more.

  dcnn compare DIR DIR ... [--baseline=ARM] [--by=KEY] [--out=DIR]
      Joins finished sweeps and compares their arms; dcnn compare --help says how.

  dcnn plan DIR [--ratio=0.9] [--power=0.8]
      Says how many seeds a difference takes, by the spread of a sweep that has been run.

  dcnn predict DIR FILE [--arm=ARM] --out=OUT.extxyz
      Energies, forces and their spread over the seeds for the configurations of a file, by what
      was trained in DIR, and errors where the file has labels; dcnn predict --help says more.

  dcnn export DIR [--arm=ARM] --out=OUT.jaxexport
      What was trained as a program that JAX runs without dcnn; dcnn export --help says more.

  dcnn generate --smiles=SMILES --out=FILE.npz [--frames=2000] [--seed=0]
                [--temperature=500] [--workers=CORES]
      Makes a data set of a molecule by GFN2-xTB dynamics; needs the extra xtb.

  dcnn new NAME
      Writes an experiment of a dozen lines with comments, NAME.py, to begin with.

  dcnn --help, dcnn --helpfull (with every setting), dcnn --version
  dcnn --completion=bash
      A script for the tab key: source <(dcnn --completion=bash).

Examples:
  dcnn --config=ablations --workdir=results/ablations
  dcnn --config=ablations:smoke --workdir=results/smoke --config.seeds=0,1,2
  dcnn generate --smiles=CCO --out=ethanol.npz"""


_REPORT_HELP = """\
dcnn report DIR
    Draws the report again from the files in DIR, also while a sweep is under way.

Examples:
  dcnn report results/ablations"""

_GENERATE_HELP = """\
dcnn generate --smiles=SMILES --out=FILE.npz [--frames=2000] [--seed=0] [--temperature=500]
              [--workers=CORES]
    Makes a data set of a molecule by GFN2-xTB dynamics; needs the extra xtb.

    --smiles=SMILES      the molecule, such as CCO for ethanol
    --frames=2000        configurations
    --temperature=500    kelvin
    --workers=CORES      processes that compute at a time

Examples:
  dcnn generate --smiles=CCO --out=ethanol.npz
  dcnn generate --smiles=c1ccccc1 --frames=500 --temperature=300 --out=benzene.npz"""


class Command(NamedTuple):
  """A command: what runs it, given the command line behind its name, and its help."""

  run: Callable[[Sequence[str]], None]
  help: str


def entry() -> int:
  """Runs the command line of this process and returns the exit status."""
  with streams.forgiving_streams(), wording.options_under("--"):
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
    if tracking.is_left():
      interruption.leave(status)  # its library would wait for a server until it gives up
    gc.freeze()  # or the interpreter spends a second looking for what it can collect at its end
    return status


def _status(argv: Sequence[str]) -> int:
  try:
    run(argv)
  except Stop as stop:
    complain(f"error: {one_line(stop)}")
    return stop.status
  except KeyboardInterrupt:
    complain("interrupted")
    return 128 + signal.SIGINT
  except training.Interrupted as interrupted:
    interruption.leave(interrupted.status)
  except processes.FailedElsewhere as failed:
    return failed.status
  except processes.Lost as lost:
    joining.end_without(lost, complain)
  return 0


def run(argv: Sequence[str]) -> None:
  """Runs a command.

  Args:
    argv: The command line without the program's name.

  Raises:
    Stop: On a mistake of the user or a failure of the machine.
  """
  if argv and argv[0] in COMMANDS and {"-h", "--help"} & set(argv):
    display.say(COMMANDS[argv[0]].help)
  elif not argv or {"-h", "--help"} & set(argv) or argv[0] == "help":
    display.say(USAGE)
  elif "--helpfull" in argv:
    display.say(f"{USAGE}\n\n{previews.settings_help()}")
  elif "--version" in argv:
    display.say(f"dcnn {version.__version__}")
  elif argv[0].startswith("--completion="):
    display.say(beginning.completion(argv[0].partition("=")[2], COMMANDS))
  elif argv[0].startswith("-"):
    experiment(argv)
  elif argv[0] in COMMANDS:
    COMMANDS[argv[0]].run(argv[1:])
  else:
    raise Stop(
        f"unknown command {argv[0]!r}: {suggestion(argv[0], COMMANDS)}known are "
        f"{', '.join(COMMANDS)}; an experiment is run with --config=NAME --workdir=DIR")


def experiment(argv: Sequence[str]) -> None:
  """`dcnn --config=...`: runs an experiment, or shows what it is and what it would take."""
  asked = arguments.parse_train(argv)
  if asked.print_config:
    previews.print_config(asked)
  elif asked.dry_run:
    previews.dry_run(asked)
  else:
    training.train(asked, shlex.join(["dcnn", *argv]))


def report(argv: Sequence[str]) -> None:
  """`dcnn report DIR`: draws the report of a finished run again."""
  directories = arguments.parse(arguments.flag_values(), argv)
  if len(directories) != 1:
    raise Stop("expected one directory, as in `dcnn report results/ablations`, got "
               f"{shlex.join(directories) or 'none'}")
  directory = arguments.home_path(directories[0])
  if not directory.is_dir():
    raise Stop(f"{directory}: no such directory")
  runtime.quieten_libraries()
  with stop_on_errors():
    workdirs.check_free(directory)
    unfinished = workdirs.is_unfinished(directory)
    if not unfinished and workdirs.is_begun(directory):
      raise ValueError(f"{directory}: nothing has been measured there yet; the first results come "
                       "with the first checkpoint, by default half a minute into the training")
    result = workdirs.so_far(directory) if unfinished else storage.load(directory)
  with stop_on_errors(FAILURE):
    if unfinished and workdirs.is_unfinished(directory):  # still; its own results are better
      storage.save(result, directory)
    workdirs.draw(directory)
  display.say(f"report: {directory / 'report.html'}")


def generate(argv: Sequence[str]) -> None:
  """`dcnn generate`: makes a data set of a molecule."""
  values = arguments.parse_generate(argv)
  out = arguments.home_path(values.out)
  with stop_on_errors(), display.fraction_display(
      Console(), f"generating {out.name}") as on_progress:
    arrays = generation.generate(
        values.smiles, frames=values.frames, seed=values.seed, temperature=values.temperature,
        workers=values.workers, on_progress=on_progress)
  with stop_on_errors(FAILURE):
    path, number = out, 0
    while os.path.lexists(out):  # another may have written there meanwhile: this took minutes
      number += 1
      out = path.with_suffix(f".{number}{path.suffix}")
    generation.save(arrays, out)
  display.say(f"wrote {out}: {generation.summary(arrays)}; train on it with "
              f"{shlex.quote(f'--config.dataset={out}')}")


COMMANDS: Mapping[str, Command] = {
    "report": Command(report, _REPORT_HELP),
    "log": Command(logs.log, logs.LOG_HELP),
    "compare": Command(answers.compare, answers.COMPARE_HELP),
    "plan": Command(answers.plan, answers.PLAN_HELP),
    "predict": Command(uses.predict, uses.PREDICT_HELP),
    "export": Command(uses.export, uses.EXPORT_HELP),
    "generate": Command(generate, _GENERATE_HELP),
    "new": Command(beginning.new, beginning.NEW_HELP)}


if __name__ == "__main__":
  sys.exit(entry())
