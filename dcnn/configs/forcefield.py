"""The settings of force fields, and what they make: data, splits, label transforms and tasks."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Shaped

from dcnn import activations, data, labels, losses, models, optimizers
from dcnn.base import Dataset, System, known_forces, objects, rounding, wording
from dcnn.base.measures import Measures
from dcnn.base.splits import Frames, Indices
from dcnn.base.text import first_line
from dcnn.configs import networks, penalties
from dcnn.configs.sections import Parts, Section
from dcnn.configs.settings import (
    ConfigDict,
    Setting,
    flat,
    naming,
    not_negative,
    positive,
    positive_whole,
    require,
)
from dcnn.models import dimenet, forcenet, gemnet, normalisers, radial
from dcnn.models.layers import MOST_LAYERS
from dcnn.tasks import forcefield
from dcnn.tasks.base import Fitted, Task
from dcnn.tasks.forcefield_metrics import FrameMetric
from dcnn.use.forcefields import LABELS, ForceField, scaled_energy
from dcnn.use.runs import Runs

SPLITS = ("random", "blocks", "published")
FieldsOfData = Callable[[Any], dict[str, Any]]  # of a `model.name`, see `_fields_of_data`


def _some_validation(value: Any, key: str) -> None:
  require(value != 0,
          f"{key} is 0, but validation chooses the checkpoint of a run: give it some frames")
  positive_whole(value, key)


def _size(name: str, meaning: str, kind: type = int) -> Setting:
  """A setting of networks that is the network's own default where nobody sets it."""
  own: dict[Any, list[str]] = {}
  for network in models.MODELS:
    defaults = models.resolve(network).defaults
    if name in defaults:
      own.setdefault(defaults[name], []).append(network)
  values = "; ".join(f"{value} in {', '.join(names)}" for value, names in own.items())
  return Setting(f"model.{name}", None, f"{meaning} None is the network's own: {values}.",
                 role="program", kind=kind, optional=True)


