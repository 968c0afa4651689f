"""The record of a sweep, and its files.

A work directory holds `config.json` (what ran, where and how long), `results.csv` (one line for
each run, split and metric), `history.csv` (the curves) and `predictions.npz` (reference and
prediction of one run). The files hold eV and angstrom; text for readers is in meV where that
reads better. Equal results give equal bytes.
"""

import collections
import csv
import dataclasses
import io
import json
import os
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from markupsafe import escape

from dcnn import stats
from dcnn.base import files, wording
from dcnn.base.text import Unit, display_unit, number_text, one_line
from dcnn.results import schemas

CONFIG_FILE = "config.json"
ROWS_FILE = "results.csv"
HISTORY_FILE = "history.csv"
PARITY_FILE = "predictions.npz"
SUMMARY_FILE, REPORT_FILES, FIGURES = "summary.json", ("report.md", "report.html"), "figures"

# How a run ended; but for `finished`, @ and the step follow.
FINISHED, PATIENCE, DIVERGED, INTERRUPTED = "finished", "patience", "diverged", "interrupted"

_AGAIN = "The training command writes it again from its checkpoints"
COMPARED = ("energy_loss", "force_loss")
_LONGEST_NAME = 30  # of an arm in a `repr`


class Row(NamedTuple):
  """One metric of one run: a line of results.csv.

  Attributes:
    experiment: its name.
    arm: what differs from the base configuration.
    seed: shared by all arms.
    split: train, valid or test.
    metric: energy_loss, force_loss, ...
    unit: of the value: eV, eV/A or 1.
    value: of the checkpoint that validation chose; of a diverged run, before it diverged.
    step: of that checkpoint.
    status: `finished`, `patience@STEP`, `diverged@STEP` or, of a run that can be continued,
      `interrupted@STEP`.
    cause: of a diverged run what was not finite: loss terms joined by `+`; where all were finite,
      `gradient` or `parameters`; `validation` if no validation ever was.
  """

  experiment: str
  arm: str
  seed: int
  split: str
  metric: str
  unit: str
  value: float
  step: int
  status: str
  cause: str = ""


class Point(NamedTuple):
  """One point of a curve: a line of history.csv; in the unit of the metric."""

  arm: str
  seed: int
  step: int
  split: str
  metric: str
  value: float


class Table(NamedTuple):
  """What the user asked to compare.

  Attributes:
    title: of the table.
    baseline: the arm that the others are compared with.
    arms: in the order shown; the baseline may be among them.
  """

  title: str
  baseline: str
  arms: tuple[str, ...]



