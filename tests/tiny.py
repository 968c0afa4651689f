"""Configurations that train in a blink, for tests of the engine around them."""

from dcnn import configs
from dcnn.sweeps import engine, streaming

# In place of an engine where nothing is computed: everything stays where it is.
HOST = engine.Engine(*(lambda tree: tree,) * 6, programs={}, compile_seconds=0.0, bytes_needed=0)
# What makes each network small, beside `config`.
NETWORKS = {
    "SchNet": {}, "MLP": {"model__hidden": (4,)}, "CGCNN": {"model__output_features": 4},
    "GridACE": {"model__filter_features": 4}, "PaiNN": {}, "ForceNet": {},
    "DimeNetPlusPlus": {"model__basis_features": 2, "model__triplet_features": 2,
                        "model__output_features": 4, "model__spherical": 3, "model__bessel": 3},
    "GemNetT": {"model__atom_features": 4, "model__basis_features": 2,
                "model__triplet_features": 2, "model__bilinear_features": 2,
                "model__spherical": 3}}


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


def let_runs_fit(patch, runs, *, streamed=False):
  """Lets so many runs fit on a device and no more, whatever they and their data take.

  Args:
    patch: pytest's MonkeyPatch.
    runs: a device.
    streamed: whether their data come in windows, of two batches each.
  """
  choose_layout, build = streaming.choose_layout, engine.build

  def weightless(*arguments, budget, **options):
    del budget
    chosen = choose_layout(*arguments, budget=0.0 if streamed else float("inf"), **options)
    return chosen._replace(bytes=0)

  def built(program, stacked, shapes, mesh):
    return build(program, stacked, shapes, mesh)._replace(
        bytes_needed=len(stacked.key) // mesh.shape[engine.RUNS])

  patch.setattr(streaming, "choose_layout", weightless)
  patch.setattr(engine, "build", built)
  patch.setattr(engine, "state_bytes", lambda program, stacked: 1)
  patch.setattr(engine, "device_memory", lambda device: runs)
