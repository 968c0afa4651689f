"""Configurations: names of arms, choices, mistakes, and every experiment."""

import importlib.util
import math
import pathlib
import re
import time

import numpy as np
import pytest
import tiny

from dcnn import configs, jobs, models
from dcnn.configs import arms, build, settings, tasks
from dcnn.results import records, storage

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


def experiment(name, variant=""):
  spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


@pytest.mark.parametrize(("overrides", "name"), [
    ({}, "base"),
    ({"activation.c": 0.1}, "c=0.1"),
    ({"labels": "min_max"}, "min_max"),
    ({"loss.forces": "l2"}, "forces=l2"),
    ({"activation.c": 0.1, "init": "init_matched", "labels": "standardize"},
     "c=0.1,init_matched,standardize"),
], ids=["none", "number", "word", "loss", "three"])
def test_arms_are_named_by_what_differs(overrides, name):
  assert configs.arm_name(overrides) == name


# The tables of settings.

ALL = [pytest.param(task, setting, id=f"{task}-{setting.key}")
       for task in tasks.TASKS for setting in tasks.settings_of(task)]
NOT_FINITE = (math.inf, -math.inf, math.nan)
REFUSED = {
    settings.positive: (0, -1.0, 1e-40, 1e31, *NOT_FINITE),
    settings.positive_whole: (0, -3, 2**31, 1.5, True),
    settings.not_negative: (-1.0, 1e-40, 1e31, *NOT_FINITE),
    settings.of_either_sign: (1e-40, -1e-40, 1e31, -1e31, *NOT_FINITE),
    settings.fraction: (-0.1, 1.0, 2, 1 - 1e-12, *NOT_FINITE),
}


def other_values(setting):
  """Values that the check of a setting refuses; of a check made for it, those far from any."""
  return REFUSED.get(setting.check, ("nobody",) if setting.choices else (-1e6, 1e6, math.nan))


@pytest.mark.parametrize(("task", "setting"), ALL)
def test_every_setting_has_a_meaning(task, setting):
  """In sentences; and the default is one of the choices, or all of them are names."""
  assert setting.meaning.endswith((".", "?")) and setting.meaning[0].isupper()
  assert not setting.choices or setting.default in setting.choices
  assert settings.flat(configs.default(task))[setting.key] == setting.default


@pytest.mark.parametrize("task", tasks.TASKS)
def test_keys_and_names_of_numbers_are_unique(task):
  """Numbers of a program have the last part of their key as their name."""
  table = tasks.settings_of(task)
  for names in ([setting.key for setting in table],
                [setting.hyper for setting in table if setting.role == "number"]):
    assert len(set(names)) == len(names)
  assert "init_gain" not in {setting.hyper for setting in table if setting.role == "number"}


@pytest.mark.parametrize("task", tasks.TASKS)
def test_defaults_are_valid(task):
  config = configs.default(task)
  configs.validate(config)
  assert configs.section_of(config).measures(config).compared
  assert config.is_locked and config.task == task


@pytest.mark.parametrize(("task", "setting"), [
    each for each in ALL if each.values[1].check is not None])
def test_every_check_refuses_what_is_outside(task, setting):
  """With the name of the setting and in a line, by itself and in a whole configuration."""
  if setting.default is not None:
    setting.check(setting.default, setting.key)
  for value in other_values(setting):
    with pytest.raises(ValueError, match=setting.key.replace(".", "[.]")) as error:
      setting.check(value, setting.key)
    assert "\n" not in str(error.value)
    config = configs.default(task)
    if setting.role != "sweep" and setting.key not in configs.effective(config):
      continue  # nothing reads it
    try:
      config.update_from_flattened_dict({setting.key: value})
    except (TypeError, ValueError):
      continue  # it is of another type
    with pytest.raises(ValueError, match=setting.key.rpartition(".")[2]):
      configs.validate(config)


@pytest.mark.parametrize(("task", "setting"), [
    each for each in ALL if each.values[1].kind is not object])
def test_every_setting_refuses_other_types(task, setting):
  with pytest.raises(ValueError, match=f"^{setting.key} must be of type"):
    settings.check_type(setting, object())
  settings.check_type(setting, setting.default)


@pytest.mark.parametrize(("task", "setting"), [
    each for each in ALL if each.values[1].role == "sweep"])
