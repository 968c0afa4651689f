"""Neighbour lists: the pairs themselves, and what networks make of them, by laws of physics."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.calculators.lj import LennardJones
from compiling import drawn, quickly_compiled

from dcnn import data, derivatives
from dcnn.base import System
from dcnn.data import neighbours
from dcnn.models import MLP, NORMALISERS, SchNet, layers

CUTOFF = 4.0
NETWORK = SchNet(jax.nn.silu, features=4, blocks=2, radial=4, cutoff=CUTOFF)
SHAPE = {"atoms": 32, "pairs": 1600}  # of all periodic systems here: they compile once


def system_of(atoms: Atoms, *, cutoff=CUTOFF, pairs=SHAPE["pairs"], **options) -> System:
  """Positions, species, cell and list of a configuration, filled up with atoms and pairs."""
  missing = (0, SHAPE["atoms"] - len(atoms))
  cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
  system = System(np.pad(atoms.positions, (missing, (0, 0))), np.pad(atoms.numbers, missing), cell)
  return system._replace(
      neighbours=data.neighbour_list(system, cutoff, capacity=pairs, **options))


def crystal(repeat=(1, 1, 1), seed=0) -> Atoms:
  """Salt of copper and gold, rattled and sheared so that no symmetry is left."""
  atoms = bulk("Cu", cubic=True)
  atoms.numbers[0] = 79
  atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.05 * np.arange(9).reshape(3, 3) / 9), True)
  atoms.rattle(0.15, seed=seed)
  return atoms * repeat


def molecule(seed=0) -> System:
  """Nine atoms, two of which only fill up."""
  positions = 1.5 * np.random.default_rng(seed).normal(size=(9, 3))
  return System(positions, np.array([6, 6, 8, 0, 1, 1, 1, 1, 0]))


@pytest.fixture
def variables(x64):
  return drawn(NETWORK, molecule())


respond_compiled = quickly_compiled(derivatives.energy_forces_and_virial(NETWORK.apply))


def respond(variables, system):
  """Energy, forces of the real atoms, and virial."""
  found = respond_compiled(variables, system)
  real = np.asarray(system.species) > 0
  assert (found.forces[~real] == 0).all() or np.isnan(found.energy)
  return found._replace(forces=found.forces[real])


@quickly_compiled
def force_loss_gradient(variables, system):
  """Of a loss that weighs each component otherwise, with respect to the parameters."""
  def loss(variables):
    forces = derivatives.forces(NETWORK.apply)(variables, system)
    return jnp.sum(jnp.square(forces - 0.1)) + jnp.sum(jnp.abs(forces))

  return jax.grad(loss)(variables)


def assert_trees_close(found, expected, rtol):
  size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * size),
               found, expected)


# The pairs.


def brute_force(positions, cell, radius, images=9):
  """All pairs and images, both ways."""
  ranges = [range(-images, images + 1) if vector.any() else (0,) for vector in cell]
  shifts = np.array(list(itertools.product(*ranges)))
  vectors = positions[None, None] + (shifts @ cell)[:, None, None] - positions[None, :, None]
  near = np.argwhere(np.linalg.norm(vectors, axis=-1) < radius)
  found = {(i, j, *shifts[s].tolist()) for s, i, j in near.tolist()}
  return found - {(i, i, 0, 0, 0) for i in range(len(positions))}


def both_ways(first, second, shifts):
  forth = zip(first.tolist(), second.tolist(), *shifts.T.tolist(), strict=True)
  listed = [*forth]
  return listed + [(j, i, -a, -b, -c) for i, j, a, b, c in listed]


@pytest.mark.parametrize("periodic", [(1, 1, 1), (1, 1, 0), (0, 1, 0), (0, 0, 0)],
                         ids=["bulk", "slab", "wire", "molecule"])
def test_every_pair_and_image_is_listed_once(periodic):
  """Cells shorter than the radius, skewed, with atoms outside of them."""
  rng = np.random.default_rng(0)
  for case in range(12):
    cell = 3 * np.eye(3) + rng.normal(size=(3, 3)) * 0.5
    if case % 3 == 0:
      cell[2] += 2 * cell[0] - cell[1]
    positions = rng.uniform(-1.5, 2.5, (1 + case % 4, 3)) @ cell
    cell = np.where(np.array(periodic, bool)[:, None], cell, 0.0)
    found = both_ways(*neighbours.pairs_within(positions, cell, 3.7)[:3])
    assert len(found) == len(set(found)) and set(found) == brute_force(positions, cell, 3.7)


def test_lists_of_many_frames_have_one_length():
  systems = jax.tree.map(lambda *leaves: np.stack(leaves), *map(molecule, range(4)))
  listed = data.neighbour_list(systems, CUTOFF)
  counts = ((listed.first != listed.second) | listed.shifts.any(-1)).sum(axis=1)
  assert listed.first.shape == (4, listed.first.shape[1]) and listed.first.shape[1] % 8 == 0
  assert len(set(counts.tolist())) > 1 and counts.max() > listed.first.shape[1] - 8
  alone = data.neighbour_list(molecule(2), CUTOFF, capacity=listed.first.shape[1])
  jax.tree.map(np.testing.assert_array_equal, alone, jax.tree.map(lambda leaf: leaf[2], listed))


def test_padded_atoms_have_no_neighbours():
  listed = data.neighbour_list(molecule()._replace(positions=np.zeros((9, 3))), CUTOFF)
  pairs = {(i, j) for i, j in zip(listed.first.tolist(), listed.second.tolist(), strict=True)
           if i != j}
  assert len(pairs) == 21 and not {3, 8} & {atom for pair in pairs for atom in pair}


def test_more_pairs_than_the_capacity():
  systems = jax.tree.map(lambda *leaves: np.stack(leaves), *map(molecule, range(4)))
  spread = systems.positions * np.array([10.0, 10.0, 10.0, 1.0])[:, None, None]
  with pytest.raises(ValueError, match=r"frame 3 has \d+ pairs.*capacity of 8: pass capacity=\d+"):
    data.neighbour_list(systems._replace(positions=spread), CUTOFF, capacity=8)


@pytest.mark.parametrize("positions, cell, message", [
    (np.zeros((2, 3)), np.diag([3.0, 3.0, 1e-3]), "frame 0: the faces of the cell.*0.001 A apart"),
    (np.zeros((2, 3)), np.array([[3.0, 0, 0], [6, 0, 0], [0, 0, 3]]), "lie 0 A apart"),
    (np.array([[0.0, 0, 0], [1e7, 0, 0]]), None, "reach 1e.07 A.*far away"),
    (np.array([[0.0, 0, 0], [1, 0, 0]]), np.diag([1e9, 3, 3]), "reach 1e.09 A.*smaller cell"),
    (np.array([[0.0, 0, np.nan], [1, 0, 0]]), None, "must be finite"),
    (np.zeros((9000, 3)), 0.2 * np.eye(3), "pairs of 9000 atoms.*smaller cutoff, or another unit"),
], ids=["flat", "plane", "far", "long", "nan", "dense"])
def test_what_cannot_be_listed(positions, cell, message):
  with pytest.raises(ValueError, match=message):
    data.neighbour_list(System(positions, np.ones(len(positions), int), cell), CUTOFF)


@pytest.mark.parametrize("cutoff, skin", [(0.0, 1.0), (-1.0, 3.0), (4.0, -0.1), (np.inf, 0.0)])
def test_bad_radii(cutoff, skin):
  with pytest.raises(ValueError, match="cutoff must be positive and skin not negative"):
    data.neighbour_list(molecule(), cutoff, skin=skin)


# What a network makes of them.


def test_listed_pairs_give_what_all_pairs_give(variables):
  dense = molecule()
  sparse = dense._replace(neighbours=data.neighbour_list(dense, CUTOFF, skin=0.1))
  assert sparse.neighbours.first.shape < (36,)
  assert_trees_close(respond(variables, sparse), respond(variables, dense), 1e-13)
  assert_trees_close(
      force_loss_gradient(variables, sparse), force_loss_gradient(variables, dense), 1e-13)


@pytest.mark.parametrize("output, normaliser", [(None, "layer"), (jax.nn.tanh, "none")],
                         ids=["layer", "output_activation"])
def test_other_networks_give_the_same_with_lists(output, normaliser, x64):
  network = SchNet(jax.nn.silu, features=8, blocks=2, radial=6, cutoff=CUTOFF,
                   output_activation=output, normaliser=NORMALISERS[normaliser])
  dense = molecule()
  sparse = dense._replace(neighbours=data.neighbour_list(dense, CUTOFF))
  forces_fn = quickly_compiled(derivatives.forces(network.apply))
  weights = drawn(network, molecule())
  assert_trees_close(forces_fn(weights, sparse), forces_fn(weights, dense), 1e-12)


def test_a_batch_of_lists_gives_what_each_gives_alone(variables):
  frames = [molecule(seed) for seed in range(3)]
  systems = jax.tree.map(lambda *leaves: np.stack(leaves), *frames)
  systems = systems._replace(neighbours=data.neighbour_list(systems, CUTOFF))
  respond_all = jax.vmap(derivatives.energy_forces_and_virial(NETWORK.apply), (None, 0))
  batched = quickly_compiled(respond_all)(variables, systems)
  alone = [respond_compiled(variables, frame) for frame in frames]
  assert_trees_close(batched, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), 1e-12)


@pytest.mark.parametrize("move", ["lattice", "wrap", "all"])
def test_moved_by_lattice_vectors(variables, move):
  atoms, moved = crystal(), crystal()
  if move == "lattice":
    moved.positions += np.array([[2, 0, -1], [0, 5, 0], [-3, 0, 0], [1, 1, 1]]) @ atoms.cell.array
  elif move == "wrap":
    atoms.positions += 0.5 * atoms.cell.array[1]
    moved = atoms.copy()
    moved.wrap()
    assert np.abs(moved.positions - atoms.positions).max() > 1
  else:
    moved.positions += [0.3, -7.0, 100.0]
  assert_trees_close(
      respond(variables, system_of(moved)), respond(variables, system_of(atoms)), 1e-12)


def test_a_supercell_twice_as_large_has_twice_the_energy_and_the_same_forces(variables):
  one = respond(variables, system_of(crystal()))
  two = respond(variables, system_of(crystal((1, 2, 1))))
  np.testing.assert_allclose(two.energy, 2 * one.energy, rtol=1e-12)
  np.testing.assert_allclose(two.virial, 2 * one.virial, atol=1e-12 * jnp.abs(two.virial).max())
  np.testing.assert_allclose(
      two.forces, jnp.tile(one.forces, (2, 1)), atol=1e-12 * jnp.abs(one.forces).max())


def test_an_atom_sees_its_own_images(variables):
  """One atom in a cell shorter than half the cutoff, against 27 in a cell larger than it."""
  atoms = Atoms("Cu", cell=[[1.9, 0.1, 0], [0.2, 2.0, 0.1], [0, -0.1, 1.8]], pbc=True)
  large = make_supercell(atoms, 3 * np.eye(3))
  one, many = (respond(variables, system_of(each)) for each in (atoms, large))
  np.testing.assert_allclose(many.energy, 27 * one.energy, rtol=1e-12)
  np.testing.assert_allclose(many.virial, 27 * one.virial, rtol=1e-10)
  np.testing.assert_allclose(one.forces, 0, atol=1e-14)


def test_positions_and_cell_turned_together(variables):
  turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
  atoms, turned = crystal(), crystal()
  turned.set_cell(atoms.cell.array @ turn.T)
  turned.set_positions(atoms.positions @ turn.T)
  one, other = (respond(variables, system_of(each)) for each in (atoms, turned))
  expected = derivatives.Response(one.energy, one.forces @ turn.T, turn @ one.virial @ turn.T)
  assert_trees_close(other, expected, 1e-12)


def test_forces_sum_to_zero_and_the_virial_is_symmetric(variables):
  found = respond(variables, system_of(crystal((2, 1, 1))))
  size = float(jnp.abs(found.forces).max())
  assert size > 1e-3
  np.testing.assert_allclose(found.forces.sum(axis=0), 0, atol=1e-13 * size)
  np.testing.assert_allclose(found.virial, found.virial.T, atol=1e-12)


def test_atoms_in_another_order(variables):
  atoms, order = crystal((2, 1, 1)), np.array([3, 1, 7, 0, 2, 6, 5, 4])
  one, other = (respond(variables, system_of(each)) for each in (atoms, atoms[order]))
  assert_trees_close(other, one._replace(forces=one.forces[order]), 1e-12)


def test_pairs_that_fill_up_change_nothing(variables):
  atoms = crystal()
  tight, loose = system_of(atoms, pairs=120), system_of(atoms)
  assert_trees_close(respond(variables, loose), respond(variables, tight), 1e-14)
  assert_trees_close(
      force_loss_gradient(variables, loose), force_loss_gradient(variables, tight), 1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coincident_atoms_are_finite(variables, dtype):
  atoms = crystal()
  atoms.positions[2] = atoms.positions[1] + atoms.cell.array[0]
  system = system_of(atoms)
  system, variables = jax.tree.map(
      lambda leaf: leaf.astype(dtype) if np.issubdtype(leaf.dtype, np.floating) else leaf,
      (system, variables))
  leaves = jax.tree.leaves((respond(variables, system), force_loss_gradient(variables, system)))
  assert all(np.isfinite(leaf).all() and leaf.dtype == dtype for leaf in leaves)


def test_single_precision_agrees(variables):
  double = system_of(crystal((2, 2, 1)))
  single, weights = jax.tree.map(
      lambda leaf: leaf.astype(np.float32) if np.issubdtype(leaf.dtype, np.floating) else leaf,
      (double, variables))
  found = respond(weights, single)
  assert found.energy.dtype == found.forces.dtype == np.float32
  assert_trees_close(found, respond(variables, double), 2e-5)


def test_the_hessian_vector_product_goes_through_lists(variables):
  system = system_of(crystal())
  vector = np.random.default_rng(0).normal(size=system.positions.shape)
  product_fn = quickly_compiled(derivatives.hessian_vector_product(NETWORK.apply))
  product = product_fn(variables, system, vector)
  step = 1e-5
  plus, minus = (
      respond(variables, system._replace(positions=system.positions + sign * step * vector)).forces
      for sign in (1, -1))
  np.testing.assert_allclose(
      product[:4], -(plus - minus) / (2 * step), atol=1e-8 * jnp.abs(product).max())


# The virial.


def lennard_jones(variables, system):
  """ASE's energy: shifted to zero at the cutoff, sigma 2, epsilon 0.3."""
  pairs = layers.pairs(system, CUTOFF)
  near = (pairs.real != 0) & (pairs.distance < CUTOFF)

  def energy(distance):
    return 1.2 * ((2 / distance) ** 12 - (2 / distance) ** 6)

  distance = jnp.where(near, pairs.distance, 1.0)
  return jnp.sum(pairs.real * jnp.where(near, energy(distance) - energy(CUTOFF), 0.0))


