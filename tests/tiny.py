"""Configurations that train in a blink, for tests of the engine around them."""

from dcnn import configs


def config(**overrides):
  """A small SchNet, forty frames of ethanol, six steps; dotted keys with __ for the dot."""
  base = configs.default()
  base.model.features, base.model.blocks, base.model.radial = 4, 1, 4
  base.split.train, base.split.valid, base.split.test = 20, 10, 10
  base.steps, base.chunk, base.batch_size, base.seeds = 6, 3, 4, 2
  base.labels = "standardize"
  base.update_from_flattened_dict(
      {key.replace("__", "."): value for key, value in overrides.items()})
  return base


def mlp(**overrides):
  """The same with a small MLP, which compiles faster."""
  return config(**{"model__name": "MLP", "model__hidden": (4,), **overrides})