def test_what_is_the_same_for_all_is_not_an_arm_s(task, setting):
  config = configs.default(task)
  config.arms = ({setting.key: setting.default},)
  with pytest.raises(ValueError, match=f"changes '{setting.key}': arms may change"):
    configs.arm_settings(config)


@pytest.mark.parametrize(("task", "setting"), [
    each for each in ALL if each.values[1].role != "sweep"])
def test_what_an_arm_may_change_reaches_its_program(task, setting):
  """As an argument of it, as another program, or as what is fitted; what is read is named."""
  config = configs.default(task)
  config.arms = ({setting.key: setting.default},)
  arm, = configs.arm_settings(config).values()
  assert settings.flat(arm) == settings.flat(arms.with_overrides(config, {}))
  if setting.role == "number":
    assert arms.hypers(arm)[setting.hyper] == setting.default


@pytest.mark.parametrize("name", models.MODELS)
def test_sizes_that_nobody_sets_are_the_network_s_own(name):
  config = configs.default()
  config.arms = ({"model.name": name}, {"model.name": "SchNet", "model.features": 3})
  own, set_one = configs.arm_settings(config).values()
  defaults = models.resolve(name).defaults
  assert {key: own.model[key] for key in defaults} == defaults
  assert (set_one.model.features, set_one.model.blocks) == (3, 3)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_unknown_settings_of_every_group_are_told_of(task):
  for key in ("activation.cc", "optimizer.learning_rat", "model.hiden", "batch_siz"):
    config = configs.default(task)
    config.arms = ({key: 1},)
    with pytest.raises(ValueError, match=f"'{key}': did you mean '{key[:-2]}"):
      configs.validate(config)


def test_an_unknown_task_is_told_of():
  with pytest.raises(ValueError, match="unknown task 'advektion': did you mean 'advection'"):
    configs.default("advektion")


ADVECTION_MISTAKES = {
    "loss": ({"loss.residual": "l22"}, "did you mean 'l2'"),
    "grid": ({"points.grid": (33,)}, "points.grid must list two whole numbers"),
    "fractions": ({"points.grid": (33, 6.4)}, "points.grid must list two whole numbers"),
    "empty": ({"model.hidden": ()}, "model.hidden at least one"),
    "layers": ({"model.hidden": (0,)}, "model.hidden at least one, from 1 to 100,000"),
    "initial": ({"arms": ({}, {"loss.initial_weight": 3.0})}, "do the same"),
    "delta": ({"arms": ({}, {"loss.residual_delta": 3.0})}, "do the same"),
    "speed": ({"arms": ({"equation.speed": 2.0},)}, "arms may change equation.hard_initial"),
    "other task": ({"arms": ({"labels": "min_max"},)}, "arms may change"),
}


@pytest.mark.parametrize("mistake", ADVECTION_MISTAKES)
def test_mistakes_of_advection(mistake):
  overrides, message = ADVECTION_MISTAKES[mistake]
  config = configs.default("advection")
  config.update_from_flattened_dict(overrides)
  with pytest.raises(ValueError, match=message) as caught:
    configs.validate(config)
  assert "\n" not in str(caught.value)


def test_a_batch_larger_than_the_points_is_told_of():
  config = configs.default("advection")
  config.points.train = 5
  configs.validate(config)
  with pytest.raises(ValueError, match="batch_size 10 is larger than the 5 training points"):
    build.build(config, build.load(config))


@pytest.mark.parametrize(("value", "expected"), [
    (3, (0, 1, 2)), ((5, 7), (5, 7)), ([4], (4,))], ids=["count", "tuple", "list"])
def test_seeds(value, expected):
  assert configs.seeds(tiny.config(seeds=value)) == expected


