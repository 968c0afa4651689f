"""The choice of a learning rate for each arm on validation data, by one grid and seeds for all."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dcnn import configs
from dcnn.configs import ConfigDict, build
from dcnn.configs.sections import Data
from dcnn.sweeps import Outcome, halving
from dcnn.sweeps.outcomes import LOST
from dcnn.sweeps.plans import Halving, Key, Plan


def choose_learning_rates(
    config: ConfigDict, data: Data, arms: Mapping[str, ConfigDict],
    sweep: Callable[[Plan], Outcome],
) -> dict[str, Any]:
  """Trains every arm at every learning rate, with the seeds of the tuning.

  Args:
    config: A valid configuration that lists learning rates.
    data: Its data.
    arms: The full configuration of each arm.
    sweep: Runs a plan.

  Returns:
    `learning_rates`, `seeds`, `scores` (of each arm and rate: the geometric mean over seeds of the
    score by which validation chooses checkpoints; inf where a run diverged) and `chosen`. With
    `tuning.halving` also `stopped`: `arm`, `learning_rate`, `step` and `score` of what was not
    trained to its end; its score is that of the step.
  """
  rates = [float(rate) for rate in config.tuning.learning_rates]
  outcome = sweep(make_plan(config, data, arms))
  seeds = configs.tuning_seeds(config)
  scores = {
      name: [
          _geometric_mean(outcome, [Key(_name(name, rate), seed) for seed in seeds])
          for rate in rates] for name in arms}
  steps = _steps_of_losers(outcome)
  stopped = [
      {"arm": name, "learning_rate": rate, "step": steps[_name(name, rate)], "score": score}
      for name in arms for rate, score in zip(rates, scores[name], strict=True)
      if _name(name, rate) in steps]
  chosen = {name: _best(rates, values, [_name(name, rate) in steps for rate in rates])
            for name, values in scores.items()}
  _warn(chosen, rates, stopped)
  return {"learning_rates": rates, "seeds": list(seeds), "scores": scores, "chosen": chosen} | (
      {"stopped": stopped} if config.tuning.halving else {})


def summary(tuned: Mapping[str, Any]) -> str:
  """Which learning rate was chosen for which arms: a heading, and a line for each rate chosen.

  Args:
    tuned: What `choose_learning_rates` returns.
  """
  lines = [f"learning rates, chosen on seeds {', '.join(map(str, tuned['seeds']))}:"]
  for rate in sorted(set(tuned["chosen"].values())):
    names = [name for name, chosen in tuned["chosen"].items() if chosen == rate]
    lines.append(f"  {rate:g}: {', '.join(names)}")
  if tuned.get("stopped"):
    tried = len(tuned["chosen"]) * len(tuned["learning_rates"])
    lines.append(f"  {len(tuned['stopped'])} of {tried} pairs of arm and rate were stopped early")
  return "\n".join(lines)


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
  plan = build.build(tuning, data, candidates)._replace(reported=False)
  if not config.tuning.halving:
    return plan
  rates = config.tuning.learning_rates
  rungs = halving.rungs(
      len(rates), config.tuning.halving, steps=plan.steps, chunk=plan.chunk)
  return plan._replace(halving=Halving(
      tuple(tuple(_name(name, rate) for rate in rates) for name in arms), rungs))


def with_learning_rates(
    arms: Mapping[str, ConfigDict], chosen: Mapping[str, float]) -> dict[str, ConfigDict]:
  """The arms, each at the learning rate that was chosen for it."""
  return {name: configs.with_overrides(settings, {"optimizer.learning_rate": chosen[name]})
          for name, settings in arms.items()}


def _name(arm: str, rate: float) -> str:
  return f"{arm} at learning_rate={rate:g}"


def _steps_of_losers(outcome: Outcome) -> dict[str, int]:
  """The step at which the runs of an arm were stopped, of those that were."""
  endings = {key.arm: status.partition("@") for key, ended in outcome.ended.items()
             for status in [ended.rows[0].status] if status.startswith(f"{LOST}@")}
  return {arm: int(step) for arm, (_, _, step) in endings.items()}


def _best(rates: Sequence[float], scores: Sequence[float], stopped: Sequence[bool]) -> float:
  """The rate of the lowest score: of a training to its end, unless all of these have failed."""
  return rates[min(range(len(rates)), key=lambda i: (
      math.isinf(scores[i]), stopped[i], scores[i]))]


def _warn(
    chosen: Mapping[str, float], rates: Sequence[float], stopped: Sequence[Mapping[str, Any]],
) -> None:
  """Warns of choices that more learning rates, or longer trainings, may change."""
  at_edge = [name for name, rate in chosen.items() if rate in (min(rates), max(rates))]
  if at_edge:
    warnings.warn(
        f"the best learning rate lies at the edge of the grid for {', '.join(at_edge)}: widen "
        "tuning.learning_rates", stacklevel=4)
  short = [each["arm"] for each in stopped if each["learning_rate"] == chosen[each["arm"]]]
  if short:
    warnings.warn(
        f"all learning rates that were trained to the end have failed for {', '.join(short)}, and "
        "one that was stopped early is taken: list smaller ones in tuning.learning_rates, or set "
        "tuning.halving to 0", stacklevel=4)


def _geometric_mean(outcome: Outcome, keys: list[Key]) -> float:
  scores = np.array([outcome.ended[key].score for key in keys])
  if not np.all(np.isfinite(scores)):
    return math.inf
  with np.errstate(divide="ignore"):  # an exact run: nothing is better than 0
    return float(np.exp(np.mean(np.log(scores))))
