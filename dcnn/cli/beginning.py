"""What helps a user to begin: `dcnn new`, and the completion of commands in a shell."""

import keyword
import os
import shlex
from collections.abc import Iterable, Sequence

from dcnn import configs
from dcnn.cli import arguments
from dcnn.cli.messages import FAILURE, Stop, stop_on_errors
from dcnn.jobs import display, trackers

NEW_HELP = """\
dcnn new NAME
    Writes NAME.py, an experiment of a dozen lines with comments, to be changed.

Examples:
  dcnn new mine
  dcnn --config=mine.py --workdir=results/mine"""

SHELLS = ("bash",)
_EXPERIMENT = '''\
"""What is asked, and what came out, for whoever reads this file later."""

from dcnn import configs


def get_config(arg=""):
  config = configs.default()                # SchNet on energies and forces; dcnn --helpfull has all
  config.question = "What does SiLU buy?"   # stands at the head of the report
  config.dataset = "ethanol"                # embedded; or a file: .npz, .extxyz, a database of ASE
  config.labels = "standardize"             # the label scaling, and so on, of all arms
  config.arms = ({}, {"activation.name": "silu"})  # each differs in a setting; first: baseline
  config.steps, config.seeds = 2000, 10     # six seeds are the fewest that can find a difference
  return config
'''
# In bash a word ends at `=`: what stands before it is taken off the words that are offered.
_BASH = '''\
# Completion of dcnn for bash: source <(dcnn --completion=bash)
_dcnn() {
  local line=${COMP_LINE:0:COMP_POINT} word words
  word=${line##* }
  case "$word" in
%(choices)s
    --config=*) words=%(experiments)s ;;
    --config.*) words=%(settings)s ;;
    --log=*) words=%(trackers)s ;;
    -*) words=%(flags)s ;;
    *) words=
       if [[ $line != *" "*" "* ]]; then words=%(commands)s; fi ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
  fi
  if [[ ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2> /dev/null; fi
  return 0
}
complete -o default -F _dcnn dcnn
'''


def new(argv: Sequence[str]) -> None:
  """`dcnn new NAME`: writes an experiment to begin with.

  Args:
    argv: The command line behind `new`.

  Raises:
    Stop: If there is no name, it is none of a module, or there is such a file.
  """
  names = arguments.parse(arguments.flag_values(), argv)
  if len(names) != 1:
    raise Stop(f"expected one name, as in `dcnn new mine`, got {shlex.join(names) or 'none'}")
  path = arguments.home_path(names[0].removesuffix(".py") + ".py")
  if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
    raise Stop(f"{names[0]}: expected a name of letters, digits and underscores, such as mine")
  if os.path.lexists(path):
    raise Stop(f"{path}: there is such a file; choose another name")
  with stop_on_errors(FAILURE), path.open("x", encoding="utf-8") as file:
    file.write(_EXPERIMENT)
  where = f"results/{path.stem}"
  display.say(f"wrote {path}: change it, then run it with "
              f"{shlex.join(['dcnn', f'--config={path}', f'--workdir={where}'])}")


def completion(shell: str, commands: Iterable[str]) -> str:
  """The script that completes commands in a shell.

  Args:
    shell: One of `SHELLS`.
    commands: The names of the commands.

  Raises:
    Stop: If there is none for this shell.
  """
  if shell not in SHELLS:
    raise Stop(f"--completion={shell}: expected {' or '.join(SHELLS)}")
  choices = [
      f"    --config.{setting.key}=*) words="
      f"{_words(f'--config.{setting.key}={choice}' for choice in _choices(setting))} ;;"
      for setting in configs.SETTINGS if _choices(setting)]
  names = arguments.experiment_names()
  return _BASH % {
      "choices": "\n".join(choices),
      "experiments": _words(f"--config={name}" for name in names),
      "settings": _words(f"--config.{setting.key}=" for setting in configs.SETTINGS),
      "trackers": _words(f"--log={name}" for name in trackers.TRACKERS),
      "flags": _words([*(f"--{flag}=" for flag in ("config", "workdir", "log", "completion")),
                       "--fresh", "--print_config", "--dry_run", "--distributed", "--help",
                       "--helpfull", "--version"]),
      "commands": _words(commands)}


def _choices(setting: configs.Setting) -> tuple[str, ...]:
  return ("True", "False") if isinstance(setting.default, bool) else setting.choices


def _words(words: Iterable[str]) -> str:
  return shlex.quote(" ".join(words))
