"""What the two PyTorch contenders share: data, loss, optimiser and the loop."""

import importlib.metadata
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from experiments.benchmarks.cases import CUTOFF, FORCE_WEIGHT, LEARNING_RATE
from experiments.benchmarks.contenders.base import Trainer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Batch(NamedTuple):
  """Configurations with their atoms in one row, ready on the device.

  The neighbours are found here, before anything is timed, and batches are not assembled in the
  timed step: a favour to these contenders, whose loaders do it in other processes.

  Attributes:
    species: Atomic numbers, (atoms), where `atoms` counts those of all configurations.
    positions: Positions in angstrom, (atoms, 3).
    molecule: The number of the configuration that an atom belongs to, (atoms).
    edges: The atoms of each ordered pair within the cutoff, (2, pairs).
    energy: Energies relative to their mean in eV, (batch).
    forces: Forces in eV/angstrom, (atoms, 3).
  """

  species: torch.Tensor
  positions: torch.Tensor
  molecule: torch.Tensor
  edges: torch.Tensor
  energy: torch.Tensor
  forces: torch.Tensor


Predict = Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]  # energies and forces


class IReLU(torch.nn.Module):
  """0.5 max(0, x)^2."""

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Applies the activation to each element."""
    return 0.5 * torch.relu(x).square()


def load_batches(path: str) -> list[Batch]:
  """The batches that `ours.write_data` has written."""
  data = np.load(path)
  return [_batch(data, frames) for frames in data["batches"]]


def _batch(data, frames: np.ndarray) -> Batch:
  positions, species = data["positions"][frames], data["species"][frames]
  batch, atoms = species.shape
  distance = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
  near = (distance < CUTOFF) & ~np.eye(atoms, dtype=bool)
  which, first, second = np.nonzero(near)
  arrays = (
      species.reshape(-1).astype(np.int64), positions.reshape(-1, 3),
      np.repeat(np.arange(batch), atoms), np.stack([first, second]) + which * atoms,
      data["energy"][frames], data["forces"][frames].reshape(-1, 3))
  return Batch(*(torch.as_tensor(array, device=DEVICE) for array in arrays))


def trainer(
    make_model: Callable[[], torch.nn.Module],
    make_predict: Callable[[torch.nn.Module], Predict],
    batches: list[Batch],
    packages: tuple[str, ...],
) -> Trainer:
  """A contender as the paper's code trains: L1(E) + 30 L1(F), Adam.

  Args:
    make_model: Makes the network, freshly initialised.
    make_predict: Makes of a network the function of its energies and forces, still on the tape.
    batches: The batches, which are used in turn, from the first again after the last.
    packages: The packages whose versions are recorded.
  """
  def start():
    torch.manual_seed(0)
    model = make_model().to(DEVICE)
    return model, _make_step(model, make_predict(model), batches)

  model, step = start()

  def advance(steps: int) -> None:
    for _ in range(steps):
      step()
    _wait()

  def fit(steps: int, window: int) -> float:
    _, fresh = start()
    return float(np.mean([fresh().item() for _ in range(steps)][-window:]))

  return Trainer(
      advance, fit, _products,
      {name: tuple(array.shape) for name, array in model.named_parameters()},
      None, {name: importlib.metadata.version(name) for name in packages}, DEVICE)


def _make_step(
    model: torch.nn.Module, predict: Predict, batches: list[Batch]) -> Callable[[], torch.Tensor]:
  optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
  penalty = torch.nn.L1Loss()
  taken = 0

  def step() -> torch.Tensor:
    nonlocal taken
    batch = batches[taken % len(batches)]
    taken += 1
    optimizer.zero_grad()
    energy, forces = predict(batch)
    loss = penalty(energy, batch.energy) + FORCE_WEIGHT * penalty(forces, batch.forces)
    loss.backward()
    optimizer.step()
    return loss.detach()

  return step


def _products(rows: int, inputs: int, outputs: int, repeats: int) -> None:
  x = torch.linalg.qr(torch.randn(max(rows, inputs), min(rows, inputs))).Q
  x = (x if rows >= inputs else x.T).contiguous().to(DEVICE)
  weights = torch.ones(inputs, outputs, device=DEVICE)
  with torch.no_grad():
    for _ in range(repeats):
      y = x @ weights
      weights = x.T @ y
      y @ weights.T
  _wait()


def _wait() -> None:
  if DEVICE == "cuda":
    torch.cuda.synchronize()
