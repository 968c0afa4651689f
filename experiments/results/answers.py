"""What the kept results say, in sentences whose every number is read from them.

  python -m experiments.results.answers

writes README.md of this folder, and the section of the project's README.md that holds the answers;
`tests/test_kept_results.py` compares both. A verdict that a sentence rests on is checked: where a
result no longer gives it, the sentence cannot be made.
"""

import shlex
from typing import NamedTuple

import numpy as np

from dcnn import stats
from experiments.results import accuracy, networks
from experiments.results.reading import (
    HERE,
    config,
    either_way,
    error,
    errors_of,
    factorial,
    lowest,
    over_all,
    paired,
    ratio,
    ratio_over_all,
    span,
)

BEGIN, END = "<!-- answers: python -m experiments.results.answers -->", "<!-- end of answers -->"

OTHER_SHIFTS = ["min_max", "robust", "mean_shift"]
SHIFTS = ["standardize", *OTHER_SHIFTS]
LARGER = [f"c={c},standardize" for c in ("0.25", "0.75", "1.0")]
MATCHED = [f"c={c},init_matched,standardize" for c in ("0.1", "0.25", "0.75", "1.0")]
SILU_RAW, SILU_POWER, SILU_STANDARD = "silu,identity", "silu,power_of_ten", "silu,standardize"


def converged_line() -> str:
  """What the main job says at its top of the answer after a longer training."""
  return (
      "As it comes, this is a first taste of 2,000 steps. After ten times as many steps of SchNet "
      "on the embedded data, standardised labels have "
      f"{ratio('converged', 'standardize', 'c=0.5', 'force_loss', 'better')} times the force error "
      "of power-of-ten labels, and among standardised ones constants from 0.25 to 1 differ by "
      f"less than 12 % ({span('converged', LARGER, 'standardize', 'force_loss', 'equivalent')}).")


def scaling() -> str:
  """The effect of the label scaling."""
  return (
      "Standardised labels have "
      f"{ratio('converged', 'standardize', 'c=0.5', 'force_loss', 'better')} times the force_loss "
      f"and {ratio('converged', 'standardize', 'c=0.5', 'energy_loss', 'better')} times the "
      "energy_loss of labels divided by a power of ten; with SiLU in place of IReLU "
      f"{ratio('converged', SILU_STANDARD, SILU_POWER, 'force_loss', 'better')} and "
      f"{ratio('converged', SILU_STANDARD, SILU_POWER, 'energy_loss', 'better')}.")


def shifts() -> str:
  """Which of the scalings it is."""
  return (
      "Which of the scalings with a shift is taken hardly matters: the force_loss of min-max, "
      "robust and mean-shifted labels is "
      f"{span('converged', OTHER_SHIFTS, 'standardize', 'force_loss', 'equivalent')} times that of "
      "standardised ones, within 12 % each. The mean taken off at the scale of a power of ten "
      f"changes it {ratio('converged', 'mean/power_of_ten', 'c=0.5', 'force_loss', 'equivalent')} "
      "times: the shift alone is worth nothing.")


def constant() -> str:
  """The effect of the constant of IReLU."""
  return (
      "Of the constant little is left. Under standardised labels c from 0.25 to 1 gives "
      f"{span('converged', LARGER, 'standardize', 'force_loss', 'equivalent')} times the "
      "force_loss of c = 0.5, within 12 % each; c = 0.1 gives "
      f"{ratio('converged', 'c=0.1,standardize', 'standardize', 'force_loss', 'worse')}, and "
      f"{ratio('converged', 'c=0.1,init_matched,standardize', 'standardize', 'force_loss')} "
      "once the initial weights are matched.")


def tuned() -> str:
  """The constant once each arm has its own learning rate."""
  raw = [arm.removesuffix(",standardize") for arm in MATCHED]
  return (
      "With a learning rate chosen for each arm and initial weights matched, no constant differs "
      f"in force_loss by more than 12 %: {span('tuned', raw, 'c=0.5', 'force_loss', 'equivalent')} "
      f"under power-of-ten and {span('tuned', MATCHED, 'standardize', 'force_loss', 'equivalent')} "
      "under standardised labels. The expectation, written down before the run, that a rate of its "
      "own is enough without the weights, does not hold: c = 0.1 keeps "
      f"{ratio('tuned', 'c=0.1,standardize', 'standardize', 'force_loss', 'worse')} times the "
      "force_loss.")


