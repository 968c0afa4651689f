"""The data sets inside the package: the eight MD17 molecules, sampled by `generation`."""

import contextlib
import importlib.resources
import pathlib
from collections.abc import Iterator

from dcnn.data.generation import MOLECULES

NAMES = tuple(MOLECULES)


@contextlib.contextmanager
def archive_path(name: str) -> Iterator[pathlib.Path]:
  """Gives the path of an embedded archive, which is valid within the context.

  Args:
    name: One of `NAMES`.

  Raises:
    FileNotFoundError: If this installation lacks it.
  """
  resource = importlib.resources.files("dcnn.data").joinpath("molecules", f"{name}.npz")
  if not resource.is_file():
    raise FileNotFoundError(
        f"the embedded data of {name} is missing from this installation: install dcnn again, or "
        f"make it with `dcnn generate --smiles='{MOLECULES[name].smiles}'`")
  with importlib.resources.as_file(resource) as path:
    yield path
