"""Networks with neighbour lists: as without, and the laws of crystals."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from compiling import drawn, quickly_compiled

from dcnn import data, derivatives
from dcnn.base import System
from dcnn.models import GridACE, PaiNN, SchNet

CUTOFF, ATOMS, PAIRS = 3.6, 8, 400
SMALL = {"features": 3, "blocks": 2, "radial": 3, "cutoff": CUTOFF}
NETWORKS = {
    "SchNet": SchNet(jax.nn.silu, **SMALL),
    "PaiNN": PaiNN(jax.nn.silu, **SMALL),
    "GridACE": GridACE(jax.nn.silu, (1, 6, 8, 29, 79), filter_features=3, **SMALL),
    "GridACE of degree 3": GridACE(
        jax.nn.silu, (1, 6, 8, 29, 79), filter_features=3, degree=3, passed=2, **SMALL),
}


class Compiled(NamedTuple):
  """A network's energy, forces and virial, and the gradient of a force loss by its weights."""

  respond: Any
  gradient: Any


@functools.cache
def compiled(name):
  model = NETWORKS[name]
  variables = drawn(model, molecule())

  def force_loss(variables, system):
    return jnp.sum(jnp.square(derivatives.forces(model.apply)(variables, system) - 0.1))

  respond = quickly_compiled(derivatives.energy_forces_and_virial(model.apply))
  gradient = quickly_compiled(jax.grad(force_loss))
  return Compiled(functools.partial(respond, variables), functools.partial(gradient, variables))


def molecule(seed=0):
  """Nine atoms, two of which only fill up."""
  positions = 1.5 * np.random.default_rng(seed).normal(size=(9, 3))
  return System(positions, np.array([6, 6, 8, 0, 1, 1, 1, 1, 0]))


def crystal(deformation=None, repeat=1):
  """Copper and gold without a symmetry, padded to one number of atoms and of pairs."""
  atoms = bulk("Cu", cubic=True)
  atoms.numbers[0] = 79
  atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.05 * np.arange(9).reshape(3, 3) / 9), True)
  atoms.rattle(0.15, seed=0)
  if deformation is not None:
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=False)
    atoms.positions = atoms.positions @ deformation
  atoms = atoms * (1, repeat, 1)
  missing = (0, ATOMS - len(atoms))
  system = System(np.pad(atoms.positions, (missing, (0, 0))), np.pad(atoms.numbers, missing),
                  atoms.cell.array)
  return system._replace(neighbours=data.neighbour_list(system, CUTOFF, capacity=PAIRS))


def assert_trees_close(found, expected, rtol):
  size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * size),
               found, expected)


@pytest.fixture(params=[
    pytest.param(name, marks=[pytest.mark.nightly] * (name == "GridACE of degree 3"))
    for name in NETWORKS])
def network(request, x64):
  return compiled(request.param)


@pytest.mark.parametrize("what", [
    "respond", pytest.param("gradient", marks=pytest.mark.nightly)])
def test_listed_pairs_give_what_all_pairs_give(network, what):
  """Also the list with a skin; gradients are those of the force loss."""
  dense, function = molecule(), getattr(network, what)
  for skin in (0.0, 1.0):
    listed = dense._replace(
        neighbours=data.neighbour_list(dense, CUTOFF, skin=skin, capacity=36))
    assert_trees_close(function(listed), function(dense), 1e-12)


def test_a_crystal_obeys_its_laws(network):
  """A supercell has twice the energy; the virial is the derivative by strain; no net force."""
  one, two = network.respond(crystal()), network.respond(crystal(repeat=2))
  size = float(jnp.abs(one.forces).max())
  assert size > 1e-4 and (one.forces[4:] == 0).all()
  np.testing.assert_allclose(two.energy, 2 * one.energy, rtol=1e-11)
  np.testing.assert_allclose(two.virial, 2 * one.virial, atol=1e-11 * jnp.abs(two.virial).max())
  np.testing.assert_allclose(two.forces, jnp.tile(one.forces[:4], (2, 1)), atol=1e-11 * size)
  np.testing.assert_allclose(one.forces.sum(axis=0), 0, atol=1e-12 * size)
  np.testing.assert_allclose(one.virial, one.virial.T, atol=1e-11 * jnp.abs(one.virial).max())
  way, step = np.random.default_rng(1).normal(size=(3, 3)), 1e-5
  plus, minus = (network.respond(crystal(np.eye(3) + sign * step * way)).energy
                 for sign in (1, -1))
  np.testing.assert_allclose(-(plus - minus) / (2 * step), np.sum(one.virial * way), rtol=1e-6)


def test_a_crystal_turns_and_moves_by_lattice_vectors(network):
  turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
  one, turned = network.respond(crystal()), network.respond(crystal(turn.T))
  assert_trees_close(
      turned, one._replace(forces=one.forces @ turn.T, virial=turn @ one.virial @ turn.T), 1e-11)
  system = crystal()
  moved = system.positions.copy()
  moved[:4] += np.array([[2, 0, -1], [0, 5, 0], [-3, 0, 0], [1, 1, 1]]) @ system.cell
  moved = system._replace(positions=moved)
  moved = moved._replace(neighbours=data.neighbour_list(moved, CUTOFF, capacity=PAIRS))
  assert_trees_close(network.respond(moved), one, 1e-11)
