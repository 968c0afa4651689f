"""Label transforms, and the functions that fit them to training labels.

A label transform is affine and keeps the forces the derivative of the energy:

  energy -> (energy - shift) / scale,    forces -> forces / scale.

A scheme is a shift rule crossed with a scale rule; `SHIFTS`, `SCALES` and `SCHEMES` hold them.
Everything is fitted in float64 NumPy, on the training split only. Apply a transform to NumPy
labels, before anything becomes float32: total energies of thousands of eV have a float32 spacing
as large as the error that one hopes for.
"""

import difflib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from dcnn.base import Labels, rounding

Shift = Float[Array | np.ndarray, "..."] | float
Species = Int[Array | np.ndarray, "*frames atoms"]

_ELEMENTS = 119  # atomic numbers 1 to 118, and 0 for padding
# eV; sizes of labels and scales. Float32, which the device has, ends at 1e38, and squares are taken
# of these in float64.
_LARGEST = 1e30
_SMALLEST_SCALE = 1 / _LARGEST


class LabelTransform(NamedTuple):
  """Affine map of energies and forces, an immutable pytree that `jax.vmap` may stack.

  Attributes:
    shift: eV, subtracted from every energy.
    scale: eV, positive; divides energies and forces alike.
    atomic: eV, reference energy of each atomic number, subtracted once for every atom of it;
      shape (119,), NaN for elements it was not fitted to. None where the shift is one number.
  """

  shift: Float[Array, ""] | float = 0.0
  scale: Float[Array, ""] | float = 1.0
  atomic: Float[Array | np.ndarray, " elements"] | None = None

  def __call__(self, labels: Labels, species: Species | None = None) -> Labels:
    """Scaled labels, (E - shift) / scale and F / scale.

    NumPy labels stay NumPy and become float64; jax labels, or a traced transform, give jax arrays.

    Args:
      labels: energy (*frames) eV and forces (*frames atoms 3) eV/angstrom.
      species: (*frames atoms) atomic numbers, needed where the transform holds `atomic`.

    Returns:
      The scaled labels, without unit and in 1/angstrom.

    Raises:
      ValueError: if per-element references are needed and species are missing or unknown.
    """
    energy, forces = _exact(labels, self)
    return _exact(Labels((energy - self.shift_of(species)) / self.scale, forces / self.scale), self)

  def inverse(self, scaled: Labels, species: Species | None = None) -> Labels:
    """Labels in physical units, E scale + shift and F scale: undoes the transform.

    Args:
      scaled: scaled labels, single or with a leading frames axis.
      species: (*frames atoms) atomic numbers, needed where the transform holds `atomic`.

    Returns:
      Energy in eV, forces in eV/angstrom.

    Raises:
      ValueError: if per-element references are needed and species are missing or unknown.
    """
    energy, forces = _exact(scaled, self)
    return _exact(Labels(energy * self.scale + self.shift_of(species), forces * self.scale), self)

  def shift_of(self, species: Species | None = None) -> Shift:
    """Total shift of each configuration: shift + sum over its atoms of atomic[species].

    Float64 for a transform as fitted and NumPy species, so that raw energies may be shifted on
    the host. Padded atoms (species 0) contribute nothing.

    Args:
      species: (*frames atoms) atomic numbers.

    Returns:
      eV, shape (*frames); one number for all where the transform holds no `atomic`.

    Raises:
      ValueError: if per-element references are needed and species are missing or unknown.
    """
    if self.atomic is None:
      return self.shift
    if species is None:
      raise ValueError("this label transform has one reference energy per element: expected "
                       "species (frames, atoms), received none; pass the systems' species")
    xp = jnp if _on_device(self, species) else np
    references = xp.where(species > 0, xp.asarray(self.atomic)[species], 0.0)
    if xp is np and not np.all(np.isfinite(references)):
      unknown = sorted(set(np.asarray(species)[~np.isfinite(references)].tolist()))
      raise ValueError(f"no reference energy for atomic numbers {unknown}: the training "
                       "configurations did not contain them; fit on a split that does")
    return self.shift + references.sum(axis=-1)


def _on_device(*trees) -> bool:
  return any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(trees))