def silu() -> str:
  """IReLU against SiLU."""
  return (
      "IReLU beats SiLU only where labels are badly scaled, and there in the energy alone: SiLU "
      f"has {ratio('converged', SILU_POWER, 'c=0.5', 'energy_loss', 'worse')} times its "
      f"energy_loss and {ratio('converged', SILU_POWER, 'c=0.5', 'force_loss')} times its "
      "force_loss under power-of-ten labels, and "
      f"{ratio('converged', SILU_STANDARD, 'standardize', 'energy_loss', 'better')} and "
      f"{ratio('converged', SILU_STANDARD, 'standardize', 'force_loss', 'better')} times under "
      "standardised ones.")


def paper() -> str:
  """The paper's steps together."""
  return (
      "Against SiLU with the labels as they are, the paper's IReLU with a power of ten has "
      f"{ratio('converged', 'c=0.5', SILU_RAW, 'force_loss', 'worse')} times the force_loss and "
      f"{ratio('converged', 'c=0.5', SILU_RAW, 'energy_loss', 'worse')} times the energy_loss. The "
      "lowest errors of all arms are those of SiLU with a scaling that has a shift: a force_loss "
      f"of {lowest('converged', [f'silu,{name}' for name in SHIFTS], 'force_loss')} meV/Å.")


# Activations whose integrals are there, too, but for softplus, which is far behind at this rate.
INTEGRALS = {"silu": "integrated_silu", "gelu": "integrated_gelu", "tanh": "log_cosh"}


def integrals() -> str:
  """Whether the integral of an activation is better than the activation."""
  def ratios(scaling_: str, better: bool) -> str:
    found = [paired("activations", f"{integral},{scaling_}", f"{plain},{scaling_}", "force_loss")
             for plain, integral in INTEGRALS.items()]
    if not all(each.high < 1 if better else each.low > 1 for each in found):
      raise ValueError("integrals no longer differ as a sentence says: write it anew")
    return f"{min(found).centre:.2f} to {max(found).centre:.2f}"

  return (
      "The same holds for the integrals of other activations. Those of SiLU, GELU and tanh have "
      f"{ratios('power_of_ten', True)} times the force_loss of the activations themselves under "
      f"power-of-ten labels and {ratios('standardize', False)} times under standardised ones "
      f"({config('activations')['config']['steps']:,} steps).")


def longer() -> str:
  """Whether the converged training has converged: what twice as many steps change."""
  before, after = (
      errors_of(name, SILU_STANDARD, "force_loss") for name in ("converged", "longer"))
  gain = stats.geometric_mean(np.array([after[seed] / before[seed] for seed in after]))
  return (
      "Not to the end: twice as many steps, 40,000, leave the best of these arms "
      f"{gain.centre:.2f} [{gain.low:.2f}, {gain.high:.2f}] times its force_loss. The effect of "
      "the scaling stays: standardised labels then have "
      f"{ratio('longer', 'standardize', 'c=0.5', 'force_loss')} times the force_loss of "
      f"power-of-ten labels ({len(after)} seeds). The curves in the reports are flat at their ends "
      "because the learning rate falls to 0, which says nothing of more steps.")


def molecules() -> str:
  """Whether the answer holds beyond ethanol."""
  labels, larger = ("standardize", "c=0.5"), ("standardize,c=1.0", "standardize")
  power, standard = ("silu", "c=0.5"), ("silu,standardize", "standardize")
  found = {pair: over_all("molecules", *pair, "force_loss") for pair in (labels, power, standard)}
  return (
      "Over eight molecules standardised labels have "
      f"{ratio_over_all('molecules', *labels, 'force_loss', 'better')} times the force_loss of "
      f"power-of-ten labels, between {found[labels]['least']:.2f} and {found[labels]['most']:.2f} "
      f"for each, and c = 1 {ratio_over_all('molecules', *larger, 'force_loss', 'equivalent')} "
      "times that of c = 0.5 under them; SiLU has "
      f"{ratio_over_all('molecules', *power, 'force_loss', 'worse')} times that of IReLU under "
      f"power-of-ten and {ratio_over_all('molecules', *standard, 'force_loss')} times under "
      f"standardised labels, there between {found[standard]['least']:.2f} and "
      f"{found[standard]['most']:.2f}.")


