"""Derivative-constrained training in JAX, and ablations of it with statistics that hold."""

import os
import sys

# On CPUs with AVX-512 XLA warns, at length and wrongly, of programs that it has cached itself
# (openxla/xla issue 44565). What goes wrong in it is raised, too. It reads this when it is loaded.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

try:
  import jax  # noqa: E402
except ValueError as unreadable:  # a variable of the environment that it cannot read
  _told = f"JAX does not start: {unreadable}. Correct or unset that variable of the environment"
  if os.path.basename(sys.argv[0]) in ("dcnn", "dcnn.exe", "-m"):  # of the command; -m is Python's
    raise SystemExit(f"dcnn: error: {_told}") from None
  raise ImportError(_told) from None

# jax 0.10.2 returns wrong numbers on CPU for a vmapped matrix-vector product followed by a
# reduction (jax issue 39103); 0.11.0 and 0.11.1 crash or return wrong results there.
_REFUSED = ("0.10.2", "0.11.0", "0.11.1")
if jax.__version__ in _REFUSED:
  raise ImportError(
      f"jax {jax.__version__} computes wrong results on CPU; dcnn refuses it. "
      "Install another: pip install 'jax>=0.10.1,!=0.10.2,!=0.11.0,!=0.11.1'")

from dcnn.base.version import __version__  # noqa: E402
from dcnn.jobs import load, sweep  # noqa: E402  (after the check)

__all__ = ["__version__", "load", "sweep"]
