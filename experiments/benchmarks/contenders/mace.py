"""MACE of mace-torch, through its own model class."""

import numpy as np
import torch

from mace import modules  # isort: skip  (first: it lets PyTorch read the constants of e3nn)
from e3nn import o3  # isort: skip

from experiments.benchmarks.cases import CUTOFF, Case, Contender
from experiments.benchmarks.contenders import torch_training
from experiments.benchmarks.contenders.base import Trainer
from experiments.benchmarks.contenders.torch_training import Batch

NEIGHBOURS = 10.0  # the usual number, which divides messages, as in `dcnn.models.GridACE`


def build(case: Case, contender: Contender, data: str) -> Trainer:
  """Trains a `MACE` of correlation three, harmonics up to degree 2, and vectors in its messages.

  Its activation is the SiLU that it has, and its polynomial cutoff the one that it has.
  """
  torch.set_num_threads(contender.threads)
  batches = torch_training.load_batches(data)
  elements = sorted(set(batches[0].species.tolist()))

  def make_model() -> torch.nn.Module:
    return modules.MACE(
        r_max=CUTOFF, num_bessel=case.radial, num_polynomial_cutoff=5, max_ell=2,
        interaction_cls_first=modules.RealAgnosticInteractionBlock,
        interaction_cls=modules.RealAgnosticResidualInteractionBlock,
        num_interactions=case.blocks, num_elements=len(elements),
        hidden_irreps=o3.Irreps(f"{case.features}x0e + {case.features}x1o"),
        MLP_irreps=o3.Irreps(f"{case.features // 2}x0e"), gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(elements)), avg_num_neighbors=NEIGHBOURS,
        atomic_numbers=elements, correlation=3).float()

  def make_predict(model: torch.nn.Module):
    numbers = torch.as_tensor(elements, device=torch_training.DEVICE)

    def predict(batch: Batch):
      frames = len(batch.energy)
      result = model({  # a new dictionary: the model writes into it
          "positions": batch.positions,
          "node_attrs": (batch.species[:, None] == numbers).float(),
          "edge_index": batch.edges,
          "shifts": batch.positions.new_zeros(batch.edges.shape[1], 3),
          "unit_shifts": batch.positions.new_zeros(batch.edges.shape[1], 3),
          "cell": batch.positions.new_zeros(3 * frames, 3),
          "batch": batch.molecule,
          "ptr": torch.searchsorted(
              batch.molecule, torch.arange(frames + 1, device=batch.molecule.device))},
          training=True)
      return result["energy"], result["forces"]
    return predict

  return torch_training.trainer(
      make_model, make_predict, batches, ("torch", "mace-torch", "e3nn"))
