"""How many runs train together: as many as fit, and no program that cannot is compiled."""

import math

import pytest
import tiny

from dcnn import configs, jobs
from dcnn.configs import build
from dcnn.sweeps import engine, memory, plans, streaming

ARMS = ({}, {"activation.c": 0.25}, {"activation.c": 0.75}, {"activation.c": 1.0},
        {"activation.c": 2.0})


@pytest.fixture
def compiled(monkeypatch):
  """The numbers of runs that were compiled for."""
  numbers, build = [], engine.build

  def counted(program, runs, windows, mesh):
    numbers.append(len(runs.key))
    return build(program, runs, windows, mesh)

  monkeypatch.setattr(engine, "build", counted)
  return numbers


def compile_runs(**options):
  config = tiny.mlp(arms=ARMS, split__test=5, **options)
  plan = build.build(config, build.load(config))
  group, = plans.make_groups(plan)
  return memory.compile_group(plan, group.program, group.runs)


@pytest.mark.two_devices
def test_all_runs_at_once_take_one_compilation(compiled):
  placement = compile_runs().placement
  assert compiled == [10] and (placement.runs, placement.launches, placement.devices) == (10, 1, 2)
  assert placement.bytes_needed == pytest.approx(
      placement.bytes_of_data + 5 * placement.bytes_per_run)
  assert placement.bytes_needed <= placement.bytes_allowed and not placement.streamed


@pytest.mark.two_devices
def test_what_one_compilation_tells_makes_the_second_fit(compiled, monkeypatch):
  """Memory for three or four of the five runs of a device: two launches get three."""
  monkeypatch.setattr(streaming, "DATA_SHARE", math.inf)
  budget = compile_runs().placement.bytes_needed - 1.5 * state_bytes()
  compiled.clear()
  placement = compile_runs(max_memory=budget / 1e9).placement
  assert placement.bytes_needed <= budget
  assert (placement.runs, placement.launches) == (6, 2) and compiled == [10, 6]


@pytest.mark.two_devices
def test_what_runs_carry_is_known_without_compiling(compiled, monkeypatch):
  """Memory for what three of five runs carry, and ample working memory."""
  monkeypatch.setattr(streaming, "DATA_SHARE", math.inf)
  monkeypatch.setattr(engine, "state_bytes", lambda *_: 10_000_000)
  placement = compile_runs(max_memory=0.039).placement
  assert (placement.runs, placement.launches) == (6, 2) and compiled == [6]


def state_bytes():
  config = tiny.mlp(arms=ARMS)
  group, = plans.make_groups(build.build(config, build.load(config)))
  return engine.state_bytes(group.program, plans.stack(group.runs))


@pytest.mark.two_devices
@pytest.mark.parametrize("fitting_runs, runs, launches", [
    (5, 10, 1), (4, 6, 2), (3, 6, 2), (2, 4, 3), (1, 2, 5)])
def test_launches_are_of_equal_size(monkeypatch, fitting_runs, runs, launches):
  monkeypatch.setattr(engine, "build", lambda *arguments: tiny.HOST)
  tiny.let_runs_fit(monkeypatch, fitting_runs)
  placement = compile_runs().placement
  assert (placement.runs, placement.launches) == (runs, launches)


def test_what_cannot_fit_is_refused_with_the_numbers_and_uncompiled(compiled):
  with pytest.raises(ValueError, match=(
      r"one run needs 0\.0\d\d MB on a device, 0\.0\d\d MB of it for the smallest part of the data "
      r"that can be streamed, and 0\.000 MB are allowed: take a smaller batch or network, or raise "
      "max_memory")):
    compile_runs(max_memory=1e-9)
  assert not compiled


def test_data_that_leave_no_room_are_streamed():
  """Half a megabyte of data, and as much memory: they would fit alone, and nothing beside them."""
  placement = compile_runs(max_memory=0.0006).placement
  assert placement.streamed and placement.bytes_of_data <= 0.5 * placement.bytes_allowed


@pytest.mark.two_devices
@pytest.mark.parametrize("devices, message", [
    (3, "batch_size 4 cannot be split over devices_per_run=3: take batch_size=3, or a "
        "devices_per_run that divides 4"),
    (8, "batch_size 4 cannot be split over devices_per_run=8: take batch_size=8"),
    (4, "devices_per_run=4 does not divide the 2 devices that JAX finds: take one of 1, 2"),
    (0, "devices_per_run must be a whole number above 0, got 0")])
def test_devices_that_cannot_be_divided(devices, message):
  with pytest.raises(ValueError, match=message):
    jobs.prepare(tiny.mlp(devices_per_run=devices))


def test_every_arm_must_divide_its_batch():
  with pytest.raises(ValueError, match="arm 'batch_size=5': batch_size 5 cannot be split"):
    configs.validate(tiny.mlp(devices_per_run=2, arms=({}, {"batch_size": 5})))
