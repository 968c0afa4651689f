"""Files that are written whole or not at all, so that a reader never sees half of one."""

import io
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

UNFINISHED = ".tmp"  # end of the name of a file that is being written


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes a JSON file as `write_file` does; null for numbers that JSON cannot hold."""
  write_file(
      path, (json.dumps(finite(content), indent=2, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
  """The same with None for nan and inf, which JSON cannot hold."""
  if isinstance(value, Mapping):
    return {key: finite(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [finite(item) for item in value]
  return None if isinstance(value, float) and not np.isfinite(value) else value


def write_file(path: pathlib.Path, content: bytes) -> None:
  """Writes a file whole or not at all: under another name first, which nobody can have foreseen."""
  write_stream(path, io.BytesIO(content))


def write_stream(path: pathlib.Path, content: io.BufferedIOBase) -> None:
  """Writes what a stream gives as `write_file` does, without holding it all in memory."""
  temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
  try:
    with temporary.open("xb") as file:
      shutil.copyfileobj(content, file)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
