"""Configurations: the default, the arms of an experiment, and the checks.

An arm is a dictionary of dotted keys and values that differ from the base configuration; it is
named by those values. `plans` turns a checked configuration into something that runs.
"""

import collections
import copy
import difflib
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np
from ml_collections import config_dict

from dcnn import labels, losses, models
from dcnn.activations import ACTIVATIONS
from dcnn.models.layers import MOST_LAYERS
from dcnn.optimizers import SCHEDULES
from dcnn.results.records import Table

if TYPE_CHECKING:
  class ConfigDict(Any):
    """For the type checker: the leaves of a ConfigDict have no static types."""
else:
  ConfigDict = ml_collections.ConfigDict

# Parts of a configuration that an arm may change; the rest is the same for all arms.
ARM_KEYS = ("labels", "activation", "init", "model", "loss", "optimizer", "batch_size")

MODELS = {
    "SchNet": ("features", "blocks", "radial", "cutoff"),
    "MLP": ("hidden",),
}
INITS = ("plain", "init_matched", "variance_preserving")
SPLITS = ("random", "blocks")
DIVERGENCE_POLICIES = ("record", "stop")
MOST = 2**31 - 1  # whole numbers are int32 on the device
MOST_SEEDS = 10_000  # more is a seed mistaken for their number
MOST_ARMS = 1_000  # each may be a program of its own
MOST_RUNS = 20_000  # of all arms together
MOST_POWER = 16  # of an activation; float32 keeps the sixteenth powers of 0.004 to 250
# Batches are drawn for a whole chunk at a time: their configurations, as numbers of frames.
MOST_DRAWN = 10_000_000
# Of what an arm reads; networks have limits of their own.
LIMITS: Mapping[str, tuple[int | float, int | float]] = {"activation.power": (1, MOST_POWER)}
# Sizes of numbers other than 0: on the device they are float32, which ends at 1e-38 and 1e38.
SMALLEST, LARGEST = 1e-30, 1e30


def default() -> ConfigDict:
  """The base configuration; experiments start from it and change a few lines."""
  config = ConfigDict()
  config.experiment = "experiment"
  config.question = ""  # stands at the head of the report

  config.dataset = "ethanol"  # an embedded molecule, or the path of a file
  config.test_dataset = ""  # a second file to test on, where data come already divided
  config.data = ConfigDict()
  config.data.units = ""  # for files that do not say, e.g. kcal/mol/angstrom
  config.data.energy_key = ""  # where a file does not use the usual names
  config.data.forces_key = ""
  config.data.positions_key = ""
  config.data.species_key = ""
  config.data.format = ""  # npz, extxyz or one of ASE's, where the name of the file does not tell
  # Frames without forces: refuse them, skip them, use their energies alone, or take single atoms
  # as references for the energies of their elements.
  config.data.incomplete = "refuse"
  config.data.drop_repeated = False  # of equal configurations keep the first
  config.data.check_units = True  # refuse labels outside what quantum chemistry gives

  config.split = ConfigDict()
  config.split.method = "random"  # or blocks: contiguous, in the order of the file
  config.split.train = 900
  config.split.valid = 100
  config.split.test = config_dict.placeholder(int)  # None: all the rest
  config.split.gap = 0  # frames left out between blocks
  config.split.seed = 0
  config.split.per_seed = False  # True: each seed has its own random split

  config.labels = "power_of_ten"  # a scheme of dcnn.labels, or SHIFT/SCALE, e.g. mean/force_rms

  config.activation = ConfigDict()
  config.activation.name = "irelu"
  config.activation.c = 0.5  # of irelu
  config.activation.offset = 0.0  # of irelu
  config.activation.negative_slope = 0.01  # of leaky_relu and its integral
  config.activation.power = 2  # of repu
  config.activation.where = "everywhere"  # or output_block, with silu elsewhere
  config.init = "plain"  # or init_matched, variance_preserving

  config.model = ConfigDict()
  config.model.name = "SchNet"
  config.model.features = 64
  config.model.blocks = 3
  config.model.radial = 32
  config.model.cutoff = 5.0  # angstrom
  config.model.hidden = (64, 64)  # of MLP
  config.model.normaliser = "none"  # or layer

  config.loss = ConfigDict()
  config.loss.energy = "l1"
  config.loss.forces = "l1"
  config.loss.energy_weight = 1.0  # 1 / eV for l1
  config.loss.force_weight = 30.0  # angstrom / eV for l1
  config.loss.energy_delta = 0.1  # eV, of huber
  config.loss.force_delta = 0.1  # eV/angstrom, of huber

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 1e-3
  config.optimizer.schedule = "cosine"  # or constant, linear; after the warm-up
  config.optimizer.warmup = 0  # steps
  config.optimizer.weight_decay = 0.0  # decoupled, as in AdamW
  config.optimizer.clip_norm = 0.0  # of the whole gradient; 0: no clipping
  config.optimizer.eps = 1e-8
  config.optimizer.ema_decay = 0.0  # moving average of the parameters; 0: none

  config.steps = 2000
  config.batch_size = 10
  config.chunk = 100  # steps between two validations
  config.patience = 0  # validations without a better one, after which a run ends; 0: never
  config.on_divergence = "record"  # the run, and go on with the others; or stop the sweep
  config.seeds = config_dict.placeholder(object)  # a number n for 0 ... n - 1, or a list
  config.seeds = 10

  config.arms = ({},)
  config.tables = ()  # {title, baseline, arms}; by default all arms against the first

  config.tuning = ConfigDict()
  config.tuning.learning_rates = ()  # none: no tuning
  config.tuning.seeds = ()  # disjoint from config.seeds

  # GB that a launch may take on a device; None: 80 % of it. Data that take more than half of that
  # are sent from the host while it trains.
  config.max_memory = config_dict.placeholder(float)
  config.devices_per_run = 1  # that share its batch: where runs are few, or too large for one
  config.checkpoint_every = 30.0  # seconds, at most, of work lost if the machine dies
  return config.lock()


