"""The result of a sweep: its rows, its curves, and the comparison of its arms."""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from markupsafe import escape

from dcnn import stats
from dcnn.base.measures import Measures, Metric
from dcnn.base.text import Unit, display_unit, one_line, suggestion
from dcnn.results import measures, text

if TYPE_CHECKING:
  import matplotlib.figure
  import pandas

# How a run ended; but for `finished`, @ and the step follow.
FINISHED, PATIENCE, DIVERGED, INTERRUPTED = "finished", "patience", "diverged", "interrupted"

ALL_ARMS = "All arms"  # the title of the table that compares all with one, where none is asked for
_LONGEST_NAME = 30  # of an arm or an experiment in a `repr`


class Row(NamedTuple):
  """One metric of one run: a line of results.csv.

  Attributes:
    experiment: The name of the experiment.
    arm: The name of the arm: what differs from the base configuration.
    seed: The seed of the run; all arms share the seeds.
    split: The data that were evaluated: train, valid or test.
    metric: The name of the metric.
    unit: The unit of the value, or 1 where it has none.
    value: The metric at the checkpoint that validation chose; for a diverged run, at the last one
      before it diverged.
    step: The step of that checkpoint.
    status: How the run ended: `finished`, `patience@STEP`, `diverged@STEP` or, for a run that can
      be continued, `interrupted@STEP`.
    cause: What was not finite when the run diverged: loss terms joined by `+`; where all of them
      were finite, `gradient` or `parameters`; `validation` if no validation ever was finite.
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
  """One point of a curve, in the unit of its metric: a line of history.csv."""

  arm: str
  seed: int
  step: int
  split: str
  metric: str
  value: float


class Table(NamedTuple):
  """A comparison that the user asked for.

  Attributes:
    title: The title of the table.
    baseline: The arm that the others are compared with.
    arms: The arms in the order shown; the baseline may be among them.
    factors: Of a factorial, the two settings that its arms cross: by the key of the setting the
      level of each arm, in the order of `arms`. Empty for any other table.
  """

  title: str
  baseline: str
  arms: tuple[str, ...]
  factors: Mapping[str, tuple[str, ...]] = {}


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
  """A finished sweep.

  Attributes:
    config: The content of config.json: `config`, `environment`, `command`, `timing`, `measures`,
      `looks`.
    rows: The metrics of all runs.
    history: The curves of all runs.
    tables: The comparisons that the configuration asks for.
    predictions: Reference and prediction of one run on its test split, in the arrays that the
      pictures of `measures` name, and which run it is: `arm` and `seed`. May be empty.
    trained: What each arm has become, as `dcnn.load` gives it. Only `dcnn.sweep` fills this in: no
      file of a result holds it, and it is not compared.
  """

  config: dict[str, Any]
  rows: tuple[Row, ...]
  history: tuple[Point, ...]
  tables: tuple[Table, ...]
  predictions: dict[str, np.ndarray]
  trained: Mapping[str, Any] = dataclasses.field(
      default_factory=dict, compare=False, repr=False)

  @functools.cached_property
  def measures(self) -> Measures:
    """What the task reports, as config.json lists it; guessed by the names where it does not."""
    listed = self.config.get("measures")
    if listed:
      return measures.from_record(listed)
    return measures.from_names({row.metric: row.unit for row in self.rows}, self.predictions)

  def metric(self, name: str) -> Metric:
    """What is known of a metric; guessed by its name where `measures` does not list it."""
    listed = {metric.name: metric for metric in self.measures.metrics}
    return listed.get(name) or measures.metric_of(name)

  @property
  def compared(self) -> tuple[str, ...]:
    """Names of the errors by which arms are compared."""
    return tuple(metric.name for metric in self.measures.metrics
                 if metric.compared and metric.kind == "error")

  @property
  def arms(self) -> tuple[str, ...]:
    """Names of the arms whose runs have all ended, in the order of the rows."""
    unfinished = self.unfinished
    return tuple(dict.fromkeys(row.arm for row in self.rows if row.arm not in unfinished))

  @property
  def unfinished(self) -> dict[str, int]:
    """How many runs can still be continued, of each arm that has such runs."""
    runs = {(row.arm, row.seed) for row in self.rows if row.status.startswith(INTERRUPTED)}
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
        (row.arm, row.seed) for row in self.rows if row.status.startswith(PATIENCE)))

  @property
  def looks(self) -> tuple[int, int]:
    """Which look at the seeds this is, and how many were planned; see `stats.look_number`.

    A result with more seeds than the last look that config.json lists is one look further.
    """
    planned = (self.config.get("config") or {}).get("looks", 1)
    return stats.look_number(self.seeds_of_looks, planned), planned

  @property
  def seeds_of_looks(self) -> tuple[int, ...]:
    """How many seeds there were at each look, the present one last."""
    before = tuple(look["seeds"] for look in self.config.get("looks") or ())
    is_further = not before or len(self.seeds) > before[-1]
    return (*before, len(self.seeds)) if is_further else before

  @property
  def level(self) -> float:
    """The level of the tests at this look."""
    return stats.look_level(*self.looks)

  @property
  def comparisons(self) -> tuple[Table, ...]:
    """The tables asked for; where there is none, all arms against the first."""
    known = tuple(dict.fromkeys(row.arm for row in self.rows))
    return self.tables or ((Table(ALL_ARMS, known[0], known),) if known else ())

  def __repr__(self) -> str:
    """What it is, how far it has come and how to see the tables, in a few words."""
    return f"<Result of {self._outline()}; .table(baseline=ARM) compares the arms>"

  def _repr_html_(self) -> str:
    """The tables for a notebook: test errors, ratios and verdicts."""
    rows = [f"<p>{escape(self._outline())}</p>"]
    for table in self.comparisons:
      for metric in filter(self.has, self.compared if table.baseline in self.arms else ()):
        rows.append(text.html_table(f"{table.title}: {metric}", self._table_rows(table, metric)))
    return "".join(rows)

  def _outline(self) -> str:
    arms, first = list(dict.fromkeys(row.arm for row in self.rows)), self.rows[:1]
    names = ", ".join(text.shorten(arm, _LONGEST_NAME) for arm in arms[:3])
    endings = [f"{len(self.failed)} failed"] * bool(self.failed)
    endings += [f"{sum(self.unfinished.values())} unfinished"] * bool(self.unfinished)
    return ", ".join([
        *(f"{text.shorten(row.experiment, _LONGEST_NAME)!r}: {len(arms)} arms "
          f"({names}{', ...' if arms[3:] else ''})" for row in first),
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
      metric: The name of a metric in results.csv.
      split: The data that were evaluated: train, valid or test.

    Returns:
      The values by arm, in the order of `arms`; the seeds are in the order of `seeds`, and the unit
      is that of the rows.

    Raises:
      ValueError: If there is no such metric or split, or a run has no such row.

    Example:
      >>> row = Row("trial", "tanh", 0, "test", "width_loss", "mm", 2.5, 100, "finished")
      >>> result = Result({}, (row, row._replace(seed=1, value=3.5)), (), (), {})
      >>> result.errors("width_loss")
      {'tanh': array([2.5, 3.5])}
    """
    rows = [row for row in self.rows if row.metric == metric and row.split == split]
    if not rows:
      known = sorted({f"{row.metric} on {row.split}" for row in self.rows})
      raise ValueError(
          f"expected a metric and a split that the results have, got {metric!r} on {split!r}; "
          f"{suggestion(metric, sorted({row.metric for row in self.rows} - {metric}))}"
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
    errors = {arm: np.array([values[arm, seed] for seed in seeds], np.float64) for arm in arms}
    return {arm: np.where(np.isfinite(each), each, np.inf) for arm, each in errors.items()}

  def compare(
      self, table: Table, metric: str, *, split: str = "test"
  ) -> list[stats.ArmSummary]:
    """Compares the arms of a table with its baseline, at the level of this look.

    See `stats.compare`.

    Args:
      table: What to compare. Arms without results are left out.
      metric: The name of an error, which is nowhere negative.
      split: The data that were evaluated: train, valid or test.

    Returns:
      One summary for each arm, the baseline first unless the table puts it elsewhere; in the unit
      of the rows.

    Raises:
      ValueError: If the baseline has no results.

    Example:
      >>> rows = tuple(
      ...     Row("trial", arm, seed, "test", "width_loss", "mm", value, 100, "finished")
      ...     for arm, value in (("tanh", 2.0), ("sine", 1.0)) for seed in range(6))
      >>> result = Result({}, rows, (), (), {})
      >>> tanh, sine = result.compare(Table("Trial", "tanh", ("sine",)), "width_loss")
      >>> round(sine.contrast.ratio, 3), sine.contrast.verdict
      (0.5, 'better')
    """
    errors = self.errors(metric, split)
    return stats.compare(
        {arm: errors[arm] for arm in with_baseline(table) if arm in errors}, table.baseline,
        self.level)

  def frame(self) -> "pandas.DataFrame":
    """The lines of results.csv as a data frame of pandas, which is to be installed.

    Returns:
      A column for each field of `Row`, a line for each arm, seed, split and metric.

    Raises:
      ModuleNotFoundError: Without pandas.

    Example:
      >>> row = Row("trial", "tanh", 0, "test", "width_loss", "mm", 2.5, 100, "finished")
      >>> found = Result({}, (row, row._replace(seed=1, value=3.5)), (), (), {}).frame()
      >>> found.pivot(index="seed", columns="arm", values="value")["tanh"].tolist()
      [2.5, 3.5]
    """
    try:
      import pandas as pd
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(
          "a data frame needs pandas: pip install pandas", name="pandas") from error

    return pd.DataFrame(list(self.rows), columns=list(Row._fields))

  def plot(self, metric: str | None = None) -> "matplotlib.figure.Figure":
    """Test errors of every run, with the geometric mean and interval of every arm, as a figure.

    Args:
      metric: The name of an error by which the task compares arms; by default the one that the
        task watches.

    Returns:
      A figure of Matplotlib, which a notebook shows and `savefig` saves.

    Raises:
      ValueError: If there are no test results of this error.
    """
    from dcnn.results import figures  # Matplotlib takes a second to import

    return figures.errors(self, metric or self.measures.watched)

  def table(
      self, baseline: str | None = None, metrics: Sequence[str] | None = None
  ) -> str:
    """Comparison tables as text, which is Markdown too: test errors, ratios and verdicts.

    Args:
      baseline: The arm that all arms are compared with; by default the configuration's own tables
        are shown.
      metrics: The names of the errors to show, each in a table; by default all those by which the
        task compares arms.

    Returns:
      Lines of text.

    Raises:
      ValueError: If the baseline is unknown, or neither it nor the configuration says what to
        compare.

    Example:
      >>> rows = tuple(
      ...     Row("trial", arm, seed, "test", "width_loss", "mm", value, 100, "finished")
      ...     for arm, value in (("tanh", 20.0), ("sine", 10.0)) for seed in range(6))
      >>> print(Result({}, rows, (), (), {}).table(baseline="tanh"))
      All arms: width_loss
      <BLANKLINE>
      | arm  | n | failed | width_loss (mm)   | ratio to tanh     | p     | verdict  |
      |------|---|--------|-------------------|-------------------|-------|----------|
      | tanh | 6 | 0      | 20.0 [20.0, 20.0] |                   |       | baseline |
      | sine | 6 | 0      | 10.0 [10.0, 10.0] | 0.50 [0.50, 0.50] | 0.031 | better   |
    """
    if baseline is None and not self.tables:
      raise ValueError(
          f"expected a baseline, as the config lists no tables; the arms are "
          f"{', '.join(self.arms)}")
    tables = self.tables if baseline is None else (Table(ALL_ARMS, baseline, self.arms),)
    metrics = tuple(filter(self.has, self.compared)) if metrics is None else metrics
    return "\n\n".join(
        f"{one_line(f'{table.title}: {metric}')}\n\n"
        f"{text.markdown_table(self._table_rows(table, metric))}"
        for table in tables for metric in metrics)

  def _table_rows(self, table: Table, metric: str) -> list[tuple[str, ...]]:
    """Heads of the columns, and a line of cells for each arm."""
    unit = self.unit(metric)
    rows = [("arm", "n", "failed", text.heading(metric, unit.name), f"ratio to {table.baseline}",
             "p", "verdict")]
    for summary in self.compare(table, metric):
      cells = text.cells(summary, unit.factor)
      error = f"{cells.error} ({cells.exact})" if cells.exact else str(cells.error)
      rows.append((summary.arm, str(summary.n), str(summary.failed), error, str(cells.ratio),
                   cells.p, cells.verdict))
    return rows

  def unit(self, metric: str) -> Unit:
    """The unit in which a metric is shown, which its typical test value decides."""
    values = [row.value for row in self.rows if row.metric == metric and row.split == "test"]
    name = next((row.unit for row in self.rows if row.metric == metric), self.metric(metric).unit)
    return display_unit(name, np.array(values))


def is_failed(status: str) -> bool:
  """Whether a run of this status failed."""
  return status.startswith(DIVERGED)


def with_baseline(table: Table) -> tuple[str, ...]:
  """The arms of a table in order, with the baseline first where the table does not list it."""
  return table.arms if table.baseline in table.arms else (table.baseline, *table.arms)
