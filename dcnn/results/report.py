"""Reports of a finished sweep, drawn from its files alone.

`write` leaves summary.json, report.md, report.html and figures/ beside the files that
`results.save` wrote. The page is one file without network or script; everything that users
name or write is escaped.
"""

import collections
import contextlib
import functools
import json
import math
import os
import pathlib
import re
import sys
import textwrap
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup, escape

from dcnn import stats
from dcnn.base import files
from dcnn.base.text import duration, number_text, one_line, visible_text
from dcnn.results import records
from dcnn.results.palette import PALETTE
from dcnn.results.records import COMPARED, Result, Table

ERRORS = ("energy_loss", "force_loss", "energy_rmse", "force_rmse")
SKILLS = ("energy_skill", "force_skill")
FAILURES_TOLD = 4  # of an arm; summary.json has all

_RELATIONS: Mapping[str, str] = {
    "better": "is better than", "worse": "is worse than", "equivalent": "is equivalent to",
    "undecided": "is undecided against"}


class Comparison(NamedTuple):
  """A table of the report.

  Attributes:
    table: what was asked for.
    summaries: of its arms, by metric.
  """

  table: Table
  summaries: dict[str, list[stats.ArmSummary]]


def write(directory: str | os.PathLike[str]) -> pathlib.Path:
  """Writes the reports of a finished sweep.

  Args:
    directory: the work directory, with config.json and results.csv.

  Returns:
    Where report.html is.

  Raises:
    ValueError: if the files are missing, or hold no test results for some run.
  """
  directory = pathlib.Path(directory)
  result = records.load(directory)
  try:
    comparisons, metrics = compare(result), arm_metrics(result)
  except ValueError as error:
    raise ValueError(f"{directory / records.ROWS_FILE}: {error}") from error
  files.write_json(
      directory / records.SUMMARY_FILE, _summary(result, comparisons, metrics))
  drawn, notes = _drawings(result, comparisons)
  (directory / records.FIGURES).mkdir(exist_ok=True)
  for name, drawing in drawn.items():
    files.write_file(directory / records.FIGURES / f"{name}.svg", drawing.file)
  context = _context(result, comparisons, metrics)
  context["notes"] += notes
  context["figures"] = {name: Markup(drawing.inline) for name, drawing in drawn.items()}
  context["curves"] = any(name.startswith("learning_curves") for name in drawn)
  for name, environment in zip(records.REPORT_FILES, (_markdown(), _page()), strict=True):
    text = environment.get_template(f"{name}.j2").render(context)
    files.write_file(directory / name, text.encode())
  return directory / "report.html"


def load_figures() -> types.ModuleType:
  """The module that draws, imported when it is needed: Matplotlib takes a second.

  Matplotlib reads the user's settings as it is imported, and fails on some. MPLBACKEND, which is
  for windows, takes effect afterwards, if it names a backend that is there.

  Raises:
    Exception: of any kind.
  """
  backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
  try:
    from dcnn.results import figures
  finally:
    if backend is not None:
      os.environ["MPLBACKEND"] = backend
  if backend is not None:
    with contextlib.suppress(ValueError):
      sys.modules["matplotlib"].rcParams["backend"] = backend
  return figures


def _drawings(
    result: Result, comparisons: Sequence[Comparison]
) -> tuple[dict[str, Any], list[str]]:
  """The figures by name, and a line on each that cannot be drawn, which is a warning, too."""
  try:
    figures = load_figures()
  except Exception as error:
    drawn, failed = {}, {"all": error}
  else:
    drawn, failed = figures.drawings(result, comparisons)
  notes = [f"Without figures ({name}), which could not be drawn: "
           f"{textwrap.shorten(f'{type(error).__name__}: {error}', 200, placeholder=' ...')}."
           for name, error in failed.items()]
  for note in notes:
    warnings.warn(note, stacklevel=3)
  return drawn, notes


