"""Molecular dynamics with GFN2-xTB: makes a data set for any molecule from its SMILES string.

The embedded sets were made by this module from the seeds in `MOLECULES`. It needs the extra `xtb`
(tblite for energies and forces, RDKit for the first geometry). It runs several independent
trajectories, each from its own seed; the number of processes does not change the result.

References:
  C. Bannwarth, S. Ehlert, S. Grimme, GFN2-xTB, J. Chem. Theory Comput. 15 (2019) 1652.
  S. Chmiela et al., Sci. Adv. 3 (2017) e1603015: the eight molecules, at 500 K.
"""

import concurrent.futures
import importlib.metadata
import importlib.util
import io
import json
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from dcnn.base import files

TIMESTEP_FS = 0.5
STEPS_PER_FRAME = 50  # 25 fs between frames
EQUILIBRATION_STEPS = 4000  # 2 ps; the thermostat relaxes in 1 / FRICTION_PER_FS = 50 fs
FRICTION_PER_FS = 0.02
TRAJECTORIES = 4
FORCE_TOLERANCE = 0.01  # eV/A, of the relaxation before the dynamics
# Above this, a bond has broken or the self-consistent field has failed.
LARGEST_FORCE = 40.0  # eV/A


class Molecule(NamedTuple):
  """The molecule and the seed that an embedded set was made from.

  Attributes:
    smiles: The molecule as a SMILES string.
    seed: The seed of the first geometry and of all random forces.
  """

  smiles: str
  seed: int


MOLECULES = {
    "aspirin": Molecule("CC(=O)Oc1ccccc1C(=O)O", 101),
    "benzene": Molecule("c1ccccc1", 102),
    "ethanol": Molecule("CCO", 103),
    "malonaldehyde": Molecule("O=CCC=O", 104),
    "naphthalene": Molecule("c1ccc2ccccc2c1", 105),
    "salicylic_acid": Molecule("O=C(O)c1ccccc1O", 106),
    "toluene": Molecule("Cc1ccccc1", 107),
    "uracil": Molecule("O=c1cc[nH]c(=O)[nH]1", 108),
}


def generate(
    smiles: str,
    *,
    frames: int,
    seed: int,
    temperature: float = 500.0,
    workers: int = 1,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, np.ndarray]:
  """Samples a molecule at constant temperature by Langevin dynamics on the GFN2-xTB surface.

  Args:
    smiles: The molecule as a SMILES string; hydrogens are added.
    frames: Number of configurations, at least 25 fs apart.
    seed: Fixes the first geometry and all random forces.
    temperature: Temperature in kelvin.
    workers: Number of processes that the trajectories are distributed over.
    on_progress: Called about every half second with the fraction that is done, from 0 to 1.

  Returns:
    What `save` writes: `positions` and `forces` (frames atoms 3, float32, A and eV/A), `energy`
    (frames, float64, eV), `species` (atoms), and `provenance`, a JSON text. Frames are in time
    order within each trajectory; trajectories follow one another.

  Raises:
    ValueError: On a SMILES that RDKit cannot read or that is charged, a radical or of several
      parts; on fewer than one frame; on a molecule that broke.
    ModuleNotFoundError: Without the extra `xtb`.
  """
  if frames < 1:
    raise ValueError(f"frames must be at least 1, got {frames}")
  if workers < 1:
    raise ValueError(f"workers must be at least 1, got {workers}")
  for package in ("tblite", "rdkit"):
    if importlib.util.find_spec(package) is None:
      raise ModuleNotFoundError(
          f"generating data needs {package}: install the extra with `pip install 'dcnn[xtb]'`")
  species, start = _first_geometry(smiles, seed)
  jobs = [
      _Job(species, start, count, np.random.SeedSequence([seed, i]).generate_state(4), temperature)
      for i, count in enumerate(_shares(frames, TRAJECTORIES)) if count
  ]
  parts = _run(jobs, workers, on_progress)
  positions, energy, forces = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
  _check_intact(forces, smiles)
  return {
      "positions": positions.astype(np.float32),
      "energy": energy,
      "forces": forces.astype(np.float32),
      "species": species,
      "provenance": np.array(json.dumps(_provenance(smiles, seed, temperature, frames))),
  }


def summary(arrays: Mapping[str, np.ndarray]) -> str:
  """How much there is of a data set that `generate` made: `2,000 frames of 9 atoms`.

  Args:
    arrays: The arrays of the data set; `positions` has the shape (frames atoms 3).
  """
  frames, atoms, _ = arrays["positions"].shape
  return f"{frames:,} frames of {atoms} atoms"


def save(arrays: dict[str, Shaped[np.ndarray, "*shape"]], path: str | os.PathLike) -> None:
  """Writes a generated set as a compressed `.npz`, completely or not at all.

  Args:
    arrays: What `generate` returned, or other arrays under the same keys.
    path: Where to write the file.

  >>> import tempfile
  >>> from dcnn.data import load
  >>> water = {"positions": np.array([[[0.0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]]),
  ...          "species": np.array([8, 1, 1]), "energy": np.array([-2080.0]),
  ...          "forces": np.array([[[0.0, 0, 0.2], [0, 0, -0.1], [0, 0, -0.1]]])}
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   save(water, f"{folder}/water.npz")
  ...   load(f"{folder}/water.npz").labels.energy.tolist()
  [-2080.0]
  """
  content = io.BytesIO()
  np.savez_compressed(content, allow_pickle=False, **arrays)
  files.write_file(pathlib.Path(path), content.getvalue())


class _Job(NamedTuple):
  species: np.ndarray
  start: np.ndarray
  frames: int
  entropy: np.ndarray
  temperature: float


