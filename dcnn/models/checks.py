"""What networks without a form for neighbour lists refuse of the data."""

import numpy as np

from dcnn.base import System


def check_free_space(systems: System, network: str, *, reads: str, most_atoms: int) -> None:
  """Makes sure that all configurations are molecules in free space, and small enough.

  Args:
    systems: The configurations, with a leading axis of frames.
    network: The network's name.
    reads: What the network reads of a molecule, for the message.
    most_atoms: The largest number of atoms that it takes.

  Raises:
    ValueError: If there are cells, or more atoms; the message says what to do.
  """
  if systems.cell is not None:
    raise ValueError(
        f"it has periodic frames, and {network} reads {reads} of one molecule in free space: take "
        'SchNet, or write pbc="F F F" if a cell is only a box')
  atoms = np.shape(systems.species)[1]
  if atoms > most_atoms:
    raise ValueError(f"frames of {atoms} atoms, and {network} reads {reads}, of at most "
                     f"{most_atoms} atoms: take SchNet")
