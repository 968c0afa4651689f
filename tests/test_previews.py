"""What the command line shows of an experiment that is not run: settings, configuration, costs."""

import copy
import functools
import pathlib
import shlex

import commands
import jax
import pytest
from commands import assert_mistake

from dcnn import configs
from dcnn.cli import arguments, main, previews
from dcnn.sweeps.estimates import Estimate

EXPERIMENT = """
from dcnn import configs

def get_config(arg=""):
  config = configs.default()
  config.arms = ({"activation.c": 0.5}, {"activation.name": "silu"})
  config.model.name, config.model.hidden = "MLP", (4,)
  config.split.train, config.split.valid, config.split.test = 20, 10, 20
  config.steps, config.chunk, config.batch_size, config.seeds = 4, 2, 4, 2
  return config
"""


@pytest.fixture
def call(monkeypatch, capsys):
  """The entry in this process; returns status, output, errors. JAX's settings are put back."""
  before = jax.config.jax_enable_compilation_cache
  yield functools.partial(commands.call, monkeypatch, capsys)
  jax.config.update("jax_enable_compilation_cache", before)


@pytest.fixture
def tiny(tmp_path) -> str:
  path = tmp_path / "tiny.py"
  path.write_text(EXPERIMENT)
  return str(path)


def everything_in(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --helpfull


def test_every_setting_is_explained(call):
  status, output, errors = call("--helpfull")
  assert (status, errors) == (0, "") and output.startswith(main.USAGE)
  assert max(map(len, output.splitlines())) <= 100
  for setting in configs.SETTINGS:
    assert f"\n  --config.{setting.key}=" in output
  for key in configs.flat(configs.default()):
    assert f"\n  --config.{key}=" in output


@pytest.mark.parametrize("setting, lines", [
    (configs.Setting("steps", 7, "How long.", unit="steps"),
     ["  --config.steps=7", "      How long. Unit: steps."]),
    (configs.Setting("a.b", "x", "What.", choices=("x", "y")),
     ["a:", "  --config.a.b=x", "      What. Choices: x, y."]),
    (configs.Setting("a.b", None, "What.", objects=True),
     ["a:", "  --config.a.b=None", "      What. An experiment file may set an object instead."]),
], ids=["unit", "choices", "object"])
def test_a_setting(monkeypatch, setting, lines):
  monkeypatch.setattr(configs, "SETTINGS", (setting,))
  assert previews.settings_help().splitlines()[-len(lines):] == lines


def test_settings_of_a_section_stand_together(monkeypatch):
  keys = ("a.x", "top", "b.x", "a.y", "other")
  monkeypatch.setattr(
      configs, "SETTINGS", tuple(configs.Setting(key, 0, "Some.") for key in keys))
  lines = [line.strip() for line in previews.settings_help().splitlines()[1:]]
  assert [line for line in lines if line and line != "Some."] == [
      "--config.top=0", "--config.other=0", "a:", "--config.a.x=0", "--config.a.y=0", "b:",
      "--config.b.x=0"]


# --print_config


def flags_in(output: str) -> list[str]:
  """What a shell makes of the command that was printed."""
  command = "\n".join(line for line in output.splitlines() if not line.startswith("#"))
  return shlex.split(command.replace("\\\n", " "))


@pytest.mark.parametrize("overrides", [
    (), ("--config.steps=8",), ("--config.question=it's \"so\" for $5! \\ `x`",),
    ("--config.seeds=3,5", "--config.split.per_seed=true", "--config.model.name=SchNet"),
    ("--config.experiment=Å 日本\nzwei",), ("--config.optimizer.learning_rate=1e-05",),
    ("--config.tables=({'title': \"it's\", 'baseline': 'c=0.5', 'arms': ('silu', 'c=0.5')},)",),
    ("--config.tuning.learning_rates=0.001,0.01", "--config.tuning.seeds=7,8"),
    ("--config.max_memory=1.5",)],
    ids=["plain", "number", "quotes", "values", "words", "small", "table", "tuning", "optional"])
def test_the_printed_command_gives_the_same_configuration(call, tiny, overrides):
  status, output, errors = call(f"--config={tiny}", *overrides, "--print_config")
  assert (status, errors) == (0, "")
  name, config_flag, *flags = flags_in(output)
  assert (name, config_flag) == ("dcnn", f"--config={tiny}")
  expected = arguments.load_config(tiny)
  arguments.override(expected, overrides)
  printed = arguments.load_config(tiny)
  changed = copy.deepcopy(printed)
  with changed.unlocked():
    changed.steps, changed.batch_size = 1, 1  # whatever the file says, the flags say all
  for config in (printed, changed):
    arguments.override(config, flags)
  assert configs.to_dict(printed) == configs.to_dict(expected)
  assert configs.to_dict(changed) == configs.to_dict(printed)
  keys = {flag.partition("=")[0].removeprefix("--config.") for flag in flags}
  comments = [line.split()[1] for line in output.splitlines() if line.startswith("# --config.")]
  assert keys | {key.removeprefix("--config.") for key in comments} == set(
      configs.flat(expected))


def test_what_no_flag_can_say_is_a_comment(call, tiny):
  path = pathlib.Path(tiny)
  path.write_text(EXPERIMENT.replace("  return", '  config.question = "a\\x1bb"\n  return'))
  status, output, _ = call(f"--config={tiny}", "--print_config")
  assert status == 0 and "--config.max_memory=None" in flags_in(output)
  assert r"# --config.question is 'a\x1bb', which" in output
  assert not any("question" in flag for flag in flags_in(output))


def test_nothing_is_written_and_no_data_are_read(call, tiny, tmp_path):
  before = everything_in(tmp_path)
  flags = (f"--config={tiny}", f"--workdir={tmp_path / 'w'}", "--config.dataset=nosuch.npz")
  status, output, _ = call(*flags, "--print_config")
  assert status == 0 and f"\n  --workdir={tmp_path / 'w'} \\" in output
  assert everything_in(tmp_path) == before and not (tmp_path / "w").exists()


@pytest.mark.parametrize("flags, words", [
    (("--print_config", "--config.steps=0"), ("steps",)),
    (("--print_config", "--config.stepz=3"), ("--config.stepz", "did you mean 'steps'?")),
    (("--print_config", "--dry_run"), ("--print_config and --dry_run", "one of them")),
    (("--dry_run", "--distributed"), ("--dry_run with --distributed", "leave one out")),
    (("--dry_run=maybe",), ("--dry_run=maybe: expected true or false",)),
    (("--dryrun",), ("did you mean '--dry_run'?",)),
    (("--dry_run", "--config.dataset=ethanl"), ("'ethanl'", "did you mean 'ethanol'?")),
    (("--dry_run", "--config.max_memory=1e-9"), ("max_memory",)),
    (("--dry_run=false",), ("--workdir is missing",)),
], ids=lambda value: " ".join(value) if value[0].startswith("--") else None)
def test_mistakes(call, tiny, tmp_path, flags, words):
  before = everything_in(tmp_path)
  status, _, errors = call(f"--config={tiny}", *flags)
  assert_mistake(status, errors, *words)
  assert everything_in(tmp_path) == before


# --dry_run


def test_a_dry_run(call, tiny, tmp_path, monkeypatch):
  """Two groups; then what is left of them in a work directory; nothing is written."""
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  before = everything_in(tmp_path)
  status, output, errors = call(f"--config={tiny}", "--dry_run")
  assert (status, errors) == (0, "")
  for words in ("data: ethanol", "group of 1 arm, 2 runs:\n  c=0.5\n", "  silu\n",
                "1 launch of 2 runs on 2 devices", "ms a step and run",
                "in all 2 compilations, 4 runs, 2 launches: about", "nothing was written"):
    assert words in output
  assert everything_in(tmp_path) == before

  workdir = tmp_path / "w"
  assert call(f"--config={tiny}", f"--workdir={workdir}", "--config.seeds=1")[0] == 0
  before = everything_in(tmp_path)
  flags = (f"--config={tiny}", f"--workdir={workdir}", "--dry_run")
  status, output, _ = call(*flags)
  assert status == 0 and "group of 1 arm, 1 run:" in output and "2 runs, 2 launches" in output
  status, output, _ = call(*flags, "--config.seeds=1")
  assert status == 0 and output.splitlines()[-1] == "all runs have ended: nothing is left to train"
  status, output, _ = call(*flags, "--fresh")
  assert status == 0 and "4 runs, 2 launches" in output
  assert_mistake(*call(*flags, "--config.steps=6")[::2], "of config.steps=4, and 6 is asked for")
  assert everything_in(tmp_path) == before


def test_many_arms_are_named_in_a_few_lines(monkeypatch):
  from test_display import PLACEMENT

  from dcnn.jobs.dry_run import Stage
  arms = tuple(f"c={i}" for i in range(300))
  text = previews.stage_text(Stage(True, Estimate(arms, 3000, PLACEMENT, 1.0, 2e-3, 100.0, 0.5)))
  lines = text.splitlines()
  assert lines[0] == "tuning of 300 arms, 3,000 runs:" and len(lines) == 7
  assert lines[4].endswith(", ...") and max(map(len, lines[:5])) <= 96
  assert lines[-1] == ("  compiled in 1.0 s; 2 ms a step and run: 1 min 40 s of training, 0.5 s of "
                       "evaluation")
