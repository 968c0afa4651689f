"""What the kept results of `experiments/paper.py` say of the paper's networks, in tables."""

from typing import NamedTuple

from dcnn import configs, stats
from experiments import paper
from experiments.results.reading import (
    config,
    either_way,
    error,
    factorial,
    paired,
    ratio,
    summary,
)

METRICS = ("energy_loss", "force_loss")


class Printed(NamedTuple):
  """Errors that the notebooks of the paper's code print for MD17 ethanol, one seed.

  Each is a pair, of energies in kcal/mol and of forces in kcal/mol/A. Which column belongs to which
  table of the paper is inferred.

  Attributes:
    published: Of the network as published.
    irelu: With IReLU, labels as they are.
    others: With the other steps, which are the removal of normalisation and the scale.
    all_steps: With all of these.
  """

  published: tuple[float, float]
  irelu: tuple[float, float]
  others: tuple[float, float]
  all_steps: tuple[float, float]


PRINTED = {
    "SchNet": Printed((5.97, 0.686), (0.847, 1.44), (205, 6.36), (13.4, 1.53)),
    "CGCNN": Printed((38.4, 8.25), (39.3, 12.5), (497, 0.618), (4.64, 2.97)),
    "ForceNet": Printed((1048, 17.6), (593, 74.8), (234, 0.680), (3.19, 1.15)),
    "DimeNetPlusPlus": Printed((237, 6.41), (39.8, 4.69), (70.1, 0.241), (0.590, 0.297)),
    "GemNetT": Printed((470, 0.289), (13.1, 0.884), (153, 0.381), (7.10, 0.271)),
}
# Labels, and whether normalisation is removed: of an arm and of its baseline.
CONTRASTS = {
    "power of ten, normalised": (("power_of_ten", False), ("identity", False)),
    "power of ten, not normalised": (("power_of_ten", True), ("identity", True)),
    "removal, labels as they are": (("identity", True), ("identity", False)),
    "removal, power of ten": (("power_of_ten", True), ("power_of_ten", False)),
    "removal, standardised": (("standardize", True), ("standardize", False)),
}
NORMALISED = {"CGCNN": "paper/CGCNN", "ForceNet": "paper/ForceNet",
              "SchNet with BatchNorm": "paper_batch_norm"}

# Both ablations by network: the kept result of each.
ABLATIONS = {"SchNet": "ablations", "PaiNN": "ablations_painn",
             "GridACE, IReLU in the output block": "ablations_ace_output"}
EVERYWHERE = "ablations_ace"  # GridACE with IReLU in all of its networks
# What is compared, the arm and its baseline.
ASKED = (
    ("standardised labels over a power of ten", "standardize", "c=0.5"),
    *((f"c = {c} over 0.5, power of ten", f"c={c}", "c=0.5") for c in (0.1, 0.25, 0.75, 1.0)),
    *((f"c = {c} over 0.5, standardised", f"c={c},standardize", "standardize")
      for c in (0.1, 0.25, 0.75, 1.0)),
    *((f"c = {c} over 0.5, standardised, initial weights matched",
       f"c={c},init_matched,standardize", "standardize") for c in (0.1, 0.25, 0.75, 1.0)))


def ablations() -> str:
  """Both ablations on each network: the ratios of errors, with intervals and verdicts."""
  lines = [f"| | error | {' | '.join(ABLATIONS)} |", "|---" * (2 + len(ABLATIONS)) + "|"]
  for words, arm, baseline in ASKED:
    for metric in METRICS:
      cells = [_ratio(place, arm, baseline, metric) for place in ABLATIONS.values()]
      lines.append(f"| {words} | {metric} | {' | '.join(cells)} |")
      words = ""
  return "\n".join(lines)


