"""From a configuration to an experiment: the one place where a string becomes an object.

An arm is a dictionary of dotted keys and values that differ from the base configuration. Which of
them are numbers that can share a compiled program and which change the program is decided here,
by `HYPERS`; the user never says.
"""

import copy
import difflib
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax
from ml_collections import config_dict

from dcnn import data, labels, losses, models, provenance, sweeps
from dcnn.activations import ACTIVATIONS
from dcnn.base import Dataset, System
from dcnn.models import mlp
from dcnn.results import Result, Row, Table
from dcnn.tasks import forcefield
from dcnn.training import Program

ConfigDict = ml_collections.ConfigDict

# Numbers of an arm that enter the compiled program as arguments: hyper name -> dotted key.
HYPERS: Mapping[str, str] = {
    "c": "activation.c",
    "offset": "activation.offset",
    "negative_slope": "activation.negative_slope",
    "energy_weight": "loss.energy_weight",
    "force_weight": "loss.force_weight",
    "energy_delta": "loss.energy_delta",
    "force_delta": "loss.force_delta",
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "clip_norm": "optimizer.clip_norm",
    "eps": "optimizer.eps",
    "ema_decay": "optimizer.ema_decay",
}
# Keys that become numbers, too: `labels` a shift and a scale, `init` a gain.
_NUMERIC_CHOICES = ("labels", "init")
# Parts of a configuration that an arm may change; the rest is the same for all arms.
ARM_KEYS = ("labels", "activation", "init", "model", "loss", "optimizer", "batch_size")

MODELS = {
    "SchNet": ("features", "blocks", "radial", "cutoff"),
    "MLP": ("hidden",),
}
INITS = ("plain", "init_matched", "variance_preserving")
SPLITS = ("random", "blocks")
REFERENCE_C = 0.5  # the paper's constant, which init_matched arms are matched to


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
  config.seeds = config_dict.placeholder(object)  # a number n for 0 ... n - 1, or a list
  config.seeds = 10

  config.arms = ({},)
  config.tables = ()  # {title, baseline, arms}; by default all arms against the first

  config.tuning = ConfigDict()
  config.tuning.learning_rates = ()  # none: no tuning
  config.tuning.seeds = ()  # disjoint from config.seeds

  config.max_memory = config_dict.placeholder(float)  # GB a launch; None: 80 % of the device
  return config.lock()


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
    on_progress: Callable[[sweeps.Progress], None] = lambda progress: None,
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
  validate(config)
  sources = load(config)
  dataset = sources.dataset
  arms = arm_settings(config)
  tuning = _tune(config, sources, arms, on_progress) if config.tuning.learning_rates else {}
  if tuning:
    arms = {
        name: _with(settings, {"optimizer.learning_rate": tuning["chosen"][name]})
        for name, settings in arms.items()}
  plan = build(config, sources, arms)
  outcome = sweeps.run(plan, on_progress)
  record = {
      "config": to_dict(config),
      "tables": [table._asdict() for table in tables(config)],
      "dataset": {"name": dataset.name, "source": dataset.source, "checksum": dataset.checksum,
                  "frames": len(dataset)},
      "environment": provenance.environment(),
      "command": command,
      "timing": outcome.timing,
      **({"tuning": tuning} if tuning else {}),
  }
  result = Result(record, outcome.rows, outcome.history, tables(config), outcome.parity)
  return Finished(result, outcome.groups)


def sweep(
    config: ConfigDict,
    on_progress: Callable[[sweeps.Progress], None] = lambda progress: None,
) -> Result:
  """Runs an experiment and returns its result: the engine of the command line, for notebooks.

  Args:
    config: from `configs.default()`, changed.
    on_progress: called after every chunk.

  Returns:
    The result; `result.table(baseline=...)` compares its arms.

  Raises:
    ValueError: if the configuration is not valid.
  """
  return run(config, on_progress).result


def seeds(config: ConfigDict) -> tuple[int, ...]:
  """The seeds as a tuple: n means 0 ... n - 1."""
  return _integers(config.seeds, "seeds")


