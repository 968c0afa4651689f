"""Experiment trackers: what they are told while a sweep trains, and from its files afterwards."""

import csv
import importlib.util
import json
import math
import pathlib
import re
import struct
import threading
import time
import warnings

import numpy as np
import pytest
from commands import TINY, assert_mistake, call

from dcnn import jobs, sweeps
from dcnn.base import wording
from dcnn.cli import arguments
from dcnn.jobs import trackers, tracking, workdirs
from dcnn.jobs.trackers import event_files
from dcnn.results import storage

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
from tensorboardX.crc32c import crc32c  # noqa: E402
from tensorboardX.proto import plugin_hparams_pb2  # noqa: E402

EXPERIMENT = TINY.replace("  return config", """  config.arms = (
      {"activation.c": 0.5, "labels": "standardize"}, {"optimizer.learning_rate": 1e30})
  return config""")
ARM, DIVERGED = "c=0.5,standardize", "learning_rate=1e+30"
SAME = ("results.csv", "history.csv", "summary.json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """The same sweep of two arms, of which one diverges, without and with a tracker."""
  folder = tmp_path_factory.mktemp("trackers")
  (folder / "tiny.py").write_text(EXPERIMENT)
  with pytest.MonkeyPatch.context() as patch:
    capture = Captured()
    for name, *flags in (("without",), ("with", "--log=tensorboard")):
      status, output, _ = call(patch, capture, f"--config={folder / 'tiny.py'}",
                               f"--workdir={folder / name}", *flags)
      assert status == 0, output
  return folder


class Captured:
  """`capsys` of a fixture that outlives a test."""

  def readouterr(self):
    return "", ""


@pytest.fixture
def workdir(trained, tmp_path):
  """A finished work directory of its own that no tracker has seen."""
  return copied(trained / "without", tmp_path / "copied")


def copied(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
  for path in source.rglob("*"):
    if path.is_file() and path.name != ".lock":
      (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
      (target / path.relative_to(source)).write_bytes(path.read_bytes())
  return target


# Reading back.


def history(directory: pathlib.Path, round_to=float) -> dict:
  """history.csv by arm, seed, step and `split/metric`."""
  with (directory / "history.csv").open() as file:
    return {(line["arm"], int(line["seed"]), int(line["step"]),
             f"{line['split']}/{line['metric']}"): round_to(float(line["value"]))
            for line in csv.DictReader(file)}


def test_errors(directory: pathlib.Path, round_to=float) -> dict:
  """The test errors of results.csv in the same form."""
  return {(row.arm, row.seed, row.step, f"test/{row.metric}"): round_to(row.value)
          for row in storage.load(directory).rows if row.split == "test"}


test_errors.__test__ = False


def events(path: pathlib.Path) -> list:
  """The events of a file, whose checksums are right."""
  content, found = path.read_bytes(), []
  while content:
    (length,) = struct.unpack("<Q", content[:8])
    for part, sum_at in ((content[:8], 8), (content[12:12 + length], 12 + length)):
      crc = crc32c(part)
      masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
      assert struct.unpack("<I", content[sum_at:sum_at + 4]) == (masked,)
    found.append(event_pb2.Event.FromString(content[12:12 + length]))
    content = content[16 + length:]
  return found


def scalars(directory: pathlib.Path) -> tuple[dict, int]:
  """What TensorBoard is shown, in the form of `history`, and how many points these were."""
  found = [((path.parts[-3], int(path.parts[-2].removeprefix("seed=")), event.step, value.tag),
            value.simple_value)
           for path in (directory / "tensorboard").glob("*/*/*")
           for event in events(path) for value in event.summary.value
           if not value.tag.startswith("_")]
  return dict(found), len(found)


def assert_same(found: dict, expected: dict) -> None:
  assert found.keys() == expected.keys() and found
  for key, value in expected.items():
    assert found[key] == value or math.isnan(value) and math.isnan(found[key]), key


def assert_told(directory: pathlib.Path) -> None:
  """TensorBoard has history.csv and the test errors, each point once."""
  found, number = scalars(directory)
  assert_same(found, history(directory, np.float32) | test_errors(directory, np.float32))
  assert number == len(found)


def hyperparameters(path: pathlib.Path) -> list:
  return [plugin_hparams_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
          for event in events(path) for value in event.summary.value
          if value.tag.startswith("_hparams_")]


# TensorBoard.


def test_event_files_hold_the_history(trained):
  assert_told(trained / "with")
  diverged = [value for key, value in history(trained / "with").items() if key[0] == DIVERGED]
  assert any(map(math.isnan, diverged))
  (path,) = (trained / "with" / "tensorboard" / ARM / "seed=0").iterdir()
  start, end = hyperparameters(path)
  assert start.session_start_info.group_name == ARM
  assert start.session_start_info.hparams["optimizer.learning_rate"].number_value == 1e-3
  assert start.session_start_info.hparams["labels"].string_value == "standardize"
  (path,) = (trained / "with" / "tensorboard" / DIVERGED / "seed=0").iterdir()
  assert end.session_end_info.status != hyperparameters(path)[1].session_end_info.status


def test_results_do_not_depend_on_it(trained):
  for name in SAME:
    assert (trained / "with" / name).read_bytes() == (trained / "without" / name).read_bytes()
  names = [{path.name for path in (trained / name).iterdir()} for name in ("with", "without")]
  assert names[0] - names[1] == {"tensorboard", "trackers.json"}


def test_the_command_tells_the_same_twice(workdir, monkeypatch, capsys):
  status, output, errors = call(monkeypatch, capsys, "log", workdir, "--to=tensorboard")
  assert (status, errors) == (0, "")
  assert output == f"tensorboard: 2 runs in {workdir / 'tensorboard'}\n"
  assert_told(workdir)
  foreign = workdir / "tensorboard" / ARM / "seed=0" / "events.out.tfevents.1.mine"
  foreign.write_bytes(b"")
  assert call(monkeypatch, capsys, "log", workdir, "--to=tensorboard")[0] == 0
  assert foreign.exists()
  foreign.unlink()
  assert_told(workdir)
  assert call(monkeypatch, capsys, "report", workdir)[0] == 0


def test_more_seeds_are_added(trained, tmp_path, monkeypatch, capsys):
  workdir = copied(trained / "with", tmp_path / "more")
  before = {path: path.read_bytes() for path in (workdir / "tensorboard").glob("*/*/*")}
  status, _, errors = call(
      monkeypatch, capsys, f"--config={trained / 'tiny.py'}", f"--workdir={workdir}",
      "--log=tensorboard", "--config.seeds=2")
  assert status == 0, errors
  assert {path: path.read_bytes() for path in before} == before  # these were complete
  assert_told(workdir)


def test_an_interrupted_sweep_is_continued(trained, tmp_path):
  experiment = jobs.prepare(arguments.load_config(str(trained / "tiny.py")))
  manifest = jobs.describe(experiment)

  def session(should_stop):
    with (workdirs.hold(tmp_path / "w", manifest),
          tracking.tracked(("tensorboard",), tmp_path / "w", manifest) as on_results):
      workdirs.begin(tmp_path / "w", manifest)
      return jobs.run(experiment, manifest=manifest, directory=tmp_path / "w",
                      should_stop=should_stop, on_results=on_results)

  visits = iter(range(100))
  with pytest.raises(sweeps.Interrupted):
    session(lambda: next(visits) >= 1)
  steps = {key[2] for key in scalars(tmp_path / "w")[0]}
  assert steps == {2}
  storage.save(workdirs.so_far(tmp_path / "w"), tmp_path / "w")
  assert_same(scalars(tmp_path / "w")[0], history(tmp_path / "w", np.float32))
  finished = session(lambda: False)
  storage.save(finished.result, tmp_path / "w")
  assert_told(tmp_path / "w")


@pytest.mark.parametrize("arm, folder", [
    (ARM, ARM), ("base", "base"), ("a/b", "a%2Fb"), ("..", "%2E%2E"), (".hidden", "%2Ehidden"),
    ("power_of_ten(exponent=6)", "power_of_ten(exponent=6)"), ("é\n", "%C3%A9%0A"),
    ("c=1e+30", "c=1e+30"), ("\udc80", "%ED%B2%80"), ("x ", "x%20"), ("a%2Fb", "a%252Fb")])
def test_folders_of_awkward_names(arm, folder, tmp_path):
  assert event_files.folder_name(arm) == folder
  (tmp_path / folder).mkdir()
  assert len(list(tmp_path.iterdir())) == 1


def test_long_names_stay_apart():
  names = [event_files.folder_name("x" * 300 + ending) for ending in "ab"]
  assert names[0] != names[1] and max(map(len, names)) <= 120


def test_every_work_directory_is_another_sweep(trained, tmp_path):
  """After --fresh runs are new ones; in the same directory they are found again."""
  (tmp_path / "w").mkdir()
  found = [told_identities(trained, tmp_path / "w") for _ in range(2)]
  workdirs.move_aside(tmp_path / "w")
  (tmp_path / "w").mkdir()
  assert found[0] == found[1] and not found[0] & told_identities(trained, tmp_path / "w")


def told_identities(trained, directory) -> set[str]:
  """The identities under which a tracker is told of the runs."""
  told = set()

  def start(sweep):
    told.update(sweep.run_identity(arm, 0) for arm in sweep.settings)
    return lambda arm, seed: event_files.start(sweep)(arm, seed)

  with pytest.MonkeyPatch.context() as patch:
    replace(patch, start)
    tracking.log("tensorboard", directory, storage.load(trained / "without"))
  assert len(told) == 2
  return told


# Trackers that fail.


def test_a_tracker_that_fails_is_told_of_once(trained, tmp_path, monkeypatch, capsys):
  """The sweep goes on, and `dcnn log` makes up for it."""
  def start(sweep):
    raise ConnectionError("the server is away")

  with monkeypatch.context() as patch:
    replace(patch, start)
    with pytest.warns(UserWarning, match="the server is away.*dcnn log DIR --to") as told:
      status, _, errors = call(
          patch, capsys, f"--config={trained / 'tiny.py'}", f"--workdir={tmp_path / 'w'}",
          "--log=tensorboard")
    assert status == 0 and sum("the server is away" in str(each.message) for each in told) == 1
    status, _, errors = call(patch, capsys, "log", tmp_path / "w", "--to=tensorboard")
    assert status == 1 and errors == (
        "dcnn: error: tensorboard: ConnectionError: the server is away\n")
  for name in SAME:
    assert (tmp_path / "w" / name).read_bytes() == (trained / "without" / name).read_bytes()
  assert call(monkeypatch, capsys, "log", tmp_path / "w", "--to=tensorboard")[0] == 0
  assert_told(tmp_path / "w")


def replace(patch, start):
  """Puts another function in the place of TensorBoard."""
  patch.setattr(tracking, "TRACKERS", {
      "tensorboard": trackers.TRACKERS["tensorboard"]._replace(start=start)})


def test_a_tracker_that_hangs_is_left(trained, tmp_path, monkeypatch):
  released = threading.Event()
  replace(monkeypatch, lambda sweep: released.wait(60))
  monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.1)
  manifest = storage.load(trained / "without").config
  started = time.monotonic()
  with (pytest.warns(UserWarning, match="took nothing for 0.1 s"), wording.options_under("--"),
        tracking.tracked(("tensorboard",), tmp_path, manifest) as on_results):
    on_results((), storage.load(trained / "without").rows)
  assert time.monotonic() - started < 5 and tracking.is_left()
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # it is told of once
    released.set()
    while tracking.is_left():
      time.sleep(0.01)


def test_nothing_is_done_without_one(tmp_path):
  with tracking.tracked((), tmp_path, {}) as on_results:
    assert on_results is None
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, package", [
    ("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow-skinny")])
def test_what_is_missing_is_told_before_training(
    name, package, trained, workdir, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
  status, _, errors = call(monkeypatch, capsys, f"--config={trained / 'tiny.py'}",
                           f"--workdir={tmp_path / 'new'}", f"--log={name}")
  assert_mistake(status, errors, f"--log={name}: ", package, f"pip install 'dcnn[{name}]'")
  assert not (tmp_path / "new").exists()
  status, _, errors = call(monkeypatch, capsys, "log", workdir, f"--to={name}")
  assert_mistake(status, errors, f"--to={name}: ", f"pip install 'dcnn[{name}]'")
  assert not (workdir / "trackers.json").exists()


@pytest.mark.parametrize("argv, words", [
    (("--config=ablations", "--workdir=w", "--log=tensorbord"), "did you mean 'tensorboard'?"),
    (("--config=ablations", "--workdir=w", "--log="), "unknown tracker ''"),
    (("log", "."), "--to is missing"), (("log", "--to=wandb"), "expected one directory"),
    (("log", "nowhere", "--to=mlflow"), "no such directory"),
    (("log", ".", "--to=tensorboard"), "expected the work directory of a run")])
def test_mistakes(argv, words, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  status, _, errors = call(monkeypatch, capsys, *argv)
  assert_mistake(status, errors, words)
  assert not list(tmp_path.iterdir())


# wandb and MLflow, where they are installed.


def wandb_records(path: pathlib.Path) -> list:
  """The records of a run that wandb has written offline: a log in the format of LevelDB."""
  from wandb.proto import wandb_internal_pb2

  content, records, parts = path.read_bytes(), [], b""
  position = 7  # behind the header of the file
  while position + 7 <= len(content):
    left = 32768 - position % 32768
    if left < 7:  # the rest of a block
      position += left
      continue
    length, kind = struct.unpack("<HB", content[position + 4:position + 7])
    parts += content[position + 7:position + 7 + length]
    position += 7 + length
    if kind in (1, 4):  # whole, or the last part
      records.append(wandb_internal_pb2.Record.FromString(parts))
      parts = b""
  return records


def test_wandb_offline(workdir, monkeypatch, capsys):
  pytest.importorskip("wandb", reason="the extra wandb is not installed")
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.delenv("WANDB_DIR", raising=False)
  status, output, errors = call(monkeypatch, capsys, "log", workdir, "--to=wandb")
  assert (status, errors) == (0, "") and output == f"wandb: 2 runs in {workdir}\n"
  found, summaries = {}, {}
  for path in (workdir / "wandb").glob("offline-run-*/run-*.wandb"):
    records = wandb_records(path)
    (run,) = [record.run for record in records if record.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    key = config["arm"], config["seed"]
    assert (run.project, run.run_group, run.display_name) == ("tiny", key[0], f"{key[0]} seed=0")
    for record in records:
      items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json)
               for item in record.history.item}
      step = items.pop("_step", None)
      found |= {(*key, step, name): float(value) for name, value in items.items()
                if not name.startswith("_")}
      summaries.setdefault(key, {}).update({
          item.key or "/".join(item.nested_key): json.loads(item.value_json)
          for item in record.summary.update})
    assert config["activation.name"] == "irelu"
  assert_same(found, history(workdir))
  for (arm, seed, _, name), value in test_errors(workdir).items():
    assert summaries[arm, seed][name] == value or math.isnan(value)
  assert summaries[ARM, 0]["status"] == "finished"
  assert re.fullmatch(r"diverged@\d+", summaries[DIVERGED, 0]["status"])


def test_wandb_without_a_key(tmp_path, workdir, monkeypatch, capsys):
  pytest.importorskip("wandb", reason="the extra wandb is not installed")
  import wandb

  monkeypatch.setattr(wandb, "login", lambda **options: False)
  monkeypatch.setenv("WANDB_MODE", "online")
  wandb.teardown()  # it reads its variables once
  status, _, errors = call(monkeypatch, capsys, "log", workdir, "--to=wandb")
  wandb.teardown()
  assert_mistake(status, errors, "wandb login", "WANDB_MODE=offline")


def test_mlflow_in_files(workdir, monkeypatch, capsys):
  pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
  monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
  for _ in range(2):  # nothing is logged twice
    status, output, errors = call(monkeypatch, capsys, "log", workdir, "--to=mlflow")
    assert (status, errors) == (0, "") and "mlflow: 2 runs in file:" in output
  import mlflow

  client = mlflow.MlflowClient((workdir / "mlruns").as_uri())
  runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
  found, number = {}, 0
  for run in runs:
    key = run.data.params["arm"], int(run.data.params["seed"])
    points = [point for name in run.data.metrics
              for point in client.get_metric_history(run.info.run_id, name)]
    found |= {(*key, point.step, point.key): point.value for point in points}
    number += len(points)
  assert_same(found, history(workdir) | test_errors(workdir))
  assert number == len(found) and len(runs) == 2
  by_arm = {run.data.tags["arm"]: run for run in runs}
  assert by_arm[ARM].info.status == "FINISHED" and by_arm[DIVERGED].info.status == "FAILED"
  assert by_arm[ARM].data.params["labels"] == "standardize"
