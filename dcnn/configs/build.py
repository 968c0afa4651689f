"""From a checked configuration to a plan that runs: the one place where a string becomes an object.

Which settings of an arm are numbers that can share a compiled program, and which change the
program, is decided here, by `HYPERS`; the user never says.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from dcnn import data, labels, losses, models, optimizers
from dcnn.activations import ACTIVATIONS
from dcnn.base import Dataset, Labels, rounding, wording
from dcnn.configs.settings import (
  MODELS,
  ConfigDict,
  arm_settings,
  effective,
  flat,
  require,
  seeds,
  steps_per_chunk,
  tables,
)
from dcnn.sweeps import plans
from dcnn.sweeps.training import Program
from dcnn.tasks import forcefield

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
# Of larger molecules not all pairs lie within a cutoff (BUILD_NOTES.md has the figures).
LISTED_FROM = 20  # atoms
REFERENCE_C = 0.5  # the paper's constant, which init_matched arms are matched to


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

  Warns of what looks wrong; messages name settings as `data.units`, inside the prefixes that
  `data.options_under` gives.

  Raises:
    ValueError, OSError: naming the file and the fix.
  """
  options = config.data
  load_one = functools.partial(
      data.load, units=options.units or None, energy_key=options.energy_key or None,
      forces_key=options.forces_key or None, positions_key=options.positions_key or None,
      species_key=options.species_key or None, format=options.format or None,
      incomplete=options.incomplete, check_units=options.check_units)
  with wording.options_under("data."):
    dataset = load_one(config.dataset)
    if not config.test_dataset:
      return Sources(_without_repeats(config, dataset), 0)
    # References come with the training data; single atoms are no test of them.
    way = "skip" if options.incomplete == "references" else options.incomplete
    test = load_one(config.test_dataset, incomplete=way)
    data.check_test_set(dataset, test, scales=options.check_units)
  dataset = _without_repeats(config, dataset)
  joined = _without_repeats(config, data.join(dataset, test))
  require(len(joined) > len(dataset), f"all {len(test):,} frames of {config.test_dataset} are in "
          f"{config.dataset}, too: test on others, or set split.test instead of test_dataset")
  return Sources(joined, len(joined) - len(dataset))


def _without_repeats(config: ConfigDict, dataset: Dataset) -> Dataset:
  """The data, without repeated configurations where the user wants so; the first of each stays."""
  if not config.data.drop_repeated:
    return dataset
  kept = data.distinct(dataset)
  dropped = len(dataset) - len(kept)
  return dataclasses.replace(kept, summary=f"{kept.summary}; {dropped:,} repeated frames dropped")


