"""What the kept results say, in sentences whose every number is read from them.

  python -m experiments.results.answers

prints the section of README.md that holds the answers, and `tests/test_kept_results.py` compares
the two. A verdict that a sentence rests on is checked: where a result no longer gives it, the
sentence cannot be made.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

HERE = pathlib.Path(__file__).parent
BEGIN, END = "<!-- answers: python -m experiments.results.answers -->", "<!-- end of answers -->"
MEV = 1000.0


@functools.cache
def summary(name: str) -> Mapping[str, Any]:
  """The content of the summary.json of a kept result."""
  return json.loads((HERE / name / "summary.json").read_text())


def contrast(
    name: str, arm: str, baseline: str, metric: str, verdict: str | None = None
) -> Mapping[str, Any]:
  """The comparison of an arm with a baseline.

  Args:
    name: The kept result.
    arm: The arm.
    baseline: What it is compared with, in any table of the result.
    metric: The error.
    verdict: The verdict that a sentence rests on; None where it rests on the numbers alone.

  Raises:
    ValueError: If the result has no such comparison, or gives another verdict.
  """
  for table in summary(name)["tables"]:
    found = table["contrasts"].get(metric, {}).get(arm)
    if table["baseline"] == baseline and found:
      if verdict not in (None, found["verdict"]):
        raise ValueError(f"{name}: {arm} against {baseline} on {metric} is {found['verdict']}, and "
                         f"a sentence says {verdict}: write the sentence anew")
      return found
  raise ValueError(f"{name}: no table compares {arm} with {baseline} on {metric}")


def ratio(name: str, arm: str, baseline: str, metric: str, verdict: str | None = None) -> str:
  """The ratio of errors with its interval, such as `0.54 [0.46, 0.61]`; see `contrast`."""
  found = contrast(name, arm, baseline, metric, verdict)
  return "{ratio:.2f} [{low:.2f}, {high:.2f}]".format(**found)


def span(name: str, arms: list[str], baseline: str, metric: str, verdict: str | None = None) -> str:
  """The smallest and the largest ratio of several arms, such as `0.97 to 1.08`."""
  ratios = [contrast(name, arm, baseline, metric, verdict)["ratio"] for arm in arms]
  return f"{min(ratios):.2f} to {max(ratios):.2f}"


def error(name: str, arm: str, metric: str) -> str:
  """The geometric mean of an error with its interval, in meV or meV/Å."""
  found = summary(name)["arms"][arm]["metrics"][metric]
  centre, low, high = (MEV * found[end] for end in ("centre", "low", "high"))
  digits = 2 if centre < 10 else 1
  return f"{centre:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


OTHER_SHIFTS = ["min_max", "robust", "mean_shift"]
LARGER = [f"c={c},standardize" for c in ("0.25", "0.75", "1.0")]
MATCHED = [f"c={c},init_matched,standardize" for c in ("0.1", "0.25", "0.75", "1.0")]
SILU_RAW, SILU_POWER, SILU_STANDARD = "silu,identity", "silu,power_of_ten", "silu,standardize"


def converged_line() -> str:
  """What the main job says at its top of the answer after a longer training."""
  return (
      "This is a first taste: 2,000 steps. After ten times as many, on the embedded data, "
      "standardised labels have "
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
      f"{ratio('converged', 'c=0.5', SILU_RAW, 'energy_loss', 'worse')} times the energy_loss, and "
      "SiLU with standardised labels is the best of all arms.")
