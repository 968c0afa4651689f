"""The networks by name, and what is known of a network before it is made.

A network says on its class what it needs; each of these may be missing:

- `LIMITS`: the least and the largest value of some of its settings, by name.
- `check(systems)`: a static method that raises a ValueError on data that the network cannot take.
- `ELSEWHERE`: the activation where another stands in the output block alone, a name or a function;
  silu where it is missing.
- `LISTED`: False where the network has no form for neighbour lists: it takes all pairs of a
  molecule and ignores a list. True where it is missing.
- `statistics(systems)`: a static method that gives fields from the training configurations, whose
  names `STATISTICS` lists.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dcnn.base import System, text
from dcnn.models.cgcnn import CGCNN
from dcnn.models.dimenet import DimeNetPlusPlus
from dcnn.models.forcenet import ForceNet
from dcnn.models.gemnet import GemNetT
from dcnn.models.grid_ace import GridACE
from dcnn.models.mlp import MLP
from dcnn.models.painn import PaiNN
from dcnn.models.schnet import SchNet

MODELS: Mapping[str, type] = {
    "SchNet": SchNet, "PaiNN": PaiNN, "GridACE": GridACE, "CGCNN": CGCNN, "ForceNet": ForceNet,
    "DimeNetPlusPlus": DimeNetPlusPlus, "GemNetT": GemNetT, "MLP": MLP}
# Fields that mean the same in all networks.
_TAKEN = ("output_activation", "normaliser", "elements")
_OF_FLAX = ("parent", "name")


class Network(NamedTuple):
  """A network that has not been made yet, and what its class says about it.

  Attributes:
    name: Its name, for tables and messages.
    make: Makes the network, by keyword: `activation`, the settings, the statistics, and what it
      `takes`.
    settings: Names of the fields that a configuration sets.
    defaults: Default values of those settings that have one; the others are required.
    limits: Least and largest values of some settings, by name.
    takes: Which of `output_activation`, `normaliser` and `elements`, the atomic numbers that occur
      in the data, the network has.
    elsewhere: The activation where another stands in the output block alone.
    listed: Whether the network reads neighbour lists.
    statistics: Gives further fields from the training configurations (positions (frames, atoms, 3)
      in angstrom, species (frames, atoms)); None where the network needs no such field.
    check: Raises a ValueError if the network cannot take these configurations; None where it takes
      all. The message says what to do.
  """

  name: str
  make: Callable[..., Any]
  settings: tuple[str, ...]
  defaults: Mapping[str, Any]
  limits: Mapping[str, tuple[int | float, int | float]]
  takes: tuple[str, ...]
  elsewhere: Callable[[Any], Any] | str
  listed: bool
  statistics: Callable[[System], Mapping[str, Any]] | None
  check: Callable[[System], None] | None


def resolve(spec: Any) -> Network:
  """The network of a name, of a Flax class of the user's own, or of a function that makes one.

  Its settings are the arguments that it is made with, other than `activation`,
  `output_activation`, `normaliser`, `elements` and those listed in its `STATISTICS`.

  Args:
    spec: A name of `MODELS`; or a class or a function that takes `activation` and makes a pair of
      pure functions, `init(key, system)` and `apply(variables, system)`, where `apply` gives the
      scaled energy of one configuration.

  Returns:
    The network, which `make` makes.

  Raises:
    ValueError: If there is no network of that name, or if `spec` is no class or function that
      takes `activation`.

  >>> resolve("MLP").settings
  ('hidden',)
  >>> resolve("SchNet").defaults["cutoff"]
  5.0
  """
  if isinstance(spec, str):
    if spec not in MODELS:
      raise ValueError(text.unknown("model", spec, MODELS))
    spec = MODELS[spec]
  if not callable(spec) or hasattr(spec, "init") and not isinstance(spec, type):
    raise ValueError("expected the name of a network, its class or a function that makes it, "
                     f"received {text.one_line(str(spec))[:60]!r}: pass the class, and the "
                     "settings beside it")
  source = spec.func if isinstance(spec, functools.partial) else spec
  name = getattr(source, "__name__", type(source).__name__)
  fields = {key: field.default for key, field in inspect.signature(spec).parameters.items()
            if field.kind in (field.KEYWORD_ONLY, field.POSITIONAL_OR_KEYWORD)}
  if "activation" not in fields:
    raise ValueError(f"expected a network that takes `activation`, received {name} with "
                     f"{', '.join(fields) or 'no field'}: add the field `activation`, a function "
                     "of an array")
  reserved = {"activation", *_TAKEN, *_OF_FLAX, *getattr(source, "STATISTICS", ())}
  settings = {key: value for key, value in fields.items() if key not in reserved}
  return Network(
      name=name, make=spec, settings=tuple(settings),
      defaults={key: value for key, value in settings.items()
                if value is not inspect.Parameter.empty},
      limits=getattr(source, "LIMITS", {}),
      takes=tuple(key for key in _TAKEN if key in fields),
      elsewhere=getattr(source, "ELSEWHERE", "silu"),
      listed=getattr(source, "LISTED", True),
      statistics=getattr(source, "statistics", None), check=getattr(source, "check", None))