@pytest.mark.parametrize("periodic", [(1, 1, 1), (1, 0, 1), (0, 0, 0)],
                         ids=["bulk", "slab", "cluster"])
def test_energy_forces_and_virial_equal_those_of_ase(periodic, x64):
  atoms = crystal((2, 1, 1))
  atoms.pbc = periodic
  atoms.calc = LennardJones(sigma=2.0, epsilon=0.3, rc=CUTOFF)
  respond_fn = quickly_compiled(derivatives.energy_forces_and_virial(lennard_jones))
  found = respond_fn(None, system_of(atoms))
  forces = atoms.get_forces()
  np.testing.assert_allclose(found.energy, atoms.get_potential_energy(), rtol=1e-12)
  np.testing.assert_allclose(found.forces[:8], forces, atol=1e-12 * abs(forces).max())
  stress = derivatives.stress(found.virial, atoms.cell.array)
  if all(periodic):
    np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), rtol=1e-11)
  else:  # ASE has no stress there; its calculator has one inside
    np.testing.assert_allclose(found.virial, found.virial.T, rtol=1e-10)


def test_the_virial_is_minus_the_derivative_by_strain(variables):
  atoms, step = crystal(), 1e-5
  system = system_of(atoms)
  exact = respond(variables, system).virial
  for row, column in itertools.product(range(3), range(3)):
    energies = []
    for sign in (1, -1):
      deformation = np.eye(3)
      deformation[row, column] += sign * step
      strained = crystal()
      strained.set_cell(atoms.cell.array @ deformation, scale_atoms=False)
      strained.positions = atoms.positions @ deformation
      energies.append(respond(variables, system_of(strained)).energy)
    slope = (energies[0] - energies[1]) / (2 * step)
    np.testing.assert_allclose(-slope, exact[row, column], atol=1e-8 * jnp.abs(exact).max())


