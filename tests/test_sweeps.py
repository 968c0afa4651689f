"""Sweeps: grouping, one compilation, independence of runs, launches, and reproducibility."""

import functools
import re
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest
import tiny

from dcnn import configs, jobs
from dcnn.base import System
from dcnn.configs import build
from dcnn.configs import forcefield as configs_forcefield
from dcnn.jobs import loading
from dcnn.sweeps import checkpoints, engine, plans, snapshots, training
from dcnn.tasks import forcefield

ARMS = ({}, {"activation.c": 0.25}, {"labels": "min_max"}, {"init": "variance_preserving"})
# What is shown here is the machine's, whatever network it trains: SchNet compiles longer.
NETWORKS = {"mlp": tiny.mlp, "schnet": tiny.config}
QUICK = ["mlp", pytest.param("schnet", marks=pytest.mark.nightly)]


def run(config, **options):
  return jobs.run(jobs.prepare(config), **options)


def rows_of(result, arm):
  return [row for row in result.rows if row.arm == arm]


@pytest.fixture(scope="module", params=QUICK)
def network(request):
  """Makes a configuration of a network."""
  return NETWORKS[request.param]


@pytest.fixture(scope="module")
def swept(network):
  return run(network(arms=ARMS))


def test_numbers_share_a_program_and_structure_does_not():
  config = tiny.config(arms=(
      {}, {"activation.c": 0.1}, {"labels": "robust"}, {"optimizer.learning_rate": 1e-2},
      {"activation.name": "silu"}, {"model.features": 8}, {"loss.force_weight": 1.0},
      {"loss.force_weight": 0.0}, {"batch_size": 2}, {"optimizer.ema_decay": 0.9}))
  plan = build.build(config, build.load(config))
  names = [list(dict.fromkeys(run.arm.name for run in group.runs))
           for group in plans.make_groups(plan)]
  assert names == [
      ["base", "c=0.1", "robust", "learning_rate=0.01", "force_weight=1.0"],
      ["silu"], ["features=8"], ["force_weight=0.0"], ["batch_size=2"], ["ema_decay=0.9"]]


def test_all_arms_and_seeds_are_one_compilation(network, monkeypatch):
  counted = chex.assert_max_traces(training.train, n=1)
  monkeypatch.setattr(training, "train", counted)
  finished = run(network(arms=ARMS))
  assert finished.result.config["timing"]["groups"] == 1
  assert len(finished.result.rows) == len(ARMS) * 2 * 3 * 7


def test_results_hold_every_arm_seed_split_and_metric_once(swept):
  keys = [(row.arm, row.seed, row.split, row.metric) for row in swept.result.rows]
  assert len(keys) == len(set(keys)) == len(ARMS) * 2 * 3 * 7
  assert all(np.isfinite(row.value) and row.status == "finished" for row in swept.result.rows)


def test_same_experiment_twice_gives_the_same_numbers(network, swept):
  again = run(network(arms=ARMS))
  assert again.result.rows == swept.result.rows and again.result.history == swept.result.history


@pytest.mark.parametrize("arm", [1, 2], ids=["constant", "labels"])
def test_a_run_alone_is_the_same_run_as_in_a_sweep(network, swept, arm, mapping):
  alone = run(network(arms=(ARMS[arm],), seeds=(1,)))
  name = configs.arm_name(ARMS[arm])
  together = [row for row in rows_of(swept.result, name) if row.seed == 1]
  for a, b in zip(alone.result.rows, together, strict=True):
    assert a[:6] == b[:6]
    np.testing.assert_allclose(a.value, b.value, rtol=2e-5)


@pytest.fixture(params=["one_after_another", "vmapped"])
def mapping(request, monkeypatch):
  """Both ways of mapping over runs: a CPU's and an accelerator's."""
  if request.param == "vmapped":
    monkeypatch.setattr(engine, "_one_after_another", jax.vmap)


