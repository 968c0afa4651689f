"""The command line in this process, for tests; and an experiment that trains in a blink."""

import sys
import warnings

from dcnn.cli import main, runtime

TINY = '''
from dcnn import configs

def get_config(arg=""):
  config = configs.default()
  config.experiment = "tiny"
  config.model.name, config.model.hidden = "MLP", (4,)
  config.split.train, config.split.valid, config.split.test = 20, 10, 20
  config.steps, config.chunk, config.batch_size, config.seeds = 4, 2, 4, 1
  return config
'''


def call(monkeypatch, capsys, *argv) -> tuple[int, str, str]:
  """`dcnn ARGV` in this process, whose JAX has started already: status, output, errors."""
  monkeypatch.setattr(runtime, "configure_jax", lambda **_: None)
  monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
  monkeypatch.setattr(sys, "argv", ["dcnn", *map(str, argv)])
  capsys.readouterr()
  status = main.entry()
  return status, *capsys.readouterr()


def assert_mistake(status: int, errors: str, *words: str) -> None:
  """One line that says what is wrong and what to do."""
  assert status == 2, errors
  (line,) = errors.splitlines()
  assert line.startswith("dcnn: error: ")
  for word in words:
    assert word in line, f"{word!r} is not in {line!r}"
