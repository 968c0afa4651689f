"""A trained force field in jax-md: its forces, and the way that atoms take, are those of ASE."""

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ase import units
from ase.md.verlet import VelocityVerlet

import dcnn
from dcnn import data
from dcnn.base import System

jax_md = pytest.importorskip("jax_md", reason="an example for those who have jax-md")
STEPS, TIMESTEP = 20, 0.5 * units.fs


@pytest.mark.nightly
def test_energy_fn_takes_the_way_of_the_calculator_at_constant_energy():
  field = dcnn.sweep(tiny.config(), None).trained["base"]
  systems = data.load("ethanol").systems
  numbers, positions = systems.species[0], jnp.asarray(systems.positions[0], jnp.float32)
  atoms = ase.Atoms(numbers=numbers, positions=systems.positions[0], calculator=field.calculator())

  def energy_fn(positions, **options):
    return jnp.mean(jax.vmap(field.energy_fn, (0, None))(
        field.variables, System(positions, numbers)))

  found = float(energy_fn(positions)) + float(field.shift(numbers).mean())
  np.testing.assert_allclose(found, atoms.get_potential_energy(), rtol=0, atol=1e-4)
  np.testing.assert_allclose(
      jax_md.quantity.force(energy_fn)(positions), atoms.get_forces(), rtol=0, atol=1e-4)

  init, step = jax_md.simulate.nve(energy_fn, jax_md.space.free()[1], dt=TIMESTEP)
  state = init(jax.random.key(0), positions, kT=500 * units.kB,
               mass=jnp.asarray(atoms.get_masses(), jnp.float32))
  atoms.set_momenta(np.asarray(state.momentum))
  VelocityVerlet(atoms, TIMESTEP).run(STEPS)
  moved = jax.lax.fori_loop(0, STEPS, lambda _, state: step(state), state).position
  assert np.abs(moved - positions).max() > 0.05  # angstrom
  np.testing.assert_allclose(moved, atoms.positions, rtol=0, atol=1e-4)
