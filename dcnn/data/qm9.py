"""Reads QM9 as it was published: an archive of one small file for each molecule.

A file has the number of atoms, a line of properties, and a line for each atom: its symbol, position
and charge. Frequencies, SMILES and InChI follow. Positions are in angstrom, energies in hartree.

References:
  R. Ramakrishnan, P. O. Dral, M. Rupp and O. A. von Lilienfeld, Quantum chemistry structures and
  properties of 134 kilo molecules, Sci. Data 1 (2014) 140022.
"""

import os
import tarfile
from collections.abc import Iterator

import numpy as np

from dcnn.base.text import unknown
from dcnn.data.raw import Frame, Keys, Raw, frame, short_text, stack

# The place of each energy on the line of properties, which begins with `gdb` and a number.
ENERGIES = {"U0": 12, "U": 13, "H": 14, "G": 15}
EXPONENTS = str.maketrans({"*": "e", "^": None})  # some numbers are written as 1.5*^-6
LARGEST = 100_000  # bytes of a file; those of QM9 have 1,000 to 5,000


def read_qm9(path: str | os.PathLike, keys: Keys) -> Raw:
  """All molecules of the archive, with their internal energy at 0 K and without forces.

  Args:
    path: The archive, `dsgdb9nsd.xyz.tar.bz2`.
    keys: The name of another energy: `U`, `H` or `G`, at 298.15 K.

  Raises:
    ValueError: Naming the frame, on anything but such an archive.
  """
  energy = keys.energy or "U0"
  if energy not in ENERGIES:
    raise ValueError(unknown("energy of QM9", energy, ENERGIES))
  try:
    frames = [_frame(i, text, ENERGIES[energy]) for i, text in enumerate(_texts(path))]
  except (tarfile.TarError, EOFError, OSError) as error:
    raise ValueError(f"not a whole archive, copy it again: {short_text(error)}") from error
  return stack(frames, source="QM9", keys=Keys(energy, "forces", "positions", "species"))


def _texts(path: str | os.PathLike) -> Iterator[str]:
  """The text of each file in the archive, in its order."""
  with tarfile.open(path) as archive:
    for entry in archive:
      wanted = entry.isfile() and entry.name.endswith(".xyz")  # a link has no size of its own
      content = archive.extractfile(entry) if wanted else None
      if content is not None:
        if entry.size > LARGEST:
          raise ValueError(f"{entry.name} has {entry.size:,} bytes: this is not QM9")
        yield content.read().decode("ascii", "replace")


def _frame(index: int, text: str, place: int) -> Frame:
  from ase.data import atomic_numbers

  lines = text.splitlines()
  try:
    count = int(lines[0])
    rows = [line.translate(EXPONENTS).split() for line in lines[1:count + 2]]
    if len(rows) != count + 1:
      raise ValueError(f"it announces {count} atoms and ends after {len(rows) - 1}")
    energy = float(rows[0][place])
    species = np.array([atomic_numbers[row[0]] for row in rows[1:]], np.int32)
    positions = np.array([row[1:4] for row in rows[1:]], np.float64)
  except (ValueError, IndexError, KeyError) as error:
    raise ValueError(f"frame {index} is not a molecule of QM9: {short_text(error)}") from error
  return frame(index, positions=positions, species=species, energy=energy, forces=None, cell=None)