def test_two_atoms_that_repel_have_a_positive_virial(x64):
  """W = r f along their axis, with the force on either pointing away from the other."""
  pair = System(np.array([[0.0, 0, 0], [1.9, 0, 0]]), np.array([18, 18]))
  found = quickly_compiled(derivatives.energy_forces_and_virial(lennard_jones))(None, pair)
  assert found.forces[1, 0] > 0
  np.testing.assert_allclose(found.virial, np.diag([1.9 * found.forces[1, 0], 0, 0]), atol=1e-12)


# Lists that are old or too short.


def test_a_list_with_a_skin_serves_while_atoms_move(variables):
  atoms = crystal((2, 2, 2))
  listed = system_of(atoms, skin=0.5)
  moved = atoms.copy()
  moved.positions += [5.0, 0.0, 0.0]  # the drift of all is no displacement
  moved.positions[0] += [0.2, 0.0, 0.0]
  moved.positions[1] -= [0.2, 0.0, 0.0]
  kept = listed._replace(positions=moved.positions)
  assert layers.is_complete(kept, CUTOFF)
  assert_trees_close(respond(variables, kept), respond(variables, system_of(moved)), 1e-12)


@pytest.mark.parametrize("change", ["atom", "wrapped", "cell", "cutoff"])
def test_an_old_list_is_never_used_in_silence(variables, change):
  atoms = crystal((2, 2, 2))
  listed = system_of(atoms, skin=0.5, cutoff=CUTOFF - 1 if change == "cutoff" else CUTOFF)
  positions, cell = atoms.positions.copy(), atoms.cell.array.copy()
  if change == "atom":
    positions[5, 1] += 0.3
  elif change == "wrapped":
    positions[5] -= cell[0]
  elif change == "cell":
    positions, cell = 0.88 * positions, 0.88 * cell
  kept = listed._replace(positions=positions, cell=cell)
  assert not layers.is_complete(kept, CUTOFF)
  assert all(np.isnan(leaf).all() for leaf in respond(variables, kept))


