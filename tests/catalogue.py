"""The table of `dcnn/data/molecules/README.md`: prints it when run."""

import numpy as np

from dcnn.data.embedded import NAMES
from dcnn.data.generation import MOLECULES
from dcnn.data.loading import load

HEADER = ("| molecule | SMILES | seed | atoms | frames | energy std, meV | force RMS, eV/A "
          "| SHA-256 |\n|---|---|---|---|---|---|---|---|")


def table() -> str:
  """Markdown table of the embedded sets, with their checksums."""
  return "\n".join([HEADER, *map(_row, NAMES)])


def _row(name: str) -> str:
  dataset, molecule = load(name), MOLECULES[name]
  energy, forces = (np.asarray(array) for array in dataset.labels)
  cells = (
      name, f"`{molecule.smiles}`", molecule.seed, dataset.systems.species.shape[1], len(dataset),
      f"{1000 * energy.std():.0f}", f"{np.sqrt(np.square(forces).mean()):.3f}",
      f"`{dataset.checksum}`")
  return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
  print(table())
