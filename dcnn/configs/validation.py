"""The checks of a configuration: all that can be found out without its data."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from dcnn import optimizers
from dcnn.base import objects
from dcnn.base.text import suggestion
from dcnn.configs import networks
from dcnn.configs.arms import arm_settings, effective, hypers, own_keys, tables
from dcnn.configs.settings import (
    MOST,
    ConfigDict,
    check_type,
    flat,
    is_integer,
    naming,
    positive,
    require,
    require_choice,
)
from dcnn.configs.tasks import TASKS, section_of, setting_table

MOST_SEEDS = 10_000  # a larger number is probably one seed, not a count
MOST_ARMS = 1_000  # each may be a program of its own
MOST_RUNS = 20_000  # of all arms together
# Batches are drawn for a whole chunk at a time: their configurations, as numbers of frames.
MOST_DRAWN = 10_000_000


def seeds(config: ConfigDict) -> tuple[int, ...]:
  """The seeds as a tuple: n means 0 ... n - 1."""
  return _integers(config.seeds, "seeds")


def tuning_seeds(config: ConfigDict) -> tuple[int, ...]:
  """The seeds that the learning rate is chosen with."""
  return _integers(config.tuning.seeds, "tuning.seeds")


def _integers(value: Any, name: str) -> tuple[int, ...]:
  listed = range(value) if is_integer(value) else value
  if not isinstance(listed, tuple | list | range):
    raise ValueError(f"{name} must be a whole number or a list of them, got {value!r}")
  require(not listed[MOST_SEEDS:], f"{name} asks for more than {MOST_SEEDS} runs of each arm, got "
          f"{value!r}; a seed of that number is listed as in ({value!r},)")
  if not all(map(is_integer, listed)):
    raise ValueError(f"{name} must be a whole number or a list of them, got {value!r}")
  chosen = tuple(int(seed) for seed in listed)
  require(bool(chosen), f"{name} must name at least one seed, got {value!r}")
  for seed in chosen:
    require(0 <= seed < 2**32, f"{name} must lie between 0 and 2**32 - 1, got {seed}")
  repeated = {seed for seed, times in collections.Counter(chosen).items() if times > 1}
  require(not repeated, f"{name} lists {sorted(repeated)} more than once")
  return chosen


def steps_per_chunk(config: ConfigDict) -> int:
  """Steps between two validations; there is one after the last step anyway."""
  return min(config.chunk, config.steps)


def validate(config: ConfigDict) -> None:
  """Checks all that can be checked without data.

  Raises:
    ValueError: in one line, with the valid choices and the closest match.
  """
  require("task" in config, "task is missing: start from configs.default()")
  require_choice(config.task, TASKS, "task")
  _check_settings(config, sweep=True)
  chosen = seeds(config)
  require(len(config.arms) > 0, "arms must list at least one dictionary; {} is the base")
  require(len(config.arms) <= MOST_ARMS,
          f"arms lists {len(config.arms):,} dictionaries, and {MOST_ARMS:,} are the most: divide "
          "them between several experiments")
  _require_runs(len(config.arms), len(chosen), "seeds")
  _require_chunk(config)
  arms = arm_settings(config)
  for name, settings in arms.items():
    try:
      _validate_arm(settings)
    except ValueError as error:
      raise ValueError(f"arm {name!r}: {error}" if len(arms) > 1 else str(error)) from error
  _require_distinct(arms)
  for table in tables(config):
    for name in (table.baseline, *table.arms):
      require_choice(name, arms, f"arm in table {table.title!r}:")
  _validate_tuning(config, chosen)


def _check_settings(config: ConfigDict, sweep: bool) -> None:
  """Checks each setting by itself: those of the sweep, or those that its arms may change."""
  found, table = flat(config), setting_table(config)
  own = own_keys(found.get("model.name"))
  unknown = next((key for key in found if key not in table and key not in own), None)
  if unknown is not None:  # to look for what is close takes time, also where nothing is wrong
    raise ValueError(f"unknown key {unknown!r}: {suggestion(unknown, table)}keep the settings of "
                     "configs.default()")
  for key, setting in table.items():
    require(key in found, f"{key} is missing: keep the settings of configs.default()")
    check_type(setting, found[key])
  read = None if sweep else effective(config)
  for key, setting in table.items():
    mine = setting.role == "sweep" if read is None else key in read
    if not mine or setting.optional and found[key] is None:
      continue
    if setting.choices and not setting.objects:
      require_choice(found[key], setting.choices, key)
    if setting.check is not None:
      setting.check(found[key], key)


def _validate_arm(config: ConfigDict) -> None:
  networks.activation_of(config)  # its name must be valid before others are looked at
  section_of(config).check(config)
  _check_settings(config, sweep=False)
  networks.check(config)
  most = MOST_DRAWN // config.batch_size
  require(steps_per_chunk(config) <= max(1, most),
          f"chunk={config.chunk:,} steps of batch_size={config.batch_size:,} are drawn at once, "
          f"and {MOST_DRAWN:,} configurations are the most: lower chunk to {max(1, most):,}")
  _require_divisible(config.batch_size, config.devices_per_run)
  require(config.optimizer.warmup < config.steps,
          f"optimizer.warmup ({config.optimizer.warmup}) must be below steps ({config.steps})")
  _try_optimizer(config)
  evaluated = optimizers.resolve(config.optimizer.name).evaluated
  require(evaluated is None or config.optimizer.ema_decay == 0,
          "optimizer.ema_decay must be 0 with an optimiser that averages its iterates itself, as "
          f"{objects.name_of(config.optimizer.name)} does, got {config.optimizer.ema_decay}")


def make_optimizer(config: ConfigDict) -> Callable[[Mapping], optax.GradientTransformation]:
  """From the numbers of an arm to its optimiser.

  Raises:
    ValueError: if there is none of the name, or its settings do not go together.
  """
  settings = config.optimizer
  make = optimizers.make(
      settings.name, steps=config.steps, schedule=settings.schedule, warmup=settings.warmup,
      clip=settings.clip_norm > 0, weight_decay=settings.weight_decay > 0)
  # Those that are traced are rounded to float32 before they are used, and these need not be.
  table = setting_table(config)
  static = {name: settings[name] for name in optimizers.PARAMETERS
            if table[f"optimizer.{name}"].role == "program" and settings[name] is not None}
  return lambda hypers: make({**hypers, **static})


def _try_optimizer(config: ConfigDict) -> None:
  """Makes sure that there is an optimiser, and tries one of the user's own on two weights."""
  settings = config.optimizer
  with naming("optimizer.schedule"):
    schedule = optimizers.resolve_schedule(settings.schedule)
    optimizers.make("sgd", steps=config.steps, schedule=schedule, warmup=settings.warmup)
    if not isinstance(settings.schedule, str):
      jax.eval_shape(schedule(config.steps - settings.warmup), 0)
  with naming("optimizer.name"):
    make = make_optimizer(config)

    def first_update(weights: Any, numbers: Mapping) -> Any:
      optimizer = make(numbers)
      return optimizer.update(weights, optimizer.init(weights), weights)

    if not isinstance(settings.name, str):
      jax.eval_shape(first_update, {"w": np.ones((2, 2), np.float32)}, hypers(config))