SETTINGS = (
    Setting("dataset", "ethanol",
            "The data: an embedded molecule, the path of a file, or a published set by name, such "
            "as rmd17/ethanol or qm9, which is fetched once."),
    Setting("test_dataset", "",
            "A second file to test on, where data come already divided; its frames are the test "
            "split."),
    Setting("data.units", "", "Units for files that do not say, such as kcal/mol/angstrom."),
    Setting("data.energy_key", "", "The name of the energies in a file that has its own."),
    Setting("data.forces_key", "", "The name of the forces in a file that has its own."),
    Setting("data.positions_key", "", "The name of the positions in a file that has its own."),
    Setting("data.species_key", "", "The name of the atomic numbers in a file that has its own."),
    Setting("data.format", "",
            "The format, npz, extxyz, qm9 or one of ASE, where the name of the file does not "
            "tell."),
    Setting("data.incomplete", "refuse",
            "Frames without forces: refuse them, skip them, use their energies alone, or take "
            "single atoms as references for the energies of their elements (references)."),
    Setting("data.drop_repeated", False, "Whether only the first of equal configurations is kept."),
    Setting("data.check_units", True,
            "Whether labels outside what quantum chemistry gives are refused."),
    Setting("split.method", "random",
            "How frames are divided: at random, in contiguous blocks in the order of the file, or "
            "as published with the data (rmd17), with validation frames drawn at random from the "
            "training frames.", choices=SPLITS),
    Setting("split.published", 1, "Which of the published splits: 1 to 5 for rmd17.",
            check=positive_whole),
    Setting("split.train", 900, "Training frames.", "frames", check=positive_whole),
    Setting("split.valid", 100, "Validation frames.", "frames", check=_some_validation),
    Setting("split.test", None, "Test frames; None for all the rest.", "frames", kind=int,
            optional=True),
    Setting("split.gap", 0, "Frames left out between blocks.", "frames"),
    Setting("split.seed", 0, "The seed of the random split."),
    Setting("split.per_seed", False, "Whether each seed has its own random split."),
    Setting("labels", "power_of_ten",
            "The label scaling: a scheme, SHIFT/SCALE such as mean/force_rms, one with parameters "
            "such as power_of_ten(exponent=6), or a label transform or fitting function.",
            choices=tuple(labels.SCHEMES), role="fitted", objects=True, explain=labels.meaning),
    Setting("model.name", "SchNet", "The network: a name, or a class of Flax modules.",
            choices=tuple(models.MODELS), role="program", objects=True),
    _size("features", "Size of the atom features."),
    _size("blocks", "Number of interaction blocks."),
    _size("radial", "Number of radial basis functions."),
    Setting("model.cutoff", 5.0, "Distance beyond which atoms do not interact.", "angstrom",
            role="program"),
    Setting("model.envelope", "smooth",
            "How messages end at the cutoff: smoothly enough for training on forces, or as in the "
            "network's paper (faithful; PaiNN, CGCNN, ForceNet).", choices=radial.ENVELOPES,
            role="program"),
    _size("bessel", "Number of spherical Bessel functions of each order."),
    _size("spherical", "Number of orders of the functions of angles."),
    _size("basis_features", "What the functions of distances and angles are reduced to."),
    _size("triplet_features", "Size of what a triplet of atoms passes on."),
    _size("bilinear_features", "Size of the sum over triplets."),
    _size("atom_features", "Size of the atom features, where features are those of edges."),
    _size("output_features", "Size of the output blocks, or of the head."),
    Setting("model.angles", "differentiated",
            "What forces see of the angles of DimeNetPlusPlus: all, or nothing (detached).",
            choices=dimenet.ANGLES, role="program", prefixed=True),
    Setting("model.scales", "fitted",
            "The scale factors of GemNetT: fitted at initialisation, or those of OC20.",
            choices=gemnet.SCALES, role="program", prefixed=True),
    _size("degree", "Largest degree of the harmonics that an atom receives."),
    _size("passed", "Largest degree of what an atom sends in later blocks."),
    _size("filter_features", "Size of the hidden layers of the filters."),
    _size("neighbours", "Usual number of neighbours of an atom.", float),
    _size("hidden", "Sizes of the hidden layers.", tuple),
    _size("output_layers", "Number of hidden layers of the head."),
    Setting("model.node_update", "described",
            "What a block of ForceNet adds to atoms: as described, or as the paper's code ran it.",
            choices=forcenet.NODE_UPDATES, role="program"),
    Setting("model.normaliser", "none",
            "The normalisation of features: a name, or a function that makes a layer.",
            choices=tuple(models.NORMALISERS), role="program", objects=True),
    Setting("loss.energy", "l1", "The penalty of energies: a name, or a function of residuals.",
            choices=tuple(losses.ENERGY_LOSSES), role="program", objects=True, prefixed=True),
    Setting("loss.forces", "l1", "The penalty of forces: a name, or a function of residuals.",
            choices=tuple(losses.FORCE_LOSSES), role="program", objects=True, prefixed=True),
    Setting("loss.energy_weight", 1.0, "The weight of the energy term.", "1/eV for l1",
            check=not_negative, role="number"),
    Setting("loss.force_weight", 30.0, "The weight of the force term.", "angstrom/eV for l1",
            check=not_negative, role="number"),
    Setting("loss.energy_delta", 0.1, "Where huber turns from a square into a line.", "eV",
            check=positive, role="number"),
    Setting("loss.force_delta", 0.1, "Where huber turns from a square into a line.", "eV/angstrom",
            check=positive, role="number"),
    Setting("metrics", (),
            "Metrics of one's own: functions (predicted, reference, species) of one configuration, "
            "or forcefield_metrics.FrameMetric records."),
)


class Sources(NamedTuple):
  """The data of an experiment.

  Attributes:
    dataset: All frames.
    held_out: How many of them, at the end, came from `test_dataset` and are the test split.
    published: The published split, where it is asked for.
  """

  dataset: Dataset
  held_out: int
  published: data.Published | None = None

  @property
  def summary(self) -> str:
    """What was read, in a line."""
    return self.dataset.summary

  @property
  def facts(self) -> dict[str, Any]:
    """What config.json says of the data."""
    dataset = self.dataset
    return {"name": dataset.name, "source": dataset.source, "checksum": dataset.checksum,
            "frames": len(dataset)}


