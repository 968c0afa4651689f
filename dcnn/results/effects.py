"""Effects against training: the ratio of each arm to its baseline over the steps, and in words.

A verdict after the last step may be about learning, or about patience alone: a gap that is still
growing, or closing, would be another one after a longer training.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Num

from dcnn import stats
from dcnn.results import text
from dcnn.results.records import Result, Table, with_baseline

# Validation errors by arm and metric, then by seed, then by step.
Curves = Mapping[tuple[str, str], Mapping[int, Mapping[int, float]]]

_FEWEST_POINTS = 4  # of a curve that a story can be told of
_EARLY, _LATE = 1 / 8, 3 / 4  # of the training: what the end is compared with
_HARDLY = np.log(1.02)  # a change of the ratio that nobody would call one
_SETTLED = np.log(1.05)  # what a ratio may still change by that has settled


class Effect(NamedTuple):
  """An arm against the baseline over training, on validation data.

  Attributes:
    arm: The name of the arm.
    steps: The training steps.
    logs: Logarithm of error / baseline error of each seed at these steps; nan where it has none.
  """

  arm: str
  steps: Num[np.ndarray, " points"]
  logs: Float[np.ndarray, "seeds points"]

  @property
  def ratio(self) -> tuple[Float[np.ndarray, " points"], ...]:
    """Geometric mean of the ratio at each step, and Student's 95 % interval: three arrays."""
    centre, half = _mean_and_half_width(self.logs)
    with np.errstate(over="ignore", invalid="ignore"):
      return np.exp(centre), np.exp(centre - half), np.exp(centre + half)


def validation_curves(result: Result) -> Curves:
  """The validation errors of all runs, from the history."""
  curves: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
  for point in result.history:
    if point.split == "valid":
      seeds = curves.setdefault((point.arm, point.metric), {})
      seeds.setdefault(point.seed, {})[point.step] = point.value
  return curves


def errors_over_steps(
    result: Result, curves: Curves, arm: str, metric: str
) -> tuple[Num[np.ndarray, " points"], dict[int, Float[np.ndarray, " points"]]]:
  """The validation errors of an arm at all steps at which one of its runs was validated.

  A run that patience ended goes on at its last error, one that failed ends in nan.

  Args:
    result: The result of a sweep.
    curves: All its curves, from `validation_curves`.
    arm: The name of the arm.
    metric: The name of an error.

  Returns:
    The steps, and the errors at them by seed.
  """
  seeds, stopped = curves.get((arm, metric), {}), set(result.out_of_patience)
  steps = sorted({step for values in seeds.values() for step in values})
  errors = {
      seed: np.array([values.get(step, values[max(values)] if (arm, seed) in stopped else np.nan)
                      for step in steps], np.float64)
      for seed, values in seeds.items()}
  return np.array(steps), errors


def effects(result: Result, curves: Curves, table: Table, metric: str) -> list[Effect]:
  """The arms of a table against its baseline, at the steps at which both were validated.

  Args:
    result: The result of a sweep.
    curves: All its curves, from `validation_curves`.
    table: What to compare.
    metric: The name of an error.

  Returns:
    The arms that have such steps, in the order of the table.
  """
  base_steps, base = errors_over_steps(result, curves, table.baseline, metric)
  found = []
  for arm in with_baseline(table):
    steps, errors = errors_over_steps(result, curves, arm, metric)
    common, of_arm, of_base = np.intersect1d(steps, base_steps, return_indices=True)
    seeds = [seed for seed in errors if seed in base]
    if arm == table.baseline or not len(common) or not seeds:
      continue
    with np.errstate(divide="ignore", invalid="ignore"):
      logs = np.stack([np.log(errors[seed][of_arm]) - np.log(base[seed][of_base])
                       for seed in seeds])
    found.append(Effect(arm, common, np.where(np.isfinite(logs), logs, np.nan)))
  return found


def largest(found: list[Effect], number: int) -> list[Effect]:
  """The effects that are largest at their last step, the largest first.

  Args:
    found: Effects, of which those without a ratio at their last step are left out.
    number: How many to return at most.
  """
  sizes = {effect.arm: abs(np.log(effect.ratio[0][-1])) for effect in found}
  known = [effect for effect in found if np.isfinite(sizes[effect.arm])]
  return sorted(known, key=lambda effect: -sizes[effect.arm])[:number]


