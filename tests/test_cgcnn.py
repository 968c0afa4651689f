"""CGCNN: the reference implementation's energies and forces, its mean, its cutoff, its elements."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_networks
from compiling import drawn, quickly_compiled

from dcnn import derivatives
from dcnn.base import System
from dcnn.data import neighbours
from dcnn.models import CGCNN, NORMALISERS, FrameError, elements, normalisers

SIZES = {"features": 16, "blocks": 2, "radial": 20, "cutoff": 6.0, "output_features": 12}
NORMALISER = {"cgcnn": "batch", "cgcnn_no_bn": "layer"}
HEAD = ("conv_to_fc.0", "fcs.0", "fcs.2")


@functools.cache
def network(normaliser="none", **fields):
  return CGCNN(jax.nn.softplus, **{
      **SIZES, "normaliser": NORMALISERS[normaliser], "envelope": "faithful", **fields})


def norm(weights, name, where):
  layer = {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}
  statistics = {"mean": weights.get(f"{name}.running_mean"),
                "var": weights.get(f"{name}.running_var")}
  where.setdefault("params", {})[_flax_name(name)] = layer
  if statistics["mean"] is not None:
    where.setdefault("batch_stats", {})[_flax_name(name)] = statistics


def _flax_name(name):
  _, block, layer = name.split(".")
  return f"{'BatchNorm' if layer.startswith('bn') else 'LayerNorm'}_{block}"


def variables(weights):
  """The reference's weights by the names of ours; a torch layer reads receiver, sender, edge."""
  found, size = {"params": {}}, SIZES["features"]
  params = found["params"]
  params["embedding"] = reference_networks.dense(weights, "embedding_fc")
  for block in range(SIZES["blocks"]):
    layer = reference_networks.dense(weights, f"convs.{block}.lin1")
    receive, send, edge = np.split(layer["kernel"], [size, 2 * size])
    params[f"receive_{block}"], params[f"send_{block}"] = {"kernel": receive}, {"kernel": send}
    params[f"edge_{block}"] = {"kernel": edge, "bias": layer["bias"]}
    norm(weights, f"convs.{block}.ln1", found)
    if f"convs.{block}.bn1.weight" in weights:
      norm(weights, f"convs.{block}.bn1", found)
  for index, name in enumerate(HEAD):
    params[f"output_hidden_{index}"] = reference_networks.dense(weights, name)
  params["output"] = reference_networks.dense(weights, "fc_out")
  return found


@functools.cache
def in_training(model):
  function = derivatives.energy_forces_and_state(
      functools.partial(model.apply, mutable=[normalisers.RUNNING]))
  return quickly_compiled(
      jax.vmap(function, (None, 0), (0, None), axis_name=normalisers.SYSTEMS))


@functools.cache
def in_evaluation(model):
  return quickly_compiled(jax.vmap(derivatives.energy_and_forces(model.apply), (None, 0)))


def assert_equal(found, expected):
  for mine, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(mine, theirs, atol=1e-10 * np.abs(theirs).max())


@pytest.mark.parametrize("name", NORMALISER)
def test_evaluation_gives_the_reference(name, x64):
  reference = reference_networks.load(name)
  found = in_evaluation(network(NORMALISER[name]))(
      variables(reference.weights), reference.systems)
  assert_equal(found, reference.evaluated)


def test_training_gives_the_reference(x64):
  reference = reference_networks.load("cgcnn")
  found, _ = in_training(network("batch"))(variables(reference.weights), reference.systems)
  assert_equal(found, reference.trained)


def some(model, systems, seed=0):
  return jax.tree.map(jnp.asarray, drawn(model, jax.tree.map(lambda a: a[0], systems), seed))


def ethanol():
  return reference_networks.load("cgcnn").systems


@pytest.mark.parametrize("normaliser, envelope", [
    ("batch", "smooth"), *(pytest.param(*each, marks=pytest.mark.nightly) for each in (
        ("none", "smooth"), ("layer", "faithful")))])
