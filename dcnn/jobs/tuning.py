"""The choice of a learning rate for each arm on validation data, by one grid and seeds for all."""

import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from dcnn import configs
from dcnn.configs import ConfigDict, build
from dcnn.configs.sections import Data
from dcnn.sweeps import Outcome
from dcnn.sweeps.plans import Key, Plan


def choose_learning_rates(
    config: ConfigDict, data: Data, arms: Mapping[str, ConfigDict],
    sweep: Callable[[Plan], Outcome],
) -> dict:
  """Trains every arm at every learning rate, with the seeds of the tuning.

  Args:
    config: A valid configuration that lists learning rates.
    data: Its data.
    arms: The full configuration of each arm.
    sweep: Runs a plan.

  Returns:
    `learning_rates`, `seeds`, `scores` (of each arm and rate: the geometric mean over seeds of the
    score by which validation chooses checkpoints; inf where a run diverged) and `chosen`.
  """
  rates = [float(rate) for rate in config.tuning.learning_rates]
  outcome = sweep(make_plan(config, data, arms))
  seeds = configs.tuning_seeds(config)
  scores = {
      name: [
          _geometric_mean(outcome, [Key(_name(name, rate), seed) for seed in seeds])
          for rate in rates] for name in arms}
  chosen = {name: rates[int(np.argmin(values))] for name, values in scores.items()}
  at_edge = [name for name, rate in chosen.items() if rate in (min(rates), max(rates))]
  if at_edge:
    warnings.warn(
        f"the best learning rate lies at the edge of the grid for {', '.join(at_edge)}: widen "
        "tuning.learning_rates", stacklevel=3)
  return {"learning_rates": rates, "seeds": list(seeds), "scores": scores, "chosen": chosen}


def make_plan(config: ConfigDict, data: Data, arms: Mapping[str, ConfigDict]) -> Plan:
  """The plan of the tuning: every arm at every learning rate, with the seeds of the tuning.

  Args:
    config: A valid configuration that lists learning rates.
    data: Its data.
    arms: The full configuration of each arm.
  """
  candidates = {
      _name(name, rate): configs.with_overrides(settings, {"optimizer.learning_rate": float(rate)})
      for name, settings in arms.items() for rate in config.tuning.learning_rates}
  tuning = configs.with_overrides(config, {"on_divergence": "record"})  # a rate may be too large
  tuning.seeds = config.tuning.seeds
  return build.build(tuning, data, candidates)


def with_learning_rates(
    arms: Mapping[str, ConfigDict], chosen: Mapping[str, float]) -> dict[str, ConfigDict]:
  """The arms, each at the learning rate that was chosen for it."""
  return {name: configs.with_overrides(settings, {"optimizer.learning_rate": chosen[name]})
          for name, settings in arms.items()}


def _name(arm: str, rate: float) -> str:
  return f"{arm} at learning_rate={rate:g}"


def _geometric_mean(outcome: Outcome, keys: list[Key]) -> float:
  scores = np.array([outcome.ended[key].score for key in keys])
  if not np.all(np.isfinite(scores)):
    return math.inf
  with np.errstate(divide="ignore"):  # an exact run: nothing is better than 0
    return float(np.exp(np.mean(np.log(scores))))
