"""Normalisers: PyTorch's batch statistics on real rows, the leak, and where they are kept."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from compiling import drawn, quickly_compiled
from flax import linen as nn
from test_training import absolute, adam, data, hypers, make_program, take

import dcnn
from dcnn import derivatives, jobs, sweeps
from dcnn.base import System
from dcnn.models import MLP, NORMALISERS, SchNet, layers, normalisers
from dcnn.sweeps import training
from dcnn.tasks import forcefield

SMALL = {"features": 4, "blocks": 2, "radial": 4}


def schnet(normaliser=normalisers.BatchNorm, **fields):
  return SchNet(jax.nn.silu, normaliser=normaliser, **{**SMALL, **fields})


def mlp():
  return MLP(jax.nn.silu, hidden=(4, 4), normaliser=normalisers.BatchNorm)


NETWORKS = {"schnet": schnet(), "mlp": mlp()}


def batch(seed=0, sizes=(9, 9, 9)):
  """Molecules of some sizes, padded to the largest with atoms anywhere."""
  generator = np.random.default_rng(seed)
  species = np.array([[6, 6, 8, 1, 1, 1, 1, 1, 1]] * len(sizes))
  for row, size in zip(species, sizes, strict=True):
    row[size:] = 0
  positions = generator.normal(size=(len(sizes), 9, 3)) * 1.5
  return System(jnp.asarray(positions), jnp.asarray(species))


def system(systems, index):
  return jax.tree.map(lambda leaf: leaf[index], systems)


def in_training(model):
  """Energies, forces and new statistics of a batch in training."""
  function = derivatives.energy_forces_and_state(
      functools.partial(model.apply, mutable=[normalisers.RUNNING]))
  return jax.vmap(function, (None, 0), (0, None), axis_name=normalisers.SYSTEMS)


@functools.cache
def trained(model):
  return quickly_compiled(in_training(model))


@functools.cache
def evaluated(model):
  return quickly_compiled(jax.vmap(derivatives.energy_and_forces(model.apply), (None, 0)))


def some_variables(model, systems, seed=0):
  return jax.tree.map(jnp.asarray, drawn(model, system(systems, 0), seed))


LAYER = normalisers.BatchNorm()
_layer_in_training = quickly_compiled(jax.vmap(
    functools.partial(LAYER.apply, mutable=[normalisers.RUNNING]), (None, 0, 0), (0, None),
    axis_name=normalisers.SYSTEMS))


def layer_in_training(features, real, variables=None):
  variables = variables or LAYER.init(jax.random.key(0), features[0], real[0])
  return _layer_in_training(variables, features, real)


def test_rows_are_normalised_over_all_real_rows_of_the_batch(x64):
  generator = np.random.default_rng(0)
  features, real = generator.normal(2.0, 3.0, (4, 5, 3)), generator.random((4, 5)) < 0.6
  normalised, _ = layer_in_training(features, np.where(real, 1.0, 0.0))
  rows = features[real]
  expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
  np.testing.assert_allclose(np.asarray(normalised)[real], expected, rtol=1e-12)


def test_running_statistics_move_as_those_of_pytorch(x64):
  generator, variables = np.random.default_rng(1), None
  mean, variance = np.zeros(3), np.ones(3)
  for _ in range(5):
    features, real = generator.normal(2.0, 3.0, (4, 5, 3)), generator.random((4, 5)) < 0.6
    _, state = layer_in_training(features, np.where(real, 1.0, 0.0), variables)
    mean = 0.9 * mean + 0.1 * features[real].mean(0)
    variance = 0.9 * variance + 0.1 * features[real].var(0, ddof=1)
    variables = {"params": {"scale": np.ones(3), "bias": np.zeros(3)}, **state}
  np.testing.assert_allclose(state["batch_stats"]["mean"], mean, rtol=1e-12)
  np.testing.assert_allclose(state["batch_stats"]["var"], variance, rtol=1e-12)
  # As they are used where nothing may be changed.
  rows = normalisers.BatchNorm().apply(variables, features[0], np.ones(5))
  np.testing.assert_allclose(rows, (features[0] - mean) / np.sqrt(variance + 1e-5), rtol=1e-12)


def test_large_means_cost_no_digits():
  features = 1e4 + np.random.default_rng(2).normal(size=(4, 50, 2)).astype(np.float32)
  normalised, _ = layer_in_training(jnp.asarray(features), jnp.ones((4, 50)))
  rows = np.asarray(features, np.float64)
  expected = (rows - rows.mean((0, 1))) / rows.std((0, 1))
  np.testing.assert_allclose(normalised, expected, atol=3e-3)  # a spacing of float32 at 1e4


@pytest.mark.parametrize("real", [np.zeros((2, 3)), np.eye(3)[:2] * [1.0, 0.0, 0.0]],
                         ids=["no row", "one row"])
def test_batches_without_a_variance_leave_finite_statistics(real):
  features = jnp.asarray(np.random.default_rng(3).normal(size=(2, 3, 2)), jnp.float32)
  normalised, state = layer_in_training(features, jnp.asarray(real, jnp.float32))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((normalised, state)))
  if not real.any():
    np.testing.assert_array_equal(state["batch_stats"]["mean"], 0)
    np.testing.assert_array_equal(state["batch_stats"]["var"], 1)


@pytest.mark.nightly
def test_a_batch_is_one_configuration_of_molecules_far_apart(x64):
  """The batch as one system is a plain network with plain means: forces, weight gradients, state.

  It has no vmap and no sum over a named axis of more than one entry, and no padding.
  """
  model, systems = schnet(), batch(sizes=(9, 4, 1))
  variables = some_variables(model, systems)
  real = np.asarray(systems.species) > 0
  apart = systems.positions + 100.0 * jnp.arange(3)[:, None, None]
  joined = System(apart[real][None], systems.species[real][None])

  def force_loss(params, systems, wanted):
    (energies, forces), state = in_training(model)(
        {**variables, "params": params}, systems)
    mask = (systems.species > 0)[..., None]
    return jnp.sum(jnp.where(mask, jnp.abs(forces - wanted), 0)), (jnp.sum(energies), forces, state)

  wanted = np.random.default_rng(4).normal(size=(3, 9, 3))
  gradient = quickly_compiled(jax.value_and_grad(force_loss, has_aux=True))
  (loss, (energy, forces, state)), weights = gradient(variables["params"], systems, wanted)
  (one_loss, (one_energy, one_forces, one_state)), one_weights = gradient(
      variables["params"], joined, wanted[real][None])
  np.testing.assert_allclose(energy, one_energy, rtol=1e-12)
  np.testing.assert_allclose(loss, one_loss, rtol=1e-12)
  scale = np.abs(one_forces).max()
  np.testing.assert_allclose(np.asarray(forces)[real], one_forces[0], atol=1e-12 * scale)
  assert (np.asarray(forces)[~real] == 0).all()
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14),
               state, one_state)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(one_weights))
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-12 * largest),
               weights, one_weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_atom_of_another_molecule_moves_the_forces_in_training_alone(name, x64):
  model, systems = NETWORKS[name], batch()
  variables = some_variables(model, systems)
  moved = systems._replace(positions=systems.positions.at[2, 4, 0].add(0.3))
  (_, before), _ = trained(model)(variables, systems)
  (_, after), _ = trained(model)(variables, moved)
  assert np.abs(after[0] - before[0]).max() > 1e-4 * np.abs(before[0]).max()
  np.testing.assert_array_equal(
      evaluated(model)(variables, moved).forces[0], evaluated(model)(variables, systems).forces[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_forces_on_a_molecule_sum_to_zero_in_training(name, x64):
  model, systems = NETWORKS[name], batch()
  (_, forces), _ = trained(model)(some_variables(model, systems), systems)
  np.testing.assert_allclose(forces.sum(axis=1), 0, atol=1e-12 * np.abs(forces).max())


def test_forces_in_training_are_derivatives_of_the_sum_of_energies(x64):
  model, systems = NETWORKS["schnet"], batch(sizes=(9, 6, 3))
  variables = some_variables(model, systems)
  (_, forces), _ = trained(model)(variables, systems)
  step = 1e-5
  for molecule, atom, axis in ((0, 2, 1), (1, 5, 0), (2, 0, 2)):
    plus, minus = (
        jnp.sum(trained(model)(variables, systems._replace(
            positions=systems.positions.at[molecule, atom, axis].add(sign * step)))[0].energy)
        for sign in (1, -1))
    np.testing.assert_allclose(
        forces[molecule, atom, axis], -(plus - minus) / (2 * step), rtol=1e-6, atol=1e-8)


def test_layer_norm_has_the_epsilon_of_pytorch(x64):
  features = np.random.default_rng(5).normal(size=(4, 6)) * 1e-3
  layer = NORMALISERS["layer"]()
  rows, _ = layer.init_with_output(jax.random.key(0), features)
  expected = (features - features.mean(1, keepdims=True)) / np.sqrt(
      features.var(1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(rows, expected, rtol=1e-12)


class OfReal(nn.Module):
  """A normaliser's layer of one's own that reads the weights of rows."""

  @nn.compact
  def __call__(self, features, real):
    return features - jnp.sum(features * real[:, None], axis=0) / jnp.sum(real)


@pytest.mark.parametrize("own", [
    lambda: lambda features: features / 2, lambda: lambda features, real: features * real[:, None],
    nn.LayerNorm, functools.partial(nn.RMSNorm, epsilon=1e-3), OfReal],
    ids=["function", "function of rows", "class", "partial", "class of rows"])
def test_layers_of_ones_own_are_given_what_they_take(own):
  model, systems = schnet(own), batch(sizes=(9, 5))
  padded = system(systems, 1)
  cut = jax.tree.map(lambda leaf: leaf[:5], padded)
  variables = quickly_compiled(model.init)(jax.random.key(0), cut)
  energy = quickly_compiled(model.apply)
  np.testing.assert_allclose(energy(variables, padded), energy(variables, cut), rtol=1e-5)


def test_a_network_that_names_no_rows_is_told_how():
  with pytest.raises(ValueError, match=r"normalised\(features, self.normaliser\(\), real\)"):
    normalisers.BatchNorm().init(jax.random.key(0), jnp.ones((2, 3)))


# What training does with the state.


@functools.cache
def run():
  """A program with batch statistics, its first state, its compiled step and data for it."""
  program = make_program(
      lambda numbers: SchNet(jax.nn.silu, features=4, blocks=1, radial=4,
                             normaliser=normalisers.BatchNorm), adam)
  state = quickly_compiled(functools.partial(training.init, program))(jax.random.key(0), hypers())
  return program, state, quickly_compiled(functools.partial(training.step, program)), data()


def statistics(variables):
  return variables["batch_stats"]["BatchNorm_0"]


def test_a_step_hands_on_statistics_and_an_evaluation_reads_them():
  program, state, step, frames = run()
  first = take(frames, np.arange(4))
  moved, _ = step(state, hypers(), first, jax.random.key(1))
  assert (statistics(state.variables)["mean"] == 0).all()
  assert (statistics(moved.variables)["mean"] != 0).all()
  predict = quickly_compiled(program.task.predict)
  before, after = (predict(
      {"params": moved.variables["params"], "batch_stats": each.variables["batch_stats"]},
      hypers(), first) for each in (state, moved))
  assert (before.energy != after.energy).all()


def test_the_best_checkpoint_keeps_its_own_statistics():
  program, state, step, frames = run()
  better, worse = ({"energy_absolute": jnp.full(1, error), "frames": jnp.ones(1),
                    "force_absolute": jnp.zeros(1), "components": jnp.ones(1)}
                   for error in (1.0, 2.0))
  state, _ = step(state, hypers(), take(frames, np.arange(4)), jax.random.key(1))
  state, _ = training.validate(program, state, hypers(), better, steps=1)
  chosen = statistics(state.variables)["mean"]
  state, _ = step(state, hypers(), take(frames, np.arange(4, 8)), jax.random.key(2))
  state, _ = training.validate(program, state, hypers(), worse, steps=1)
  np.testing.assert_array_equal(statistics(state.best.variables)["mean"], chosen)
  assert (statistics(state.variables)["mean"] != chosen).all()


def test_a_diverged_run_keeps_its_statistics():
  _, state, step, frames = run()
  bad = take(frames, np.arange(4))
  bad = bad._replace(labels=bad.labels._replace(energy=bad.labels.energy.at[0].set(jnp.inf)))
  after, _ = step(state, hypers(), bad, jax.random.key(1))
  assert after.diverged_at == 0
  jax.tree.map(np.testing.assert_array_equal, after.variables, state.variables)


def test_runs_in_one_map_keep_statistics_of_their_own():
  _, state, step, frames = run()
  numbers = [hypers(scale=scale) for scale in (1.0, 0.3)]
  batches = [take(frames, np.arange(4)), take(frames, np.arange(4, 8))]
  stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
  stepped = functools.partial(training.step, run()[0])
  together, _ = quickly_compiled(jax.vmap(stepped, (None, 0, 0, None)))(
      state, stack(*numbers), stack(*batches), jax.random.key(0))
  for i in range(2):
    alone, _ = step(state, numbers[i], batches[i], jax.random.key(0))
    jax.tree.map(lambda leaf, mine, i=i: np.testing.assert_allclose(
        leaf[i], mine, rtol=1e-4, atol=1e-6), together.variables, alone.variables)


def test_energies_alone_are_trained_with_statistics_too():
  task = forcefield.make_task(
      lambda numbers: NETWORKS["schnet"], system(data()[0], 0), energy_penalty=absolute,
      force_penalty=absolute, use_forces=False)
  variables = quickly_compiled(task.init)(jax.random.key(0), hypers())
  terms, state = quickly_compiled(task.loss)(
      variables, hypers(), take(data(), np.arange(4)), jax.random.key(1))
  assert set(terms) == {"energy"} and (statistics(state)["mean"] != 0).all()


# As a setting.

BATCH = {"model__normaliser": "batch"}


@pytest.mark.nightly
def test_a_sweep_goes_on_with_the_statistics_that_it_had(tmp_path):
  """Straight, and stopped after a chunk and resumed: the same checkpoints."""
  checkpoints = []
  for name, stops in (("straight", []), ("stopped", [True])):
    experiment = jobs.prepare(tiny.mlp(**BATCH))
    directory = tmp_path / name
    asked = iter(stops)
    with contextlib.suppress(sweeps.Interrupted):
      jobs.run(experiment, lambda progress: None, directory=directory,
               should_stop=lambda asked=asked: next(asked, False))
      assert not stops
    checkpoints.append(jobs.run(
        jobs.prepare(tiny.mlp(**BATCH)), lambda progress: None, directory=directory).result)
  straight, stopped = checkpoints
  assert straight.rows == stopped.rows


def batch_net(activation, normaliser=normalisers.none):
  """A network of one's own, not of Flax alone: it holds Flax's BatchNorm."""
  class Net(nn.Module):
    @nn.compact
    def __call__(self, system):
      distance = layers.pairs(system, cutoff=5.0).distance[:, None]
      training = self.is_mutable_collection("batch_stats") and not self.is_initializing()
      rows = nn.BatchNorm(not training, axis_name=normalisers.SYSTEMS)(layers.dense(4)(distance))
      return jnp.sum(layers.dense(1)(activation(rows)))

  del normaliser
  return Net()


class Whitened(nn.Module):
  """A layer of one's own that keeps statistics."""

  @nn.compact
  def __call__(self, features):
    mean = self.variable("batch_stats", "mean", jnp.zeros, features.shape[-1:])
    return features - mean.value


