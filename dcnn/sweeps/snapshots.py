"""What a sweep puts into its checkpoints and takes out of them.

A launch under way is saved with all that its runs carry: parameters, optimiser, moving average,
best so far and counters; the order of the data follows from the seed and the step. A launch that
has ended is saved with its results, its curves and its variables.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dcnn.base.measures import Measures
from dcnn.results.records import INTERRUPTED, Point, Row
from dcnn.sweeps import checkpoints, outcomes
from dcnn.sweeps.checkpoints import Checkpoint
from dcnn.sweeps.outcomes import Curves
from dcnn.sweeps.plans import Key, Launch
from dcnn.sweeps.training import NEVER, RunState

CHECKPOINTS, TUNING = "checkpoints", "tuning"  # folders of a work directory


class Ended(NamedTuple):
  """What is kept of a run that has ended.

  Attributes:
    rows: Its lines of results.csv.
    history: Its lines of history.csv.
    best: The variables that validation chose.
    last: The variables after the last step, or where the run ended.
    score: The validation score of the best variables; inf if the run failed.
    kept: What else the use of the variables needs, see `tasks.base.Fitted`.
  """

  rows: tuple[Row, ...]
  history: tuple[Point, ...]
  best: Any
  last: Any
  score: float
  kept: dict[str, Any]


class Begun(NamedTuple):
  """A launch under way.

  Attributes:
    keys: The names of its runs.
    size: The number of runs it was padded to.
    step: The number of steps taken.
    state: The leaves of its `RunState` by their paths, without the padding.
    curves: The curves of its runs.
  """

  keys: tuple[Key, ...]
  size: int
  step: int
  state: dict[str, np.ndarray]
  curves: Curves


def from_begun(begun: Begun, so_far: dict[str, Any]) -> Checkpoint:
  """The checkpoint of a launch under way; `so_far` goes with it as it is."""
  return Checkpoint(
      {"state": begun.state, **_curve_arrays(begun.curves)},
      {"runs": [list(key) for key in begun.keys], "size": begun.size, "step": begun.step, **so_far})


def to_begun(checkpoint: Checkpoint) -> Begun:
  """The launch that `from_begun` saved."""
  arrays, record = checkpoint
  keys = tuple(Key(*key) for key in record["runs"])
  return Begun(keys, record["size"], record["step"], arrays["state"], _curves(arrays, len(keys)))


def from_ended(
    launch: Launch, ended: Sequence[Ended], curves: Curves, so_far: dict[str, Any]
) -> Checkpoint:
  """The checkpoint of a launch that has ended."""
  best, last = (
      jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
      for trees in zip(*((each.best, each.last) for each in ended), strict=True))
  arrays = {
      "variables": {"best": best, "last": last},
      **checkpoints.stack_kept([run.fitted.kept for run in launch.real]),
      **_curve_arrays(curves)}
  return Checkpoint(arrays, {
      "runs": [list(key) for key in launch.keys],
      "scores": [each.score if math.isfinite(each.score) else None for each in ended],
      "rows": [[list(row) for row in each.rows] for each in ended], **so_far})


def to_ended(checkpoint: Checkpoint) -> dict[Key, Ended]:
  """The runs that `from_ended` saved."""
  arrays, record = checkpoint
  keys = [Key(*key) for key in record["runs"]]
  histories = outcomes.points(_curves(arrays, len(keys)), keys)
  variables = arrays["variables"]
  return {
      key: Ended(tuple(Row(*row) for row in record["rows"][i]), histories[i],
                 of_run(variables["best"], i), of_run(variables["last"], i),
                 math.inf if record["scores"][i] is None else record["scores"][i],
                 checkpoints.kept_of(arrays, i))
      for i, key in enumerate(keys)}


def leaves_by_path(state: RunState) -> dict[str, np.ndarray]:
  """The leaves of a state by their paths, whatever classes hold them.

  Arrays without elements, which an optimiser may hold, are left out: Orbax refuses them.
  """
  return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)
          if leaf.size}


def restore_state(leaves: dict[str, np.ndarray], like: RunState, size: int) -> RunState:
  """A state from its leaves, padded with copies of the first run to `size` runs."""
  def leaf(path, old):
    if not old.size:
      return np.zeros((size, *old.shape[1:]), old.dtype)
    new = leaves[_name(path)]
    assert (new.dtype, new.shape[1:]) == (old.dtype, old.shape[1:]), _name(path)
    return np.concatenate([new, np.repeat(new[:1], size - len(new), axis=0)])

  return jax.tree_util.tree_map_with_path(leaf, like)


def of_run(tree: Any, run: int) -> Any:
  """One run of a tree of stacked runs."""
  return jax.tree.map(lambda leaf: leaf[run], tree)


def so_far(
    directory: str | os.PathLike[str], experiment: str, keys: Sequence[Key], measures: Measures
) -> tuple[tuple[Row, ...], tuple[Point, ...]]:
  """Results and curves of a sweep that has not ended, from its checkpoints.

  Args:
    directory: The folder of the checkpoints.
    experiment: The name of the experiment.
    keys: The names of all runs of the sweep, in the order of their rows.
    measures: What the task reports.

  Returns:
    Rows of the runs that have ended and were evaluated; of the others the errors at their last
    validation, nan before the first, with status `interrupted@STEP` unless they diverged; and
    the curves of both.

  Raises:
    ValueError: if a checkpoint cannot be read.
  """
  running = checkpoints.running(directory)  # first: a launch that ends meanwhile is then in both
  return results_of(checkpoints.finished(directory), running, experiment, keys, measures)


def results_of(
    finished: Sequence[Checkpoint], running: Checkpoint | None, experiment: str,
    keys: Sequence[Key], measures: Measures,
) -> tuple[tuple[Row, ...], tuple[Point, ...]]:
  """The same from checkpoints that have been read: those of ended launches, and one under way."""
  runs = {key: (each.rows, each.history) for checkpoint in finished
          for key, each in to_ended(checkpoint).items()}
  if running is not None:
    begun = to_begun(running)
    histories = outcomes.points(begun.curves, begun.keys)
    for i, (key, points) in enumerate(zip(begun.keys, histories, strict=True)):
      ending = outcomes.Ending(f"{INTERRUPTED}@{begun.step}", "")
      if begun.state["diverged_at"][i] != NEVER:
        ending = outcomes.divergence(begun.state["diverged_at"][i], [
            name.removeprefix("non_finite.") for name, flags in begun.state.items()
            if name.startswith("non_finite.") and flags[i]])
      runs.setdefault(key, (_last_errors(experiment, key, points, ending, measures), points))
  unbegun = outcomes.Ending(f"{INTERRUPTED}@0", "")
  found = [runs.get(key) or (_last_errors(experiment, key, (), unbegun, measures), ())
           for key in keys]
  return (tuple(row for rows, _ in found for row in rows),
          tuple(point for _, points in found for point in points))


def _last_errors(
    experiment: str, key: Key, points: Sequence[Point], ending: outcomes.Ending,
    measures: Measures,
) -> tuple[Row, ...]:
  """The errors of the last validation that was finite; nan and step 0 without any."""
  last = {point.metric: (point.value, point.step) for point in points
          if point.split == "valid" and math.isfinite(point.value)}
  return tuple(
      Row(experiment, *key, "valid", metric.name, metric.unit,
          *last.get(metric.name, (math.nan, 0)), *ending)
      for metric in measures.metrics if metric.compared)


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator=".")


def _curve_arrays(curves: Curves) -> dict[str, Any]:
  """Nothing before the first validation: Orbax refuses arrays without elements."""
  return {"curves": curves._asdict()} if len(curves.steps) else {}


def _curves(arrays: dict[str, Any], runs: int) -> Curves:
  return Curves(**arrays["curves"]) if "curves" in arrays else outcomes.empty_curves(runs)