MISTAKES = {
    "activation": ({"activation__name": "ireul"}, "unknown activation 'ireul': did you mean 'ir"),
    "scheme": ({"labels": "standardise"}, "did you mean 'standardize'"),
    "model": ({"model__name": "Schnet"}, "did you mean 'SchNet'"),
    "loss": ({"loss__forces": "l3"}, "unknown loss.forces 'l3'"),
    "schedule": ({"optimizer__schedule": "cosin"}, "did you mean 'cosine'"),
    "zero_steps": ({"steps": 0}, "steps must be a whole number above 0, got 0"),
    "negative_batch": ({"batch_size": -1}, "batch_size must be a whole number above 0, got -1"),
    "zero_rate": ({"optimizer__learning_rate": 0.0}, "learning_rate must be a finite number"),
    "infinite_rate": ({"optimizer__learning_rate": float("inf")}, "finite number above 0, got inf"),
    "no_seeds": ({"seeds": 0}, "at least one seed"),
    "negative_seed": ({"seeds": (0, -1)}, "got -1"),
    "huge_seed": ({"seeds": (2**40,)}, "between 0 and 2..32 - 1"),
    "duplicate_seeds": ({"seeds": (1, 1)}, r"lists \[1\] more than once"),
    "seed_text": ({"seeds": "ten"}, "whole number or a list of them, got 'ten'"),
    "seed_float": ({"seeds": 2.5}, "whole number or a list"),
    "unknown_arm_key": ({"arms": ({"activation.cc": 1.0},)}, "did you mean 'activation.c'"),
    "forbidden_arm_key": ({"arms": ({"steps": 1},)}, "arms may change"),
    "arm_type": ({"arms": ({"model.features": "many"},)}, "arm 'many'"),
    "equal_arms": ({"arms": ({}, {"activation.c": 0.5})}, "do the same"),
    "unread": ({"activation__name": "silu", "arms": ({}, {"activation.c": 0.1})}, "do the same"),
    "gap": ({"split__gap": 3}, "split.gap is for split.method=blocks"),
    "table_keys": ({"tables": ({"title": "T"},)}, "needs a title, a baseline and arms"),
    "twice": ({"arms": ({}, {})}, "listed twice"),
    "matched_silu": ({"activation__name": "silu", "init": "init_matched"}, "is for irelu"),
    "bytes": ({"model__hidden": (b"",)}, "model.hidden must hold numbers, text"),
    "complex_arm": ({"arms": ({"model.hidden": (1j,)},)}, "must hold numbers, text"),
    "nothing_trained": ({"loss__energy_weight": 0.0, "loss__force_weight": 0.0}, "nothing would"),
    "table": ({"tables": ({"title": "T", "baseline": "c=2", "arms": ("base",)},)}, "'c=2'"),
    "tuning_seeds": ({"tuning__learning_rates": (1e-3,), "tuning__seeds": (1,)}, "share"),
    "blocks_per_seed": ({"split__method": "blocks", "split__per_seed": True}, "method=random"),
    "arms_number": ({"arms": ()}, "arms must list at least one"),
    "arms_text": ({"arms": ("c=1",)}, "arms must be a list of dictionaries"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_line(mistake):
  overrides, message = MISTAKES[mistake]
  with pytest.raises(ValueError, match=message) as caught:
    configs.validate(tiny.config(**overrides))
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("overrides", "message"), [
    ({"split__train": 5000}, "5000"),
    ({"batch_size": 21}, "batch_size 21 is larger than the 20"),
    ({"dataset": "ethanl"}, "did you mean 'ethanol'"),
], ids=["split", "batch", "dataset"])
def test_mistakes_that_only_data_show(overrides, message):
  config = tiny.config(**overrides)
  configs.validate(config)
  with pytest.raises(ValueError, match=message):
    build.build(config, build.load(config))


def test_a_kinked_activation_is_warned_of():
  config = tiny.config(activation__name="relu")
  with pytest.warns(UserWarning, match="use its integral") as told:
    jobs.prepare(config)
  assert len(told) == 1


def test_an_arm_that_inherits_what_its_baseline_sets_is_warned_of():
  config = tiny.config(activation__c=0.3, arms=({"activation.c": 0.5}, {"labels": "min_max"}))
  with pytest.warns(UserWarning, match="min_max differ from c=0.5 in activation.c, too") as told:
    jobs.prepare(config)
  assert len(told) == 1


def test_the_smoke_variant_runs():
  config = experiment("ablations", "smoke")
  config.steps, config.chunk, config.seeds = 2, 2, 1
  assert len(jobs.run(jobs.prepare(config)).result.rows) == 3 * 3 * 7


VARIANTS = [("ablations", variant) for variant in (
    "", "constant", "rescaling", "smoke", "grid", "tuned", "activations", "converged")] + [
        ("molecules", variant) for variant in ("", "aspirin", "toluene_blocks")] + [
        ("rmd17", variant) for variant in ("", "search", "refine")] + [
        ("paper", variant) for variant in (
            "", "SchNet", "batch_norm", "CGCNN", "ForceNet", "DimeNetPlusPlus", "GemNetT",
            "smoke")] + [
        ("official", variant) for variant in (
            "", "painn", "mace", "cgcnn", "cgcnn_star", "forcenet", "forcenet_star", "dimenet",
            "dimenet_ocp", "gemnet", "gemnet_oc20")] + [
        ("advection", variant) for variant in ("", "soft", "smoke")]


@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=str)
def test_every_experiment_loads_and_validates(name, variant):
  configs.validate(experiment(name, variant))


