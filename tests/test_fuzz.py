"""Damaged files load or are refused in a line, in bounded time and memory; see fuzzing.py."""

import os
import pathlib
import subprocess
import sys

import fuzzing
import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parent


def run(examples: int, kind: str) -> None:
  """Runs the program of fuzzing.py, whose limits are those of its own process."""
  told = subprocess.run(
      [sys.executable, str(FOLDER / "fuzzing.py"), kind, str(examples)], text=True,
      capture_output=True, timeout=900, env={**os.environ, "PYTHONPATH": str(FOLDER.parent)})
  assert told.returncode == 0, told.stderr[-5000:]
  assert f"{kind}: {examples} files" in told.stdout


@pytest.mark.parametrize("kind", fuzzing.KINDS)
def test_damaged_files(kind):
  run(200, kind)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", fuzzing.KINDS)
def test_damaged_files_thoroughly(kind):
  run(2000, kind)


# The limits are real.


def hungry(path):
  """Asks for more than the limit."""
  return bytearray(2 * fuzzing.MEMORY)


def hungry_and_quiet(path):
  """The same, and hides it as a reader that catches everything would."""
  try:
    return np.ones(fuzzing.MEMORY)
  except Exception as error:
    raise ValueError(f"{path}: cannot be read") from error


def slow(path):
  """Never ends, and catches what can be caught."""
  while True:
    try:
      sum(range(1000))
    except Exception:
      continue


def verbose(path):
  """Quotes the file."""
  raise ValueError(f"{path}: {'x' * 5000}")


def silent(path):
  """Does not say which file."""
  raise ValueError("bad input")


def foreign(path):
  """Lets an error of a library through."""
  return {}[path]


@pytest.mark.parametrize("load, error", [
    (hungry, MemoryError), (hungry_and_quiet, AssertionError), (slow, fuzzing.TooSlow),
    (verbose, AssertionError), (silent, AssertionError), (foreign, KeyError),
], ids=lambda value: value.__name__)
def test_readers_that_fail_the_check(tmp_path, load, error):
  with pytest.raises(error):
    fuzzing.check(tmp_path / "x.npz", load, seconds=0.2)
