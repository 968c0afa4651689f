"""Tasks: the terms of a loss, what a task reports, and advection against its exact solution."""

import itertools
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from dcnn import activations, configs, jobs, sweeps
from dcnn.configs import build
from dcnn.jobs import workdirs
from dcnn.results import measures
from dcnn.sweeps import engine, plans, sweep, training
from dcnn.tasks import advection, forcefield
from dcnn.tasks.advection import Equation, Points
from dcnn.tasks.base import mean_term

# Terms of a loss.


def mean(term):
  """The mean of a term, as the trainer takes it."""
  return term.total / jnp.maximum(term.count, 1)


def test_a_term_is_a_mean_over_what_is_there():
  """Masked entries do not count, whatever they are."""
  values = jnp.array([[1.0, jnp.nan], [3.0, 4.0]])
  term = mean_term(2.0, values, jnp.array([[True, False], [True, False]]))
  assert (term.weight, term.total, term.count) == (2.0, 4.0, 2) and mean(term) == 2.0
  assert term.count.dtype == jnp.int32
  nothing = mean_term(2.0, values, jnp.zeros((2, 2), bool))
  assert (nothing.total, nothing.count, mean(nothing)) == (0.0, 0, 0.0)


@pytest.mark.parametrize("mask", [True, [[True], [False]], [False, True], False], ids=str)
def test_a_mask_is_broadcast(mask):
  values = jnp.arange(1.0, 7.0).reshape(2, 3) if np.shape(mask) != (2,) else jnp.ones((4, 2))
  term = mean_term(1.0, values, jnp.asarray(mask))
  everywhere = np.broadcast_to(mask, values.shape)
  assert term.count == everywhere.sum() and term.total == np.asarray(values)[everywhere].sum()


def test_terms_of_shards_add_up_to_the_term_of_the_whole():
  rng = np.random.default_rng(0)
  values = jnp.asarray(rng.integers(0, 9, (12, 3)), jnp.float32)
  mask = jnp.asarray(rng.random((12, 3)) < 0.4)
  whole = mean_term(3.0, values, mask)
  shards = [mean_term(3.0, values[i:i + 4], mask[i:i + 4]) for i in (0, 4, 8)]
  assert sum(shard.total for shard in shards) == whole.total
  assert sum(shard.count for shard in shards) == whole.count > 0


def test_no_gradient_comes_from_masked_entries():
  mask = jnp.array([True, False, True])
  gradient = jax.grad(lambda x: mean(mean_term(1.0, jnp.square(x), mask)))(jnp.arange(1.0, 4.0))
  np.testing.assert_array_equal(gradient, [1.0, 0.0, 3.0])


# What a task reports.

SMALL = {"points__train": 40, "points__valid": 12, "points__grid": (3, 4), "steps": 6, "chunk": 3,
         "batch_size": 4, "seeds": 2, "model__hidden": (4,), "activation__name": "tanh"}


def config(**overrides):
  """Advection on a few points; dotted keys with __ for the dot."""
  base = configs.default("advection")
  base.update_from_flattened_dict(
      {key.replace("__", "."): value for key, value in {**SMALL, **overrides}.items()})
  return base


TASKS = {"forcefield": tiny.mlp, "advection": config}


@pytest.fixture(scope="module", params=TASKS)
def finished(request):
  return jobs.run(jobs.prepare(TASKS[request.param](steps=2, chunk=2, seeds=1)))


def reported(finished) -> measures.Measures:
  return measures.from_record(json.loads(json.dumps(finished.result.config["measures"])))


def test_what_a_task_reports_is_what_its_rows_hold(finished):
  """In the same order and units, and config.json says so."""
  found = reported(finished)
  for split in ("train", "valid", "test"):
    rows = [row for row in finished.result.rows if row.split == split]
    assert [(row.metric, row.unit) for row in rows] == [
        (metric.name, metric.unit) for metric in found.metrics]
  followed = {point.metric for point in finished.result.history if point.split == "valid"}
  assert {found.watched, *found.compared} <= followed