def story(effect: Effect) -> str:
  """What becomes of an effect during training, in words that follow the name of the arm.

  The end is compared with the step after an eighth and the one after three quarters of the
  training, seed by seed, by Student's intervals. An effect that was there at two or more steps and
  is not at the end has vanished; one that is there at the end goes on where the ratio changed by
  more than 2 % over the last quarter, and has settled where a change by more than 5 % can be
  excluded.

  Args:
    effect: The effect.

  Returns:
    Such as `widens from 0.67 at 2,000 steps to 0.29 at 15,000 and is still growing`; empty where
    the curves are too short to tell, or no effect was ever there.
  """
  centre, half = _mean_and_half_width(effect.logs)
  there = np.abs(centre) > half
  if len(centre) < _FEWEST_POINTS or not np.isfinite(centre[-1]) or not np.isfinite(half[-1]):
    return ""
  if not there[-1]:
    return _vanished(effect, centre, there)
  early, late = (int(np.argmax(effect.steps >= part * effect.steps[-1]))
                 for part in (_EARLY, _LATE))
  change = _change(effect, centre, there, early)
  return f"{change}, {_ending(effect.logs[:, -1] - effect.logs[:, late], np.sign(centre[-1]))}"


def _change(
    effect: Effect, centre: Float[np.ndarray, " points"], there: np.ndarray, early: int
) -> str:
  """How the effect at the end differs from that early in the training."""
  first, last = (f"{text.ratio_text(stats.Interval(*(float(np.exp(centre[at])),) * 3)).centre} at "
                 f"{effect.steps[at]:,.0f}" for at in (early, -1))
  moved, margin = _mean_and_half_width((effect.logs[:, -1] - effect.logs[:, early])[:, None])
  grown = np.sign(centre[-1]) * moved[0]
  if not np.isfinite(grown):
    return f"is {last} steps"
  if there[early] and np.sign(centre[early]) != np.sign(centre[-1]):
    return f"turns from {first} steps to {last}"
  if not abs(moved[0]) > margin[0]:
    return f"was {first} steps and is {last}"
  return f"{'widens' if grown > 0 else 'narrows'} from {first} steps to {last}"


def _ending(moved: Float[np.ndarray, " seeds"], side: float) -> str:
  """What the last quarter of the training says of a longer one."""
  (change,), (margin,) = _mean_and_half_width(moved[:, None])
  if abs(change) > max(margin, _HARDLY):
    return f"and is still {'growing' if side * change > 0 else 'shrinking'}"
  if abs(change) + margin < _SETTLED:
    return "and has settled"
  return "and may still move"


def _vanished(
    effect: Effect, centre: Float[np.ndarray, " points"], there: np.ndarray
) -> str:
  """That an effect which was there is so no more; empty where it never was at two steps running."""
  lasting = np.flatnonzero(there[1:] & there[:-1])
  if not lasting.size:
    return ""
  ratio = float(np.exp(centre[lasting[0]]))
  first = text.ratio_text(stats.Interval(ratio, ratio, ratio)).centre
  gone = effect.steps[int(np.flatnonzero(there)[-1]) + 1]
  return f"was {first} at {effect.steps[lasting[0]]:,.0f} steps and vanishes by step {gone:,.0f}"


def _mean_and_half_width(
    logs: Float[np.ndarray, "seeds points"]
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
  """Mean over the seeds, and half the width of its 95 % interval after Student; nan without one."""
  known = np.isfinite(logs)
  n = known.sum(axis=0)
  with np.errstate(divide="ignore", invalid="ignore"):
    mean = np.where(known, logs, 0).sum(axis=0) / n
    spread = np.where(known, (logs - mean) ** 2, 0).sum(axis=0) / (n - 1)
    student = scipy.stats.t.isf((1 - stats.CONFIDENCE) / 2, n - 1)
    half = student * np.sqrt(spread / n)
  return mean, np.where(n > 1, half, np.nan)
