"""Any override and any arm is taken or refused in our words; nothing else ever comes out."""

import json
import traceback
import warnings

import hypothesis
import pytest
from hypothesis import strategies as st

from dcnn import configs
from dcnn.cli import arguments

KEYS = tuple(configs.flat(configs.default()))
GROUPS = ("model", "loss", "optimizer", "split", "activation", "data", "tuning")
NUMBERS = (0, -1, 1, 2, 3, 10**6, 2**31, 2**32, 2**40, 2**64, 10**400, -10**400, 0.0, -0.0, 0.5,
           -1.5, 5e-324, 1e-50, 1e30, 1e39, 1.7e308, float("inf"), float("-inf"), float("nan"))
WORDS = (
    "", " ", "None", "True", "False", "true", "no", "()", "[]", "{}", "(,)", "(1", "[[[[",
    "(" * 1000, "-" * 9000 + "1", "1,2", "1,1", "(1,)", "1_000", "0x10", "1e3", "1e999", "nan",
    "inf", "-inf", "9" * 5000, "٣", "é", "\x00", "\n", "'", '"', "'a'", "lambda: 0",
    "__import__('os').getcwd()",
    "config", "{'a': 1}", "({},)", "({'activation.c': 1},)", "({'model': 1},)", "({1: 2},)",
    "({},{})", "({'labels': None},)", "(0.1, 'a')", "((1,),)", "irelu", "SchNet", "MLP", "l1",
    "huber", "random", "blocks", "none", "mean/std", "/", "//", "mean/", "/std", "init_matched",
    "ethanol")

texts = st.one_of(
    st.sampled_from(WORDS), st.sampled_from(NUMBERS).map(repr), st.text(max_size=20),
    st.integers().map(str), st.floats().map(str), st.lists(st.integers()).map(str))
keys = st.one_of(
    st.sampled_from(KEYS), st.sampled_from(KEYS), st.sampled_from(GROUPS), st.text(max_size=10),
    st.tuples(st.sampled_from(KEYS + GROUPS), st.text(max_size=5) | st.sampled_from(GROUPS)).map(
        ".".join),
    st.tuples(st.sampled_from(KEYS), st.sampled_from(("[0]", "[-1]", "[x]", "[", "[0][0]"))).map(
        "".join))
values = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.none(), st.booleans(), st.text(max_size=9),
    st.floats(), st.integers(), st.just(object), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.binary(max_size=3))


def assert_ours(error: ValueError) -> None:
  """What `main` tells in one line: raised in our code."""
  *_, (frame, _) = traceback.walk_tb(error.__traceback__)
  assert frame.f_globals["__name__"].startswith("dcnn."), error


def take(config, flags: list[str]) -> None:
  """The way of a configuration up to the data."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
      arguments.override(config, flags)
      configs.validate(config)
    except arguments.Stop:
      return
    except ValueError as error:
      assert_ours(error)
      return
    json.dumps(configs.to_dict(config))
    configs.tables(config)
    for settings in configs.arm_settings(config).values():
      configs.effective(settings)


def overrides(examples: int) -> None:
  @hypothesis.settings(max_examples=examples, deadline=5000)
  @hypothesis.given(st.lists(st.tuples(keys, texts), min_size=1, max_size=3))
  def check(pairs):
    take(configs.default(), [f"--config.{key}={value}" for key, value in pairs])
  check()


def arms(examples: int) -> None:
  @hypothesis.settings(max_examples=examples, deadline=5000)
  @hypothesis.given(st.lists(st.dictionaries(keys | st.integers(), values, max_size=3), max_size=3))
  def check(listed):
    config = configs.default()
    config.arms = tuple(listed)
    take(config, [])
  check()


def objects(examples: int) -> None:
  """Of those settings that an experiment file may set to anything."""
  @hypothesis.settings(max_examples=examples, deadline=5000)
  @hypothesis.given(st.sampled_from((
      "seeds", "arms", "tables", "model.hidden", "tuning.seeds", "tuning.learning_rates")),
      st.lists(values | st.lists(values, max_size=2), max_size=3).map(tuple) | values)
  def check(key, value):
    config = configs.default()
    try:
      config.update_from_flattened_dict({key: value})
    except (TypeError, ValueError, AttributeError, KeyError):
      return  # told as the mistake of a line in the experiment file
    take(config, [])
  check()


@pytest.mark.parametrize("fuzz", [overrides, arms, objects])
def test_any_setting(fuzz):
  fuzz(200)


@pytest.mark.nightly
@pytest.mark.parametrize("fuzz", [overrides, arms, objects])
def test_any_setting_thoroughly(fuzz):
  fuzz(2000)
