"""Networks: unbatched Flax Linen modules that map a `System` to its energy.

A network takes its activations, each with the gain of the weights that read it, and its normaliser
as fields, so that a user swaps a function and never edits a layer. Batching is the caller's
`jax.vmap`.
"""

from dcnn.models.cgcnn import CGCNN
from dcnn.models.dimenet import DimeNetPlusPlus
from dcnn.models.forcenet import ForceNet
from dcnn.models.gemnet import GemNetT
from dcnn.models.grid_ace import GridACE
from dcnn.models.layers import Nonlinearity
from dcnn.models.mlp import MLP, FrameError
from dcnn.models.normalisers import NORMALISERS, resolve_normaliser
from dcnn.models.painn import PaiNN
from dcnn.models.registry import MODELS, Network, resolve
from dcnn.models.schnet import SchNet

__all__ = ["CGCNN", "MLP", "MODELS", "NORMALISERS", "DimeNetPlusPlus", "ForceNet", "FrameError",
           "GemNetT", "GridACE", "Network", "Nonlinearity", "PaiNN", "SchNet", "resolve",
           "resolve_normaliser"]
