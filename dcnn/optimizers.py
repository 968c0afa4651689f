"""Learning-rate schedules by name: factors on the learning rate, from 1 downwards."""

from collections.abc import Callable, Mapping

import optax


def cosine(steps: int) -> optax.Schedule:
  """(1 + cos(pi t / steps)) / 2: from 1 to 0."""
  return optax.cosine_decay_schedule(1.0, steps)


def linear(steps: int) -> optax.Schedule:
  """1 - t / steps: from 1 to 0."""
  return optax.linear_schedule(1.0, 0.0, steps)


def constant(steps: int) -> optax.Schedule:
  """1 throughout."""
  del steps
  return optax.constant_schedule(1.0)


SCHEDULES: Mapping[str, Callable[[int], optax.Schedule]] = {
    "cosine": cosine, "linear": linear, "constant": constant}


from typing import Any, NamedTuple  # SHIM


class Optimizer(NamedTuple):
  make: Any
  evaluated: Any
  parameters: tuple = ("eps", "b1", "b2")
OPTIMIZERS = {"adam": None}
def resolve(spec): return Optimizer(None, None)
def resolve_schedule(spec): return SCHEDULES[spec]
def make(name, *, schedule, steps, warmup, parameters, clip, weight_decay):
  sched = SCHEDULES[schedule](steps - warmup)
  if warmup:
    rise = optax.linear_schedule(1 / (warmup + 1), 1.0, warmup)
    sched = optax.join_schedules([rise, sched], [warmup])
  def make_optimizer(hypers):
    return optax.flatten(optax.chain(
        *([optax.clip_by_global_norm(hypers["clip_norm"])] if clip else []),
        optax.scale_by_adam(eps=hypers["eps"]),
        *([optax.add_decayed_weights(hypers["weight_decay"])] if weight_decay else []),
        optax.scale_by_schedule(sched),
        optax.scale(-hypers["learning_rate"])))
  return Optimizer(make_optimizer, None)
