"""What the user asked for: flags, experiment files and overrides, checked.

Whatever is wrong with them ends in a `Stop`, whose text is one line for the user.
"""

import contextlib
import math
import os
import pathlib
import re
import runpy
import shlex
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from dcnn import configs
from dcnn.base import processes
from dcnn.base.text import suggestion
from dcnn.cli.messages import Stop, message, stop_on_errors
from dcnn.jobs import trackers

LARGEST_SEED = 2**31 - 1  # RDKit's
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


class Meeting(NamedTuple):
  """Where processes meet, how many they are and which this is; None where JAX finds it out."""

  coordinator_address: str | None
  num_processes: int | None
  process_id: int | None


_TRAINING_FLAGS = (
    "config", "workdir", "fresh", "log", "print_config", "dry_run", "distributed")


class Training(NamedTuple):
  """A command that runs an experiment, or shows something of it.

  Attributes:
    config: FILE.py[:VARIANT] or NAME[:VARIANT].
    workdir: The work directory; None where nothing is written and none is given.
    fresh: Whether an old work directory is moved aside.
    meeting: Where the processes meet; None without --distributed.
    overrides: All other arguments.
    print_config: Whether the configuration is printed, and nothing is run.
    dry_run: Whether it is estimated what the experiment takes, and it is not run.
    log: Names of the trackers that are told of it, which can be used.
  """

  config: str
  workdir: pathlib.Path | None
  fresh: bool
  meeting: Meeting | None
  overrides: list[str]
  print_config: bool = False
  dry_run: bool = False
  log: tuple[str, ...] = ()


def parse_train(arguments: Sequence[str]) -> Training:
  """Takes a command that runs an experiment apart.

  Args:
    arguments: The command line without the program's name.

  Raises:
    Stop: Where something is missing or unknown.
  """
  values = flag_values()
  flags.DEFINE_string("config", None, "", flag_values=values)
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  flags.DEFINE_boolean("fresh", False, "", flag_values=values)
  flags.DEFINE_string("log", None, "", flag_values=values)
  flags.DEFINE_boolean("print_config", False, "", flag_values=values)
  flags.DEFINE_boolean("dry_run", False, "", flag_values=values)
  flags.DEFINE_boolean("distributed", False, "", flag_values=values)
  flags.DEFINE_string("coordinator_address", None, "", flag_values=values)
  flags.DEFINE_integer("num_processes", None, "", lower_bound=1, flag_values=values)
  flags.DEFINE_integer("process_id", None, "", lower_bound=0, flag_values=values)
  rest = parse(values, arguments, known_only=True)
  for unknown in rest:
    if re.match("--?[a-zA-Z]", unknown) and not _override_key(unknown):
      raise Stop(_unknown_flag(unknown, (*_TRAINING_FLAGS, *Meeting._fields, "config.KEY")))
  if not values.config:
    raise Stop("--config is missing: which experiment to run, "
               "as in --config=ablations, or your own, as in --config=FILE.py")
  if not (values.workdir or values.print_config or values.dry_run):
    raise Stop("--workdir is missing: where to write, as in --workdir=results/ablations")
  meeting = _meeting(values)
  if values.print_config and values.dry_run:
    raise Stop("--print_config and --dry_run: give one of them at a time")
  if values.dry_run and meeting:
    raise Stop("--dry_run with --distributed: leave one out; a dry run measures one process on its "
               "own devices")
  return Training(
      values.config, home_path(values.workdir) if values.workdir else None, values.fresh, meeting,
      rest, values.print_config, values.dry_run,
      trackers_named("log", values.log) if _logs(values) else ())


def load_config(argument: str) -> configs.ConfigDict:
  """Runs an experiment file.

  Args:
    argument: `FILE.py`, or the name of an experiment that comes with dcnn; either with `:VARIANT`
      behind it.

  Returns:
    What its `get_config` returned, locked.

  Raises:
    Stop: If there is no such experiment, or it fails; the text names the line.
  """
  name, _, variant = argument.partition(":")
  path = _experiment_file(name)
  with _naming_line_of(path):
    module = runpy.run_path(path, run_name="experiment")
  if "get_config" not in module:
    raise Stop(f"{path}: expected a function get_config(arg=''), which returns the config")
  with _naming_line_of(path):
    config = module["get_config"](*([variant] if variant else []))
  if not isinstance(config, configs.ConfigDict):
    raise Stop(f"{path}: get_config must return configs.default(), changed; it returned "
               f"{type(config).__name__}")
  return config.lock()


