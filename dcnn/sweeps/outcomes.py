"""From trained states to what is written down: curves, rows of results.csv, and predictions."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dcnn import stats
from dcnn.base.measures import Measures
from dcnn.base.splits import Frames
from dcnn.results.records import DIVERGED, FINISHED, PATIENCE, Point, Row, is_failed
from dcnn.sweeps import batches, plans, training
from dcnn.sweeps.plans import Key, Plan, Run
from dcnn.sweeps.training import NEVER, RunState, Validation
from dcnn.tasks.base import Hypers, Pair, Problem, Task

LOST = "lost"  # the status of a run that lost its race; no reported run has it
CALIBRATED = 500  # frames of a split that are enough to calibrate with

Predict = Callable[[Any, Any, Any, Any], Any]


class Curves(NamedTuple):
  """Training loss terms and validation errors of the runs of a launch.

  Attributes:
    steps: The steps at which they were validated.
    values: The values by `split.metric`; nan from where a run diverged.
    counts: The number of points of each run; one that has ended gets no more.
  """

  steps: Int[np.ndarray, " points"]
  values: dict[str, Float[np.ndarray, "points runs"]]
  counts: Int[np.ndarray, " runs"]


class Ending(NamedTuple):
  """How a run ended: `status` and `cause` of its rows."""

  status: str
  cause: str


def empty_curves(runs: int) -> Curves:
  """The curves of runs that have not been validated yet."""
  return Curves(np.zeros(0, np.int64), {}, np.zeros(runs, np.int64))


def append_validation(
    curves: Curves, validation: Validation, problem: Problem, step: int, *,
    running: Bool[np.ndarray, " runs"], failed: Bool[np.ndarray, " runs"],
) -> Curves:
  """Curves with one more validation.

  Args:
    curves: The curves so far.
    validation: What the validation of the runs found.
    problem: Makes errors of its sums.
    step: The number of steps taken.
    running: Which runs had not ended at the validation before.
    failed: Which runs have diverged; their curve ends with nan, not with their last error.
  """
  values = {
      f"train.loss_{name}": np.asarray(term, np.float64)
      for name, term in validation.terms.items()}
  values |= {
      f"valid.{name}": np.asarray(error, np.float64)
      for name, error in problem.errors(validation.valid).items()}
  none = np.zeros((0, len(running)))
  return Curves(
      np.append(curves.steps, step),
      {name: np.concatenate([curves.values.get(name, none), np.where(failed, np.nan, new)[None]])
       for name, new in values.items()},
      curves.counts + running)


def points(curves: Curves, keys: Sequence[Key], first: int = 0) -> list[tuple[Point, ...]]:
  """The curves of each run as lines of history.csv, from the validation `first` on."""
  named = [(*name.split(".", 1), values) for name, values in curves.values.items()]
  return [
      tuple(
          Point(*key, int(curves.steps[k]), split, metric, float(values[k, i]))
          for k in range(first, curves.counts[i]) for split, metric, values in named)
      for i, key in enumerate(keys)]


def latest_errors(curves: Curves, keys: Sequence[Key], metric: str) -> dict[str, float]:
  """The geometric mean over the finite runs of each arm of their last validation error.

  Exact runs are left out of the mean; it is 0 where all finite runs are exact, and nan where no
  run is finite.

  Args:
    curves: The curves of the runs.
    keys: The names of the runs.
    metric: Which error.

  Returns:
    The means by arm.
  """
  errors = curves.values.get(f"valid.{metric}")
  latest: dict[str, list[float]] = {}
  for i, key in enumerate(keys):
    last = errors[curves.counts[i] - 1, i] if errors is not None and curves.counts[i] else math.nan
    latest.setdefault(key.arm, []).append(last)
  return {arm: _geometric_mean(np.array(values)) for arm, values in latest.items()}


def _geometric_mean(errors: Float[np.ndarray, " runs"]) -> float:
  finite = errors[np.isfinite(errors)]
  positive = finite[finite > 0]
  if not positive.size:
    return 0.0 if finite.size else math.nan
  return float(np.exp(np.mean(np.log(positive))))


def ending(state: RunState, run: int, steps: int) -> Ending:
  """How a run of a launch ended.

  Args:
    state: The state of the launch, on the host.
    run: The position of the run in the launch.
    steps: The number of steps that a run takes if nothing ends it.
  """
  if state.diverged_at[run] != NEVER:
    return divergence(
        state.diverged_at[run], [name for name, flags in state.non_finite.items() if flags[run]])
  if state.stopped_at[run] < NEVER:
    return Ending(f"{LOST}@{training.lost_at(int(state.stopped_at[run]))}", "")
  if np.isinf(state.best.score[run]):  # it has no checkpoint but its start
    return Ending(f"{DIVERGED}@{steps}", "validation")
  if state.stopped_at[run] != NEVER and state.stopped_at[run] < steps:
    return Ending(f"{PATIENCE}@{state.stopped_at[run]}", "")
  return Ending(FINISHED, "")


def divergence(step: Any, non_finite: Sequence[str]) -> Ending:
  """The ending of a run that became non-finite.

  Args:
    step: The step at which it did.
    non_finite: What was not finite then, see `training.RunState`. The cause is the loss terms among
      them; where those were finite, the gradient or the new parameters.
  """
  terms = [name for name in non_finite if name not in ("gradient", "parameters")]
  return Ending(f"{DIVERGED}@{step}", "+".join(terms or non_finite[:1]) or "loss")


def baseline_errors(plan: Plan, run: Run) -> dict[str, dict[str, float]]:
  """Errors of the predictor that knows nothing on each split: the same for all arms of a seed."""
  return {split: plan.problem.baseline(run.splits.train, frames)
          for split, frames in run.splits._asdict().items()}


def rows(
    plan: Plan, run: Run, sums: Mapping[str, Float[np.ndarray, " batches"]], *,
    baseline: Mapping[str, Mapping[str, float]], step: int, ended: Ending,
) -> tuple[Row, ...]:
  """The lines of results.csv of one run.

  Args:
    plan: The plan of the sweep.
    run: The run that was evaluated.
    sums: The sums of each batch of `batches.evaluation_batches`.
    baseline: What `baseline_errors` gave.
    step: The step of the checkpoint that was evaluated.
    ended: How the run ended.
  """
  lines, start = [], 0
  units = {metric.name: metric.unit for metric in plan.problem.measures.metrics}
  for split, part in batches.evaluation_batches(run, plan).items():
    mine = slice(start, start + len(part))
    start = mine.stop
    totals = {
        name: float(np.sum(np.asarray(value[mine]), dtype=np.float64))
        for name, value in sums.items()}
    lines += [
        Row(plan.name, *run.key, split, metric, units[metric], value, step, *ended)
        for metric, value in plan.problem.finish(totals, baseline[split]).items()]
  return tuple(lines)


def median_run(rows_of_runs: Sequence[Sequence[Row]], measures: Measures) -> int | None:
  """The run to show: the median run of the arm of the lowest median validation error.

  Args:
    rows_of_runs: The rows of each run.
    measures: Which error is watched. Where the rows lack it, because labels are not known, it is
      another that is compared.

  Returns:
    The position of the run; None if no run has a validation error, because all failed or because
    the rows are those of test data alone, as in results that are kept small.
  """
  choices = (measures.watched, *measures.compared)
  arms: dict[str, list[tuple[float, int]]] = {}
  for i, lines in enumerate(rows_of_runs):
    if not is_failed(lines[0].status):
      errors = {row.metric: row.value for row in lines if row.split == "valid"}
      known = [errors[metric] for metric in choices if metric in errors]
      if known:
        arms.setdefault(lines[0].arm, []).append((known[0], i))
  medians = [sorted(runs)[(len(runs) - 1) // 2] for runs in arms.values()]
  return min(medians)[1] if medians else None


def predictor(problem: Problem, task: Task) -> Predict:
  """The compiled function that predicts with one run of a task.

  Args:
    problem: Makes batches of data.
    task: The device half of the run.

  Returns:
    `(variables, hypers, own, shared) -> predictions` of all frames of these data.
  """
  def predict(variables: Any, hypers: Hypers, own: Any, shared: Any) -> Any:
    everything = np.arange(len(jax.tree.leaves(shared)[0]))
    return task.predict(variables, hypers, problem.take((shared, own), everything))

  return jax.jit(predict)


def predicted(plan: Plan, predict: Predict, run: Run, variables: Any, frames: Frames) -> Any:
  """Predictions of a run, batch by batch: the frames may be more than a device holds.

  Args:
    plan: The plan of the sweep.
    predict: What `predictor` gave for the group of the run.
    run: The run.
    variables: Its variables.
    frames: The frames by number.

  Returns:
    A tree of NumPy arrays with a leading axis of frames.
  """
  hypers = {name: np.float32(value) for name, value in run.hypers.items()}
  variables, hypers = jax.device_put((variables, hypers))
  parts = []
  for batch in batches.pad_batches(frames, batches.evaluation_batch(plan)):
    real = np.where(batch == batches.PADDING, batch[0], batch)
    parts.append(jax.device_get(predict(
        variables, hypers, run.fitted.own(real), plan.problem.shared(real))))
  return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:len(frames)], *parts)


def predictions(plan: Plan, predict: Predict, run: Run, variables: Any) -> dict[str, Any]:
  """Reference and prediction on the test split of one run, for the pictures.

  Args:
    plan: The plan of the sweep.
    predict: What `predictor` gave for the group of the run.
    run: The run.
    variables: Those that validation chose.
  """
  test = run.splits.test
  return {
      **plan.problem.predictions(
          test, predicted(plan, predict, run, variables, test), run.fitted),
      "arm": np.array(run.arm.name), "seed": np.array(run.seed)}


def calibrations(
    plan: Plan, predict: Predict, members: Sequence[tuple[Run, Any]]
) -> dict[str, dict[str, Any]]:
  """What the spread of the runs of an arm is worth as an uncertainty; see `stats.calibrate`.

  Args:
    plan: The plan of the sweep.
    predict: What `predictor` gave for the group of the runs.
    members: The runs of the arm that did not fail, with the variables that validation chose.

  Returns:
    For each quantity a record of `stats.Calibration`, with `unit` and the number of `seeds`. Empty
    of fewer than `stats.FEWEST_MEMBERS` runs, and where the splits of the seeds differ, because no
    frame is then unseen by all of them.
  """
  if len(members) < stats.FEWEST_MEMBERS or plans.splits_differ(plan):
    return {}
  splits = plan.splits[0]
  valid, test = (
      _pairs(plan, predict, members, _some(frames)) for frames in (splits.valid, splits.test))
  return {
      name: {
          **stats.calibrate(
              _ensemble(valid[name]), _ensemble(test[name]), len(members))._asdict(),
          "unit": pairs[0].unit, "seeds": len(members)}
      for name, pairs in test.items()
      if pairs[0].true.size and valid[name][0].true.size}


def _pairs(
    plan: Plan, predict: Predict, members: Sequence[tuple[Run, Any]], frames: Frames
) -> dict[str, list[Pair]]:
  """References and predictions by quantity, of each run."""
  of_runs = [
      plan.problem.pairs(frames, predicted(plan, predict, run, variables, frames), run.fitted)
      for run, variables in members]
  return {name: [pairs[name] for pairs in of_runs] for name in of_runs[0]}


def _ensemble(pairs: Sequence[Pair]) -> stats.Ensemble:
  return stats.ensemble(pairs[0].true, np.stack([pair.predicted for pair in pairs]))


def _some(frames: Frames) -> Int[np.ndarray, " chosen"]:
  """At most `CALIBRATED` of the frames, spread evenly over them."""
  return frames[np.linspace(0, len(frames) - 1, min(len(frames), CALIBRATED)).round().astype(int)]