def test_every_experiment_file_is_tested():
  assert {path.stem for path in EXPERIMENTS.glob("*.py")} == {
      name for name, _ in VARIANTS}
  for name, known in (("ablations", "constant"), ("advection", "soft")):
    with pytest.raises(ValueError, match=f"unknown variant 'smok'; known are {known}"):
      experiment(name, "smok")


def test_the_main_job_has_the_arms_that_the_question_needs():
  names = list(configs.arm_settings(experiment("ablations")))
  constants = [0.1, 0.25, 0.75, 1.0]
  expected = {"c=0.5", "standardize", "min_max", "robust", "identity", "mean_shift",
              "mean/power_of_ten"}
  for c in constants:
    expected |= {f"c={c}", f"c={c},init_matched", f"c={c},standardize",
                 f"c={c},init_matched,standardize"}
  assert set(names) == expected and len(names) == 23
  plan_structures = {
      arm.structure for arm in build.build(
          experiment("ablations"), build.load(experiment("ablations"))).arms}
  assert len(plan_structures) == 1


def test_init_gain_undoes_the_constant():
  config = tiny.config(arms=(
      {"activation.c": 0.1}, {"activation.c": 0.1, "init": "init_matched"},
      {"init": "variance_preserving"}))
  plan = build.build(config, build.load(config))
  gains = [arm.hypers["init_gain"] for arm in plan.arms]
  np.testing.assert_allclose(gains, [1.0, 5.0, np.sqrt(2 / (3 * 0.25))])


def test_a_second_file_is_the_test_split(tmp_path):
  config = tiny.config(dataset="ethanol", test_dataset="ethanol")
  config.split.test = None
  sources = build.load(config)
  assert len(sources.dataset) == 4000 and sources.held_out == 2000
  with pytest.raises(ValueError, match="frame"):  # every training frame is in the test file
    build.build(config, sources)


def test_mixed_molecules_need_schnet():
  config = tiny.config(dataset="ethanol", test_dataset="benzene")
  config.split.test = None
  sources = build.load(config)
  plan = build.build(config, sources)
  np.testing.assert_array_equal(plan.splits[0].test, np.arange(2000, 4000))
  config.model.name = "MLP"
  with pytest.raises(ValueError, match="benzene: frame 0 has other atoms.*take SchNet"):
    build.build(config, sources)


