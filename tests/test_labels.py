"""Label transforms: fitted numbers, inverse, and forces that stay the energy's derivative."""

import functools
import inspect
import operator
import traceback
import warnings

import daily
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from dcnn import derivatives, labels
from dcnn.base import Labels, System
from dcnn.labels import SCALES, SCHEMES, SHIFTS, LabelTransform

# The parameters of those rules and schemes that cannot do without.
NEEDED = {"given": {"shift": "(shift=-3.5)", "scale": "(scale=2)"},
          "rescale": "(shift=-3.5, scale=2)"}
SHIFT_TEXTS = [name + NEEDED.get(name, {}).get("shift", "") for name in SHIFTS]
SCALE_TEXTS = [name + NEEDED.get(name, {}).get("scale", "") for name in SCALES]
CROSSES = [f"{shift}/{scale}" for shift in SHIFT_TEXTS for scale in SCALE_TEXTS]
ALL = [*(name + NEEDED.get(name, "") for name in SCHEMES), *CROSSES]
OFTEN = ("identity", "standardize", "power_of_ten", "min_max", "robust")
SPECIES = np.array([8, 1, 1, 6, 0])  # the last one is padding


def short(value):
  """An id that is the same in every process, which addresses in memory are not."""
  return value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)


def lennard_jones(variables, system: System):
  """Pair energy of the real atoms; variables: depth eV, diameter angstrom."""
  rows, columns = np.triu_indices(len(system.species), 1)
  real = (system.species[rows] > 0) & (system.species[columns] > 0)
  squared = jnp.sum((system.positions[rows] - system.positions[columns]) ** 2, axis=-1)
  power = (variables["diameter"] ** 2 / jnp.where(real, squared, 1.0)) ** 3
  return jnp.sum(jnp.where(real, 4 * variables["depth"] * (power**2 - power), 0.0))


VARIABLES = {"depth": 0.4, "diameter": 1.1}


def make_systems(frames=12, seed=0) -> System:
  """Jiggled configurations of varying composition, padded."""
  rng = np.random.default_rng(seed)
  corners = np.array([[0, 0, 0], [1.3, 0, 0], [0, 1.3, 0], [0, 0, 1.3], [9, 9, 9]], float)
  species = np.tile(SPECIES, (frames, 1))
  species[::2, 2] = 6
  species[::3, 1] = 0
  return System(corners + 0.05 * rng.normal(size=(frames, 5, 3)), species)


def make_labels(systems: System) -> Labels:
  """Energies near -4000 eV with a part that depends on composition; float64 NumPy."""
  energy_and_forces = jax.vmap(derivatives.energy_and_forces(lennard_jones), (None, 0))
  with jax.enable_x64(True):
    energy, forces = energy_and_forces(VARIABLES, systems)
  table = np.zeros(119)
  table[[1, 6, 8]] = -16.5, -1036.25, -2041.5
  return Labels(np.asarray(energy) + table[systems.species].sum(axis=1), np.asarray(forces))


@pytest.fixture
def systems():
  return make_systems()


@pytest.fixture
def training(systems):
  return make_labels(systems)


def energies(*values):
  return Labels(np.array(values, float), np.ones((len(values), 2, 3)))


# --- Fitted numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "scaler"), [
    ("min_max", MinMaxScaler()), ("standardize", StandardScaler()), ("robust", RobustScaler())])
def test_equals_scikit_learn(scheme, scaler, training):
  expected = scaler.fit_transform(training.energy[:, None])[:, 0]
  transform = getattr(labels, scheme)(training)
  np.testing.assert_allclose(transform(training).energy, expected, rtol=0, atol=1e-12)
  again = scaler.inverse_transform(expected[:, None])[:, 0]
  np.testing.assert_allclose(
      transform.inverse(Labels(expected, training.forces)).energy, again, rtol=1e-12)


@pytest.mark.parametrize(("scheme", "shift", "scale"), [
    ("identity", 0, 1), ("mean_shift", -4, 1), ("power_of_ten", 0, 10), ("min_max", -10, 10),
    ("standardize", -4, np.sqrt(14)), ("robust", -3, 4), ("force_rms", -4, 1),
    ("mean/power_of_ten", -4, 10), ("median/none", -3, 1), ("min/force_rms", -10, 1),
    ("none/std", 0, np.sqrt(14))])
