"""A sweep that stops, by request or by mischance, and goes on as if it had not."""

import contextlib
import json
import math
import pathlib
import resource
import shutil
import warnings

import numpy as np
import pytest
import tiny

from dcnn import jobs, optimizers, sweeps
from dcnn.base import files
from dcnn.base.wording import options_under
from dcnn.jobs import workdirs
from dcnn.results import storage
from dcnn.sweeps import checkpoints, engine, plans, snapshots, sweep
from dcnn.tasks import forcefield


@pytest.fixture(autouse=True)
def as_on_the_command_line():
  """Messages are worded for a user of the command line."""
  with options_under("--"):
    yield


ARMS = ({}, {"activation.c": 0.25}, {"activation.c": 1e30})
OPTIONS = {"arms": ARMS, "steps": 5, "chunk": 2}
MEASURES = forcefield.measures()


@pytest.fixture(scope="module")
def built_once():
  """Engines of the same shapes are compiled once: for equal steps and patience they are equal."""
  engines, build = {}, engine.build

  def built(program, stacked, shapes, mesh):
    key = (len(stacked.key), mesh.size, str(shapes), program.patience, program.averaged,
           Steps.latest)
    if key not in engines:
      engines[key] = build(program, stacked, shapes, mesh)
    return engines[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(engine, "build", built)
    yield


class Steps:
  """Those of the latest experiment, which the learning rate follows, and its optimiser."""

  latest = 0, ""


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request):
  """Whether the data stay on the devices or come in windows of two batches."""
  return request.param


@pytest.fixture(autouse=True)
def two_launches(built_once, monkeypatch, request):
  """Four runs a launch and a visit after every step, so that there is much in between."""
  in_windows = "streamed" in request.fixturenames and request.getfixturevalue("streamed")
  tiny.let_runs_fit(monkeypatch, 2, streamed=in_windows)
  monkeypatch.setattr(sweep, "SEGMENT_SECONDS", 0.0)


def run(directory=None, on_progress=lambda progress: None, should_stop=lambda: False, **options):
  experiment = jobs.prepare(tiny.mlp(**{**OPTIONS, **options}))
  Steps.latest = experiment.config.steps, experiment.config.optimizer.name
  return jobs.run(
      experiment, on_progress, directory=directory, should_stop=should_stop).result


@pytest.fixture(scope="module")
def straight(built_once):
  return run()


def assert_same(result, expected):
  """NaN is equal to itself here."""
  for name in ("rows", "history"):
    assert repr(getattr(result, name)) == repr(getattr(expected, name))
  for name, value in expected.predictions.items():
    np.testing.assert_array_equal(result.predictions[name], value)


class Killed(BaseException):
  """What no handler catches."""


def test_with_and_without_checkpoints(straight, tmp_path, streamed):
  assert_same(run(tmp_path), straight)
  assert_same(run(tmp_path), straight)  # all read back
  assert {row.status for row in straight.rows} == {"finished", "diverged@0"}
  assert {row.cause for row in straight.rows if row.status != "finished"} == {"gradient"}


def test_stopped_at_every_visit(straight, tmp_path, streamed):
  """Each session takes one step and is asked to stop."""
  sessions = 0
  while True:
    try:
      result = run(tmp_path, should_stop=lambda: True)
      break
    except sweeps.Interrupted:
      sessions += 1
      rows, _ = snapshots.so_far(tmp_path / "checkpoints", "experiment", _keys(straight), MEASURES)
      assert len({(row.arm, row.seed) for row in rows}) == 6
  assert sessions == OPTIONS["steps"] + 1  # the launch that diverges needs one visit
  assert_same(result, straight)


def _keys(result):
  return [plans.Key(*key) for key in dict.fromkeys((row.arm, row.seed) for row in result.rows)]


def test_a_sweep_may_go_on_with_streamed_data_and_back(straight, tmp_path, monkeypatch):
  """How the data come is no part of what is saved."""
  for visit in range(5):
    with monkeypatch.context() as patch, pytest.raises(sweeps.Interrupted):
      tiny.let_runs_fit(patch, 2, streamed=visit % 2 == 0)
      run(tmp_path, should_stop=lambda: True)
  assert_same(run(tmp_path), straight)