def load(config: ConfigDict) -> Sources:
  """The data of a configuration.

  Warns of what looks wrong; messages name settings as `data.units`, inside the prefixes that
  `wording.options_under` gives.

  Raises:
    ValueError, OSError: naming the file and the fix.
  """
  options = config.data
  load_one = functools.partial(
      data.load, units=options.units or None, energy_key=options.energy_key or None,
      forces_key=options.forces_key or None, positions_key=options.positions_key or None,
      species_key=options.species_key or None, format=options.format or None,
      incomplete=options.incomplete, check_units=options.check_units)
  published = None
  if config.split.method == "published":  # before the data, which may take long
    published = data.published_split(config.dataset, config.split.published)
  with wording.options_under("data."):
    dataset = load_one(config.dataset)
    if not config.test_dataset:
      return Sources(_without_repeats(config, dataset), 0, published)
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
    config: ConfigDict, sources: Sources, arms: Mapping[str, ConfigDict], seeds: Sequence[int]
) -> Parts:
  """What the configuration makes of its data.

  Raises:
    ValueError: if the splits are impossible, a batch is larger than the training set, a label with
      a weight is the same in all training frames, or a network cannot take the molecules.
  """
  dataset = with_neighbours(sources.dataset, arms)
  common = None if config.split.per_seed else _splits(config, sources, seeds[0])
  splits = tuple(common or _splits(config, sources, seed) for seed in seeds)
  _require_equal_metrics(dataset, splits)
  for name, settings in arms.items():
    require(settings.batch_size <= config.split.train,
            f"arm {name!r}: batch_size {settings.batch_size} is larger than the "
            f"{config.split.train} training configurations: lower it or raise split.train")
    _require_varied_labels(name, settings, sources.dataset, splits)
    if sources.dataset.references and not labels.takes_references(settings.labels):
      warnings.warn(f"arm {name!r}: data.incomplete=references has no effect with "
                    f"labels={settings.labels}; take atomic_reference or atomic/SCALE",
                    stacklevel=2)
    _check_systems(config, sources, settings)
  fields = functools.cache(functools.partial(_fields_of_data, dataset, splits[0].train))
  # One of each: the arms of a sweep mostly have the same network.
  first_with: dict[str, str] = {}
  for name, settings in arms.items():
    first_with.setdefault(str(objects.describe(flat(settings.model))), name)
  for name in first_with.values():
    _check_shapes(name, arms[name], dataset, splits, fields)
  return Parts(
      problem=forcefield.make_problem(dataset, own_metrics(config)),
      splits=splits,
      make_task=functools.partial(_make_task, dataset, splits, fields),
      fit=functools.partial(
          _fit, dataset, functools.cache(functools.partial(_seen, dataset, splits)), fields))


def with_neighbours(dataset: Dataset, arms: Mapping[str, ConfigDict]) -> Dataset:
  """The data with neighbour lists, where they are periodic or large and a network reads lists.

  One list serves all arms: it reaches as far as the largest cutoff of those networks.

  Args:
    dataset: The configurations, float64.
    arms: The full configuration of each arm.

  Raises:
    ValueError: if the neighbours of a frame cannot be listed.
  """
  systems = dataset.systems
  networks_of = ((settings, models.resolve(settings.model.name)) for settings in arms.values())
  cutoffs = [float(settings.model.cutoff) for settings, network in networks_of
             if network.listed and "cutoff" in network.settings]
  if not cutoffs or not forcefield.needs_list(systems):
    return dataset
  try:
    neighbours = data.neighbour_list(systems, max(cutoffs))
  except ValueError as error:
    raise ValueError(f"{dataset.name}, model.cutoff={max(cutoffs):g}: {error}") from error
  return dataclasses.replace(
      dataset, systems=systems._replace(neighbours=jax.tree.map(_narrow, neighbours)))


