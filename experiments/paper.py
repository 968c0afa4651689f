"""The paper's steps on the paper's networks, in small: what does each buy, and which needs which?

Claims tested. Lo and Huang (arXiv:2310.01649) replace the activations of five networks by IReLU,
remove the BatchNorm of two of them and divide labels by a power of ten; their Tables 1, 7, 8 and 9
are all steps together, IReLU alone, IReLU given the other two, and the other two without IReLU.
Removal of normalisation and scaling of labels are never taken apart there. Here the activation (the
network's own, or IReLU), the normalisation and the labels (as they are, over a power of ten,
standardised) are crossed, ten seeds each; and IReLU stands in the output block alone or everywhere.

Commands, one for each network, and one for what all of them have:
  dcnn --config=paper:SchNet --workdir=results/paper/SchNet
  dcnn compare results/paper/* --by=model.name

Variants, after a colon: SchNet, CGCNN, ForceNet, DimeNetPlusPlus, GemNetT; batch_norm, which is
SchNet with a BatchNorm that nobody published, as a third network to take normalisation and scaling
apart; and smoke, which takes seconds. The empty variant is SchNet.

Came out (of CGCNN, ForceNet and SchNet with BatchNorm, with their own activations; every claim and
network stands in experiments/results):
The removal of BatchNorm does not need the scaling: it leaves 0.08 to 0.25 times the force_loss
where labels are as they are, 0.15 to 0.25 times over a power of ten, and 0.24 to 0.40 times where
they are standardised. A power of ten has 0.40 to 1.55 times the force_loss with BatchNorm, and 0.85
to 1.20 times without it.

Deviations from the paper: networks and data are small (`--config=official:NETWORK` has networks in
full size), cutoffs are smooth, SchNet's own activation is SiLU in place of shifted softplus, and
GemNet-T's factors are fitted at initialisation. DimeNet++ has detached angles, as the paper ran it.
"""

from typing import Any, NamedTuple

from dcnn import configs

LABELS = ("identity", "power_of_ten", "standardize")
IRELU = {"activation.name": "irelu"}
SIZES = {"features": 32, "blocks": 2}


class Network(NamedTuple):
  """A network of the paper, and what the paper does to it.

  Attributes:
    name: Its name.
    settings: Its sizes, which are small.
    activation: Its own activation.
    normaliser: Its normalisation as published.
    denormalised: What the paper's removal of normalisation changes; empty where there is none.
    place: Where the paper puts IReLU.
    as_run: What the paper's code changed besides, where IReLU stands without normalisation.
  """

  name: str
  settings: dict[str, Any]
  activation: str = "silu"
  normaliser: str = "none"
  denormalised: dict[str, Any] = {}  # noqa: RUF012
  place: str = "everywhere"
  as_run: dict[str, Any] = {}  # noqa: RUF012


SCHNET = Network("SchNet", SIZES | {"radial": 20})
NETWORKS = {
    "SchNet": SCHNET,
    "batch_norm": SCHNET._replace(
        normaliser="batch", denormalised={"model.normaliser": "none"}),
    "CGCNN": Network(
        "CGCNN", SIZES | {"radial": 20, "output_features": 32}, "softplus", "batch",
        {"model.normaliser": "layer"}, "output_block"),
    "ForceNet": Network(
        "ForceNet", SIZES | {"radial": 10}, "silu", "batch", {"model.normaliser": "none"},
        as_run={"model.node_update": "as_run"}),
    "DimeNetPlusPlus": Network(
        "DimeNetPlusPlus",
        SIZES | {"blocks": 1, "triplet_features": 16, "output_features": 32, "angles": "detached"},
        place="output_block"),
    "GemNetT": Network(
        "GemNetT",
        SIZES | {"blocks": 1, "radial": 20, "atom_features": 32, "triplet_features": 16,
                 "bilinear_features": 16}, "scaled_silu", place="output_block"),
}