def factorials() -> str:
  """Both crossed tables in the words of their reports."""
  return "\n".join(
      f"- {words}, {metric}. {factorial(name, metric)['sentence']}"
      for name, words in (("grid", "Constants and scalings"),
                          ("activations", "Activations and scalings"))
      for metric in ("force_loss", "energy_loss"))


class Claim(NamedTuple):
  """One claim of the paper, or one that it takes for granted.

  Attributes:
    words: The claim.
    theirs: The ratio of their numbers, energies and forces.
    name: The kept result that tests it.
    arm: The arm that follows the claim.
    baseline: The arm that does not.
  """

  words: str
  theirs: str
  name: str
  arm: str
  baseline: str


ORIGINAL, IRELU_ALONE, SCALE_ALONE, ALL = networks.PRINTED["SchNet"]


CLAIMS = (
    Claim("IReLU in place of the activation lowers errors, labels as they are",
          networks.printed(IRELU_ALONE, ORIGINAL), "converged", "identity", SILU_RAW),
    Claim("A power of ten as scale of the labels lowers errors, original activation",
          networks.printed(SCALE_ALONE, ORIGINAL), "converged", SILU_POWER, SILU_RAW),
    Claim("The same with IReLU", networks.printed(ALL, IRELU_ALONE), "converged", "c=0.5",
          "identity"),
    Claim("IReLU lowers errors once labels are scaled", networks.printed(ALL, SCALE_ALONE),
          "converged", "c=0.5", SILU_POWER),
    Claim("All steps together lower errors", networks.printed(ALL, ORIGINAL), "converged",
          "c=0.5", SILU_RAW),
    Claim("The scale is a power of ten (here against standardised labels)", "none", "converged",
          "c=0.5", "standardize"),
    Claim("The constant is 0.5 (here against 0.1 with matched weights, each at its best rate)",
          "none", "tuned", "c=0.5", "c=0.1,init_matched"),
)


def claims() -> str:
  """A line for each claim: their numbers, ours with interval, verdict and command."""
  lines = ["| the paper's claim | their ratios | our energy_loss | our force_loss | command |",
           "|---|---|---|---|---|"]
  for claim in CLAIMS:
    found = [either_way(claim.name, claim.arm, claim.baseline, metric)
             for metric in ("energy_loss", "force_loss")]
    ours = " | ".join("{ratio:.2f} [{low:.2f}, {high:.2f}], {verdict}".format(**each)
                      for each in found)
    lines.append(f"| {claim.words} | {claim.theirs} | {ours} | `:{claim.name}` |")
  return "\n".join(lines)


ARMS = {
    "IReLU, labels as they are": "identity", "IReLU, power of ten": "c=0.5",
    "IReLU, mean at a power of ten": "mean/power_of_ten", "IReLU, standardised": "standardize",
    "IReLU c = 0.1, standardised": "c=0.1,standardize",
    "IReLU c = 1, standardised": "c=1.0,standardize",
    "SiLU, labels as they are": SILU_RAW, "SiLU, power of ten": SILU_POWER,
    "SiLU, standardised": SILU_STANDARD}


def table() -> str:
  """The arms that the sentences speak of, with their errors."""
  lines = ["| converged on ethanol, ten seeds | energy_loss, meV | force_loss, meV/Å |",
           "|---|---|---|"]
  lines += [f"| {words} | {error('converged', arm, 'energy_loss')} | "
            f"{error('converged', arm, 'force_loss')} |" for words, arm in ARMS.items()]
  return "\n".join(lines)


FIGURE = "experiments/results/molecules/figures/ratios_force_loss.svg"