def compare(result: Result) -> list[Comparison]:
  """The tables of a result, each with the statistics of energy_loss and force_loss.

  Args:
    result: without tables of its own, all arms are compared with the first.

  Returns:
    A comparison for each table whose baseline has results; without statistics while runs of the
    baseline are unfinished.
  """
  known = {row.arm for row in result.rows}
  metrics = [metric for metric in COMPARED if result.has(metric)]
  return [
      Comparison(table, {metric: result.compare(table, metric) for metric in metrics
                         if table.baseline in result.arms})
      for table in result.comparisons if table.baseline in known]


def arm_metrics(result: Result) -> dict[str, dict[str, dict[str, Any]]]:
  """Every test metric of every arm over its finished runs, by arm and metric.

  Errors: geometric mean and 95 % interval; the number of runs with an error of exactly 0, where
  there are some. Skill: 1 - geometric mean of error / error of the
  constant predictor, with its interval, and the number of runs no better than that predictor
  (skill <= 0). Others: median, smallest and largest.

  Args:
    result: with test rows.

  Returns:
    For each a record of `statistic`, `unit`, `centre`, `low`, `high`; nan without a finished run.
  """
  metrics = list(dict.fromkeys(row.metric for row in result.rows if row.split == "test"))
  units = {row.metric: row.unit for row in result.rows}
  values = {metric: result.errors(metric) for metric in metrics}
  return {
      arm: {metric: {"unit": units[metric], **_metric(metric, values[metric][arm])}
            for metric in metrics}
      for arm in result.arms}


def _metric(metric: str, values: np.ndarray) -> dict[str, Any]:
  finished = values[np.isfinite(values)]
  if metric in SKILLS:
    interval = stats.geometric_mean(1 - np.where(np.isfinite(values), values, -np.inf))
    return {"statistic": "1 - geometric mean of 1 - skill", "centre": 1 - interval.centre,
            "low": 1 - interval.high, "high": 1 - interval.low,
            "no_better_than_constant": int(np.sum(finished <= 0))}
  if metric in ERRORS:
    exact = int(np.sum(values == 0))
    return {"statistic": "geometric mean", **stats.geometric_mean(values)._asdict(),
            **({"exact": exact} if exact else {})}
  low, centre, high = (
      np.quantile(finished, (0, 0.5, 1)).tolist() if finished.size else (np.nan,) * 3)
  return {"statistic": "median and range", "centre": centre, "low": low, "high": high}


def _failures(result: Result) -> dict[str, dict[int, dict[str, str]]]:
  """Status and cause of the failed runs, by arm and seed."""
  failures: dict[str, dict[int, dict[str, str]]] = {row.arm: {} for row in result.rows}
  for row in result.rows:
    if records.is_failed(row.status):
      failures[row.arm][row.seed] = {"status": row.status, "cause": row.cause}
  return failures


# summary.json


def _summary(
    result: Result, comparisons: Sequence[Comparison],
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, Any]:
  failures, n = _failures(result), len(result.seeds)
  return {
      "experiment": _experiment(result),
      "split": "test",
      "seeds": list(result.seeds),
      "arms": {
          arm: {"n": n, "failed": len(failures[arm]), "failures": failures[arm],
                "failure_rate": stats.wilson(len(failures[arm]), n)._asdict(),
                "metrics": metrics[arm]}
          for arm in result.arms},
      "tables": [
          {"title": table.title, "baseline": table.baseline, "contrasts": {
              metric: {summary.arm: summary.contrast._asdict()
                       for summary in summaries if summary.contrast}
              for metric, summaries in by_metric.items()}}
          for table, by_metric in comparisons],
  }


# Text


@functools.cache
def _page() -> jinja2.Environment:
  """For HTML: whatever a template shows is made visible and escaped."""
  environment = _environment(autoescape=True, finalize=_visible)
  environment.filters["tied"] = _tied
  return environment


@functools.cache
def _markdown() -> jinja2.Environment:
  """The environment of Markdown templates, which escapes every expression."""
  environment = _environment(autoescape=False, finalize=_escape_markdown)
  environment.filters["code"] = lambda text: Markup(one_line(text))
  return environment


def _environment(autoescape: bool, finalize: Callable[[Any], Any]) -> jinja2.Environment:
  return jinja2.Environment(
      loader=jinja2.PackageLoader("dcnn.results"), undefined=jinja2.StrictUndefined,
      autoescape=autoescape, finalize=finalize,
      trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)


