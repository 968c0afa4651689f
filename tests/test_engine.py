"""What XLA is told, and how a batch comes to the devices of a run."""

import re
import types
from typing import NamedTuple
from unittest import mock

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from jax.sharding import Mesh, PartitionSpec

from dcnn import jobs
from dcnn.base import processes
from dcnn.configs import build
from dcnn.sweeps import engine, memory, plans, training
from dcnn.tasks.base import Task, mean_term

SPLIT = "outer_dimension_partitions"  # XLA's mark of a loop that several cores share


@pytest.mark.parametrize("cores, splits", [(2, False), (3, True)])
def test_loops_are_split_over_cores_only_where_some_are_idle(monkeypatch, cores, splits):
  """The two devices of the tests on as many cores, and on more."""
  monkeypatch.setattr(processes, "usable_cores", lambda: cores)
  options = engine._compiler_options(engine.mesh_for(2), 2)
  lowered = jax.jit(lambda x: jnp.sin(x) * 2).lower(jnp.zeros(1 << 20))
  if SPLIT not in lowered.compile().as_text():
    pytest.skip("this machine has one core, over which XLA splits nothing")
  assert (SPLIT in lowered.compile(options).as_text()) == splits


def test_an_xla_without_an_option_makes_dcnn_slower_and_not_dead():
  lowered = jax.jit(lambda x: jnp.sin(x) * 2).lower(jnp.zeros(3))
  options = {"xla_of_long_ago": 512, **engine.ONLY_ONCE, "xla_of_old": True}
  with pytest.warns(UserWarning, match="no longer knows xla_of_") as told:
    compiled = engine._compile(lowered, options)
  assert len(told) == 2
  np.testing.assert_array_equal(compiled(jnp.zeros(3)), 0)
  with pytest.raises(jax.errors.JaxRuntimeError):  # an error of another kind stays one
    engine._compile(lowered, {"xla_backend_optimization_level": "many"})


@pytest.mark.nightly
def test_splitting_loops_changes_no_bit(monkeypatch):
  """A run alone, beside which a core is idle, is the run of a full machine."""
  def rows(cores):
    monkeypatch.setattr(processes, "usable_cores", lambda: cores)
    return jobs.sweep(tiny.config(
        model__features=64, model__blocks=3, batch_size=10, steps=60, chunk=30, seeds=1)).rows

  assert rows(1) == rows(99)


def test_devices_of_a_run_take_shards_of_a_batch_and_sum_one_vector():
  mesh = engine.mesh_for(1, 2)
  batches = jnp.arange(12).reshape(3, 4)

  def found(batches):
    mine = engine._shard_of(batches, mesh)
    assert mine.shape == (3, 2)
    return engine._psum(mesh)({"sum": jnp.sum(mine), "each": 1.0 * mine})

  everywhere = jax.shard_map(
      found, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False)
  total = jax.jit(everywhere)(batches)
  assert total["sum"] == 66 and total["sum"].dtype == jnp.int32
  np.testing.assert_array_equal(total["each"], batches[:, :2] + batches[:, 2:])
  assert str(jax.make_jaxpr(everywhere)(batches)).count("psum") == 1


class Masked(NamedTuple):
  """A batch of which only some entries count."""

  values: jax.Array
  mask: jax.Array


def masked_task(variables_to_penalties) -> Task:
  """A task of two terms, one of them over the entries of a mask; nothing else of it is used."""
  def loss(variables, hypers, batch, key):
    del key
    penalties = variables_to_penalties(variables, batch)
    return {"masked": mean_term(hypers["weight"], penalties, batch.mask),
            "all": mean_term(1.0, jnp.square(variables["params"] - penalties))}, {}

  return Task(("masked", "all"), lambda key, hypers: {"params": jnp.float32(0.5)}, loss,
              lambda *_: {}, lambda *_: jnp.float32(0), lambda *_: None)


