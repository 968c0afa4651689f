"""Reports of a finished sweep, drawn from its files alone.

`write` leaves summary.json, report.md, report.html and figures/ beside the files that
`storage.save` wrote. The page is one file without network, whose policy lets a browser run one
script and no other; everything that users name or write is escaped.
"""

import base64
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import sys
import textwrap
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
from markupsafe import Markup, escape

from dcnn.base import files
from dcnn.base.text import one_line, visible_text
from dcnn.results import answers, facts, notes, storage, text, uncertainty, verdicts
from dcnn.results.measures import figure_name
from dcnn.results.palette import PALETTE
from dcnn.results.records import Result
from dcnn.results.summary import (
    ArmMetrics,
    Comparison,
    arm_metrics,
    compare,
    experiment_name,
    metrics_of_kind,
    shares_above_zero,
    summary,
)


def write(directory: str | os.PathLike[str]) -> pathlib.Path:
  """Writes the reports of a finished sweep.

  Args:
    directory: The work directory, with config.json and results.csv.

  Returns:
    Where report.html is.

  Raises:
    ValueError: If the files are missing, or hold no test results for some run.
  """
  directory = pathlib.Path(directory)
  result = storage.load(directory)
  try:
    comparisons, metrics = compare(result), arm_metrics(result)
  except ValueError as error:
    raise ValueError(f"{directory / storage.ROWS_FILE}: {error}") from error
  files.write_json(directory / storage.SUMMARY_FILE, summary(result, comparisons, metrics))
  drawings, failures = _drawings(result, comparisons)
  (directory / storage.FIGURES).mkdir(exist_ok=True)
  for name, drawing in drawings.items():
    files.write_file(directory / storage.FIGURES / f"{name}.svg", drawing.file)
  context = _context(result, comparisons, metrics)
  context["notes"] += failures
  context["figures"] = {
      name: list(map(Markup, drawing.inline)) for name, drawing in drawings.items()}
  context["curves"] = any(name.startswith("learning_curves") for name in drawings)
  context["script"], context["script_hash"] = _script()
  for name, environment in zip(storage.REPORT_FILES, (_markdown(), _page()), strict=True):
    content = environment.get_template(f"{name}.j2").render(context)
    files.write_file(directory / name, content.encode())
  return directory / "report.html"


def load_figures() -> types.ModuleType:
  """The module that draws, imported when it is needed: Matplotlib takes a second.

  Matplotlib reads the user's settings as it is imported, and fails on some. MPLBACKEND, which is
  for windows, takes effect afterwards, if it names a backend that is there.

  Raises:
    Exception: Of any kind.
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
  """The figures by name, and a note on each that cannot be drawn, which is a warning, too."""
  try:
    figures = load_figures()
  except Exception as error:  # of Matplotlib as it is imported, or of the user's settings of it
    drawings, failures = {}, {"all": error}
  else:
    drawings, failures = figures.drawings(result, comparisons)
  lines = [f"Without figures ({name}), which could not be drawn: "
           f"{textwrap.shorten(f'{type(error).__name__}: {error}', 200, placeholder=' ...')}."
           for name, error in failures.items()]
  for line in lines:
    warnings.warn(line, stacklevel=3)
  return drawings, lines


@functools.cache
def _script() -> tuple[Markup, str]:
  """The script of the page, and its hash, by which the policy of the page names it."""
  script = (pathlib.Path(__file__).parent / "templates" / "report.js").read_text("utf-8")
  digest = hashlib.sha256(script.encode()).digest()
  return Markup(script), f"sha256-{base64.b64encode(digest).decode()}"


@functools.cache
def _page() -> jinja2.Environment:
  """The environment of the HTML template, which makes visible and escapes every expression."""
  def tie(words: str) -> Markup:
    """Escaped text whose lines break after commas of names, and not within `p = 0.01`, `95 %`."""
    tied = re.sub(r" (?=[=%<] ?)|(?<=[=<]) ", "\N{NO-BREAK SPACE}", visible_text(words))
    return Markup(re.sub(r",(?=\S)", ",<wbr>", str(escape(tied))))

  environment = _environment(True, visible_text)
  environment.filters["tie"] = tie
  return environment


@functools.cache
def _markdown() -> jinja2.Environment:
  """The environment of the Markdown template, which escapes every expression."""
  environment = _environment(False, text.markdown_text)
  environment.filters["middle"] = lambda words: Markup(_spaced(words))
  environment.filters["code"] = lambda words: Markup(one_line(words))
  return environment


def _spaced(words: str) -> str:
  """Text inside a line of Markdown, which keeps the spaces at its ends."""
  return " " * words.startswith(" ") + text.markdown_text(words) + " " * words.endswith(" ")


def _environment(autoescape: bool, show: Callable[[str], str]) -> jinja2.Environment:
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader("dcnn.results"), undefined=jinja2.StrictUndefined,
      autoescape=autoescape,
      finalize=lambda value: value if isinstance(value, Markup) else show(str(value)),
      trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
  environment.filters["html"] = lambda words: Markup(escape(one_line(words)))
  return environment


def _context(
    result: Result, comparisons: Sequence[Comparison], metrics: ArmMetrics
) -> dict[str, Any]:
  """What the templates show: text, and lists and records of text."""
  question, background = facts.question(result)
  pictures = result.measures.pictures
  run = result.predictions if "arm" in result.predictions else {}  # that the pictures show
  return {
      "experiment": experiment_name(result),
      "question": question,
      "background": background,
      "glance": facts.glance(result),
      "limits": notes.limits(result),
      "look": facts.look(result),
      "notes": notes.notes(result, comparisons, metrics),
      "tables": verdicts.tables(result, comparisons, metrics),
      "stories": answers.stories(result, comparisons),
      "glossary": facts.glossary(result),
      "predictions": {
          "name": figure_name(pictures),
          "titles": ", ".join(picture.title for picture in pictures),
          "run": ", seed ".join(f"{run[part]}" for part in ("arm", "seed") if part in run),
          "caption": result.measures.caption},
      "learning_rates": facts.learning_rates(result),
      "calibrations": uncertainty.calibrations(result),
      "facts": facts.facts(result),
      "command": str(result.config.get("command") or ""),
      "settings": json.dumps(facts.settings(result), indent=2),
      "definitions": _definitions(result, metrics),
      "palette": PALETTE,
  }


_SKILL = (
    "1 − error / error of the constant predictor. Shown is 1 − the geometric mean of these ratios "
    "over the finished runs. A run of skill ≤ 0 has learnt nothing of use.")


def _definitions(result: Result, metrics: ArmMetrics) -> list[tuple[str, str]]:
  """The metrics that tables show, and what they mean; those of one meaning share an entry."""
  entries: dict[str, list[str]] = {}
  for metric in map(result.metric, filter(result.has, result.compared)):
    entries.setdefault(metric.meaning, []).append(metric.name)
  skills = metrics_of_kind(result, "skill")
  for metric in skills:
    one = len({skill.meaning for skill in skills}) == 1
    name = "Skill" if one else f"Skill, {metric.label or metric.name}"
    entries.setdefault(metric.meaning or _SKILL, []).append(name)
  for metric in shares_above_zero(result, metrics):
    entries.setdefault(metric.meaning, []).append(metric.label or metric.name)
  return [(", ".join(dict.fromkeys(names)), meaning)
          for meaning, names in entries.items() if meaning]