@pytest.mark.parametrize("changes, words", [
    ({"patience": 10**7, "chunk": 1000, "steps": 2000}, "patience must be at most 2,147,483"),
    ({"chunk": 10**9, "steps": 10**9}, "lower chunk to 2,500,000"),
    ({"model.features": 1}, "model.features must lie within 2 and"),
    ({"model.blocks": 20_000}, "model.blocks must lie within 1 and 32"),
    ({"model.radial": 1}, "model.radial must lie within 2"),
    ({"model.cutoff": 1e9}, "model.cutoff must lie within 0.1 and 1,000"),
    ({"model.name": "MLP", "model.hidden": (4,) * 10_000}, "model.hidden must list 1 to 64 sizes"),
    ({"model.name": "MLP", "model.hidden": ()}, "model.hidden must list 1 to 64 sizes"),
    ({"activation.name": "repu", "activation.power": 2**31 - 1}, "power must lie within 1 and 16"),
    ({"optimizer.ema_decay": 1 - 1e-12}, "also when rounded to float32"),
    ({"arms": tuple({"activation.c": 1.0 + i} for i in range(2000))}, "1,000 are the most"),
    ({"arms": tuple({"activation.c": 1.0 + i} for i in range(900)), "seeds": 9000},
     "20,000 are the most: at most 22 seeds"),
    ({"tuning.learning_rates": (1e-3, 1.0000001e-3), "tuning.seeds": (90,)}, "drop them"),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else "")
def test_sizes_and_products_beyond_range(changes, words):
  """Told at once: nothing of that size is made, and no text that is not shown."""
  config = configs.default()
  config.batch_size = 4
  config.update_from_flattened_dict(changes)
  started = time.monotonic()
  with pytest.raises(ValueError, match=words) as error:
    configs.validate(config)
  assert time.monotonic() - started < 5 and len(str(error.value)) < 400


def test_patience_counts_the_steps_that_there_are():
  """A chunk longer than the training is as long as the training."""
  config = tiny.mlp(patience=1000, chunk=2**31 - 1)
  configs.validate(config)
  plan = build.build(config, build.load(config))
  assert plan.arms[0].make_program().patience == 1000 * plan.steps


# Factors of a table.

GRID = [{"activation.c": c, "labels": labels} for labels in ("standardize", "robust")
        for c in (0.5, 1)]


def crossed(dictionaries=GRID, **table):
  """A configuration with a table of these arms that cross the constant and the labels."""
  config = configs.default()
  config.arms = tuple(dictionaries)
  names = tuple(map(configs.arm_name, dictionaries))
  config.tables = ({"title": "T", "baseline": names[0], "arms": names,
                    "factors": ("activation.c", "labels"), **table},)
  return config


def test_factors_are_read_off_the_settings_of_the_arms():
  """Also where an arm does not name a level that it takes from the base."""
  levels = {"activation.c": ("0.5", "1.0") * 2,
            "labels": ("standardize", "standardize", "robust", "robust")}
  (table,) = configs.tables(crossed())
  assert dict(table.factors) == levels
  implied = [{"labels": "standardize"}, *GRID[1:]]
  assert dict(configs.tables(crossed(implied))[0].factors) == levels
  configs.validate(crossed())


@pytest.mark.parametrize(("config", "words"), [
    (crossed(factors=("activation.c",)), "must name two settings"),
    (crossed(factors=("labels", "labels")), "must name two settings"),
    (crossed(factors="labels"), "must name two settings"),
    (crossed(factors=("activation.c", "label")), "did you mean 'labels'?"),
    (crossed(factors=("activation.c", "steps")), "all arms have steps=2000"),
    (crossed(GRID[:3]), "no arm has activation.c=1.0 and labels=robust"),
    (crossed([*GRID, {**GRID[0], "init": "variance_preserving"}]),
     "several arms have activation.c=0.5 and labels=standardize"),
    (crossed(factor=()), "did you mean 'factors'?"),
    (crossed(arms=("x",)), "unknown arm in table")],
    ids=["one", "same", "text", "typo", "constant", "hole", "twice", "entry", "arm"])
def test_factors_that_arms_do_not_cross(config, words):
  with pytest.raises(ValueError, match=re.escape(words)) as error:
    configs.validate(config)
  assert "\n" not in str(error.value)


def test_factors_go_to_files_and_come_back(tmp_path):
  tables = configs.tables(crossed())
  storage.save(records.Result({}, (), (), tables, {}), tmp_path)
  assert storage.load(tmp_path).tables == tables
  path = tmp_path / storage.CONFIG_FILE
  path.write_text(path.read_text().replace('"robust"', '"standardize"'))
  with pytest.raises(ValueError, match="the levels of two factors that the arms cross"):
    storage.load(tmp_path)


@pytest.mark.parametrize("looks", [0, -1, 21, 1.5, True, "2"])
def test_looks_are_a_small_number(looks):
  config = configs.default()
  with pytest.raises((ValueError, TypeError), match="looks|int"):
    config.looks = looks
    configs.validate(config)


WHILE_TRACED = {
    "passed": ({"model.name": "GridACE", "model.degree": 1, "model.passed": 2},
               "model.name=GridACE: expected GridACE with passed up to degree, 1, received 2"),
    "scales": ({"model.name": "GemNetT", "model.scales": "oc20", "model.blocks": 4},
               "model.name=GemNetT: scales=oc20 has the factors of 3 blocks"),
    "own": ({"model.name": lambda activation: 1 / 0}, "division by zero"),
}


@pytest.mark.parametrize("arm, message", WHILE_TRACED.values(), ids=WHILE_TRACED)
def test_what_a_network_refuses_is_told_before_anything_is_compiled(arm, message):
  config = tiny.config(arms=({}, arm))
  with pytest.raises(ValueError, match=message) as refused:
    jobs.prepare(config)
  assert f"arm {configs.arm_name(arm)!r}" in str(refused.value)
