"""Statistics in words and numbers, and tables of them as Markdown and HTML."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import escape

from dcnn import stats
from dcnn.base.text import number_text, one_line

WITHIN = "within 12 %"  # what `equivalent` means, see stats.verdict


class IntervalText(NamedTuple):
  """An estimate and its interval as text, such as `1.82` and `[1.70, 1.95]`.

  Attributes:
    centre: The estimate.
    ends: The interval; empty where there is none.
  """

  centre: str
  ends: str

  def __str__(self) -> str:
    """Both in a line."""
    return " ".join(filter(None, self))


class Cells(NamedTuple):
  """What a table shows of an arm and a metric.

  Attributes:
    error: The geometric mean of the error, and its interval.
    exact: How many runs have an error of 0; empty where none has.
    ratio: The ratio to the baseline and its interval; empty for the baseline itself.
    p: The adjusted p; empty for the baseline.
    verdict: What the tests conclude, or `baseline`.
  """

  error: IntervalText
  exact: str
  ratio: IntervalText
  p: str
  verdict: str


def cells(summary: stats.ArmSummary, factor: float) -> Cells:
  """The statistics of an arm as the cells of a table.

  Args:
    summary: The statistics, in the unit of results.csv.
    factor: What to multiply the error by, for the unit in which it is shown.
  """
  contrast = summary.contrast
  error = error_text(summary.error, factor), exact_text(summary)
  if contrast is None:
    return Cells(*error, IntervalText("", ""), "", "baseline")
  return Cells(*error, ratio_text(stats.Interval(*contrast[:3])), p_text(contrast.p_adjusted),
               contrast.verdict)


def error_text(interval: stats.Interval, factor: float = 1.0) -> IntervalText:
  """An error and its interval, to three significant figures of the error.

  Args:
    interval: The error, in the unit of results.csv.
    factor: What to multiply it by, for the unit in which it is shown.
  """
  return _interval_text(interval.centre * factor, *(end * factor for end in interval))


def ratio_text(interval: stats.Interval) -> IntervalText:
  """A ratio and its interval: two decimals from 0.1 to 10, otherwise three significant figures."""
  like = max(interval.centre, 1.0) if interval.centre >= 0.1 else interval.centre
  return _interval_text(like, *interval)


def _interval_text(like: float, centre: float, low: float, high: float) -> IntervalText:
  known = np.isfinite(low) and np.isfinite(high)
  ends = f"[{number_text(low, like)}, {number_text(high, like)}]" if known else ""
  return IntervalText(number_text(centre, like), ends)


def exact_text(summary: stats.ArmSummary) -> str:
  """How many runs are exact, as `exact in 3 of 10 runs`; empty where no error is exactly 0."""
  return f"exact in {summary.exact} of {summary.n} runs" if summary.exact else ""


def p_text(p: float) -> str:
  """A p value to two significant figures, or `< 0.001`."""
  if p < 0.001:
    return "< 0.001"
  return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def p_words(p: float) -> str:
  """A p value as `p = 0.012` or `p < 0.001`."""
  return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def quantity_text(value: str, unit: str) -> str:
  """A number and its unit, as `18.2 mm`; the number alone where the unit is 1."""
  return value if unit == "1" else f"{value} {unit}"


def heading(name: str, unit: str) -> str:
  """The head of a column or the label of an axis, as `width (mm)`; the name where the unit is 1."""
  return name if unit == "1" else f"{name} ({unit})"


def count_text(number: int, noun: str) -> str:
  """A number of things, as `1 run` or `1,200 runs`."""
  return f"{number:,} {noun}" + ("" if number == 1 else "s")


def shorten(name: str, longest: int) -> str:
  """A name in one line, without its middle where it is too long.

  Args:
    name: The name of an arm or of an experiment.
    longest: How many characters are left at most.
  """
  name, half = one_line(name), longest // 2
  return name if len(name) <= longest else f"{name[:half]}…{name[half + 1 - longest:]}"


def markdown_text(text: str) -> str:
  """Text that Markdown shows as it is, also within the cell of a table."""
  text = one_line(text)
  for plain, written in (
      ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\\", "\\\\"), ("|", "\\|"), ("`", "\\`"),
      ("*", "\\*"), ("[", "\\["), ("]", "\\]"), ("~", "\\~"), ("$", "\\$")):
    text = text.replace(plain, written)
  text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # but not within init_matched
  # What would begin a heading, a list or a rule where the text begins a line.
  return re.sub(r"^(#{1,6}(?=\s|$)|[-+](?=\s|$|-)|=+$|\d{1,9}(?=[.)](\s|$)))",
                lambda found: found[0] + "\\" if found[0].isdigit() else "\\" + found[0], text)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table whose columns line up as plain text.

  Args:
    rows: The cells of each line; the first holds the heads of the columns.
  """
  rows = [[one_line(cell).replace("|", "\\|") for cell in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
      "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
      for row in rows]
  return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|",
                    *lines[1:]])


def html_table(caption: str, rows: Sequence[Sequence[str]]) -> str:
  """An HTML table in the colours and fonts of the page around it.

  Args:
    caption: The title of the table; it is escaped, as the cells are.
    rows: The cells of each line; the first holds the heads of the columns.
  """
  def line(kind: str, row: Sequence[str]) -> str:
    return "<tr>" + "".join(
        f'<{kind} style="text-align: left">{escape(one_line(cell))}</{kind}>'
        for cell in row) + "</tr>"

  return (f"<table><caption>{escape(one_line(caption))}</caption>"
          f"<thead>{line('th', rows[0])}</thead>"
          f"<tbody>{''.join(line('td', row) for row in rows[1:])}</tbody></table>")