ONES_OWN = {"model__name": batch_net}
REFUSED = {
    "average": ({"optimizer__ema_decay": 0.9}, "optimizer.ema_decay must be 0 with"),
    "devices": ({"devices_per_run": 2}, "devices_per_run must be 1 with"),
    "batch of one": ({"batch_size": 1}, "batch_size must be at least 2 with"),
    "schedule free": ({"optimizer__name": "schedule_free", "optimizer__schedule": "constant"},
                      "optimizer.name=schedule_free evaluates other parameters"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("network, what", [
    (BATCH, "model.normaliser=batch"),
    ({"model__normaliser": normalisers.BatchNorm}, "model.normaliser=BatchNorm"),
    ({"model__normaliser": Whitened}, "the batch statistics of SchNet"),
    (ONES_OWN, "the batch statistics of batch_net")], ids=["name", "class", "own", "network"])
def test_statistics_are_refused_where_they_cannot_serve(network, what, kind):
  options, words = REFUSED[kind]
  with pytest.raises(ValueError, match=words) as refusal:
    jobs.prepare(tiny.config(**network, **options))
  assert what in str(refusal.value)


def test_a_network_of_ones_own_may_hold_batch_norm():
  result = dcnn.sweep(tiny.config(**ONES_OWN, seeds=1), None)
  assert np.isfinite(result.errors("force_loss")["base"]).all()


def test_statistics_of_single_configurations_are_told_of():
  """Flax's BatchNorm without the name of the axis, of which JAX would speak of vmap."""
  with pytest.raises(ValueError, match="not those of the whole batch: give its normaliser axis"):
    jobs.prepare(tiny.config(model__normaliser=lambda: nn.BatchNorm(False)))


def test_statistics_that_are_not_finite_end_a_run():
  program, state, step, frames = run()
  lost = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), state.variables["batch_stats"])
  ended, _ = step(state._replace(variables={**state.variables, "batch_stats": lost}), hypers(),
                  take(frames, np.arange(4)), jax.random.key(1))
  assert ended.diverged_at == 0 and ended.non_finite["parameters"]
