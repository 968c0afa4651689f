"""The same sweep on 1, 2 and 8 devices and in launches of every size: equal to rounding.

Runs that have a device each never communicate; those that share their batch add up gradients.

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
import pytest
from jax.sharding import Mesh
import tiny
from dcnn import jobs
from dcnn.sweeps import engine

if sys.argv[1] == "vmapped":
  engine._one_after_another = jax.vmap
config = tiny.MODEL(arms=({}, {"activation.c": 0.25}, {"labels": "min_max"},
                          {"activation.c": 1e30}))
for devices, runs in json.loads(sys.argv[2]):
  engine.mesh_for = lambda total, per_run, devices=devices: Mesh(
      np.array(jax.local_devices()[:min(total, devices)])[:, None], (engine.RUNS, engine.BATCH))
  with pytest.MonkeyPatch.context() as patch:
    tiny.let_runs_fit(patch, runs)
    result = jobs.sweep(config, None)
  print(json.dumps([result.config["timing"]["launches"], result.rows, result.history]))
"""
# The worst relative difference measured was 1e-6; float32 rounds to 6e-8 in each operation.
BOUND = 2e-5


def swept(model: str, mapping: str, ways: list, script: str = SCRIPT) -> list:
  told = subprocess.run(
      [sys.executable, "-c", script.replace("MODEL", model), mapping, json.dumps(ways)],
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
        size = "1" in words[0]  # a skill is 1 - error / error, so that its size is 1, too
        np.testing.assert_allclose(
            *values, rtol=BOUND, atol=size * BOUND, err_msg=str((devices, runs)))
        worst = max([worst, *(
            abs(x - y) / max(size, abs(y)) for x, y in zip(*values, strict=True)
            if x == x and x != y)])  # a failed run's nan is no difference
  print(f"worst relative difference {worst:.1e}")


# Prints the same for each number of devices a run, and the collectives of each compiled program.
# Adam's first steps have the size of the learning rate even along a gradient that is nothing but
# rounding, as where signs of an L1 loss cancel; a large eps keeps small what is small.
SHARED = """
import json, re, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
import tiny
from dcnn import jobs
from dcnn.sweeps import engine

COLLECTIVE = re.compile(
    r"= [^=]*\\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|"
    r"collective-broadcast|ragged-all-to-all)(?:-start)?\\(")
built, build = [], engine.build

def remembered(*arguments):
  built.append(build(*arguments))
  return built[-1]

engine.build = remembered
if sys.argv[1] == "vmapped":
  engine._one_after_another = jax.vmap
for devices in json.loads(sys.argv[2]):
  placements = []
  config = tiny.MODEL(arms=({}, {"activation.c": 0.25}, {"labels": "min_max"},
                            {"activation.c": 1e30}), batch_size=8, devices_per_run=devices,
                      split__valid=9, optimizer__eps=1e-2)
  result = jobs.run(
      jobs.prepare(config), lambda progress: placements.append(progress.placement)).result
  collectives = {name: sorted(set(COLLECTIVE.findall(program.as_text())))
                 for name, program in built[-1].programs.items()}
  print(json.dumps([result.config["timing"]["launches"], result.rows, result.history,
                    [placements[-1].devices, placements[-1].devices_per_run, collectives]]))
"""


def assert_batches_are_shared(model, mapping, ways=(1, 8, 4)):
  sweeps = swept(model, mapping, list(ways), SHARED)
  *_, placements = zip(*sweeps, strict=True)
  assert [placement[:2] for placement in placements] == [[8, each] for each in ways]
  alone, *shared = (collectives for *_, collectives in placements)
  assert alone == {"init": [], "train": [], "evaluate": [], "validate": []}
  assert all("all-reduce" in collectives["train"] for collectives in shared)
  assert all(not collectives["init"] for collectives in shared)
  assert_equal_to_rounding([each[:3] for each in sweeps], [(8, 1)] * len(ways))


@pytest.mark.nightly
def test_runs_never_communicate_and_shared_batches_do():
  """Meshes of 8x1 and 2x4 devices; one of the runs diverges beside its siblings."""
  assert_batches_are_shared("mlp", "one-after-another", (1, 4))


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["mlp", "config"])
@pytest.mark.parametrize("mapping", ["one-after-another", "vmapped"])
def test_shared_batches_of_every_network_and_mapping(model, mapping):
  assert_batches_are_shared(model, mapping)


@pytest.mark.nightly
def test_devices_and_launches():
  ways = [(1, 8), (8, 1), (1, 3)]
  assert_equal_to_rounding(swept("mlp", "one-after-another", ways), ways)


@pytest.mark.nightly
@pytest.mark.parametrize("mapping", ["one-after-another", "vmapped"])
def test_every_launch_size_on_1_2_and_8_devices(mapping):
  ways = [(1, 8), *((1, runs) for runs in range(1, 8)), *((2, runs) for runs in range(1, 5)),
          (8, 1)]
  assert_equal_to_rounding(swept("config", mapping, ways), ways)