def _first_geometry(
    smiles: str, seed: int) -> tuple[Int[np.ndarray, " atoms"], Float[np.ndarray, "atoms 3"]]:
  """Atomic numbers and MMFF-relaxed positions from RDKit."""
  from rdkit import Chem, rdBase  # pyright: ignore[reportMissingImports]  (an extra)
  from rdkit.Chem import rdDistGeom, rdForceFieldHelpers  # pyright: ignore[reportMissingImports]  (an extra)

  with rdBase.BlockLogs():
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() == 0:
      raise ValueError(f"RDKit cannot read the SMILES {smiles!r}; ethanol, for example, is 'CCO'")
    charge = Chem.GetFormalCharge(molecule)
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    parts = len(Chem.GetMolFrags(molecule))
    if charge or unpaired or parts > 1:  # which the dynamics does not treat
      raise ValueError(
          f"expected one neutral closed-shell molecule; {smiles!r} has charge {charge:+d}, "
          f"{unpaired} unpaired electrons, {parts} part(s)")
    molecule = Chem.AddHs(molecule)
    if rdDistGeom.EmbedMolecule(molecule, randomSeed=seed) != 0:
      raise ValueError(f"RDKit finds no three-dimensional geometry for {smiles!r}")
    rdForceFieldHelpers.MMFFOptimizeMolecule(molecule)
  species = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], np.int32)
  return species, np.asarray(molecule.GetConformer().GetPositions())


def _shares(total: int, parts: int) -> list[int]:
  """Splits a number into parts that differ by at most 1."""
  return [total // parts + (i < total % parts) for i in range(parts)]


def _run(jobs: list[_Job], workers: int, on_progress: Callable[[float], None]) -> list:
  """Runs the trajectories in fresh processes, so that each fixes its own OpenMP threads."""
  context = multiprocessing.get_context("spawn")
  counters = context.Array("l", len(jobs))
  total = sum(job.frames for job in jobs)
  others = set(multiprocessing.active_children())
  with concurrent.futures.ProcessPoolExecutor(
      min(workers, len(jobs)), context, initializer=_share_counters, initargs=(counters,)) as pool:
    futures = [pool.submit(_trajectory, i, job) for i, job in enumerate(jobs)]
    try:
      while not all(future.done() for future in futures):
        on_progress(sum(counters[:]) / total)
        for future in futures:
          if future.done():
            future.result()  # raises at once, instead of hours later when the others have ended
        time.sleep(0.5)
      results = [future.result() for future in futures]
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      for process in set(multiprocessing.active_children()) - others:
        process.terminate()
      raise
  on_progress(1.0)
  return results


def _share_counters(counters) -> None:
  global _counters
  _counters = counters


def _trajectory(index: int, job: _Job) -> tuple[
    Float[np.ndarray, "frames atoms 3"], Float[np.ndarray, " frames"],
    Float[np.ndarray, "frames atoms 3"]]:
  """Relaxes, heats, equilibrates and samples one trajectory, in its own process."""
  # Molecules this small run fastest on one thread, and one thread makes sums reproducible.
  # It must be set before tblite loads its OpenMP runtime.
  os.environ["OMP_NUM_THREADS"] = "1"
  import ase
  import ase.md.langevin
  import ase.md.velocitydistribution
  import ase.optimize
  import ase.units
  import tblite.ase  # pyright: ignore[reportMissingImports]  (an extra)

  rng = np.random.default_rng(job.entropy)
  atoms = ase.Atoms(job.species, job.start)
  atoms.calc = tblite.ase.TBLite(method="GFN2-xTB", verbosity=0)
  ase.optimize.BFGS(atoms, logfile=None).run(fmax=FORCE_TOLERANCE, steps=500)
  ase.md.velocitydistribution.thermalize_momenta(atoms, job.temperature, rng=rng)
  dynamics = ase.md.langevin.Langevin(
      atoms, TIMESTEP_FS * ase.units.fs, temperature_K=job.temperature,
      friction=FRICTION_PER_FS / ase.units.fs, fixcm=False, rng=rng)
  dynamics.run(EQUILIBRATION_STEPS)
  samples = []
  for _ in range(job.frames):
    dynamics.run(STEPS_PER_FRAME)
    centred = atoms.get_positions() - atoms.get_center_of_mass()
    samples.append((centred, atoms.get_potential_energy(), atoms.get_forces()))
    _counters[index] += 1
  positions, energy, forces = (np.array(column) for column in zip(*samples, strict=True))
  return positions, energy, forces


def _check_intact(forces: Float[np.ndarray, "frames atoms 3"], smiles: str) -> None:
  largest = np.abs(forces).max(axis=(1, 2))
  bad = np.flatnonzero(~(largest < LARGEST_FORCE))
  if bad.size:
    raise ValueError(
        f"frame {bad[0]} of {smiles!r} has a force component of {largest[bad[0]]:.1f} eV/A: the "
        "molecule broke. Try a lower temperature or another seed")


def _provenance(smiles: str, seed: int, temperature: float, frames: int) -> dict:
  return {
      "units": {"energy": "eV", "length": "angstrom"},
      "method": "GFN2-xTB",
      "sampling": f"Langevin, {temperature:g} K, time step {TIMESTEP_FS} fs, "
                  f"friction {FRICTION_PER_FS} / fs, {STEPS_PER_FRAME * TIMESTEP_FS:g} fs a frame, "
                  f"{TRAJECTORIES} trajectories, {EQUILIBRATION_STEPS * TIMESTEP_FS / 1000:g} ps "
                  "of equilibration each",
      "smiles": smiles,
      "seed": seed,
      "frames": frames,
      "versions": {
          name: importlib.metadata.version(name) for name in ("tblite", "rdkit", "ase", "numpy")},
  }