def build(
    config: ConfigDict, sources: Sources, arms: Mapping[str, ConfigDict] | None = None
) -> plans.Plan:
  """The plan of an experiment.

  Args:
    config: valid.
    sources: what `load` gave.
    arms: full configuration of each arm; by default those of `arm_settings`.

  Returns:
    What `sweeps.run` takes.

  Raises:
    ValueError: if the splits or devices_per_run are impossible, a batch is larger than the training
      set, a label with a weight is the same in all training frames, or a network cannot take the
      molecules.
  """
  _require_devices(config.devices_per_run)
  arms = arm_settings(config) if arms is None else arms
  chosen = seeds(config)
  dataset = with_neighbours(sources.dataset, arms)
  common = None if config.split.per_seed else _splits(config, sources, chosen[0])
  splits = tuple(common or _splits(config, sources, seed) for seed in chosen)
  _require_equal_metrics(dataset, splits)
  for name, settings in arms.items():
    require(settings.batch_size <= config.split.train,
             f"arm {name!r}: batch_size {settings.batch_size} is larger than the "
             f"{config.split.train} training configurations: lower it or raise split.train")
    _require_varied_labels(name, settings, sources.dataset, splits)
    if sources.dataset.references and labels.rules(settings.labels)[0] != "atomic":
      warnings.warn(f"arm {name!r}: data.incomplete=references has no effect with "
                    f"labels={settings.labels}; take atomic_reference or atomic/SCALE",
                    stacklevel=2)
    _check_systems(settings, sources)
  return plans.Plan(
      name=config.experiment,
      dataset=dataset,
      arms=tuple(_arm(name, settings, dataset, splits) for name, settings in arms.items()),
      seeds=chosen,
      splits=splits,
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


def with_neighbours(dataset: Dataset, arms: Mapping[str, ConfigDict]) -> Dataset:
  """The data with neighbour lists, where they are periodic or large and a network has a cutoff.

  One list serves all arms: it reaches as far as the largest of their cutoffs.

  Args:
    dataset: float64.
    arms: full configuration of each.

  Raises:
    ValueError: if the neighbours of a frame cannot be listed.
  """
  systems = dataset.systems
  cutoffs = [settings.model.cutoff for settings in arms.values()
             if "cutoff" in MODELS[settings.model.name]]
  if not cutoffs or systems.cell is None and systems.species.shape[1] < LISTED_FROM:
    return dataset
  try:
    neighbours = data.neighbour_list(systems, max(cutoffs))
  except ValueError as error:
    raise ValueError(f"{dataset.name}, model.cutoff={max(cutoffs):g}: {error}") from error
  return dataclasses.replace(
      dataset, systems=systems._replace(neighbours=jax.tree.map(_narrowed, neighbours)))


def _narrowed(array: np.ndarray) -> np.ndarray:
  """Whole numbers in as few bytes as they need: lists are by far the longest data."""
  if not np.issubdtype(array.dtype, np.integer):
    return array
  largest = int(max(array.max(initial=0), -1 - array.min(initial=0)))
  return array.astype(np.min_scalar_type(-1 - largest))


def _splits(config: ConfigDict, sources: Sources, seed: int) -> data.Indices:
  try:
    with wording.options_under("data."):
      return _split_frames(config, sources, seed)
  except ValueError as error:
    raise ValueError(f"{config.dataset}: {error}") from error


def _split_frames(config: ConfigDict, sources: Sources, seed: int) -> data.Indices:
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
  require(len(indices.test) > 0, f"split leaves no test frames of {len(dataset)}: lower "
           f"split.train ({split.train}) or split.valid ({split.valid})")
  data.check_disjoint(dataset, indices)
  return indices


def _require_equal_metrics(dataset: Dataset, splits: Sequence[data.Indices]) -> None:
  """Errors of forces are compared over seeds, each of which must have some or none."""
  known = np.any(np.isfinite(np.asarray(dataset.labels.forces)), axis=(1, 2))
  for name in ("valid", "test"):
    some = [bool(np.any(known[getattr(indices, name)])) for indices in splits]
    require(len(set(some)) == 1, f"of some seeds no frame of the {name} split has forces, of "
            f"others some have: give split.{name} more frames, or set split.per_seed=False")


def _require_varied_labels(
    name: str, config: ConfigDict, dataset: Dataset, splits: Sequence[data.Indices]
) -> None:
  """A weighted label that is the same everywhere teaches nothing, and was hardly computed."""
  for indices in splits:
    energy, forces = (np.asarray(label[indices.train]) for label in dataset.labels)
    known = forces[np.isfinite(forces)]
    require(config.loss.force_weight == 0 or known.size > 0,
            f"{config.dataset}, arm {name!r}: none of the {len(forces)} training frames has "
            "forces; set loss.force_weight=0 to train on energies alone")
    spread = float(np.ptp(energy))
    require(config.loss.energy_weight == 0 or spread > rounding(energy),
            f"{config.dataset}, arm {name!r}: the energies of all {len(energy)} training frames "
            f"are {energy[0]:.10g} eV; set loss.energy_weight=0 to train on forces alone, or take "
            "frames that differ")
    require(config.loss.force_weight == 0 or bool(known.any()),
            f"{config.dataset}, arm {name!r}: all forces of the {len(forces)} training frames are "
            "zero; set loss.force_weight=0 to train on energies alone, or put forces into the file")


def warn_of_pitfalls(config: ConfigDict, arms: Mapping[str, ConfigDict]) -> None:
  """Warns of what can be run, and may not say what it seems to: kinks and confounded arms."""
  _warn_of_kinks(arms)
  _warn_of_confounding(config)


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
            stacklevel=3)


