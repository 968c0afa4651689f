"""Reads extended XYZ, frame by frame, so that every mistake is reported with its place.

ASE reads this format too; this reader is several times faster, takes Windows line ends and a
byte-order mark, and never trusts a number of atoms or columns that the file does not have.
"""

import itertools
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np
from jaxtyping import Float, Int

from dcnn.data.raw import (
  FREE_ENERGY,
  Frame,
  Keys,
  Raw,
  check_atoms,
  first_value,
  frame,
  periodic_cell,
  require_key,
  short_text,
  stack,
)

LONGEST_COMMENT = 1_000_000  # characters; the parser of key=value pairs goes one by one
# Characters; a line of this length without an end is no text, and could fill the memory.
LONGEST_LINE = 20_000_000
MOST_BLANK_LINES = 1000  # between two frames
NUMBER = re.compile(r"\d{1,9}(\.\d*)?", re.ASCII)
PROTEIN_LETTERS = "HCNOPS"  # first letters of names of atoms that are no symbols: CA, HO, OG


def read_xyz(path: str | os.PathLike, keys: Keys) -> Raw:
  """All frames of an extended XYZ file.

  Args:
    path: The file, in UTF-8.
    keys: Names of the energy on the comment line and of the columns in `Properties`.

  Raises:
    ValueError: Naming the frame, on a malformed frame or one without energy.
  """
  from ase.data import atomic_names

  keys = Keys(keys.energy or "energy", keys.forces or "forces", keys.positions or "pos",
              keys.species or "species")
  frames: list[Frame] = []
  first: dict[str, Any] = {}
  symbols: dict[str, int] = {}
  with open(path, encoding="utf-8-sig") as file:
    try:
      for i, (comment, lines) in enumerate(_blocks(_lines(file))):
        info = _info(comment, i)
        first = first or info
        frames.append(_frame(i, info, lines, keys, symbols))
    except UnicodeDecodeError as error:  # of a block of bytes that is read ahead
      raise ValueError(f"frame {len(frames)} or one soon after it is not UTF-8 text "
                       f"({error.reason}); save the file as UTF-8") from error
  # `CA` and the like may be calcium or the name of a carbon atom.
  odd = [f"{text!r} as {atomic_names[number].lower()}" for text, number in symbols.items()
         if len(text) == 2 and text[1].isupper() and text[0] in PROTEIN_LETTERS]
  if odd:
    warnings.warn(f"{', '.join(odd)} is how species are read; if these are names of atoms, write "
                  "the symbols of their elements into the file, else write them as Ca, Cl",
                  stacklevel=3)
  return stack(frames, source="extended XYZ", keys=keys, first=first)


def _lines(file: TextIO) -> Iterator[str]:
  """The lines of a file, none of which may be endless."""
  blank = 0
  while line := file.readline(LONGEST_LINE):
    if len(line) == LONGEST_LINE:
      raise ValueError(f"a line of more than {LONGEST_LINE:,} characters, which begins with "
                       f"{line[:20]!r}: this is not extended XYZ")
    blank = 0 if line.strip() else blank + 1
    if blank > MOST_BLANK_LINES:
      raise ValueError(f"more than {MOST_BLANK_LINES:,} blank lines: this is not extended XYZ")
    yield line


def _blocks(lines: Iterator[str]) -> Iterator[tuple[str, list[str]]]:
  """The comment line and the atom lines of each frame."""
  index = 0
  for line in lines:
    if not line.strip():
      continue
    text = line.strip()
    # More digits than any file has lines: `int` and `islice` refuse them with other words.
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) > 0):
      raise ValueError(f"frame {index} begins with {text[:40]!r}, expected its number of atoms")
    count = int(text)
    check_atoms(count)
    block = list(itertools.islice(lines, count + 1))
    if len(block) <= count:
      raise ValueError(
          f"frame {index} announces {count} atoms but the file ends after "
          f"{max(len(block) - 1, 0)}: cut short?")
    yield block[0], block[1:]
    index += 1


