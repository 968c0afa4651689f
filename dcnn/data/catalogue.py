"""The table of `molecules/README.md`."""

import numpy as np

from dcnn.data.embedded import NAMES
from dcnn.data.generation import MOLECULES
from dcnn.data.loading import load

HEADER = ("| molecule | SMILES | seed | atoms | frames | energy std, meV | force RMS, eV/A "
          "| SHA-256 |\n|---|---|---|---|---|---|---|---|")


def table() -> str:
  """Markdown table of the embedded sets that are there, with their checksums."""
  rows = []
  for name in NAMES:
    try:
      rows.append(_row(name))
    except FileNotFoundError:
      continue
  return "\n".join([HEADER, *rows])


def _row(name: str) -> str:
  dataset, molecule = load(name), MOLECULES[name]
  energy, forces = (np.asarray(array) for array in dataset.labels)
  cells = (
      name, f"`{molecule.smiles}`", molecule.seed, dataset.systems.species.shape[1], len(dataset),
      f"{1000 * energy.std():.0f}", f"{np.sqrt(np.square(forces).mean()):.3f}",
      f"`{dataset.checksum}`")
  return "| " + " | ".join(map(str, cells)) + " |"
