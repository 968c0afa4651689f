"""What is known of a sweep beside its results: its question, data, times and learning rates."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from dcnn.base.text import duration, number_text
from dcnn.results import text
from dcnn.results.records import Result
from dcnn.results.schemas import SPLITS


def settings(result: Result) -> Mapping[str, Any]:
  """The configuration of the sweep; empty where it is not known."""
  return result.config.get("config") or {}


def question(result: Result) -> tuple[str, str]:
  """The first sentence of the question that the experiment asks, and the rest."""
  words = str(settings(result).get("question") or "")
  end = re.search(r"[.?!](?=\s)", words)
  return (words[:end.end()], words[end.end():].strip()) if end else (words, "")


def glance(result: Result) -> list[str]:
  """The sweep in a few words: its data, its size, and how long it took."""
  config, timing = settings(result), result.config.get("timing") or {}
  words = [str(config["dataset"])] if config.get("dataset") else []
  arms = len({row.arm for row in result.rows})
  words.append(
      f"{text.count_text(arms, 'arm')} × {text.count_text(len(result.seeds), 'seed')}")
  if "steps" in config:
    words.append(text.count_text(config["steps"], "step"))
  if "total_seconds" in timing:
    words.append(duration(float(timing["total_seconds"])))
  elif "train_seconds" in timing:
    words.append(f"trained in {duration(float(timing['train_seconds']))}")
  return words


def facts(result: Result) -> list[tuple[str, str]]:
  """Where and how the sweep ran, as labels and values."""
  config, dataset = settings(result), result.config.get("dataset") or {}
  split = config.get("split")
  lines = _lines(dataset) if isinstance(dataset, Mapping) else []
  lines = [("data set" if label == "name" else label, value) for label, value in lines]
  if not lines and "dataset" in config:
    lines.append(("data set", str(config["dataset"])))
  if isinstance(split, Mapping):
    lines.append(("split", _split_text(split)))
  lines += [(name.replace("_", " "), f"{config[name]:,}")
            for name in ("steps", "batch_size") if isinstance(config.get(name), int)]
  lines.append(("seeds", ", ".join(map(str, result.seeds))))
  return lines + _lines(result.config.get("timing") or {}) + _lines(
      result.config.get("environment") or {})


def look(result: Result) -> str:
  """Which look at the seeds the report is, and the level of its tests, in a sentence."""
  number, planned = result.looks
  of = f" of {planned} planned" if number <= planned else f", with {planned} planned"
  return f"This is look {number}{of}: tests have the level {result.level:.2g}."


def _split_text(split: Mapping[str, Any]) -> str:
  """How many frames each part has, and how they were divided."""
  parts = [f"the rest {name}" if split[name] is None else f"{split[name]:,} {name}"
           for name in SPLITS if name in split]
  ways = [f"{name.replace('_', ' ')} {_value_text(value)}" for name, value in split.items()
          if name not in SPLITS]
  return "; ".join(", ".join(each) for each in (parts, ways) if each)


def in_full(result: Result, arm: str) -> str:
  """The settings of an arm that its name may leave out, as `init plain, steps 5`.

  Args:
    result: The result of a sweep.
    arm: The name of an arm.

  Returns:
    The settings in which arms differ, and those that the glossary explains, with the value that
    this arm has; empty where config.json does not say.
  """
  known = (result.config.get("arm_settings") or {}).get(arm) or {}
  return ", ".join(f"{key} {value}" for key, value in known.items())


def glossary(result: Result) -> list[tuple[str, str]]:
  """The words in the names and settings of arms, with what they mean, as config.json has them."""
  return [(term, meaning) for term, meaning in result.config.get("glossary") or ()]


class Scores(NamedTuple):
  """What was tried for the learning rate of an arm.

  Attributes:
    arm: The name of the arm.
    rates: The learning rates, increasing.
    scores: The validation score at each; inf where a run failed.
    stopped: Whether training at this rate was stopped early, so that its score is of fewer steps.
    chosen: The learning rate that was chosen.
  """

  arm: str
  rates: Float[np.ndarray, " rates"]
  scores: Float[np.ndarray, " rates"]
  stopped: Bool[np.ndarray, " rates"]
  chosen: float


def scores(result: Result) -> list[Scores]:
  """The scores of each arm at each learning rate; empty if no learning rate was tuned."""
  tuning = _tuning(result)
  order = np.argsort(tuning.get("learning_rates", ()))
  rates = np.array(tuning.get("learning_rates", ()), np.float64)[order]
  stopped = _stopped(tuning)
  return [
      Scores(arm, rates, np.array([math.inf if each is None else each for each in listed],
                                  np.float64)[order],
             np.array([(arm, rate) in stopped for rate in rates], bool),
             float(tuning["chosen"][arm]))
      for arm, listed in tuning.get("scores", {}).items()]


def _stopped(tuning: Mapping[str, Any]) -> set[tuple[str, float]]:
  """The arms and learning rates that were stopped early."""
  return {(each["arm"], float(each["learning_rate"])) for each in tuning.get("stopped", ())}


def _tuning(result: Result) -> Mapping[str, Any]:
  """What config.json says of the choice of learning rates; empty if there was none."""
  tuning = result.config.get("tuning") or {}
  complete = {"learning_rates", "seeds", "scores", "chosen"} <= set(tuning)
  return tuning if complete else {}


def learning_rates(result: Result) -> dict[str, Any]:
  """The validation score of each arm at each learning rate that was tried.

  Args:
    result: The result of a sweep.

  Returns:
    Text by name: `rates`, `seeds`, and `rows`, each of `arm` and `scores`, of which one is
    `chosen` and some are `stopped`; and whether any is. Empty if no learning rate was tuned.
  """
  tuning = _tuning(result)
  if not tuning:
    return {}
  rates, stopped = tuning["learning_rates"], _stopped(tuning)
  return {
      "stopped": bool(stopped),
      "rates": [f"{rate:g}" for rate in rates],
      "seeds": ", ".join(map(str, tuning["seeds"])),
      "rows": [
          {"arm": arm, "scores": [
              {"text": number_text(math.inf if score is None else float(score)),
               "chosen": rate == tuning["chosen"][arm], "stopped": (arm, float(rate)) in stopped}
              for rate, score in zip(rates, scores, strict=True)]}
          for arm, scores in tuning["scores"].items()]}


def _lines(values: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Labels and values as text; a nested record takes one line."""
  return [
      (key.removesuffix("_seconds").replace("_", " ") + " time", duration(float(value)))
      if key.endswith("_seconds") and isinstance(value, (int, float))
      else (key.replace("_", " "), _value_text(value))
      for key, value in values.items()]


def _value_text(value: Any) -> str:
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, Mapping):
    return ", ".join(f"{key} {_value_text(item)}" for key, item in value.items())
  if isinstance(value, (list, tuple)):
    return ", ".join(map(_value_text, value))
  return "unknown" if value is None else str(value)
