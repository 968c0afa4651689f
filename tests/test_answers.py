"""Answers in words: the largest effects, effects against training, factorials, seeds."""

import dataclasses

import numpy as np
import pytest

from dcnn import stats
from dcnn.base.text import Unit
from dcnn.results import answers, effects, factorials, planning, schemas
from dcnn.results.records import Point, Result, Row, Table

STEPS = np.arange(1, 21) * 500


def errors_of(seeds=10, spread=0.02, **ratios):
  rng = np.random.default_rng(0)
  paired = np.exp(rng.normal(0, 0.1, seeds))
  noise = {arm: rng.normal(0, spread, seeds) for arm in ratios}
  return {"base": paired, **{  # with exactly these geometric means of the ratios
      arm: ratio * paired * np.exp(noise[arm] - noise[arm].mean())
      for arm, ratio in ratios.items()}}


def sentence(errors, reach=""):
  table = Table("T", "base", tuple(errors))
  parts = answers.answer(table, stats.compare(errors, "base"), reach, Unit(1000.0, "mm"))
  assert all(part.words for part in parts)
  return "".join(part.words for part in parts)


@pytest.mark.parametrize(("errors", "words"), [
    (errors_of(good=0.3), "good: 0.30 times the error of base [0.30, 0.30], better."),
    (errors_of(good=0.3, fine=0.5, fair=0.6), "better, and so are 2 more arms (0.50 to 0.60)"),
    (errors_of(good=0.3, bad=1.5, same=1.0), ", better; bad: 1.50 times [1.49, 1.52], worse; 1 is "
     "equivalent (within 12 %)."),
    (errors_of(bad=5.0, good=0.5), "bad: 5.00 times the error of base"),
    (errors_of(same=1.0), "same does not differ from base by more than 12 %."),
    (errors_of(same=1.0, like=1.01), "No arm differs from base by more than 12 %."),
    ({"base": 0.012 * np.ones(3)}, "base: 12.0 [12.0, 12.0] mm. There is no other arm."),
    ({"base": np.full(6, np.inf), "b": np.full(6, np.inf)}, "No run finished."),
    ({"base": np.ones(8), "b": np.full(8, np.inf)},
     "b: 8 of 8 runs failed, and none is left to compare with base, worse."),
    ({"base": np.zeros(8), "b": np.ones(8)},
     "b: an error, where the runs of base are exact, worse."),
    ({"base": np.ones(1), "b": 2 * np.ones(1)}, "farthest is b: 2.00 times (one pair); too few")],
    ids=["one", "others", "both sides", "largest first", "equivalent", "all equivalent",
         "baseline", "failed", "all failed", "exact", "one pair"])
def test_an_answer_is_a_sentence(errors, words):
  assert words in sentence(errors)


def test_what_the_seeds_find_stands_beside_undecided():
  errors = errors_of(noisy=1.05, spread=0.4)
  assert sentence(errors, "10 seeds find 30 %").endswith("; 1 undecided (10 seeds find 30 %).")


def swept(errors, metric="error", config=None, factors=None):
  rows = [Row("trial", arm, seed, "test", metric, "1", float(value), 10, "finished")
          for arm, values in errors.items() for seed, value in enumerate(values)]
  measures = {"metrics": [{"name": metric, "unit": "1", "kind": "error", "compared": True}],
              "watched": metric}
  table = Table("T", next(iter(errors)), tuple(errors), factors or {})
  return Result({"measures": measures, **(config or {})}, tuple(rows), (), (table,), {})


@pytest.mark.parametrize(("errors", "words"), [
    (errors_of(seeds=5, b=0.1), "5; 6 are needed"),
    (errors_of(b=0.5), ""),
    (errors_of(noisy=1.05, spread=0.4), "10 seeds find differences of")],
    ids=["too few", "decided", "undecided"])
def test_the_reach_of_the_seeds(errors, words):
  result = swept(errors)
  reach = planning.reach(
      result, result.tables[0], "error", result.compare(result.tables[0], "error"))
  assert reach.startswith(words) and bool(reach) == bool(words)
  if "find differences" in words:
    assert "would find 10 %" in reach


# Effects against training.


def effect(ratios, seeds=10, spread=0.005):
  noise = np.random.default_rng(0).normal(0, spread, (seeds, len(ratios)))
  return effects.Effect("b", STEPS[:len(ratios)], np.log(np.array(ratios, float)) + noise)


@pytest.mark.parametrize(("ratios", "words"), [
    (np.geomspace(0.9, 0.3, 20), "widens from 0.80 at 1,500 steps to 0.30 at 10,000, and is still "
     "growing"),
    (np.concatenate([np.geomspace(0.9, 0.3, 8), np.full(12, 0.3)]),
     "at 1,500 steps to 0.30 at 10,000, and has settled"),
    (np.geomspace(0.3, 0.9, 20), "narrows from 0.34 at 1,500 steps to 0.90 at 10,000, and is still "
     "shrinking"),
    (np.concatenate([np.full(9, 0.6), np.ones(11)]),
     "was 0.60 at 500 steps and vanishes by step 5,000"),
    (np.geomspace(1.3, 0.7, 20), "turns from 1.22 at 1,500 steps to 0.70 at 10,000"),
    (np.full(20, 0.5), "was 0.50 at 1,500 steps and is 0.50 at 10,000, and has settled"),
    (np.full(3, 0.5), "")],
    ids=["widens", "settled", "narrows", "vanishes", "turns", "stays", "short"])
