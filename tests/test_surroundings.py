"""Commands in other surroundings than before are refused in a line, before anything happens."""

import os
import shutil
import subprocess
import sys

import pytest
from commands import TINY, assert_mistake

# What is compared is shown in one process by test_other_surroundings_are_refused.
NIGHTLY = pytest.mark.nightly
VARIABLES = ("JAX_ENABLE_X64", "JAX_NUM_CPU_DEVICES", "JAX_DEFAULT_PRNG_IMPL", "JAX_PLATFORMS",
             "XLA_FLAGS")


def dcnn(folder, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
  environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
  return subprocess.run(
      [sys.executable, "-m", "dcnn", f"--config={folder / 'tiny.py'}",
       f"--workdir={folder / 'w'}", *flags],
      capture_output=True, text=True, timeout=300, env={**environment, **variables})


def contents(folder):
  return {path: path.read_bytes() for path in folder.rglob("*")
          if path.is_file() and path.name != ".lock"}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
  """A folder with a sweep of two devices that has ended."""
  folder = tmp_path_factory.mktemp("begun")
  (folder / "tiny.py").write_text(TINY)
  told = dcnn(folder, JAX_NUM_CPU_DEVICES="2")
  assert told.returncode == 0, told.stderr
  return folder


@pytest.mark.parametrize("name, value, words", [
    ("JAX_NUM_CPU_DEVICES", "1", ("with 2 devices", "set JAX_NUM_CPU_DEVICES=2")),
    pytest.param("JAX_ENABLE_X64", "1", ("float64 false", "unset JAX_ENABLE_X64"), marks=NIGHTLY),
    pytest.param("JAX_DEFAULT_PRNG_IMPL", "rbg", ("set JAX_DEFAULT_PRNG_IMPL=threefry2x32",),
                 marks=NIGHTLY),
    ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true", ("unset XLA_FLAGS",))])
def test_a_sweep_is_not_continued_in_other_surroundings(begun, name, value, words):
  before = contents(begun)
  told = dcnn(begun, "--config.seeds=2", **{"JAX_NUM_CPU_DEVICES": "2", name: value})
  assert_mistake(told.returncode, told.stderr, str(begun / "w"), "--fresh", *words)
  assert contents(begun) == before


def test_a_sweep_is_continued_in_its_own_surroundings(begun, tmp_path):
  """Flags that change no number are no other surroundings."""
  shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
  told = dcnn(tmp_path, "--config.seeds=2", JAX_NUM_CPU_DEVICES="2",
              XLA_FLAGS="--xla_dump_hlo_as_text=true")
  assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("name, value", [
    ("JAX_PLATFORMS", "cuda"), pytest.param("JAX_PLATFORMS", "nonsense", marks=NIGHTLY),
    pytest.param("JAX_PLATFORMS", ",", marks=NIGHTLY), ("JAX_NUM_CPU_DEVICES", "0"),
    ("XLA_FLAGS", "--nonsense=1"),
    pytest.param("XLA_FLAGS", "--xla_cpu_enable_fast_math=maybe", marks=NIGHTLY)])
def test_jax_that_does_not_start(tmp_path, name, value):
  if value == "cuda" and os.path.exists("/dev/nvidia0"):
    pytest.skip("there is a GPU")
  (tmp_path / "tiny.py").write_text(TINY)
  told = dcnn(tmp_path, **{name: value})
  assert told.returncode == 1
  (line,) = [line for line in told.stderr.splitlines() if "dcnn: " in line]
  assert f"{name}={value}" in line and "unset" in line and "Traceback" not in told.stderr
  assert not (tmp_path / "w").exists()
