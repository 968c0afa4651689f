"""Commands in other surroundings than before are refused in a line, before anything happens."""

import os
import subprocess
import sys

import pytest
from commands import TINY, assert_mistake

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


def test_a_sweep_is_continued_in_its_own_surroundings_alone(tmp_path):
  (tmp_path / "tiny.py").write_text(TINY)
  begun = dcnn(tmp_path, JAX_NUM_CPU_DEVICES="2")
  assert begun.returncode == 0, begun.stderr
  before = contents(tmp_path)
  for variables, words in (
      ({"JAX_NUM_CPU_DEVICES": "1"}, ("with 2 devices", "set JAX_NUM_CPU_DEVICES=2")),
      ({"JAX_ENABLE_X64": "1"}, ("float64 false", "unset JAX_ENABLE_X64")),
      ({"JAX_DEFAULT_PRNG_IMPL": "rbg"}, ("set JAX_DEFAULT_PRNG_IMPL=threefry2x32",)),
      ({"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}, ("unset XLA_FLAGS",))):
    told = dcnn(tmp_path, "--config.seeds=2", **{"JAX_NUM_CPU_DEVICES": "2", **variables})
    assert_mistake(told.returncode, told.stderr, str(tmp_path / "w"), "--fresh", *words)
    assert contents(tmp_path) == before
  told = dcnn(tmp_path, "--config.seeds=2", JAX_NUM_CPU_DEVICES="2",
              XLA_FLAGS="--xla_dump_hlo_as_text=true")
  assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("name, value", [
    ("JAX_PLATFORMS", "cuda"), ("JAX_PLATFORMS", "nonsense"), ("JAX_PLATFORMS", ","),
    ("JAX_NUM_CPU_DEVICES", "0"), ("XLA_FLAGS", "--nonsense=1"),
    ("XLA_FLAGS", "--xla_cpu_enable_fast_math=maybe")])
def test_jax_that_does_not_start(tmp_path, name, value):
  if value == "cuda" and os.path.exists("/dev/nvidia0"):
    pytest.skip("there is a GPU")
  (tmp_path / "tiny.py").write_text(TINY)
  told = dcnn(tmp_path, **{name: value})
  assert told.returncode == 1
  (line,) = [line for line in told.stderr.splitlines() if "dcnn: " in line]
  assert f"{name}={value}" in line and "unset" in line and "Traceback" not in told.stderr
  assert not (tmp_path / "w").exists()
