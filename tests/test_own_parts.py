"""A user's own parts, given as objects: each runs a sweep, and what is no such part is refused."""

import functools
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import linen as nn

import dcnn
from dcnn import activations, configs, jobs, labels, losses, optimizers
from dcnn.configs import arms, tasks
from dcnn.models import layers
from dcnn.tasks.forcefield_metrics import FrameMetric


def snake(x):
  """x + sin(x)^2, smooth."""
  return x + jnp.sin(x) ** 2


def median_and_spread(training: labels.Labels) -> labels.LabelTransform:
  """A label scheme of one's own."""
  return labels.rescale(float(np.median(training.energy)), float(np.ptp(training.energy)))


def half_l1(residual):
  """A penalty of one's own."""
  return 0.5 * jnp.abs(residual)


def steps_down(steps: int) -> optax.Schedule:
  """A schedule of one's own: a tenth of the learning rate in the second half."""
  return optax.piecewise_constant_schedule(1.0, {steps // 2: 0.1})


def centred():
  """A normaliser of one's own."""
  return lambda features: features - jnp.mean(features, axis=-1, keepdims=True)


def direction(predicted, reference, species):
  """1 - cosine between all predicted and all reference forces of a configuration."""
  del species
  product = jnp.sum(predicted.forces * reference.forces)
  norms = jnp.linalg.norm(predicted.forces) * jnp.linalg.norm(reference.forces)
  return 1 - product / jnp.maximum(norms, 1e-12)


class PairNet(nn.Module):
  """A network of one's own: a sum over pairs of a function of their distance."""

  activation: layers.Activation
  width: int = 8

  @nn.compact
  def __call__(self, system):
    pairs = layers.pairs(system, 1e3)
    hidden = self.activation(nn.Dense(self.width)(pairs.distance[:, None]))
    return jnp.sum(pairs.real * nn.Dense(1)(hidden)[:, 0])


PARTS = {
    "activation": ({"activation.name": snake}, "snake"),
    "activation record": (
        {"activation.name": activations.Activation(snake, 2.0, lambda: 1.0)}, None),
    "label transform": (
        {"labels": labels.rescale(-4209.0, 0.5)}, "LabelTransform(shift=-4209.0, scale=0.5)"),
    "label function": ({"labels": median_and_spread}, "median_and_spread"),
    "label function with parameters": (
        {"labels": functools.partial(labels.power_of_ten, exponent=6)},
        "power_of_ten(exponent=6)"),
    "label text with parameters": (
        {"labels": "power_of_ten(exponent=6)"}, "power_of_ten(exponent=6)"),
    "shift and scale": ({"labels": (np.median, "std")}, "median/std"),
    "network": ({"model.name": PairNet, "model.width": 4}, "PairNet,width=4"),
    "energy penalty": ({"loss.energy": half_l1}, "energy=half_l1"),
    "force penalty": ({"loss.forces": half_l1}, "forces=half_l1"),
    "penalty record": (
        {"loss.forces": losses.Penalty(lambda r, delta: jnp.abs(r) * delta, ("delta",)),
         "loss.force_delta": 0.5}, None),
    "optimiser": ({"optimizer.name": optax.adabelief}, "adabelief"),
    "optimiser record": (
        {"optimizer.name": optimizers.Optimizer(optax.scale_by_rms, flat=True)}, None),
    "schedule": ({"optimizer.schedule": steps_down}, "steps_down"),
    "normaliser": ({"model.normaliser": centred}, "centred"),
}


OPTIMISERS = {
    name: ({"optimizer.name": name, "optimizer.weight_decay": 1e-2}, None)
    for name in ("adamw", "sgd", "lion", "muon", "schedule_free", "prodigy")}
ALL = PARTS | OPTIMISERS
TWIN = "label text with parameters"  # another way to say what one of them says: not beside it


def run_beside_the_base(kinds):
  """The result of a sweep of these parts, and of each its arm; alike parts compile once."""
  result = dcnn.sweep(
      tiny.mlp(arms=({}, *(ALL[kind][0] for kind in kinds)), seeds=1), None)
  json.dumps(result.config, allow_nan=False)
  return {kind: (result, own) for kind, own in zip(kinds, result.arms[1:], strict=True)}


def assert_runs(result, own, expected):
  assert expected in (None, own)
  errors = [result.errors(metric) for metric in ("energy_loss", "force_loss")]
  assert all(np.isfinite(each[own]).all() for each in errors)
  assert any(each[own] != each["base"] for each in errors)  # a shift alone moves energies


@pytest.fixture(scope="module")
def together():
  return run_beside_the_base([kind for kind in PARTS if kind != TWIN]) | run_beside_the_base([TWIN])


@pytest.mark.parametrize("kind", PARTS)
def test_each_part_runs_as_an_arm(together, kind):
  assert_runs(*together[kind], PARTS[kind][1])


@pytest.mark.nightly
def test_each_optimiser_runs_as_an_arm_and_its_pitfalls_are_told_of():
  with pytest.warns(UserWarning) as told:
    found = run_beside_the_base(list(OPTIMISERS))
  words = " ".join(str(each.message) for each in told)
  for name, (result, own) in found.items():
    assert_runs(result, own, None)
    assert (name in words) == (name in ("schedule_free", "prodigy"))


def test_an_own_metric_is_in_every_table():
  """Its value is that of the predictions that are kept."""
  config = tiny.mlp(metrics=(FrameMetric(direction, compared=True),), seeds=2)
  result = dcnn.sweep(config, None)
  assert "direction" in result.table(baseline="base")
  values = result.errors("direction")["base"]
  assert ((values > 0) & (values < 2)).all()
  assert "direction" in {row.metric for row in result.rows if row.split == "valid"}


def test_own_parts_of_the_base_configuration(tmp_path):
  """Not only arms: the base may hold objects, and the files say which."""
  config = tiny.mlp(seeds=1)
  config.activation.name, config.labels = snake, labels.rescale(-4209.0, 0.5)
  dcnn.sweep(config, None, workdir=tmp_path / "w")
  written = json.loads((tmp_path / "w" / "config.json").read_text())["config"]
  assert written["activation"]["name"]["object"] == f"{__name__}.snake"
  assert len(written["labels"]["digest"]) == 64
  with pytest.raises(ValueError, match=r"trained with snake, .* pass the configuration, as in dcn"):
    dcnn.load(tmp_path / "w")
  trained = dcnn.load(tmp_path / "w", config)["base"]
  np.testing.assert_array_equal(trained.transform.scale, [0.5])
  config.model.hidden = (5,)
  with pytest.raises(ValueError, match=r"config.model.hidden=\[4\], and \[5\] .* of that sweep"):
    dcnn.load(tmp_path / "w", config)


EXPERIMENT = """
import jax.numpy as jnp
import tiny

FACTOR = {factor}

def wave(x):
  return jnp.tanh(x) * FACTOR

def get_config(arg=""):
  config = tiny.mlp(seeds=1)
  config.activation.name = wave
  return config
"""


def test_continuing_with_a_changed_function_is_refused(tmp_path):
  from dcnn.cli import arguments

  def config(factor):
    path = tmp_path / "experiment.py"
    path.write_text(EXPERIMENT.format(factor=factor))
    return arguments.load_config(str(path))

  dcnn.sweep(config(1.0), None, workdir=tmp_path / "w")
  before = (tmp_path / "w" / "results.csv").read_bytes()
  dcnn.sweep(config(1.0), None, workdir=tmp_path / "w")
  assert (tmp_path / "w" / "results.csv").read_bytes() == before
  with pytest.raises(ValueError, match="function or class at config.activation.name"):
    dcnn.sweep(config(2.0), None, workdir=tmp_path / "w")


def test_a_changed_function_of_an_arm_is_refused_too(tmp_path):
  def config(factor):
    def wave(x):
      return jnp.tanh(x) * factor

    return tiny.mlp(arms=({"activation.name": wave},), seeds=1)

  dcnn.sweep(config(1.0), None, workdir=tmp_path / "w")
  with pytest.raises(ValueError, match="another version of the arm 'wave', of which a function"):
    dcnn.sweep(config(2.0), None, workdir=tmp_path / "w")


def test_arms_that_differ_in_an_object_alone_are_two_programs_and_those_that_do_not_are_one():
  def scaled(factor):
    def wave(x):
      return jnp.tanh(x) * factor

    wave.__name__ = f"wave_{factor}"
    return wave

  config = tiny.mlp(
      arms=tuple({"activation.name": scaled(factor)} for factor in (1.0, 2.0)), seeds=1)
  structures = {arms.structure(each) for each in configs.arm_settings(config).values()}
  assert len(structures) == 2
  config.arms = ({"activation.name": snake, "optimizer.learning_rate": 1e-3},
                 {"activation.name": snake, "optimizer.learning_rate": 1e-2})
  structures = {arms.structure(each) for each in configs.arm_settings(config).values()}
  assert len(structures) == 1


def test_two_arms_that_differ_in_the_delta_of_an_own_penalty_are_two(tmp_path):
  """The case that refused them as the same."""
  pseudo = losses.Penalty(
      lambda residual, delta: delta * (jnp.sqrt(1 + (residual / delta) ** 2) - 1), ("delta",))
  config = tiny.mlp(arms=tuple(
      {"loss.energy": pseudo, "loss.energy_delta": delta} for delta in (0.1, 0.5)), seeds=1)
  configs.validate(config)


REFUSED = {
    "activation": ({"activation.name": lambda x, y: x}, "activation"),
    "label function": ({"labels": lambda training: 3}, "label"),
    "network without activation": ({"model.name": nn.Dense}, "activation"),
    "unknown setting of a network": ({"model.name": PairNet, "model.wdth": 4}, "model.wdth"),
    "penalty with a parameter that no setting gives": (
        {"loss.energy": losses.Penalty(lambda r, alpha: r, ("alpha",))}, "loss.energy_alpha"),
    "optimiser that is made": ({"optimizer.name": optax.adam(1e-3)}, "optim"),
    "schedule that is none": ({"optimizer.schedule": lambda steps: 0.5}, "schedule"),
    **{f"{kind} at {setting.key}": ({setting.key: value}, setting.key)
       for setting in tasks.setting_table(configs.default()).values() if setting.objects
       for kind, value in (("number", 3), ("function of nothing", lambda: 1))},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_such_part_is_refused_before_training(kind):
  overrides, message = REFUSED[kind]
  with pytest.raises(ValueError, match=message):
    jobs.prepare(tiny.config(arms=({}, overrides), seeds=1))


def test_the_readme_lists_each_key_that_takes_an_object():
  text = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
  for setting in configs.SETTINGS:
    assert not setting.objects or setting.key in text, setting.key
