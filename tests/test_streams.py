"""What cannot be told is no mistake: the work is done, the files are there, the status says so."""

import os
import pathlib
import subprocess
import sys

import daily
import pytest
from commands import TINY

from dcnn.cli import streams

pytestmark = pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="/dev/full")
COMMAND = '{python} -m dcnn --config={folder}/tiny.py --workdir={folder}/w {flags}'


@pytest.fixture
def shell(tmp_path):
  """Runs a command line in a shell; returns exit status and what came out of the pipeline."""
  (tmp_path / "tiny.py").write_text(TINY)
  root = pathlib.Path(__file__).parents[1]

  def run(around: str, flags: str = "", **variables: str) -> tuple[int, str]:
    command = COMMAND.format(python=sys.executable, folder=tmp_path, flags=flags)
    told = subprocess.run(
        ["bash", "-c", "set -o pipefail; " + around.format(command)], cwd=root, timeout=300,
        capture_output=True, text=True, errors="replace", env={**os.environ, **variables})
    return told.returncode, told.stdout + told.stderr

  return run


NAMED = "--config.experiment='Å 日本'"
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


STREAMS = {
    "head": ("{} | head -1", "", {}),
    "nobody": ("{} 2>&1 | true", "", {}),
    "full": ("{} >/dev/full", "", {}),
    "both-full": ("{} >/dev/full 2>/dev/full", "", {}),
    "closed": ("{} >&-", "", {}),
    "all-closed": ("{} >&- 2>&- <&-", "", {}),
    "ascii": ("{}", NAMED, {"PYTHONIOENCODING": "ascii"}),
    "latin": ("{}", NAMED, {"PYTHONIOENCODING": "latin-1:strict"}),
    "c-locale": ("{}", "", C_LOCALE),
    "narrow": (
        "script -qec '{}' /dev/null", "", {"COLUMNS": "1", "LINES": "1", "TERM": "xterm"}),
    "dumb": ("script -qec '{}' /dev/null", "", {"TERM": "dumb", "PYTHONIOENCODING": "ascii"})}


@pytest.mark.parametrize("name", daily.only(("head",), STREAMS))
def test_training_goes_on(shell, tmp_path, name):
  around, flags, variables = STREAMS[name]
  if "script" in around and subprocess.run(["which", "script"], capture_output=True).returncode:
    pytest.skip("no script(1), which gives a terminal")
  status, output = shell(around, flags, **variables)
  assert status == 0, output
  for words in ("Traceback", "Exception ignored", "BrokenPipe", "Error"):
    assert words not in output
  assert (tmp_path / "w" / "report.html").exists()


@pytest.mark.parametrize("around", ["{} 2>/dev/full", "{} 2>&-", "{} 2>&1 | true"])
def test_a_mistake_keeps_its_status(shell, tmp_path, around):
  assert shell(around, "--config.steps=0") == (2, "")
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("argv", ["--help", "--version", "report", "nonsense"])
def test_nothing_is_told_at_the_end_either(argv):
  """Neither by the interpreter, which flushes the streams when all is over."""
  told = subprocess.run(
      ["bash", "-c", f"'{sys.executable}' -m dcnn {argv} >/dev/full"], capture_output=True,
      text=True)
  assert told.returncode == (0 if argv.startswith("--") else 2)
  assert "Exception ignored" not in told.stderr and "Traceback" not in told.stderr


def test_text_comes_out_as_it_went_in():
  reader, writer = os.pipe()
  with streams.forgiving_stream(writer) as stream:
    print("energy in meV/Å", file=stream)
    assert os.read(reader, 100).decode() == "energy in meV/Å\n"
    os.close(reader)
    for _ in range(3):
      print("lost" * 100_000, file=stream, flush=True)
  os.close(writer)


def test_streams_in_memory_and_those_of_before_are_kept(capsys):
  before = sys.stdout, sys.stderr
  with streams.forgiving_streams():
    print("heard")
  assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "heard\n"
