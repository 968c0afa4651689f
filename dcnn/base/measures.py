"""What a task reports: its metrics, and the pictures of its predictions.

A task writes these records down; results, reports, displays and tuning read them, and so need to
know of no task. They are written to config.json, so that a report can be drawn from files alone.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Metric(NamedTuple):
  """One number that is reported of a run and a split.

  Attributes:
    name: The name in results.csv, such as `force_loss`.
    unit: The unit of the values: `eV`, `eV/A`, or `1` where there is none.
    kind: `error` (lower is better; the centre over seeds is a geometric mean), `skill` (1 is
      perfect, 0 no better than the predictor that knows nothing; the centre is 1 - the geometric
      mean of 1 - skill) or `share` (the centre is a median).
    compared: Whether tables, tests, curves and figures compare arms by this metric.
    label: The head of its column in a report.
    subject: What is predicted, in the plural, for sentences about its skill: `energies`.
    of: The name of the error that a skill is computed from.
    meaning: Its definition, in sentences, for the reader of a report.
  """

  name: str
  unit: str
  kind: Literal["error", "skill", "share"]
  compared: bool = False
  label: str = ""
  subject: str = ""
  of: str = ""
  meaning: str = ""


class Picture(NamedTuple):
  """One panel of the figure that shows the predictions of a run beside the reference.

  Attributes:
    kind: `parity` (prediction against reference, and the error below) or `field` (reference,
      prediction and error over two coordinates).
    title: The title of the panel.
    unit: The unit of the values.
    arrays: The names in predictions.npz of what is drawn. A parity panel has `true` and
      `predicted`, lists of one length; a field has these as matrices of the shape (len(`vertical`),
      len(`horizontal`)), and the coordinates `horizontal` and `vertical`.
    centred: Whether the mean of the reference is subtracted from both.
    axes: The names of the horizontal and the vertical coordinate of a field.
  """

  kind: Literal["parity", "field"]
  title: str
  unit: str
  arrays: Mapping[str, str]
  centred: bool = False
  axes: tuple[str, str] = ("", "")


class Measures(NamedTuple):
  """Everything that a task reports.

  Attributes:
    metrics: The metrics, in the order of the rows of results.csv.
    watched: The name of the metric that is shown live, and by which the run of the pictures is
      chosen.
    pictures: The panels of the figure of predictions, in order.
    caption: What a reader must know of these pictures, in a sentence; may be empty.
  """

  metrics: tuple[Metric, ...]
  watched: str
  pictures: tuple[Picture, ...] = ()
  caption: str = ""

  @property
  def compared(self) -> tuple[str, ...]:
    """Names of the metrics by which arms are compared."""
    return tuple(metric.name for metric in self.metrics if metric.compared)

  def metric(self, name: str) -> Metric:
    """The metric of a name.

    Raises:
      KeyError: if the task has no such metric.
    """
    return {metric.name: metric for metric in self.metrics}[name]
