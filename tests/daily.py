"""Which cases of a long table run every day; the others run with --nightly.

The whole suite is to take less than ten minutes on two cores (BUILD_NOTES.md has the figures).
"""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def only(chosen: Collection[Any], cases: Iterable[Any]) -> list[Any]:
  """Parameters for pytest of which those that are not chosen are nightly.

  Args:
    chosen: The names of what runs every day; each must be there, so that none is lost by a typo.
    cases: All names.
  """
  cases = list(cases)
  unknown = [name for name in chosen if name not in cases]
  assert not unknown, f"no such cases: {unknown}"
  return [name if name in chosen else pytest.param(name, marks=pytest.mark.nightly)
          for name in cases]
