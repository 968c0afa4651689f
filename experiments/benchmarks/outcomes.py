"""A plugin of pytest that prints at once how each test ended: a time limit loses nothing."""

import json
from typing import Any

MARK = "OUTCOME "


def pytest_runtest_logreport(report: Any) -> None:
  """Prints the outcome and the name of a test, and the reason of a failure."""
  if report.when == "call" or report.outcome != "passed":
    crash = getattr(report.longrepr, "reprcrash", None)
    reason = str(crash.message if crash else report.longrepr)[:400]
    print(f"\n{MARK}{json.dumps([report.outcome, report.nodeid, reason])}", flush=True)