def _integers(value: Any, name: str) -> tuple[int, ...]:
  listed = range(value) if _is_integer(value) else value
  if not isinstance(listed, Sequence | range) or not all(map(_is_integer, listed)):
    raise ValueError(f"{name} must be a whole number or a list of them, got {value!r}")
  chosen = tuple(int(seed) for seed in listed)
  _require(bool(chosen), f"{name} must name at least one seed, got {value!r}")
  for seed in chosen:
    _require(0 <= seed < 2**32, f"{name} must lie between 0 and 2**32 - 1, got {seed}")
  repeated = {seed for seed in chosen if chosen.count(seed) > 1}
  _require(not repeated, f"{name} lists {sorted(repeated)} more than once")
  return chosen


def _is_integer(value: Any) -> bool:
  return isinstance(value, int | np.integer) and not isinstance(value, bool)


def arm_name(overrides: Mapping[str, Any]) -> str:
  """What differs, in short: words by themselves, numbers with the last part of their key."""
  parts = [
      value if isinstance(value, str) else f"{key.rpartition('.')[2]}={value}"
      for key, value in overrides.items()]
  return ",".join(parts) or "base"


def arm_settings(config: ConfigDict) -> dict[str, ConfigDict]:
  """The full configuration of each arm, by name, in the order listed.

  Raises:
    ValueError: on an unknown key, one that arms may not change, or two equal arms.
  """
  arms: dict[str, ConfigDict] = {}
  for overrides in config.arms:
    overrides = dict(overrides)
    name = arm_name(overrides)
    for key in overrides:
      if key.partition(".")[0] not in ARM_KEYS:
        raise ValueError(
            f"arm {name!r} changes {key!r}: {_suggestion(key, flat(config))}arms may change "
            f"{', '.join(ARM_KEYS)}; the rest is the same for all")
    _require(name not in arms, f"arm {name!r} is listed twice")
    arms[name] = _with(config, overrides)
  described = {name: str(sorted(flat(settings).items())) for name, settings in arms.items()}
  for name, text in described.items():
    twin = next(other for other in described if described[other] == text)
    _require(twin == name, f"arms {twin!r} and {name!r} have the same settings: remove one")
  return arms


def tables(config: ConfigDict) -> tuple[Table, ...]:
  """The comparisons of the report; by default all arms against the first."""
  names = tuple(arm_name(dict(overrides)) for overrides in config.arms)
  if not config.tables:
    return (Table("All arms", names[0], names),) if len(names) > 1 else ()
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
  def plain(value):
    if isinstance(value, Mapping | ConfigDict):
      return {key: plain(value[key]) for key in value}
    return [plain(item) for item in value] if isinstance(value, tuple | list | range) else value

  return plain(config)