def override(config: configs.ConfigDict, arguments: Sequence[str]) -> None:
  """Sets what `--config.KEY=VALUE` asks for, in place.

  Args:
    config: A locked configuration.
    arguments: These flags and nothing else.

  Raises:
    Stop: On an unknown key or a value of the wrong type.
  """
  for argument in arguments:
    key = _override_key(argument)
    if key:
      _check_key(key, config)
  arguments = _without_none(config, arguments)
  values = flag_values()
  try:
    config_flags.DEFINE_config_dict(
        "config", config, flag_values=values, sys_argv=["dcnn", *arguments])
    left = parse(values, arguments)
  except (LookupError, TypeError, ValueError, flags.Error) as error:
    raise Stop(f"{shlex.join(arguments)}: {message(error)}") from error
  if left:
    raise Stop(f"unexpected argument {left[0]!r}: give each value as --config.KEY=VALUE")


def parse_generate(arguments: Sequence[str]) -> flags.FlagValues:
  """Flags of `dcnn generate`, checked.

  Args:
    arguments: The command line behind `generate`.

  Raises:
    Stop: On an unknown or missing flag, a bad value, or an `--out` that exists.
  """
  values = flag_values()
  flags.DEFINE_string("smiles", None, "", flag_values=values)
  flags.DEFINE_string("out", None, "", flag_values=values)
  flags.DEFINE_integer("frames", 2000, "", lower_bound=1, flag_values=values)
  flags.DEFINE_integer(
      "seed", 0, "", lower_bound=0, upper_bound=LARGEST_SEED, flag_values=values)
  flags.DEFINE_float("temperature", 500.0, "", flag_values=values)
  flags.DEFINE_integer("workers", processes.usable_cores(), "", lower_bound=1, flag_values=values)
  left = parse(values, arguments)
  if left:
    raise Stop(f"unexpected argument {left[0]!r}: give each value as --FLAG=VALUE")
  if not values.smiles:
    raise Stop("--smiles is missing: the molecule, as in --smiles=CCO for ethanol")
  if not (math.isfinite(values.temperature) and values.temperature > 0):
    raise Stop(f"--temperature={values.temperature:g}: expected kelvin, above 0")
  if not values.out:
    raise Stop("--out is missing: the file to write, as in --out=ethanol.npz")
  path = home_path(values.out)
  if path.suffix != ".npz":
    raise Stop(f"--out={path}: expected a name that ends in .npz")
  if os.path.lexists(path):
    raise Stop(f"--out={path}: there is such a file; choose another name or remove it")
  if not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
    raise Stop(f"--out={path}: {path.parent} is no directory that can be written to")
  return values


def _logs(values: flags.FlagValues) -> bool:
  """Whether this process is to tell trackers: of several the first alone does."""
  return not (values.print_config or values.process_id)


def trackers_named(flag: str, value: str | None) -> tuple[str, ...]:
  """The experiment trackers that a flag names, separated by commas; none where it is not given.

  Raises:
    Stop: If there is none of a name, or it cannot be used; the text says what to install.
  """
  if value is None:
    return ()
  names = tuple(dict.fromkeys(value.split(",")))
  try:
    with stop_on_errors():
      trackers.check(names)
  except Stop as stop:
    raise Stop(f"--{flag}={value}: {stop}") from stop
  return names


def flag_values() -> flags.FlagValues:
  """A set of flags, empty yet; they may stand before and after other arguments."""
  values = flags.FlagValues()
  values.set_gnu_getopt(True)
  return values


def parse(
    values: flags.FlagValues, arguments: Sequence[str], known_only: bool = False
) -> list[str]:
  """Sets the flags; returns the arguments that are not flags.

  Args:
    values: Gets the values.
    arguments: The command line without the program's name.
    known_only: Whether unknown flags are returned, too, and not refused.

  Raises:
    Stop: On an unknown flag or a value of the wrong type.
  """
  try:
    return values(["dcnn", *arguments], known_only=known_only)[1:]
  except flags.IllegalFlagValueError as error:  # it says how Python converts a value
    given = str(error).removeprefix("flag ").removesuffix(f": {error.__context__}")
    parser = values[given.lstrip("-").partition("=")[0]].parser
    expected = ("true or false" if isinstance(parser, flags.BooleanParser)
                else parser.syntactic_help)
    raise Stop(f"{given}: expected {expected}" if expected else str(error)) from error
  except flags.UnrecognizedFlagError as error:
    raise Stop(_unknown_flag(error.flagname, list(values))) from error
  except flags.Error as error:
    raise Stop(message(error)) from error


