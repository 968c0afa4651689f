"""CGCNN: gated convolutions on a graph of atoms, and one readout of their mean.

References:
  T. Xie and J. C. Grossman, Crystal graph convolutional neural networks for an accurate and
  interpretable prediction of material properties, PRL 120, 145301 (2018), arXiv:1710.10324.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dcnn.base import System
from dcnn.models import edges as edge_lib
from dcnn.models import elements, layers, radial
from dcnn.models.initializers import torch_default, xavier
from dcnn.models.normalisers import NORMALISERS, Normaliser, couples, none, normalised


def step_cutoff(distance: Float[Array, "*edges"], cutoff: float) -> Float[Array, "*edges"]:
  """1 inside the cutoff and 0 beyond: the energy jumps as an atom crosses it."""
  return (distance < cutoff).astype(distance.dtype)


class CGCNN(nn.Module):
  """Energy of the mean of the atoms' features, refined by gated messages along directed edges.

  With k(z) of `elements.bits`, Gaussians e of the distance and the envelope w, 0 beyond the cutoff:

      x_i = W k(z_i) + b
      (g, c)_ij = batch_norm(W_a x_i + W_b x_j + W_c e_ij + b)
      m_i = sum over j of w_ij sigmoid(g_ij) * act(c_ij)
      x_i <- act(layer_norm(m_i) + x_i)
      E = w . act(W ... act(W (mean over i of x_i) + b) ...) + b

  As the mean is over atoms, the energy of two molecules far apart is not the sum of their energies,
  and forces start small, as 1 / atoms. Activations that are added to features have the factor that
  is the gain of weights that read them.

  Normalisation: `batch` is the layers above, as the paper on derivative constraints ran it with
  BatchNorm, over all edges of a batch, each counting as much as its w; `layer`, or one of the
  user's own, stands in the place of layer_norm, and there is no batch_norm: what that paper calls
  CGCNN without BatchNorm. `none` has neither.

  Deviations from arXiv:1710.10324: layer_norm stands where there is a second batch_norm, and the
  head has more layers, as in the code of the paper on derivative constraints (arXiv:2310.01649);
  the smooth envelope is ours.

  Attributes:
    LIMITS: Least and largest values of the numbers below.
    ELSEWHERE: The activation where another stands in the output block alone.
    activation: The activation of the convolutions: of the messages, beside their gate, which stays
      a sigmoid, and of what they add up to; softplus in the paper.
    output_activation: The activation of the head; None is `activation`. The paper on derivative
      constraints exchanged this one alone.
    features: Number of features of an atom.
    blocks: Number of convolutions.
    radial: Number of Gaussians.
    cutoff: Radius in angstrom beyond which atoms send no messages.
    output_features: Size of the layers of the head.
    output_layers: Number of hidden layers of the head.
    envelope: `smooth`, with which messages vanish smoothly at the cutoff, or `faithful`, 1 up to
      the cutoff, where the energy jumps.
    normaliser: Makes the layers of normalisation, see above.
  """

  LIMITS: ClassVar[Mapping[str, tuple[int | float, int | float]]] = {
      "features": (1, layers.MOST_UNITS), "blocks": (1, 32), "radial": (2, layers.MOST_UNITS),
      "cutoff": (0.1, 1000), "output_features": (1, layers.MOST_UNITS),
      "output_layers": (1, layers.MOST_LAYERS)}
  ELSEWHERE: ClassVar[str] = "softplus"

  activation: layers.Activation
  features: int = 64
  blocks: int = 3
  radial: int = 32
  cutoff: float = 5.0
  output_features: int = 64
  output_layers: int = 3
  envelope: str = "smooth"
  normaliser: Normaliser = none
  output_activation: layers.Activation | None = None

  @nn.compact
  def __call__(self, system: System) -> Float[Array, ""]:
    """Scaled energy of one configuration."""
    layers.check_limits(self)
    edges = edge_lib.edges(system, self.cutoff)
    cutoff_fn = radial.envelope(self.envelope, step_cutoff)
    weights = edges.real * cutoff_fn(edges.distance, self.cutoff)
    basis = radial.gaussian_basis(edges.distance, self.radial, self.cutoff)
    bits = jnp.asarray(elements.bits(), basis.dtype)[system.species]
    atoms = layers.dense(self.features, name="embedding", **torch_default(elements.BITS))(bits)
    real = jnp.asarray(system.species > 0, basis.dtype)
    act = self.activation
    read = None  # the first convolution reads the embedding, not an activation
    for block in range(self.blocks):
      gates = self._gates(block, atoms, read, edges, basis)
      layer = self.normaliser()
      if couples(layer):
        gates, layer = normalised(gates, layer, weights), NORMALISERS["layer"]()
      opening, core = jnp.split(gates, 2, axis=-1)
      # What is added and not read by weights has the gain itself.
      messages = layers.gain_of(act) * weights[:, None] * jax.nn.sigmoid(opening) * act(core)
      received = normalised(edge_lib.sums(edges, messages), layer, real)
      atoms, read = act(received + layers.gain_of(read) * atoms), act
    mean = jnp.sum(real[:, None] * atoms, axis=0) / jnp.maximum(jnp.sum(real), 1.0)
    return self._energy(mean[None, :])

  def _gates(
      self, block: int, atoms: Float[Array, "atoms features"], read: layers.Activation | None,
      edges: edge_lib.Edges, basis: Float[Array, "edges radial"],
  ) -> Float[Array, "edges gates"]:
    """(g, c) of each edge: one layer reads receiver, sender and edge."""
    size = 2 * self.features
    draw = xavier(size + self.radial, size)
    receive = layers.dense(size, reads=read, use_bias=False, name=f"receive_{block}", **draw)
    send = layers.dense(size, reads=read, use_bias=False, name=f"send_{block}", **draw)
    gates = layers.dense(size, name=f"edge_{block}", **draw)(basis)
    gates += edge_lib.of_receivers(edges, receive(atoms))
    return gates + edge_lib.of_senders(edges, send(atoms))

  def _energy(self, features: Float[Array, "1 features"]) -> Float[Array, ""]:
    """The head, on the features of the whole configuration."""
    act, read = self.output_activation or self.activation, self.activation
    for index in range(self.output_layers):
      features = act(layers.dense(
          self.output_features, reads=read, name=f"output_hidden_{index}",
          **torch_default(features.shape[-1]))(features))
      read = act
    energy = layers.dense(1, reads=read, name="output", **torch_default(features.shape[-1]))
    return energy(features)[0, 0]

  @staticmethod
  def check(systems: System) -> None:
    """Makes sure that the properties of all elements are known.

    Args:
      systems: All configurations, those to be tested on included.

    Raises:
      FrameError: If a frame has an element beyond fermium.
    """
    elements.check(systems, "CGCNN", elements.bits())