def seeds(config: ConfigDict) -> tuple[int, ...]:
  """The seeds as a tuple: n means 0 ... n - 1."""
  return _integers(config.seeds, "seeds")


def tuning_seeds(config: ConfigDict) -> tuple[int, ...]:
  """The seeds that the learning rate is chosen with."""
  return _integers(config.tuning.seeds, "tuning.seeds")


def _integers(value: Any, name: str) -> tuple[int, ...]:
  listed = range(value) if _is_integer(value) else value
  if not isinstance(listed, tuple | list | range):
    raise ValueError(f"{name} must be a whole number or a list of them, got {value!r}")
  require(not listed[MOST_SEEDS:], f"{name} asks for more than {MOST_SEEDS} runs of each arm, got "
          f"{value!r}; a seed of that number is listed as in ({value!r},)")
  if not all(map(_is_integer, listed)):
    raise ValueError(f"{name} must be a whole number or a list of them, got {value!r}")
  chosen = tuple(int(seed) for seed in listed)
  require(bool(chosen), f"{name} must name at least one seed, got {value!r}")
  for seed in chosen:
    require(0 <= seed < 2**32, f"{name} must lie between 0 and 2**32 - 1, got {seed}")
  repeated = {seed for seed, times in collections.Counter(chosen).items() if times > 1}
  require(not repeated, f"{name} lists {sorted(repeated)} more than once")
  return chosen


def _is_integer(value: Any) -> bool:
  return isinstance(value, int | np.integer) and not isinstance(value, bool)


def arm_name(overrides: Mapping[str, Any]) -> str:
  """What differs, in short: words by themselves, numbers with the last part of their key."""
  parts = [
      value if isinstance(value, str) and not key.startswith("loss.")  # l1 of energy or forces?
      else f"{key.rpartition('.')[2]}={value}" for key, value in overrides.items()]
  return ",".join(parts) or "base"


def arm_settings(config: ConfigDict) -> dict[str, ConfigDict]:
  """The full configuration of each arm, by name, in the order listed.

  Raises:
    ValueError: on an unknown key, one that arms may not change, or two arms of one name.
  """
  _require_mappings(config.arms, "arms", "{'activation.c': 0.1}")
  arms: dict[str, ConfigDict] = {}
  for overrides in config.arms:
    overrides = dict(overrides)
    name = arm_name(overrides)
    for key in overrides:
      if key.partition(".")[0] not in ARM_KEYS:
        raise ValueError(
            f"arm {name!r} changes {key!r}: {_suggestion(key, flat(config))}arms may change "
            f"{', '.join(ARM_KEYS)}; the rest is the same for all")
    require(name not in arms, f"arm {name!r} is listed twice")
    arms[name] = with_overrides(config, overrides)
  return arms


