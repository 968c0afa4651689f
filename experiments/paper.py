"""The paper's steps on the paper's networks, in small: what does each buy, and which needs which?

Claims tested. Lo and Huang (arXiv:2310.01649) replace the activations of five networks by IReLU,
remove the BatchNorm of two of them and divide labels by a power of ten; their Tables 1, 7, 8 and 9
are all steps together, IReLU alone, IReLU given the other two, and the other two without IReLU.
Removal of normalisation and scaling of labels are never taken apart there. Here the activation
(the network's own, or IReLU), the normalisation and the labels (as they are, over a power of ten,
standardised) are crossed, ten seeds each, and IReLU stands in the output block alone or everywhere.

Commands, one for each network, and one for all of them together:
  dcnn --config=paper:SchNet --workdir=results/paper/SchNet
  dcnn compare results/paper/* --by=model.name

Variants, after a colon: SchNet, CGCNN, ForceNet, DimeNetPlusPlus, GemNetT. The empty one is SchNet.
The networks are small; `--config=official:NETWORK` has them in the sizes of their papers.
"""

from typing import Any, NamedTuple

from dcnn import configs

LABELS = ("identity", "power_of_ten", "standardize")
STEPS = 2000


class Network(NamedTuple):
  """A network of the paper.

  Attributes:
    settings: Its sizes, which are small.
    original: Its own activation.
    with_norm: Its normalisation as published; "none" where it has none.
    without: Its normalisation after the paper has removed what it removes.
    place: Where the paper puts IReLU: `everywhere` or in the `output_block`.
    changed: Further settings of the arms that follow all steps of the paper.
  """

  settings: dict[str, Any]
  original: str
  with_norm: str = "none"
  without: str = "none"
  place: str = "everywhere"
  changed: dict[str, Any] = {}  # noqa: RUF012


SIZES = {"features": 32, "blocks": 2}
NETWORKS = {
    "SchNet": Network(SIZES | {"radial": 20}, "shifted_softplus", "batch"),
    "CGCNN": Network(
        SIZES | {"radial": 20, "output_features": 32}, "softplus", "batch", "layer",
        "output_block"),
    "ForceNet": Network(
        SIZES | {"radial": 10}, "silu", "batch", changed={"model.node_update": "as_run"}),
    "DimeNetPlusPlus": Network(
        SIZES | {"blocks": 1, "triplet_features": 16, "output_features": 32}, "silu",
        place="output_block"),
    "GemNetT": Network(
        SIZES | {"blocks": 1, "radial": 20, "atom_features": 32, "triplet_features": 16,
                 "bilinear_features": 16}, "scaled_silu", place="output_block"),
}


def get_config(arg: str = "") -> configs.ConfigDict:
  """The configuration of a network; the empty variant is SchNet."""
  name = arg or "SchNet"
  if name not in NETWORKS:
    raise ValueError(f"unknown variant {arg!r}; known are {', '.join(NETWORKS)}")
  network = NETWORKS[name]
  config = configs.default()
  config.experiment = f"paper:{name}"
  config.question = (
      f"What do IReLU, the removal of normalisation and the scaling of labels buy in {name}, and "
      "does one of them need another?")
  config.dataset = "ethanol"
  config.model.name = name
  for key, value in network.settings.items():
    config.model[key] = value
  config.batch_size = 5
  config.optimizer.learning_rate = 2e-3
  config.steps = STEPS
  config.chunk = 200
  config.seeds = 10
  arms = _arms(network)
  config.arms = tuple(arms.values())
  config.tables = _tables(network, {key: configs.arm_name(arm) for key, arm in arms.items()})
  return config


def _arms(network: Network) -> dict[tuple[str, str, str], dict[str, Any]]:
  """The arms, by activation, normalisation and labels: all crossed, then IReLU elsewhere."""
  other = {"everywhere": "output_block", "output_block": "everywhere"}[network.place]
  activations = {
      "original": {"activation.name": network.original},
      "irelu": {"activation.name": "irelu", "activation.where": network.place},
      "elsewhere": {"activation.name": "irelu", "activation.where": other},
      "as_run": {"activation.name": "irelu", "activation.where": network.place, **network.changed}}
  norms = dict.fromkeys((network.with_norm, network.without))
  crossed = [(activation, norm) for activation in ("original", "irelu") for norm in norms]
  further = [("elsewhere", network.without)]
  if network.changed:
    further.append(("as_run", network.without))
  return {
      (activation, norm, labels): activations[activation] | {
          "model.normaliser": norm, "labels": labels}
      for activation, norm in (*crossed, *further) for labels in LABELS}


def _tables(network: Network, names: dict[tuple[str, str, str], str]) -> tuple[dict, ...]:
  """The paper's comparisons, the factorials, and where IReLU stands."""
  before, after = network.with_norm, network.without
  final = "as_run" if network.changed else "irelu"

  def table(title: str, baseline: tuple, arms: list[tuple], **more: Any) -> dict:
    return {"title": title, "baseline": names[baseline], "arms": tuple(names[a] for a in arms),
            **more}

  start, rest = ("original", before, "identity"), ("original", after, "power_of_ten")
  everything = (final, after, "power_of_ten")
  tables = [
      table("The paper's steps, from the network as published", start,
            [("irelu", before, "identity"), rest, everything]),
      table("IReLU once the rest is done", rest, [everything]),
      table("Standardised labels in place of a power of ten", everything,
            [(final, after, "standardize"), ("original", after, "standardize")]),
      table(f"IReLU where the paper does not put it (it does: {network.place})",
            ("irelu", after, "power_of_ten"),
            [("elsewhere", after, "power_of_ten")]),
      table("The same under standardised labels", ("irelu", after, "standardize"),
            [("elsewhere", after, "standardize")]),
  ]
  if before != after:
    for activation in ("original", "irelu"):
      crossed = [(activation, norm, labels) for norm in (before, after) for labels in LABELS]
      tables.append(table(
          f"Normalisation and labels, {names[crossed[0]].split(',')[0]}", crossed[0], crossed,
          factors=("model.normaliser", "labels")))
  else:
    crossed = [(activation, after, labels) for activation in ("original", "irelu")
               for labels in LABELS]
    tables.append(table("Activation and labels", crossed[0], crossed,
                        factors=("activation.name", "labels")))
  return tuple(tables)
