"""What XLA is told, and how a batch comes to the devices of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from dcnn import engine, losses, provenance

SPLIT = "outer_dimension_partitions"  # XLA's mark of a loop that several cores share


@pytest.mark.parametrize("cores, splits", [(2, False), (3, True)])
def test_loops_are_split_over_cores_only_where_some_are_idle(monkeypatch, cores, splits):
  """The two devices of the tests on as many cores, and on more."""
  monkeypatch.setattr(provenance, "usable_cores", lambda: cores)
  options = engine._compiler_options("train", engine.mesh_for(2))
  lowered = jax.jit(lambda x: jnp.sin(x) * 2).lower(jnp.zeros(1 << 20))
  if SPLIT not in lowered.compile().as_text():
    pytest.skip("this machine has one core, over which XLA splits nothing")
  assert (SPLIT in lowered.compile(options).as_text()) == splits


def test_what_runs_once_is_not_optimised():
  assert engine._compiler_options("init", engine.mesh_for(2)) == {
      "xla_backend_optimization_level": 0}


def test_devices_of_a_run_take_parts_of_a_batch_and_add_up_one_vector():
  mesh = engine.mesh_for(1, 2)
  batches = jnp.arange(12).reshape(3, 4)

  def found(batches):
    mine = engine._part(batches, mesh)
    assert mine.shape == (3, 2)
    return engine._adding_up(mesh)({"sum": jnp.sum(mine), "each": 1.0 * mine})

  everywhere = jax.shard_map(
      found, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False)
  total = jax.jit(everywhere)(batches)
  assert total["sum"] == 66 and total["sum"].dtype == jnp.int32
  np.testing.assert_array_equal(total["each"], batches[:, :2] + batches[:, 2:])
  assert str(jax.make_jaxpr(everywhere)(batches)).count("psum") == 1


def test_a_mean_over_parts_is_that_of_the_whole():
  """Parts of unequal counts, as those of padded molecules are."""
  values = jnp.array([[1.0, 2.0, jnp.nan], [6.0, jnp.nan, jnp.nan]])
  real = jnp.isfinite(values)
  whole = losses.masked_mean(values, real)
  mesh = engine.mesh_for(1, 2)

  def part(values, real):
    add_up = engine._adding_up(mesh)
    return add_up(losses.masked_mean(values, real, add_up))

  split = jax.shard_map(
      part, mesh=mesh, in_specs=PartitionSpec(engine.BATCH), out_specs=PartitionSpec(),
      check_vma=False)
  assert whole == 3.0 == jax.jit(split)(values, real)