def test_every_metric_is_told_of(finished):
  found = reported(finished)
  names = [metric.name for metric in found.metrics]
  assert len(set(names)) == len(names) and found.metric(found.watched).kind == "error"
  for metric in found.metrics:
    assert metric.label and metric.meaning.endswith("."), metric
    assert metric.kind != "skill" or found.metric(metric.of).kind == "error"


def test_pictures_show_arrays_that_there_are(finished):
  arrays = finished.outcome.predictions
  for picture in reported(finished).pictures:
    drawn = {role: arrays[name] for role, name in picture.arrays.items()}
    assert drawn["true"].shape == drawn["predicted"].shape and drawn["true"].dtype == np.float64
    if picture.kind == "field":
      assert drawn["true"].shape == (len(drawn["vertical"]), len(drawn["horizontal"]))
      assert all(picture.axes)
    assert all(np.isfinite(each).all() for each in drawn.values())
  used = {name for picture in reported(finished).pictures for name in picture.arrays.values()}
  assert set(arrays) == {*used, "arm", "seed"}


def test_measures_come_back_from_json():
  for found in (advection.MEASURES, forcefield.measures()):
    assert measures.from_record(json.loads(json.dumps(measures.to_record(found)))) == found


# Advection: the equation.

EQUATIONS = (Equation(), Equation(0.7, 2.0), Equation(-1.5, 0.5), Equation(0.0, 1.0),
             Equation(1.0, 1.0, hard_initial=False))
ACTIVATIONS = {"tanh": jnp.tanh, "irelu": activations.irelu}


def scattered(number=200, seed=0):
  """Points of the whole domain and beyond it, float64."""
  rng = np.random.default_rng(seed)
  return (jnp.asarray(each) for each in rng.uniform(-1.0, 2.0, (2, number)))


def over_points(field, variables, time, position):
  return jax.vmap(field, (None, 0, 0))(variables, time, position)


@pytest.mark.parametrize("equation", EQUATIONS, ids=str)
def test_the_residual_of_the_exact_solution_is_zero(equation, x64):
  """To rounding: the derivatives of the solution itself are of the size of 10."""
  def solution(_, time, position):
    return advection.exact(equation, time, position)

  time, position = scattered()
  slopes = over_points(
      lambda *arguments: jax.grad(solution, argnums=2)(*arguments), {}, time, position)
  found = over_points(advection.residual(solution, equation), {}, time, position)
  assert found.dtype == jnp.float64 and jnp.abs(slopes).max() > 9
  np.testing.assert_allclose(found, 0, atol=1e-13 * (1 + abs(equation.speed)))


def weights(hidden=(8, 8), seed=0):
  return advection.init_network(jax.random.key(seed), hidden)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_residual_is_the_sum_of_the_derivatives(activation, x64):
  equation = Equation(0.7, 2.0)
  field = advection.make_field(equation, ACTIVATIONS[activation])
  variables, (time, position) = weights(), scattered()
  along_time, along_position = (
      over_points(jax.grad(field, argnums=i), variables, time, position) for i in (1, 2))
  found = over_points(advection.residual(field, equation), variables, time, position)
  np.testing.assert_allclose(found, along_time + 0.7 * along_position, atol=1e-12)
  assert jnp.abs(found).max() > 1  # an untrained field solves nothing


