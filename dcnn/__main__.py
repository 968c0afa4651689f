"""`python -m dcnn`: the command line."""

import sys

from dcnn.main import entry

if __name__ == "__main__":
  sys.exit(entry())