def _with(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
  """A copy with dotted keys replaced, checked for names and types."""
  changed = copy.deepcopy(config)
  try:
    changed.update_from_flattened_dict(dict(overrides))
  except (KeyError, AttributeError) as error:
    unknown = next((key for key in overrides if key not in flat(config)), "")
    raise ValueError(
        f"unknown key {unknown!r}: {_suggestion(unknown, flat(config))}") from error
  except TypeError as error:
    raise ValueError(f"arm {arm_name(overrides)!r}: {error}") from error
  return changed


def _suggestion(name: str, known: Iterable[str]) -> str:
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f"did you mean {close[0]!r}? " if close else ""


def _require(condition: bool, message: str) -> None:
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
  chosen = seeds(config)
  for key in ("steps", "chunk", "split.train", "split.valid"):
    _require_positive(flat(config)[key], key, whole=True)
  _require_choice(config.split.method, SPLITS, "split.method")
  _require(not config.test_dataset or config.split.test is None,
           "split.test is given and so is test_dataset, whose frames are the test split: drop one")
  _require(not (config.split.per_seed and config.split.method == "blocks"),
           "split.per_seed needs split.method=random: blocks are the same for every seed")
  _require(len(config.arms) > 0, "arms must list at least one dictionary; {} is the base")
  arms = arm_settings(config)
  for name, settings in arms.items():
    try:
      _validate_arm(settings)
    except ValueError as error:
      raise ValueError(f"arm {name!r}: {error}" if len(arms) > 1 else str(error)) from error
  for table in tables(config):
    for name in (table.baseline, *table.arms):
      _require_choice(name, arms, f"arm in table {table.title!r}:")
  if config.max_memory is not None:
    _require_positive(config.max_memory, "max_memory")
  _validate_tuning(config, chosen)


def _validate_tuning(config: ConfigDict, reported: Sequence[int]) -> None:
  if not config.tuning.learning_rates:
    return
  for rate in config.tuning.learning_rates:
    _require_positive(rate, "tuning.learning_rates")
  common = sorted(set(_integers(config.tuning.seeds, "tuning.seeds")) & set(reported))
  _require(not common, f"tuning.seeds and seeds share {common}: the choice would see the test")


def _validate_arm(config: ConfigDict) -> None:
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
  _require_choice(optimizer.schedule, _SCHEDULES, "optimizer.schedule")
  for key in ("batch_size", "model.features", "model.blocks", "activation.power"):
    _require_positive(flat(config)[key], key, whole=True)
  for key in ("activation.c", "model.cutoff", "loss.energy_delta", "loss.force_delta",
              "optimizer.learning_rate", "optimizer.eps"):
    _require_positive(flat(config)[key], key)
  for key in ("activation.offset", "activation.negative_slope", "loss.energy_weight",
              "loss.force_weight", "optimizer.weight_decay", "optimizer.clip_norm",
              "optimizer.warmup"):
    value = flat(config)[key]
    _require(math.isfinite(value) and value >= 0 or key == "activation.offset" and
             math.isfinite(value), f"{key} must be finite and not negative, got {value}")
  _require(loss.energy_weight + loss.force_weight > 0,
           "loss.energy_weight and loss.force_weight are both 0: nothing would be trained")
  _require(0 <= optimizer.ema_decay < 1,
           f"optimizer.ema_decay must be at least 0 and below 1, got {optimizer.ema_decay}")
  _require(optimizer.warmup < config.steps,
           f"optimizer.warmup ({optimizer.warmup}) must be below steps ({config.steps})")
  _require(model.radial >= 2, f"model.radial must be at least 2, got {model.radial}")
  _require(len(model.hidden) > 0 and all(_is_integer(n) and n > 0 for n in model.hidden),
           f"model.hidden must list positive sizes, got {model.hidden}")
  _require(config.init != "init_matched" or activation.name == "irelu",
           f"init=init_matched is for irelu, whose constant it undoes, not {activation.name}")


def _require_positive(value: Any, key: str, whole: bool = False) -> None:
  kind = "whole number" if whole else "finite number"
  good = isinstance(value, int | float) and math.isfinite(value) and value > 0
  if not good or whole and not _is_integer(value):
    raise ValueError(f"{key} must be a {kind} above 0, got {value!r}")


class Sources(NamedTuple):
  """The data of an experiment.

  Attributes:
    dataset: all frames.
    held_out: how many of them, at the end, came from `test_dataset` and are the test split.
  """

  dataset: Dataset
  held_out: int


def load(config: ConfigDict) -> Sources:
  """The data of a configuration.

  Raises:
    ValueError, OSError: naming the file and the fix.
  """
  options = config.data
  load_one = functools.partial(
      data.load, units=options.units or None, energy_key=options.energy_key or None,
      forces_key=options.forces_key or None, check_units=options.check_units)
  dataset = load_one(config.dataset)
  if not config.test_dataset:
    return Sources(dataset, 0)
  test = load_one(config.test_dataset)
  return Sources(data.join(dataset, test), len(test))


def build(
    config: ConfigDict, sources: Sources, arms: Mapping[str, ConfigDict] | None = None
) -> sweeps.Plan:
  """The plan of an experiment.

  Args:
    config: valid.
    sources: what `load` gave.
    arms: full configuration of each arm; by default those of `arm_settings`.

  Returns:
    What `sweeps.run` takes.

  Raises:
    ValueError: if the splits are impossible or a batch is larger than the training set.
  """
  arms = arm_settings(config) if arms is None else arms
  chosen = seeds(config)
  dataset = sources.dataset
  splits = tuple(_splits(config, sources, seed) for seed in chosen)
  for name, settings in arms.items():
    _require(settings.batch_size <= config.split.train,
             f"arm {name!r}: batch_size {settings.batch_size} is larger than the "
             f"{config.split.train} training configurations")
  _warn_of_kinks(arms)
  return sweeps.Plan(
      name=config.experiment,
      dataset=dataset,
      arms=tuple(_arm(name, settings, dataset, splits) for name, settings in arms.items()),
      seeds=chosen,
      splits=splits,
      steps=config.steps,
      chunk=min(config.chunk, config.steps),
      max_memory=None if config.max_memory is None else config.max_memory * 1e9,
  )


def _splits(config: ConfigDict, sources: Sources, seed: int) -> data.Indices:
  split, (dataset, held_out) = config.split, sources
  test = 0 if held_out else split.test
  sizes = {"train": split.train, "valid": split.valid, "test": test}
  available = len(dataset) - held_out
  if split.method == "blocks":
    indices = data.block_indices(available, gap=split.gap, **sizes)
  else:
    own = seed if split.per_seed else split.seed
    indices = data.split_indices(available, seed=own, **sizes)
  if held_out:
    indices = indices._replace(test=np.arange(available, len(dataset)))
  _require(len(indices.test) > 0, f"split leaves no test frames of {len(dataset)}: lower "
           f"split.train ({split.train}) or split.valid ({split.valid})")
  data.check_disjoint(dataset, indices)
  return indices


def _warn_of_kinks(arms: Mapping[str, ConfigDict]) -> None:
  """Training on forces needs one continuous derivative (methods: the order rule)."""
  rough = sorted({
      settings.activation.name for settings in arms.values()
      if settings.loss.force_weight > 0 and _order(settings) < 1})
  if rough:
    warnings.warn(
        f"{', '.join(rough)}: forces of this activation jump, and the gradient of the force loss "
        "misses the jumps; use its integral (irelu for relu) or a smooth activation",
        stacklevel=3)


def _order(config: ConfigDict) -> float:
  record = ACTIVATIONS[config.activation.name]
  return record.order_at(**_parameters(config))


def _arm(
    name: str, config: ConfigDict, dataset: Dataset, splits: Sequence[data.Indices]
) -> sweeps.Arm:
  numbers = {hyper: float(flat(config)[key]) for hyper, key in HYPERS.items()}
  return sweeps.Arm(
      name=name,
      structure=_structure(config),
      make_program=functools.partial(_program, config, dataset, splits),
      hypers={**numbers, "init_gain": _init_gain(config)},
      fit_labels=functools.partial(labels.fit, config.labels),
  )


def _structure(config: ConfigDict) -> str:
  """All settings of an arm that change its program, as text that can be compared."""
  numeric = (*HYPERS.values(), *_NUMERIC_CHOICES)
  structure = {
      key: value for key, value in flat(config).items()
      if key.partition(".")[0] in ARM_KEYS and key not in numeric}
  return str(sorted(structure.items()) + sorted(_switches(config).items()))


def _switches(config: ConfigDict) -> dict[str, bool]:
  """Parts of the program that a zero leaves out."""
  return {
      "forces": config.loss.force_weight > 0,
      "weight_decay": config.optimizer.weight_decay > 0,
      "clip_norm": config.optimizer.clip_norm > 0,
      "average": config.optimizer.ema_decay > 0,
  }


def _parameters(config: ConfigDict) -> dict[str, Any]:
  """The parameters that the arm's activation takes."""
  return {
      name: config.activation[name] for name in ACTIVATIONS[config.activation.name].parameters}


def _init_gain(config: ConfigDict) -> float:
  """Factor on the initial weights that read the activation.

  Weights that read c relu(x)^2 are divided by c / 0.5 in an `init_matched` arm, which makes its
  network at initialisation the same function as that of c = 0.5.
  """
  if config.init == "init_matched":
    return REFERENCE_C / config.activation.c
  if config.init == "variance_preserving":
    return float(ACTIVATIONS[config.activation.name].gain(**_parameters(config)))
  return 1.0


def _program(config: ConfigDict, dataset: Dataset, splits: Sequence[data.Indices]) -> Program:
  switches = _switches(config)
  example = System(*(array[0] for array in sweeps.shared_data(dataset)[0]))
  task = forcefield.make_task(
      _make_model(config, dataset, splits), example,
      energy_loss=losses.ENERGY_LOSSES[config.loss.energy],
      force_loss=losses.FORCE_LOSSES[config.loss.forces],
      use_forces=switches["forces"])
  return Program(
      task, _make_optimizer(config), sweeps.take, config.batch_size, switches["average"])


def _make_model(
    config: ConfigDict, dataset: Dataset, splits: Sequence[data.Indices]
) -> forcefield.MakeModel:
  """From hypers to the network of an arm."""
  record = ACTIVATIONS[config.activation.name]
  static = {name: config.activation[name] for name in record.static}
  traced = tuple(name for name in record.parameters if name not in record.static)
  model = config.model
  options = {name: model[name] for name in MODELS[model.name]}
  if model.name == "MLP":
    _require_one_molecule(dataset)
    # Of the first seed's training data: an input scaling, shared by all runs of the group.
    systems = dataset.take(splits[0].train).systems
    mean, deviation = mlp.descriptor_statistics(systems)
    options |= {"descriptor_mean": mean, "descriptor_deviation": deviation}

  def make_model(hypers):
    parameters = {name: hypers[name] for name in traced}
    return getattr(models, model.name)(
        activation=functools.partial(record.function, **static, **parameters),
        normaliser=models.NORMALISERS[model.normaliser],
        where=config.activation.where,
        init_gain=hypers["init_gain"],
        **options)

  return make_model


def _require_one_molecule(dataset: Dataset) -> None:
  species = dataset.systems.species
  _require(bool((species == species[0]).all()) and bool((species > 0).all()),
           f"model=MLP is for one fixed molecule and {dataset.name} holds several: take SchNet")


def _cosine(steps: int) -> optax.Schedule:
  return optax.cosine_decay_schedule(1.0, steps)


def _linear(steps: int) -> optax.Schedule:
  return optax.linear_schedule(1.0, 0.0, steps)


def _constant(steps: int) -> optax.Schedule:
  del steps
  return optax.constant_schedule(1.0)


_SCHEDULES = {"cosine": _cosine, "linear": _linear, "constant": _constant}


def _make_optimizer(config: ConfigDict) -> Callable[[Mapping], optax.GradientTransformation]:
  """From hypers to Adam, with decoupled weight decay and clipping where they are asked for."""
  switches = _switches(config)
  warmup = config.optimizer.warmup
  schedule = _SCHEDULES[config.optimizer.schedule](config.steps - warmup)
  if warmup:
    schedule = optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), schedule], [warmup])

  def make_optimizer(hypers):
    clip = optax.clip_by_global_norm(hypers["clip_norm"])
    decay = optax.add_decayed_weights(hypers["weight_decay"])
    return optax.chain(
        *([clip] if switches["clip_norm"] else []),
        optax.scale_by_adam(eps=hypers["eps"]),
        *([decay] if switches["weight_decay"] else []),
        optax.scale_by_schedule(schedule),
        optax.scale(-hypers["learning_rate"]))

  return make_optimizer


def _tune(
    config: ConfigDict,
    sources: Sources,
    arms: Mapping[str, ConfigDict],
    on_progress: Callable[[sweeps.Progress], None],
) -> dict:
  """Chooses a learning rate for each arm on validation data, by the same grid and seeds for all.

  Returns:
    `learning_rates`, `seeds`, `scores` (of each arm and rate: geometric mean over seeds of the
    weighted validation errors; inf where a run diverged) and `chosen`.
  """
  rates = [float(rate) for rate in config.tuning.learning_rates]
  candidates = {
      _tuning_name(name, rate): _with(settings, {"optimizer.learning_rate": rate})
      for name, settings in arms.items() for rate in rates}
  tuning = _with(config, {})
  tuning.seeds = config.tuning.seeds
  outcome = sweeps.run(build(tuning, sources, candidates), on_progress)
  scores = {
      name: [
          _score(outcome.rows, _tuning_name(name, rate), settings) for rate in rates]
      for name, settings in arms.items()}
  chosen = {name: rates[int(np.argmin(values))] for name, values in scores.items()}
  return {"learning_rates": rates, "seeds": list(_integers(config.tuning.seeds, "tuning.seeds")),
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