def _exact(labels: Labels, transform: LabelTransform) -> Labels:
  """The labels as float64 arrays if they and the transform are on the host, else as they are."""
  if _on_device(labels, transform):
    return labels
  return Labels(*(np.asarray(leaf, dtype=np.float64) for leaf in labels))


# --- Rules for the shift: (energies (frames), species or None) -> transform of unit scale ------


def _constant_shift(statistic: Callable[[np.ndarray], np.floating]):
  def rule(energy: np.ndarray, species: np.ndarray | None) -> LabelTransform:
    del species
    return LabelTransform(shift=float(statistic(energy)))

  return rule


def _atomic_shift(energy: np.ndarray, species: np.ndarray | None) -> LabelTransform:
  """Least squares of the energies on the number of atoms of each element."""
  if species is None:
    raise ValueError("per-element references are fitted to compositions: expected species "
                     "(frames, atoms), received none; pass the species of the training systems")
  elements = np.unique(species[species > 0])
  counts = (species[:, :, None] == elements).sum(axis=1)
  references, _, rank, _ = np.linalg.lstsq(counts.astype(np.float64), energy)
  if rank < len(elements):
    warnings.warn(
        f"the compositions of the training configurations determine only {rank} of "
        f"{len(elements)} reference energies (atomic numbers {elements.tolist()}): where the "
        "composition never varies, the split between elements is arbitrary. The smallest "
        "references that fit were taken. They are right for these compositions and for no other; "
        "add configurations of other compositions, or use mean_shift", stacklevel=3)
  return LabelTransform(atomic=_table(dict(zip(elements.tolist(), references, strict=True))))


def _given_references(
    references: Mapping[int, float], species: np.ndarray | None) -> LabelTransform:
  elements = [] if species is None else np.unique(species[species > 0]).tolist()
  missing = [element for element in elements if element not in references]
  if missing:
    raise ValueError(f"expected a reference energy for every element, received none for the atomic "
                     f"numbers {missing}: add single atoms of these to the data")
  return LabelTransform(atomic=_table(references))


def _table(references: Mapping[int, float]) -> np.ndarray:
  """Energies by atomic number; nan where none is known, 0 for padded atoms."""
  table = np.full(_ELEMENTS, np.nan)
  table[0] = 0.0
  for element, energy in references.items():
    table[element] = energy
  return table


SHIFTS: Mapping[str, Callable[[np.ndarray, np.ndarray | None], LabelTransform]] = MappingProxyType({
    "none": _constant_shift(lambda energy: np.float64(0)),
    "mean": _constant_shift(np.mean),
    "min": _constant_shift(np.min),
    "median": _constant_shift(np.median),
    "atomic": _atomic_shift,
})


# --- Rules for the scale: sample -> eV ---------------------------------------------------------


class _Sample(NamedTuple):
  """Training labels as the scale rules see them, float64."""

  energy: np.ndarray  # raw, (frames)
  remainder: np.ndarray  # the same less per-element references, which else would be its spread
  forces: np.ndarray  # components on real atoms


def _power_of_ten(sample: _Sample) -> float:
  """Smallest power of ten that brings the largest raw |E| to at most 1, exactly."""
  largest = float(np.max(np.abs(sample.energy)))
  if largest == 0:
    return 0.0
  exponent = math.ceil(math.log10(largest))
  # The logarithm is rounded: settle exact powers by comparison.
  return next(10.0**k for k in range(exponent - 1, exponent + 2) if 10.0**k >= largest)


def _interquartile_range(sample: _Sample) -> float:
  low, high = np.percentile(sample.remainder, [25, 75])
  return float(high - low)


SCALES: Mapping[str, Callable[[_Sample], float]] = MappingProxyType({
    "none": lambda sample: 1.0,
    "power_of_ten": _power_of_ten,
    "range": lambda sample: float(np.ptp(sample.remainder)),
    "std": lambda sample: float(np.std(sample.remainder)),
    "iqr": _interquartile_range,
    "force_rms": lambda sample: float(np.sqrt(np.mean(sample.forces**2))),
})

SCHEMES: Mapping[str, tuple[str, str]] = MappingProxyType({
    "identity": ("none", "none"),
    "mean_shift": ("mean", "none"),
    "power_of_ten": ("none", "power_of_ten"),
    "min_max": ("min", "range"),
    "standardize": ("mean", "std"),
    "robust": ("median", "iqr"),
    "force_rms": ("mean", "force_rms"),
    "atomic_reference": ("atomic", "none"),
})


