"""One run: the reparametrisation theorem, the order of data, chunks, and divergence."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dcnn import activations, derivatives
from dcnn.base import System
from dcnn.models import MLP, Nonlinearity, SchNet
from dcnn.sweeps import batches, training
from dcnn.tasks import forcefield

SPECIES = np.array([8, 1, 1, 6])
FRAMES = 12


def springs(_, system):
  """A pair potential to learn."""
  first, second = np.triu_indices(4, 1)
  square = jnp.sum((system.positions[first] - system.positions[second])**2, axis=-1)
  return jnp.sum(jnp.exp(-0.3 * square))


def data():
  positions = np.random.default_rng(0).normal(size=(FRAMES, 4, 3)) * 1.3
  systems = System(jnp.asarray(positions), jnp.asarray(np.tile(SPECIES, (FRAMES, 1))))
  return systems, jax.vmap(derivatives.energy_and_forces(springs), (None, 0))(None, systems)


def take(frames, indices):
  return forcefield.Batch(*jax.tree.map(lambda leaf: leaf[indices], frames))


def absolute(residual, hypers):
  return jnp.abs(residual)


def make_program(make_model, make_optimizer, averaged=False):
  example = System(jnp.zeros((4, 3)), jnp.asarray(SPECIES))
  task = forcefield.make_task(
      make_model, example, energy_penalty=absolute, force_penalty=absolute)
  return training.Program(task, make_optimizer, take, 4, averaged)


def hypers(**changed):
  numbers = {"c": 0.5, "init_gain": 1.0, "scale": 1.3, "energy_weight": 1.0, "force_weight": 30.0,
             "energy_delta": 1.0, "force_delta": 1.0, "learning_rate": 1e-2, "ema_decay": 0.9}
  return {name: jnp.asarray(value) for name, value in (numbers | changed).items()}


def adam(numbers):
  return optax.adam(numbers["learning_rate"])


def irelu(numbers):
  return Nonlinearity(
      functools.partial(activations.irelu, c=numbers["c"]), gain=numbers["init_gain"])


def mlp(numbers):
  return MLP(irelu(numbers), hidden=(8, 8))


def schnet(numbers):
  return SchNet(irelu(numbers), features=4, blocks=2, radial=4)


def reads_activation(path, _):
  """The layers whose input is an activation."""
  layer = path[0].key
  read = layer == "output" or layer.startswith(("update_", "filter_0", "filter_1", "hidden_1"))
  return "matched" if read and path[1].key == "kernel" else "plain"


def matched_adam(numbers):
  """Adam with learning rate times 0.5 / c and eps times c / 0.5 where c has been divided out."""
  ratio = 0.5 / numbers["c"]
  rate = numbers["learning_rate"]
  return optax.multi_transform(
      {"plain": optax.adam(rate, eps=1e-8), "matched": optax.adam(rate * ratio, eps=1e-8 / ratio)},
      lambda params: jax.tree_util.tree_map_with_path(reads_activation, params))


@pytest.mark.parametrize("make_model", [
    pytest.param(mlp, marks=pytest.mark.nightly), schnet], ids=["mlp", "schnet"])
def test_fully_matched_constants_follow_the_same_curve(make_model, x64):
  """With matched weights, learning rate and eps, c is a reparametrisation and nothing more."""
  program = make_program(make_model, matched_adam)
  frames = data()
  order = jnp.asarray(batches.batch_order(
      0, np.arange(FRAMES), batch_size=4, start=0, steps=300))

  def curve(c):
    numbers = hypers(c=c, init_gain=0.5 / c)
    state = training.init(program, jax.random.key(0), numbers)
    state = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, state)

    def body(state, indices):
      state, terms = training.step(
          program, state, numbers, take(frames, indices), jax.random.key(0))
      return state, jnp.stack([terms["energy"], terms["forces"]])

    return jax.lax.scan(body, state, order)[1]

  constants = jnp.array([0.5, 0.125, 0.25, 1.0, 2.0])
  curves = np.asarray(jax.jit(functools.partial(jax.lax.map, curve))(constants))
  assert curves.shape == (5, 300, 2) and np.isfinite(curves).all()
  loss = curves[0] @ [1.0, 30.0]
  assert loss[-30:].mean() < 0.99 * loss[:30].mean()  # the weights have moved
  np.testing.assert_allclose(curves, np.broadcast_to(curves[:1], curves.shape), rtol=1e-12)


def test_each_epoch_is_a_permutation_of_the_training_data():
  train = np.arange(100, 112)
  order = batches.batch_order(3, train, batch_size=4, start=0, steps=6)
  assert sorted(order[:3].ravel()) == sorted(order[3:].ravel()) == list(train)
  assert (order[:3] != order[3:]).any()


@pytest.mark.parametrize("start", [1, 3, 5, 7])
def test_data_order_depends_on_seed_and_step_alone(start):
  train = np.arange(10)
  straight = batches.batch_order(3, train, batch_size=4, start=0, steps=12)
  resumed = batches.batch_order(3, train, batch_size=4, start=start, steps=12 - start)
  np.testing.assert_array_equal(straight[start:], resumed)
  other = batches.batch_order(4, train, batch_size=4, start=0, steps=12)
  assert (straight != other).any()


def test_batch_larger_than_the_training_set_is_refused():
  with pytest.raises(ValueError, match="between 1 and the 10 training frames, got 11"):
    batches.batch_order(0, np.arange(10), batch_size=11, start=0, steps=1)


def run_chunks(program, numbers, lengths, seed=0):
  """Trains and validates once for each length; a length of several numbers in as many segments."""
  frames = data()
  state = jax.jit(functools.partial(training.init, program))(jax.random.key(seed), numbers)
  valid = jnp.asarray(batches.pad_batches(np.arange(8, FRAMES), 3))
  train = jax.jit(functools.partial(training.train, program))
  evaluate = jax.jit(functools.partial(training.evaluate, program, count=len(valid)))
  validate = jax.jit(functools.partial(training.validate, program))
  rows = batches.batch_order(seed, np.arange(8), batch_size=4, start=0, steps=12)
  records, taken = [], 0
  for length in lengths:
    for steps in length:
      state = train(state, numbers, frames, jnp.asarray(rows), first=taken, steps=steps,
                    key=jax.random.key(seed))
      taken += steps
    sums = evaluate(training.evaluated_variables(program, state), numbers, frames, valid)
    state, record = validate(state, numbers, sums, steps=sum(length))
    records.append(record)
  return state, records


def assert_equal(one, two):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("averaged", [False, True], ids=["plain", "averaged"])
def test_segments_do_not_change_a_training(averaged):
  program = make_program(mlp, adam, averaged)
  one = run_chunks(program, hypers(), [[6]])
  assert_equal(run_chunks(program, hypers(), [[1, 3, 2]]), one)
  two, _ = run_chunks(program, hypers(), [[4], [2]])
  assert one[0].step == two.step == 6
  assert_equal((two.variables, two.optimizer, two.average),
               (one[0].variables, one[0].optimizer, one[0].average))


def test_patience_ends_a_run_that_gets_no_better():
  program = make_program(mlp, adam)._replace(patience=2)
  state, records = run_chunks(program, hypers(learning_rate=-1e-2), [[1]] * 8)
  scores = [float(program.task.score(record.valid, hypers())) for record in records]
  best = int(np.argmin(scores[:int(state.stopped_at)])) + 1
  assert state.stopped_at == best + 2 == state.step < 8  # and from then on nothing moves
  assert state.best.step == best and len(set(scores[best + 1:])) == 1
  patient, _ = run_chunks(make_program(mlp, adam), hypers(learning_rate=-1e-2), [[1]] * 8)
  assert patient.stopped_at == training.NEVER and patient.step == 8


def test_a_run_that_is_not_finite_stands_still_and_is_never_best():
  program = make_program(mlp, adam)
  before, _ = run_chunks(program, hypers(), [[3]])
  frames = data()
  broken = take(frames, jnp.arange(4))
  broken = broken._replace(labels=broken.labels._replace(energy=jnp.full(4, jnp.nan)))
  step = jax.jit(functools.partial(training.step, program))
  after, _ = step(before, hypers(), broken, jax.random.key(0))
  assert after.diverged_at == after.step == 3
  assert [name for name, flag in after.non_finite.items() if flag] == ["energy"]
  again, _ = step(after, hypers(), take(frames, jnp.arange(4)), jax.random.key(0))
  assert again.diverged_at == 3
  for a, b in zip(jax.tree.leaves((before.variables, before.optimizer, before.best)),
                  jax.tree.leaves((again.variables, again.optimizer, again.best)), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [1, 15, 16, 37])
def test_sum_of_squares_sees_every_element(size):
  numbers = jnp.arange(1.0, size + 1)
  tree = {"one": numbers[:size // 2], "other": numbers[size // 2:]}
  assert training._sum_of_squares(tree) == jnp.sum(numbers**2)
  for place in range(size):
    for bad in (jnp.nan, jnp.inf, -jnp.inf, 1e30):
      assert not jnp.isfinite(training._sum_of_squares(numbers.at[place].set(bad)))


def test_best_is_the_lowest_validation_score():
  program = make_program(mlp, adam)
  frames, valid = data(), jnp.asarray(batches.pad_batches(np.arange(8, FRAMES), 3))
  state, records = run_chunks(program, hypers(learning_rate=0.1), [[1]] * 12)
  scores = [float(program.task.score(record.valid, hypers())) for record in records]
  assert state.best.score == min(scores) and state.best.step == 1 + int(np.argmin(scores))
  sums = training.evaluate(
      program, state.best.variables, hypers(), frames, valid, count=len(valid))
  totals = {name: values.sum() for name, values in sums.items()}
  np.testing.assert_allclose(program.task.score(totals, hypers()), min(scores), rtol=1e-5)


def test_average_starts_at_the_parameters_and_lags_behind():
  program = make_program(mlp, adam, averaged=True)
  state, _ = run_chunks(program, hypers(ema_decay=0.9), [[6]])
  gap = optax.tree.norm(jax.tree.map(
      jnp.subtract, state.average, state.variables["params"]))
  assert 0 < gap < 1
  fast, _ = run_chunks(program, hypers(ema_decay=0.0), [[6]])
  for a, b in zip(jax.tree.leaves(fast.average), jax.tree.leaves(fast.variables["params"]),
                  strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_padded_batches_hold_every_index_once():
  rows = batches.pad_batches(np.arange(7), 3)
  assert rows.shape == (3, 3) and (rows[rows >= 0] == np.arange(7)).all() and (rows < 0).sum() == 2


@pytest.mark.nightly
def test_an_optimiser_may_have_another_point_evaluated_than_it_trains():
  """As schedule_free does: validation and the checkpoint see the average."""
  program = make_program(mlp, lambda numbers: optax.sgd(numbers["learning_rate"]))
  program = program._replace(evaluated=lambda state, params: jax.tree.map(jnp.zeros_like, params))
  state = training.init(program, jax.random.key(0), hypers())
  evaluated = training.evaluated_variables(program, state)
  chex.assert_trees_all_equal(evaluated["params"], jax.tree.map(
      jnp.zeros_like, state.variables["params"]))
  assert any(jnp.any(leaf) for leaf in jax.tree.leaves(state.variables["params"]))
