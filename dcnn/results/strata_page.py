"""The page of a comparison over the values of a setting: sentences, figures and tables."""

import pathlib
import re
from collections.abc import Mapping, Sequence

from dcnn.base import files
from dcnn.base.text import first_line
from dcnn.results import report, storage, strata
from dcnn.results.records import Result, Table
from dcnn.results.text import markdown_text


def write(
    results: Mapping[str, Result], by: str, notes: Sequence[str], command: str, out: pathlib.Path
) -> None:
  """Writes the page, its figures, its numbers and what it is made of.

  Args:
    results: The results by the value of a setting, each a joined one; the page links to the reports
      that lie in `places`.
    by: The dotted key of the setting.
    notes: What a reader must know, in sentences.
    command: The command line that makes the page.
    out: The folder to write into.
  """
  tables = strata.common_tables(results)
  names = dict.fromkeys(result.rows[0].experiment for result in results.values())
  families = dict.fromkeys(name.partition(":")[0] for name in names)
  title = ", ".join(families if len(families) == 1 else names)
  links = [f"- [{markdown_text(f'{by}={value}')}]({place.name}/report.md)"
           for value, place in places(results, out).items()]
  sentences = [f"- {markdown_text(line)}" for line in strata.sentences(results, by, tables)]
  page = [f"# {markdown_text(f'{title}, by {by}')}", "\n".join(sentences),
          *_figures(results, by, tables, out), *map(markdown_text, notes),
          strata.tables_text(results, by, tables), "\n".join(links), f"    {command}"]
  files.write_json(out / storage.SUMMARY_FILE, strata.summary(results, by, tables))
  files.write_file(out / "report.md", ("\n\n".join(page) + "\n").encode())
  joined = [each for result in results.values() for each in result.config["joined"]]
  files.write_json(out / storage.CONFIG_FILE, {"command": command, "by": by, "joined": joined})


def places(results: Mapping[str, Result], out: pathlib.Path) -> dict[str, pathlib.Path]:
  """A folder for each value, named by what of it can be the name of a folder."""
  found: dict[str, pathlib.Path] = {}
  for value in results:
    name = re.sub(r"[^\w=+-]+", "_", pathlib.PurePath(value).stem).strip("_") or "value"
    number = 1
    place = out / name
    while place in found.values():
      number += 1
      place = out / f"{name}.{number}"
    found[value] = place
  return found


def _figures(
    results: Mapping[str, Result], by: str, tables: Sequence[Table], out: pathlib.Path
) -> list[str]:
  """Writes the figures, and gives the lines of the page that show them, or say why they cannot."""
  try:
    contents = report.load_figures().strata_figures(results, by, tables)
  except Exception as error:  # of a library of fonts, images and layouts: anything
    return [markdown_text(f"The figures could not be drawn: {first_line(error)}")]
  (out / storage.FIGURES).mkdir(parents=True, exist_ok=True)
  shown = []
  for metric, content in contents.items():
    name = f"ratios_{metric}.svg"
    files.write_file(out / storage.FIGURES / name, content)
    shown.append(f"![{metric} relative to the baseline]({storage.FIGURES}/{name})")
  return [*shown, markdown_text(f"The dots of a row are, from above, {', '.join(results)}.")]