def readme_section() -> str:
  """The section of README.md: the answer in some sentences, a figure and a table."""
  settings = config("converged")["config"]
  model = settings["model"]
  return "\n\n".join((
      f"SchNet with {model['features']} features and {model['blocks']} blocks, "
      f"{settings['split']['train']} configurations of GFN2-xTB ethanol at 500 K, "
      f"{settings['steps']:,} steps; ratios of geometric means over {settings['seeds']} seeds, "
      "paired by seed, with 95 % intervals.",
      "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(
          (scaling(), shifts(), constant(), silu(), paper(), networks.needed(), networks.holds()),
          start=1)),
      f"![Ratios of force errors for eight molecules]({FIGURE})",
      molecules(),
      table(),
      accuracy.text(),
      "Errors are on test data that chose nothing: of the energy of a configuration, and of a "
      "Cartesian force component. [experiments/results](experiments/results/README.md) has every "
      "result, the paper's claims one by one, and the commands."))


MATCHED_WEIGHTS = (
    "Matched weights (`init_matched`) are those that read the activation, divided by c / 0.5: "
    "c max(0, x)² followed by weights W is 0.5 max(0, x)² followed by 2c W, so that the constant "
    "is a reparametrisation, and a naive change of it measures the initialisation and the step "
    "size (`tests/test_training.py` shows it to 1e-12).")


def blocks() -> str:
  """Whether the answer holds for frames later in time than those of training."""
  pair = ("standardize", "c=0.5")
  return (
      "Tested on a later stretch of each trajectory than trained on, the same ratios are "
      f"{ratio_over_all('molecules_blocks', *pair, 'force_loss', 'better')} and "
      f"{ratio_over_all('molecules_blocks', *pair, 'energy_loss', 'better')}.")


def other_labels() -> str:
  """Whether the answer holds for labels of another method."""
  name, labels, power = "converged_rmd17", ("standardize", "c=0.5"), ("silu,power_of_ten", "c=0.5")
  standard, small = ("silu,standardize", "standardize"), ("standardize,c=0.1", "standardize")
  settings = config(name)["config"]
  return (
      "On rMD17 ethanol, whose labels are those of density functional theory, standardised labels "
      f"have {ratio(name, *labels, 'force_loss', 'better')} times the force_loss of power-of-ten "
      f"labels and {ratio(name, *labels, 'energy_loss', 'better')} times the energy_loss after "
      f"{settings['steps']:,} steps; under them c = 0.1 has "
      f"{ratio(name, *small, 'force_loss')} times and c = 1 "
      f"{ratio(name, 'standardize,c=1.0', 'standardize', 'force_loss')} times the force_loss of "
      f"c = 0.5, and SiLU {ratio(name, *standard, 'force_loss')} times that of IReLU, against "
      f"{ratio(name, *power, 'force_loss')} times under power-of-ten labels.")


RESULTS = {
    "ablations": "The main job: both ablations on SchNet, 2,000 steps.",
    "ablations_painn": "The same on PaiNN.",
    "ablations_ace_output": "The same on GridACE, with IReLU in the output block.",
    "ablations_ace": "The same on GridACE, with IReLU everywhere.",
    "converged": "Both ablations, and the scalings with SiLU, trained ten times as long as the "
                 "main job.",
    "longer": "Four arms of these, trained twice as long again.",
    "converged_rmd17": "The same on rMD17 ethanol, labels of density functional theory.",
    "tuned": "The learning rate of each arm chosen on validation data of other seeds.",
    "grid": "All constants with all scalings.",
    "activations": "Five activations and their integrals with two scalings.",
    "molecules": "Six arms on eight molecules.",
    "molecules_blocks": "The same, tested on a later stretch of the trajectory than trained on.",
    "paper": "The paper's steps on its five networks, in small.",
    "paper_batch_norm": "The same on SchNet with a BatchNorm that nobody published.",
    "rmd17": "SchNet on rMD17 ethanol, by the recipe that `rmd17:search` found.",
    "rmd17_painn": "PaiNN by the same recipe.",
    "rmd17_cgcnn": "CGCNN by the same recipe.",
    "rmd17_forcenet": "ForceNet by the same recipe.",
    "rmd17_dimenet": "DimeNet++ with two blocks by the same recipe, half as long.",
    "rmd17_gemnet": "GemNet-T with two blocks by the same recipe, half as long.",
    "rmd17_ace": "GridACE by the same recipe.",
    "rmd17_ace_degree3": "GridACE with degree 3 and `passed` 2.",
    "rmd17_ace_long": "The same, six times as long, one seed.",
    "rmd17_refine": "One change of the recipe at a time on GridACE with 32 features, 4,000 steps.",
}