def test_neighbour_lists_and_padding_change_nothing(normaliser, envelope, x64):
  model, systems = network(normaliser, envelope=envelope, cutoff=3.0), ethanol()
  found = some(model, systems)
  listed = systems._replace(neighbours=neighbours.neighbour_list(systems, 3.4))
  padded = System(jnp.pad(systems.positions, ((0, 0), (0, 2), (0, 0)), constant_values=0.7),
                  jnp.pad(systems.species, ((0, 0), (0, 2))))
  function = in_training(model)
  (energy, forces), state = function(found, systems)
  for other in (listed, padded):
    (same_energy, same_forces), same_state = function(found, other)
    np.testing.assert_allclose(same_energy, energy, rtol=1e-12)
    np.testing.assert_allclose(same_forces[:, :9], forces, atol=1e-12)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-11), same_state, state)


def test_many_equal_molecules_far_apart_have_the_energy_of_one(x64):
  """The head reads a mean over atoms."""
  model, systems = network(), ethanol()
  one = jax.tree.map(lambda leaf: leaf[0], systems)
  found = some(model, systems)
  two = System(jnp.concatenate([one.positions, one.positions + 50.0]), jnp.tile(one.species, 2))
  energy = quickly_compiled(model.apply)
  np.testing.assert_allclose(energy(found, two), energy(found, one), rtol=1e-12)


def jumps(model, found, normaliser="none"):
  """How far energy and forces jump as an atom passes the cutoff of another, over their spread."""
  species = jnp.array([6, 8, 1])
  positions = np.array([[0.0, 0.0, 0.0], [1.1, 0.4, 0.2], [2.0, 0.3, 0.1]])

  def at(distance):
    moved = positions.copy()
    moved[2] *= distance / np.linalg.norm(positions[2])
    system = System(jnp.asarray(moved)[None], jnp.asarray(species)[None])
    if normaliser == "batch":
      (energy, forces), _ = in_training(model)(found, system)
    else:
      energy, forces = in_evaluation(model)(found, system)
    return np.concatenate([np.ravel(energy), np.ravel(forces)])

  # Between a step so short nothing but a jump remains; few edges make batch statistics stiff.
  step, cutoff = 1e-9, model.cutoff
  inside, outside, further = at(cutoff - step), at(cutoff + step), at(cutoff - 0.3)
  return np.abs(inside - outside).max() / np.abs(further - outside).max()


@pytest.mark.parametrize("normaliser", ["none", "batch"])
@pytest.mark.parametrize("envelope", ["smooth", "faithful"])
def test_the_faithful_variant_alone_jumps_at_the_cutoff(envelope, normaliser, x64):
  model = network(normaliser, envelope=envelope, cutoff=2.5)
  jump = jumps(model, some(model, ethanol()), normaliser)
  assert jump < 1e-5 if envelope == "smooth" else jump > 1e-2


def test_the_bits_are_at_most_one_of_each_property():
  bits = elements.bits()[1:101]
  assert set(np.unique(bits)) == {0, 1}
  assert ((bits.sum(axis=1) >= 6) & (bits.sum(axis=1) <= 9)).all()  # some are not known
  assert len(np.unique(bits, axis=0)) == 92  # some of the heaviest share theirs


@pytest.mark.parametrize("atomic_number", [101, 118])
def test_elements_without_properties_are_refused(atomic_number):
  systems = System(np.zeros((3, 2, 3)), np.array([[6, 1], [6, 0], [6, atomic_number]]))
  with pytest.raises(FrameError, match=f"frame 2 has the element of atomic number {atomic_number}"):
    CGCNN.check(systems)
  assert CGCNN.check(jax.tree.map(lambda leaf: leaf[:2], systems)) is None


def test_unknown_envelopes_are_refused():
  with pytest.raises(ValueError, match="unknown envelope 'smoth': did you mean 'smooth'"):
    jax.eval_shape(network(envelope="smoth").init, jax.random.key(0),
                   jax.tree.map(lambda a: a[0], ethanol()))