@pytest.mark.parametrize("every, phase", [
    (1e-9, sweep.COMPILING), (1e-9, sweeps.TRAINING),
    pytest.param(1e-9, sweep.EVALUATING, marks=pytest.mark.nightly),
    pytest.param(30.0, sweeps.TRAINING, marks=pytest.mark.nightly),
    pytest.param(30.0, sweep.COMPILING, marks=pytest.mark.nightly),
    pytest.param(30.0, sweep.EVALUATING, marks=pytest.mark.nightly)],
    ids=lambda value: value if isinstance(value, str) else (
        "saved-seldom" if value > 1 else "saved-always"))
def test_killed_in_every_phase(straight, tmp_path, phase, every):
  """Again and again, and later each time."""
  for moment in range(1, 12, 3):
    told = 0

    def kill(progress, moment=moment):
      nonlocal told
      told += progress.phase == phase
      if told == moment:
        raise Killed

    with contextlib.suppress(Killed):
      run(tmp_path, kill, checkpoint_every=every)
  assert_same(run(tmp_path), straight)


def interrupted(directory, visits):
  """Leaves a sweep after so many visits, saved at each."""
  asked = iter([False] * (visits - 1) + [True])
  with pytest.raises(sweeps.Interrupted):
    run(directory, should_stop=lambda: next(asked), checkpoint_every=1e-9)


# Damage.


