"""The benchmark works, counts what it says, and compares networks that are the same."""

import json
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from dcnn import activations, models
from dcnn.base import System
from experiments.benchmarks import (
  breakdown,
  cases,
  kernels,
  measuring,
  networks,
  operations,
  tables,
)

ROOT = pathlib.Path(__file__).parents[1]
SIZES = dict(features=8, blocks=2, radial=6)
ATOMS = 5
PAIRS = ATOMS * (ATOMS - 1) // 2
PRODUCTS = ("dot_general", "rows_times_matrix")  # JAX's, and that of dcnn.models.primitives
NETWORK = operations.layers(atoms=ATOMS, pairs=PAIRS, **SIZES)


def product_operations(jaxpr) -> int:
  """2 m k n of every product of two matrices in a program, by walking through it."""
  total = 0
  for equation in jaxpr.eqns:
    shapes = [variable.aval.shape for variable in (*equation.invars, *equation.outvars)]
    if equation.primitive.name in PRODUCTS and all(len(shape) == 2 for shape in shapes):
      total += 2 * math.isqrt(math.prod(math.prod(shape) for shape in shapes))
    for inner in jaxprs_in_params(equation.params):
      total += product_operations(inner)
  return total


def plain_schnet(parameters, positions):
  """SchNet's products and what makes them depend on one another, in as few lines as it takes."""
  first, second = np.triu_indices(ATOMS, k=1)
  distance = jnp.linalg.norm(positions[first] - positions[second], axis=-1)
  basis = jnp.exp(-jnp.square(distance[:, None] - jnp.arange(SIZES["radial"])))
  atoms = parameters["embedding"]
  for block in parameters["blocks"]:
    filters = jnp.tanh(basis @ block["filter_hidden"]) @ block["filter"]
    square = jnp.zeros((ATOMS, ATOMS, filters.shape[1]))
    square = square.at[first, second].set(filters).at[second, first].set(filters)
    received = jnp.sum(square * (atoms @ block["send"])[None], axis=1)
    atoms += jnp.tanh(received @ block["receive"]) @ block["update"]
  return jnp.sum(jnp.tanh(atoms @ parameters["hidden"]) @ parameters["output"])