@pytest.mark.parametrize("equation", EQUATIONS[:3], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_initial_condition_is_built_in(equation, activation, x64):
  field = advection.make_field(equation, ACTIVATIONS[activation])
  _, position = scattered()
  found = over_points(field, weights(), jnp.zeros_like(position), position)
  np.testing.assert_allclose(found, advection.initial(position), rtol=0, atol=1e-12)
  soft = advection.make_field(equation._replace(hard_initial=False), ACTIVATIONS[activation])
  free = over_points(soft, weights(), jnp.zeros_like(position), position)
  assert jnp.abs(free - advection.initial(position)).max() > 0.1


@pytest.mark.parametrize("equation", EQUATIONS, ids=str)
def test_fields_are_periodic(equation, x64):
  """The initial condition, the solution and every network, by any number of periods."""
  field = advection.make_field(equation, jnp.tanh, activations.irelu)
  time, position = scattered()
  for periods in (1, -3):
    np.testing.assert_allclose(
        over_points(field, weights(), time, position + periods),
        over_points(field, weights(), time, position), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        advection.exact(equation, time, position + periods),
        advection.exact(equation, time, position), rtol=0, atol=1e-12)


def test_the_last_hidden_layer_may_have_another_activation(x64):
  variables, inputs = weights((5, 4, 3)), jnp.array([0.3, -0.2, 0.9])
  layers = [variables["params"][f"layer_{i}"] for i in range(4)]
  expected = inputs
  for layer, function in zip(layers, (jnp.tanh, jnp.tanh, jnp.sin, lambda x: x), strict=True):
    expected = function(expected @ layer["kernel"] + layer["bias"])
  np.testing.assert_allclose(
      advection.network(variables, inputs, jnp.tanh, jnp.sin), expected[0], rtol=1e-12)


def test_initial_weights_have_the_gain_of_what_they_read():
  plain, scaled = (advection.init_network(jax.random.key(0), (400, 400), gain)["params"]
                   for gain in (1.0, 3.0))
  assert [layer["kernel"].shape for layer in plain.values()] == [(3, 400), (400, 400), (400, 1)]
  np.testing.assert_allclose(plain["layer_1"]["kernel"].std(), 400**-0.5, rtol=0.02)
  for name, factor in (("layer_0", 1.0), ("layer_1", 3.0), ("layer_2", 3.0)):
    np.testing.assert_allclose(
        scaled[name]["kernel"], factor * plain[name]["kernel"], rtol=1e-6)


# Advection: the loss and the errors.

HYPERS = {"residual_weight": 2.0, "initial_weight": 5.0}


def make_task(equation):
  return advection.make_task(
      equation, lambda key, hypers: weights(), lambda hypers: advection.make_field(
          equation, jnp.tanh), lambda residual, hypers: jnp.abs(residual)**3)


def six_points():
  """A batch, float64."""
  points = advection.collocation(6, 1, (2, 2)).points
  return Points(*(jnp.asarray(each[:6], jnp.float64) for each in points))


@pytest.mark.parametrize("equation", EQUATIONS[1::3], ids=["hard", "soft"])
def test_terms_by_hand(equation, x64):
  """At points that the key of the step shifts, within the domain."""
  task, batch, variables = make_task(equation), six_points(), weights()
  key = jax.random.key(3)
  terms, state = task.loss(variables, HYPERS, batch, key)
  assert tuple(terms) == task.terms and state == {}
  shift = jax.random.uniform(key, (2,))
  field = advection.make_field(equation, jnp.tanh)
  residuals, misses = [], []
  for time, position in zip(*batch, strict=True):
    time, position = (time + shift[0]) % 1.0, (position + shift[1]) % 1.0
    along = [jax.grad(field, argnums=i)(variables, equation.horizon * time, position)
             for i in (1, 2)]
    residuals.append(abs(along[0] + equation.speed * along[1])**3)
    misses.append(abs(field(variables, 0.0 * time, position) - advection.initial(position))**3)
  expected = {"residual": (2.0, sum(residuals))}
  if not equation.hard_initial:
    expected["initial"] = (5.0, sum(misses))
  assert set(terms) == set(expected)
  for name, (weight, total) in expected.items():
    assert terms[name].weight == weight and terms[name].count == 6
    np.testing.assert_allclose(terms[name].total, total, rtol=1e-9)


@pytest.mark.parametrize("equation", EQUATIONS[1::3], ids=["hard", "soft"])
def test_sums_and_scores_by_hand(equation, x64):
  """Entries that only pad the batch are in no sum."""
  task, batch, variables = make_task(equation), six_points(), weights()
  sums = task.evaluate(variables, HYPERS, batch, jnp.arange(6) < 4)
  time, position = (np.asarray(each, np.float64)[:4] for each in batch)
  field = advection.make_field(equation, jnp.tanh)
  found = np.asarray(task.predict(variables, HYPERS, batch))[:4]
  np.testing.assert_allclose(
      found, over_points(field, variables, equation.horizon * time, position), rtol=1e-12)
  solution = sum(a * np.sin(2 * np.pi * k * (position - equation.speed * equation.horizon * time)
                            + phase) for a, k, phase in advection.WAVES)
  slope = over_points(
      advection.residual(field, equation), variables, equation.horizon * time, position)
  start = over_points(field, variables, 0 * time, position) - advection.initial(position)
  expected = {
      "squared_error": (found - solution)**2, "squared_reference": solution**2,
      "squared_residual": slope**2, "squared_mismatch": start**2,
      "within": np.abs(found - solution) <= 0.013, "points": np.ones(4)}
  assert set(sums) == set(expected)
  for name, each in expected.items():
    np.testing.assert_allclose(sums[name], np.sum(each), rtol=1e-5, atol=1e-20, err_msg=name)
  score = 2.0 * np.mean(slope**2)
  if not equation.hard_initial:
    score += 5.0 * np.mean(start**2)
  np.testing.assert_allclose(task.score(sums, HYPERS), score, rtol=1e-6)


def test_a_field_that_is_the_solution_is_perfect():
  equation = Equation(0.7, 2.0)
  task = advection.make_task(
      equation, lambda key, hypers: {}, lambda hypers: lambda variables, time, position: (
          advection.exact(equation, time, position)), lambda residual, hypers: residual**2)
  data = advection.collocation(8, 4, (5, 8))
  problem = advection.make_problem(equation, data)
  batch = problem.take((problem.shared(data.splits.test), ()), np.arange(40))
  sums = {name: float(each) for name, each in
          task.evaluate({}, HYPERS, batch, jnp.ones(40, bool)).items()}
  values = problem.finish(sums, problem.baseline(data.splits.train, data.splits.test))
  assert values["nrmse"] == 0 and values["skill"] == 1 and values["within_one_percent"] == 1
  assert values["residual_rms"] < 1e-5


def test_skill_is_against_the_initial_condition_held():
  data = advection.collocation(8, 4, (5, 8))
  still = advection.make_problem(Equation(0.0), data)
  nothing = still.baseline(data.splits.train, data.splits.test)
  assert nothing == {"nrmse": 0.0}
  sums = {"squared_error": 1.0, "squared_reference": 4.0, "squared_residual": 9.0, "within": 2.0,
          "points": 4.0}
  assert np.isnan(still.finish(sums, nothing)["skill"])
  assert still.finish(sums, {"nrmse": 2.0}) == {
      "nrmse": 0.5, "residual_rms": 1.5, "within_one_percent": 0.5, "skill": 0.75}
  # After half a period of the first wave and three halves of the second all has changed its sign.
  half = advection.make_problem(Equation(0.5, 1.0), data)
  end = data.splits.test[-8:]
  np.testing.assert_allclose(half.baseline(data.splits.train, end)["nrmse"], 2.0, rtol=1e-6)


def test_points_fill_the_domain():
  """Those of training and validation are spread evenly, and those of the test are a grid."""
  data = advection.collocation(256, 64, (5, 8))
  train, valid, test = data.splits
  assert (len(train), len(valid), len(test)) == (256, 64, 40)
  assert sorted(np.concatenate(data.splits)) == list(range(360))
  time, position = data.points
  assert all(0 <= each.min() and each.max() <= 1 for each in data.points)
  cells, *_ = np.histogram2d(time[train], position[train], bins=8, range=((0, 1), (0, 1)))
  assert (cells >= 2).all() and (cells <= 6).all()  # 4 on average
  np.testing.assert_array_equal(time[test].reshape(5, 8)[:, 0], np.float32([0, .25, .5, .75, 1]))
  np.testing.assert_array_equal(position[test].reshape(5, 8)[0], np.arange(8) / 8)


# Advection: training.


def experiment_config(variant):
  path = pathlib.Path(__file__).parents[1] / "experiments" / "advection.py"
  names = {}
  exec(compile(path.read_text(), str(path), "exec"), names)
  return names["get_config"](variant)


def plan_of(config):
  return build.build(config, build.load(config))


@pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
def test_a_step_is_the_same_on_one_device_and_on_two(hard):
  plan = plan_of(config(equation__hard_initial=hard, seeds=1))
  (group,) = plans.make_groups(plan)
  hypers = jax.tree.map(jnp.float32, group.runs[0].hypers)
  key = jax.random.key(5)
  state = training.init(group.program, key, hypers)
  data = plan.problem.shared(np.arange(plan.problem.frames)), ()
  batch = plan.problem.take(data, group.runs[0].splits.train[:8])
  one, terms = jax.jit(lambda batch: training.step(
      group.program, state, hypers, batch, key))(batch)
  mesh = engine.mesh_for(1, 2)
  divided = group.program._replace(psum=engine._psum(mesh))
  two, shared_terms = jax.jit(jax.shard_map(
      lambda batch: training.step(divided, state, hypers, batch, key), mesh=mesh,
      in_specs=PartitionSpec(engine.BATCH), out_specs=PartitionSpec(), check_vma=False))(batch)
  assert set(terms) == {"residual"} if hard else {"residual", "initial"}
  for name, term in terms.items():
    np.testing.assert_allclose(shared_terms[name], term, rtol=1e-5)
  for a, b in zip(*(jax.tree.leaves(each.variables) for each in (one, two)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  assert max(jnp.abs(a - b).max() for a, b in zip(
      jax.tree.leaves(one.variables), jax.tree.leaves(state.variables), strict=True)) > 1e-4


def test_a_sweep_is_the_same_on_one_device_and_on_two():
  one, two = (jobs.run(jobs.prepare(config(
      seeds=1, devices_per_run=devices, optimizer__eps=1e-2))).result for devices in (1, 2))
  for metric in ("nrmse", "residual_rms"):
    np.testing.assert_allclose(two.errors(metric)["base"], one.errors(metric)["base"], rtol=2e-5)


@pytest.fixture(scope="module")
def straight():
  return jobs.run(jobs.prepare(experiment_config("smoke")))


@pytest.mark.nightly
def test_the_error_falls_in_a_short_training(straight):
  """Nobody has seen the solution: it falls because the residual does."""
  for arm, seed in itertools.product(straight.result.arms, range(3)):
    first, *_, last = curve(straight.result, arm, seed, "residual_rms")
    assert last < first, (arm, seed)
  longer = experiment_config("smoke")
  longer.steps, longer.chunk, longer.seeds, longer.optimizer.learning_rate = 400, 50, 1, 1e-2
  longer.model.hidden, longer.points.train = (20, 20), 400
  result = jobs.run(jobs.prepare(longer)).result
  for arm in result.arms:
    for metric, share in (("residual_rms", 0.8), ("nrmse", 0.9)):
      first, *_, last = curve(result, arm, 0, metric)
      assert last < share * first, (arm, metric)
    assert result.errors("skill")[arm][0] > 0.3


def curve(result, arm, seed, metric):
  return [point.value for point in result.history if (
      point.arm, point.seed, point.split, point.metric) == (arm, seed, "valid", metric)]


def test_predictions_are_those_of_the_row(straight):
  arrays = straight.outcome.predictions
  row, = (row for row in straight.result.rows if (row.arm, row.seed, row.split, row.metric) == (
      str(arrays["arm"]), int(arrays["seed"]), "test", "nrmse"))
  error = arrays["u_predicted"] - arrays["u_true"]
  np.testing.assert_allclose(
      np.sqrt(np.mean(error**2) / np.mean(arrays["u_true"]**2)), row.value, rtol=1e-5)
  # The initial condition is built in, and the solution has moved by a quarter of its period.
  np.testing.assert_allclose(arrays["u_predicted"][0], arrays["u_true"][0], atol=1e-6)
  start = arrays["u_true"][0]
  np.testing.assert_allclose(arrays["u_true"][-1], np.roll(start, len(start) // 4), atol=1e-6)


def test_a_sweep_that_was_stopped_goes_on_as_if_it_had_not(straight, tmp_path, monkeypatch):
  """Within a chunk, and again in the next session."""
  monkeypatch.setattr(sweep, "SEGMENT_SECONDS", 0.0)
  prepared = jobs.prepare(experiment_config("smoke"))
  manifest = jobs.describe(prepared)
  for visits in (7, 30):
    asked = iter([False] * visits + [True] * 99)
    with workdirs.hold(tmp_path / "w", manifest), pytest.raises(sweeps.Interrupted):
      workdirs.begin(tmp_path / "w", manifest)
      jobs.run(prepared, directory=tmp_path / "w", should_stop=lambda asked=asked: next(asked))
  monkeypatch.undo()
  result = jobs.run(prepared, directory=tmp_path / "w").result
  assert repr((result.rows, result.history)) == repr(
      (straight.result.rows, straight.result.history))


def test_trained_fields_come_back_with_nothing_beside_them(tmp_path):
  prepared = jobs.prepare(config(steps=2, chunk=2))
  workdirs.begin(tmp_path, jobs.describe(prepared))
  jobs.run(prepared, directory=tmp_path)
  arm, = jobs.load(tmp_path).values()
  assert arm.seeds == (0, 1) and "seeds 0, 1" in repr(arm)
  assert {leaf.shape[0] for leaf in jax.tree.leaves((arm.variables, arm.last, arm.metrics))} == {2}
  found = jax.vmap(arm.field_fn, (0, None, None))(arm.variables, jnp.array(0.0), jnp.array(0.25))
  np.testing.assert_allclose(found, advection.initial(jnp.array(0.25)), rtol=1e-6)


# With an empty package in the place of dcnn, whose own imports are those of every task.
ALONE = """
import importlib.util, sys, types

spec = importlib.util.find_spec("dcnn")
package = types.ModuleType("dcnn")
package.__path__ = spec.submodule_search_locations
sys.modules["dcnn"] = package

import functools
import jax
import jax.numpy as jnp
import numpy as np
import optax
from dcnn import sweeps
from dcnn.sweeps import plans, training
from dcnn.tasks import advection

equation, data = advection.Equation(), advection.collocation(8, 4, (3, 4))
problem = advection.make_problem(equation, data)
task = advection.make_task(
    equation, lambda key, hypers: advection.init_network(key, (4,)),
    lambda hypers: advection.make_field(equation, jnp.tanh), lambda r, hypers: r**2)
program = training.Program(task, lambda hypers: optax.sgd(1e-3), problem.take, 4, False)
arm = plans.Arm("a", "a", lambda: program, {"residual_weight": 1.0}, advection.fit)
outcome = sweeps.run(plans.Plan(
    "e", problem, (arm,), (0, 1), (data.splits,) * 2, 4, 2, None, 1, False, 30.0))
assert len(outcome.rows) == 2 * 3 * len(advection.MEASURES.metrics)
print("\\n".join(sorted(name for name in sys.modules if name.startswith("dcnn."))))
"""


def test_the_machine_with_another_task_imports_no_force_field():
  told = subprocess.run(
      [sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=600)
  assert told.returncode == 0, told.stderr[-3000:]
  modules = set(told.stdout.split())
  assert {"dcnn.sweeps.sweep", "dcnn.tasks.advection"} <= modules
  packages = {name.split(".")[1] for name in modules}
  assert packages == {"base", "results", "stats", "sweeps", "tasks"}
  assert {name for name in modules if name.startswith("dcnn.tasks.")} == {
      "dcnn.tasks.base", "dcnn.tasks.advection"}
