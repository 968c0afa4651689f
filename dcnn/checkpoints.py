"""Trained variables on disk, through Orbax."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp


def save(tree: Any, path: str | os.PathLike) -> None:
  """Writes a pytree of arrays to a new folder, whole or not at all; an older one is replaced.

  Args:
    tree: dictionaries of NumPy or JAX arrays.
    path: of the folder.
  """
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(pathlib.Path(path).absolute(), tree, force=True)


def restore(path: str | os.PathLike) -> Mapping[str, Any]:
  """Reads what `save` wrote. Reading runs no code of the file.

  Raises:
    FileNotFoundError: naming the folder, if there is no checkpoint.
  """
  folder = pathlib.Path(path).absolute()
  if not folder.is_dir():
    raise FileNotFoundError(f"{folder}: no checkpoint there; a finished sweep writes one")
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(folder)
