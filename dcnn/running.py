"""Runs an experiment from its configuration: the engine of the command line and of notebooks."""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from dcnn import configs, plans, provenance, sweeps
from dcnn.configs import ConfigDict
from dcnn.results import Result, Row

OnProgress = Callable[[sweeps.Progress], None]


class Finished(NamedTuple):
  """What `run` returns.

  Attributes:
    result: tables, curves and provenance, ready to be saved.
    groups: trained variables.
  """

  result: Result
  groups: tuple[sweeps.Trained, ...]


def run(
    config: ConfigDict,
    on_progress: OnProgress = lambda progress: None,
    command: str = "",
) -> Finished:
  """Runs an experiment: tunes learning rates if asked to, then trains every arm and seed.

  Args:
    config: from `default()`, changed.
    on_progress: called after every chunk.
    command: the command line, for the report.

  Returns:
    Results and trained variables.

  Raises:
    ValueError: if the configuration is not valid.
  """
  # Accelerators would multiply float32 in fewer bits, too few for second derivatives.
  with jax.default_matmul_precision("highest"):
    return _run(config, on_progress, command)


def _run(config: ConfigDict, on_progress: OnProgress, command: str) -> Finished:
  started = time.monotonic()
  configs.validate(config)
  sources = plans.load(config)
  dataset = sources.dataset
  arms = configs.arm_settings(config)
  tuning = _tune(config, sources, arms, on_progress) if config.tuning.learning_rates else {}
  if tuning:
    arms = {
        name: configs.with_overrides(settings, {"optimizer.learning_rate": tuning["chosen"][name]})
        for name, settings in arms.items()}
  outcome = sweeps.run(plans.build(config, sources, arms), on_progress)
  record = {
      "config": configs.to_dict(config),
      "tables": [table._asdict() for table in configs.tables(config)],
      "dataset": {"name": dataset.name, "source": dataset.source, "checksum": dataset.checksum,
                  "frames": len(dataset)},
      "environment": provenance.environment(),
      "command": command,
      "timing": {**outcome.timing, "total_seconds": time.monotonic() - started},
      **({"tuning": tuning} if tuning else {}),
  }
  result = Result(
      record, outcome.rows, outcome.history, configs.tables(config), outcome.parity)
  return Finished(result, outcome.groups)


def sweep(
    config: ConfigDict,
    on_progress: OnProgress = lambda progress: None,
) -> Result:
  """Runs an experiment and returns its result: the engine of the command line, for notebooks.

  The runs are spread over the devices of JAX. A CPU is one device unless told otherwise, before
  its first use: `jax.config.update("jax_num_cpu_devices", CORES)`, as the command line does.

  Args:
    config: from `configs.default()`, changed.
    on_progress: called after every chunk.

  Returns:
    The result; `result.table(baseline=...)` compares its arms.

  Raises:
    ValueError: if the configuration is not valid.
  """
  return run(config, on_progress).result


def _tune(
    config: ConfigDict,
    sources: plans.Sources,
    arms: Mapping[str, ConfigDict],
    on_progress: OnProgress,
) -> dict:
  """Chooses a learning rate for each arm on validation data, by the same grid and seeds for all.

  Returns:
    `learning_rates`, `seeds`, `scores` (of each arm and rate: geometric mean over seeds of the
    weighted validation errors; inf where a run diverged) and `chosen`.
  """
  rates = [float(rate) for rate in config.tuning.learning_rates]
  candidates = {
      _tuning_name(name, rate): configs.with_overrides(settings, {"optimizer.learning_rate": rate})
      for name, settings in arms.items() for rate in rates}
  tuning = configs.with_overrides(config, {})
  tuning.seeds = config.tuning.seeds
  outcome = sweeps.run(plans.build(tuning, sources, candidates), on_progress)
  scores = {
      name: [
          _score(outcome.rows, _tuning_name(name, rate), settings) for rate in rates]
      for name, settings in arms.items()}
  chosen = {name: rates[int(np.argmin(values))] for name, values in scores.items()}
  at_edge = [name for name, rate in chosen.items() if rate in (min(rates), max(rates))]
  if at_edge:
    warnings.warn(
        f"the best learning rate lies at the edge of the grid for {', '.join(at_edge)}: widen "
        "tuning.learning_rates", stacklevel=2)
  return {"learning_rates": rates, "seeds": list(configs.tuning_seeds(config)),
          "scores": scores, "chosen": chosen}


def _tuning_name(arm: str, rate: float) -> str:
  return f"{arm} at learning_rate={rate:g}"


def _score(rows: Sequence[Row], arm: str, config: ConfigDict) -> float:
  """Geometric mean over seeds of the weighted validation errors; inf if a run diverged."""
  mine = [row for row in rows if row.arm == arm and row.split == "valid"]
  if any(row.status != "finished" for row in mine):
    return math.inf
  energy, forces = (
      np.array([row.value for row in mine if row.metric == metric])
      for metric in ("energy_loss", "force_loss"))
  weighted = config.loss.energy_weight * energy + config.loss.force_weight * forces
  return float(np.exp(np.mean(np.log(weighted))))
