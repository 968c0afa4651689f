"""Reads extended XYZ, frame by frame, so that every mistake is reported with its place.

ASE reads this format too; this reader is several times faster, takes Windows line ends and a
byte-order mark, and never trusts a number of atoms or columns that the file does not have.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from dcnn.data.raw import Frame, brief, find, frame, periodic_cell

LONGEST_COMMENT = 1_000_000  # characters; the parser of key=value pairs goes one by one


def read_xyz(path: str | os.PathLike, *, energy_key: str, forces_key: str) -> list[Frame]:
  """All frames of an extended XYZ file.

  Args:
    path: the file, in UTF-8.
    energy_key: on the comment line.
    forces_key: name of the columns in `Properties`.

  Raises:
    ValueError: naming the frame, on a malformed frame or one without energy or forces.
  """
  frames: list[Frame] = []
  with open(path, encoding="utf-8-sig") as file:
    try:
      for i, (comment, lines) in enumerate(_blocks(file)):
        frames.append(_frame(i, comment, lines, energy_key=energy_key, forces_key=forces_key))
    except UnicodeDecodeError as error:  # of a block of bytes that is read ahead
      raise ValueError(f"frame {len(frames)} or one soon after it is not UTF-8 text "
                       f"({error.reason}); save the file as UTF-8") from error
  return frames


def _blocks(file: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
  """Comment line and atom lines of each frame."""
  lines = iter(file)
  index = 0
  for line in lines:
    if not line.strip():
      continue
    count = _atoms(line, index)
    block = list(itertools.islice(lines, count + 1))
    if len(block) <= count:
      raise ValueError(
          f"frame {index} announces {count} atoms but the file ends after "
          f"{max(len(block) - 1, 0)}: cut short?")
    yield block[0], block[1:]
    index += 1


def _atoms(line: str, index: int) -> int:
  text = line.strip()
  # More digits than any file has lines: `int` and `islice` refuse them with other words.
  if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) > 0):
    raise ValueError(f"frame {index} begins with {text[:40]!r}, expected its number of atoms")
  return int(text)


def _frame(
    index: int, comment: str, lines: list[str], *, energy_key: str, forces_key: str) -> Frame:
  info = _info(comment, index)
  columns = _columns(str(info.get("Properties", "species:S:1:pos:R:3")), index)
  width = max(part.stop for part in columns.values())
  rows = [line.split() for line in lines]
  for atom, row in enumerate(rows):
    if len(row) != width:
      raise ValueError(
          f"frame {index}, atom {atom}: {len(row)} columns, Properties announces {width}: is the "
          "file cut short, or Properties wrong?")
  energy = find(energy_key, [info], index)
  forces = find(forces_key, [columns], index)
  return frame(
      index,
      positions=_numbers(rows, find("pos", [columns], index), f"frame {index}: positions"),
      species=_species(rows, columns, index),
      energy=energy,
      forces=_numbers(rows, forces, f"frame {index}: {forces_key}"),
      cell=_cell(info, index))


def _cell(info: dict[str, Any], index: int) -> np.ndarray | None:
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
        f"frame {index}: cannot read the comment line {comment[:60]!r}: {brief(error)}") from error


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


def _numbers(rows: list[list[str]], columns: slice, what: str) -> np.ndarray:
  try:
    return np.array([row[columns] for row in rows], np.float64)
  except ValueError as error:
    raise ValueError(f"{what} must be numbers: {brief(error)}") from error


def _species(rows: list[list[str]], columns: dict[str, slice], index: int) -> np.ndarray:
  from ase.data import atomic_numbers

  if "species" not in columns and "Z" in columns:
    numbers = _numbers(rows, columns["Z"], f"frame {index}: Z").reshape(-1)
    whole = (np.abs(numbers) < 1000) & (numbers == np.floor(numbers))
    return np.where(whole, numbers, 0).astype(np.int32)
  place = find("species", [columns], index).start
  symbols = [row[place].capitalize() for row in rows]
  unknown = next((symbol for symbol in symbols if symbol not in atomic_numbers), None)
  if unknown is not None:
    raise ValueError(f"frame {index}: {unknown[:20]!r} is not the symbol of an element")
  return np.array([atomic_numbers[symbol] for symbol in symbols], np.int32)
