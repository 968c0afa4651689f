"""The looks of a sweep: how many finished reports its seeds have had, each with more than before.

Whoever adds seeds until something is significant gives chance several tries. So each finished
report that rests on more seeds than the one before is written down in config.json, and the verdicts
of the next one are held to the level that is left for it (`stats.look_level`).
"""

from collections.abc import Mapping
from typing import Any


def with_look(record: Mapping[str, Any], seeds: int) -> dict[str, Any]:
  """The content of config.json once a finished report rests on so many seeds.

  Args:
    record: The content before, with the `looks` so far; an older version has written none.
    seeds: The number of seeds of every arm in the report.

  Returns:
    The same with one more look, unless the last one rests on as many seeds: neither a report that
    is drawn again nor one with more arms is another look at the seeds.

  >>> with_look({"looks": [{"seeds": 5}]}, 10)["looks"]
  [{'seeds': 5}, {'seeds': 10}]
  >>> with_look({"looks": [{"seeds": 5}]}, 5)["looks"]
  [{'seeds': 5}]
  """
  looks = list(record.get("looks", ()))
  more = [] if looks and seeds <= looks[-1]["seeds"] else [{"seeds": seeds}]
  return {**record, "looks": looks + more}


def changed_plan(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
  """Why the number of planned looks may not become another; empty if it may.

  Args:
    held: The content of config.json in the work directory.
    asked: That of the sweep which is to go on there.
  """
  before, now = (record["config"].get("looks", 1) for record in (held, asked))
  if before == now or not held.get("looks"):
    return ""
  return (f"with looks={before}, and looks={now} is asked for: how many looks are planned is "
          "decided before the first report, which there has been")
