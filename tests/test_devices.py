"""The same sweep on 1, 2 and 8 devices and in launches of every size: equal to rounding.

Eight devices must be asked for before JAX starts, so that this module has a process of its own.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

# Prints the rows of a sweep of eight runs, one of which fails, for each (devices, runs a device).
SCRIPT = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np
from jax.sharding import Mesh
import tiny
from dcnn import engine, running

build = engine.build
if sys.argv[1] == "vmapped":
  engine._one_after_another = jax.vmap
config = tiny.MODEL(arms=({}, {"activation.c": 0.25}, {"labels": "min_max"},
                          {"activation.c": 1e30}))
for devices, runs in json.loads(sys.argv[2]):
  engine.local_mesh = lambda total, devices=devices: Mesh(
      np.array(jax.local_devices()[:min(total, devices)]), (engine.AXIS,))
  engine.build = lambda program, stacked, shared, batches, mesh: build(
      program, stacked, shared, batches, mesh)._replace(
          bytes_needed=len(stacked.key) // mesh.size)
  engine.device_memory = lambda device, runs=runs: runs
  result = running.sweep(config)
  print(json.dumps([result.config["timing"]["launches"], result.rows, result.history]))
"""
# The worst relative difference measured was 1e-6; float32 rounds to 6e-8 in each operation.
BOUND = 2e-5


def swept(model: str, mapping: str, ways: list[tuple[int, int]]) -> list:
  told = subprocess.run(
      [sys.executable, "-c", SCRIPT.replace("MODEL", model), mapping, json.dumps(ways)],
      capture_output=True, text=True, cwd=__file__.rpartition("/")[0], timeout=3600)
  assert told.returncode == 0, told.stderr
  return [json.loads(line) for line in told.stdout.splitlines()]


def assert_equal_to_rounding(sweeps, ways):
  first = sweeps[0]
  worst = 0.0
  for (launches, *lines), (devices, runs) in zip(sweeps, ways, strict=True):
    assert launches == -(-8 // (min(8, devices) * runs))
    for mine, expected in zip(lines, first[1:], strict=True):
      for a, b in zip(mine, expected, strict=True):
        words = [[x for x in row if not isinstance(x, float)] for row in (a, b)]
        assert words[0] == words[1]
        values = [[x for x in row if isinstance(x, float)] for row in (a, b)]
        np.testing.assert_allclose(*values, rtol=BOUND, err_msg=str((devices, runs)))
        worst = max([worst, *(abs(x / y - 1) for x, y in zip(*values, strict=True) if x != y)])
  print(f"worst relative difference {worst:.1e}")


def test_devices_and_launches():
  ways = [(1, 8), (2, 4), (8, 1), (1, 3)]
  assert_equal_to_rounding(swept("mlp", "one-after-another", ways), ways)


@pytest.mark.nightly
@pytest.mark.parametrize("mapping", ["one-after-another", "vmapped"])
def test_every_launch_size_on_1_2_and_8_devices(mapping):
  ways = [(1, 8), *((1, runs) for runs in range(1, 8)), *((2, runs) for runs in range(1, 5)),
          (8, 1)]
  assert_equal_to_rounding(swept("config", mapping, ways), ways)
