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
