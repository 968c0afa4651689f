"""The files of a result in a work directory.

`config.json` says what ran, where and how long, and what the task reports; `results.csv` has one
line for each run, split and metric, `history.csv` the curves, and `predictions.npz` reference and
prediction of one run. Equal results give equal bytes.
"""

import csv
import io
import json
import os
import pathlib
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from dcnn.base import files, wording
from dcnn.base.measures import Measures
from dcnn.results import measures, schemas
from dcnn.results.records import Point, Result, Row, Table

CONFIG_FILE = "config.json"
ROWS_FILE = "results.csv"
HISTORY_FILE = "history.csv"
PREDICTIONS_FILE = "predictions.npz"
SUMMARY_FILE, REPORT_FILES, FIGURES = "summary.json", ("report.md", "report.html"), "figures"

_AGAIN = "The training command writes it again from its checkpoints"


def save(result: Result, directory: str | os.PathLike[str]) -> None:
  """Writes the files of a result.

  Each file is complete before it takes its name. Floats are written so that they read back equal.

  Args:
    result: The result to write.
    directory: The work directory, which is made where it is missing.

  Example:
    >>> import tempfile
    >>> row = Row("trial", "tanh", 0, "test", "width_loss", "mm", 2.5, 100, "finished")
    >>> with tempfile.TemporaryDirectory() as directory:
    ...   save(Result({}, (row,), (), (), {}), directory)
    ...   load(directory).rows == (row,)
    True
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  tables = [table_record(table) for table in result.tables]
  config = {**result.config, "config": {**result.config.get("config", {}), "tables": tables}}
  files.write_file(directory / ROWS_FILE, _csv_bytes(Row._fields, result.rows))
  files.write_file(directory / HISTORY_FILE, _csv_bytes(Point._fields, result.history))
  arrays = io.BytesIO()
  predictions: dict[str, Any] = {
      name: result.predictions[name] for name in sorted(result.predictions)}
  np.savez_compressed(arrays, **predictions)
  files.write_file(directory / PREDICTIONS_FILE, arrays.getvalue())
  files.write_json(directory / CONFIG_FILE, config)  # last: its times say that the rest is there


def load(directory: str | os.PathLike[str]) -> Result:
  """Reads the files of a result; `save` shows an example.

  Args:
    directory: A work directory that `save` wrote; curves and predictions may be missing in it.

  Returns:
    The result as it was saved.

  Raises:
    ValueError: If config.json or results.csv is missing, or a file is not what `save` writes.
  """
  directory = pathlib.Path(directory)
  for name in (CONFIG_FILE, ROWS_FILE):
    if not (directory / name).is_file():
      raise ValueError(
          f"expected the work directory of a run, with {name}, got {str(directory)!r}, which has "
          f"none; give the {wording.workdir()} of a run that has finished")
  config = read_config(directory / CONFIG_FILE)
  listed = measures.from_record(config["measures"]) if config.get("measures") else None
  kinds = {metric.name: metric.kind for metric in listed.metrics} if listed else {}

  def is_error(metric: str) -> bool:
    return (kinds.get(metric) or measures.metric_of(metric).kind) == "error"

  history, predictions = directory / HISTORY_FILE, directory / PREDICTIONS_FILE
  return Result(
      config=config,
      rows=_read_csv(directory / ROWS_FILE, Row, schemas.row_keys,
                     lambda row, earlier: schemas.row_problem(row, earlier, is_error)),
      history=_read_csv(history, Point, schemas.point_keys,
                        lambda point, earlier: schemas.point_problem(point, earlier, is_error))
      if history.is_file() else (),
      tables=tables_of(config),
      predictions=_read_arrays(predictions, listed) if predictions.is_file() else {},
  )


def read_config(path: pathlib.Path, required: Sequence[str] = ()) -> dict[str, Any]:
  """Reads a config.json and checks the form of all that reports and sweeps read of it.

  Args:
    path: A file that `save` or `workdirs.begin` wrote. Parts may be missing.
    required: Dotted names of the parts that may not be missing.

  Raises:
    ValueError: If it is something else; the message names the part.
    OSError: If it cannot be read.
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


def table_record(table: Table) -> dict[str, Any]:
  """What config.json holds of a table; `tables_of` undoes it."""
  record = {"title": table.title, "baseline": table.baseline, "arms": list(table.arms)}
  factors = {key: list(levels) for key, levels in table.factors.items()}
  return {**record, "factors": factors} if factors else record


def tables_of(config: dict[str, Any]) -> tuple[Table, ...]:
  """The comparisons that a config.json from `read_config` lists."""
  return tuple(
      Table(table["title"], table["baseline"], tuple(table["arms"]),
            {key: tuple(levels) for key, levels in table.get("factors", {}).items()})
      for table in config.get("config", {}).get("tables", []))


def _csv_bytes(header: Iterable[str], rows: Iterable[tuple]) -> bytes:
  content = io.StringIO(newline="")
  writer = csv.writer(content, lineterminator="\n")
  writer.writerow(header)
  writer.writerows(
      [repr(float(cell)) if isinstance(cell, (float, np.floating)) else cell for cell in row]
      for row in rows)
  return content.getvalue().encode()


_Record = TypeVar("_Record", Row, Point)


def _read_csv(
    path: pathlib.Path, record: type[_Record], keys: Callable[[_Record], tuple[tuple, ...]],
    problem: Callable[[_Record, Mapping[tuple, _Record]], str],
) -> tuple[_Record, ...]:
  """The lines of a CSV file as records.

  Args:
    path: The file.
    record: The class of the records, whose fields are the columns.
    keys: What later lines are compared with a record by.
    problem: What is wrong with a record after the earlier ones, by their keys; empty if nothing is.
  """
  types = [record.__annotations__[field] for field in record._fields]
  try:
    text = path.read_bytes().decode()
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: expected UTF-8 text, got {error}. {_AGAIN}") from error
  reader = csv.reader(io.StringIO(text, newline=""))
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


def _read_arrays(path: pathlib.Path, listed: Measures | None) -> dict[str, np.ndarray]:
  """The arrays of predictions.npz, checked by the pictures that are drawn of them."""
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds on damaged bytes
    raise ValueError(f"{path}: expected the predictions that a sweep writes, got something else "
                     f"or a damaged file. {_AGAIN}") from error
  pictures = (listed or measures.from_names({}, arrays)).pictures
  problem = schemas.arrays_problem(arrays, pictures)
  if problem:
    # Either of the two may have been edited.
    where = f" by the pictures of {path.with_name(CONFIG_FILE)}" if listed else ""
    raise ValueError(f"{path}: {problem}{where}. {_AGAIN}")
  return arrays
