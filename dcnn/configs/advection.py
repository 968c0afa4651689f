"""The settings of the advection equation, and what they make: points, splits and tasks."""

import functools
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dcnn import losses
from dcnn.configs import networks, penalties
from dcnn.configs.sections import Parts, Section
from dcnn.configs.settings import (
    ConfigDict,
    Setting,
    is_integer,
    not_negative,
    of_either_sign,
    positive,
    positive_whole,
    require,
)
from dcnn.tasks import advection
from dcnn.tasks.advection import Collocation, Equation
from dcnn.tasks.base import Task
from dcnn.use import Field, Runs

SETTINGS = (
    Setting("equation.speed", 1.0, "The speed at which the solution moves.", "1 / time",
            check=of_either_sign),
    Setting("equation.horizon", 0.25, "The time up to which the equation is solved.", "time",
            check=positive),
    Setting("equation.hard_initial", True,
            "Whether the initial condition is built into the solution; otherwise it is a term of "
            "the loss.", role="program"),
    Setting("points.train", 1000, "Training points, which every step shifts at random.", "points",
            check=positive_whole),
    Setting("points.valid", 500, "Validation points.", "points", check=positive_whole),
    Setting("points.grid", (33, 64), "Times and positions of the grid to test on."),
    Setting("model.hidden", (40, 40, 40), "Sizes of the hidden layers.", role="program"),
    Setting("loss.residual", "l2", "The penalty of residuals: a name, or a function of them.",
            choices=tuple(losses.ENERGY_LOSSES), role="program", objects=True),
    Setting("loss.residual_weight", 1.0, "The weight of the residual.", check=positive,
            role="number"),
    Setting("loss.initial_weight", 10.0,
            "The weight of the initial condition where it is not built in.", check=not_negative,
            role="number"),
    Setting("loss.residual_delta", 0.1, "Where huber turns from a square into a line.",
            check=positive, role="number"),
)


class Domain(NamedTuple):
  """The equation and the points at which it is looked at."""

  equation: Equation
  points: Collocation

  @property
  def summary(self) -> str:
    """The equation and the points, in a line."""
    train, valid, _ = map(len, self.points.splits)
    times, positions = self.points.grid
    return (f"u_t + {self.equation.speed:g} u_x = 0 up to t = {self.equation.horizon:g}; "
            f"{train:,} training points, {valid:,} validation points, a grid of {times} times and "
            f"{positions} positions to test on")

  @property
  def facts(self) -> dict[str, Any]:
    """What config.json says of them."""
    digest = hashlib.sha256(str(self.equation).encode())
    for each in self.points.points:
      digest.update(each.tobytes())
    return {"name": "advection", "source": "The exact solution u0(x - speed t).",
            "checksum": digest.hexdigest(), "frames": len(self.points.points.time)}


def load(config: ConfigDict) -> Domain:
  """The equation and the points of a configuration."""
  points = config.points
  return Domain(
      Equation(config.equation.speed, config.equation.horizon),
      advection.collocation(points.train, points.valid, tuple(points.grid)))


def build(
    config: ConfigDict, domain: Domain, arms: Mapping[str, ConfigDict], seeds: Sequence[int]
) -> Parts:
  """What the configuration makes of the domain.

  Raises:
    ValueError: if a batch is larger than the number of training points.
  """
  for name, settings in arms.items():
    require(settings.batch_size <= config.points.train,
            f"arm {name!r}: batch_size {settings.batch_size} is larger than the "
            f"{config.points.train} training points: lower it or raise points.train")
  return Parts(
      problem=advection.make_problem(*domain),
      splits=(domain.points.splits,) * len(seeds),
      make_task=functools.partial(_make_task, domain.equation),
      fit=lambda name, settings, train: advection.fit(train))


def _make_task(equation: Equation, config: ConfigDict) -> Task:
  equation = equation._replace(hard_initial=config.equation.hard_initial)
  penalty = penalties.make(config.loss.residual, losses.ENERGY_LOSSES, "residual")
  fields = networks.activation_fields(config)
  hidden = tuple(config.model.hidden)

  return advection.make_task(
      equation,
      lambda key, hypers: advection.init_network(key, hidden, hypers["init_gain"]),
      lambda hypers: advection.make_field(equation, **fields(hypers)), penalty)


def _check(config: ConfigDict) -> None:
  sizes = (*config.points.grid, *config.model.hidden)
  require(len(config.points.grid) == 2 and len(config.model.hidden) > 0 and all(
      is_integer(size) and 1 <= size <= 100_000 for size in sizes),
          "points.grid must list two whole numbers and model.hidden at least one, from 1 to "
          f"100,000, got {tuple(config.points.grid)} and {tuple(config.model.hidden)}")
  penalties.check(config, "loss.residual", losses.ENERGY_LOSSES, "residual")


def _unread(config: ConfigDict) -> set[str]:
  unread = penalties.unread(config, config.loss.residual, losses.ENERGY_LOSSES, "residual")
  return unread | ({"loss.initial_weight"} if config.equation.hard_initial else set())


def _warn(arms: Mapping[str, ConfigDict]) -> None:
  rough = sorted({str(settings.activation.name) for settings in arms.values()
                  if networks.is_rough(settings, 1)})
  if rough:
    warnings.warn(
        f"{', '.join(rough)}: the residual takes a first derivative, which jumps with this "
        "activation, and its gradient misses the jumps; use its integral (irelu for relu) or a "
        "smooth activation", stacklevel=5)


def _use(config: ConfigDict, runs: Runs, settings: Mapping[str, Any]) -> Field:
  """The solutions of an arm."""
  equation = Equation(
      config.equation.speed, config.equation.horizon, config.equation.hard_initial)
  fields = networks.activation_fields(config)(
      {**networks.parameters(config), "init_gain": networks.init_gain(config)})
  return Field(
      name=runs.arm, seeds=runs.seeds, field_fn=advection.make_field(equation, **fields),
      variables=runs.best, last=runs.last, metrics=runs.metrics,
      calibration=runs.calibration, settings=settings)


SECTION = Section(
    SETTINGS, _check, _unread, lambda config: {}, load, build, _warn,
    lambda config: advection.MEASURES, _use)
