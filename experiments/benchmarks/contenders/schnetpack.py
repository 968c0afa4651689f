"""SchNetPack's SchNet and PaiNN, through its own model classes and its own pairwise distances."""

import torch
import torch.utils.data.dataloader
import torch.utils.data.dataset

from experiments.benchmarks.cases import CUTOFF, Case, Contender
from experiments.benchmarks.contenders import torch_training
from experiments.benchmarks.contenders.base import Trainer
from experiments.benchmarks.contenders.torch_training import Batch, IReLU

# SchNetPack annotates its loader with a type variable that newer releases of PyTorch call _T_co.
if not hasattr(torch.utils.data.dataloader, "T_co"):
  torch.utils.data.dataloader.T_co = torch.utils.data.dataset._T_co

import schnetpack  # noqa: E402  (after the type variable)
from schnetpack import properties  # noqa: E402


def build(case: Case, contender: Contender, data: str) -> Trainer:
  """Trains a `NeuralNetworkPotential` of PairwiseDistances, the network, Atomwise and Forces."""
  torch.set_num_threads(contender.threads)

  def make_model() -> torch.nn.Module:
    common = {"n_atom_basis": case.features, "n_interactions": case.blocks,
              "cutoff_fn": schnetpack.nn.CosineCutoff(CUTOFF), "activation": IReLU()}
    if case.network == "PaiNN":
      representation = schnetpack.representation.PaiNN(
          radial_basis=schnetpack.nn.BesselRBF(case.radial, CUTOFF), **common)
    else:
      representation = schnetpack.representation.SchNet(
          radial_basis=schnetpack.nn.GaussianRBF(case.radial, CUTOFF), n_filters=case.features,
          **common)
    return schnetpack.model.NeuralNetworkPotential(
        representation,
        input_modules=[schnetpack.atomistic.PairwiseDistances()],
        output_modules=[
            schnetpack.atomistic.Atomwise(
                case.features, output_key=properties.energy, activation=IReLU()),
            schnetpack.atomistic.Forces()])

  def make_predict(model: torch.nn.Module):
    def predict(batch: Batch):
      result = model({  # a new dictionary: the modules write into it
          properties.Z: batch.species,
          properties.R: batch.positions,
          properties.offsets: torch.zeros_like(batch.positions[:1]),
          properties.idx_i: batch.edges[0],
          properties.idx_j: batch.edges[1],
          properties.idx_m: batch.molecule})
      return result[properties.energy], result[properties.forces]
    return predict

  return torch_training.trainer(
      make_model, make_predict, torch_training.load_batches(data), ("torch", "schnetpack"))