def test_fitted_numbers(scheme, shift, scale):
  data = energies(-10, -6, -4, -3, -2, -3, 0)
  transform = labels.fit(scheme, data)
  assert transform.shift == pytest.approx(shift, abs=1e-12)
  assert transform.scale == pytest.approx(
      {"standardize": np.std(data.energy), "none/std": np.std(data.energy),
       "robust": np.subtract(*np.percentile(data.energy, [75, 25]))}.get(scheme, scale))


@pytest.mark.parametrize(("largest", "scale"), [
    (1000.0, 1e3), (np.nextafter(1000, 2000), 1e4), (-4209.0, 1e4), (1.0, 1.0), (0.5, 1.0),
    (0.1, 0.1), (np.nextafter(0.1, 1), 1.0), (1e-7, 1e-7), (1e15, 1e15), (-1e6, 1e6)])
def test_power_of_ten_is_the_smallest_that_fits(largest, scale):
  transform = labels.power_of_ten(energies(largest, 0.0))
  assert transform.scale == scale
  assert transform.shift == 0
  assert abs(transform(energies(largest, 0.0)).energy[0]) <= 1


@pytest.mark.parametrize("exponent", [-2, 0, 6])
def test_power_of_ten_of_a_given_exponent(exponent):
  assert labels.power_of_ten(energies(-4209.0, 1.0), exponent=exponent) == (
      0.0, 10.0**exponent, None)


def test_force_rms_does_not_count_padded_atoms(systems, training):
  components = training.forces[systems.species > 0]
  transform = labels.force_rms(training, systems.species)
  assert transform.scale == pytest.approx(np.sqrt(np.mean(components**2)), rel=1e-14)
  scaled = transform(training).forces[systems.species > 0]
  assert np.sqrt(np.mean(scaled**2)) == pytest.approx(1)


def test_atomic_references_are_recovered():
  species = np.array([[1, 1, 8], [6, 8, 0], [1, 6, 8], [6, 6, 1]])
  table = np.zeros(119)
  table[[1, 6, 8]] = -13.5, -1030.0, -2042.25
  data = Labels(table[species].sum(axis=1), np.ones((4, 3, 3)))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    transform = labels.atomic_reference(data, species)
  assert transform.atomic is not None and transform.shift == 0 and transform.scale == 1
  np.testing.assert_allclose(np.asarray(transform.atomic)[[0, 1, 6, 8]],
                             [0.0, -13.5, -1030.0, -2042.25], rtol=1e-12)
  np.testing.assert_allclose(transform(data, species).energy, 0, atol=1e-9)
  assert np.asarray(transform.shift_of(species)).dtype == np.float64


def test_atomic_reference_warns_where_composition_never_varies():
  species = np.tile([6, 1, 1], (5, 1))
  data = Labels(np.linspace(-1100, -1099, 5), np.ones((5, 3, 3)))
  with pytest.warns(UserWarning, match="only 1 of 2 reference energies.*never varies"):
    transform = labels.atomic_reference(data, species)
  np.testing.assert_allclose(transform.shift_of(species), np.mean(data.energy), rtol=1e-12)


def test_spread_beside_atomic_references_is_that_of_the_remainder(systems, training):
  transform = labels.fit("atomic/std", training, systems.species)
  assert np.std(transform(training, systems.species).energy) == pytest.approx(1)
  assert transform.scale < 1 < labels.standardize(training).scale
  assert labels.fit("atomic/power_of_ten", training, systems.species).scale == 1e4


def test_rescale_and_identity():
  assert labels.rescale(-3.0, 2.0) == LabelTransform(-3.0, 2.0)
  data = energies(1.0, 2.0)
  for leaf, same in zip(labels.identity()(data), data, strict=True):
    np.testing.assert_array_equal(leaf, same)


