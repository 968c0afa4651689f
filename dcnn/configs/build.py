"""From a checked configuration to a plan that runs."""

import functools
import warnings
from collections.abc import Mapping

import jax

from dcnn import optimizers
from dcnn.configs import arms as arm_lib
from dcnn.configs.arms import arm_settings, tables
from dcnn.configs.sections import Data, Parts
from dcnn.configs.settings import ConfigDict, flat, require
from dcnn.configs.tasks import section_of
from dcnn.configs.validation import make_optimizer, seeds, steps_per_chunk
from dcnn.sweeps.plans import Arm, Plan
from dcnn.sweeps.training import Program


def load(config: ConfigDict) -> Data:
  """The data of a configuration.

  Raises:
    ValueError, OSError: naming the file and the fix.
  """
  return section_of(config).load(config)


def build(config: ConfigDict, data: Data, arms: Mapping[str, ConfigDict] | None = None) -> Plan:
  """The plan of an experiment.

  Args:
    config: A valid configuration.
    data: What `load` gave.
    arms: The full configuration of each arm; by default those of `arm_settings`.

  Returns:
    What `sweeps.run` takes.

  Raises:
    ValueError: if devices_per_run is impossible, or the settings do not go with the data.
  """
  _require_devices(config.devices_per_run)
  arms = arm_settings(config) if arms is None else arms
  chosen = seeds(config)
  parts = section_of(config).build(config, data, arms, chosen)
  return Plan(
      name=config.experiment,
      problem=parts.problem,
      arms=tuple(
          Arm(
              name=name,
              structure=arm_lib.structure(settings),
              make_program=functools.partial(_program, settings, parts),
              hypers=arm_lib.hypers(settings),
              fit=functools.partial(parts.fit, name, settings))
          for name, settings in arms.items()),
      seeds=chosen,
      splits=parts.splits,
      steps=config.steps,
      chunk=steps_per_chunk(config),
      devices_per_run=config.devices_per_run,
      max_memory=None if config.max_memory is None else config.max_memory * 1e9,
      stop_on_divergence=config.on_divergence == "stop",
      checkpoint_every=config.checkpoint_every,
  )


def _require_devices(per_run: int) -> None:
  there = jax.local_device_count()
  fitting = ", ".join(str(n) for n in range(1, there + 1) if there % n == 0)
  require(there % per_run == 0,
          f"devices_per_run={per_run} does not divide the {there} devices that JAX finds: take one "
          f"of {fitting}")


def _program(config: ConfigDict, parts: Parts) -> Program:
  return Program(
      parts.make_task(config), make_optimizer(config), parts.problem.take, config.batch_size,
      arm_lib.switches(config)["average"], patience=config.patience * steps_per_chunk(config),
      evaluated=optimizers.resolve(config.optimizer.name).evaluated)


def warn_of_pitfalls(config: ConfigDict, arms: Mapping[str, ConfigDict]) -> None:
  """Warns of what can be run, and may not say what it seems to.

  Args:
    config: A valid configuration.
    arms: The full configuration of each arm.
  """
  section_of(config).warn(arms)
  for name, settings in arms.items():
    for pitfall in optimizers.pitfalls(
        settings.optimizer.name, learning_rate=settings.optimizer.learning_rate,
        schedule=settings.optimizer.schedule):
      warnings.warn(f"arm {name!r}: {pitfall}", stacklevel=4)
  _warn_of_confounding(config)


def _warn_of_confounding(config: ConfigDict) -> None:
  """An arm that inherits what its baseline sets may differ in more than its name tells."""
  base = flat(config)
  overrides = dict(zip(arm_settings(config), map(dict, config.arms), strict=True))
  for table in tables(config):
    for key, value in overrides[table.baseline].items():
      heirs = [name for name in table.arms if overrides[name] and key not in overrides[name]]
      if heirs and base[key] != value:
        warnings.warn(
            f"table {table.title!r}: {', '.join(heirs)} differ from {table.baseline} in {key}, too "
            f"({base[key]} against {value}); set it in these arms or change no base value",
            stacklevel=5)