def _visible(value: Any) -> Any:
  return value if isinstance(value, Markup) else visible_text(str(value))


def _escape_markdown(value: Any) -> Any:
  return value if isinstance(value, Markup) else records.markdown_text(str(value))


def _tied(text: str) -> Markup:
  """Escaped text whose lines break after commas of names, and not within `p = 0.01`, `95 %`."""
  tied = re.sub(r" (?=[=%<] ?)|(?<=[=<]) ", "\N{NO-BREAK SPACE}", visible_text(text))
  return Markup(re.sub(r",(?=\S)", ",<wbr>", str(escape(tied))))


def _context(
    result: Result, comparisons: Sequence[Comparison],
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, Any]:
  """What the templates show: text, lists and records of text."""
  question, background = _question(result)
  return {
      "experiment": _experiment(result),
      "question": question,
      "background": background.strip(),
      "glance": _glance(result),
      "notes": _notes(result, comparisons, metrics),
      "tables": [_table(result, comparison, metrics) for comparison in comparisons],
      "parity": _parity_caption(result),
      "tuning": _tuning(result),
      "facts": _facts(result),
      "command": str(result.config.get("command") or ""),
      "settings": json.dumps(_settings(result), indent=2),
      "palette": PALETTE,
  }


def _question(result: Result) -> tuple[str, str]:
  """The first sentence of the question, and the rest."""
  text = str(_settings(result).get("question") or "")
  end = re.search(r"[.?!](?=\s)", text)
  return (text[:end.end()], text[end.end():]) if end else (text, "")


def _settings(result: Result) -> Mapping[str, Any]:
  return result.config.get("config") or {}


def _experiment(result: Result) -> str:
  return result.rows[0].experiment if result.rows else str(_settings(result).get("experiment", ""))


def _count(number: int, noun: str) -> str:
  return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _glance(result: Result) -> list[str]:
  """The experiment in a few words."""
  settings, timing = _settings(result), result.config.get("timing") or {}
  glance = [str(settings["dataset"])] if settings.get("dataset") else []
  arms = len({row.arm for row in result.rows})
  glance.append(f"{_count(arms, 'arm')} × {_count(len(result.seeds), 'seed')}")
  if "steps" in settings:
    glance.append(_count(settings["steps"], "step"))
  if "total_seconds" in timing:
    glance.append(duration(float(timing["total_seconds"])))
  elif "train_seconds" in timing:
    glance.append(f"trained in {duration(float(timing['train_seconds']))}")
  return glance