def test_the_story_of_an_effect(ratios, words):
  told = effects.story(effect(ratios))
  assert words in told and bool(told) == bool(words)


def test_no_story_is_told_of_noise():
  rng = np.random.default_rng(1)
  told = [effects.story(effects.Effect("b", STEPS, rng.normal(0, 0.1, (10, 20))))
          for _ in range(200)]
  ends = [story for story in told if story and "vanishes" not in story]
  assert len(ends) <= 0.1 * len(told)  # the last step alone errs in 5 %


def test_effects_are_paired_by_seed_and_step():
  """A run that failed ends; one out of patience goes on; a seed without a baseline is left out."""
  base = {0: [1.0, 2.0, 4.0], 1: [1.0, 1.0, 1.0]}
  arm = {0: [2.0, 2.0], 1: [3.0, np.nan, np.nan], 2: [9.0, 9.0, 9.0]}
  history = tuple(Point(name, seed, 10 * (at + 1), "valid", "error", value)
                  for name, runs in (("base", base), ("b", arm))
                  for seed, values in runs.items() for at, value in enumerate(values))
  result = swept({"base": np.ones(3), "b": np.ones(3)})
  rows = [row._replace(status="patience@20") if (row.arm, row.seed) == ("b", 0) else row
          for row in result.rows]
  result = dataclasses.replace(result, rows=tuple(rows), history=history)
  (found,) = effects.effects(
      result, effects.validation_curves(result), result.tables[0], "error")
  np.testing.assert_array_equal(found.steps, [10, 20, 30])
  np.testing.assert_allclose(np.exp(found.logs), [[2, 1, 0.5], [3, np.nan, np.nan]])


def test_student_intervals_are_those_of_scipy():
  import scipy.stats
  logs = np.random.default_rng(0).normal(size=(7, 3))
  centre, low, high = effects.Effect("b", STEPS[:3], logs).ratio
  for at in range(3):
    ends = scipy.stats.t.interval(0.95, 6, logs[:, at].mean(), scipy.stats.sem(logs[:, at]))
    np.testing.assert_allclose([low[at], high[at]], np.exp(ends))
  np.testing.assert_allclose(centre, np.exp(logs.mean(axis=0)))


# Factorials.


def crossed(interaction, seeds=8):
  rng = np.random.default_rng(0)
  arms = {f"{row}{column}": np.exp(rng.normal(0, 0.01, seeds)) * factor
          for row, by_row in zip("xy", interaction, strict=True)
          for column, factor in zip("12", by_row, strict=True)}
  return swept(arms, factors={"labels": tuple("xxyy"), "c": tuple("1212")})


@pytest.mark.parametrize(("cells", "words"), [
    (((1.0, 1.0), (2.0, 2.0)), "labels: from 0.71"),
    (((1.0, 1.0), (2.0, 2.0)), "c: all levels lie within 12 % of their mean."),
    (((1.0, 1.0), (2.0, 2.0)), "The effect of labels is the same within 12 % at all levels of c."),
    (((1.0, 2.0), (2.0, 1.0)), "The effect of labels depends on c: ")],
    ids=["factor", "no factor", "no interaction", "interaction"])
def test_factors_in_words(cells, words):
  result = crossed(cells)
  (analysis,) = factorials.analyses(result, result.tables[0])
  np.testing.assert_allclose(analysis.errors, cells, rtol=0.03)
  assert words in factorials.sentence(analysis)


def test_what_is_neither_small_nor_significant_is_not_shown():
  rng = np.random.default_rng(3)
  arms = {name: np.exp(rng.normal(0, 0.5, 6)) for name in ("x1", "x2", "y1", "y2")}
  result = swept(arms, factors={"labels": tuple("xxyy"), "c": tuple("1212")})
  words = factorials.sentence(*factorials.analyses(result, result.tables[0]))
  assert "no level is shown to differ" in words and "is not shown" in words


def test_the_words_on_an_interaction_do_not_follow_rounding():
  """Of two levels each all departures are of one size, and only the first may be named."""
  result = crossed(((1.0, 2.0), (2.0, 1.0)))
  (analysis,) = factorials.analyses(result, result.tables[0])
  said = factorials.sentence(analysis)
  for seed in range(20):
    nudge = 1 + 1e-15 * np.random.default_rng(seed).integers(-3, 4, size=(2, 2))
    moved = tuple(tuple(cell._replace(centre=cell.centre * nudge[i, j])
                        for j, cell in enumerate(row))
                  for i, row in enumerate(analysis.effects.interaction))
    assert factorials.sentence(analysis._replace(
        effects=analysis.effects._replace(interaction=moved))) == said


def test_a_table_without_factors_has_no_analysis():
  result = swept(errors_of(b=2.0))
  assert factorials.analyses(result, result.tables[0]) == []


# What config.json says of arms.


@pytest.mark.parametrize("part", [
    {"glossary": [["only a word"]]}, {"glossary": "text"}, {"arm_settings": {"a": {"c": 0.5}}}],
    ids=["no pair", "no list", "no text"])
def test_words_of_another_form_are_refused(part):
  assert schemas.config_problem(part)