class IntervalText(NamedTuple):
  """An estimate and its interval as text: `1.82`, `[1.70, 1.95]`; no ends, no interval."""

  centre: str
  ends: str

  def __str__(self) -> str:
    """Both in a line."""
    return " ".join(filter(None, self))


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
  """A finished sweep.

  Attributes:
    config: what config.json holds: `config`, `environment`, `command` and `timing`.
    rows: the results.
    history: the curves.
    tables: the comparisons asked for.
    parity: energy_true, energy_predicted (frames) in eV, forces_true, forces_predicted (flat) in
      eV/A of one run on its test split, and which: arm, seed. May be empty.
    trained: of `dcnn.sweep` alone: the trained variables of each arm, as `checkpoints.load` gives
      them. No file of a result holds them, and they are not compared.
  """

  config: dict[str, Any]
  rows: tuple[Row, ...]
  history: tuple[Point, ...]
  tables: tuple[Table, ...]
  parity: dict[str, np.ndarray]
  trained: dict[str, dict[str, Any]] = dataclasses.field(
      default_factory=dict, compare=False, repr=False)

  @property
  def arms(self) -> tuple[str, ...]:
    """Names of the arms whose runs have all ended, in the order of the rows."""
    unfinished = self.unfinished
    return tuple(dict.fromkeys(row.arm for row in self.rows if row.arm not in unfinished))

  @property
  def unfinished(self) -> dict[str, int]:
    """How many runs can still be continued, of each arm that has such runs."""
    runs = {(row.arm, row.seed) for row in self.rows if is_interrupted(row.status)}
    return collections.Counter(arm for arm, _ in sorted(runs))

  @property
  def seeds(self) -> tuple[int, ...]:
    """Seeds that have results, in the order of the rows."""
    return tuple(dict.fromkeys(row.seed for row in self.rows))

  @property
  def failed(self) -> tuple[tuple[str, int], ...]:
    """Arm and seed of the runs that failed, in the order of the rows."""
    return tuple(dict.fromkeys((row.arm, row.seed) for row in self.rows if is_failed(row.status)))

  @property
  def out_of_patience(self) -> tuple[tuple[str, int], ...]:
    """Arm and seed of the runs that patience ended, in the order of the rows."""
    return tuple(dict.fromkeys(
        (row.arm, row.seed) for row in self.rows if is_out_of_patience(row.status)))

  @property
  def comparisons(self) -> tuple[Table, ...]:
    """The tables asked for; where there is none, all arms against the first."""
    known = tuple(dict.fromkeys(row.arm for row in self.rows))
    return self.tables or ((Table("All arms", known[0], known),) if known else ())

  def __repr__(self) -> str:
    """What it is, how far it has come and how to see the tables, in a few words."""
    return f"<Result of {self._outline()}; .table(baseline=ARM) compares the arms>"

  def _repr_html_(self) -> str:
    """The tables for a notebook: test errors, ratios and verdicts."""
    rows = [f"<p>{escape(self._outline())}</p>"]
    for table in self.comparisons:
      for metric in COMPARED if table.baseline in self.arms else ():
        if self.has(metric):
          rows.append(_html(f"{table.title}: {metric}", self._table_cells(table, metric)))
    return "".join(rows)

  def _outline(self) -> str:
    arms, first = list(dict.fromkeys(row.arm for row in self.rows)), self.rows[:1]
    named = ", ".join(_short(arm) for arm in arms[:3]) + (", ..." if arms[3:] else "")
    endings = [f"{len(self.failed)} failed"] * bool(self.failed)
    endings += [f"{sum(self.unfinished.values())} unfinished"] * bool(self.unfinished)
    return ", ".join([
        *(f"{_short(row.experiment)!r}: {len(arms)} arms ({named})" for row in first),
        f"{len(self.seeds)} seeds",
        "splits " + ("/".join(dict.fromkeys(row.split for row in self.rows)) or "none"),
        f"{len({(row.arm, row.seed) for row in self.rows})} runs"
        + (f" of which {' and '.join(endings)}" if endings else "")])

  def has(self, metric: str) -> bool:
    """Whether there are test results of a metric."""
    return any(row.metric == metric and row.split == "test" for row in self.rows)

  def errors(self, metric: str, split: str = "test") -> dict[str, Float[np.ndarray, " seeds"]]:
    """Values of a metric for each arm over the seeds, inf where the run failed.

    Args:
      metric: energy_loss, force_loss or another of results.csv.
      split: train, valid or test.

    Returns:
      By arm, in the order of `arms`; the seeds in the order of `seeds`; in the unit of the rows.

    Raises:
      ValueError: if there is no such metric or split, or a run has no such row.
    """
    rows = [row for row in self.rows if row.metric == metric and row.split == split]
    if not rows:
      known = sorted({f"{row.metric} on {row.split}" for row in self.rows})
      raise ValueError(
          f"expected a metric and a split that the results have, got {metric!r} on {split!r}; "
          f"known: {', '.join(known) or 'none'}")
    arms, seeds = self.arms, self.seeds
    values = {(row.arm, row.seed): row.value for row in rows}
    values |= {(row.arm, row.seed): np.inf for row in self.rows if is_failed(row.status)}
    missing = [(arm, seed) for arm in arms for seed in seeds if (arm, seed) not in values]
    if missing:
      raise ValueError(
          f"expected {metric} on {split} for every arm and seed, got none for arm "
          f"{missing[0][0]!r}, seed {missing[0][1]} ({len(missing)} missing in all); the sweep may "
          f"not have finished")
    return {arm: _with_inf([values[arm, seed] for seed in seeds]) for arm in arms}

  def compare(
      self, table: Table, metric: str, *, split: str = "test"
  ) -> list[stats.ArmSummary]:
    """The arms of a table against its baseline; see `stats.compare`.

    Args:
      table: arms without results are left out.
      metric: a positive error.
      split: train, valid or test.

    Returns:
      One summary for each arm, the baseline first unless the table puts it elsewhere; in the unit
      of the rows.

    Raises:
      ValueError: if the baseline has no results.
    """
    errors = self.errors(metric, split)
    return stats.compare(
        {arm: errors[arm] for arm in with_baseline(table) if arm in errors}, table.baseline)

  def table(
      self, baseline: str | None = None, metrics: Sequence[str] | None = None
  ) -> str:
    """Comparison tables as text, which is Markdown too: test errors, ratios and verdicts.

    Args:
      baseline: compare all arms with this one; by default the tables that the config lists.
      metrics: one table for each; by default energy_loss and, where forces are known, force_loss.

    Returns:
      Lines of text.

    Raises:
      ValueError: if the baseline is unknown, or neither it nor the config says what to compare.
    """
    if baseline is None and not self.tables:
      raise ValueError(
          f"expected a baseline, as the config lists no tables; the arms are "
          f"{', '.join(self.arms)}")
    tables = self.tables if baseline is None else (Table("All arms", baseline, self.arms),)
    metrics = tuple(filter(self.has, COMPARED)) if metrics is None else metrics
    return "\n\n".join(
        self._table_text(table, metric) for table in tables for metric in metrics)

  def _table_text(self, table: Table, metric: str) -> str:
    title = one_line(f"{table.title}: {metric}")
    return f"{title}\n\n{_aligned(self._table_cells(table, metric))}"

  def _table_cells(self, table: Table, metric: str) -> list[tuple[str, ...]]:
    """Headings, and a line for each arm."""
    unit = self.unit(metric)
    heads = ("arm", "n", "failed", f"{metric} ({unit.name})", f"ratio to {table.baseline}",
             "Holm p", "verdict")
    return [heads, *(_summary_cells(summary, unit.factor)
                     for summary in self.compare(table, metric))]

  def unit(self, metric: str) -> Unit:
    """The unit in which a metric is shown: meV where the typical test error is below 10 eV."""
    values = [row.value for row in self.rows if row.metric == metric and row.split == "test"]
    name = next((row.unit for row in self.rows if row.metric == metric), "1")
    return display_unit(name, np.array(values))