@pytest.mark.parametrize("name", SCHEMES)
def test_functions_and_names_agree(name, systems, training):
  by_name = labels.fit(name + NEEDED.get(name, ""), training, systems.species)
  arguments = {"identity": (), "rescale": (-3.5, 2.0),
               "atomic_reference": (training, systems.species),
               "force_rms": (training, systems.species)}.get(name, (training,))
  for leaf, same in zip(by_name, getattr(labels, name)(*arguments), strict=True):
    np.testing.assert_array_equal(leaf, same)


@pytest.mark.parametrize(("scheme", "message"), [
    (3, "expected a label scheme, received 3"), (None, "expected a label scheme, received None"),
    (("mean", 3), "expected the name of a scale or a function, received 3"),
    ((None, "std"), "expected the name of a shift or a function, received None")], ids=short)
def test_no_scheme_at_all(scheme, message):
  with pytest.raises(ValueError, match=message):
    inspect.unwrap(labels.check)(scheme)  # the annotations of a checked call refuse it, too


# --- Parameters and objects ------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "expected"), [
    ("power_of_ten(exponent=6)", (0.0, 1e6)), (" power_of_ten ( exponent = +6.0 ) ", (0.0, 1e6)),
    ("power_of_ten()", (0.0, 10.0)), ("power_of_ten(exponent=-2)", (0.0, 0.01)),
    ("mean/power_of_ten(exponent=2)", (-5.0, 100.0)), ("rescale(shift=-4.2e3, scale=.5)",
                                                      (-4200.0, 0.5)),
    ("given(shift=3)/range", (3.0, 6.0)), ("mean/given(scale=7)", (-5.0, 7.0))])
def test_parameters_in_text(scheme, expected):
  labels.check(scheme)
  assert labels.fit(scheme, energies(-8.0, -2.0)) == (*expected, None)


def half_way(data):
  return labels.rescale(data.energy.mean(), 2.0)


@pytest.mark.parametrize(("scheme", "named"), [
    (labels.standardize, "standardize"), (labels.force_rms, "force_rms"),
    (labels.power_of_ten, "power_of_ten"), (labels.atomic_reference, "atomic_reference"),
    (half_way, "mean/given(scale=2)"), (lambda data: labels.mean_shift(data), "mean_shift"),
    (lambda data, kinds: labels.fit("atomic/std", data, kinds), "atomic/std"),
    (lambda data, factor=3.0: labels.rescale(0.0, factor), "rescale(shift=0, scale=3)"),
    (functools.partial(labels.power_of_ten, exponent=6), "power_of_ten(exponent=6)"),
    (("mean", "std"), "standardize"), (["mean", "std"], "standardize"),
    ((np.mean, np.std), "standardize"), ((np.median, "iqr"), "robust"), ((min, np.ptp), "min_max"),
    (("mean", "power_of_ten(exponent=3)"), "mean/power_of_ten(exponent=3)"),
    (("none", lambda energy, forces: np.abs(energy).max() / 2), None),
    ((lambda energy, species: labels.fit("atomic_reference", Labels(energy, np.zeros((12, 5, 3))),
                                         species), "std"), "atomic/std")], ids=short)
def test_objects_do_what_the_names_do(scheme, named, systems, training):
  labels.check(scheme)
  fitted = labels.fit(scheme, training, systems.species)
  if named is None:
    assert fitted == (0.0, np.abs(training.energy).max() / 2, None)
    return
  for leaf, same in zip(fitted, labels.fit(named, training, systems.species), strict=True):
    np.testing.assert_array_equal(leaf, same)


def test_a_transform_is_taken_as_it_is_in_float64(training):
  transform = LabelTransform(np.float32(-4209.0), jnp.float32(0.5))
  fitted = labels.fit(transform, training)
  assert fitted == (-4209.0, 0.5, None) and isinstance(fitted.scale, float)
  atomic = labels.fit("atomic_reference", energies(1.0, 2.0), np.array([[1, 1], [1, 8]]))
  with pytest.raises(ValueError, match="no reference energy for atomic numbers .6"):
    labels.fit(atomic, energies(1.0, 2.0), np.array([[1, 6], [1, 8]]))


