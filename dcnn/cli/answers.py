"""The commands that answer from finished sweeps: `dcnn compare` and `dcnn plan`."""

import math
import pathlib
import shlex
from collections.abc import Mapping, Sequence

from absl import flags

from dcnn.cli import arguments, runtime
from dcnn.cli.messages import FAILURE, Stop, stop_on_errors
from dcnn.jobs import compare as comparing
from dcnn.jobs import display, pairing, workdirs
from dcnn.jobs import plan as planning
from dcnn.results import storage, strata
from dcnn.results.records import Result

COMPARE_HELP = """\
dcnn compare DIR DIR ... [--baseline=ARM] [--by=KEY] [--out=DIR]
    Joins finished sweeps by arm and seed and compares their arms, as if one sweep had run them
    all. Where that cannot be said, because data, split, seeds, settings or versions differ, it
    is refused with the reason.

    --baseline=ARM   compares all arms with this one, in place of the tables of the sweeps
    --by=KEY         compares the arms within each value of a setting, such as dataset or steps,
                     and over all values: the geometric mean of the ratios
    --out=DIR        also writes the joined results and their report there

Examples:
  dcnn compare results/constants results/scalings --baseline=c=0.5 --out=results/both
  dcnn compare results/ethanol results/aspirin results/uracil --by=dataset"""

PLAN_HELP = """\
dcnn plan DIR [--ratio=0.9] [--power=0.8]
    Says how many seeds a difference takes, by the spread over the seeds of a sweep that has been
    run, and what its own seeds can find; for each table and error, after correction for all
    arms of the table.

    --ratio=0.9      the ratio of errors to be found: 0.9 is an error that is 10 % smaller
    --power=0.8      with which probability it is to be found

Examples:
  dcnn plan results/ablations
  dcnn plan results/ablations --ratio=0.8 --power=0.9"""


def compare(argv: Sequence[str]) -> None:
  """`dcnn compare DIR DIR ...`: compares the arms of several finished sweeps.

  Args:
    argv: The command line behind `compare`.

  Raises:
    Stop: On a mistake of the user or a failure of the machine.
  """
  values = arguments.flag_values()
  for name in ("by", "baseline", "out"):
    flags.DEFINE_string(name, None, "", flag_values=values)
  directories = arguments.parse(values, argv)
  for name in ("by", "baseline", "out"):
    if values[name].value == "":
      raise Stop(f"--{name} is empty: see dcnn compare --help")
  if not directories:
    raise Stop("expected directories, as in `dcnn compare results/a results/b`, got none")
  runtime.quieten_libraries()
  with stop_on_errors():
    out = None if values.out is None else _free_directory(values.out, directories)
    sources = comparing.read(directories)
    command = shlex.join(["dcnn", "compare", *argv])
    if values.by is None:
      results = {"": comparing.joined(sources, values.baseline, command)}
    else:
      results = comparing.by_groups(sources, values.by, values.baseline, command)
  if values.by is None:
    _tell(results[""], sources, out)
  else:
    _tell_by(results, sources, values.by, out, command)


def _tell(result: Result, sources: Sequence[pairing.Source], out: pathlib.Path | None) -> None:
  """Prints the tables of a joined result, and writes it down where that is asked for."""
  display.say(f"{len(sources)} sweeps: {len(result.arms)} arms, {len(result.seeds)} seeds each, "
              f"paired by seed; {_look_text(result)}")
  for line in pairing.machine_remarks(sources):
    display.say(f"note: {line}")
  display.say(f"\n{result.table()}")
  if out is not None:
    with stop_on_errors(FAILURE):
      workdirs.write(result, out)
    display.say(f"\nreport: {out / 'report.html'}")


def _look_text(result: Result) -> str:
  look, planned = result.looks
  return f"look {look} of {planned} planned, verdicts at the level {100 * result.level:.2g} %"


def _tell_by(
    results: Mapping[str, Result], sources: Sequence[pairing.Source], by: str,
    out: pathlib.Path | None, command: str,
) -> None:
  """Prints the comparisons within each value of a setting, and writes them down if asked to."""
  notes = comparing.notes_by(results, sources, by)
  tables = strata.common_tables(results)
  with stop_on_errors():
    text = strata.tables_text(results, by, tables)
  for line in notes:
    display.say(f"note: {line}")
  display.say(f"\n{text}")
  if out is None:
    return
  with stop_on_errors(FAILURE):
    comparing.write_by(results, by, notes, command, out)
  display.say(f"\nreport: {out / 'report.md'}")


def _free_directory(name: str, directories: Sequence[str]) -> pathlib.Path:
  """The directory to write to, in which there is nothing that `dcnn compare` has not written.

  Raises:
    ValueError: If there is something else, or it is one of those that are compared.
  """
  path = arguments.home_path(name)
  if path.resolve() in [arguments.home_path(each).resolve() for each in directories]:
    raise ValueError(f"--out={name}: that is one of the directories to compare; choose another")
  if path.exists() and not path.is_dir():
    raise ValueError(f"--out={name}: there is a file of this name; choose another")
  if not path.is_dir() or not any(path.iterdir()):
    return path
  config = path / storage.CONFIG_FILE
  if not config.is_file() or "joined" not in storage.read_config(config):
    raise ValueError(f"--out={name}: there are files in it that dcnn compare has not written; "
                     "choose another, or remove it")
  workdirs.check_free(path)
  return path


def plan(argv: Sequence[str]) -> None:
  """`dcnn plan DIR`: says how many seeds a difference takes.

  Args:
    argv: The command line behind `plan`.

  Raises:
    Stop: On a mistake of the user.
  """
  values = arguments.flag_values()
  flags.DEFINE_float("ratio", 0.9, "", flag_values=values)
  flags.DEFINE_float("power", 0.8, "", flag_values=values)
  directories = arguments.parse(values, argv)
  if len(directories) != 1:
    raise Stop("expected one directory, as in `dcnn plan results/ablations`, got "
               f"{shlex.join(directories) or 'none'}")
  if not (math.isfinite(values.ratio) and 0 < values.ratio < 1):
    raise Stop(f"--ratio={values.ratio:g}: expected a number between 0 and 1, such as 0.9 for an "
               "error that is 10 % smaller; one that is as many times larger takes as many seeds")
  if not 0 < values.power < 1:
    raise Stop(f"--power={values.power:g}: expected a probability between 0 and 1, such as 0.8")
  with stop_on_errors():
    source = comparing.finished(arguments.home_path(directories[0]), directories[0])
    text = planning.plan_text(source.result, source.name, values.ratio, values.power)
  display.say(text)