def test_a_diverging_arm_leaves_its_siblings_bitwise_as_they_were(network, mapping):
  sound = run(network(arms=({}, {"activation.c": 0.25})))
  beside = run(network(arms=({}, {"activation.c": 1e30})))
  assert rows_of(beside.result, "base") == rows_of(sound.result, "base")
  assert [p for p in beside.result.history if p.arm == "base"] == [
      p for p in sound.result.history if p.arm == "base"]
  assert {row.status for row in rows_of(beside.result, "c=1e+30")} == {"diverged@0"}
  assert np.isinf(beside.result.errors("force_loss")["c=1e+30"]).all()


@pytest.mark.nightly  # test_a_diverging_arm_... is the same in small
def test_an_exploding_arm_beside_nine_sound_ones():
  """A constant of 100 on raw labels and ten seeds; whoever fails, nobody else notices."""
  sound = tuple({"activation.c": 0.1 * i} for i in range(1, 10))
  exploding = {"activation.c": 100.0, "labels": "identity"}
  options = {"seeds": 10, "steps": 4, "chunk": 2, "model__blocks": 2}
  alone = run(tiny.config(arms=sound, **options)).result
  beside = run(tiny.config(arms=(*sound[:4], exploding, *sound[4:]), **options)).result
  name = configs.arm_name(exploding)
  assert tuple(row for row in beside.rows if row.arm != name) == alone.rows
  assert tuple(point for point in beside.history if point.arm != name) == alone.history
  failed = {(row.seed, row.cause) for row in rows_of(beside, name) if row.status == "diverged@0"}
  assert len(failed) >= 5 and all(cause for _, cause in failed)


def test_a_run_that_blows_up_on_its_way_is_recorded_there(network, mapping):
  blows_up = {"optimizer.learning_rate": 1e6 if network is tiny.config else 1e11}
  finished = run(network(arms=({}, blows_up), seeds=1, optimizer__schedule="constant"))
  name = configs.arm_name(blows_up)
  status, = {row.status for row in rows_of(finished.result, name)}
  assert status.startswith("diverged@") and 0 < int(status.partition("@")[2]) < 6
  curve = [p.value for p in finished.result.history
           if (p.arm, p.metric) == (name, "force_loss")]
  assert np.isnan(curve[-1])


def assert_same_but_for_rounding(result, expected):
  for a, b in zip(result.rows, expected.rows, strict=True):
    assert (a[:6], a[7:]) == (b[:6], b[7:])
    np.testing.assert_allclose(a.value, b.value, rtol=2e-5)


def test_launches_that_fit_the_memory_give_the_same_results(network, swept, monkeypatch):
  tiny.let_runs_fit(monkeypatch, 1)
  split = run(network(arms=ARMS)).result
  assert split.config["timing"]["launches"] == 4
  assert_same_but_for_rounding(split, swept.result)


def test_a_run_that_does_not_fit_is_refused_with_the_numbers():
  numbers = "one run needs .* MB on a device, .*, and 0.000 MB are allowed"
  with pytest.raises(ValueError, match=numbers):
    run(tiny.mlp(arms=ARMS[:1], seeds=1, max_memory=1e-9))


def test_seeds_differ(swept):
  energies = swept.result.errors("energy_loss")
  assert all(len(set(values)) == 2 for values in energies.values())


def test_checkpoints_by_arm_hold_what_their_use_needs(network, swept, tmp_path):
  run(network(arms=ARMS), directory=tmp_path)
  ended = {}
  for checkpoint in checkpoints.finished(tmp_path / "checkpoints"):
    ended |= snapshots.to_ended(checkpoint)
  read = loading.hand_over(network(arms=ARMS), ended, {})
  assert set(read) == {"base", "c=0.25", "min_max", "variance_preserving"}
  arm = read["min_max"]
  shift, scale, atomic = arm.transform
  assert arm.seeds == (0, 1) and (shift < -309).all() and (scale < 2).all()
  assert atomic is None
  sources = build.load(network())
  plan = build.build(network(), sources)
  test = sources.dataset.take(plan.splits[0].test)
  systems, _ = plan.problem.shared(plan.splits[0].test)
  hypers = {**plan.arms[0].hypers, "scale": 1.0}
  output = plan.arms[0].make_program().task.predict(
      jax.tree.map(lambda leaf: leaf[0], arm.variables), hypers,
      forcefield.Batch(systems, test.labels)).energy
  energy = scale[0] * np.asarray(output) + shift[0]
  error = np.abs(energy - test.labels.energy).mean()
  np.testing.assert_allclose(error, swept.result.errors("energy_loss")["min_max"][0], rtol=1e-3)


