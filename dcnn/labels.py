"""Label transforms, and the functions that fit them to training labels.

A label transform is affine and keeps the forces the derivative of the energy:

  energy -> (energy - shift) / scale,    forces -> forces / scale.

A scheme is a rule for the shift crossed with a rule for the scale; `SHIFTS`, `SCALES` and `SCHEMES`
hold them. `fit` takes their names, and also rules and transforms of one's own.
Everything is fitted in float64 NumPy, on the training split only. Apply a transform to NumPy
labels, before anything becomes float32: the float32 spacing of total energies of thousands of eV is
as large as the error that one hopes for.
"""

import inspect
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from dcnn.base import Labels, rounding
from dcnn.base.systems import known_forces
from dcnn.base.text import first_line, suggestion

#: What is taken off energies in eV, one number or one for each configuration.
Shift = Float[Array | np.ndarray, "..."] | float
#: Atomic numbers; 0 is padding.
Species = Int[Array | np.ndarray, "*frames atoms"]

_ELEMENTS = 119  # atomic numbers 1 to 118, and 0 for padding
# Largest size of labels and scales, eV. Float32, which the device has, ends at 1e38, and squares of
# labels are taken in float64.
_LARGEST = 1e30
_SMALLEST_SCALE = 1e-30


class LabelTransform(NamedTuple):
  """Affine map of energies and forces, an immutable pytree that `jax.vmap` may stack.

  Attributes:
    shift: Energy in eV that is subtracted from every energy.
    scale: Energy in eV, positive, that energies and forces are divided by.
    atomic: Reference energy in eV of each atomic number, which is subtracted once for every atom of
      that element; shape (119,), nan for elements without one. None where the shift is one number.

  >>> transform = LabelTransform(shift=-6.0, scale=2.0)
  >>> labels = Labels(np.array([-8.0, -4.0]), np.ones((2, 1, 3)))
  >>> scaled = transform(labels)
  >>> scaled.energy.tolist(), scaled.forces[0].tolist()
  ([-1.0, 1.0], [[0.5, 0.5, 0.5]])
  >>> transform.inverse(scaled).energy.tolist()
  [-8.0, -4.0]
  """

  shift: Float[Array, ""] | float = 0.0
  scale: Float[Array, ""] | float = 1.0
  atomic: Float[Array | np.ndarray, " elements"] | None = None

  def __call__(self, labels: Labels, species: Species | None = None) -> Labels:
    """Scaled labels, (E - shift) / scale and F / scale.

    NumPy labels stay NumPy and become float64; jax labels, or a traced transform, give jax arrays.

    Args:
      labels: Energy (*frames) in eV and forces (*frames atoms 3) in eV/angstrom.
      species: Atomic numbers (*frames atoms), needed where the transform holds `atomic`.

    Returns:
      The scaled energy without unit, and the scaled forces in 1/angstrom.

    Raises:
      ValueError: If per-element references are needed and species are missing or unknown.
    """
    energy, forces = _float64_on_host(labels, self)
    scaled = Labels((energy - self.shift_of(species)) / self.scale, forces / self.scale)
    return _float64_on_host(scaled, self)

  def inverse(self, scaled: Labels, species: Species | None = None) -> Labels:
    """Labels in physical units, E scale + shift and F scale: undoes the transform.

    Args:
      scaled: Scaled labels: energy (*frames) without unit, forces (*frames atoms 3) in 1/angstrom.
      species: Atomic numbers (*frames atoms), needed where the transform holds `atomic`.

    Returns:
      Energy in eV and forces in eV/angstrom.

    Raises:
      ValueError: If per-element references are needed and species are missing or unknown.
    """
    energy, forces = _float64_on_host(scaled, self)
    labels = Labels(energy * self.scale + self.shift_of(species), forces * self.scale)
    return _float64_on_host(labels, self)

  def shift_of(self, species: Species | None = None) -> Shift:
    """Total shift of each configuration: shift + sum over its atoms of atomic[species].

    A fitted transform and NumPy species give float64, so that raw energies may be shifted on the
    host. Padded atoms (species 0) contribute nothing.

    Args:
      species: Atomic numbers (*frames atoms).

    Returns:
      The shifts in eV, shape (*frames); one number for all where the transform holds no `atomic`.

    Raises:
      ValueError: If per-element references are needed and species are missing or unknown.
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


def _float64_on_host(labels: Labels, transform: LabelTransform) -> Labels:
  """The labels as float64 arrays if they and the transform are on the host, else as they are."""
  if _on_device(labels, transform):
    return labels
  return Labels(*(np.asarray(leaf, dtype=np.float64) for leaf in labels))


#: What `fit` takes.
Scheme = str | LabelTransform | Callable[..., LabelTransform] | Sequence[str | Callable[..., Any]]


# --- Rules -----------------------------------------------------------------------------------


class Rule(NamedTuple):
  """A rule for the shift or the scale of a label transform.

  Attributes:
    function: Of a shift, `(energy, species)` -> a number in eV or a `LabelTransform` of scale 1,
      with energies (frames) in eV and atomic numbers (frames atoms), or None where they are not
      known. Of a scale, `(energy, forces)` -> a number in eV, with energies (frames) in eV less the
      references for their elements, where the shift has some, and the known force components
      (components) on real atoms in eV/angstrom. Everything is float64 NumPy.
    parameters: Names of the numbers that the function takes by keyword beside these. Those with a
      default may be left out.
    needs: Names of what `fit` gives to the function by keyword: `references`, energies of free
      atoms in eV by atomic number, or `raw_energy` (frames), the energies as they are.
    meaning: What the number is, in a few words.
  """

  function: Callable[..., Any]
  parameters: tuple[str, ...] = ()
  needs: tuple[str, ...] = ()
  meaning: str = "that of a function of one's own"


def _constant_shift(statistic: Callable[[np.ndarray], Any], meaning: str) -> Rule:
  return Rule(lambda energy, species: statistic(energy), meaning=meaning)


def _atomic_shift(
    energy: Float[np.ndarray, " frames"], species: Int[np.ndarray, "frames atoms"] | None, *,
    references: Mapping[int, float],
) -> LabelTransform:
  """One reference energy for each element: that of free atoms, or fitted by least squares."""
  if references:
    return _atomic_transform(references, species)
  if species is None:
    raise ValueError("per-element references are fitted to compositions: expected species "
                     "(frames, atoms), received none; pass the species of the training systems")
  elements = np.unique(species[species > 0])
  counts = (species[:, :, None] == elements).sum(axis=1)
  fitted, _, rank, _ = np.linalg.lstsq(counts.astype(np.float64), energy)
  if rank < len(elements):
    warnings.warn(
        f"the compositions of the training configurations determine only {rank} of "
        f"{len(elements)} reference energies (atomic numbers {elements.tolist()}): where the "
        "composition never varies, the split between elements is arbitrary. The smallest "
        "references that fit were taken. They are right for these compositions and for no other; "
        "add configurations of other compositions, or use mean_shift", stacklevel=3)
  return _atomic_transform(dict(zip(elements.tolist(), fitted, strict=True)), species)


def _atomic_transform(
    references: Mapping[int, float], species: Int[np.ndarray, "frames atoms"] | None
) -> LabelTransform:
  elements = [] if species is None else np.unique(species[species > 0]).tolist()
  missing = [element for element in elements if element not in references]
  if missing:
    raise ValueError(f"expected a reference energy for every element, received none for the atomic "
                     f"numbers {missing}: add single atoms of these to the data")
  table = np.full(_ELEMENTS, np.nan)
  table[0] = 0.0  # padded atoms
  for element, energy in references.items():
    table[element] = energy
  return LabelTransform(atomic=table)


def _power_of_ten(
    energy: Float[np.ndarray, " frames"], forces: Float[np.ndarray, " components"], *,
    raw_energy: Float[np.ndarray, " frames"], exponent: float | None = None,
) -> float:
  """10^exponent; by default the smallest power that brings the largest raw |E| to at most 1."""
  if exponent is not None:
    if exponent != int(exponent) or abs(exponent) > 30:
      raise ValueError(f"expected a whole exponent from -30 to 30, received {exponent:g}")
    return 10.0 ** int(exponent)
  largest = float(np.max(np.abs(raw_energy)))
  if largest == 0:
    return 0.0
  exponent = math.ceil(math.log10(largest))
  # The logarithm is rounded: settle exact powers by comparison.
  return next(10.0**k for k in range(exponent - 1, exponent + 2) if 10.0**k >= largest)


def _spread(name: str, statistic: Callable[[np.ndarray], Any]) -> Rule:
  """The rule that divides by a spread of the energies, which must be more than rounding."""

  def spread_of(
      energy: Float[np.ndarray, " frames"], forces: Float[np.ndarray, " components"], *,
      raw_energy: Float[np.ndarray, " frames"],
  ) -> float:
    spread = float(statistic(energy))
    if spread <= max(_SMALLEST_SCALE, rounding(raw_energy)):
      raise ValueError(
          f"expected a positive finite scale, received none: the {name} of the {len(energy)} "
          f"training energies is zero ({spread:g} eV); give frames that differ, or take a scale "
          "that needs no spread of energies: none, power_of_ten or force_rms")
    return spread

  return Rule(spread_of, needs=("raw_energy",), meaning=f"the {name} of the training energies")


def _interquartile_range(energy: Float[np.ndarray, " frames"]) -> np.floating:
  low, high = np.percentile(energy, [25, 75])
  return high - low


#: Rules for the shift, by name.
SHIFTS: Mapping[str, Rule] = MappingProxyType({
    "none": _constant_shift(lambda energy: 0.0, "0"),
    "mean": _constant_shift(np.mean, "the mean of the training energies"),
    "min": _constant_shift(np.min, "the lowest of the training energies"),
    "median": _constant_shift(np.median, "the median of the training energies"),
    "atomic": Rule(_atomic_shift, needs=("references",), meaning=(
        "the sum over the atoms of one reference energy for each element")),
    "given": Rule(lambda energy, species, *, shift: shift, ("shift",), meaning="given"),
})

#: Rules for the scale, by name.
SCALES: Mapping[str, Rule] = MappingProxyType({
    "none": Rule(lambda energy, forces: 1.0, meaning="1"),
    "power_of_ten": Rule(_power_of_ten, ("exponent",), needs=("raw_energy",), meaning=(
        "a power of ten, by default the smallest that brings the largest |E| of the training data "
        "to at most 1")),
    "range": _spread("range", np.ptp),
    "std": _spread("standard deviation", np.std),
    "iqr": _spread("interquartile range", _interquartile_range),
    "force_rms": Rule(lambda energy, forces: np.sqrt(np.mean(forces**2)), meaning=(
        "the root mean square of the training forces")),
    "given": Rule(lambda energy, forces, *, scale: rescale(0.0, scale).scale, ("scale",),
                  meaning="given"),
})

#: Pairs of a shift and a scale that have a name of their own, with the parameters of both.
SCHEMES: Mapping[str, tuple[str, str]] = MappingProxyType({
    "identity": ("none", "none"),
    "rescale": ("given", "given"),
    "mean_shift": ("mean", "none"),
    "power_of_ten": ("none", "power_of_ten"),
    "min_max": ("min", "range"),
    "standardize": ("mean", "std"),
    "robust": ("median", "iqr"),
    "force_rms": ("mean", "force_rms"),
    "atomic_reference": ("atomic", "none"),
})


# --- Schemes ---------------------------------------------------------------------------------


class _Half(NamedTuple):
  """A rule as a scheme has it: under a name for messages, with values of its parameters."""

  name: str
  rule: Rule
  values: Mapping[str, float] = MappingProxyType({})

  def apply(
      self, energy: Float[np.ndarray, " frames"],
      other: Int[np.ndarray, "frames atoms"] | Float[np.ndarray, " components"] | None,
      **provided: Any,
  ) -> Any:
    needed = {name: provided[name] for name in self.rule.needs}
    return _call(self.rule.function, energy, other, **self.values, **needed)


_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\((.*)\)\s*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FORM = "expected NAME, or NAME(KEY=NUMBER, ...) as in power_of_ten(exponent=6)"


def _parse_call(text: str) -> tuple[str, dict[str, float]]:
  """Name and parameters of `NAME` or `NAME(KEY=NUMBER, ...)`."""
  if text.count("(") != text.count(")"):
    missing = "a closing" if text.count("(") > text.count(")") else "an opening"
    raise ValueError(f"{text!r} lacks {missing} bracket: {_FORM}")
  match = _CALL.fullmatch(text)
  if match is None:
    raise ValueError(f"cannot read {text!r}: {_FORM}")
  name, inside = match.groups()
  values: dict[str, float] = {}
  for part in inside.split(",") if inside and inside.strip() else ():
    key, equals, number = (piece.strip() for piece in part.partition("="))
    if not (key.isidentifier() and equals):
      raise ValueError(f"cannot read {part.strip()!r} in {text!r}: {_FORM}")
    if key in values:
      raise ValueError(f"{key} stands twice in {text!r}: keep one")
    if not _NUMBER.fullmatch(number) or not math.isfinite(float(number)):
      raise ValueError(f"{key}={number} in {text!r} is not a number: write it as in {key}=6 or "
                       f"{key}=-4.2e3")
    values[key] = float(number)
  return name, values


def _halves(scheme: Any) -> tuple[_Half, _Half]:
  """The rules of a scheme that is not itself a transform or a function, shift first."""
  if not isinstance(scheme, str):
    shift, scale = scheme
    return _half(shift, "shift", SHIFTS), _half(scale, "scale", SCALES)
  if "/" in scheme:
    shift, scale = scheme.split("/", 1)
    place = f" in the label scheme {scheme!r}"
    return _half(shift, "shift", SHIFTS, place), _half(scale, "scale", SCALES, place)
  name, values = _parse_call(scheme)
  crossed = f"'SHIFT/SCALE' with SHIFT of {', '.join(SHIFTS)} and SCALE of {', '.join(SCALES)}"
  _check_known("label scheme", name, SCHEMES, f", or {crossed}")
  shift, scale = SCHEMES[name]
  rules = SHIFTS[shift], SCALES[scale]
  _check_parameters(name, values, *rules)
  return tuple(  # pyright: ignore[reportReturnType]  (two)
      _Half(rule_name, rule, {key: values[key] for key in rule.parameters if key in values})
      for rule_name, rule in zip((shift, scale), rules, strict=True))


def _half(spec: Any, kind: str, table: Mapping[str, Rule], place: str = "") -> _Half:
  if callable(spec):
    return _Half(_name(spec), Rule(spec))
  if not isinstance(spec, str):
    raise ValueError(f"expected the name of a {kind} or a function, received {spec!r}; known are "
                     f"{', '.join(table)}")
  name, values = _parse_call(spec)
  _check_known(f"{kind}{place}", name, table)
  _check_parameters(name, values, table[name])
  return _Half(name, table[name], values)


def _check_known(what: str, name: str, known: Mapping[str, Any], others: str = "") -> None:
  if name not in known:
    raise ValueError(f"unknown {what}: {name!r}; {suggestion(name, known)}known are "
                     f"{', '.join(known)}{others}")


def _check_parameters(name: str, values: Mapping[str, float], *rules: Rule) -> None:
  """Refuses parameters that no rule takes, and the lack of those without a default."""
  known = [key for rule in rules for key in rule.parameters]
  form = f"write {name}({', '.join(f'{key}=NUMBER' for key in known)})" if known else (
      f"{name} takes none: write {name}")
  for key in values:
    if key not in known:
      raise ValueError(f"unknown parameter {key!r} of {name}: {suggestion(key, known)}{form}")
  missing = [
      key for rule in rules for key in rule.parameters if key not in values
      and inspect.signature(rule.function).parameters[key].default is inspect.Parameter.empty]
  if missing:
    raise ValueError(f"{name} lacks {' and '.join(missing)}: {form}")


def _name(function: Callable) -> str:
  return getattr(function, "__name__", repr(function))


def check(scheme: Scheme) -> None:
  """Refuses what `fit` cannot fit, without looking at any data.

  Args:
    scheme: What `fit` takes.

  Raises:
    ValueError: In one line with the fix: on a name or parameter that is not known, on text that
      cannot be read, on an object of another kind, or on a transform that has no inverse.

  >>> check("mean/power_of_ten(exponent=6)")
  >>> check("standardise")
  Traceback (most recent call last):
  ...
  ValueError: unknown label scheme: 'standardise'; did you mean 'standardize'? known are ...
  """
  if isinstance(scheme, LabelTransform):
    _check_transform(scheme, "the label transform")
  elif callable(scheme):
    if scheme in (identity, rescale):
      raise ValueError(f"labels.{_name(scheme)} is a scheme once it is called: give "
                       f"labels.{_name(scheme)}{inspect.signature(scheme)}".partition(" ->")[0])
  elif isinstance(scheme, str) or isinstance(scheme, list | tuple) and len(scheme) == 2:
    # Values of parameters are judged by the rules themselves, on labels that all of them can take.
    shift, scale = _halves(scheme)
    _cross(shift if shift.rule in SHIFTS.values() else _half("none", "shift", SHIFTS),
           scale if scale.rule in SCALES.values() else _half("none", "scale", SCALES),
           Labels(np.array([1.0, 2.0, 4.0]), np.ones((3, 2, 3))),
           np.array([[1, 1], [1, 6], [6, 6]]), references={})
  else:
    raise ValueError(
        f"expected a label scheme, received {scheme!r}: give a name such as standardize, "
        "'SHIFT/SCALE', a labels.LabelTransform, a function of (labels, species), or a pair "
        "(shift, scale)")


def meaning(scheme: Scheme) -> str:
  """What a scheme does to the labels, in a sentence.

  Args:
    scheme: What `fit` takes.

  Raises:
    ValueError: As `check` does.

  >>> meaning("mean_shift")
  '(E - shift) / scale and F / scale; shift: the mean of the training energies, scale: 1.'
  """
  check(scheme)
  if isinstance(scheme, LabelTransform) or callable(scheme):
    return "A label transform of one's own."
  shift, scale = _halves(scheme)
  return (f"(E - shift) / scale and F / scale; shift: {shift.rule.meaning}, scale: "
          f"{scale.rule.meaning}.")


def takes_references(scheme: Scheme) -> bool:
  """Whether energies of free atoms have an effect on a scheme: where its shift is `atomic`.

  Args:
    scheme: What `fit` takes.

  Raises:
    ValueError: As `check` does.

  >>> takes_references("atomic/std"), takes_references("standardize")
  (True, False)
  """
  check(scheme)
  if isinstance(scheme, LabelTransform) or callable(scheme):
    return False
  return "references" in _halves(scheme)[0].rule.needs


# --- Fitting ---------------------------------------------------------------------------------


def fit(
    scheme: Scheme, labels: Labels, species: Species | None = None, *,
    references: Mapping[int, float] | None = None,
) -> LabelTransform:
  """The label transform of a scheme, fitted to training labels.

  Spreads (`range`, `std`, `iqr`) are those of the energies less the per-element references where
  the shift is `atomic`; `power_of_ten` is always that of the raw energies.

  Args:
    scheme: One of
      a name of `SCHEMES`, or 'SHIFT/SCALE' of `SHIFTS` and `SCALES`, such as 'mean/power_of_ten';
      each name may have parameters, as in 'power_of_ten(exponent=6)';
      a `LabelTransform`, which is taken as it is;
      a function of the labels, or of labels and species, that returns a `LabelTransform`, such as
      `standardize`;
      a pair (shift, scale), each a name as above or a function as in `Rule`, which may leave out
      its second argument.
    labels: Training labels: energy (frames) in eV and forces (frames atoms 3) in eV/angstrom, nan
      in frames without forces.
    species: Atomic numbers (frames atoms). The shift `atomic` needs them, and so may a function of
      one's own; for `force_rms` they tell padded atoms, which are not counted.
    references: Energies of free atoms in eV by atomic number, which the shift `atomic` takes in
      place of fitted ones.

  Returns:
    The transform, in float64.

  Raises:
    ValueError: If the scheme is not known (see `check`), if labels are not finite (or beyond 1e30)
      or of the wrong shape, if species are missing, if the scale is zero or outside 1e-30 to 1e30
      eV, or if a function of one's own returns something else than it should.

  >>> training = Labels(np.array([-8.0, -6.0, -4.0]), np.ones((3, 2, 3)))
  >>> fit("min_max", training)
  LabelTransform(shift=-8.0, scale=4.0, atomic=None)
  >>> fit("mean/power_of_ten", training)
  LabelTransform(shift=-6.0, scale=10.0, atomic=None)

  A rule of one's own is a function of the energies, and for the scale also of the forces:

  >>> def mean_force(energy, forces):
  ...   return np.abs(forces).mean()
  >>> fit((np.max, mean_force), training)
  LabelTransform(shift=-4.0, scale=1.0, atomic=None)
  """
  check(scheme)
  labels, atoms = _training_labels(labels, species)
  if isinstance(scheme, LabelTransform):
    transform, name = scheme, "the label transform"
  elif callable(scheme):
    name = _name(scheme)
    transform = _call(scheme, labels, atoms)
    if not isinstance(transform, LabelTransform):
      raise ValueError(f"{name} returned {transform!r}, expected a labels.LabelTransform, such as "
                       "labels.rescale(shift, scale)")
  else:
    return _cross(*_halves(scheme), labels, atoms, references or {})
  transform = _check_transform(transform, name)
  transform.shift_of(atoms)  # refuses elements without a reference
  return transform


def _call(function: Callable, first: Any, second: Any, **others: Any) -> Any:
  """The result of a function of one or of two arguments.

  The second one is passed on where the function has it under the name that the rules give it, or
  without a default: the axis of `np.mean` is neither.
  """
  try:
    parameters = inspect.signature(function).parameters.values()
  except ValueError:  # built-in functions, such as max
    parameters = ()
  positional = [each for each in parameters
                if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
  both = len(positional) > 1 and (positional[1].name in ("species", "forces")
                                  or positional[1].default is inspect.Parameter.empty)
  try:
    return function(first, *([second] if both else []), **others)
  except ValueError:
    raise
  except Exception as error:  # whatever a user's function raises
    raise ValueError(
        f"{_name(function)} fails on the training labels: {first_line(error)}") from error


def _cross(
    shift: _Half, scale: _Half, labels: Labels, species: Int[np.ndarray, "frames atoms"] | None,
    references: Mapping[int, float],
) -> LabelTransform:
  """The transform of a rule for the shift and a rule for the scale."""
  energy, forces = map(np.asarray, labels)
  transform = shift.apply(energy, species, references=references)
  if not isinstance(transform, LabelTransform):
    transform = LabelTransform(shift=_number(transform, shift.name))
  transform = _check_transform(transform, shift.name)
  if transform.scale != 1:
    raise ValueError(f"{shift.name} returned a transform of scale {transform.scale:g}, expected 1: "
                     "the scale has a rule of its own")
  # A common shift leaves every spread as it is; only per-element references are taken off.
  shifts = 0.0 if transform.atomic is None else np.asarray(transform.shift_of(species))
  known = forces[species > 0] if species is not None else forces
  value = _number(
      scale.apply(energy - shifts, known[np.isfinite(known)], raw_energy=energy), scale.name)
  if not _SMALLEST_SCALE <= value <= _LARGEST:
    raise ValueError(
        f"expected a positive finite scale, received none: {scale.name} of these {len(energy)} "
        f"frames is {value:g}; check their values and units, or take the scale none")
  return transform._replace(scale=value)


def _number(value: Any, name: str) -> float:
  """The number that a rule returned."""
  array = np.asarray(value)
  if array.size != 1 or array.dtype.kind not in "iuf":
    raise ValueError(f"{name} returned {value!r}, expected one real number in eV")
  return float(array.reshape(()))


def _check_transform(transform: LabelTransform, name: str) -> LabelTransform:
  """The transform in float64, if it is finite and has an inverse."""
  shift, scale = _number(transform.shift, name), _number(transform.scale, name)
  if not (abs(shift) <= _LARGEST and _SMALLEST_SCALE <= scale <= _LARGEST):
    raise ValueError(f"{name}: expected a finite shift and a positive finite scale in eV, received "
                     f"shift {shift} and scale {scale}; sizes end at {_LARGEST:.0e}")
  if transform.atomic is None:
    return LabelTransform(shift, scale)
  atomic = np.asarray(transform.atomic, np.float64)
  if atomic.shape != (_ELEMENTS,) or np.any(np.abs(atomic) > _LARGEST):
    raise ValueError(f"{name}: expected atomic to have one finite energy for each atomic number "
                     f"from 0 to {_ELEMENTS - 1}, or nan, received shape {atomic.shape}")
  return LabelTransform(shift, scale, atomic)


def _training_labels(
    labels: Labels, species: Species | None
) -> tuple[Labels, Int[np.ndarray, "frames atoms"] | None]:
  """Training labels and species in NumPy, float64, once they are finite and fit each other."""
  energy, forces = (np.asarray(leaf, dtype=np.float64) for leaf in labels)
  frames = energy.shape[0] if energy.ndim == 1 else 0
  if frames == 0 or forces.ndim != 3 or forces.shape[::2] != (frames, 3):
    raise ValueError("expected training labels with energy (frames,) and forces (frames, atoms, 3) "
                     f"of one frame or more, received {energy.shape} and {forces.shape}")
  atoms = None if species is None else np.asarray(species)
  if atoms is not None and atoms.shape != forces.shape[:2]:
    raise ValueError(f"expected species (frames, atoms) = {forces.shape[:2]} as the forces have, "
                     f"received {atoms.shape}; repeat the species of one molecule for every frame")
  known = known_forces(forces, np.ones(forces.shape[:2], int) if atoms is None else atoms)
  labelled = np.any(known, axis=(1, 2), keepdims=True)
  for name, leaf in (("energy", energy), ("forces", np.where(labelled, forces, 0.0))):
    bad = np.flatnonzero(~(np.abs(leaf.reshape(len(leaf), -1)) <= _LARGEST).all(axis=1))
    if len(bad):
      raise ValueError(
          f"expected finite labels, received {name} not finite in {len(bad)} of {len(leaf)} "
          f"frames, first in frame {bad[0]}; remove those frames (sizes end at {_LARGEST:.0e})")
  return Labels(energy, forces), atoms


# --- The schemes as functions ----------------------------------------------------------------


def identity() -> LabelTransform:
  """Labels as they are: shift 0, scale 1.

  >>> identity()
  LabelTransform(shift=0.0, scale=1.0, atomic=None)
  """
  return LabelTransform()


def rescale(shift: float, scale: float) -> LabelTransform:
  """The transform of a given shift and scale, (E - shift) / scale and F / scale.

  Args:
    shift: Energy in eV that is subtracted.
    scale: Energy in eV, positive, that energies and forces are divided by.

  Returns:
    The transform.

  Raises:
    ValueError: If the shift is beyond 1e30 or the scale not within 1e-30 to 1e30.

  >>> rescale(-4209.0, 0.5)
  LabelTransform(shift=-4209.0, scale=0.5, atomic=None)
  """
  return _check_transform(LabelTransform(float(shift), float(scale)), "rescale")


def power_of_ten(labels: Labels, *, exponent: int | None = None) -> LabelTransform:
  """Division by a power of ten, without shift: E / 10^k, F / 10^k.

  By default 10^k eV is the smallest power that brings the largest |E| to at most 1. The official
  code has one literal per data set instead: for MD17 it is 10^6, and its energies are in kcal/mol.
  Here energies are in eV, so that exponent=6 divides by 10^6 eV, which is 23 times as much. The
  official scale in eV is 10^6 kcal/mol = 43364.1 eV, `rescale(0, 43364.1)`.

  Args:
    labels: Training labels, energy (frames) in eV.
    exponent: The exponent k from -30 to 30, in place of the fitted one.

  Returns:
    The transform.

  Raises:
    ValueError: As `fit` does.

  References:
    K. Lo and D. Huang, On Training Derivative-Constrained Neural Networks, arXiv:2310.01649
    (2023), Eq. 4.

  >>> training = Labels(np.array([-4209.0, -4208.0]), np.ones((2, 2, 3)))
  >>> power_of_ten(training)
  LabelTransform(shift=0.0, scale=10000.0, atomic=None)
  >>> power_of_ten(training, exponent=6)
  LabelTransform(shift=0.0, scale=1000000.0, atomic=None)
  """
  return fit("power_of_ten" if exponent is None else f"power_of_ten(exponent={exponent})", labels)


def min_max(labels: Labels) -> LabelTransform:
  """Training energies to [0, 1]: (E - min E) / (max E - min E). See `fit`.

  >>> min_max(Labels(np.array([-8.0, -6.0, -4.0]), np.ones((3, 2, 3))))
  LabelTransform(shift=-8.0, scale=4.0, atomic=None)
  """
  return fit("min_max", labels)


def standardize(labels: Labels) -> LabelTransform:
  """Training energies to mean 0 and (population) standard deviation 1. See `fit`.

  >>> standardize(Labels(np.array([-7.0, -5.0]), np.ones((2, 2, 3))))
  LabelTransform(shift=-6.0, scale=1.0, atomic=None)
  """
  return fit("standardize", labels)


def robust(labels: Labels) -> LabelTransform:
  """Training energies to median 0 and interquartile range 1. See `fit`.

  >>> robust(Labels(np.array([-8.0, -6.0, -4.0, -2.0, 90.0]), np.ones((5, 2, 3))))
  LabelTransform(shift=-4.0, scale=4.0, atomic=None)
  """
  return fit("robust", labels)


def mean_shift(labels: Labels) -> LabelTransform:
  """Training energies to mean 0, scale 1. See `fit`.

  >>> mean_shift(Labels(np.array([-8.0, -4.0]), np.ones((2, 2, 3))))
  LabelTransform(shift=-6.0, scale=1.0, atomic=None)
  """
  return fit("mean_shift", labels)


def force_rms(labels: Labels, species: Species | None = None) -> LabelTransform:
  """Energies to mean 0, scaled so that force components have root mean square 1/angstrom.

  The scale is the number of eV that the root mean square has in eV/angstrom. Pass species where
  configurations are padded: padded atoms have zero forces and do not count. See `fit`.

  >>> force_rms(Labels(np.array([-8.0, -4.0]), np.full((2, 2, 3), -3.0)))
  LabelTransform(shift=-6.0, scale=3.0, atomic=None)
  """
  return fit("force_rms", labels, species)


def atomic_reference(labels: Labels, species: Species) -> LabelTransform:
  """Energies less one reference energy per atom, fitted per element by least squares; scale 1.

  Warns where the compositions do not determine the references. For a scale too, cross it:
  `fit("atomic/force_rms", labels, species)`. See `fit`.

  >>> species = np.array([[1, 1], [1, 8]])
  >>> training = Labels(np.array([-2.0, -9.0]), np.ones((2, 2, 3)))
  >>> np.round(atomic_reference(training, species).atomic[[1, 8]], 6).tolist()
  [-1.0, -8.0]
  """
  return fit("atomic_reference", labels, species)