# --- Fitting -----------------------------------------------------------------------------------


def fit(
    scheme: str, labels: Labels, species: Species | None = None, *,
    references: Mapping[int, float] | None = None,
) -> LabelTransform:
  """Label transform of a scheme, fitted to training labels.

  Spreads (`range`, `std`, `iqr`) are those of the energies less the per-element references where
  the shift is `atomic`; `power_of_ten` is always that of the raw energies.

  Args:
    scheme: a name of `SCHEMES`, or 'SHIFT/SCALE' of `SHIFTS` and `SCALES`; for example
      'mean/power_of_ten'.
    labels: training labels, energy (frames) eV and forces (frames atoms 3) eV/angstrom, nan in
      frames without forces.
    species: (frames atoms) atomic numbers. Needed for the shift `atomic`; for `force_rms` they
      tell padded atoms, which are not counted.
    references: energies of free atoms in eV by atomic number, which the shift `atomic` then takes
      in place of fitted ones.

  Returns:
    The transform, float64.

  Raises:
    ValueError: if the scheme is unknown, labels are not finite (or beyond 1e30) or of the wrong
      shape, species are missing, or the scale is zero or outside 1e-30 to 1e30 eV.
  """
  shift, scale = rules(scheme)
  energy, forces, atoms = _checked(labels, species)
  if shift == "atomic" and references:
    transform = _given_references(references, atoms)
  else:
    transform = SHIFTS[shift](energy, atoms)
  # A common shift leaves every spread as it is; only per-element references are taken off.
  shifts = 0.0 if transform.atomic is None else np.asarray(transform.shift_of(atoms))
  known = forces[atoms > 0] if atoms is not None else forces
  sample = _Sample(energy, energy - shifts, known[np.isfinite(known)])
  return transform._replace(scale=_checked_scale(SCALES[scale](sample), scale, sample))


def identity() -> LabelTransform:
  """Labels as they are: shift 0, scale 1."""
  return LabelTransform()


def rescale(shift: float, scale: float) -> LabelTransform:
  """Labels with a given shift and scale.

  Args:
    shift: eV.
    scale: eV, positive.

  Returns:
    The transform (E - shift) / scale, F / scale.

  Raises:
    ValueError: if the shift is beyond 1e30 or the scale not within 1e-30 to 1e30.
  """
  if not (abs(shift) <= _LARGEST and _SMALLEST_SCALE <= scale <= _LARGEST):
    raise ValueError("expected a finite shift and a positive finite scale in eV, received shift "
                     f"{shift} and scale {scale}; sizes end at {_LARGEST:.0e}")
  return LabelTransform(float(shift), float(scale))


def power_of_ten(labels: Labels, exponent: int | None = None) -> LabelTransform:
  """Division by a power of ten, without shift: E / 10^k, F / 10^k.

  By default 10^k is the smallest power that brings the largest |E| to at most 1. The official
  code has one literal per data set instead, 10^6 for MD17 in kcal/mol; give the exponent for that.

  Args:
    labels: training labels, energy (frames) eV.
    exponent: k, in place of the fitted one.

  Returns:
    The transform.

  Raises:
    ValueError: see `fit`.

  References:
    K. Lo and D. Huang, On Training Derivative-Constrained Neural Networks, arXiv:2310.01649
    (2023), Eq. 4.
  """
  if exponent is None:
    return fit("power_of_ten", labels)
  if abs(exponent) > 30:
    raise ValueError(f"expected an exponent between -30 and 30, received {exponent}")
  return rescale(0.0, 10.0**exponent)


def min_max(labels: Labels) -> LabelTransform:
  """Training energies to [0, 1]: (E - min E) / (max E - min E). See `fit`."""
  return fit("min_max", labels)


def standardize(labels: Labels) -> LabelTransform:
  """Training energies to mean 0 and (population) standard deviation 1. See `fit`."""
  return fit("standardize", labels)


def robust(labels: Labels) -> LabelTransform:
  """Training energies to median 0 and interquartile range 1. See `fit`."""
  return fit("robust", labels)


def mean_shift(labels: Labels) -> LabelTransform:
  """Training energies to mean 0, scale 1. See `fit`."""
  return fit("mean_shift", labels)