def effective(config: ConfigDict) -> dict[str, Any]:
  """The settings of an arm that its program reads, dotted; the names in it must be valid.

  The constant of IReLU is not among them where the activation is SiLU, and so on.
  """
  activation, model = config.activation, config.model
  read = {f"activation.{name}" for name in (
      "name", "where", *ACTIVATIONS[activation.name].parameters)}
  read |= {f"model.{name}" for name in ("name", "normaliser", *MODELS[model.name])}
  unread = {f"loss.{key}_delta" for key, form in (
      ("energy", config.loss.energy), ("force", config.loss.forces)) if form != "huber"}
  return {
      key: value for key, value in flat(config).items()
      if key.partition(".")[0] in ARM_KEYS and key not in unread
      and (key in read or not key.startswith(("activation.", "model.")))}


def _require_distinct(arms: Mapping[str, ConfigDict]) -> None:
  described = {name: str(sorted(effective(arm).items())) for name, arm in arms.items()}
  for name, text in described.items():
    twin = next(other for other in described if described[other] == text)
    require(twin == name, f"arms {twin!r} and {name!r} do the same: remove one, or see whether the "
            "network, activation or loss reads what they change")


def tables(config: ConfigDict) -> tuple[Table, ...]:
  """The comparisons of the report; by default all arms against the first."""
  _require_mappings(config.tables, "tables", "{'title': ..., 'baseline': ..., 'arms': (...)}")
  names = tuple(arm_name(dict(overrides)) for overrides in config.arms)
  if not config.tables:
    return (Table("All arms", names[0], names),) if len(names) > 1 else ()
  for table in config.tables:
    require({"title", "baseline", "arms"} <= set(table) and bool(table["arms"])
            and isinstance(table["arms"], tuple | list)
            and all(isinstance(text, str) for text in (
                table["title"], table["baseline"], *table["arms"])),
            f"a table needs a title, a baseline and arms, got {dict(table)}")
  return tuple(Table(t["title"], t["baseline"], tuple(t["arms"])) for t in config.tables)


def flat(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
  """Dotted keys and values."""
  leaves: dict[str, Any] = {}
  for key, value in config.items():
    nested = isinstance(value, ConfigDict)
    leaves |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
  return leaves


def to_dict(config: ConfigDict) -> dict:
  """Plain dictionaries, lists and numbers, ready for JSON."""
  return {key: _plain(config[key]) for key in config}


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping | ConfigDict):
    return {key: _plain(value[key]) for key in value}
  if isinstance(value, np.generic):
    return value.item()
  return [_plain(item) for item in value] if isinstance(value, tuple | list | range) else value