def is_failed(status: str) -> bool:
  """Whether a run of this status failed."""
  return status.startswith(DIVERGED)


def is_out_of_patience(status: str) -> bool:
  """Whether a run of this status ended because validation no longer improved."""
  return status.startswith(PATIENCE)


def is_interrupted(status: str) -> bool:
  """Whether a run of this status can be continued."""
  return status.startswith(INTERRUPTED)


def with_baseline(table: Table) -> tuple[str, ...]:
  """The arms of a table in order, with the baseline first where the table does not list it."""
  return table.arms if table.baseline in table.arms else (table.baseline, *table.arms)


def error_text(interval: stats.Interval, factor: float = 1.0) -> IntervalText:
  """An error and its interval, to three significant figures of the error.

  Args:
    interval: in the unit of the rows.
    factor: to the unit shown.
  """
  return _interval_text(interval.centre * factor, *(end * factor for end in interval))


def ratio_text(interval: stats.Interval) -> IntervalText:
  """A ratio and its interval: two decimals from 0.1 to 10, otherwise three significant figures."""
  like = max(interval.centre, 1.0) if interval.centre >= 0.1 else interval.centre
  return _interval_text(like, *interval)


def exact_text(summary: stats.ArmSummary) -> str:
  """`exact in 3 of 10 runs`; nothing where no run has an error of exactly 0."""
  return f"exact in {summary.exact} of {summary.n} runs" if summary.exact else ""


