"""Useful operations of a SchNet training step, counted by hand from the network's formula.

Counted are the matrix products of the dense layers, 2 x rows x inputs x outputs each, on
*unordered* pairs within the cutoff: a filter depends on a distance alone, so whoever computes it
once for i-j and again for j-i, or for atoms that are too far apart, does useless work. Left out is
what no matrix product is: Gaussians, cutoff, activations, the products of filters and features
and their sums (about 2 % at 64 features), and Adam.

How often a layer's product is taken in one training step on energies and forces follows from the
chain rule. With y = x W in the network:

  1. energy          y = x W
  2. forces          gx = gy W^T, the derivative with respect to the positions
  3. gradient of 1   dW += x^T dy,  4.  dx = dy W^T
  5. gradient of 2   dW += (d gx)^T gy,  6.  d gy = (d gx) W

which makes 6, twice the 3 of a step on energies alone (1, 3 and 4). A product is left out where
nothing needs it: x of the first filter layer has no parameters behind it (no 4), x of the first
`send` layer does not depend on the positions (no 2, so no 5 and 6), and gy of the output layer is
a constant (no 6).
"""

from typing import NamedTuple


class Layer(NamedTuple):
  """Dense layers of one shape, for one configuration.

  Attributes:
    rows: The number of rows of the product; it may be a mean over configurations.
    inputs: The number of inputs.
    outputs: The number of outputs.
    number: The number of layers of this kind in the network.
    energy_products: The number of matrix products of each in a training step on energies.
    force_products: The same number in a training step on energies and forces.
  """

  rows: float
  inputs: int
  outputs: int
  number: int
  energy_products: int
  force_products: int

  @property
  def product(self) -> float:
    """The operations of one matrix product, a multiplication and an addition for each element."""
    return 2 * self.rows * self.inputs * self.outputs


def layers(*, atoms: int, pairs: float, features: int, blocks: int, radial: int) -> list[Layer]:
  """The dense layers of SchNet.

  Args:
    atoms: The number of atoms in a configuration.
    pairs: The number of unordered pairs of atoms within the cutoff, a mean over configurations.
    features: The number of features of an atom, and of filters.
    blocks: The number of interaction blocks.
    radial: The number of Gaussians.

  Returns:
    In this order: the first layers of the filter networks, their second layers, the first block's
    `send`, all other layers of the blocks, the hidden and the last layer of the output network.
  """
  return [
      Layer(pairs, radial, features, blocks, 2, 5),
      Layer(pairs, features, features, blocks, 3, 6),
      Layer(atoms, features, features, 1, 3, 3),
      Layer(atoms, features, features, 3 * blocks - 1, 3, 6),
      Layer(atoms, features, features // 2, 1, 3, 6),
      Layer(atoms, features // 2, 1, 1, 3, 5),
  ]


def energy(network: list[Layer]) -> float:
  """Operations of the energy of one configuration."""
  return sum(layer.number * layer.product for layer in network)


def forces(network: list[Layer]) -> float:
  """Operations of the energy and the forces of one configuration: 1 and 2 above."""
  twice = [1 if layer.force_products == 3 else 2 for layer in network]
  return sum(each * layer.number * layer.product
             for each, layer in zip(twice, network, strict=True))


def energy_training(network: list[Layer]) -> float:
  """Operations, for each configuration, of a training step on energies alone."""
  return sum(layer.number * layer.energy_products * layer.product for layer in network)


def force_training(network: list[Layer]) -> float:
  """Operations, for each configuration, of a training step on energies and forces."""
  return sum(layer.number * layer.force_products * layer.product for layer in network)


def attainable_rate(network: list[Layer], seconds: list[float]) -> float:
  """The rate, in operations a second, of a step that is matrix products and nothing else.

  Args:
    network: The layers.
    seconds: For each layer, the measured seconds of one operation at its shape.

  Returns:
    The operations of a force training step, divided by the time that its products take.
  """
  work = [layer.number * layer.force_products * layer.product for layer in network]
  return sum(work) / sum(each * time for each, time in zip(work, seconds, strict=True))