def _frame(
    index: int, info: dict[str, Any], lines: list[str], keys: Keys, symbols: dict[str, int]
) -> Frame:
  columns = _columns(str(info.get("Properties", "species:S:1:pos:R:3")), index)
  width = max(part.stop for part in columns.values())
  rows = [line.split() for line in lines]
  for atom, row in enumerate(rows):
    if len(row) != width:
      raise ValueError(
          f"frame {index}, atom {atom}: {len(row)} columns, Properties announces {width}: is the "
          "file cut short, or Properties wrong?")
  positions = require_key(columns.get(str(keys.positions)), str(keys.positions), "positions",
                          columns, f"frame {index}", kind="column")
  forces = columns.get(str(keys.forces))
  return frame(
      index,
      positions=_numbers(rows, positions, f"frame {index}: positions"),
      species=_species(rows, columns, index, str(keys.species), symbols),
      energy=first_value(str(keys.energy), [info]),
      forces=(None if forces is None
              else _numbers(rows, forces, f"frame {index}: {keys.forces}")),
      cell=_cell(info, index),
      free_energy=first_value(FREE_ENERGY, [info]) if keys.energy == "energy" else None,
      names=frozenset({*info, *columns} - {"Properties", "Lattice", "pbc", "Z"}))


def _cell(info: dict[str, Any], index: int) -> Float[np.ndarray, "3 3"] | None:
  vectors = info.get("Lattice")
  if isinstance(vectors, np.ndarray):
    vectors = vectors.T  # ASE's parser reads it in the order of columns
  return periodic_cell(index, vectors=vectors, periodic=info.get("pbc", vectors is not None))


def _info(comment: str, index: int) -> dict[str, Any]:
  from ase.io.extxyz import key_val_str_to_dict  # ASE takes a second to import

  if len(comment) > LONGEST_COMMENT:
    raise ValueError(f"frame {index}: its comment line has {len(comment)} characters")
  try:
    return key_val_str_to_dict(comment)
  except Exception as error:  # the parser fails in many ways on mangled text
    raise ValueError(
        f"frame {index}: cannot read the comment line {comment[:60]!r}: {short_text(error)}"
    ) from error


def _columns(properties: str, index: int) -> dict[str, slice]:
  """`species:S:1:pos:R:3` -> {"species": slice(0, 1), "pos": slice(1, 4)}."""
  parts = properties.split(":")
  widths = parts[2::3]
  sizes = all(w.isascii() and w.isdigit() and len(w) < 12 and int(w) > 0 for w in widths)
  if len(parts) % 3 or not sizes:
    raise ValueError(
        f"frame {index}: Properties must be name:type:columns:..., got {properties[:60]!r}")
  ends = list(itertools.accumulate(map(int, widths)))
  return {name: slice(end - int(width), end)
          for name, width, end in zip(parts[::3], widths, ends, strict=True)}


def _numbers(
    rows: list[list[str]], columns: slice, what: str) -> Float[np.ndarray, "atoms columns"]:
  try:
    return np.array([row[columns] for row in rows], np.float64)
  except ValueError as error:
    raise ValueError(f"{what} must be numbers: {short_text(error)}") from error


def _species(
    rows: list[list[str]], columns: dict[str, slice], index: int, key: str, symbols: dict[str, int]
) -> Int[np.ndarray, " atoms"]:
  """Atomic numbers from symbols or numbers; adds the symbols that it meets to `symbols`."""
  place = columns.get(key)
  if key == "species" and place is None:
    place = columns.get("Z")
  first = require_key(place, key, "species", columns, f"frame {index}", kind="column").start
  for text in dict.fromkeys(row[first] for row in rows if row[first] not in symbols):
    from ase.data import atomic_numbers

    number = atomic_numbers.get(text.capitalize(), 0)
    if NUMBER.fullmatch(text):
      number = int(float(text)) if float(text) == int(float(text)) else -1
      if not 0 < number <= 118:
        raise ValueError(
            f"frame {index}: species {text!r}, expected an atomic number from 1 to 118")
    if not number:
      raise ValueError(f"frame {index}: {text[:20]!r} is not the symbol of an element")
    symbols[text] = number
  return np.array([symbols[row[first]] for row in rows], np.int32)