def plain_parameters():
  features, radial = SIZES["features"], SIZES["radial"]
  square = jnp.ones((features, features))
  block = dict(filter_hidden=jnp.ones((radial, features)), filter=square, send=square,
               receive=square, update=square)
  return dict(
      embedding=jnp.ones((ATOMS, features)), blocks=[block] * SIZES["blocks"],
      hidden=jnp.ones((features, features // 2)), output=jnp.ones((features // 2, 1)))


def plain_loss(parameters, positions):
  energy, gradient = jax.value_and_grad(plain_schnet, argnums=1)(parameters, positions)
  return jnp.abs(energy) + jnp.sum(jnp.abs(gradient))


@pytest.mark.parametrize(("function", "count"), [
    (plain_schnet, operations.energy),
    (jax.value_and_grad(plain_schnet, argnums=1), operations.forces),
    (jax.grad(plain_schnet), operations.energy_training),
    (jax.grad(plain_loss), operations.force_training),
], ids=["energy", "forces", "energy-training", "force-training"])
def test_counts_by_hand_are_those_of_the_program(function, count):
  positions = jnp.asarray(np.random.default_rng(0).normal(size=(ATOMS, 3)))
  program = jax.make_jaxpr(function)(plain_parameters(), positions)
  assert product_operations(program.jaxpr) == count(NETWORK)


@pytest.mark.nightly
def test_our_network_takes_no_more_products_than_the_formula():
  model = models.SchNet(activation=activations.irelu, **SIZES)
  system = System(jnp.eye(ATOMS, 3), jnp.ones(ATOMS, jnp.int32))
  variables = model.init(jax.random.key(0), system)
  program = jax.make_jaxpr(model.apply)(variables, system)
  assert product_operations(program.jaxpr) == operations.energy(NETWORK)


def test_attainable_rate_is_a_mean_weighted_by_time():
  equal = [1e-9] * len(NETWORK)
  assert operations.attainable_rate(NETWORK, equal) == pytest.approx(1e9)
  slower = [2e-9, *equal[1:]]
  assert 0.5e9 < operations.attainable_rate(NETWORK, slower) < 1e9


def test_parameter_count_is_that_of_our_network():
  model = models.SchNet(activation=activations.irelu, **SIZES)
  system = System(jnp.eye(ATOMS, 3), jnp.ones(ATOMS, jnp.int32))
  params = model.init(jax.random.key(0), system)["params"]
  elements = params["embedding"]["embedding"].shape[0]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == tables.parameter_count(
      elements=elements, **SIZES)


def test_ratios_are_taken_within_a_round():
  def row(contender, module, times):
    return dict(
        contender=contender, module=module, runs=1, mapping="engine", features=8, batch=4,
        atoms=9, cores=1,
        samples=[dict(ms_per_step_and_run=ms, cpu_ms_per_step_and_run=ms) for ms in times])

  found, = tables.ratios([row("ours", "ours", (1.0, 3.0, 2.0)), row("pyg", "pyg", (4, 12, 16))])
  assert found["ratio"] == [0.25, 0.125, 0.25]


def test_networks_are_told_by_the_first_and_by_the_others_programs():
  def row(case, contender, times):
    return {**case._asdict(), "contender": contender, "weights": 7, "compile_seconds": None,
            "ms": times, "cpu_ms": times}

  schnet, painn = cases.networks()[:2]
  lines = networks.table([
      row(schnet, "ours", [1.0, 2.0, 3.0]), row(painn, "schnetpack", [8.0, 8.0, 12.0]),
      row(painn, "ours", [2.0, 4.0, 3.0])]).splitlines()[2:]
  cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
  assert [line[-2:] for line in cells] == [
      ["1.00 (1.00 to 1.00)", ""], ["4.00 (4.00 to 8.00)", "0.25 (0.25 to 0.50)"],
      ["2.00 (1.00 to 2.00)", ""]]


@pytest.mark.nightly
def test_networks_are_timed(tmp_path):
  small = {"features": 4, "batch": 2, "blocks": 1, "radial": 4}
  rows, problems = networks.measure(
      [cases.Case(**small), *(cases.Case(**small, network=name) for name in ("PaiNN", "GridACE"))],
      measuring.QUICK, tmp_path)
  assert {row["network"] for row in rows if row["contender"] == "ours"} == {
      "SchNet", "PaiNN", "GridACE"}
  assert all("left out" in problem for problem in problems)
  assert all(ms > 0 for row in rows for ms in row["ms"] + row["cpu_ms"])


def test_every_contender_of_the_usual_cases_is_timed_beside_the_others():
  plans = cases.default_plans([1, 2])
  assert {plan.case.cores for plan in plans} == {1, 2}
  for plan in plans:
    listed = cases.contenders(plan)
    assert len(set(listed)) == len(listed)
    assert {each.module for each in listed} == {"ours", "pyg", "schnetpack"}
    assert {each.threads for each in listed if each.module == "pyg"} == set(
        range(1, plan.case.cores + 1))
    splits = plan.case.cores > 1 and plan.case.batch % plan.case.cores == 0
    assert splits == any(each.mapping == "split" for each in listed)


def test_wrong_flags_are_refused():
  for flag, said in (("--runs=none", "whole numbers"), ("--cores=4096", "may use")):
    told = command(flag)
    assert told.returncode != 0
    assert said in told.stdout + told.stderr


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
  out = tmp_path_factory.mktemp("benchmarks") / "quick.json"
  told = command("--quick", f"--out={out}")
  assert told.returncode == 0, told.stderr
  print(told.stdout)
  return json.loads(out.read_text())


@pytest.mark.nightly
@pytest.mark.parametrize("module", ["ours", "pyg", "schnetpack"])
def test_quick_form_works_and_prints_its_figures(quick, module):
  rows = {row["module"]: row for row in quick["rows"]}
  if module not in rows:
    reason, = (line for line in quick["problems"] if line.startswith(module))
    pytest.skip(reason)
  row = rows[module]
  assert len(row["samples"]) == quick["effort"]["rounds"]
  for name in ("steps_per_second", "configurations_per_second", "ms_per_step_and_run",
               "peak_memory_bytes", "achieved_gflops", "attainable_gflops",
               "achieved_of_attainable", "fit_loss"):
    assert 0 < row[name] < math.inf, name
  assert (row["compile_seconds_cold"] is None) == (module != "ours")
  assert "NOT" not in "".join(quick["checks"])
  assert quick["environment"]["git"] and quick["environment"]["date"]


@pytest.mark.nightly
def test_breakdown_works():
  case = cases.quick_plans()[0].case
  _, found = breakdown.measure(case, rounds=2, burst=0.01)
  print(breakdown.table(found))
  assert found[breakdown.ENERGY_STEP]["ratio"] == 1.0
  assert all(part["ms"] > 0 and part["operations"] > 0 for part in found.values())


def test_pyg_computes_our_function_but_for_the_cutoff(x64):
  """With our weights, and its cosine cutoff squared as ours is, the energies are the same."""
  del x64
  torch = pytest.importorskip("torch", reason="the extra `bench` is not installed")
  pytest.importorskip("torch_geometric", reason="the extra `bench` is not installed")
  from experiments.benchmarks.contenders import pyg

  case = cases.Case(features=8, blocks=2, radial=6)
  rng = np.random.default_rng(0)
  system = System(2.0 * rng.normal(size=(ATOMS, 3)), np.array([6, 1, 8, 1, 7]))
  ours = models.SchNet(activation=activations.irelu, **SIZES)
  variables = jax.tree.map(jnp.float64, ours.init(jax.random.key(0), system))
  distance = np.linalg.norm(system.positions[:, None] - system.positions, axis=-1)
  edges = np.stack(np.nonzero((distance < cases.CUTOFF) & ~np.eye(ATOMS, dtype=bool)))
  lengths = torch.as_tensor(distance[tuple(edges)])
  theirs = pyg.make_model(case, lambda *_: (torch.as_tensor(edges), lengths)).double()
  with_our_weights(theirs, variables["params"], torch)
  cutoff = 0.5 * (torch.cos(lengths * math.pi / cases.CUTOFF) + 1)[:, None]
  for block in theirs.interactions:
    block.conv.nn.register_forward_hook(lambda module, inputs, output: output * cutoff)

  energy = theirs(torch.as_tensor(system.species), torch.as_tensor(system.positions)).item()
  assert energy == pytest.approx(float(ours.apply(variables, system)), rel=1e-5)


LOOPED = """\
%inner (a: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  ROOT %twice = f32[2]{0} add(%a, %a)
}

%body (state: (s32[], f32[2])) -> (s32[], f32[2]) {
  %state = (s32[], f32[2]{0}) parameter(0)
  %x = f32[2]{0} get-tuple-element(%state), index=1
  %fusion.1 = f32[2]{0} fusion(%x), kind=kLoop, calls=%inner
  %call.1 = f32[2]{0} call(%fusion.1), to_apply=%inner
  %product = (f32[2]{0}, s8[4]{0}) custom-call(%call.1), custom_call_target="__cublas$gemm"
  ROOT %tuple = (s32[], f32[2]{0}) tuple(%x, %product)
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  %before = f32[2]{0} copy(%x)
  %loop = (s32[], f32[2]{0}) while(%before), condition=%condition, body=%body
  ROOT %last = f32[2]{0} get-tuple-element(%loop), index=1
}
"""


def test_launches_of_a_loop_are_counted_through_its_calls():
  """A fusion, what is called, and a product; what moves no data launches nothing."""
  assert kernels.launches_per_turn(LOOPED) == 3
  assert kernels.launches_per_turn(LOOPED.replace(" while(", " call(")) == 0


def accelerator(tmp_path, *options):
  told = subprocess.run(
      [sys.executable, "-m", "experiments.benchmarks.accelerator", "--quick", "--vmapped",
       f"--out={tmp_path}", *options], cwd=ROOT, capture_output=True, text=True)
  assert told.returncode == 0, told.stderr
  print(told.stdout)
  return json.loads((tmp_path / "accelerator.json").read_text())


def test_accelerator_measures_and_a_measurement_that_hangs_loses_nothing_before_it(tmp_path):
  figures = accelerator(tmp_path, "--only=device,runs", "--limit=runs=0.01")
  assert figures["device"]["ended"] == "ended"
  assert figures["device"]["float32 TFLOP/s"] > 0
  assert figures["runs"]["ended"].startswith("stopped")


@pytest.mark.nightly
def test_accelerator_in_full(tmp_path):
  figures = accelerator(
      tmp_path, "--seconds=3600", "--limit=tests=600", "--limit=networks=600")
  for name, found in figures.items():
    assert found["ended"] == "ended", (name, found["log"])
  for name in ("runs", "larger", "networks", "compiling", "knobs"):
    rows = [each for each in figures[name].values() if isinstance(each, dict)]
    assert rows and all(0 < row["ms_per_step"] < math.inf for row in rows), name
  assert figures["smoke"]["errors"]["c=0.5"]["largest"] < 1e-5
  assert figures["precision"]["against float64"]["float32"]["forces"] < 1e-4


def with_our_weights(model, params, torch):
  def copy(layer, kernel, bias=None):
    layer.weight.data = torch.as_tensor(np.array(kernel).T)
    if bias is not None:
      layer.bias.data = torch.as_tensor(np.array(bias))

  model.embedding.weight.data = torch.as_tensor(np.array(params["embedding"]["embedding"]))
  features = SIZES["features"]
  for number, block in enumerate(model.interactions):
    part = slice(number * features, (number + 1) * features)
    hidden = params["filter_hidden"]
    copy(block.mlp[0], hidden["kernel"][:, part], hidden["bias"][part])
    copy(block.mlp[2], **params[f"filter_{number}"])
    copy(block.conv.lin1, **params[f"send_{number}"])
    copy(block.conv.lin2, **params[f"receive_{number}"])
    copy(block.lin, **params[f"update_{number}"])
  copy(model.lin1, **params["output_hidden"])
  copy(model.lin2, **params["output"])


def command(*flags):
  return subprocess.run(
      [sys.executable, "-m", "experiments.benchmarks", *flags], cwd=ROOT, capture_output=True,
      text=True)


@pytest.mark.nightly
def test_what_the_use_of_a_network_costs(tmp_path):
  told = subprocess.run(
      [sys.executable, "-m", "experiments.benchmarks.uses", f"--out={tmp_path / 'uses.json'}",
       "--steps=50", "--dynamics=20", "--frames=300"], cwd=ROOT, capture_output=True, text=True)
  assert told.returncode == 0, told.stderr
  found = json.loads((tmp_path / "uses.json").read_text())
  assert found["steps of dynamics a minute"] > 0 and found["configurations predicted"] == 300
  assert np.isfinite(found["drift of the energy, meV/atom/ps"])