def holds() -> str:
  """Whether the answer for SchNet holds on the other networks, in two sentences.

  Raises:
    ValueError: If standardised labels are not better on each of them.
  """
  places = list(ABLATIONS.values())
  forces, energies = (
      ", ".join(ratio(place, "standardize", "c=0.5", metric, "better") for place in places)
      for metric in ("force_loss", "energy_loss"))
  matched = [either_way(place, f"c={c},init_matched,standardize", "standardize", "force_loss")
             for place in places for c in (0.25, 0.75, 1.0)]
  ratios = [each["ratio"] for each in matched]
  names = [name.partition(",")[0] for name in ABLATIONS]
  large = [summary(ABLATIONS["PaiNN"])["arms"][name] for name in ("c=1.0", "c=1.0,standardize")]
  failed, runs = (sum(each[key] for each in large) for key in ("failed", "n"))
  return (
      f"The answer for the scaling holds on networks of other kinds: after 2,000 steps of "
      f"{names[0]}, {names[1]} and {names[2]} standardised labels have {forces} times the "
      f"force_loss and {energies} times the energy_loss of labels divided by a power of ten. With "
      f"matched initial weights constants from 0.25 to 1 have {min(ratios):.2f} to "
      f"{max(ratios):.2f} times the force_loss of c = 0.5 on all three; unmatched, {failed} of "
      f"{runs} runs of PaiNN with c = 1 diverged (the table is in "
      "[experiments/results](experiments/results/README.md#on-other-networks)).")


def _ratio(place: str, arm: str, baseline: str, metric: str) -> str:
  """A ratio with its interval, the verdict, and the runs that failed."""
  arms = summary(place)["arms"]
  lost = [f"{arms[each]['failed']} of {arms[each]['n']} {where}"
          for each, where in ((arm, "failed"), (baseline, "of the baseline failed"))
          if arms[each]["failed"]]
  found = either_way(place, arm, baseline, metric)
  if found["ratio"] is None:
    return "; ".join(lost)
  numbers = " [".join((_short(found["ratio"]), f"{_short(found['low'])}, {_short(found['high'])}]"))
  return "; ".join([f"{numbers}, {found['verdict']}", *lost])


def _short(ratio: float) -> str:
  return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.1e}"


def overflow() -> str:
  """What IReLU in all networks of GridACE does, whose products are of third order.

  Raises:
    ValueError: If a run with a constant of 0.5 ends.
  """
  arms = summary(EVERYWHERE)["arms"]
  alive = [name for name, each in arms.items() if each["failed"] < each["n"]]
  if any("c=0.1" not in name and "c=0.25" not in name or "matched" in name for name in alive):
    raise ValueError(f"{EVERYWHERE}: other arms than those of small constants end: write anew")
  failed, runs = (sum(each[key] for each in arms.values()) for key in ("failed", "n"))
  best = error(EVERYWHERE, "c=0.1,standardize", "force_loss")
  return (
      "With IReLU in place of all its activations GridACE multiplies three sums of squares of "
      f"squares: {failed} of {runs} runs overflowed at once, all with the initial weights of "
      f"c = 0.5 or more. Only the arms with c = 0.1 and 0.25 and unmatched weights were trained "
      f"(c = 0.1 with standardised labels: {best} meV/Å). The paper, too, has IReLU in the output "
      "block alone where networks multiply (DimeNet++ and GemNet-T), and so has the table.")


def printed(arm: tuple[float, float], baseline: tuple[float, float]) -> str:
  """The ratios of the energies and of the forces that the paper's notebooks print."""
  return ", ".join(f"{name} {mine / other:.3g}"
                   for name, mine, other in zip("EF", arm, baseline, strict=True))


def settings() -> str:
  """How all of them were trained."""
  found = [config(f"paper/{name}")["config"] for name in PRINTED]
  (steps, batch, seeds, frames, sizes), = {
      (each["steps"], each["batch_size"], each["seeds"], each["split"]["train"],
       each["model"]["features"]) for each in found}
  return (f"{sizes} features, one block (DimeNet++ and GemNet-T) or two, {steps:,} steps of "
          f"{batch} of {frames} configurations of embedded ethanol, {seeds} seeds")


def claims() -> str:
  """A line for each claim and network: their ratios, ours with interval and verdict."""
  lines = ["| claim | network | their ratios | our energy_loss | our force_loss |",
           "|---|---|---|---|---|"]
  for words, theirs, ours in _claims():
    for name in PRINTED:
      arm, baseline = (_arm(name, **each) for each in ours)
      ratios = " | ".join(_verdict(name, arm, baseline, metric) for metric in METRICS)
      lines.append(f"| {words} | {name} | {theirs(PRINTED[name])} | {ratios} |")
      words = ""
  return "\n".join(lines)