def p_text(p: float) -> str:
  """A p value to two significant figures, or `< 0.001`."""
  if p < 0.001:
    return "< 0.001"
  return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def save(result: Result, directory: str | os.PathLike[str]) -> None:
  """Writes the files of a result.

  Each file is complete before it takes its name. Floats are written so that they read back equal.

  Args:
    result: to write.
    directory: made where it is missing.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  tables = [{**table._asdict(), "arms": list(table.arms)} for table in result.tables]
  config = {**result.config, "config": {**result.config.get("config", {}), "tables": tables}}
  files.write_file(directory / ROWS_FILE, _csv(Row._fields, result.rows))
  files.write_file(directory / HISTORY_FILE, _csv(Point._fields, result.history))
  arrays = io.BytesIO()
  parity: dict[str, Any] = {name: result.parity[name] for name in sorted(result.parity)}
  np.savez_compressed(arrays, **parity)
  files.write_file(directory / PARITY_FILE, arrays.getvalue())
  files.write_json(directory / CONFIG_FILE, config)  # last: its times say that the rest is there


def load(directory: str | os.PathLike[str]) -> Result:
  """Reads the files of a result.

  Args:
    directory: what `save` wrote; curves and predictions may be missing.

  Returns:
    The result as it was saved.

  Raises:
    ValueError: if config.json or results.csv is missing, or a file is not what `save` writes.
  """
  directory = pathlib.Path(directory)
  for name in (CONFIG_FILE, ROWS_FILE):
    if not (directory / name).is_file():
      raise ValueError(
          f"expected the work directory of a run, with {name}, got {str(directory)!r}, which has "
          f"none; give the {wording.workdir()} of a run that has finished")
  config = read_config(directory / CONFIG_FILE)
  history, parity = directory / HISTORY_FILE, directory / PARITY_FILE
  return Result(
      config=config,
      rows=_read_csv(directory / ROWS_FILE, Row, schemas.row_keys, schemas.row_problem),
      history=_read_csv(history, Point, schemas.point_keys, schemas.point_problem)
      if history.is_file() else (),
      tables=tables_of(config),
      parity=_read_arrays(parity) if parity.is_file() else {},
  )


def read_config(path: pathlib.Path, required: Sequence[str] = ()) -> dict[str, Any]:
  """Reads a config.json; what it holds of what reports and sweeps read has the right form.

  Args:
    path: what `save` or `workdirs.begin` wrote. Parts may be missing.
    required: dotted names of the parts that may not.

  Raises:
    ValueError: if it is something else, naming the part.
    OSError: if it cannot be read.
  """
  try:
    # NaN and Infinity, which are no JSON, stood for what is null now.
    config = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path}: expected JSON ({error})") from error
  problem = schemas.config_problem(config, required)
  if problem:
    raise ValueError(f"{path}: {problem}")
  return config


def tables_of(config: dict[str, Any]) -> tuple[Table, ...]:
  """The comparisons that a config.json from `read_config` lists."""
  return tuple(
      Table(table["title"], table["baseline"], tuple(table["arms"]))
      for table in config.get("config", {}).get("tables", []))


def markdown_text(text: str) -> str:
  """Text that Markdown, a table cell included, shows as it is."""
  text = one_line(text)
  for plain, written in (
      ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\\", "\\\\"), ("|", "\\|"), ("`", "\\`"),
      ("*", "\\*"), ("[", "\\["), ("]", "\\]"), ("~", "\\~"), ("$", "\\$")):
    text = text.replace(plain, written)
  text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # but not within init_matched
  # What would begin a heading, a list or a rule where the text begins a line.
  return re.sub(r"^(#{1,6}(?=\s|$)|[-+](?=\s|$|-)|=+$|\d{1,9}(?=[.)](\s|$)))",
                lambda found: found[0] + "\\" if found[0].isdigit() else "\\" + found[0], text)


def _with_inf(values: list[float]) -> np.ndarray:
  errors = np.array(values, np.float64)
  return np.where(np.isfinite(errors), errors, np.inf)


def _interval_text(like: float, centre: float, low: float, high: float) -> IntervalText:
  known = np.isfinite(low) and np.isfinite(high)
  ends = f"[{number_text(low, like)}, {number_text(high, like)}]" if known else ""
  return IntervalText(number_text(centre, like), ends)


def _summary_cells(summary: stats.ArmSummary, factor: float) -> tuple[str, ...]:
  contrast = summary.contrast
  exact = exact_text(summary)
  cells = (summary.arm, str(summary.n), str(summary.failed),
           str(error_text(summary.error, factor)) + (f" ({exact})" if exact else ""))
  if contrast is None:
    return (*cells, "", "", "baseline")
  return (*cells, str(ratio_text(stats.Interval(*contrast[:3]))), p_text(contrast.p_adjusted),
          contrast.verdict)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table whose columns line up as plain text."""
  rows = [[one_line(cell).replace("|", "\\|") for cell in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
      "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
      for row in rows]
  return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|",
                    *lines[1:]])