def force_rms(labels: Labels, species: Species | None = None) -> LabelTransform:
  """Energies to mean 0, scaled so that force components have root mean square 1/angstrom.

  The scale is the number of eV that the root mean square has in eV/angstrom. Pass species where
  configurations are padded: padded atoms have zero forces and do not count. See `fit`.
  """
  return fit("force_rms", labels, species)


def atomic_reference(labels: Labels, species: Species) -> LabelTransform:
  """Energies less one reference energy per atom, fitted per element by least squares; scale 1.

  Warns where the compositions do not determine the references. For a scale too, cross it:
  `fit("atomic/force_rms", labels, species)`. See `fit`.
  """
  return fit("atomic_reference", labels, species)


def rules(scheme: str) -> tuple[str, str]:
  """Names of the shift and scale rules of a scheme."""
  if "/" not in scheme:
    crossed = f"'SHIFT/SCALE' with SHIFT of {', '.join(SHIFTS)} and SCALE of {', '.join(SCALES)}"
    _check_known("label scheme", scheme, SCHEMES, f", or {crossed}")
    return SCHEMES[scheme]
  shift, scale = scheme.split("/", 1)
  _check_known(f"shift in the label scheme {scheme!r}:", shift, SHIFTS)
  _check_known(f"scale in the label scheme {scheme!r}:", scale, SCALES)
  return shift, scale


def _check_known(what: str, name: str, known: Iterable[str], others: str = "") -> None:
  names = list(known)
  if name in names:
    return
  close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
  hint = f"; did you mean {close[0]!r}?" if close else ""
  raise ValueError(f"unknown {what} {name!r}; known are {', '.join(names)}{others}{hint}")


def _checked(
    labels: Labels, species: Species | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
  """Training labels in float64 NumPy, of consistent shapes and finite: energy, forces, species."""
  energy, forces = (np.asarray(leaf, dtype=np.float64) for leaf in labels)
  frames = energy.shape[0] if energy.ndim == 1 else 0
  if frames == 0 or forces.ndim != 3 or forces.shape[::2] != (frames, 3):
    raise ValueError("expected training labels with energy (frames,) and forces (frames, atoms, 3) "
                     f"of one frame or more, received {energy.shape} and {forces.shape}")
  atoms = None if species is None else np.asarray(species)
  if atoms is not None and atoms.shape != forces.shape[:2]:
    raise ValueError(f"expected species (frames, atoms) = {forces.shape[:2]} as the forces have, "
                     f"received {atoms.shape}; repeat the species of one molecule for every frame")
  real = np.ones(forces.shape[:2], bool) if atoms is None else atoms > 0
  absent = np.all(np.where(real[..., None], np.isnan(forces), True), axis=(1, 2))
  for name, leaf in (("energy", energy), ("forces", np.where(absent[:, None, None], 0.0, forces))):
    bad = np.flatnonzero(~(np.abs(leaf.reshape(len(leaf), -1)) <= _LARGEST).all(axis=1))
    if len(bad):
      raise ValueError(
          f"expected finite labels, received {name} not finite in {len(bad)} of {len(leaf)} "
          f"frames, first in frame {bad[0]}; remove those frames (sizes end at {_LARGEST:.0e})")
  return energy, forces, atoms


_SPREADS = {"range": "range", "std": "standard deviation", "iqr": "interquartile range"}


def _checked_scale(scale: float, rule: str, sample: _Sample) -> float:
  """The scale, if the labels determine one."""
  # Equal energies may differ by rounding, which is no spread to divide by.
  smallest = max(_SMALLEST_SCALE, rounding(sample.energy) if rule in _SPREADS else 0)
  if smallest < scale <= _LARGEST:
    return scale
  if rule in _SPREADS and scale <= smallest:
    reason = (f"the {_SPREADS[rule]} of the {len(sample.energy)} training energies is zero "
              f"({scale:g} eV); give frames that differ, or take a scale that needs no spread of "
              "energies: none, power_of_ten or force_rms")
  else:
    reason = (f"{rule} of these {len(sample.energy)} frames is {scale:g}; check their values and "
              "units, or take the scale none")
  raise ValueError(f"expected a positive finite scale, received none: {reason}")