def _notes(
    result: Result, comparisons: Sequence[Comparison],
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[str]:
  """What a reader must know before the verdicts."""
  n = len(result.seeds)
  notes = []
  if 0 < n < 6:
    notes.append(
        f"With {_count(n, 'seed')} no test can reach significance (the smallest possible p is "
        f"{records.p_text(stats.smallest_p(n))}): no arm can be called better or worse. "
        f"Six seeds are the least; three are a smoke test.")
  notes += _endings(result)
  for metric, what in (("energy_skill", "energies"), ("force_skill", "forces")):
    poor = {arm: values[metric]["no_better_than_constant"]
            for arm, values in metrics.items() if metric in values}
    if any(poor.values()):
      notes.append(
          f"No better than the constant predictor of {what}, "
          f"{_count(sum(poor.values()), 'run')}: "
          f"{_listed({arm: count for arm, count in poor.items() if count})}.")
  return notes + _exact(result, comparisons) + _gaps(result, comparisons)


def _exact(result: Result, comparisons: Sequence[Comparison]) -> list[str]:
  """Runs with an error of exactly 0, and constant predictors that are."""
  notes = []
  for metric in COMPARED:
    counts = {
        summary.arm: summary for _, summaries in comparisons
        for summary in summaries.get(metric, ()) if summary.exact}
    if counts:
      told = "; ".join(f"{arm} ({records.exact_text(each)})" for arm, each in counts.items())
      notes.append(
          f"The {metric} is exactly 0: {told}. Exact runs are ranked best; means and ratios are of "
          "the rest, and 0 where all finished runs are exact.")
  for skill, what in (("energy_skill", "energies"), ("force_skill", "forces")):
    skills = [row.value for row in result.rows if row.split == "test" and row.metric == skill
              and not records.is_failed(row.status)]
    if skills and not np.any(np.isfinite(skills)):
      notes.append(f"The constant predictor of {what} is exact on the test split: there is no "
                   "skill to measure.")
  return notes


def _endings(result: Result) -> list[str]:
  """Runs that did not come to their last step, and why."""
  notes, runs = [], {(row.arm, row.seed) for row in result.rows}
  unfinished, stopped = result.unfinished, result.out_of_patience
  if unfinished:
    notes.append(
        f"Interrupted: {_count(sum(unfinished.values()), 'run')} unfinished, of "
        f"{_listed(unfinished)}. These arms are left out of the tables until the command that "
        "began the sweep has been given again and has finished them.")
  failed = {arm: seeds for arm, seeds in _failures(result).items() if seeds}
  if failed:
    last = _last_finite(result)
    told = "; ".join(
        f"{arm} ({_failed_text(seeds, last.get(arm, {}))})" for arm, seeds in failed.items())
    notes.append(
        f"{_count(sum(map(len, failed.values())), 'run')} of {len(runs):,} became "
        f"non-finite: {told}. They are counted and ranked worst; means and ratios are of the rest.")
  if stopped:
    counts = collections.Counter(arm for arm, _ in sorted(stopped))
    notes.append(
        f"{_count(len(stopped), 'run')} ended early because validation no longer improved "
        f"(patience): {_listed(counts)}.")
  return notes


def _last_finite(result: Result) -> dict[str, dict[int, str]]:
  """The last finite validation errors, by arm and seed, as `20.1 meV and 98 meV/Å at step 40`."""
  found: dict[tuple[str, int], dict[str, records.Point]] = {}
  for point in result.history:  # in the order of the steps
    if point.split == "valid" and point.metric in COMPARED and np.isfinite(point.value):
      found.setdefault((point.arm, point.seed), {})[point.metric] = point
  told: dict[str, dict[int, str]] = {}
  for (arm, seed), points in found.items():
    units = {metric: result.unit(metric) for metric in points}
    errors = " and ".join(
        f"{number_text(points[metric].value * units[metric].factor)} {units[metric].name}"
        for metric in COMPARED if metric in points)
    step = max(point.step for point in points.values())
    told.setdefault(arm, {})[seed] = f"{errors} at step {step}"
  return told


def _failed_text(seeds: Mapping[int, Mapping[str, str]], last: Mapping[int, str]) -> str:
  """`3: seed 0 at step 12, forces, last finite 20 meV at step 10; ...`, the first few of them."""
  told = [
      f"seed {seed} at step {each['status'].partition('@')[2]}"
      + (f", {each['cause']}" if each["cause"] else "")
      + (f", last finite {last[seed]}" if seed in last else "") for seed, each in seeds.items()]
  more = f"; and {len(told) - FAILURES_TOLD} more" if len(told) > FAILURES_TOLD else ""
  return f"{len(told)}: {'; '.join(told[:FAILURES_TOLD])}{more}"


def _listed(counts: Mapping[str, int]) -> str:
  return "; ".join(f"{arm} ({count})" for arm, count in counts.items())


def _gaps(result: Result, comparisons: Sequence[Comparison]) -> list[str]:
  """Arms without results, and arms without a table."""
  asked = dict.fromkeys(
      arm for table in result.tables for arm in records.with_baseline(table))
  absent = [arm for arm in asked if arm not in result.arms and arm not in result.unfinished]
  shown = {arm for table, _ in comparisons for arm in records.with_baseline(table)}
  left = [arm for arm in result.arms if arm not in shown]
  notes = [f"No results for: {'; '.join(absent)}."] if absent else []
  return notes + ([f"In no table, but in summary.json: {'; '.join(left)}."] if left else [])


def _table(
    result: Result, comparison: Comparison,
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, Any]:
  table, summaries = comparison
  arms = [summary.arm for summary in next(iter(summaries.values()), [])]
  contrasts = len(arms) - 1
  reach = contrasts * stats.smallest_p(len(result.seeds))
  return {
      "title": table.title,
      "baseline": table.baseline,
      "note": "" if reach < stats.SIGNIFICANCE or len(result.seeds) < 6 else (
          f"With {len(result.seeds)} seeds and {contrasts} arms to compare, Holm's adjusted p "
          f"cannot fall below {records.p_text(min(1.0, reach))}: no arm of this table can be "
          f"called better or worse. Use more seeds or compare fewer arms."),
      "metrics": [
          {"name": metric, "unit": result.unit(metric).name,
           "headline": _headline(result, table, metric, summaries[metric]),
           "sentences": _sentences(table, metric, summaries[metric])}
          for metric in summaries],
      "rows": [_line(result, arm, summaries, metrics[arm]) for arm in arms],
  }


def _headline(
    result: Result, table: Table, metric: str, summaries: Sequence[stats.ArmSummary]
) -> str:
  unit = result.unit(metric)
  verdicts = [summary.contrast.verdict for summary in summaries if summary.contrast]
  counts = [f"{verdicts.count(word)} {word}" for word in _RELATIONS if word in verdicts]
  finished = [summary for summary in summaries if np.isfinite(summary.error.centre)]
  if not finished:
    return "No run finished."
  lowest = min(finished, key=lambda summary: summary.error.centre)
  error = f"{records.error_text(lowest.error, unit.factor)} {unit.name}"
  remarks = [f"{lowest.failed} of {lowest.n} runs failed"] if lowest.failed else []
  remarks += [records.exact_text(lowest)] if lowest.exact else []
  failed = f" ({', '.join(remarks)})" if remarks else ""
  against = f"Against {table.baseline}: {', '.join(counts)}. " if counts else ""
  return f"{against}Lowest geometric mean: {error} by {lowest.arm}{failed}."


def _sentences(
    table: Table, metric: str, summaries: Sequence[stats.ArmSummary]
) -> list[dict[str, str]]:
  """A verdict for each arm; the clear ones first, each kind from the lowest ratio up."""
  order = list(_RELATIONS)
  baseline = next(summary for summary in summaries if summary.contrast is None)
  compared = [(summary, summary.contrast) for summary in summaries if summary.contrast]
  compared.sort(key=lambda pair: (order.index(pair[1].verdict), np.nan_to_num(pair[1].ratio)))
  return [
      {"arm": summary.arm, "verdict": contrast.verdict, "relation": _RELATIONS[contrast.verdict],
       "against": f"{table.baseline} on {metric}",
       "evidence": _evidence(summary, contrast, baseline)}
      for summary, contrast in compared]


def _evidence(
    summary: stats.ArmSummary, contrast: stats.Contrast, baseline: stats.ArmSummary
) -> str:
  p = records.p_text(contrast.p_adjusted)
  p = f"Holm p {p}" if p.startswith("<") else f"Holm p = {p}"
  ratio = records.ratio_text(stats.Interval(*contrast[:3]))
  if contrast.pairs == 0:
    text = f"in no pair did both runs finish ({p})"
  elif np.isnan(contrast.ratio):
    text = f"an error and an exact 0 have no ratio ({p})"
  elif not ratio.ends:
    text = f"{ratio.centre} times the error (no interval from one pair, {p})"
  else:
    low_to_high = ratio.ends.strip("[]").replace(", ", " to ")
    text = f"{ratio.centre} times the error (95 % interval {low_to_high}, {p})"
  failures = [f"{each.failed} of {each.n} runs of {each.arm} failed"
              for each in (summary, baseline) if each.failed]
  exact = [f"{each.arm} is {records.exact_text(each)}"
           for each in (summary, baseline) if each.exact]
  return "; ".join([text, *failures, *exact])


def _line(
    result: Result, arm: str, summaries: Mapping[str, Sequence[stats.ArmSummary]],
    metrics: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
  """One line of a table, as text."""
  of_arm = {metric: next(each for each in by_arm if each.arm == arm)
            for metric, by_arm in summaries.items()}
  first = next(iter(of_arm.values()))
  rate = first.failure_rate
  return {
      "arm": arm, "runs": str(first.n), "failed": str(first.failed),
      "failed_interval": f"{100 * rate.low:.0f}–{100 * rate.high:.0f} %",
      "cells": [_cells(summary, result.unit(metric).factor) for metric, summary in of_arm.items()],
      "skills": [_skill(metrics.get(name), first.n) for name in SKILLS],
      "efwt": _share(metrics.get("efwt")),
  }


def _skill(values: Mapping[str, Any] | None, n: int) -> dict[str, str]:
  if values is None or not np.isfinite(values["centre"]):
    return {"centre": "–", "poor": ""}
  poor = values["no_better_than_constant"]
  return {"centre": number_text(values["centre"]),
          "poor": f"{poor} of {n} ≤ 0" if poor else ""}


def _share(values: Mapping[str, Any] | None) -> str:
  return "–" if values is None or np.isnan(values["centre"]) else f"{values['centre']:.2f}"


def _cells(summary: stats.ArmSummary, factor: float) -> dict[str, Any]:
  cells = {"error": records.error_text(summary.error, factor),
           "exact": records.exact_text(summary)}
  contrast = summary.contrast
  if contrast is None:
    return cells | {"ratio": records.IntervalText("", ""), "p": "", "verdict": "baseline"}
  return cells | {
      "ratio": records.ratio_text(stats.Interval(*contrast[:3])),
      "p": records.p_text(contrast.p_adjusted), "verdict": contrast.verdict}


def _parity_caption(result: Result) -> str:
  if "arm" not in result.parity:
    return ""
  seed = f", seed {result.parity['seed']}" if "seed" in result.parity else ""
  return f"{result.parity['arm']}{seed}"


# Where and how it ran


def _facts(result: Result) -> list[tuple[str, str]]:
  """Labels and values of what is known of the run."""
  settings, dataset = _settings(result), result.config.get("dataset") or {}
  split = settings.get("split")
  facts = _flat(dataset) if isinstance(dataset, Mapping) else []
  facts = [("data set" if label == "name" else label, value) for label, value in facts]
  if not facts and "dataset" in settings:
    facts.append(("data set", str(settings["dataset"])))
  if isinstance(split, Mapping):
    facts.append(("split", ", ".join(
        f"the rest {name}" if split[name] is None else f"{split[name]:,} {name}"
        for name in ("train", "valid", "test") if name in split)))
  facts += [(name.replace("_", " "), f"{settings[name]:,}")
            for name in ("steps", "batch_size") if isinstance(settings.get(name), int)]
  facts.append(("seeds", ", ".join(map(str, result.seeds))))
  return facts + _flat(result.config.get("timing") or {}) + _flat(
      result.config.get("environment") or {})


def _tuning(result: Result) -> dict[str, Any]:
  """Validation error of each arm at each learning rate tried; empty if none was tuned."""
  tuning = result.config.get("tuning") or {}
  if not {"learning_rates", "seeds", "scores", "chosen"} <= set(tuning):
    return {}
  rates = tuning["learning_rates"]
  return {
      "rates": [f"{rate:g}" for rate in rates],
      "seeds": ", ".join(map(str, tuning["seeds"])),
      "rows": [
          {"arm": arm, "scores": [
              {"text": number_text(math.inf if score is None else score),
               "chosen": rate == tuning["chosen"][arm]}
              for rate, score in zip(rates, scores, strict=True)]}
          for arm, scores in tuning["scores"].items()]}


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Labels and values as text; a nested record takes one line."""
  return [
      (key.removesuffix("_seconds").replace("_", " ") + " time", duration(float(value)))
      if key.endswith("_seconds") and isinstance(value, (int, float))
      else (key.replace("_", " "), _plain(value))
      for key, value in values.items()]


def _plain(value: Any) -> str:
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, Mapping):
    return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
  if isinstance(value, (list, tuple)):
    return ", ".join(map(_plain, value))
  return "unknown" if value is None else str(value)