def get_config(arg: str = "") -> configs.ConfigDict:
  """The configuration of a network; the empty variant is SchNet."""
  if arg == "smoke":
    return smoke()
  name = arg or "SchNet"
  if name not in NETWORKS:
    raise ValueError(f"unknown variant {arg!r}; known are {', '.join(NETWORKS)}, smoke")
  network = NETWORKS[name]
  config = configs.default()
  config.experiment = f"paper:{name}"
  config.question = (
      f"What do IReLU, the removal of normalisation and the scaling of labels buy in "
      f"{network.name}, and does one of them need another?")
  config.dataset = "ethanol"
  config.labels = "identity"
  config.activation.name = network.activation
  config.activation.where = network.place
  config.model.name = network.name
  config.model.normaliser = network.normaliser
  for key, value in network.settings.items():
    config.model[key] = value
  config.batch_size = 5
  config.optimizer.learning_rate = 2e-3
  config.steps = 2000
  config.chunk = 200
  config.seeds = 10
  config.arms = _arms(network)
  config.tables = _tables(network)
  return config


def smoke() -> configs.ConfigDict:
  """Seconds: does everything run?"""
  config = get_config("ForceNet")
  config.experiment = "paper:smoke"
  config.model.features, config.model.radial = 4, 3
  config.split.train, config.split.valid, config.split.test = 20, 10, 20
  config.steps, config.chunk, config.seeds = 20, 10, 2
  return config


def _arms(network: Network) -> tuple[dict[str, Any], ...]:
  """All crossed; then IReLU in the other place, and what the paper's code ran."""
  removed = network.denormalised
  norms = [{}, removed] if removed else [{}]
  steps = [activation | norm for activation in ({}, IRELU) for norm in norms]
  steps.append(IRELU | removed | _other_place(network))
  if network.as_run:
    steps.append(IRELU | removed | network.as_run)
  return tuple(step | {"labels": labels} for step in steps for labels in LABELS)


def _other_place(network: Network) -> dict[str, Any]:
  """IReLU where the paper does not put it."""
  other = {"everywhere": "output_block", "output_block": "everywhere"}
  return {"activation.where": other[network.place]}


def _tables(network: Network) -> tuple[dict[str, Any], ...]:
  """The paper's comparisons one by one, the factorials, and where IReLU stands."""
  removed = network.denormalised

  def table(title: str, *arms: dict[str, Any], **more: Any) -> dict[str, Any]:
    names = tuple(map(configs.arm_name, arms))
    return {"title": title, "baseline": names[0], "arms": names, **more}

  def scaled(step: dict[str, Any]) -> dict[str, Any]:
    return step | {"labels": "power_of_ten"}

  def crossed(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [step | {"labels": labels} for step in steps for labels in LABELS]

  raw, standard = {"labels": "identity"}, {"labels": "standardize"}
  both = IRELU | removed
  tables = [
      table("The paper's steps, from the network as published", raw, IRELU | raw, scaled(removed),
            scaled(both)),
      table("IReLU, once the other steps are done", scaled(removed), scaled(both)),
      table("Standardised labels, IReLU", scaled(both), both | standard),
      table("Standardised labels, the network's own activation", scaled(removed),
            removed | standard),
      table("IReLU, standardised labels", removed | standard, both | standard),
      table("IReLU in the other place, power of ten", scaled(both),
            scaled(both | _other_place(network))),
      table("IReLU in the other place, standardised labels", both | standard,
            both | _other_place(network) | standard)]
  if network.as_run:
    tables.append(table("As the paper's code ran it", scaled(both), scaled(both | network.as_run)))
  if not removed:
    return (*tables, table("Activation and labels", *crossed([{}, IRELU]),
                           factors=("activation.name", "labels")))
  return (
      *tables,
      table("Normalisation and labels, the network's own activation", *crossed([{}, removed]),
            factors=("model.normaliser", "labels")),
      table("Normalisation and labels, IReLU", *crossed([IRELU, both]),
            factors=("model.normaliser", "labels")))