def test_own_scale_sees_energies_less_references_and_known_forces(systems, training):
  seen = []
  forces = training.forces.copy()
  forces[3] = np.nan
  labels.fit(("atomic", lambda energy, forces: seen.append((energy, forces)) or 1.0),
             training._replace(forces=forces), systems.species)
  (energy, known), = seen
  references = labels.fit("atomic_reference", training, systems.species)
  np.testing.assert_array_equal(energy, training.energy - references.shift_of(systems.species))
  assert known.size == 3 * np.sum(systems.species[np.arange(12) != 3] > 0)
  assert np.isfinite(known).all()


def broken(value):
  def mine(data, others=None):
    return value

  return mine


@pytest.mark.parametrize(("scheme", "message"), [
    (broken(3.0), "mine returned 3.0, expected a labels.LabelTransform, such as labels.rescale"),
    (broken(None), "mine returned None, expected a labels.LabelTransform"),
    (broken((0.0, 1.0)), r"mine returned \(0.0, 1.0\), expected a labels.LabelTransform"),
    (broken(LabelTransform(0.0, -1.0)), "mine: expected .* positive finite scale in eV.*scale -1"),
    (broken(LabelTransform(np.inf, 1.0)), "mine: expected a finite shift.*shift inf"),
    ((broken(np.nan), "none"), "mine: expected a finite shift"),
    ((broken("high"), "none"), "mine returned 'high', expected one real number"),
    ((broken(np.zeros(2)), "none"), "mine returned array.*expected one real number"),
    ((broken(LabelTransform(1.0, 2.0)), "none"), "mine returned a transform of scale 2, expected"),
    (("mean", broken(0.0)), "positive finite scale, received none: mine of these 2 frames is 0"),
    (("mean", broken(-1)), "mine of these 2 frames is -1"),
    (("mean", broken(np.nan)), "mine of these 2 frames is nan"),
    (("mean", broken(1j)), "mine returned 1j, expected one real number"),
    (("mean", broken(None)), "mine returned None, expected one real number")], ids=short)
def test_what_an_own_function_returns_is_checked(scheme, message):
  with pytest.raises(ValueError, match=message):
    labels.fit(scheme, energies(1.0, 2.0))


@pytest.mark.parametrize(("scheme", "takes"), [
    ("atomic_reference", True), ("atomic/std", True), (("atomic", np.std), True),
    ("standardize", False), ("mean/std", False), ("rescale(shift=0, scale=1)", False),
    (labels.atomic_reference, False), (LabelTransform(), False), ((np.mean, "std"), False)],
    ids=short)
def test_references_have_an_effect_where_the_shift_is_atomic(scheme, takes, systems, training):
  assert labels.takes_references(scheme) == takes
  references = {1: -13.0, 6: -1000.0, 8: -2000.0}
  given, fitted = (labels.fit(scheme, training, systems.species, references=value)
                   for value in (references, None))
  same = all(np.array_equal(one, other, equal_nan=True) if one is not None else other is None
             for one, other in zip(given, fitted, strict=True))
  assert same != takes