def _html(caption: str, rows: Sequence[Sequence[str]]) -> str:
  """The same as an HTML table, in the colours and fonts of the page around it."""
  def line(kind: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(
        f'<{kind} style="text-align: left">{escape(one_line(cell))}</{kind}>'
        for cell in cells) + "</tr>"

  return (f"<table><caption>{escape(one_line(caption))}</caption>"
          f"<thead>{line('th', rows[0])}</thead>"
          f"<tbody>{''.join(line('td', row) for row in rows[1:])}</tbody></table>")


def _short(name: str) -> str:
  name = one_line(name)
  return name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME - 1] + "…"


def _csv(header: Iterable[str], rows: Iterable[tuple]) -> bytes:
  text = io.StringIO(newline="")
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(header)
  writer.writerows(
      [repr(float(cell)) if isinstance(cell, (float, np.floating)) else cell for cell in row]
      for row in rows)
  return text.getvalue().encode()


_Record = TypeVar("_Record", Row, Point)


def _read_csv(
    path: pathlib.Path, record: type[_Record], keys: Callable[[_Record], tuple[tuple, ...]],
    problem: Callable[[_Record, Mapping[tuple, _Record]], str],
) -> tuple[_Record, ...]:
  types = [record.__annotations__[field] for field in record._fields]
  reader = csv.reader(io.StringIO(_text(path), newline=""))
  expected, cells = f"the header {','.join(record._fields)}", []
  rows: list[_Record] = []
  earlier: dict[tuple, _Record] = {}
  try:
    cells = next(reader, [])
    if cells != list(record._fields):
      raise ValueError("another file")
    expected = f"{len(types)} cells ({','.join(record._fields)})"
    for cells in reader:
      row = record(*(convert(cell) for convert, cell in zip(types, cells, strict=True)))
      wrong = problem(row, earlier)
      if wrong:
        raise ValueError(wrong)
      earlier |= dict.fromkeys(keys(row), row)
      rows.append(row)
  except (ValueError, csv.Error) as error:
    got = textwrap.shorten(",".join(cells), 100, placeholder=" ...") or "nothing"
    raise ValueError(f"{path}, line {reader.line_num or 1}: expected {expected}, got {got}: "
                     f"{error}. {_AGAIN}") from error
  return tuple(rows)


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_bytes().decode()
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: expected UTF-8 text, got {error}. {_AGAIN}") from error


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds on damaged bytes
    raise ValueError(f"{path}: expected the predictions that a sweep writes, got something else "
                     f"or a damaged file. {_AGAIN}") from error
  problem = schemas.arrays_problem(arrays)
  if problem:
    raise ValueError(f"{path}: {problem}. {_AGAIN}")
  return arrays
