"""The commands that use what was trained: `dcnn predict` and `dcnn export`."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags
from rich.console import Console

from dcnn import jobs
from dcnn.base import text
from dcnn.cli import arguments, runtime
from dcnn.cli.messages import Stop, stop_on_errors
from dcnn.jobs import display

PREDICT_HELP = """\
dcnn predict DIR FILE [--arm=ARM] --out=OUT.extxyz [--units=UNITS] [--KEY_key=NAME] [--format=KIND]
    Predicts the configurations of a file with the trained networks of a sweep. OUT gets energies,
    forces and, of crystals, stresses by the mean over the seeds, with their standard deviations
    over the seeds (energy_std, forces_std). Where FILE has labels, they are kept as REF_energy and
    REF_forces, and the errors of each seed are printed. Nothing else of FILE is kept.

    --arm=ARM        the arm; may be left out where there is one
    --units=UNITS    of files that do not say, such as kcal/mol/angstrom
    --energy_key, --forces_key, --positions_key, --species_key
                     names in a file that has its own
    --format=KIND    npz, extxyz or one of ASE, where the name of the file does not tell
    --config=...     as in training, where that had functions or classes of your own

Examples:
  dcnn predict results/ablations test.extxyz --arm=standardize --out=pred.extxyz
  dcnn predict results/mine data.npz --units=kcal/mol/angstrom --out=pred.extxyz"""

EXPORT_HELP = """\
dcnn export DIR [--arm=ARM] --out=OUT.jaxexport [--atoms=N] [--periodic]
    Writes the trained networks of an arm as a program that JAX alone runs, without dcnn, on CPUs,
    CUDA and TPUs, and OUT.json beside it, which says what the program takes and gives. Needs the
    extra export.

    --arm=ARM        the arm; may be left out where there is one
    --atoms=N        atoms of a molecule; by default as many as in the training data
    --periodic       a program for crystals, which takes neighbour lists
    --config=...     as in training, where that had functions or classes of your own

Examples:
  dcnn export results/ablations --arm=standardize --out=ethanol.jaxexport
  dcnn export results/copper --periodic --out=copper.jaxexport"""

_READING = ("units", "energy_key", "forces_key", "positions_key", "species_key", "format")


def predict(argv: Sequence[str]) -> None:
  """`dcnn predict DIR FILE`: predicts the configurations of a file.

  Args:
    argv: The command line behind `predict`.

  Raises:
    Stop: On a mistake of the user or a failure of the machine.
  """
  values = arguments.flag_values()
  for name in _READING:
    flags.DEFINE_string(name, None, "", flag_values=values)
  places, trained = _trained(values, argv, "predict", "DIR FILE", 2, ".extxyz")
  if not hasattr(trained, "predict_file"):
    raise Stop(f"{places[0]}: what was trained there predicts no configurations of atoms")

  options = {name: values[name].value for name in _READING if values[name].value}
  path, out = os.path.expanduser(places[1]), arguments.home_path(values.out)
  with stop_on_errors(), display.fraction_display(
      Console(), f"predicting {os.path.basename(path)}") as on_progress:
    report = trained.predict_file(path, out, on_progress=on_progress, **options)
  for line in report.lines(str(out)):
    display.say(line)


def export(argv: Sequence[str]) -> None:
  """`dcnn export DIR`: writes trained networks as a program of JAX.

  Args:
    argv: The command line behind `export`.

  Raises:
    Stop: On a mistake of the user or a failure of the machine.
  """
  values = arguments.flag_values()
  flags.DEFINE_integer("atoms", None, "", lower_bound=1, flag_values=values)
  flags.DEFINE_boolean("periodic", False, "", flag_values=values)
  places, trained = _trained(values, argv, "export", "DIR", 1, ".jaxexport")
  if not hasattr(trained, "export"):
    raise Stop(f"{places[0]}: what was trained there cannot be exported yet")
  out = arguments.home_path(values.out)
  with stop_on_errors():
    record = trained.export(out, atoms=values.atoms, periodic=values.periodic)
  display.say(
      f"wrote {out} ({out.stat().st_size / 1e3:,.0f} kB) and {out.name}.json: "
      f"{len(record['seeds'])} seeds of {trained.name!r}, for {', '.join(record['platforms'])}")


def _trained(
    values: flags.FlagValues, argv: Sequence[str], command: str, wanted: str, count: int,
    ending: str,
) -> tuple[list[str], Any]:
  """The places that a command names, and the trained arm that it means.

  Args:
    values: Flags of the command; gets those that both commands have.
    argv: The command line behind the command.
    command: Its name.
    wanted: What it takes beside flags, in words.
    count: How many these are.
    ending: The ending of the file that it writes.
  """
  for name in ("arm", "out", "config"):
    flags.DEFINE_string(name, None, "", flag_values=values)
  rest = arguments.parse(values, argv, known_only=True)
  places = [each for each in rest if not each.startswith("-")]
  overrides = [each for each in rest if each.startswith("-")]
  for unknown in overrides:
    if not unknown.startswith("--config."):
      arguments.parse(values, [unknown])  # says which is meant
  if len(places) != count:
    raise Stop(f"expected {wanted}, as in `dcnn {command} results/mine"
               f"{' test.extxyz' * (count - 1)} --out=out{ending}`, got "
               f"{shlex.join(places) or 'none'}")
  _require_out(values.out, ending)
  directory = arguments.home_path(places[0])
  if not directory.is_dir():
    raise Stop(f"{directory}: no such directory")
  runtime.quieten_libraries()
  runtime.check_xla_flags()
  runtime.configure_jax()
  config = None
  if values.config:
    config = arguments.load_config(values.config)
    arguments.override(config, overrides)
  with stop_on_errors():
    return places, _arm(jobs.load(directory, config), values.arm)


def _require_out(name: str | None, ending: str) -> None:
  if not name:
    raise Stop(f"--out is missing: the file to write, as in --out=out{ending}")
  path = arguments.home_path(name)
  if path.suffix != ending:
    raise Stop(f"--out={name}: expected a name that ends in {ending}")
  if path.is_dir() or not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
    raise Stop(f"--out={name}: {path.parent} is no directory that can be written to")


def _arm(trained: Any, name: str | None) -> Any:
  """The arm of a name, or the only one.

  Raises:
    ValueError: If there is no such arm, or none is named of several.
  """
  if name is None:
    if len(trained) != 1:
      raise ValueError(f"--arm is missing: which arm to take of {', '.join(trained) or 'none'}")
    return next(iter(trained.values()))
  if name not in trained:
    reason = trained.failed.get(name) or text.unknown("arm", name, trained)
    raise ValueError(f"--arm={name}: {reason}")
  return trained[name]
