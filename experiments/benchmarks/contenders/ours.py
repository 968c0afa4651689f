"""dcnn, through the functions that its command line uses."""

import contextlib
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from dcnn import configs
from dcnn.base import provenance
from dcnn.cli import runtime
from dcnn.configs.build import build as build_plan
from dcnn.configs.build import load
from dcnn.sweeps import batches, engine, plans, streaming, training
from dcnn.tasks.base import Batch, Hypers, Task, Variables
from experiments.benchmarks.cases import CUTOFF, FORCE_WEIGHT, LEARNING_RATE, Case, Contender
from experiments.benchmarks.contenders.base import Missing, Trainer

ACTIVATIONS = {"GridACE": "silu"}  # of mace-torch, which has no place for another
CHUNK = 200  # steps whose batches are on the device; then they are used again


def config(case: Case, runs: int = 1, devices_per_run: int = 1) -> configs.ConfigDict:
  """The configuration that all contenders follow.

  Args:
    case: The sizes of the network and of its batch.
    runs: The number of runs, which differ in their seeds.
    devices_per_run: The number of devices that share the batch of a run.
  """
  chosen = configs.default()
  chosen.dataset = case.molecule
  chosen.labels = "mean_shift"  # E = mean + network, in eV: as one would write it in PyTorch
  chosen.model.name = case.network
  chosen.activation.name = ACTIVATIONS.get(case.network, "irelu")
  chosen.model.features, chosen.model.blocks = case.features, case.blocks
  chosen.model.radial, chosen.model.cutoff = case.radial, CUTOFF
  chosen.loss.force_weight = FORCE_WEIGHT
  chosen.optimizer.learning_rate, chosen.optimizer.schedule = LEARNING_RATE, "constant"
  chosen.batch_size, chosen.steps, chosen.chunk, chosen.seeds = case.batch, CHUNK, CHUNK, runs
  chosen.devices_per_run = devices_per_run
  configs.validate(chosen)
  return chosen


class Example(NamedTuple):
  """The programs of a case, with and without forces, and what one training step of them takes.

  Attributes:
    force_program: The program that trains on energies and forces.
    energy_program: The program that trains on energies alone.
    hypers: The hyperparameters of the first seed's run.
    batch: The first batch of that run.
    atoms: The number of atoms in a configuration.
    pairs: The number of unordered pairs of atoms within the cutoff, a mean over configurations.
  """

  force_program: training.Program
  energy_program: training.Program
  hypers: dict[str, float]
  batch: Batch
  atoms: int
  pairs: float


def example(case: Case) -> Example:
  """The programs of a case, whose parts `breakdown` times."""
  chosen = config(case)
  plan, group = _plan(chosen)
  with chosen.unlocked():
    chosen.loss.force_weight = 0.0
  _, energies_alone = _plan(chosen)
  data, rows = _first_run(plan, group, case)
  atoms, pairs = _sizes(data[0][0].positions[rows.reshape(-1)])
  return Example(
      group.program, energies_alone.program, group.runs[0].hypers,
      plan.problem.take(data, rows[0]), atoms, pairs)


def total_loss(
    task: Task, variables: Variables, hypers: Hypers, batch: Batch, key: Array
) -> Float[Array, ""]:
  """The loss that a training step differentiates: the weighted sum of the means of its terms."""
  terms, _ = task.loss(variables, hypers, batch, key)
  return functools.reduce(jnp.add, (
      term.weight * (term.total / jnp.maximum(term.count, 1)) for term in terms.values()))


def write_data(case: Case, path: str) -> dict[str, Any]:
  """Writes what the other contenders train on: the frames and batches of our first seed.

  Args:
    case: The sizes of the network and of its batch.
    path: The file to write, an `.npz`.

  Returns:
    The number of atoms in a configuration, its mean number of unordered pairs within the cutoff,
    and the environment.
  """
  ((systems, forces), energy), rows = _first_run(*_plan(config(case)), case)
  np.savez(path, positions=systems.positions, species=systems.species, forces=forces,
           energy=energy, batches=rows)
  atoms, pairs = _sizes(systems.positions[rows.reshape(-1)])
  return {"atoms": atoms, "pairs": pairs, "environment": provenance.environment()}


def _first_run(
    plan: plans.Plan, group: plans.Group, case: Case
) -> tuple[Any, Int[np.ndarray, "steps batch"]]:
  """The data of the first seed's run, as the engine sees them, and its batches."""
  run, frames = group.runs[0], np.arange(plan.problem.frames)
  return ((plan.problem.shared(frames), run.fitted.own(frames)),
          batches.chunk_batches([run], plan, case.batch, 0)[0])


def _sizes(positions: Float[np.ndarray, "frames atoms 3"]) -> tuple[int, float]:
  """Atoms, and the mean number of unordered pairs within the cutoff."""
  atoms = positions.shape[1]
  first, second = np.triu_indices(atoms, k=1)
  distance = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
  return atoms, float(np.sum(distance < CUTOFF, axis=1).mean())


