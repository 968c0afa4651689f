"""What a sweep will take, before it runs."""

import math

import jax
import numpy as np
import pytest
import tiny
from test_display import PLACEMENT

from dcnn import configs, jobs
from dcnn.configs import build
from dcnn.jobs.dry_run import estimate_stages
from dcnn.sweeps import estimates, plans
from dcnn.sweeps.plans import Key

ARMS = ({}, {"activation.c": 0.25}, {"activation.name": "silu"})


def estimated(config, ended=()):
  plan = build.build(config, build.load(config), configs.arm_settings(config))
  return list(estimates.estimate(plan, ended))


def test_groups_runs_and_launches_are_those_of_the_sweep(monkeypatch):
  """Three runs on two devices at a time: four runs of a group take two launches."""
  tiny.let_runs_fit(monkeypatch, 1)
  two, one = estimated(tiny.mlp(arms=ARMS))
  assert (two.arms, two.runs, two.placement.launches, two.placement.runs) == (
      ("base", "c=0.25"), 4, 2, 2)
  assert (one.arms, one.runs, one.placement.launches, one.placement.runs) == (("silu",), 2, 1, 2)


@pytest.mark.parametrize("streamed, changes", [
    (False, {}), (True, {"steps": 1, "chunk": 1}), (False, {"seeds": 3, "steps": 2, "chunk": 5}),
    (True, {"split__per_seed": True, "model__name": "SchNet"})],
    ids=["whole", "one-step-streamed", "odd", "splits-differ-streamed"])
def test_times_are_numbers_that_add_up(monkeypatch, changes, streamed):
  if streamed:
    tiny.let_runs_fit(monkeypatch, 2, streamed=True)
  config = tiny.mlp(arms=ARMS[:2], **changes)  # an MLP takes no splits that differ
  (found,) = estimated(config)
  assert found.placement.streamed == streamed
  assert all(math.isfinite(seconds) and seconds > 0 for seconds in found[3:])
  assert found.seconds == found.compile_seconds + found.train_seconds + found.evaluate_seconds
  np.testing.assert_allclose(found.train_seconds, (
      config.steps * found.step_seconds * found.placement.runs * found.placement.launches))


def test_ended_runs_are_left_out():
  keys = {Key(arm, seed) for arm in ("base", "c=0.25") for seed in (0, 1)}
  (silu,) = estimated(tiny.mlp(arms=ARMS), keys)
  assert (silu.arms, silu.runs) == (("silu",), 2)
  two, _ = estimated(tiny.mlp(arms=ARMS), {Key("base", 0), Key("base", 1), Key("c=0.25", 1)})
  assert (two.arms, two.runs) == (("c=0.25",), 1)


@pytest.mark.nightly
def test_nothing_is_left_behind(tmp_path, monkeypatch):
  """No file, no array on a device, and a sweep afterwards trains what it would have."""
  monkeypatch.chdir(tmp_path)
  config = tiny.mlp(arms=ARMS)
  before = jobs.run(jobs.prepare(config)).result.rows
  held = len(jax.live_arrays())
  estimated(config)
  assert len(jax.live_arrays()) <= held
  assert list(tmp_path.iterdir()) == []
  assert jobs.run(jobs.prepare(config)).result.rows == before


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="max_memory"):
    estimated(tiny.mlp(max_memory=1e-6))


def test_tuning_comes_first(monkeypatch):
  def without_measuring(plan, ended=()):
    for group in plans.make_groups(plan):
      yield estimates.Estimate((), len(group.runs), PLACEMENT, 0.0, 0.0, 0.0, 0.0)

  monkeypatch.setattr(estimates, "estimate", without_measuring)
  config = tiny.mlp(
      arms=ARMS, tuning__learning_rates=(1e-3, 1e-2), tuning__seeds=(7, 8, 9))
  stages = estimate_stages(jobs.prepare(config))
  assert [(stage.tuning, stage.estimate.runs) for stage in stages] == [
      (True, 12), (True, 6), (False, 4), (False, 2)]


@pytest.mark.nightly
@pytest.mark.parametrize("config", [
    {"steps": 2000, "chunk": 500, "seeds": 4},
    {"steps": 1000, "chunk": 20, "seeds": 3, "arms": ARMS},
    {"steps": 600, "chunk": 100, "batch_size": 20, "split__train": 400, "split__valid": 200,
     "split__test": 1000, "model__features": 32}], ids=["steps", "validations", "evaluation"])
def test_an_estimate_is_within_a_factor_of_two_on_an_idle_machine(config):
  """Against the times that the sweep itself writes down."""
  experiment = jobs.prepare(tiny.config(**config))
  found = [stage.estimate for stage in estimate_stages(experiment)]
  timing = jobs.run(experiment).result.config["timing"]
  for name, seconds in (
      ("total", sum(each.seconds for each in found)),
      ("compile", sum(each.compile_seconds for each in found)),
      ("train", sum(each.train_seconds for each in found))):
    real = timing[f"{name}_seconds"]
    print(f"{name}: estimated {seconds:.2f} s, real {real:.2f} s")
    assert 0.5 < seconds / real < 2, name