def _command(name: str) -> str:
  """The command that made a result, without the options that name folders."""
  words = [word for word in shlex.split(config(name)["command"])
           if not word.startswith("--workdir")]
  return " ".join(f'"{word}"' if set("'()") & set(word) else word for word in words)


def page() -> str:
  """README.md of this folder: the answers whole, the paper's claims, and all results."""
  results = [f"| [{name}]({name}/report.md) | {words} | `{_command(name)}` |"
             for name, words in RESULTS.items()]
  return "\n\n".join((
      "# What was found",
      "Every number here is read from the results in this folder by `python -m "
      "experiments.results.answers`, and tests compare them. Ratios are those of geometric means "
      "over seeds, paired by seed, with 95 % intervals, each for itself; verdicts are adjusted for "
      "all arms of a table. *Equivalent* means within 12 %.",
      "## The label scaling", f"{scaling()} {shifts()}", f"{molecules()} {blocks()}",
      other_labels(),
      "## The constant of IReLU", f"{constant()} {tuned()}", MATCHED_WEIGHTS,
      "## IReLU and SiLU", f"{silu()} {integrals()}",
      "## Whether the training was long enough", longer(),
      "## Both factors at once", factorials(),
      "## On other networks",
      "Both ablations of the main job, 2,000 steps, on three networks: ratios of errors, paired by "
      "seed, with 95 % intervals and verdicts that are adjusted for all arms of a table.",
      networks.ablations(), networks.overflow(),
      "## The paper's claims, one by one",
      "Their ratios are those of what the notebooks of the paper's code print for SchNet and "
      "ethanol of MD17 (energy E and force F, one seed, 444,073 training frames, shifted softplus "
      "as the original activation; which column belongs to which table of the paper is inferred). "
      "Ours are of SchNet with SiLU as the original activation. A ratio below 1 speaks for the "
      "claim. The paper tries no other scale, no shift and no other constant.",
      claims(),
      paper(),
      "## The paper's networks, in small",
      f"{networks.settings()}; SchNet and ForceNet have IReLU everywhere, the others in the output "
      "block, as in the paper. Original activations: SiLU (SchNet, ForceNet, DimeNet++), softplus "
      "(CGCNN) and SiLU over 0.6 (GemNet-T). *Removal* takes BatchNorm out of ForceNet, and puts "
      "LayerNorm in its place in CGCNN, as the paper's code does; the other three have no "
      "normalisation. The test of a contrast counts a failed run as the worst; its ratio is that "
      "of the seeds with which both ended.",
      networks.claims(), networks.failures(),
      "## Does the scaling need the removal of normalisation, or the reverse?",
      f"{networks.needed()} Ratios of errors in the networks with their own activation, paired by "
      "seed, with 95 % intervals. *SchNet with BatchNorm* is no network of the paper.",
      networks.apart(), networks.interactions(),
      "## How accurate the networks are", accuracy.text(),
      "## The results",
      "\n".join(("| result | what it is | command |", "|---|---|---|", *results))))


# What the docstrings of experiments say came out.
OUTCOMES = {
    "ablations": lambda: " ".join((scaling(), constant(), silu())),
    "paper": networks.needed,
    "rmd17": accuracy.text}


def main() -> None:
  """Writes both pages."""
  (HERE / "README.md").write_text(f"{page()}\n")
  readme = HERE.parents[1] / "README.md"
  before, rest = readme.read_text().split(BEGIN)
  readme.write_text(f"{before}{BEGIN}\n\n{readme_section()}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
  main()
