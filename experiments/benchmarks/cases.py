"""What is measured: sizes, and the contenders that are timed side by side at each of them."""

from collections.abc import Sequence
from typing import NamedTuple

BLOCKS, RADIAL, CUTOFF = 3, 32, 5.0  # interaction blocks, Gaussians, angstrom
LEARNING_RATE, FORCE_WEIGHT = 1e-3, 30.0  # L1(E) + 30 L1(F), eV and eV/angstrom, as the paper


class Case(NamedTuple):
  """Sizes of a network and its batch, and where they are computed.

  Attributes:
    features: The number of features of an atom, and of filters.
    batch: The number of configurations in a step.
    molecule: The name of an embedded data set.
    cores: How many of the usable cores all contenders are pinned to.
    blocks: The number of interaction blocks.
    radial: The number of radial functions, Gaussians in SchNet.
    network: The network, by the name of `model.name`.
  """

  features: int = 64
  batch: int = 10
  molecule: str = "ethanol"
  cores: int = 1
  blocks: int = BLOCKS
  radial: int = RADIAL
  network: str = "SchNet"


class Contender(NamedTuple):
  """A program that trains.

  Attributes:
    module: The name of its module in `contenders`.
    runs: The number of runs that it trains together, in one timed burst.
    mapping: How our runs are computed: `engine`, as dcnn does on this device; `vmapped`; `in_turn`,
      a program for one run called for each of them; `split`, the batch of one run spread over a
      device for each core, as `devices_per_run` does.
    threads: The number of PyTorch's threads.
  """

  module: str
  runs: int = 1
  mapping: str = "engine"
  threads: int = 0

  @property
  def name(self) -> str:
    """The name that the table shows."""
    if self.module != "ours":
      return self.module
    plain = self.runs == 1 and self.mapping == "engine"
    return "ours" if plain else f"ours, {self.mapping.replace('_', ' ')}"


class Plan(NamedTuple):
  """A case, and what it is measured with.

  Attributes:
    case: The sizes.
    runs: The numbers of runs that are trained together.
    mappings: The ways in which several runs are computed.
  """

  case: Case
  runs: tuple[int, ...]
  mappings: tuple[str, ...] = ("engine", "vmapped", "in_turn")


def default_plans(cores: Sequence[int]) -> list[Plan]:
  """The base case with all numbers of runs, one step away along each axis, and the main job.

  Args:
    cores: The numbers of cores; everything is measured with each.
  """
  base = Case()
  main_job = Plan(
      base._replace(features=32, batch=5, blocks=2, radial=20), (1, 64), ("engine",))
  aside = [
      base._replace(features=32),
      base._replace(features=128),
      base._replace(features=128, batch=32),
      base._replace(batch=100),
      base._replace(molecule="aspirin"),
  ]
  plans = [Plan(base, (1, 8, 64)), *(Plan(case, (1,)) for case in aside), main_job]
  return [
      plan._replace(case=plan.case._replace(cores=number)) for number in cores for plan in plans]


def quick_plans() -> list[Plan]:
  """Seconds: does everything run?"""
  return [Plan(Case(features=8, batch=4, blocks=1, radial=8), (2,), ("engine",))]


def networks() -> list[Case]:
  """The networks at the sizes in which they are compared; the first is what others are told by."""
  base = Case()
  ace = base._replace(network="GridACE", blocks=2, radial=8)
  return [
      base, base._replace(network="PaiNN", radial=20), ace._replace(features=32), ace,
      *(base._replace(network=name) for name in ("CGCNN", "ForceNet")),
      *(base._replace(network=name, blocks=1) for name in ("DimeNetPlusPlus", "GemNetT"))]


# Who else has a network; the other modules of `contenders` have SchNet alone.
PEERS = {"SchNet": ("pyg", "schnetpack"), "PaiNN": ("schnetpack",), "GridACE": ("mace",)}


def contenders(plan: Plan) -> list[Contender]:
  """All that are timed in alternation: ours, and PyTorch with each sensible number of threads."""
  cores = plan.case.cores
  threads = sorted({1, cores})
  others = [
      Contender(module, threads=number)
      for module in PEERS.get(plan.case.network, ()) for number in threads]
  alone = ("engine", "split") if cores > 1 and plan.case.batch % cores == 0 else ("engine",)
  ours = [
      Contender("ours", runs, mapping)
      for runs in plan.runs for mapping in (alone if runs == 1 else plan.mappings)]
  return [*others, *ours]
