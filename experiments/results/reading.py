"""What can be read from the kept results: ratios, errors, and the verdicts that they rest on."""

import csv
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dcnn import stats

HERE = pathlib.Path(__file__).parent
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


def over_all(
    name: str, arm: str, baseline: str, metric: str, verdict: str | None = None
) -> Mapping[str, Any]:
  """As `contrast`, of a comparison over the values of a setting: the ratio over all of them."""
  for table in summary(name)["tables"]:
    found = table["contrasts"].get(metric, {}).get(arm)
    if table["baseline"] == baseline and found:
      record = found["over_all"]
      if verdict not in (None, record["verdict"]):
        raise ValueError(f"{name}: {arm} against {baseline} on {metric} is {record['verdict']}, "
                         f"and a sentence says {verdict}: write the sentence anew")
      ratios = [each["ratio"] for each in found["each"].values()]
      return {**record, "least": min(ratios), "most": max(ratios)}
  raise ValueError(f"{name}: no table compares {arm} with {baseline} on {metric}")


def ratio_over_all(
    name: str, arm: str, baseline: str, metric: str, verdict: str | None = None
) -> str:
  """The ratio over all with its interval; see `over_all`."""
  return "{centre:.2f} [{low:.2f}, {high:.2f}]".format(
      **over_all(name, arm, baseline, metric, verdict))


def factorial(name: str, metric: str, title: str = "") -> Mapping[str, Any]:
  """The factorial analysis of an error in the table of a result that crosses two factors.

  Args:
    name: The kept result.
    metric: The error.
    title: The title of the table, where there are several.
  """
  (found,) = [table["factorial"] for table in summary(name)["tables"]
              if "factorial" in table and table["title"].startswith(title)]
  return found[metric]


def span(name: str, arms: list[str], baseline: str, metric: str, verdict: str | None = None) -> str:
  """The smallest and the largest ratio of several arms, such as `0.97 to 1.08`."""
  ratios = [contrast(name, arm, baseline, metric, verdict)["ratio"] for arm in arms]
  return f"{min(ratios):.2f} to {max(ratios):.2f}"


def lowest(name: str, arms: list[str], metric: str) -> str:
  """The range of the errors of several arms, which must lie below those of all other arms."""
  means = {arm: MEV * each["metrics"][metric]["centre"]
           for arm, each in summary(name)["arms"].items()}
  mine, others = (
      [means[arm] for arm in means if (arm in arms) == inside] for inside in (True, False))
  if max(mine) >= min(others):
    raise ValueError(f"{name}: another arm has a lower {metric} than {', '.join(arms)}")
  return f"{min(mine):.1f} to {max(mine):.1f}"


def error(name: str, arm: str, metric: str) -> str:
  """The geometric mean of an error in meV or meV/Å, and its interval if there are several seeds."""
  found = summary(name)["arms"][arm]["metrics"][metric]
  digits = 2 if MEV * found["centre"] < 10 else 1
  centre, *ends = (f"{MEV * found[end]:.{digits}f}" for end in ("centre", "low", "high")
                   if found[end] is not None)
  return f"{centre} [{', '.join(ends)}]" if ends else centre


def either_way(name: str, arm: str, baseline: str, metric: str) -> Mapping[str, Any]:
  """As `contrast`, also where the table compares the baseline with the arm."""
  try:
    return contrast(name, arm, baseline, metric)
  except ValueError:
    found = contrast(name, baseline, arm, metric)
  swapped = {"better": "worse", "worse": "better"}
  return {"ratio": 1 / found["ratio"], "low": 1 / found["high"], "high": 1 / found["low"],
          "verdict": swapped.get(found["verdict"], found["verdict"])}


def errors_of(name: str, arm: str, metric: str) -> dict[int, float]:
  """The test error of each seed of an arm."""
  with (HERE / name / "results.csv").open(newline="") as file:
    return {int(row["seed"]): float(row["value"]) for row in csv.DictReader(file)
            if (row["arm"], row["metric"], row["split"]) == (arm, metric, "test")}


def paired(name: str, arm: str, baseline: str, metric: str) -> stats.Interval:
  """The ratio of two arms that no table compares, with its interval, over the seeds of both."""
  mine, others = (errors_of(name, each, metric) for each in (arm, baseline))
  return stats.geometric_mean(np.array([mine[seed] / others[seed] for seed in mine]))


def config(name: str) -> Mapping[str, Any]:
  """The content of the config.json of a kept result."""
  return json.loads((HERE / name / "config.json").read_text())
