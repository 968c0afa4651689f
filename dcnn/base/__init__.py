"""The ground floor: records of atoms and labels, and what every package says and writes alike."""

from dcnn.base.systems import (
    BOHR,
    HARTREE,
    KCAL_PER_MOL,
    Dataset,
    Labels,
    Neighbours,
    System,
    known_forces,
    rounding,
)

__all__ = [
    "BOHR", "HARTREE", "KCAL_PER_MOL", "Dataset", "Labels", "Neighbours", "System",
    "known_forces", "rounding"]
