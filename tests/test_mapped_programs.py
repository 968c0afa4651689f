"""What an accelerator is given: the program of many runs, lowered for CUDA, which needs no device.

Runs are mapped by `vmap`: nothing loops over them, and nothing waits for the host. Without
neighbour lists no sum goes over pairs by index, which a GPU adds up one by one and in any order.
"""

import re

import daily
import jax
import numpy as np
import pytest
import tiny

from dcnn.base import System
from dcnn.configs import build
from dcnn.models import layers
from dcnn.sweeps import engine, memory, plans

RUNS = 7  # no other axis is as long
HOST = ("infeed", "outfeed", "send", "recv", "callback", "host")


class Captured(Exception):
  """The program, in place of a compiled one."""


def train_program(network, monkeypatch):
  """The StableHLO of the training steps of some runs of a network."""
  config = tiny.config(model__name=network, seeds=RUNS, **tiny.NETWORKS[network])
  plan = build.build(config, build.load(config))
  group, = plans.make_groups(plan)

  def capture(traces, options):
    raise Captured(traces["train"]().lower(lowering_platforms=("cuda",)).as_text())

  monkeypatch.setattr(engine, "_compile_all", capture)
  monkeypatch.setattr(engine, "one_after_another", lambda mesh: False)
  # One device, so that all runs are in one program.
  monkeypatch.setattr(engine.processes, "devices", lambda runs, each: jax.local_devices()[:1])
  with pytest.raises(Captured) as captured, jax.default_matmul_precision("highest"):
    memory.compile_group(plan, group.program, group.runs)
  return str(captured.value)


@pytest.mark.parametrize("network", daily.only(("SchNet",), tiny.NETWORKS))
def test_the_program_of_many_runs(network, monkeypatch):
  text = train_program(network, monkeypatch)
  # Of the steps, and of the blocks in some networks; the rounds of a random key carry integers.
  loops = [line for line in text.splitlines() if "stablehlo.while" in line and "f32>" in line]
  assert loops
  for loop in loops:  # one over runs would hold that of the steps of a single run
    shapes = re.findall(r"tensor<([^>]+x)f32>", loop)
    assert any(str(RUNS) in shape.split("x") for shape in shapes), shapes
  assert not [word for word in HOST if f"stablehlo.{word}" in text or f"@{word}" in text]
  scattered = re.findall(r'"stablehlo\.scatter"\(.*?\}\) : \((.*?)\) ->', text, re.DOTALL)
  # Gradients of embeddings alone are added up by index: over the atoms of a batch.
  assert all("119x" in operands for operands in scattered)
  assert len(scattered) <= 1


def squares(positions):
  pairs = layers.all_pairs(System(positions, np.ones(len(positions), int)))
  return (pairs.distance ** 2).sum()


@pytest.mark.parametrize("function", [squares, jax.grad(squares)], ids=["value", "gradient"])
def test_positions_keep_all_their_bits_whatever_the_default_of_products(function):
  """A GPU's default is TF32, which moves distances by a milliangstrom."""
  traced = jax.jit(function).trace(np.zeros((9, 3), np.float32))
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  products = [line for line in text.splitlines() if "dot_general" in line]
  assert products and all("precision = [HIGHEST, HIGHEST]" in line for line in products)


@pytest.mark.parametrize("atoms", [1, 2, layers.FEW_ATOMS, layers.FEW_ATOMS + 1])
def test_pairs_of_few_and_of_many_atoms_have_the_same_distances(atoms):
  positions = np.random.default_rng(atoms).normal(size=(atoms, 3)).astype(np.float32)
  found = layers.all_pairs(System(positions, np.ones(atoms, int)))
  first, second = np.triu_indices(atoms, 1)
  expected = np.linalg.norm(positions[second] - positions[first], axis=1)
  np.testing.assert_allclose(found.distance, expected, rtol=1e-6)