def build(case: Case, contender: Contender, data: str) -> Trainer:
  """Compiles for the runs of a contender, on as many devices as the command line would make."""
  del data
  runtime.configure_jax()
  together = 1 if contender.mapping == "in_turn" else contender.runs
  if contender.mapping == "vmapped":
    map_by_vmap()
  made = launch(config(case, together, case.cores if contender.mapping == "split" else 1))
  turns = contender.runs // together
  states = [made.engine.init(made.arguments) for _ in range(turns)]

  def advance(steps: int) -> None:
    for turn in range(turns):
      states[turn] = train(made, states[turn], steps)
      _require_training(states[turn])

  parameters = {
      "/".join(str(key.key) for key in path): leaf.shape[1:] for path, leaf in
      jax.tree_util.tree_leaves_with_path(states[0].variables["params"])}
  return Trainer(
      advance, functools.partial(_fit, made), _products(made, together), parameters,
      made.engine.compile_seconds,
      {name: provenance.environment()["versions"][name] for name in ("dcnn", "jax", "jaxlib")},
      jax.devices()[0].platform)


class Launch(NamedTuple):
  """Runs on their devices, which train on the batches of the first chunk over and over.

  Attributes:
    engine: The compiled functions.
    mesh: The devices.
    arguments: What the runs differ in, on the devices.
    window: The data and the batches of the first chunk, on the devices.
  """

  engine: engine.Engine
  mesh: Any
  arguments: Any
  window: engine.Window


def _plan(chosen: configs.ConfigDict) -> tuple[plans.Plan, plans.Group]:
  plan = build_plan(chosen, load(chosen))
  return plan, plans.make_groups(plan)[0]


def launch(chosen: configs.ConfigDict) -> Launch:
  """Compiles for all runs of a configuration whose arms form one group.

  Raises:
    Missing: If the runs cannot be spread evenly over the devices.
  """
  plan, group = _plan(chosen)
  runs = len(group.runs)
  mesh = engine.mesh_for(runs, plan.devices_per_run)
  spread = mesh.shape[engine.RUNS]
  if runs % spread:
    raise Missing(f"{runs} runs do not spread evenly over {spread} devices")
  layout = streaming.choose_layout(
      plan, group.program.batch_size, group.runs, seeds=len(plan.seeds),
      per_device=runs // spread, budget=math.inf)
  arguments = plans.stack(group.runs)
  built = engine.build(
      group.program, arguments, streaming.window_shapes(plan, layout, group.runs), mesh)
  feed = streaming.make_feed(plan, plans.Launch(group.runs, group.runs), layout, built,
                             streaming.resident_data(plan, layout, built))
  with contextlib.closing(feed.training(0)) as parts:
    return Launch(built, mesh, built.shard(arguments), next(parts).window)


def map_by_vmap() -> None:
  """Makes the engine vmap the runs on a CPU, too."""
  if not hasattr(engine, "_one_after_another"):
    raise Missing("the engine no longer has a mapping that could be exchanged for vmap")
  engine._one_after_another = jax.vmap


def train(launch: Launch, state: training.RunState, steps: int) -> training.RunState:
  """Takes so many steps of every run, waits for them, and returns the new states."""
  for start in range(0, steps, CHUNK):
    state = launch.engine.train(
        state, launch.arguments, launch.window, 0, min(CHUNK, steps - start))
  return jax.block_until_ready(state)


def _require_training(state: training.RunState) -> None:
  """A run that has diverged stands still, and would be timed as the fastest of all."""
  if bool(np.any(np.asarray(state.diverged_at) != training.NEVER)):
    raise RuntimeError("a run diverged, so its steps cannot be timed")


def _fit(launch: Launch, steps: int, window: int) -> float:
  """The mean training loss over the last `window` of the first `steps` steps."""
  state = train(launch, launch.engine.init(launch.arguments), steps - window)
  before = _loss_sum(state)
  return (_loss_sum(train(launch, state, window)) - before) / window


def _loss_sum(state: training.RunState) -> float:
  """The sum of the training loss of the first run since its last validation."""
  sums = {name: float(np.asarray(value)[0]) for name, value in state.sums.items()}
  return sums["energy"] + FORCE_WEIGHT * sums["forces"]


def _products(launch: Launch, runs: int):
  """Products of matrices, mapped over the runs as the training is, on the same devices."""
  @functools.cache
  def compiled(rows: int, inputs: int, outputs: int):
    def one(operands, repeats):
      x, weights = operands

      def body(_, carry):
        # The forward product, the gradient of the weights, and that of the input: each needs the
        # one before, so that none can be skipped or moved out of the loop.
        weights, _ = carry
        y = x @ weights
        gradient = x.T @ y
        return gradient, y @ gradient.T

      return jax.lax.fori_loop(0, repeats, body, (weights, jnp.zeros_like(x)))

    x = np.linalg.qr(np.random.default_rng(0).normal(size=(max(rows, inputs), min(rows, inputs))))
    x = (x.Q if rows >= inputs else x.Q.T).astype(np.float32)  # x^T x keeps the weights' size
    operands = launch.engine.shard((
        np.broadcast_to(x, (runs, *x.shape)), np.ones((runs, inputs, outputs), np.float32)))
    count = launch.engine.replicate(np.int32(0))
    program = jax.jit(engine.over_runs(one, launch.mesh)).lower(operands, count).compile()
    return lambda repeats: program(operands, launch.engine.replicate(np.int32(repeats)))

  def products(rows: int, inputs: int, outputs: int, repeats: int) -> None:
    part = -(-rows // launch.mesh.shape[engine.BATCH])  # each device of a run takes its own
    jax.block_until_ready(compiled(part, inputs, outputs)(repeats))

  return products


