"""What is known of a sweep beside its results: its question, data, times and learning rates."""

import math
import re
from collections.abc import Mapping
from typing import Any

from dcnn.base.text import duration, number_text
from dcnn.results import text
from dcnn.results.records import Result


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
    lines.append(("split", ", ".join(
        f"the rest {name}" if split[name] is None else f"{split[name]:,} {name}"
        for name in ("train", "valid", "test") if name in split)))
  lines += [(name.replace("_", " "), f"{config[name]:,}")
            for name in ("steps", "batch_size") if isinstance(config.get(name), int)]
  lines.append(("seeds", ", ".join(map(str, result.seeds))))
  return lines + _lines(result.config.get("timing") or {}) + _lines(
      result.config.get("environment") or {})


def learning_rates(result: Result) -> dict[str, Any]:
  """The validation score of each arm at each learning rate that was tried.

  Args:
    result: The result of a sweep.

  Returns:
    Text by name: `rates`, `seeds`, and `rows`, each of `arm` and `scores`, of which one is
    `chosen`; empty if no learning rate was tuned.
  """
  tuning = result.config.get("tuning") or {}
  if not {"learning_rates", "seeds", "scores", "chosen"} <= set(tuning):
    return {}
  rates = tuning["learning_rates"]
  return {
      "rates": [f"{rate:g}" for rate in rates],
      "seeds": ", ".join(map(str, tuning["seeds"])),
      "rows": [
          {"arm": arm, "scores": [
              {"text": number_text(math.inf if score is None else score),
               "chosen": rate == tuning["chosen"][arm]}
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