# --- Laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ALL)
def test_inverse_undoes_the_transform(scheme, systems, training):
  transform = labels.fit(scheme, training, systems.species)
  again = transform.inverse(transform(training, systems.species), systems.species)
  for leaf, same in zip(again, training, strict=True):
    assert isinstance(leaf, np.ndarray) and leaf.dtype == np.float64
    np.testing.assert_allclose(leaf, same, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scheme", ALL)
def test_transform_commutes_with_differentiation(scheme, systems, training, x64):
  transform = labels.fit(scheme, training, systems.species)
  raw = derivatives.energy_and_forces(lennard_jones)

  def scaled_energy(variables, system):
    energy = lennard_jones(variables, system)
    return transform(Labels(energy, jnp.zeros_like(system.positions)), system.species).energy

  scaled = derivatives.energy_and_forces(scaled_energy)
  for i in range(3):
    system = jax.tree.map(operator.itemgetter(i), systems)
    expected = transform(raw(VARIABLES, system), system.species)
    for leaf, same in zip(scaled(VARIABLES, system), expected, strict=True):
      np.testing.assert_allclose(leaf, same, rtol=1e-12, atol=1e-12)


def test_one_configuration_is_a_row_of_many(systems, training):
  for scheme in ("standardize", "atomic/force_rms"):
    transform = labels.fit(scheme, training, systems.species)
    many = transform(training, systems.species)
    one = transform(Labels(training.energy[3], training.forces[3]), systems.species[3])
    assert isinstance(one.energy, np.ndarray) and one.energy.shape == ()
    np.testing.assert_allclose(one.energy, many.energy[3], rtol=1e-12)
    np.testing.assert_array_equal(one.forces, many.forces[3])


def test_float32_labels_on_the_host_become_float64(training):
  single = Labels(*(leaf.astype(np.float32) for leaf in training))
  assert {leaf.dtype for leaf in labels.standardize(single)(single)} == {np.dtype(np.float64)}


@pytest.mark.parametrize("scheme", ["standardize", "atomic/force_rms"])
def test_total_shift_is_what_is_subtracted(scheme, systems, training):
  transform = labels.fit(scheme, training, systems.species)
  shifted = training.energy - transform.shift_of(systems.species)
  np.testing.assert_array_equal(
      shifted / transform.scale, transform(training, systems.species).energy)


# Magnitudes that arithmetic finds hard, and any others.
NUMBERS = st.one_of(
    st.sampled_from((0.0, -0.0, 5e-324, -2.2e-308, 1e-300, 1e-30, 1.0, -4209.1, 1e30, -1e30, 1e31,
                     1.7e308, np.nextafter(1.0, 2.0))),
    st.floats(-1e30, 1e30))


@st.composite
def extreme_labels(draw):
  """One to six frames of two atoms; often of one distinct value."""
  frames = draw(st.integers(1, 6))
  value = draw(NUMBERS)
  numbers = draw(st.sampled_from((st.just(value), NUMBERS, st.sampled_from((value, -value)))))
  energy = draw(st.lists(numbers, min_size=frames, max_size=frames))
  forces = draw(st.lists(numbers, min_size=frames, max_size=frames))
  species = draw(st.lists(
      st.tuples(*[st.sampled_from((1, 6, 8))] * 2), min_size=frames, max_size=frames))
  return (Labels(np.array(energy), np.tile(np.array(forces)[:, None, None], (1, 2, 3))),
          np.array(species))


@pytest.mark.filterwarnings("ignore:the compositions", "error::RuntimeWarning")
@pytest.mark.parametrize("scheme", daily.only(OFTEN, ALL))
@hypothesis.given(extreme_labels())
def test_extreme_labels_return_or_are_refused(scheme, case):
  """Errors of the round trip: 16 roundings of the largest term, or what falls below 1e-280."""
  data, species = case
  try:
    transform = labels.fit(scheme, data, species)
  except ValueError as error:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    assert frame.f_globals["__name__"] == "dcnn.labels"
    return
  again = transform.inverse(transform(data, species), species)
  references = 0.0 if transform.atomic is None else np.abs(np.nan_to_num(transform.atomic)).max()
  shift = np.abs(transform.shift) + 2 * references
  eps = np.finfo(np.float64).eps
  np.testing.assert_allclose(
      again.energy, data.energy, rtol=16 * eps, atol=16 * eps * float(shift) + 1e-280)
  np.testing.assert_allclose(again.forces, data.forces, rtol=16 * eps, atol=1e-280)
  assert 1e-30 <= transform.scale <= 1e30


# --- Programs --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["mean/power_of_ten", "atomic/force_rms"])
def test_jit_is_eager(scheme, systems, training, x64):
  transform = labels.fit(scheme, training, systems.species)
  on_device = Labels(*(jnp.asarray(leaf) for leaf in training))
  compiled = jax.jit(lambda t, y, s: t(y, s))(transform, on_device, systems.species)
  again = jax.jit(lambda t, y, s: t.inverse(y, s))(transform, compiled, systems.species)
  for leaf, same in zip(compiled, transform(training, systems.species), strict=True):
    assert isinstance(leaf, jax.Array)
    np.testing.assert_allclose(leaf, same, rtol=1e-12, atol=1e-12)
  for leaf, same in zip(again, training, strict=True):
    np.testing.assert_allclose(leaf, same, rtol=1e-12, atol=1e-12)


def test_vmap_over_transforms_is_a_loop(training, x64):
  transforms = [labels.fit(scheme, training) for scheme in ("power_of_ten", "min_max", "robust")]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(_arrays, transforms))
  many = jax.vmap(lambda t: t(training))(stacked)
  for i, transform in enumerate(transforms):
    for leaf, same in zip(many, transform(training), strict=True):
      np.testing.assert_allclose(leaf[i], same, rtol=1e-12)