def damage_one_byte(folder: pathlib.Path):
  file = max((path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
  contents = bytearray(file.read_bytes())
  contents[len(contents) // 2] ^= 1
  file.write_bytes(contents)


def cut_short(folder: pathlib.Path):
  for file in folder.rglob("*"):
    if file.is_file():
      file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])


def empty(folder: pathlib.Path):
  shutil.rmtree(folder)
  folder.mkdir()


def lose_the_record(folder: pathlib.Path):
  shutil.rmtree(folder / "record")


DAMAGES = [damage_one_byte, cut_short, empty, lose_the_record]
# That each is found out is shown once; what follows from that does not depend on which it is.
TWO_DAMAGES = [pytest.param(damage, marks=pytest.mark.nightly if i % 2 else ())
               for i, damage in enumerate(DAMAGES)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_one_warning(straight, tmp_path, damage):
  interrupted(tmp_path, visits=4)
  states = sorted((tmp_path / "checkpoints" / "running").iterdir())
  assert len(states) == 2
  damage(states[-1])
  with pytest.warns(UserWarning, match="damaged checkpoint passed over") as warned:
    result = run(tmp_path)
  assert len(warned) == 1
  assert_same(result, straight)


@pytest.mark.parametrize("damage", TWO_DAMAGES)
def test_without_a_readable_checkpoint_nothing_starts_over(tmp_path, damage):
  interrupted(tmp_path, visits=4)
  for state in (tmp_path / "checkpoints" / "running").iterdir():
    damage(state)
  before = contents(tmp_path)
  with pytest.raises(ValueError, match="no checkpoint can be read.*--fresh moves") as error:
    run(tmp_path)
  assert "\n" not in str(error.value) and contents(tmp_path) == before


@pytest.mark.parametrize("damage", TWO_DAMAGES)
def test_damaged_results_are_not_trained_again_unasked(straight, tmp_path, damage):
  run(tmp_path)
  damage(tmp_path / "checkpoints" / "finished" / "0")
  before = contents(tmp_path)
  with pytest.raises(ValueError, match="finished/0: .*remove that folder to train its runs again"):
    run(tmp_path)
  assert contents(tmp_path) == before
  shutil.rmtree(tmp_path / "checkpoints" / "finished" / "0")
  assert_same(run(tmp_path), straight)


def contents(directory):
  return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_save_that_was_cut_short_is_told_of_and_swept_up(straight, tmp_path):
  interrupted(tmp_path, visits=4)
  folder = tmp_path / "checkpoints" / "running"
  torn, copied = folder / f"unfinished-7-{'0a' * 8}.orbax-checkpoint-tmp", folder / "2.before"
  for path in (torn, copied):
    shutil.copytree(folder / "2", path)
  with pytest.warns(UserWarning, match="unfinished-7.*: this save was cut short") as warned:
    result = run(tmp_path)
  assert len(warned) == 1 and not torn.exists() and copied.exists()  # what is not ours stays
  assert_same(result, straight)


@pytest.mark.parametrize("limit", [100, 3000])
def test_a_full_disk_leaves_what_was_saved(straight, tmp_path, limit):
  """As a file may not grow beyond `limit` bytes, a save fails; those before it can be read."""
  interrupted(tmp_path, visits=3)
  before = checkpoints.running(tmp_path / "checkpoints")
  full = pytest.raises(OSError, match="cannot save a checkpoint: File too large")
  with limited_files(limit), full:
    run(tmp_path, checkpoint_every=1e-9)
  after = checkpoints.running(tmp_path / "checkpoints")
  assert before is not None and after is not None and after.record["step"] >= before.record["step"]
  assert_same(run(tmp_path), straight)


@contextlib.contextmanager
def limited_files(size):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Growth.


def test_more_arms_and_seeds_reuse_what_is_finished(straight, tmp_path):
  run(tmp_path)
  trained = []
  grown = run(
      tmp_path, lambda progress: trained.append((progress.done, progress.reused)),
      arms=({"activation.c": 0.5, "activation.offset": 0.1}, *ARMS), seeds=(0, 1, 7))
  assert trained[0] == (30, 30) and trained[-1] == (60, 30)  # six runs were there, six are new
  assert [row.arm for row in grown.rows[::63]] == [
      "c=0.5,offset=0.1", "base", "c=0.25", "c=1e+30"]
  old = [row for row in grown.rows if row.seed != 7 and not row.arm.endswith("0.1")]
  assert repr(tuple(old)) == repr(straight.rows)
  fresh = run(arms=({"activation.c": 0.5, "activation.offset": 0.1}, *ARMS), seeds=(0, 1, 7))
  for a, b in zip(grown.rows, fresh.rows, strict=True):
    assert (a[:6], a[7:]) == (b[:6], b[7:])
    np.testing.assert_allclose(a.value, b.value, rtol=2e-5)


def test_a_sweep_grows_while_it_is_under_way(straight, tmp_path):
  interrupted(tmp_path, visits=3)
  grown = run(tmp_path, arms=({"activation.c": 0.1}, *ARMS))
  old = tuple(row for row in grown.rows if row.arm != "c=0.1")
  assert repr(old) == repr(straight.rows)


def test_tuning_is_continued(tmp_path):
  options = {"tuning__learning_rates": (1e-3, 1e-2), "tuning__seeds": (5, 6), "arms": ARMS[:2]}
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the grid has two rates, and one is always at its edge
    expected = run(**options)
    for visits in (3, 9, 15):
      asked = iter([False] * visits + [True] * 99)
      with contextlib.suppress(sweeps.Interrupted):
        run(tmp_path, should_stop=lambda asked=asked: next(asked), **options)
    assert_same(run(tmp_path, **options), expected)


def test_times_add_up_over_sessions(tmp_path):
  interrupted(tmp_path, visits=3)
  record = checkpoints.running(tmp_path / "checkpoints").record
  timing = run(tmp_path).config["timing"]
  assert timing["launches"] == 2 and timing["runs"] == 6
  assert timing["total_seconds"] > record["seconds"]["total_seconds"] > 0
  assert run(tmp_path).config["timing"]["train_seconds"] == timing["train_seconds"]


# Why runs end.


def test_a_policy_stops_the_sweep_that_diverges(straight, tmp_path):
  with pytest.raises(sweeps.Diverged, match=r"arm 'c=1e\+30', seed 0 and 1 more: diverged@0 "
                     r"\(not finite: gradient\).*--config.on_divergence=record"):
    run(tmp_path, on_divergence="stop")
  assert_same(run(tmp_path), straight)


@pytest.mark.nightly
def test_launches_of_failed_runs_cost_no_more_time():
  segments = []
  run(arms=({"activation.c": 1e30}, {"activation.c": 5e29}), steps=1000, chunk=10,
      on_progress=lambda progress: segments.append(progress.phase))
  assert segments.count(sweeps.TRAINING) == 1 + 3  # of 100 visits one; the start, twice the end


def test_patience_stops_the_work():
  phases = []
  result = run(arms=({},), steps=1000, chunk=2, patience=3, optimizer__learning_rate=1e-30,
               on_progress=lambda progress: phases.append(progress.phase))
  assert {row.status for row in result.rows} == {"patience@8"}
  assert {row.step for row in result.rows} == {2}
  assert phases.count(sweeps.TRAINING) == 8 + 3  # a visit a step, the start, and twice the end
  assert max(point.step for point in result.history) == 8


def test_runs_end_one_by_one():
  """A run that has ended gets no more points, and its sibling all of them."""
  result = run(arms=({}, {"activation.c": 1e30}), seeds=1, steps=6)
  points = {arm: [p.step for p in result.history if (p.arm, p.metric) == (arm, "force_loss")]
            for arm in result.arms}
  assert points == {"base": [2, 4, 6], "c=1e+30": [2]}
  assert all(math.isnan(p.value) for p in result.history if p.arm == "c=1e+30")


# What is saved.


def test_all_that_a_run_carries_is_saved(tmp_path):
  interrupted(tmp_path, visits=3)
  arrays, record = checkpoints.running(tmp_path / "checkpoints")
  parts = {name.partition(".")[0] for name in arrays["state"]}
  assert parts == {"step", "variables", "optimizer", "sums", "best", "diverged_at", "non_finite",
                   "stopped_at"}
  assert {leaf.shape[0] for leaf in arrays["state"].values()} == {4}
  assert record["step"] == 3 and record["runs"] == [
      ["base", 0], ["base", 1], ["c=0.25", 0], ["c=0.25", 1]]


@pytest.mark.nightly
def test_averages_and_patience_are_continued(tmp_path):
  """Moving average, clipping, decay, warm-up and patience, stopped after every step."""
  options = {
      "arms": ({}, {"optimizer.learning_rate": 1e-30}), "steps": 7, "chunk": 1, "patience": 2,
      "optimizer__ema_decay": 0.9, "optimizer__clip_norm": 1.0, "optimizer__weight_decay": 0.1,
      "optimizer__warmup": 2}
  expected = run(**options)
  stuck = {row.status for row in expected.rows if row.arm != "base"}
  assert stuck == {"patience@3"} and "finished" in {row.status for row in expected.rows}
  saved = []
  while True:
    try:
      result = run(tmp_path, should_stop=lambda: True, **options)
      break
    except sweeps.Interrupted:
      saved.append(checkpoints.running(tmp_path / "checkpoints").arrays["state"])
  assert len(saved) == options["steps"]
  assert_same(result, expected)
  name = "hidden_0.kernel"
  for state in saved[1:]:
    assert (state[f"average.{name}"] != state[f"variables.params.{name}"]).any()
  assert (saved[2]["average." + name] != saved[3]["average." + name]).any()
  assert [state["stopped_at"].tolist() for state in saved[1:4]] == [
      [-1, -1, -1, -1], [-1, -1, 3, 3], [-1, -1, 3, 3]]


@pytest.mark.parametrize("name", [
    name if name == "soap" else pytest.param(name, marks=pytest.mark.nightly)
    for name in optimizers.OPTIMIZERS])
def test_every_optimizer_is_continued(name, tmp_path):
  """Whatever its state holds: that of soap has arrays without elements, for biases."""
  options = {"arms": ({},), "steps": 4, "chunk": 2, "seeds": 1, "optimizer__name": name,
             "optimizer__weight_decay": 0.1 if name == "adamw" else 0.0,
             "optimizer__schedule": "constant"}
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of rates that are not what it was made for
    expected, visits = run(**options), 0
    while True:
      try:
        result = run(tmp_path, should_stop=lambda: True, **options)
        break
      except sweeps.Interrupted:
        visits += 1
  assert visits
  assert_same(result, expected)


def test_what_is_so_far(straight, tmp_path):
  interrupted(tmp_path, visits=3)
  rows, history = snapshots.so_far(
      tmp_path / "checkpoints", "experiment", _keys(straight), MEASURES)
  assert [(row.arm, row.seed, row.metric, row.step, row.status) for row in rows[:2]] == [
      ("base", 0, "energy_loss", 2, "interrupted@3"), ("base", 0, "force_loss", 2, "interrupted@3")]
  assert {(row.arm, row.status) for row in rows} == {
      ("base", "interrupted@3"), ("c=0.25", "interrupted@3"), ("c=1e+30", "interrupted@0")}
  assert repr(history) == repr(tuple(
      point for point in straight.history if point.step == 2 and point.arm != "c=1e+30"))
  interrupted(tmp_path, visits=3)  # the first launch has ended, and in the second all has failed
  rows, history = snapshots.so_far(
      tmp_path / "checkpoints", "experiment", _keys(straight), MEASURES)
  assert {(row.arm, row.status) for row in rows} == {
      ("base", "finished"), ("c=0.25", "finished"), ("c=1e+30", "diverged@0")}
  assert {point.arm for point in history} == {"base", "c=0.25", "c=1e+30"}


def test_a_launch_that_ends_while_a_report_is_drawn_is_not_lost(straight, tmp_path, monkeypatch):
  interrupted(tmp_path, visits=3)
  running = checkpoints.running

  def run_on(directory):
    found = running(directory)
    monkeypatch.setattr(checkpoints, "running", running)
    run(tmp_path)
    return found

  monkeypatch.setattr(checkpoints, "running", run_on)
  rows, _ = snapshots.so_far(tmp_path / "checkpoints", "experiment", _keys(straight), MEASURES)
  assert repr(rows) == repr(straight.rows)


# The directory.

MANIFEST = {
    "config": {"experiment": "e", "steps": 5, "arms": [{}, {"activation.c": 1.0}],
               "optimizer": {"eps": 1e-8}, "question": "", "tables": [], "dataset": "a.npz"},
    "seeds": [0, 1],
    "dataset": {"name": "a", "checksum": "0" * 64},
    "environment": {"versions": {"dcnn": "0.1.0", "jax": "0.10.1"}, "platform": "cpu"},
}


def changed(**changes):
  """The manifest with dotted keys, __ for the dot, replaced."""
  manifest = json.loads(json.dumps(MANIFEST))
  for key, value in changes.items():
    *parents, last = key.split("__")
    place = manifest
    for parent in parents:
      place = place[parent]
    place[last] = value
  return manifest


@pytest.fixture
def directory(tmp_path):
  """A work directory with results and something like a checkpoint."""
  folder = tmp_path / "sweep"
  (folder / "checkpoints" / "finished" / "0").mkdir(parents=True)
  (folder / storage.ROWS_FILE).touch()
  workdirs.begin(folder, MANIFEST)
  return folder


@pytest.mark.parametrize("changes", [
    {}, {"config__question": "Why?"}, {"config__tables": [1]}, {"config__max_memory": 3},
    {"config__checkpoint_every": 3.0}, {"config__on_divergence": "stop"}, {"seeds": [7, 1, 0]},
    {"config__arms": [{"x": 1}, {"activation.c": 1.0}, {}]}, {"config__dataset": "b.npz"},
], ids=["nothing", "question", "tables", "memory", "saves", "policy", "seeds", "arms", "path"])
def test_what_may_change(directory, changes):
  workdirs.check(directory, changed(**changes))


@pytest.mark.parametrize("changes, words", [
    ({"config__steps": 6}, "holds work of config.steps=5, and 6 is asked for: learning rates"),
    ({"config__optimizer": {"eps": 1e-7}}, "of config.optimizer.eps=1e-08, and 1e-07 is asked"),
    ({"config__new": 1}, "of config.new=null, and 1 is asked"),
    ({"config__arms": [{}]}, r'on the arm {"activation.c": 1.0}, which is not asked for'),
    ({"config__arms": [{}, {"activation.c": 2.0}]}, "on the arm .* which is not asked for"),
    ({"seeds": [1]}, r"on the seeds \[0\], which are not asked for"),
    ({"dataset": {"name": "b", "checksum": "1" * 64}}, "on a with SHA-256 000.* now b with 111"),
    ({"environment__versions__jax": "0.11"}, "of jax 0.10.1, and this is jax 0.11"),
    ({"environment__versions__dcnn": "2"}, "of dcnn 0.1.0, and this is dcnn 2"),
], ids=["steps", "nested", "new", "fewer-arms", "arm", "fewer-seeds", "data", "jax", "dcnn"])
def test_what_may_not_change(directory, changes, words):
  before = contents(directory)
  with pytest.raises(ValueError, match=f"{words}.*--fresh.*more arms, more seeds") as error:
    workdirs.check(directory, changed(**changes))
  assert "\n" not in str(error.value) and contents(directory) == before


def test_another_device_is_told_of(directory):
  workdirs.begin(directory, changed(environment__device="H100"))
  with pytest.warns(UserWarning, match="begun with device 'H100', and this is 'H200'"):
    workdirs.check(directory, changed(environment__device="H200"))


SURROUNDINGS = {
    "platform": "cpu", "devices": 2, "float64": False, "matmul_precision": "highest",
    "loop_threads": 1, "processes": 1, "cores": 2, "settings": {"jax_default_prng_impl": "rbg"},
    "variables": {"XLA_FLAGS": "--a=1 --b=2"}}


@pytest.mark.parametrize("name, value, words", [
    ("platform", "gpu", 'platform "cpu", and this is with platform "gpu": set JAX_PLATFORMS=cpu'),
    ("devices", 1, "with 2 devices, and this is with 1 devices: set JAX_NUM_CPU_DEVICES=2"),
    ("float64", True, "float64 false, and this is with float64 true: unset JAX_ENABLE_X64"),
    ("matmul_precision", "default", "set JAX_DEFAULT_MATMUL_PRECISION=highest"),
    ("loop_threads", 16, "give it as many devices as cores"),
    ("settings", {"jax_default_prng_impl": "threefry2x32"},
     'JAX_DEFAULT_PRNG_IMPL at "rbg", .* set JAX_DEFAULT_PRNG_IMPL=rbg'),
    ("variables", {}, "XLA_FLAGS not set: set XLA_FLAGS='--a=1 --b=2'"),
    ("variables", {**SURROUNDINGS["variables"], "NVIDIA_TF32_OVERRIDE": "0"},
     "NVIDIA_TF32_OVERRIDE not set, .*: unset NVIDIA_TF32_OVERRIDE"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_other_surroundings_are_refused(directory, name, value, words):
  """With the difference and the way back."""
  held = changed(environment={**MANIFEST["environment"], **SURROUNDINGS})
  workdirs.begin(directory, held)
  workdirs.check(directory, held)
  asked = json.loads(json.dumps(held))
  asked["environment"][name] = value
  with pytest.raises(ValueError, match=f"{words}.*--fresh") as error:
    workdirs.check(directory, asked)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name, value", [("processes", 4), ("cores", 64)])
def test_surroundings_that_decide_no_number(directory, name, value):
  held = changed(environment={**MANIFEST["environment"], **SURROUNDINGS})
  workdirs.begin(directory, held)
  workdirs.check(directory, {**held, "environment": {**held["environment"], name: value}})


def test_results_without_checkpoints_are_not_continued(directory):
  shutil.rmtree(directory / "checkpoints")
  with pytest.raises(ValueError, match="results and no checkpoints.*--fresh"):
    workdirs.check(directory, MANIFEST)


@pytest.mark.parametrize("content", [
    "", "{", "[]", "{}", "3", "[" * 100_000, {**MANIFEST, "config": []}, {**MANIFEST, "config": {}},
    {**MANIFEST, "seeds": 3}, {**MANIFEST, "environment": None},
    {**MANIFEST, "config": {**MANIFEST["config"], "arms": 3}},
    {**MANIFEST, "config": {**MANIFEST["config"], "tables": 3}}],
    ids=["empty", "cut", "list", "nothing", "number", "deep", "config-list", "no-arms", "seeds",
         "environment", "arms", "tables"])
def test_foreign_config(directory, content):
  text = content if isinstance(content, str) else json.dumps(content)
  (directory / storage.CONFIG_FILE).write_text(text)
  for use in (lambda: workdirs.check(directory, MANIFEST), lambda: workdirs.so_far(directory)):
    with pytest.raises(ValueError, match="config.json is not what dcnn wrote there") as error:
      use()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_directory_without_work_may_be_for_anything(tmp_path):
  workdirs.begin(tmp_path, MANIFEST)
  workdirs.check(tmp_path, changed(config__steps=9))


def test_one_process_at_a_time(directory):
  with workdirs.claim(directory):
    with pytest.raises(ValueError, match=r"is in use by process \d+ on .*choose another --workdir"):
      with workdirs.claim(directory):
        pass
  with workdirs.claim(directory):  # given up, and the holder's note is still there
    assert (directory / workdirs.LOCK).exists()


def test_a_claim_on_nothing_leaves_nothing(tmp_path):
  with workdirs.claim(tmp_path / "new"):
    workdirs.begin(tmp_path / "new", MANIFEST)
  assert not (tmp_path / "new").exists()


def test_unfinished_files_are_swept_up(directory):
  (directory / "figures").mkdir()
  token, end = "0a" * 8, files.UNFINISHED
  ours = [directory / f".results.csv.{token}{end}", directory / f".report.md.{token}{end}",
          directory / "figures" / f".errors.svg.{token}{end}"]
  others = [directory / f".notes{end}", directory / f".results.csv.12{end}",
            directory / f".notes.{token}{end}", directory / "figures" / f".mine.svg{end}"]
  for path in (*ours, *others):
    path.touch()
  workdirs.begin(directory, MANIFEST)
  assert not any(path.exists() for path in ours) and all(path.exists() for path in others)


@pytest.mark.parametrize("name", workdirs.FILES + ("figures", "checkpoints", "tuning"))
def test_what_others_keep_under_our_names_is_not_replaced(tmp_path, name):
  mine = tmp_path / name
  if "." in name:
    mine.write_text("mine")
  else:
    mine.mkdir()
    (mine / "photo.jpg").touch()
  before = contents(tmp_path)
  with pytest.raises(ValueError, match="is not what dcnn wrote there"):
    with workdirs.hold(tmp_path, MANIFEST):
      pass
  assert contents(tmp_path).keys() - {tmp_path / workdirs.LOCK} == before.keys() and (
      contents(tmp_path).items() >= before.items())


@pytest.mark.parametrize("content", ["mine", "[1]", '{"a": 1}'], ids=["text", "list", "other"])
def test_a_lock_of_others_is_not_replaced(tmp_path, content):
  (tmp_path / workdirs.LOCK).write_text(content)
  with pytest.raises(ValueError, match="is not what dcnn wrote there"), workdirs.claim(tmp_path):
    pass
  assert (tmp_path / workdirs.LOCK).read_text() == content


def test_a_claim_leaves_no_lock_where_nothing_was_begun(tmp_path):
  (tmp_path / "notes.txt").touch()
  with workdirs.claim(tmp_path):
    pass
  assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_files_of_others_in_a_new_directory_stay(tmp_path):
  with workdirs.claim(tmp_path / "new"):
    workdirs.begin(tmp_path / "new", MANIFEST)
    (tmp_path / "new" / "checkpoints" / "photos").mkdir(parents=True)
    (tmp_path / "new" / "notes.txt").touch()
  assert (tmp_path / "new" / "notes.txt").exists()
  assert (tmp_path / "new" / "checkpoints" / "photos").exists()


def test_the_current_directory_is_not_moved_aside(directory, monkeypatch):
  (directory / "below").mkdir()
  for here, name in ((directory, "."), (directory / "below", ".."), (directory, directory)):
    monkeypatch.chdir(here)
    with pytest.raises(ValueError, match="cannot be moved aside"):
      workdirs.move_aside(pathlib.Path(name))


def test_moving_aside_deletes_nothing(directory):
  before = {path.relative_to(directory) for path in directory.rglob("*")}
  aside = workdirs.move_aside(directory)
  assert aside.name == "sweep.1" and not directory.exists()
  assert before <= {path.relative_to(aside) for path in aside.rglob("*")}
  directory.mkdir()
  assert workdirs.move_aside(directory).name == "sweep.2"
  directory.mkdir()
  with workdirs.claim(directory), pytest.raises(ValueError, match="in use"):
    workdirs.move_aside(directory)
