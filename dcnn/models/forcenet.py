"""ForceNet: convolutions whose filters see directions, so that it is bound to a frame of axes.

References:
  W. Hu, M. Shuaibi, A. Das, S. Goyal, A. Sriram, J. Leskovec, D. Parikh and C. L. Zitnick,
  ForceNet: a graph neural network for large-scale quantum calculations, arXiv:2103.01436 (2021).
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System, text
from dcnn.models import edges as edge_lib
from dcnn.models import elements, layers, radial
from dcnn.models.initializers import torch_default, uniform, xavier
from dcnn.models.normalisers import Normaliser, none, normalised

LEAST_DISTANCE = 1e-3  # over the cutoff, of the faithful variant
NODE_UPDATES = ("described", "as_run")


def cosine_weight(distance: Float[Array, "*edges"], cutoff: float) -> Float[Array, "*edges"]:
  """cos(pi r / 2 cutoff) inside the cutoff, 0 beyond: at the cutoff its slope jumps.

  References:
    arXiv:2103.01436, Section 4.2.
  """
  return jnp.cos(0.5 * jnp.pi * jnp.minimum(distance, cutoff) / cutoff)


def unit_basis(
    values: Float[Array, "rows inputs"], number: int) -> Float[Array, "rows functions"]:
  """Gaussians on [0, 1] of each value, their centres and widths evenly spaced.

  Args:
    values: Numbers of about 0 to 1.
    number: Number of Gaussians, at least 2.

  Returns:
    exp(-(v - k D)^2 / 2 D^2), D = 1 / (number - 1), for k = 0 to number - 1; those of the first
    Gaussian come first.

  >>> print(unit_basis(jnp.array([[0.0, 1.0]]), 2).round(2))
  [[1.   0.61 0.61 1.  ]]
  """
  width = 1.0 / (number - 1)
  centres = np.repeat(np.linspace(0.0, 1.0, number), values.shape[1])
  return jnp.exp(-0.5 * jnp.square((jnp.tile(values, (1, number)) - centres) / width))


class ForceNet(nn.Module):
  """Energy from atoms that exchange messages filtered by directions, distances and both atoms.

  With properties a(z) and radii rho(z) of `elements`, B of `unit_basis`, u_ij the unit vector from
  atom i to atom j and w the envelope, 0 beyond the cutoff:

      h_i = W B(a(z_i)) + b
      q_ij = [(u_ij + 1) / 2, d, d - rho_j, d - rho_i, d - rho_i - rho_j], distances over the cutoff
      f_ij = w_ij MLP([W B(q_ij) + b, h_j, h_i])
      a_i = sum over j of f_ij * (W h_j + b) + c * (W h_i + b)
      h_i <- h_i + W act(norm(W a_i + b)) + b
      E = w . sum over i of act(W h_i + b) + b

  The network is *not* invariant under rotation, since components of u are its features: it is for
  data in one frame of axes, such as a trajectory without rotation. Forces sum to zero, torques do
  not. The last bias is added once, so that the energy of two molecules far apart is the sum of
  theirs less that bias.

  Deviations from arXiv:2103.01436: the energy's readout in place of one of forces, as in the code
  of the paper on derivative constraints (arXiv:2310.01649); forces are derivatives of the energy.
  The smooth envelope is ours: the fourth power of the paper's, and distances are not cut off below,
  where the paper's code sets those under a thousandth of the cutoff to it, and forces jump.

  Attributes:
    LIMITS: Least and largest values of the numbers below.
    activation: The activation of the filters' and the atoms' networks.
    output_activation: The activation of the readout; None is `activation`.
    features: Number of features of an atom and of a filter.
    blocks: Number of interaction blocks.
    radial: Number of Gaussians of each input.
    cutoff: Radius in angstrom beyond which atoms send no messages.
    envelope: `smooth`, or `faithful` to the paper's code, with which forces jump at the cutoff.
    node_update: `described`, as above; or `as_run`, h_i <- h_i + act(silu(W a_i + b)): what the
      code of arXiv:2310.01649 made of it without BatchNorm, where it exchanged a linear layer for
      the activation. The columns with a star of that paper's tables are this network.
    normaliser: Makes the layer before the activation of the atoms' network: over atoms.
  """

  LIMITS: ClassVar[Mapping[str, tuple[int | float, int | float]]] = {
      "features": (1, layers.MOST_UNITS), "blocks": (1, 32), "radial": (2, layers.MOST_UNITS),
      "cutoff": (0.1, 1000)}

  activation: layers.Activation
  features: int = 64
  blocks: int = 3
  radial: int = 32
  cutoff: float = 5.0
  envelope: str = "smooth"
  node_update: str = "described"
  normaliser: Normaliser = none
  output_activation: layers.Activation | None = None

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    if self.node_update not in NODE_UPDATES:
      raise ValueError(text.unknown("node_update", self.node_update, NODE_UPDATES))
    edges = edge_lib.edges(system, self.cutoff)
    cutoff_fn = radial.envelope(self.envelope, cosine_weight)
    weights = (edges.real * cutoff_fn(edges.distance, self.cutoff))[:, None]
    basis = unit_basis(self._inputs(system, edges), self.radial)
    properties = jnp.asarray(elements.properties(), basis.dtype)[system.species]
    known = unit_basis(properties, self.radial)
    atoms = layers.dense(
        self.features, name="embedding", **torch_default(known.shape[-1]))(known)
    real = jnp.asarray(system.species > 0, basis.dtype)
    for block in range(self.blocks):
      filters = weights * self._filters(block, basis, atoms, edges)
      atoms += self._update(block, filters, atoms, edges, real)
    return self._energy(atoms, real)

  def _inputs(self, system: System, edges: edge_lib.Edges) -> Float[Array, "edges 7"]:
    """Direction and distances of each edge, as numbers of about 0 to 1."""
    radii = jnp.asarray(elements.radii(), edges.distance.dtype)[system.species]
    distance = edges.distance[:, None]
    receiver, sender = edge_lib.of_receivers(edges, radii), edge_lib.of_senders(edges, radii)
    distances = jnp.concatenate(
        [distance, distance - sender, distance - receiver, distance - receiver - sender],
        axis=1) / self.cutoff
    if self.envelope == "faithful":
      distances = jnp.where(distances < LEAST_DISTANCE, LEAST_DISTANCE, distances)
    return jnp.concatenate([0.5 * (edges.direction + 1.0), distances], axis=1)

  def _filters(
      self, block: int, basis: Float[Array, "edges functions"],
      atoms: Float[Array, "atoms features"], edges: edge_lib.Edges,
  ) -> Float[Array, "edges features"]:
    """The factor on each message. The first layer reads edge, sender and receiver."""
    size, act = self.features, self.activation
    edge = layers.dense(
        size, name=f"basis_{block}", **xavier(basis.shape[-1], size))(basis)
    draw, inner = xavier(3 * size, size), xavier(size, size)
    hidden = layers.dense(size, name=f"filter_edge_{block}", **draw)(edge)
    hidden += edge_lib.of_senders(edges, layers.dense(
        size, use_bias=False, name=f"filter_sender_{block}", **draw)(atoms))
    hidden += edge_lib.of_receivers(edges, layers.dense(
        size, use_bias=False, name=f"filter_receiver_{block}", **draw)(atoms))
    hidden = act(layers.dense(
        size, reads=act, name=f"filter_hidden_{block}", **inner)(act(hidden)))
    return layers.dense(size, reads=act, name=f"filter_{block}", **inner)(hidden)

  def _update(
      self, block: int, filters: Float[Array, "edges features"],
      atoms: Float[Array, "atoms features"], edges: edge_lib.Edges, real: Float[Array, " atoms"],
  ) -> Float[Array, "atoms features"]:
    """What a block adds to the features of each atom."""
    size, act = self.features, self.activation
    draw = xavier(size, size)
    sent = layers.dense(size, name=f"send_{block}", **draw)(atoms)
    own = self.param(f"own_{block}", uniform((6.0 / (1 + size)) ** 0.5), (1, size))
    received = edge_lib.sums(edges, filters * edge_lib.of_senders(edges, sent)) + own * sent
    hidden = layers.dense(size, name=f"receive_{block}", **draw)(received)
    hidden = normalised(hidden, self.normaliser(), real)
    if self.node_update == "as_run":
      return layers.gain_of(act) * act(jax.nn.silu(hidden))
    return layers.dense(size, reads=act, name=f"update_{block}", **draw)(act(hidden))

  def _energy(
      self, atoms: Float[Array, "atoms features"], real: Float[Array, " atoms"]
  ) -> Float[Array, ""]:
    """The readout: the sum over atoms of their last features, then a linear layer."""
    act, draw = self.output_activation or self.activation, torch_default(self.features)
    hidden = act(layers.dense(self.features, name="output_hidden", **draw)(atoms))
    total = jnp.sum(jnp.where(real[:, None] > 0, hidden, 0.0), axis=0)
    return layers.dense(1, reads=act, name="output", **draw)(total[None, :])[0, 0]

  @staticmethod
  def check(systems: System) -> None:
    """Makes sure that the properties of all elements are known.

    Args:
      systems: All configurations, those to be tested on included.

    Raises:
      FrameError: If a frame has one of the elements 36, 54, 85, 86, 87 or an element from 96 on.
    """
    elements.check(systems, "ForceNet", np.hstack([elements.properties(), elements.radii()]))
