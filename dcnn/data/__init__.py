"""Labelled configurations: embedded molecules, files of many formats, splits, and a generator.

Everything is float64 NumPy, eV and angstrom here; what goes to the device is cast later.
"""

from dcnn.data.between import check_test_set
from dcnn.data.domain import Domain, domain, remarks, require_elements
from dcnn.data.embedded import NAMES
from dcnn.data.generation import MOLECULES, generate, save
from dcnn.data.loading import checksum, join, load, load_unlabelled
from dcnn.data.named import SETS as PUBLISHED
from dcnn.data.neighbours import neighbour_list
from dcnn.data.splitting import (
    Indices,
    Published,
    Splits,
    block_indices,
    check_disjoint,
    distinct,
    published_indices,
    published_split,
    split,
    split_blocks,
    split_indices,
)
from dcnn.data.units import UNITS

__all__ = [
    "MOLECULES",
    "NAMES",
    "PUBLISHED",
    "UNITS",
    "Domain",
    "Indices",
    "Published",
    "Splits",
    "block_indices",
    "check_disjoint",
    "check_test_set",
    "checksum",
    "distinct",
    "domain",
    "generate",
    "join",
    "load",
    "load_unlabelled",
    "neighbour_list",
    "published_indices",
    "published_split",
    "remarks",
    "require_elements",
    "save",
    "split",
    "split_blocks",
    "split_indices",
]
