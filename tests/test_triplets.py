"""Networks of triplets: their functions of distances and angles, and laws that all of them keep.

The laws are read off one batch of configurations of nine atoms, padded where they have fewer, so
that each network is compiled once.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import drawn, quickly_compiled
from scipy import special

from dcnn import derivatives
from dcnn.base import System
from dcnn.models import DimeNetPlusPlus, GemNetT, bessel, dimenet, sphere, triplets

CUTOFF = 3.0
SIZES = {"features": 8, "blocks": 1, "basis_features": 4, "triplet_features": 4, "cutoff": CUTOFF}
NETWORKS = {
    "dimenet": DimeNetPlusPlus(jax.nn.silu, output_features=4, **SIZES),
    # Its value at 0 is not 0, as the papers' is.
    "gemnet": GemNetT(jax.nn.softplus, atom_features=4, bilinear_features=4, radial=8, **SIZES)}


# Functions of distances and angles.


def test_roots_are_those_of_the_spherical_bessel_functions():
  roots = bessel.bessel_roots(7, 6)
  np.testing.assert_allclose(roots[0], np.pi * np.arange(1, 7), rtol=1e-15)
  # Of tables: the first and the last of the highest order.
  np.testing.assert_allclose(roots[6, [0, 5]], [10.512835, 27.507868], atol=1e-6)
  for order, row in enumerate(roots):
    np.testing.assert_allclose(special.spherical_jn(order, row), 0, atol=1e-14)
    assert (np.diff(row) > 3).all() and row[0] > order


@pytest.mark.parametrize("orders, number", [(7, 6), (1, 1), (2, 20), (16, 3)])
def test_the_table_gives_normalised_spherical_bessel_functions(orders, number, x64):
  table, x = bessel.bessel_table(orders, number), np.linspace(0.0, 1.0, 1000)
  found = np.tensordot(bessel.cosines(jnp.asarray(x), len(table)), table, axes=1)
  roots, order = bessel.bessel_roots(orders, number), np.arange(orders)[:, None]
  plain = special.spherical_jn(order, roots * x[:, None, None])
  points, weights = np.polynomial.legendre.leggauss(200)
  points = 0.5 * (points + 1.0)
  squares = special.spherical_jn(order, roots * points[:, None, None]) ** 2
  norms = np.tensordot(0.5 * weights * points ** 2, squares, axes=1) ** -0.5
  np.testing.assert_allclose(found, norms * plain, atol=1e-9)


def test_the_table_holds_in_single_precision_near_0():
  table, x = bessel.bessel_table(7, 6), np.linspace(0.0, 1.0, 1000)
  single = bessel.cosines(jnp.asarray(x, jnp.float32), len(table))
  found = np.tensordot(np.asarray(single), table.astype(np.float32), axes=1)
  norms = np.sqrt(2) / np.abs(special.spherical_jn(
      np.arange(1, 8)[:, None], bessel.bessel_roots(7, 6)))
  exact = norms * special.spherical_jn(
      np.arange(7)[:, None], bessel.bessel_roots(7, 6) * x[:, None, None])
  np.testing.assert_allclose(found, exact, atol=3e-5)  # of 27


def test_zonal_harmonics_are_legendre_polynomials_normalised_on_the_sphere(x64):
  points, weights = np.polynomial.legendre.leggauss(20)
  found = np.stack(sphere.zonal_harmonics(jnp.asarray(points), 7))
  np.testing.assert_allclose(2 * np.pi * (found * weights) @ found.T, np.eye(7), atol=1e-13)
  assert (np.stack(sphere.zonal_harmonics(jnp.ones(1), 7)) > 0).all()


def test_the_envelope_and_its_first_two_derivatives_vanish_at_the_cutoff(x64):
  def function(x):
    return dimenet.inverse_envelope(x[None])[0]

  np.testing.assert_allclose(function(jnp.array(0.5)), 2 - 28 / 32 + 48 / 64 - 21 / 128)
  for _ in range(3):
    assert abs(function(jnp.array(1 - 1e-7))) < 1e-4 and function(jnp.array(1.1)) == 0
    assert function(jnp.array(0.0)) == 0  # where there is no edge
    function = jax.grad(function)


def test_directions_and_their_derivatives_are_0_where_atoms_coincide(x64):
  """So are those of padding, wherever it lies."""
  system = System(jnp.array([[0.0, 0, 0], [0, 0, 0], [3, 4, 0], [1, 1, 1]]),
                  jnp.array([1, 1, 8, 0]))

  def both(positions):
    return triplets.edge_arrays(system._replace(positions=positions))

  edges = both(system.positions)
  np.testing.assert_allclose(edges.distance[0], [0, 0, 5, 0])
  np.testing.assert_allclose(edges.direction[:, 0, 2], [0.6, 0.8, 0])
  np.testing.assert_allclose(edges.direction[:, 2, 0], [-0.6, -0.8, 0])
  assert not edges.direction[:, :, 3].any() and not edges.direction[:, 0, 1].any()
  first, second = (quickly_compiled(jax.jacfwd(each))
                   for each in (both, jax.jacrev(both)))
  for derivative in (first(system.positions), second(system.positions)):
    chex.assert_tree_all_finite(derivative)
    assert not derivative.distance[0, 1].any() and not derivative.direction[:, 3].any()


def test_sums_over_triplets_are_those_of_a_loop(x64):
  key = jax.random.split(jax.random.key(0), 2)
  positions, sent = (np.asarray(jax.random.normal(each, shape)) for each, shape in zip(
      key, ((4, 3), (4, 4, 3, 2)), strict=True))
  edges = triplets.edge_arrays(System(jnp.asarray(positions), jnp.ones(4, int)))
  received = np.asarray(triplets.triplet_sums(
      triplets.harmonics(triplets.cosines(edges.direction), 3), jnp.asarray(sent)))
  for centre in range(4):
    for out in set(range(4)) - {centre}:
      total = 0.0
      for origin in set(range(4)) - {centre, out}:
        one, other = (positions[each] - positions[centre] for each in (out, origin))
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        total += sum(np.sqrt((2 * order + 1) / 4 / np.pi) * special.eval_legendre(order, cosine)
                     * sent[centre, origin, order] for order in range(3))
      # Of the centre itself the direction is 0; what it sends has a factor 0 in the networks.
      own = sum(harmonic * sent[centre, centre, order] for order, harmonic in enumerate(
          sphere.zonal_harmonics(jnp.zeros(()), 3)))
      np.testing.assert_allclose(received[centre, out], total + own, atol=1e-12)


# Laws.


def frame(positions, species, atoms=9):
  missing = atoms - len(species)
  return System(np.pad(positions, ((0, missing), (0, 0)), constant_values=0.3),
                np.pad(species, (0, missing)))


def cases():
  """Configurations by name; of those that a law compares the results are equal."""
  rng = np.random.default_rng(0)
  positions = rng.normal(size=(7, 3)) * 1.2
  species = np.array([6, 6, 8, 1, 1, 1, 1])
  q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
  order = np.array([4, 2, 0, 6, 1, 5, 3])
  far = positions + np.array([1e3, 0, 0]) * (np.arange(7) >= 4)[:, None]
  line = np.array([[0.0, 0, 0], [0, 0, 1.0], [0, 0, 2.2], [0, 0, -1.1]])
  corner = np.array([[0.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
  coincident = positions.copy()
  coincident[1] = coincident[0]
  made = {
      "plain": frame(positions, species), "moved": frame(positions @ q.T + 2.0, species),
      "permuted": frame(positions[order], species[order]), "far": frame(far, species),
      "left": frame(positions[:4], species[:4]), "right": frame(positions[4:], species[4:]),
      "line": frame(line, [1, 6, 6, 1]), "corner": frame(corner, [8, 1, 1]),
      "coincident": frame(coincident, species), "one": frame(line[:1], [8]),
      "two": frame(line[:2], [8, 1])}
  # A small step: the third derivative of DimeNet++'s envelope jumps, and only that.
  for name, step in (("inside", -1e-6), ("at", 0.0), ("outside", 1e-6)):
    # Within reach of the first atom alone.
    made[name] = frame(np.concatenate([corner, [[-CUTOFF - step, 0, 0]]]), [8, 1, 1, 6])
  for sign in (1, -1):
    shift = np.zeros((7, 3))
    shift[2, 1] = sign * 1e-5
    made[f"shifted {sign}"] = frame(positions + shift, species)
  return made, q, order


@functools.cache
def results(name):
  """Energies, forces and the gradients of force losses of all cases, in one program."""
  model, (made, *_) = NETWORKS[name], cases()
  systems = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made.values())
  variables = drawn(model, jax.tree.map(lambda leaf: leaf[0], systems))

  def everything(params, system):
    def force_loss(params):
      labels = derivatives.energy_and_forces(model.apply)({**variables, "params": params}, system)
      return jnp.sum(jnp.sin(labels.forces)), labels

    gradient, labels = jax.grad(force_loss, has_aux=True)(params)
    return *labels, gradient

  found = quickly_compiled(jax.vmap(everything, (None, 0)))(
      variables["params"], systems)
  return {case: jax.tree.map(lambda leaf, index=index: np.asarray(leaf[index]), found)
          for index, case in enumerate(made)}


@pytest.fixture(params=NETWORKS)
def found(request, x64):
  return results(request.param)


def assert_close(one, other, scale):
  np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * np.abs(scale).max())


def test_energies_are_invariant_and_forces_turn(found):
  """Under translation, rotation with inversion, and the exchange of atoms."""
  _, q, order = cases()
  energy, forces, _ = found["plain"]
  assert_close(found["moved"][0], energy, energy)
  assert_close(found["moved"][1], forces @ q.T, forces)
  assert_close(found["permuted"][0], energy, energy)
  assert_close(found["permuted"][1][:7], forces[order], forces)
  assert np.abs(forces).max() > 1e-3


def test_forces_sum_to_0_and_none_is_on_padding(found):
  for energy, forces, _ in found.values():
    assert_close(forces.sum(axis=0), 0, max(np.abs(forces).max(), np.abs(energy)))
    assert not forces[7:].any()


def test_forces_are_minus_the_derivative_of_the_energy(found):
  slope = (found["shifted 1"][0] - found["shifted -1"][0]) / 2e-5
  np.testing.assert_allclose(-slope, found["plain"][1][2, 1], rtol=1e-6)


def test_far_molecules_add_up(found):
  (energy, forces, _), left, right = (found[case] for case in ("far", "left", "right"))
  assert_close(energy, left[0] + right[0], energy)
  assert_close(forces[:7], np.concatenate([left[1][:4], right[1][:3]]), forces)


@pytest.mark.parametrize("case", ["line", "corner", "coincident", "one", "two", "far"])
def test_all_is_finite_where_atoms_coincide_or_lie_on_a_line(case, found):
  chex.assert_tree_all_finite(found[case])


def test_nothing_jumps_where_an_atom_comes_within_the_cutoff(found):
  inside, at, outside = (found[case] for case in ("inside", "at", "outside"))
  for one, other in ((inside, at), (at, outside)):
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * (1 + np.abs(theirs).max()))
  assert not outside[1][3].any()


# What they refuse.


@pytest.mark.parametrize("network", [DimeNetPlusPlus, GemNetT])
def test_crystals_and_large_molecules_are_refused(network):
  def frames(atoms, cell=None):
    return System(np.zeros((2, atoms, 3)), np.ones((2, atoms), int), cell)

  network.check(frames(60))
  with pytest.raises(ValueError, match=f"frames of 61 atoms, and {network.__name__} .* 60 atoms"):
    network.check(frames(61))
  with pytest.raises(ValueError, match="periodic frames.*take SchNet, or write pbc"):
    network.check(frames(2, np.eye(3)[None]))
  crystal = System(np.zeros((2, 3)), np.ones(2, int), np.eye(3))
  with pytest.raises(ValueError, match="a molecule in free space.*cell=None"):
    jax.eval_shape(network(jax.nn.silu).init, jax.random.key(0), crystal)


@pytest.mark.parametrize("network, settings, words", [
    (DimeNetPlusPlus, {"angles": "detach"}, "unknown angles 'detach': did you mean 'detached'"),
    (GemNetT, {"scales": "OC20"}, "unknown scales 'OC20': did you mean 'oc20'"),
    (GemNetT, {"scales": "oc20", "blocks": 4}, "scales=oc20 .* 3 blocks, received blocks=4"),
    (GemNetT, {"radial": 1}, "GemNetT with radial from 2 to"),
    (DimeNetPlusPlus, {"bessel": 0}, "DimeNetPlusPlus with bessel from 1 to"),
], ids=["angles", "scales", "blocks", "radial", "bessel"])
def test_settings_without_a_meaning_are_refused(network, settings, words):
  with pytest.raises(ValueError, match=words):
    jax.eval_shape(network(jax.nn.silu, **settings).init, jax.random.key(0),
                   frame(np.zeros((1, 3)), [1], atoms=2))
