"""Which dcnn this is: its number, and the revision of its source.

Builds run this file, too, so that it imports nothing that is not Python's own.
"""

import pathlib
import subprocess

__version__ = "0.4.0"
FILE = "REVISION"  # beside this file, written when it is built


def revision() -> str:
  """Commit of the source, with `+changes` if it was modified.

  That of the checkout which holds this package; without one, that of the checkout from which the
  package was built. Empty where neither is known.
  """
  here = pathlib.Path(__file__).resolve().parent
  if (_checkout() / ".git").exists():
    return _describe_checkout()
  try:
    return (here / FILE).read_text().strip()
  except OSError:
    return ""


def _checkout() -> pathlib.Path:
  return pathlib.Path(__file__).resolve().parents[2]


def _describe_checkout() -> str:
  """What git says of the checkout; empty without git."""
  try:
    told = subprocess.run(
        ["git", "-C", str(_checkout()), "describe", "--always", "--dirty=+changes", "--abbrev=12"],
        capture_output=True, text=True, timeout=5, check=True)
  except (OSError, subprocess.SubprocessError):
    return ""
  return told.stdout.strip()
