"""PyTorch Geometric's SchNet, driven as the paper's official code drives it.

What that code leaves at its default is left there. A fused Adam and `backward(inputs=...)`, which
saves the derivative of the loss with respect to the positions, would together take a tenth off a
step; its own shifted softplus costs as much as IReLU.
"""

from collections.abc import Callable

import torch
from torch_geometric.nn.models.schnet import SchNet, ShiftedSoftplus

from experiments.benchmarks.cases import CUTOFF, Case, Contender
from experiments.benchmarks.contenders import torch_training
from experiments.benchmarks.contenders.base import Trainer
from experiments.benchmarks.contenders.torch_training import Batch, IReLU


def make_model(case: Case, interaction_graph: Callable) -> SchNet:
  """The network, with IReLU in the place of every activation.

  Args:
    case: The sizes of the network.
    interaction_graph: `(positions, molecule) -> (edges, distances)`.
  """
  model = SchNet(
      hidden_channels=case.features, num_filters=case.features, num_interactions=case.blocks,
      num_gaussians=case.radial, cutoff=CUTOFF, interaction_graph=interaction_graph)
  for module in list(model.modules()):
    for name, child in list(module.named_children()):
      if isinstance(child, ShiftedSoftplus):
        setattr(module, name, IReLU())
  return model


def build(case: Case, contender: Contender, data: str) -> Trainer:
  """Trains on energies, and on forces by autograd with create_graph."""
  torch.set_num_threads(contender.threads)
  edges = {}

  def interaction_graph(positions: torch.Tensor, molecule: torch.Tensor):
    """The neighbours that were found beforehand; distances belong to the tape."""
    del molecule
    first, second = edges["of batch"]
    return edges["of batch"], (positions[first] - positions[second]).norm(dim=-1)

  def make_predict(model: torch.nn.Module):
    def predict(batch: Batch):
      edges["of batch"] = batch.edges
      positions = batch.positions.requires_grad_()
      energy = model(batch.species, positions, batch.molecule).squeeze(-1)
      gradient, = torch.autograd.grad(energy.sum(), positions, create_graph=True)
      return energy, -gradient
    return predict

  return torch_training.trainer(
      lambda: make_model(case, interaction_graph), make_predict,
      torch_training.load_batches(data), ("torch", "torch-geometric"))