def _arrays(transform):
  return jax.tree.map(jnp.asarray, transform)


# --- Bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "message"), [
    ("standardise", "unknown label scheme: 'standardise'; did you mean 'standardize'"),
    ("zzz", "known are identity, rescale, .* or 'SHIFT/SCALE' with SHIFT of none, mean"),
    ("average/std", "unknown shift in the label scheme 'average/std': 'average'; known are none"),
    ("mean/stdd", "unknown scale .*'stdd'; did you mean 'std'. known are none, power"),
    ("mean/std/iqr", "cannot read 'std/iqr'"),
    ("power_of_tenn(exponent=6)", "unknown label scheme: 'power_of_tenn'; did you mean 'power_of"),
    ("power_of_ten(exponnet=6)", "unknown parameter 'exponnet' of power_of_ten: did you mean "
     "'exponent'. write power_of_ten.exponent=NUMBER."),
    ("power_of_ten(exponent=six)", "exponent=six in .* is not a number"),
    ("power_of_ten(exponent=nan)", "exponent=nan in .* is not a number"),
    ("power_of_ten(exponent=1_0)", "exponent=1_0 in .* is not a number"),
    ("power_of_ten(exponent=1e999)", "exponent=1e999 in .* is not a number"),
    ("power_of_ten(exponent=)", "exponent= in .* is not a number"),
    ("power_of_ten(6)", "cannot read '6' in .* expected NAME, or NAME.KEY=NUMBER"),
    ("power_of_ten(exponent=6", "lacks a closing bracket.*NAME.KEY=NUMBER, ..."),
    ("power_of_ten exponent=6)", "lacks an opening bracket"),
    ("power_of_ten(exponent=6))", "lacks an opening bracket"),
    ("power_of_ten(exponent=6) or so", "cannot read 'power_of_ten.exponent=6. or so'"),
    ("power_of_ten(exponent=6, exponent=7)", "exponent stands twice"),
    ("power_of_ten(exponent=6,)", "cannot read ''"),
    ("power_of_ten(exponent=6.5)", "whole exponent from -30 to 30, received 6.5"),
    ("mean/power_of_ten(exponent=31)", "whole exponent from -30 to 30, received 31"),
    ("rescale(shift=0, scale=0)", "positive finite scale in eV, received shift 0.0 and scale 0.0"),
    ("mean/given(scale=-2)", "positive finite scale in eV, .* scale -2.0"),
    ("given(shift=1e40)/std", "expected a finite shift .* received shift 1e.40"),
    (("given(shift=1e40)", np.std), "expected a finite shift .* received shift 1e.40"),
    ("__import__('os')", "cannot read"),
    ("", "cannot read ''"),
    ("mean/", "cannot read ''"),
    ("mean_shift(shift=1)", "unknown parameter 'shift' of mean_shift: mean_shift takes none: write "
     "mean_shift"),
    ("rescale", "rescale lacks shift and scale: write rescale.shift=NUMBER, scale=NUMBER"),
    ("rescale(scale=2)", "rescale lacks shift: write"),
    ("given/std", "given lacks shift: write given.shift=NUMBER"),
    (("mean", "stdd"), "unknown scale: 'stdd'; did you mean 'std'"),
    (("mean", "std", "iqr"), "expected a label scheme, received"),
    (labels.identity, "labels.identity is a scheme once it is called: give labels.identity()"),
    (labels.rescale, "labels.rescale is a scheme once it is called: give labels.rescale.shift"),
    (LabelTransform(0.0, 0.0), "the label transform: expected .* positive finite scale"),
    (LabelTransform(float("nan"), 1.0), "expected a finite shift"),
    (LabelTransform(0.0, 1.0, np.zeros(3)), "one finite energy for each atomic number")], ids=short)