def test_a_strained_cell_keeps_its_list_within_the_skin(variables):
  atoms, strained = crystal((2, 2, 2)), crystal((2, 2, 2))
  strained.set_cell(0.97 * atoms.cell.array, scale_atoms=True)
  listed = system_of(atoms, skin=0.5)
  kept = listed._replace(positions=strained.positions, cell=strained.cell.array)
  assert layers.is_complete(kept, CUTOFF)
  assert_trees_close(respond(variables, kept), respond(variables, system_of(strained)), 1e-12)


def test_a_list_without_a_skin_serves_where_it_was_made():
  """In single precision far from the origin, too."""
  atoms = crystal((2, 2, 2))
  atoms.positions += 300.0
  single = jax.tree.map(
      lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf, system_of(atoms))
  assert layers.is_complete(single, CUTOFF)
  double = system_of(atoms)
  assert layers.is_complete(double._replace(positions=single.positions), CUTOFF)
  assert not layers.is_complete(double, CUTOFF + 0.01)


@pytest.mark.nightly
def test_a_relaxation_on_the_device_tells_when_its_list_is_old(x64):
  """Steepest descent in one compiled loop, which stops where the list ends."""
  system = system_of(crystal((2, 2, 2)), skin=0.2)
  forces_fn = derivatives.forces(lennard_jones)

  @jax.jit
  def relax(system):
    def step(system):
      return system._replace(positions=system.positions + 1e-3 * forces_fn(None, system))
    return jax.lax.while_loop(lambda system: layers.is_complete(system, CUTOFF), step, system)

  found = relax(jax.tree.map(jnp.asarray, system))
  moved = found.positions - system.positions
  assert np.isfinite(moved).all() and 0.1 < np.linalg.norm(moved, axis=1).max() < 0.5
  assert np.isnan(lennard_jones(None, found))


@pytest.mark.parametrize("network", [NETWORK, MLP(jax.nn.silu, hidden=(4,))])
def test_a_cell_without_a_list_is_refused(network, x64):
  system = system_of(crystal())._replace(neighbours=None)
  with pytest.raises(ValueError, match="a system with a cell and no list.*neighbour_list"):
    jax.eval_shape(network.init, jax.random.key(0), system)
