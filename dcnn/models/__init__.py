"""Networks: unbatched Flax Linen modules that map a `System` to its energy.

A network takes its activation, its normaliser and the gain of its initialisation as fields, so
that a user swaps a function and never edits a layer. Batching is the caller's `jax.vmap`.
"""

from dcnn.models.mlp import MLP
from dcnn.models.normalisers import NORMALISERS
from dcnn.models.schnet import SchNet

__all__ = ["MLP", "NORMALISERS", "SchNet"]