def _order(config: ConfigDict) -> float:
  record = ACTIVATIONS[config.activation.name]
  return record.order_at(**_parameters(config))


def _arm(
    name: str, config: ConfigDict, dataset: Dataset, splits: Sequence[data.Indices]
) -> plans.Arm:
  numbers = {hyper: float(flat(config)[key]) for hyper, key in HYPERS.items()}
  return plans.Arm(
      name=name,
      structure=_structure(config),
      make_program=functools.partial(_program, config, dataset, splits),
      hypers={**numbers, "init_gain": _init_gain(config)},
      fit_labels=functools.partial(_fit_labels, name, config.labels, dataset.references),
  )


def _fit_labels(
    name: str, scheme: str, references: Mapping[int, float], training: Labels, species: np.ndarray
) -> labels.LabelTransform:
  try:
    return labels.fit(scheme, training, species, references=references)
  except ValueError as error:
    raise ValueError(f"arm {name!r}, labels={scheme}: {error}") from error


def _structure(config: ConfigDict) -> str:
  """All settings of an arm that change its program, as text that can be compared."""
  numeric = (*HYPERS.values(), *_NUMERIC_CHOICES)
  structure = {key: value for key, value in effective(config).items() if key not in numeric}
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
  first, _ = plans.shared_data(dataset.take(np.arange(1)))  # a large set is not copied for it
  example = jax.tree.map(lambda array: array[0], first)
  task = forcefield.make_task(
      _make_model(config, dataset, splits), example,
      energy_loss=losses.ENERGY_LOSSES[config.loss.energy],
      force_loss=losses.FORCE_LOSSES[config.loss.forces],
      use_forces=switches["forces"])
  return Program(
      task, _make_optimizer(config), plans.take, config.batch_size, switches["average"],
      patience=config.patience * steps_per_chunk(config))


def _make_model(
    config: ConfigDict, dataset: Dataset, splits: Sequence[data.Indices]
) -> forcefield.MakeModel:
  """From hypers to the network of an arm."""
  record = ACTIVATIONS[config.activation.name]
  static = {name: config.activation[name] for name in record.static}
  traced = tuple(name for name in record.parameters if name not in record.static)
  network = models.resolve(config.model.name)
  options = {name: config.model[name] for name in network.settings}
  if network.statistics:
    # All seeds have the same training data, or `validate` has refused.
    options |= network.statistics(dataset.take(splits[0].train).systems)
  if "normaliser" in network.takes:
    options["normaliser"] = models.resolve_normaliser(config.model.normaliser)
  everywhere = config.activation.where == "everywhere"

  def make_model(hypers):
    parameters = {name: hypers[name] for name in traced}
    chosen = models.Nonlinearity(
        functools.partial(record.function, **static, **parameters), hypers["init_gain"])
    slots = ({"activation": chosen} if everywhere
             else {"activation": jax.nn.silu, "output_activation": chosen})
    return network.make(**slots, **options)

  return make_model


def _check_systems(config: ConfigDict, sources: Sources) -> None:
  """Makes sure that a network can take all frames, in messages that name the file."""
  network = models.resolve(config.model.name)
  if network.check is None:
    return
  own = len(sources.dataset) - sources.held_out
  try:
    network.check(sources.dataset.systems)
  except models.FrameError as error:
    if error.frame < own:
      raise ValueError(f"{config.dataset}: {error}") from error
    raise ValueError(
        f"{config.test_dataset}: {models.FrameError(error.frame - own, error.reason)}; the first "
        f"frame is that of {config.dataset}") from error
  except ValueError as error:
    raise ValueError(f"{config.dataset}: {error}") from error


def _make_optimizer(config: ConfigDict) -> Callable[[Mapping], optax.GradientTransformation]:
  """From hypers to Adam, with decoupled weight decay and clipping where they are asked for."""
  switches = _switches(config)
  return optimizers.make(
      "adam", steps=config.steps, schedule=config.optimizer.schedule,
      warmup=config.optimizer.warmup, clip=switches["clip_norm"],
      weight_decay=switches["weight_decay"])