def _require_distinct(arms: Mapping[str, ConfigDict]) -> None:
  settings = {name: str(sorted(effective(arm).items())) for name, arm in arms.items()}
  for name, text in settings.items():
    twin = next(other for other in settings if settings[other] == text)
    require(twin == name, f"arms {twin!r} and {name!r} do the same: remove one, or see whether the "
            "network, activation or loss reads what they change")


def _require_runs(arms: int, seeds: int, key: str) -> None:
  require(arms * seeds <= MOST_RUNS,
          f"{arms:,} arms with {seeds:,} {key} are {arms * seeds:,} runs, and {MOST_RUNS:,} are "
          f"the most: at most {MOST_RUNS // arms:,} {key} with so many arms")


def _require_chunk(config: ConfigDict) -> None:
  """Makes sure that patience, which is counted in steps, fits into int32."""
  chunk = steps_per_chunk(config)
  require(config.patience * chunk <= MOST,
          f"patience={config.patience:,} validations, one every {chunk:,} steps, are more steps "
          f"than {MOST:,}: patience must be at most {MOST // chunk:,} with that chunk, and 0 "
          "means no end by patience")


def _require_divisible(batch_size: int, devices: int) -> None:
  near = max(devices, batch_size - batch_size % devices)
  require(batch_size % devices == 0,
          f"batch_size {batch_size} cannot be split over devices_per_run={devices}: take "
          f"batch_size={near}, or a devices_per_run that divides {batch_size}")


def _validate_tuning(config: ConfigDict, reported: Sequence[int]) -> None:
  if not config.tuning.learning_rates:
    for name in ("seeds", "halving"):
      require(not config.tuning[name], f"tuning.{name} without tuning.learning_rates tunes nothing")
    return
  require(not any("optimizer.learning_rate" in arm for arm in config.arms),
          "tuning.learning_rates would replace the learning rates that arms set: drop one")
  for rate in config.tuning.learning_rates:
    positive(rate, "tuning.learning_rates")
  rates = [f"{rate:g}" for rate in config.tuning.learning_rates]
  require(len(set(rates)) == len(rates), f"tuning.learning_rates lists {', '.join(rates)}, of "
          "which some are the same to six digits: drop them")
  _require_runs(len(config.arms) * len(rates), len(tuning_seeds(config)), "tuning.seeds")
  common = sorted(set(tuning_seeds(config)) & set(reported))
  require(not common, f"tuning.seeds and seeds share {common}: the choice would see the test")