def with_overrides(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
  """A copy with dotted keys replaced.

  Raises:
    ValueError: on an unknown key or a value of another type.
  """
  changed = copy.deepcopy(config)
  try:
    changed.update_from_flattened_dict(dict(overrides))
  except (KeyError, AttributeError) as error:
    unknown = next((key for key in overrides if key not in flat(config)), "")
    raise ValueError(
        f"unknown key {unknown!r}: {_suggestion(unknown, flat(config))}") from error
  except (TypeError, ValueError, OverflowError) as error:
    raise ValueError(f"arm {arm_name(overrides)!r}: {error}") from error
  return changed


def _require_mappings(value: Any, name: str, example: str) -> None:
  listed = isinstance(value, tuple | list) and all(
      isinstance(item, Mapping | ConfigDict) and all(isinstance(key, str) for key in item)
      for item in value)
  require(listed, f"{name} must be a list of dictionaries such as {example}, got {value!r}")


def _suggestion(name: str, known: Iterable[str]) -> str:
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f"did you mean {close[0]!r}? " if close else ""


def require(condition: bool, message: str) -> None:
  """Raises a ValueError with the message unless the condition holds."""
  if not condition:
    raise ValueError(message)


def _require_choice(value: Any, known: Iterable[str], what: str) -> None:
  known = tuple(known)
  if value not in known:
    raise ValueError(
        f"unknown {what} {value!r}: {_suggestion(str(value), known)}known are {', '.join(known)}")


def validate(config: ConfigDict) -> None:
  """Checks all that can be checked without data.

  Raises:
    ValueError: in one line, with the valid choices and the closest match.
  """
  _require_types(config)
  chosen = seeds(config)
  require(config.split.valid != 0,
          "split.valid is 0, but validation chooses the checkpoint of a run: give it some frames")
  for key in ("steps", "chunk", "split.train", "split.valid", "devices_per_run"):
    _require_positive(flat(config)[key], key, whole=True)
  _require_choice(config.split.method, SPLITS, "split.method")
  _require_choice(config.on_divergence, DIVERGENCE_POLICIES, "on_divergence")
  require(_is_integer(config.patience) and config.patience >= 0,
          f"patience must be a whole number of validations, 0 for none, got {config.patience!r}")
  _require_positive(config.checkpoint_every, "checkpoint_every")
  require(not config.test_dataset or config.split.test is None,
           "split.test is given and so is test_dataset, whose frames are the test split: drop one")
  require(not (config.split.per_seed and config.split.method == "blocks"),
           "split.per_seed needs split.method=random: blocks are the same for every seed")
  require(not config.split.gap or config.split.method == "blocks",
          "split.gap is for split.method=blocks; a random split has no gap")
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
      _require_choice(name, arms, f"arm in table {table.title!r}:")
  if config.max_memory is not None:
    _require_positive(config.max_memory, "max_memory")
  _validate_tuning(config, chosen)


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


def steps_per_chunk(config: ConfigDict) -> int:
  """Steps between two validations; there is one after the last step anyway."""
  return min(config.chunk, config.steps)


def _require_types(config: ConfigDict) -> None:
  """Every setting has the type of its default; a ConfigDict lets None pass, for one."""
  found, known = flat(config), flat(default())
  unknown = next((key for key in found if key not in known), None)
  if unknown is not None:  # to look for what is close takes time, also where nothing is wrong
    raise ValueError(f"unknown key {unknown!r}: {_suggestion(unknown, known)}keep the settings of "
                     "configs.default()")
  for key, value in known.items():
    require(key in found, f"{key} is missing: keep the settings of configs.default()")
    kind = _OPTIONAL.get(key, type(value))
    absent = key in _OPTIONAL and found[key] is None
    require(absent or key == "seeds" or _is_of(found[key], kind),
            f"{key} must be of type {kind.__name__}, got {found[key]!r}")
    require(_is_utf8(found[key]), f"{key} is not UTF-8 text, got {found[key]!r}: files and "
            "experiments need such names to be written down")


_OPTIONAL = {"split.test": int, "max_memory": float}


def _is_of(value: Any, kind: type) -> bool:
  if kind is int:
    return _is_integer(value)
  if kind is float:
    return isinstance(value, int | float) and not isinstance(value, bool)
  return isinstance(value, tuple | list if kind is tuple else kind)


def _is_utf8(value: Any) -> bool:
  """Whether text can be written; other bytes of a command line arrive as surrogates."""
  return not isinstance(value, str) or not any("\ud800" <= mark <= "\udfff" for mark in value)


def _validate_tuning(config: ConfigDict, reported: Sequence[int]) -> None:
  if not config.tuning.learning_rates:
    require(not config.tuning.seeds, "tuning.seeds without tuning.learning_rates tunes nothing")
    return
  require(not any("optimizer.learning_rate" in arm for arm in config.arms),
          "tuning.learning_rates would replace the learning rates that arms set: drop one")
  require(not config.split.per_seed,
          "tuning needs split.per_seed=False: it would see test frames of other seeds")
  for rate in config.tuning.learning_rates:
    _require_positive(rate, "tuning.learning_rates")
  rates = [f"{rate:g}" for rate in config.tuning.learning_rates]
  require(len(set(rates)) == len(rates), f"tuning.learning_rates lists {', '.join(rates)}, of "
          "which some are the same to six digits: drop them")
  _require_runs(len(config.arms) * len(rates), len(tuning_seeds(config)), "tuning.seeds")
  common = sorted(set(tuning_seeds(config)) & set(reported))
  require(not common, f"tuning.seeds and seeds share {common}: the choice would see the test")


def _validate_arm(config: ConfigDict) -> None:
  _require_types(config)
  activation, model, loss, optimizer = (
      config.activation, config.model, config.loss, config.optimizer)
  labels.rules(config.labels)
  _require_choice(activation.name, ACTIVATIONS, "activation")
  _require_choice(activation.where, ("everywhere", "output_block"), "activation.where")
  _require_choice(config.init, INITS, "init")
  _require_choice(model.name, MODELS, "model")
  _require_choice(model.normaliser, models.NORMALISERS, "model.normaliser")
  _require_choice(loss.energy, losses.ENERGY_LOSSES, "loss.energy")
  _require_choice(loss.forces, losses.FORCE_LOSSES, "loss.forces")
  _require_choice(optimizer.schedule, SCHEDULES, "optimizer.schedule")
  _require_positive(config.batch_size, "batch_size", whole=True)
  most = MOST_DRAWN // config.batch_size
  require(steps_per_chunk(config) <= max(1, most),
          f"chunk={config.chunk:,} steps of batch_size={config.batch_size:,} are drawn at once, "
          f"and {MOST_DRAWN:,} configurations are the most: lower chunk to {max(1, most):,}")
  require(all(map(_is_integer, model.hidden)),
          f"model.hidden must list whole numbers, got {str(model.hidden)[:60]}")
  network = {f"model.{key}": limits
             for key, limits in getattr(models, model.name).LIMITS.items()}
  read = effective(config)
  for key, (least, most) in {**LIMITS, **network}.items():
    if key in read:
      _require_within(read[key], key, least, most)
  _require_divisible(config.batch_size, config.devices_per_run)
  for key in ("activation.c", "loss.energy_delta", "loss.force_delta",
              "optimizer.learning_rate", "optimizer.eps"):
    _require_positive(flat(config)[key], key)
  for key in ("activation.offset", "activation.negative_slope", "loss.energy_weight",
              "loss.force_weight", "optimizer.weight_decay", "optimizer.clip_norm",
              "optimizer.warmup"):
    value = flat(config)[key]
    size = abs(value) if key == "activation.offset" else value
    require(size == 0 or SMALLEST <= size <= LARGEST,
            f"{key} must be finite and not negative, got {value}; what is not 0 must lie within "
            f"{SMALLEST:.0e} and {LARGEST:.0e}")
  require(loss.energy_weight + loss.force_weight > 0,
           "loss.energy_weight and loss.force_weight are both 0: nothing would be trained")
  require(0 <= optimizer.ema_decay < 1 and bool(np.float32(optimizer.ema_decay) < 1),
          "optimizer.ema_decay must be at least 0 and below 1, also when rounded to float32, got "
          f"{optimizer.ema_decay}")
  require(optimizer.warmup < config.steps,
           f"optimizer.warmup ({optimizer.warmup}) must be below steps ({config.steps})")
  require(config.init != "init_matched" or activation.name == "irelu",
          f"init=init_matched is for irelu, whose constant it undoes, not {activation.name}")
  require(config.init != "init_matched" or activation.offset == 0,
          "init=init_matched needs activation.offset=0: weights scale an offset, too")
  require(model.name != "MLP" or not config.split.per_seed,
          "model=MLP needs split.per_seed=False: all runs share one scaling of its inputs")


def _require_divisible(batch_size: int, devices: int) -> None:
  near = max(devices, batch_size - batch_size % devices)
  require(batch_size % devices == 0,
          f"batch_size {batch_size} cannot be split over devices_per_run={devices}: take "
          f"batch_size={near}, or a devices_per_run that divides {batch_size}")


def _require_within(value: Any, key: str, least: int | float, most: int | float) -> None:
  """Makes sure that a number, or each of 1 to `MOST_LAYERS` numbers in a list, has its limits."""
  if isinstance(value, tuple | list):
    require(0 < len(value) <= MOST_LAYERS and all(
        _is_integer(each) and least <= each <= most for each in value),
            f"{key} must list 1 to {MOST_LAYERS} sizes from {least:,} to {most:,}, got "
            f"{textwrap.shorten(str(value), 60, placeholder=' ...')}")
  else:
    require(least <= value <= most, f"{key} must lie within {least:,} and {most:,}, got {value:,}")


def _require_positive(value: Any, key: str, whole: bool = False) -> None:
  kind = "whole number" if whole else "finite number"
  good = isinstance(value, int | float) and 0 < value < math.inf
  if not good or whole and not _is_integer(value):
    raise ValueError(f"{key} must be a {kind} above 0, got {value!r}")
  require(not whole or value <= MOST, f"{key} must be at most {MOST:,}, got {value:,}")
  require(SMALLEST <= value <= LARGEST,
          f"{key} must lie within {SMALLEST:.0e} and {LARGEST:.0e}, got {value!r}")
