"""`dcnn new`, and what the tab key offers."""

import os
import shutil
import subprocess

import pytest
from commands import assert_mistake, call

from dcnn import configs
from dcnn.cli import arguments, beginning, main

COMMANDS = ("report", "compare", "predict")
SHELL = """
source "$1"
while IFS= read -r COMP_LINE; do
  COMP_POINT=${#COMP_LINE}
  COMPREPLY=()
  _dcnn
  echo "${COMPREPLY[*]}"
done
"""


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
  """`(lines) -> words` that bash offers for each line that has been typed so far."""
  if not shutil.which("bash"):
    pytest.skip("there is no bash")
  path = tmp_path_factory.mktemp("bash") / "completion"
  path.write_text(beginning.completion("bash", COMMANDS))

  def complete(*lines):
    done = subprocess.run(
        ["bash", "--norc", "-c", SHELL, "bash", str(path)], input="\n".join(lines) + "\n",
        capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert not done.stderr
    return [line.split() for line in done.stdout.splitlines()]

  return complete


def test_bash_completes(offered):
  lines = {
      "dcnn pr": ["predict"], "dcnn ": [*COMMANDS], "dcnn --dr": ["--dry_run"],
      "dcnn --wo": ["--workdir="], "dcnn --config=abl": ["ablations"],
      "dcnn --config=x --log=te": ["tensorboard"],
      "dcnn --config=ablations --config.activation.name=ire": ["irelu"],
      "dcnn --config=ablations --config.optimizer.learn": ["--config.optimizer.learning_rate="],
      "dcnn --config.split.per_seed=": ["True", "False"], "dcnn report re": [], "dcnn --xyz": []}
  assert dict(zip(lines, offered(*lines), strict=True)) == lines


def test_every_setting_and_choice_is_offered(offered):
  keys = [setting.key for setting in configs.SETTINGS]
  for key, words in zip(keys, offered(*(f"dcnn --config.{key}" for key in keys)), strict=True):
    assert f"--config.{key}=" in words
  named = [setting for setting in configs.SETTINGS if setting.choices]
  found = offered(*(f"dcnn --config.{setting.key}=" for setting in named))
  for setting, words in zip(named, found, strict=True):
    assert words == list(map(str, setting.choices))


def test_the_command_prints_it_and_knows_no_other_shell(monkeypatch, capsys):
  status, output, errors = call(monkeypatch, capsys, "--completion=bash")
  assert (status, errors) == (0, "") and "complete -o default -F _dcnn dcnn" in output
  for command in ("report", "log", "compare", "plan", "predict", "export", "generate", "new"):
    assert command in output
  status, _, errors = call(monkeypatch, capsys, "--completion=zsh")
  assert_mistake(status, errors, "expected bash")


def test_a_new_experiment_can_be_run(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  status, output, errors = call(monkeypatch, capsys, "new", "mine")
  assert (status, errors) == (0, "")
  assert "dcnn --config=mine.py --workdir=results/mine" in output
  config = arguments.load_config("mine.py")
  configs.validate(config)
  assert len(configs.arm_settings(config)) == 2
  text = (tmp_path / "mine.py").read_text()
  assert max(map(len, text.splitlines())) <= 100 and text.count("#") >= 6
  status, _, errors = call(monkeypatch, capsys, "new", "mine.py")
  assert_mistake(status, errors, "there is such a file")
  assert (tmp_path / "mine.py").read_text() == text


@pytest.mark.parametrize("names, words", [
    ((), "expected one name"), (("a", "b"), "expected one name"), (("my-own",), "letters, digits"),
    (("class",), "letters, digits"), (("3d",), "letters, digits")])
def test_names_that_are_none(names, words, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  status, _, errors = call(monkeypatch, capsys, "new", *names)
  assert_mistake(status, errors, words)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_has_an_example(command, monkeypatch, capsys):
  status, output, _ = call(monkeypatch, capsys, command, "--help")
  assert status == 0 and f"  dcnn {command}" in output.partition("Examples:")[2]