def test_a_mean_over_shards_is_that_of_the_whole():
  """Shards of unequal counts, as those of padded molecules are: loss, gradient and parameters."""
  values = jnp.array([[1.0, 2.0, jnp.nan], [6.0, jnp.nan, jnp.nan]])
  batch = Masked(jnp.nan_to_num(values), jnp.isfinite(values))
  program = training.Program(
      masked_task(lambda variables, batch: variables["params"] * batch.values),
      lambda hypers: optax.sgd(0.1), lambda data, indices: data, 2, False)
  hypers, key = {"weight": jnp.float32(2.0)}, jax.random.key(0)
  state = training.init(program, key, hypers)
  whole, terms = training.step(program, state, hypers, batch, key)
  # By hand: d/dp [2 p (1 + 2 + 6) / 3 + mean over six of (p - p v)^2], at p = 1/2.
  others = jnp.square(1 - batch.values).mean()
  assert terms["masked"] == 1.5 and terms["all"] == 0.25 * others
  np.testing.assert_allclose(whole.variables["params"], 0.5 - 0.1 * (6.0 + others), rtol=1e-6)

  mesh = engine.mesh_for(1, 2)
  divided = program._replace(psum=engine._psum(mesh))
  step = jax.shard_map(
      lambda batch: training.step(divided, state, hypers, batch, key), mesh=mesh,
      in_specs=PartitionSpec(engine.BATCH), out_specs=PartitionSpec(), check_vma=False)
  shards, their_terms = jax.jit(step)(batch)
  np.testing.assert_allclose(their_terms["masked"], 1.5, rtol=1e-6)
  np.testing.assert_allclose(their_terms["all"], terms["all"], rtol=1e-6)
  np.testing.assert_allclose(
      shards.variables["params"], whole.variables["params"], rtol=1e-6)


@pytest.fixture
def padded(tmp_path) -> str:
  """A file of molecules of three, four and nine atoms, in turns."""
  rng = np.random.default_rng(0)
  images = []
  for i in range(40):
    image = molecule(("H2O", "NH3", "CH3CH2OH")[i % 3])
    image.calc = EMT()  # a potential of ASE's own, for labels that are derivatives
    image.rattle(0.05, rng=rng)
    image.calc = SinglePointCalculator(
        image, energy=image.get_potential_energy(), forces=image.get_forces())
    images.append(image)
  path = tmp_path / "padded.extxyz"
  ase.io.write(path, images)
  return str(path)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "changed", [{}, {"loss__force_weight": 0.0}], ids=["forces", "energies"])
def test_padded_molecules_weigh_the_same_on_one_device_and_on_two(padded, changed):
  config = tiny.config(dataset=padded, optimizer__eps=1e-2, **changed)
  one = jobs.sweep(config)
  config.devices_per_run = 2
  two = jobs.sweep(config)
  for name in ("energy_loss", "force_loss"):
    np.testing.assert_allclose(two.errors(name)["base"], one.errors(name)["base"], rtol=2e-5)


def test_devices_of_a_run_meet_twice_a_step():
  """To count what is real, and to add up gradient and loss."""
  plan = build.build(config := tiny.mlp(devices_per_run=2), build.load(config))
  group, = plans.make_groups(plan)
  built = memory.compile_group(plan, group.program, group.runs).engine
  text = built.programs["train"].as_text()
  assert len(re.findall(r"= \S+ all-reduce\(", text)) == 2


@pytest.mark.parametrize("platform, runs, triton", [
    ("gpu", 2 * engine.MANY_RUNS, False), ("gpu", 2 * engine.MANY_RUNS - 1, None),
    ("tpu", 2 * engine.MANY_RUNS, None)])
def test_many_runs_on_a_gpu_go_without_triton(platform, runs, triton):
  """On two devices, each of which must have many."""
  device = types.SimpleNamespace(platform=platform)
  mesh = mock.Mock(
      spec=Mesh, devices=np.array([[device], [device]], object),
      shape={engine.RUNS: 2, engine.BATCH: 1})
  assert engine._compiler_options(mesh, runs).get("xla_gpu_enable_triton_gemm") is triton