def test_unknown_scheme(scheme, message):
  """The same refusal without data and with them, in one line."""
  data = energies(1.0, 2.0)
  for refuse in (labels.check, lambda scheme: labels.fit(scheme, data)):
    with pytest.raises(ValueError, match=message) as caught:
      refuse(scheme)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["min_max", "standardize", "robust", "mean/range", "none/iqr"])
@pytest.mark.parametrize("values", [(-4209.1,) * 7, (-4209.1,)], ids=["equal", "one frame"])
def test_no_spread(scheme, values):
  message = f"of the {len(values)} training energies is zero.*force_rms"
  with pytest.raises(ValueError, match=message):
    labels.fit(scheme, energies(*values))


def test_no_spread_but_of_rounding():
  with pytest.raises(ValueError, match="standard deviation of the 3 training energies is zero"):
    labels.standardize(energies(-4209.1, np.nextafter(-4209.1, 0), -4209.1))


@pytest.mark.parametrize("scheme", ["power_of_ten", "force_rms"])
def test_zero_labels(scheme):
  with pytest.raises(ValueError, match=f"{scheme} of these 2 frames is 0; check .* scale none"):
    labels.fit(scheme, Labels(np.zeros(2), np.zeros((2, 1, 3))))


def test_one_frame_is_enough_for_a_shift():
  assert labels.mean_shift(energies(-3.0)) == (-3.0, 1.0, None)


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("scheme", ["identity", "standardize", "force_rms"])
def test_labels_that_are_not_finite(scheme, value):
  data = energies(1.0, value, 3.0)
  with pytest.raises(ValueError, match="energy not finite in 1 of 3 frames, first in frame 1"):
    labels.fit(scheme, data)
  data = energies(1.0, 2.0, 3.0)
  data.forces[2, 0, 1] = value
  with pytest.raises(ValueError, match="forces not finite in 1 of 3 frames, first in frame 2"):
    labels.fit(scheme, data)


@pytest.mark.parametrize("data", [
    Labels(np.zeros(0), np.zeros((0, 2, 3))), Labels(np.zeros(()), np.zeros((2, 3))),
    Labels(np.zeros(2), np.zeros((3, 2, 3))), Labels(np.zeros(2), np.zeros((2, 2, 2)))],
    ids=["no frame", "one configuration", "frames disagree", "two components"])
def test_labels_of_the_wrong_shape(data):
  with pytest.raises(ValueError, match=r"energy \(frames,\) and forces.*received \("):
    labels.fit("mean_shift", data)


@pytest.mark.parametrize(("shift", "scale"), [(0, 0), (0, np.inf), (0, -1), (np.nan, 1)])
def test_rescale_refuses_what_has_no_inverse(shift, scale):
  with pytest.raises(ValueError, match="positive finite scale in eV, received shift"):
    labels.rescale(float(shift), float(scale))


def test_exponent_out_of_range():
  with pytest.raises(ValueError, match="whole exponent from -30 to 30, received 31"):
    labels.power_of_ten(energies(1.0), exponent=31)


def test_atomic_needs_species(systems, training):
  with pytest.raises(ValueError, match="expected species .*received none"):
    labels.fit("atomic_reference", training)
  with pytest.raises(ValueError, match=r"species \(frames, atoms\) = \(12, 5\).*received \(3, 5\)"):
    labels.fit("atomic_reference", training, systems.species[:3])
  transform = labels.atomic_reference(training, systems.species)
  with pytest.raises(ValueError, match="one reference energy per element.*pass the systems'"):
    transform(training)
  with pytest.raises(ValueError, match=r"no reference energy for atomic numbers \[17\]"):
    transform.shift_of(np.array([1, 17, 0]))
