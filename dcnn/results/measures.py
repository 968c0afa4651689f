"""Which metrics and pictures a result has: as its config.json lists them, or by their names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dcnn.base.measures import Measures, Metric, Picture

TRUE, PREDICTED = "_true", "_predicted"  # ends of the names of a pair of arrays


def to_record(measures: Measures) -> dict[str, Any]:
  """What config.json holds of measures; `from_record` undoes it."""
  return {
      "metrics": [metric._asdict() for metric in measures.metrics],
      "watched": measures.watched,
      "pictures": [picture._asdict() for picture in measures.pictures],
      "caption": measures.caption}


def from_record(record: Mapping[str, Any]) -> Measures:
  """Reads the measures that a task wrote to config.json.

  Args:
    record: The part `measures` of a config.json that `schemas.config_problem` finds no fault with.

  Returns:
    The same as records. What the file does not say has the default of the record.
  """
  pictures = [_fields(Picture, picture) for picture in record.get("pictures", ())]
  for picture in pictures:
    picture |= {"axes": tuple(picture.get("axes", ("", "")))}
  return Measures(
      tuple(Metric(**_fields(Metric, metric)) for metric in record["metrics"]), record["watched"],
      tuple(Picture(**picture) for picture in pictures), record.get("caption", ""))


def from_names(units: Mapping[str, str], arrays: Iterable[str]) -> Measures:
  """Guesses the measures of a result whose config.json lists none, as that of dcnn 0.2.0.

  Args:
    units: The unit of each metric in results.csv, by the name of the metric.
    arrays: The names in predictions.npz.

  Returns:
    A metric for each name, see `metric_of`; the last of those compared is the watched one. A parity
    picture, without a unit, for each pair of arrays `NAME_true` and `NAME_predicted`.
  """
  metrics = tuple(metric_of(name, unit) for name, unit in units.items())
  watched = [metric.name for metric in metrics if metric.compared][-1:]
  names = list(arrays)
  stems = [name.removesuffix(TRUE) for name in names if name.endswith(TRUE)]
  pictures = tuple(
      Picture("parity", stem, "1", {"true": stem + TRUE, "predicted": stem + PREDICTED})
      for stem in stems if stem + PREDICTED in names)
  return Measures(metrics, "".join(watched), pictures)


def metric_of(name: str, unit: str = "1") -> Metric:
  """Guesses what a metric is from its name.

  Args:
    name: The name in results.csv.
    unit: The unit there.

  Returns:
    A compared error for `X_loss`, an error for `X_rmse`, the skill of `X_loss` for `X_skill`, and a
    share for any other name; the label and the subject are `X`.
  """
  stem, _, suffix = name.rpartition("_")
  suffix = suffix if stem else ""
  if suffix == "loss":
    return Metric(name, unit, "error", compared=True, label=stem, subject=stem)
  if suffix == "rmse":
    return Metric(name, unit, "error", label=stem, subject=stem)
  if suffix == "skill":
    return Metric(name, unit, "skill", label=stem, subject=stem, of=f"{stem}_loss")
  return Metric(name, unit, "share", label=name, subject=name)


def figure_name(pictures: Sequence[Picture]) -> str:
  """The name of the figure that shows the pictures: `parity` if all are such, or `predictions`."""
  return "parity" if all(each.kind == "parity" for each in pictures) else "predictions"


def _fields(record: Any, values: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of a record among the values: a later version may write more of them."""
  return {name: values[name] for name in record._fields if name in values}