def test_mapped_one_after_another_equals_vmapped():
  def function(run, shared):
    return jax.numpy.sin(run["x"]) @ shared

  runs = {"x": jax.random.normal(jax.random.key(0), (6, 3, 4))}
  shared = jax.random.normal(jax.random.key(1), (4,))
  looped = jax.jit(engine.over_runs(function, engine.mesh_for(6)))(runs, shared)
  vmapped = jax.vmap(function, (0, None))(runs, shared)
  np.testing.assert_allclose(looped, vmapped, rtol=1e-5)


def test_each_seed_can_have_its_own_split():
  config = tiny.config(split__per_seed=True)
  plan = build.build(config, build.load(config))
  first, second = (set(split.test.tolist()) for split in plan.splits)
  assert first != second
  fixed = build.build(tiny.config(), build.load(config))
  np.testing.assert_array_equal(fixed.splits[0].test, fixed.splits[1].test)


def test_predictions_hold_the_test_split_in_physical_units(swept):
  parity = swept.outcome.predictions
  assert parity["energy_true"].shape == (10,) and parity["forces_true"].shape == (10 * 27,)
  assert abs(parity["energy_predicted"].mean() + 309.6) < 5  # eV, GFN2-xTB ethanol
  error = np.abs(parity["energy_predicted"] - parity["energy_true"]).mean()
  row = next(row for row in rows_of(swept.result, str(parity["arm"]))
             if row.seed == parity["seed"] and (row.split, row.metric) == ("test", "energy_loss"))
  np.testing.assert_allclose(error, row.value, rtol=1e-4)


@pytest.mark.nightly
def test_energies_without_forces_build_no_force_graph():
  """A step then has the matrix products of the gradient of the energies, and no others."""
  without, with_forces = traced_step(force_weight=0.0), traced_step(force_weight=1.0)
  assert 0 < without.products == without.of_energies < with_forces.products
  assert with_forces.of_energies == without.of_energies
  assert with_forces.reads_forces and not without.reads_forces
  finished = run(tiny.config(loss__force_weight=0.0, seeds=1))
  terms = {point.metric for point in finished.result.history if point.split == "train"}
  assert terms == {"loss_energy"}


class Traced(NamedTuple):
  """Matrix products of a step, those of the gradient of the energies alone, and labels read."""

  products: int
  of_energies: int
  reads_forces: bool


def traced_step(force_weight) -> Traced:
  config = tiny.config(loss__force_weight=force_weight)
  sources = build.load(config)
  plan = build.build(config, sources)
  (group, *_) = plans.make_groups(plan)
  program, (each, *_) = group
  numbers = jax.tree.map(jax.numpy.float32, each.hypers)
  state = training.init(program, jax.random.key(0), numbers)
  systems, forces = plan.problem.shared(np.arange(plan.problem.frames))
  rows, energy = np.arange(4), np.zeros(len(forces), np.float32)

  def step(forces):
    batch = program.take(((systems, forces), energy), rows)
    return training.step(program, state, numbers, batch, jax.random.key(0))[0].variables

  def energies(params):
    model = configs_forcefield._make_model(config, {})(numbers)
    apply = functools.partial(model.apply, {**state.variables, "params": params})
    return jax.vmap(apply)(System(systems.positions[rows], systems.species[rows])).sum()

  traced = jax.make_jaxpr(step)(forces)
  alone = jax.make_jaxpr(jax.grad(energies))(state.variables["params"])
  (given,) = traced.jaxpr.invars
  # Labels are taken from the data first, so that what counts is whether the rows go on from there.
  taken = {given}
  for equation in traced.jaxpr.eqns:
    if taken & {v for v in equation.invars if isinstance(v, type(given))}:
      taken |= set(equation.outvars)
  # By either name, see `models.primitives`.
  return Traced(*(len(re.findall("dot_general|rows_times_matrix", str(jaxpr)))
                  for jaxpr in (traced, alone)),
                reads_forces=bool(taken & set(traced.jaxpr.outvars)))
