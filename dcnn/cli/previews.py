"""What an experiment is and what it would take, for a user who does not run it yet.

Nothing here writes a file, not even into the cache of compiled programs.
"""

import copy
import shlex
import textwrap
from typing import Any

import jax

from dcnn import configs, jobs
from dcnn.base import wording
from dcnn.base.text import duration
from dcnn.cli import arguments, runtime, training
from dcnn.cli.messages import Stop, stop_on_errors
from dcnn.jobs import display, workdirs
from dcnn.jobs.dry_run import Stage, estimate_stages

WIDTH = 96  # characters of the lines of a text


def settings_help() -> str:
  """Every setting of an experiment: key, default, what it means, unit and choices."""
  sections: dict[str, list[configs.Setting]] = {}
  for setting in configs.SETTINGS:
    section, dot, _ = setting.key.partition(".")
    sections.setdefault(section if dot else "", []).append(setting)
  general = sections.pop("", [])
  parts = ["Settings, each given as --config.KEY=VALUE, or set in an experiment file:",
           *map(_setting_help, general)]
  for section, settings in sections.items():
    parts += ["", f"{section}:", *map(_setting_help, settings)]
  return "\n".join(parts)


def _setting_help(setting: configs.Setting) -> str:
  text = setting.meaning
  if setting.unit:
    text += f" Unit: {setting.unit}."
  if setting.choices:
    text += f" Choices: {', '.join(map(str, setting.choices))}."
  if setting.objects:
    text += " An experiment file may set an object instead."
  return "\n".join([
      f"  --config.{setting.key}={_flag_text(setting.default)}",
      *textwrap.wrap(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)])


def print_config(asked: arguments.Training) -> None:
  """`--print_config`: prints the whole configuration as a command line that gives it.

  Settings that a command line cannot give, such as functions, follow as comments.

  Args:
    asked: What the command line says.

  Raises:
    Stop: If the configuration is not valid.
  """
  config = arguments.load_config(asked.config)
  arguments.override(config, asked.overrides)
  with stop_on_errors(), wording.options_under("config."):
    configs.validate(config)
  lines, comments = [shlex.join(["dcnn", f"--config={asked.config}"])], []
  if asked.workdir is not None:
    lines.append(f"  --workdir={shlex.quote(str(asked.workdir))}")
  for key, value in configs.flat(config).items():
    flag = _flag(config, key, value)
    if flag is None:
      comments.append(f"# --config.{key} is {value!r}, which no flag can say")
    else:
      lines.append(f"  {flag}")
  display.say("\n".join([" \\\n".join(lines), *comments]))


def _flag(config: configs.ConfigDict, key: str, value: Any) -> str | None:
  """The flag that sets a setting to its value, quoted for a shell; None if no flag does."""
  text, again = _flag_text(value), copy.deepcopy(config)
  try:
    arguments.override(again, [f"--config.{key}={text}"])
  except Stop:
    return None
  printable = text.replace("\n", "").isprintable()  # others would be printed as escapes
  gives_it = printable and configs.flat(again)[key] == _plain_value(value)
  if not gives_it:
    return None
  if "'" in text and not set(text) & set('"$`\\!'):
    return f'--config.{key}="{text}"'  # easier to read than with single quotation marks
  return f"--config.{key}={shlex.quote(text) if text else ''}"


def _flag_text(value: Any) -> str:
  return value if isinstance(value, str) else str(_plain_value(value))


def _plain_value(value: Any) -> Any:
  """Tuples and dictionaries in place of what a configuration made of them."""
  if isinstance(value, tuple | list):
    return type(value)(map(_plain_value, value))
  if isinstance(value, configs.ConfigDict):
    return {key: _plain_value(value[key]) for key in value}
  return value


def dry_run(asked: arguments.Training) -> None:
  """`--dry_run`: compiles an experiment, trains for a moment, and prints what it would take.

  Runs that have ended in the work directory, if one is given, are left out.

  Args:
    asked: What the command line says.

  Raises:
    Stop: On a mistake of the user, or if the experiment could not go on in the work directory.
  """
  runtime.configure_jax(alone=False)
  jax.config.update("jax_enable_compilation_cache", False)
  runtime.quieten_libraries()
  runtime.check_xla_flags()
  runtime.check_devices()
  experiment = training.prepare(asked)
  workdir = None if asked.fresh else asked.workdir
  with stop_on_errors():
    if workdir is not None:
      workdirs.check_free(workdir)
      workdirs.check(workdir, jobs.describe(experiment))
    stages = estimate_stages(experiment, workdir, lambda stage: display.say(stage_text(stage)))
  estimates = [stage.estimate for stage in stages]
  if not estimates:
    display.say("all runs have ended: nothing is left to train")
    return
  launches = sum(estimate.placement.launches for estimate in estimates)
  seconds = sum(estimate.seconds for estimate in estimates)
  display.say(
      f"in all {len(stages)} compilations, {_runs(sum(each.runs for each in estimates))}, "
      f"{launches:,} launches: about {duration(seconds)}, if no run ends early\n"
      "nothing was written; the report takes a few seconds more, and the cache of compiled "
      "programs\nmay save some")


def stage_text(stage: Stage) -> str:
  """What a group of an experiment takes, in a few lines."""
  estimate = stage.estimate
  arms = f"{len(estimate.arms):,} arms" if len(estimate.arms) > 1 else "1 arm"
  names = textwrap.wrap(
      ", ".join(estimate.arms), WIDTH, initial_indent="  ", subsequent_indent="  ",
      max_lines=4, placeholder=", ...")
  return "\n".join([
      f"{'tuning' if stage.tuning else 'group'} of {arms}, {_runs(estimate.runs)}:", *names,
      f"  {display.placement_line(estimate.placement)}",
      f"  compiled in {duration(estimate.compile_seconds)}; "
      f"{1e3 * estimate.step_seconds:.3g} ms a step and run: "
      f"{duration(estimate.train_seconds)} of training, "
      f"{duration(estimate.evaluate_seconds)} of evaluation"])


def _runs(number: int) -> str:
  return "1 run" if number == 1 else f"{number:,} runs"
