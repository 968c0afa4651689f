"""`python -m dcnn`: the command line."""

import sys

from dcnn.cli.main import entry

if __name__ == "__main__":
  sys.exit(entry())