def _claims():
  """The words, the printed ratio and the two arms of each claim."""
  raw, power = {"labels": "identity"}, {"labels": "power_of_ten"}
  return (
      ("IReLU alone lowers errors (Table 7)",
       lambda their: printed(their.irelu, their.published), (raw | {"irelu": True}, raw)),
      ("The other steps lower errors (Table 9)",
       lambda their: printed(their.others, their.published), (power | {"removed": True}, raw)),
      ("IReLU lowers errors given the others (Table 8)",
       lambda their: printed(their.all_steps, their.others),
       (power | {"irelu": True, "removed": True}, power | {"removed": True})),
      ("All steps lower errors (Table 1)",
       lambda their: printed(their.all_steps, their.published),
       (power | {"irelu": True, "removed": True}, raw)),
      ("The scale is a power of ten and nothing is taken off (here with all steps, over "
       "standardised labels)", lambda _: "none",
       (power | {"irelu": True, "removed": True},
        {"labels": "standardize", "irelu": True, "removed": True})),
  )


def _arm(name: str, labels: str, irelu: bool = False, removed: bool = False) -> str:
  network = paper.NETWORKS[name]
  return configs.arm_name((paper.IRELU if irelu else {})
                          | (network.denormalised if removed else {}) | {"labels": labels})


def _verdict(name: str, arm: str, baseline: str, metric: str) -> str:
  place = f"paper/{name}"
  arms = summary(place)["arms"]
  found = "{ratio:.2f} [{low:.2f}, {high:.2f}], {verdict}".format(
      **either_way(place, arm, baseline, metric))
  failed = [f"{arms[each]['failed']} of {arms[each]['n']} runs failed {where}"
            for each, where in ((arm, "here"), (baseline, "of the baseline"))
            if arms[each]["failed"]]
  return "; ".join([found, *failed])


def apart() -> str:
  """What the removal of normalisation and the scaling buy with and without each other."""
  lines = [f"| network | error | {' | '.join(CONTRASTS)} |", "|---" * (2 + len(CONTRASTS)) + "|"]
  for words in NORMALISED:
    for metric in METRICS:
      cells = ["{:.2f} [{:.2f}, {:.2f}]".format(*_apart(words, contrast, metric))
               for contrast in CONTRASTS]
      lines.append(f"| {words} | {metric} | {' | '.join(cells)} |")
  return "\n".join(lines)


def needed() -> str:
  """Whether one of the two needs the other.

  Raises:
    ValueError: If the intervals no longer say what the sentence says.
  """
  found = {contrast: [_apart(words, contrast, "force_loss") for words in NORMALISED]
           for contrast in CONTRASTS}
  removals = [each for contrast in CONTRASTS if contrast.startswith("removal")
              for each in found[contrast]]
  if max(each.high for each in removals) >= 1:
    raise ValueError("the removal of normalisation no longer helps everywhere: write anew")

  def span(contrast: str) -> str:
    centres = [each.centre for each in found[contrast]]
    return f"{min(centres):.2f} to {max(centres):.2f}"

  return (
      "The removal of BatchNorm does not need the scaling: it leaves "
      f"{span('removal, labels as they are')} times the force_loss where labels are as they are, "
      f"{span('removal, power of ten')} times over a power of ten, and "
      f"{span('removal, standardised')} times where they are standardised. A power of ten has "
      f"{span('power of ten, normalised')} times the force_loss with BatchNorm, and "
      f"{span('power of ten, not normalised')} times without it.")


def _apart(words: str, contrast: str, metric: str) -> stats.Interval:
  """The ratio of two arms of a network with its own activation, paired by seed."""
  place = NORMALISED[words]
  name = place.rpartition("/")[2].removeprefix("paper_")
  arm, baseline = (_arm(name, labels, removed=removed) for labels, removed in CONTRASTS[contrast])
  return paired(place, arm, baseline, metric)


def interactions() -> str:
  """The factorials of normalisation and labels in the words of their reports."""
  return "\n".join(
      f"- {words}, the network's own activation, {metric}. "
      + factorial(place, metric, "Normalisation and labels, the network's own activation")[
          "sentence"]
      for words, place in NORMALISED.items() for metric in METRICS)


def failures() -> str:
  """How many runs of each network diverged, and in which arms."""
  parts = []
  for name in PRINTED:
    arms = summary(f"paper/{name}")["arms"]
    failed = {arm: each for arm, each in arms.items() if each["failed"]}
    if failed:
      each = ", ".join(f"{found['failed']} of {found['n']} with {arm}"
                       for arm, found in failed.items())
      parts.append(f"{name} {each}")
  sound = [name for name in PRINTED if not any(
      each["failed"] for each in summary(f"paper/{name}")["arms"].values())]
  return (f"Runs that diverged: {'; '.join(parts) or 'none'}. None of {', '.join(sound)}.")
