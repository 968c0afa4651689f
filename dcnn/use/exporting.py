"""A trained force field as a program of its own, which JAX alone runs, without dcnn.

The file is what `jax.export` writes: StableHLO with the weights of all seeds in it, for CPUs, CUDA
and TPUs. JAX reads files of its last six months, at least. A JSON file beside it says what it takes
and gives.
"""

import hashlib
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dcnn import derivatives
from dcnn.base import Neighbours, System, files
from dcnn.base.version import __version__
from dcnn.use.forcefields import UNITS, ForceField

#: What an export runs on.
PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    field: ForceField, out: str | os.PathLike[str], *, atoms: int | None = None,
    periodic: bool = False,
) -> dict[str, Any]:
  """Writes a force field as a program of JAX, and a JSON file beside it.

  The program of molecules takes `positions` (frames atoms 3) and `species` (frames atoms), any
  number of frames of a fixed number of atoms, 0 in `species` being padding, and gives energies
  (frames seeds) and forces (frames seeds atoms 3). That of periodic configurations takes one
  configuration, `positions` (atoms 3), `species` (atoms), `cell` (3 3), `first` and `second`
  (pairs) and `shifts` (pairs 3), any numbers of atoms and pairs, and gives energies (seeds), forces
  (seeds atoms 3) and virials -dE/d(strain) (seeds 3 3). Positions, cells and results are float32,
  all else is int32. Each pair within the cutoff stands once, in either order: the vector of a pair
  is positions[second] + shifts @ cell - positions[first]; a pair of an atom with itself and without
  shift is padding.

  The energy in eV of seed s is energies[s] + shift[s] + the sum over its atoms of
  atomic[s][species], which the JSON file has: it is to be added in float64.

  Args:
    field: The force field.
    out: The file to write, which ends in `.jaxexport`; the JSON file has `.json` behind that.
    atoms: Number of atoms of the program of molecules; by default that of the largest composition
      of the training data.
    periodic: Whether the program is that of periodic configurations.

  Returns:
    The content of the JSON file.

  Raises:
    ValueError: If the network reads no neighbour lists and `periodic` is asked for, or the number
      of atoms is not known.
    OSError: If the files cannot be written.
    ModuleNotFoundError: Without flatbuffers, naming the extra.
  """
  _require_flatbuffers()
  function, arguments = (crystals if periodic else molecules)(field, atoms)
  program = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments.values())
  content = bytes(program.serialize(vjp_order=1))
  record = {
      "arm": field.name, "network": field.settings["model.name"], "seeds": list(field.seeds),
      "units": {**UNITS, "virial": "eV"}, "elements": list(field.elements), "cutoff": field.cutoff,
      "arguments": {name: [str(each.dtype), [str(size) for size in each.shape]]
                    for name, each in arguments.items()},
      "results": ["energies", "forces", *["virials"] * periodic],
      "shift": np.asarray(field.transform.shift).tolist(),
      "atomic": _atomic(field),
      "energy": "energies[s] + shift[s] + sum over atoms of atomic[s][species], in float64",
      "pairs": "each pair within the cutoff once; vector positions[second] + shifts @ cell - "
               "positions[first]" if periodic else None,
      "platforms": list(PLATFORMS),
      "versions": {"dcnn": __version__, "jax": jax.__version__},
      "sha256": hashlib.sha256(content).hexdigest()}
  path = pathlib.Path(out)
  files.write_file(path, content)
  files.write_json(path.with_name(f"{path.name}.json"), record)
  return record


def _require_flatbuffers() -> None:
  try:
    import flatbuffers  # noqa: F401
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "an export needs flatbuffers: pip install 'dcnn[export]'", name="flatbuffers") from error


def molecules(field: ForceField, atoms: int | None) -> tuple[Any, dict[str, Any]]:
  """The program of molecules, and what it takes.

  Args:
    field: The force field.
    atoms: Number of atoms, padding included; None for that of the largest composition.

  Returns:
    `(positions, species) -> (energies, forces)`, see `export`, and the shapes of its arguments.

  Raises:
    ValueError: If the number of atoms is not known.
  """
  if atoms is None:
    known = field.domain.compositions
    if known is None:
      raise ValueError("the training data have too many compositions to tell how many atoms the "
                       "program is to take: give atoms")
    atoms = int(known.sum(axis=1).max())
  frames, = jax.export.symbolic_shape("frames")

  def program(positions: Array, species: Array) -> tuple[Array, Array]:
    one = derivatives.energy_and_forces(field.energy_fn)
    respond = jax.vmap(jax.vmap(one, (None, 0)), (0, None), 1)
    with jax.default_matmul_precision("highest"):
      energy, forces = respond(_weights(field), System(positions, species))
    return jnp.asarray(energy), jnp.asarray(forces)

  return program, {"positions": jax.ShapeDtypeStruct((frames, atoms, 3), jnp.float32),
                   "species": jax.ShapeDtypeStruct((frames, atoms), jnp.int32)}


def crystals(field: ForceField, atoms: int | None) -> tuple[Any, dict[str, Any]]:
  """The program of periodic configurations, and what it takes.

  Args:
    field: The force field.
    atoms: Number of atoms, padding included; None for any.

  Returns:
    `(positions, species, cell, first, second, shifts) -> (energies, forces, virials)`, see
    `export`, and the shapes of its arguments.

  Raises:
    ValueError: If the network reads no neighbour lists.
  """
  if not field.listed or field.cutoff is None:
    raise ValueError(f"{field.settings['model.name']} reads no neighbour lists, so that it cannot "
                     "predict periodic configurations")
  count, pairs = jax.export.symbolic_shape("atoms, pairs")
  if atoms is not None:
    count = atoms

  def program(
      positions: Array, species: Array, cell: Array, first: Array, second: Array, shifts: Array,
  ) -> tuple[Array, Array, Array]:
    fresh = Neighbours(first, second, shifts, positions, cell, jnp.float32(field.cutoff))
    respond = jax.vmap(derivatives.energy_forces_and_virial(field.energy_fn), (0, None))
    with jax.default_matmul_precision("highest"):
      energy, forces, virial = respond(_weights(field), System(positions, species, cell, fresh))
    return energy, forces, virial

  shapes = {"positions": (count, 3), "species": (count,), "cell": (3, 3), "first": (pairs,),
            "second": (pairs,), "shifts": (pairs, 3)}
  return program, {
      name: jax.ShapeDtypeStruct(shape, jnp.float32 if name in ("positions", "cell") else jnp.int32)
      for name, shape in shapes.items()}


def _weights(field: ForceField) -> Any:
  return jax.tree.map(jnp.asarray, field.variables)


def _atomic(field: ForceField) -> list[dict[str, float]]:
  """The reference energies of the elements in eV, of each seed."""
  atomic = field.transform.atomic
  return [{str(element): 0.0 if atomic is None else float(atomic[i][element])
           for element in field.elements} for i in range(len(field.seeds))]