def _narrow(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
  """Whole numbers in as few bytes as they need: lists are by far the longest data."""
  if not np.issubdtype(array.dtype, np.integer):
    return array
  largest = int(max(array.max(initial=0), -1 - array.min(initial=0)))
  return array.astype(np.min_scalar_type(-1 - largest))


def _splits(config: ConfigDict, sources: Sources, seed: int) -> Indices:
  try:
    with wording.options_under("data."):
      return _split_frames(config, sources, seed)
  except ValueError as error:
    raise ValueError(f"{config.dataset}: {error}") from error


def _split_frames(config: ConfigDict, sources: Sources, seed: int) -> Indices:
  split, (dataset, held_out, published) = config.split, sources
  test = 0 if held_out else split.test
  sizes = {"train": split.train, "valid": split.valid, "test": test}
  available = len(dataset) - held_out
  if split.method == "blocks":
    indices = data.block_indices(available, gap=split.gap, **sizes)
  elif published is not None:
    last = max(map(int, (*published.train, *published.test)))
    require(last < available, f"the published split has frame {last:,} of a file with "
            f"{available:,} frames: is it another file of this name?")
    indices = data.published_indices(published, seed=split.seed, **sizes)
  else:
    own = seed if split.per_seed else split.seed
    indices = data.split_indices(available, seed=own, **sizes)
  if held_out:
    indices = indices._replace(test=np.arange(available, len(dataset)))
  require(len(indices.test) > 0, f"split leaves no test frames of {len(dataset)}: lower "
          f"split.train ({split.train}) or split.valid ({split.valid})")
  data.check_disjoint(dataset, indices)
  return indices


def _require_equal_metrics(dataset: Dataset, splits: Sequence[Indices]) -> None:
  """Errors of forces are compared over seeds, each of which must have some or none."""
  forces, species = np.asarray(dataset.labels.forces), np.asarray(dataset.systems.species)
  known = np.any(known_forces(forces, species), axis=(1, 2))
  for name in ("valid", "test"):
    some = [bool(np.any(known[getattr(indices, name)])) for indices in splits]
    require(len(set(some)) == 1, f"of some seeds no frame of the {name} split has forces, of "
            f"others some have: give split.{name} more frames, or set split.per_seed=False")


def _require_varied_labels(
    name: str, config: ConfigDict, dataset: Dataset, splits: Sequence[Indices]
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


def _check_systems(config: ConfigDict, sources: Sources, settings: ConfigDict) -> None:
  """Makes sure that a network can take the systems; names the file of those that it cannot."""
  check_systems = models.resolve(settings.model.name).check
  if check_systems is None:
    return
  systems, own = sources.dataset.systems, len(sources.dataset) - sources.held_out
  try:
    check_systems(systems)
  except models.FrameError as error:
    if error.frame < own:
      raise ValueError(f"{config.dataset}: {error}") from error
    raise ValueError(
        f"{config.test_dataset}: {models.FrameError(error.frame - own, error.reason)}; the first "
        f"frame is that of {config.dataset}") from error
  except ValueError as error:
    raise ValueError(f"{config.dataset}: {error}") from error


def _seen(dataset: Dataset, splits: Sequence[Indices]) -> data.Domain:
  """What the training frames of all seeds have; one for all runs, which are saved together."""
  frames = np.unique(np.concatenate([indices.train for indices in splits]))
  return data.domain(jax.tree.map(lambda leaf: np.asarray(leaf)[frames], dataset.systems))


def _fit(
    dataset: Dataset, seen: Callable[[], data.Domain], fields: FieldsOfData, name: str,
    config: ConfigDict, train: Frames,
) -> Fitted:
  """Fits the label transform of an arm to its training labels, float64."""
  part = dataset.take(train)
  try:
    transform = labels.fit(
        config.labels, part.labels, part.systems.species, references=dataset.references)
  except ValueError as error:
    scheme = config.labels if isinstance(config.labels, str) else "this object"
    raise ValueError(f"arm {name!r}, labels={scheme}: {error}") from error
  fitted = forcefield.fit(dataset, transform)
  network = fields(config.model.name)
  return fitted._replace(kept=fitted.kept | {"domain": seen()._asdict()} | (
      {"network": network} if network else {}))


def _make_task(
    dataset: Dataset, splits: Sequence[Indices], fields: FieldsOfData, config: ConfigDict
) -> Task:
  return forcefield.make_task(
      _make_model(config, fields(config.model.name)), _example(dataset, splits),
      energy_penalty=penalties.make(config.loss.energy, losses.ENERGY_LOSSES, "energy"),
      force_penalty=penalties.make(config.loss.forces, losses.FORCE_LOSSES, "force"),
      use_forces=_switches(config)["forces"], own_metrics=own_metrics(config))


def _example(dataset: Dataset, splits: Sequence[Indices]) -> System:
  """A training configuration, as a program sees it: a network may fit something to it."""
  shared, _ = forcefield.shared_data(dataset, splits[0].train[:1])
  return jax.tree.map(lambda array: array[0], shared)


def _fields_of_data(dataset: Dataset, train: Frames, spec: Any) -> dict[str, Any]:
  """The fields of a network that follow from the data; arrays, to be kept with what is trained.

  Args:
    dataset: All configurations.
    train: Those of training.
    spec: The value of `model.name`.
  """
  network = models.resolve(spec)
  fields: dict[str, Any] = {}
  if network.statistics is not None:
    # All seeds have the same training data, or `check` has refused.
    fields |= network.statistics(dataset.take(train).systems)
  if "elements" in network.takes:
    species = np.asarray(dataset.systems.species)
    fields["elements"] = np.unique(species[species > 0])
  return fields


def _make_model(config: ConfigDict, fields_of_data: Mapping[str, Any]) -> forcefield.MakeModel:
  """From hyperparameters to the network of an arm."""
  network = models.resolve(config.model.name)
  options = {name: config.model[name] for name in network.settings if name in config.model}
  options |= fields_of_data
  if "elements" in network.takes:
    options["elements"] = tuple(np.asarray(options["elements"]).tolist())
  if "normaliser" in network.takes:
    options["normaliser"] = models.resolve_normaliser(config.model.normaliser)
  fields = networks.activation_fields(
      config, elsewhere=activations.resolve(network.elsewhere).function)

  def make_model(hypers: Mapping) -> Any:
    activations = fields(hypers)
    if "output_activation" not in network.takes:
      del activations["output_activation"]
    return network.make(**activations, **options)

  return make_model


def _check_shapes(
    name: str, config: ConfigDict, dataset: Dataset, splits: Sequence[Indices],
    fields: FieldsOfData,
) -> None:
  """Traces the network of an arm, so that what it refuses is told before anything is compiled.

  As `_require_statistics_can_serve`, also of parts of the user's own, which may keep statistics
  that nothing else tells of.
  """
  hypers = {**networks.parameters(config), "init_gain": networks.init_gain(config)}
  example = _example(dataset, splits)
  with naming(f"arm {name!r}"), naming(f"model.name={_name(config)}"):
    model = _make_model(config, fields(config.model.name))(hypers)
    variables = jax.eval_shape(model.init, jax.random.key(0), example)
  if normalisers.RUNNING not in variables:
    return
  _require_statistics_can_serve(config, f"the batch statistics of {_name(config)}")
  one = jax.tree.map(lambda array: array[None], example)
  try:
    jax.eval_shape(
        jax.vmap(functools.partial(model.apply, mutable=[normalisers.RUNNING]), (None, 0),
                 (0, None), axis_name=normalisers.SYSTEMS), variables, one)
  except Exception as error:  # the words of JAX are about vmap
    raise ValueError(
        f"arm {name!r}: the running statistics of {_name(config)} are not those of the whole "
        "batch: give its normaliser axis_name=normalisers.SYSTEMS, as in lambda: "
        "nn.BatchNorm(False, axis_name=normalisers.SYSTEMS), or take model.normaliser=batch "
        f"({first_line(error)})") from error


def _name(config: ConfigDict) -> str:
  return models.resolve(config.model.name).name


def own_metrics(config: ConfigDict) -> tuple[FrameMetric, ...]:
  """The metrics of one's own that a configuration lists."""
  return tuple(metric if isinstance(metric, FrameMetric) else FrameMetric(metric)
               for metric in config.metrics)


def _check(config: ConfigDict) -> None:
  """What must hold of the settings of an arm together."""
  split, loss = config.split, config.loss
  require(not config.test_dataset or split.test is None,
          "split.test is given and so is test_dataset, whose frames are the test split: drop one")
  require(not split.per_seed or split.method == "random",
          "split.per_seed needs split.method=random: blocks and published splits are the same for "
          "every seed")
  require(split.published == 1 or split.method == "published",
          "split.published is for split.method=published")
  if split.method == "published":
    require(not config.test_dataset, "test_dataset is given, and split.method=published says which "
            "frames are for testing: drop one")
    require(not config.data.drop_repeated and config.data.incomplete == "refuse",
            "split.method=published needs data.drop_repeated=False and data.incomplete=refuse: "
            "published are the numbers of frames of the whole file")
  require(not split.gap or split.method == "blocks",
          "split.gap is for split.method=blocks; a random split has no gap")
  require(not (config.tuning.learning_rates and split.per_seed),
          "tuning needs split.per_seed=False: it would see test frames of other seeds")
  require(all(callable(metric) or isinstance(metric, FrameMetric) for metric in config.metrics),
          f"metrics must list functions or FrameMetric records, got {config.metrics!r}")
  names = [metric.name for metric in _measures(config).metrics]
  for metric in own_metrics(config):
    require(names.count(metric.name) == 1,
            f"metric {metric.name} has the name of another metric: give its function another")
    require(metric.kind == "error" or not metric.compared,
            f"metric {metric.name}: only an error can be compared, and its kind is {metric.kind}")
  with naming("labels"):
    labels.check(config.labels)
  penalties.check(config, "loss.energy", losses.ENERGY_LOSSES, "energy")
  penalties.check(config, "loss.forces", losses.FORCE_LOSSES, "force")
  require(loss.energy_weight + loss.force_weight > 0,
          "loss.energy_weight and loss.force_weight are both 0: nothing would be trained")
  _check_network(config)


def _check_network(config: ConfigDict) -> None:
  network = models.resolve(config.model.name)
  values = flat(config.model, "model.")
  for name in network.settings:
    require(f"model.{name}" in values or name in network.defaults,
            f"model.{name} is missing: {network.name} has no default for it; give it in the "
            "configuration or in the arm")
  for name, (least, most) in network.limits.items():
    if f"model.{name}" in values:
      _require_within(values[f"model.{name}"], f"model.{name}", least, most)
  with naming("model.normaliser"):
    layer = models.resolve_normaliser(config.model.normaliser)()
    require(callable(layer),
            "expected a function that makes a layer, received one that makes none: take "
            "flax.linen.LayerNorm, or lambda: layer")
  require(config.model.normaliser == "none" or "normaliser" in network.takes,
          f"{network.name} has no field normaliser: leave model.normaliser at none")
  if normalisers.couples(layer):
    _require_statistics_can_serve(
        config, f"model.normaliser={objects.name_of(config.model.normaliser)}")
  require(config.activation.where == "everywhere" or "output_activation" in network.takes,
          f"{network.name} has no field output_activation: leave activation.where at everywhere")
  require(network.statistics is None or not config.split.per_seed,
          f"model={network.name} needs split.per_seed=False: all runs share one scaling of its "
          "inputs")


def _require_statistics_can_serve(config: ConfigDict, what: str) -> None:
  """Refuses the settings with which statistics of a batch would not be those that are evaluated."""
  require(config.optimizer.ema_decay == 0,
          f"optimizer.ema_decay must be 0 with {what}, which belong to the parameters of each step "
          f"and not to their average, got {config.optimizer.ema_decay}")
  require(optimizers.resolve(config.optimizer.name).evaluated is None,
          f"optimizer.name={objects.name_of(config.optimizer.name)} evaluates other parameters "
          f"than it trains, to which {what} do not belong: take another optimiser, such as adam")
  require(config.devices_per_run == 1,
          f"devices_per_run must be 1 with {what}, which are taken over a whole batch, got "
          f"{config.devices_per_run}")
  require(config.batch_size > 1,
          f"batch_size must be at least 2 with {what}, got {config.batch_size}")


def _require_within(value: Any, key: str, least: int | float, most: int | float) -> None:
  """Makes sure that a number, or each number in a list of 1 to `MOST_LAYERS`, has its limits."""
  if isinstance(value, tuple | list):
    require(0 < len(value) <= MOST_LAYERS and all(least <= size <= most for size in value),
            f"{key} must list 1 to {MOST_LAYERS} sizes from {least:,} to {most:,}, got "
            f"{str(value)[:60]}")
  else:
    require(least <= value <= most, f"{key} must lie within {least:,} and {most:,}, got {value:,}")


def _unread(config: ConfigDict) -> set[str]:
  network = models.resolve(config.model.name)
  keys = {f"model.{name}" for name in config.model
          if name not in ("name", *network.settings, *network.takes)}
  return keys | penalties.unread(config, config.loss.energy, losses.ENERGY_LOSSES, "energy") | (
      penalties.unread(config, config.loss.forces, losses.FORCE_LOSSES, "force"))


def _switches(config: ConfigDict) -> dict[str, bool]:
  return {"forces": config.loss.force_weight > 0}


def _warn(arms: Mapping[str, ConfigDict]) -> None:
  """Training on forces needs one continuous derivative (methods: the order rule)."""
  rough = sorted({
      settings.activation.name for settings in arms.values()
      if settings.loss.force_weight > 0 and networks.is_rough(settings, 1)})
  if rough:
    warnings.warn(
        f"{', '.join(rough)}: forces of this activation jump, and the gradient of the force loss "
        "misses the jumps; use its integral (irelu for relu) or a smooth activation",
        stacklevel=5)


def _measures(config: ConfigDict) -> Measures:
  return forcefield.measures(own_metrics(config))


def _use(config: ConfigDict, runs: Runs, settings: Mapping[str, Any]) -> ForceField:
  """The force fields of an arm.

  Raises:
    ValueError: if an older dcnn has saved them.
  """
  kept = runs.kept
  if "domain" not in kept:
    raise ValueError(
        "these runs were saved by an older dcnn, which did not keep what the use of a network "
        "needs: train them again")
  network = models.resolve(config.model.name)
  fields = {name: array[0] for name, array in kept.get("network", {}).items()}
  if "elements" in fields:
    fields["elements"] = fields["elements"].astype(int)
  model = _make_model(config, fields)(
      {**networks.parameters(config), "init_gain": networks.init_gain(config)})
  transform = forcefield.transform_of(kept)
  scale = {"scale": np.asarray(transform.scale, np.float32)}
  seen = {name: array[0] for name, array in kept["domain"].items()}
  domain = data.Domain(**{"compositions": None, **seen})
  domain = domain._replace(**{
      name: each.astype(int) for name in ("elements", "compositions")
      if (each := getattr(domain, name)) is not None})
  return ForceField(
      name=runs.arm, seeds=runs.seeds, energy_fn=functools.partial(scaled_energy, model),
      variables={**runs.best, LABELS: scale}, last={**runs.last, LABELS: scale},
      transform=transform,
      cutoff=float(config.model.cutoff) if "cutoff" in network.settings else None,
      listed=network.listed, domain=domain, metrics=runs.metrics,
      calibration=runs.calibration, settings=settings)


SECTION = Section(SETTINGS, _check, _unread, _switches, load, build, _warn, _measures, _use)