def _experiment_file(name: str) -> str:
  """Path of an experiment: the file of this name, or else the experiment that comes with dcnn.

  A file comes first, so that no later version of dcnn takes a name away from somebody's file.
  """
  name = os.path.expanduser(name)
  if os.path.isfile(name):
    return name
  known = _installed_experiments()
  if name in known:
    return str(known[name])
  stem = pathlib.PurePath(name).stem
  files = [str(file) for file in pathlib.Path(name).parent.glob("*.py")]
  close = suggestion(name, files) or suggestion(stem, known)
  what = "no such file" if os.sep in name or name.endswith(".py") else "no such experiment"
  raise Stop(f"--config={name}: {what}. {close}Those that come with dcnn are {', '.join(known)}; "
             "one of your own is given as a file, as in --config=FILE.py")


def experiment_names() -> tuple[str, ...]:
  """Names of the experiments that come with dcnn."""
  return tuple(_installed_experiments())


def _installed_experiments() -> dict[str, pathlib.Path]:
  installed = _PACKAGE / "experiments"  # in a checkout they lie beside the package
  folder = installed if installed.is_dir() else _PACKAGE.parent / "experiments"
  return {path.stem: path for path in sorted(folder.glob("*.py"))}


@contextlib.contextmanager
def _naming_line_of(path: str) -> Iterator[None]:
  """Turns whatever the user's file raises into a `Stop` that names the line of the file."""
  try:
    yield
  except (Exception, SystemExit) as error:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
      lines.append(error.lineno)
    where = f"{path}, line {lines[-1]}" if lines else path
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    raise Stop(f"{where}: {kind}{message(error)}") from error


def _meeting(values: flags.FlagValues) -> Meeting | None:
  """What --distributed and the flags that go with it say."""
  meeting = Meeting(values.coordinator_address, values.num_processes, values.process_id)
  given = [f"--{name}" for name, value in meeting._asdict().items() if value is not None]
  if given and not values.distributed:
    raise Stop(f"{given[0]} without --distributed: add it, or leave {given[0]} out")
  if 0 < len(given) < len(meeting):
    raise Stop(f"{' and '.join(given)} alone: give --coordinator_address=HOST:PORT, "
               "--num_processes=N and --process_id=I, or none of them under SLURM, Open MPI or on "
               "a TPU pod, where they are found out")
  address, number, process = meeting
  if address is not None and not re.fullmatch(r".+:\d{1,5}", address):
    raise Stop(f"--coordinator_address={address}: expected HOST:PORT of process 0, as in "
               "node1:12345")
  if number is not None and process is not None and process >= number:
    raise Stop(f"--process_id={process}: expected 0 to {number - 1} with --num_processes={number}")
  return meeting if values.distributed else None


def home_path(name: str) -> pathlib.Path:
  """The path, with `~` as the home directory: a shell leaves it as it is behind a `=`."""
  return pathlib.Path(os.path.expanduser(name))


def _unknown_flag(argument: str, known: Iterable[str]) -> str:
  name = argument.lstrip("-").partition("=")[0]
  known = [f"--{flag}" for flag in known]
  return (f"unknown flag --{name}: {suggestion(f'--{name}', known)}known are "
          f"{', '.join(known)}")


_OPTIONAL = {setting.key for setting in configs.SETTINGS if setting.optional}


def _override_key(argument: str) -> str:
  """The dotted key of `--config.KEY=VALUE`; nothing for other arguments."""
  found = re.match(r"--?(?:no)?config\.([^=]*)", argument)
  return found[1] if found else ""


def _without_none(config: configs.ConfigDict, arguments: Sequence[str]) -> list[str]:
  """Sets to None what `--config.KEY=None` asks for where a setting may be None; the other flags.

  The flags of ml_collections cannot say None, which is the default of some settings.
  """
  others = []
  for argument in arguments:
    key = _override_key(argument)
    if key in _OPTIONAL and argument.endswith("=None"):
      others = [other for other in others if _override_key(other) != key]
      config.update_from_flattened_dict({key: None})
    else:
      others.append(argument)
  return others


def _check_key(key: str, config: configs.ConfigDict) -> None:
  """Makes sure that there is a setting of this name, and that it is no group of settings."""
  known = configs.flat(config)
  if key.partition("[")[0] in known:
    return
  inside = [name for name in known if name.startswith(f"{key}.")]
  if inside:
    raise Stop(f"--config.{key} is a group of settings: set one of "
               f"{', '.join(f'--config.{name}' for name in inside)}")
  group, _, last = key.rpartition(".")
  namesakes = [name for name in known if name.rpartition(".")[2] == last]
  close = f"did you mean {namesakes[0]!r}? " if namesakes else suggestion(key, known)
  beside = [name for name in known if name.startswith(f"{group}.")] or list(config)
  raise Stop(f"unknown setting --config.{key}: {close}known are "
             f"{', '.join(beside)}; dcnn --helpfull explains all")
