"""Several processes train what one would, byte for byte; a lost one ends the others in a line.

The processes are real ones, on loopback, each with one CPU device unless told otherwise.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from commands import TINY, assert_mistake, call
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dcnn import jobs
from dcnn.base import processes
from dcnn.cli import joining
from dcnn.cli.arguments import Meeting
from dcnn.results import storage
from dcnn.sweeps import checkpoints
from dcnn.sweeps.checkpoints import Checkpoint

posix = pytest.mark.skipif(os.name != "posix", reason="signals")
# One arm that diverges and an odd number of runs; two programs, each with a run for each device.
EXPERIMENT = """
import os, time
from dcnn import configs

def get_config(arg=""):
  config = configs.default()
  config.arms = ARMS
  config.model.name, config.model.hidden = "MLP", (4,)
  config.model.features, config.model.blocks, config.model.radial = 4, 1, 4
  config.split.train, config.split.valid, config.split.test = 20, 10, 20
  config.steps, config.chunk, config.batch_size, config.seeds = STEPS, STEPS // 4, 4, 1
  config.checkpoint_every = 0.05
  return config
"""
ONE_PROGRAM = "({}, {'activation.c': 1.0}, {'activation.c': 1e30})"
TWO_PROGRAMS = ("({}, {'activation.c': 1.0}, {'activation.name': 'silu'}, "
                "{'activation.name': 'silu', 'labels': 'min_max'})")
FILES = ("results.csv", "summary.json", "history.csv", "predictions.npz")
MINUTE = 60


class Company:
  """The processes of a sweep, all started with the same command but for their ids."""

  def __init__(self, experiment: pathlib.Path, workdir: pathlib.Path, number: int = 2, *,
               devices: int = 1, arguments=lambda process: (), environment=lambda process: {},
               before: str = "") -> None:
    """With `number` 1 an ordinary command; `before` is Python that comes before the command."""
    self.workdir, port = workdir, free_port()
    self.logs = [workdir.with_suffix(f".{i}.log") for i in range(number)]
    self.processes = []
    script = f"import sys\n{before}\nfrom dcnn.cli import main\nsys.exit(main.entry())"
    for i, log in enumerate(self.logs):
      join = [] if number == 1 else [
          "--distributed", f"--coordinator_address=127.0.0.1:{port}",
          f"--num_processes={number}", f"--process_id={i}"]
      mine = environment(i)
      if mine:
        join = ["--distributed"]
      with log.open("wb") as file:
        self.processes.append(subprocess.Popen(
            [sys.executable, "-c", script, f"--config={experiment}", f"--workdir={workdir}",
             *join, *arguments(i)], stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices),
                 **{key: value.replace("PORT", str(port)) for key, value in mine.items()}}))

  def said(self, process: int) -> str:
    return self.logs[process].read_text()

  def wait_for(self, condition) -> None:
    while not condition():
      assert all(each.poll() is None for each in self.processes), list(map(self.said, (0, 1)))
      time.sleep(0.02)

  def wait_for_phase(self, phase: str) -> None:
    """Until the first process says so, or a state of a training has been saved."""
    if phase == "training":
      before = set(self.workdir.glob("checkpoints/running/[0-9]*"))
      self.wait_for(lambda: set(self.workdir.glob("checkpoints/running/[0-9]*")) - before)
    else:
      self.wait_for(lambda: phase in self.said(0))

  def statuses(self, seconds: float = 900) -> list[int]:
    return [each.wait(timeout=seconds) for each in self.processes]

  def finish(self) -> "Company":
    assert not any(self.statuses()), list(map(self.said, range(len(self.processes))))
    return self

  def __enter__(self) -> "Company":
    return self

  def __exit__(self, *error) -> None:
    for each in self.processes:
      each.kill()
      each.wait()


def free_port() -> int:
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


def written(folder: pathlib.Path, arms: str, steps: int = 40) -> pathlib.Path:
  experiment = folder / "experiment.py"
  experiment.write_text(EXPERIMENT.replace("ARMS", arms).replace("STEPS", str(steps)))
  return experiment


def assert_same(first: pathlib.Path, second: pathlib.Path) -> None:
  for name in FILES:
    assert (first / name).read_bytes() == (second / name).read_bytes(), name


def assert_same_to_rounding(first: pathlib.Path, second: pathlib.Path) -> None:
  """The bound is that of test_devices.py; the size of a skill, 1 - error / error, is 1."""
  for mine, other in zip(*(
      storage.load(directory).rows for directory in (first, second)), strict=True):
    assert mine._replace(value=0.0) == other._replace(value=0.0)
    np.testing.assert_allclose(
        mine.value, other.value, rtol=2e-5, atol=2e-5 * (mine.unit == "1"))


def the_error(text: str) -> str:
  """The one line of an error: no dump, no traceback."""
  (line,) = [line for line in text.splitlines() if "error" in line.lower()]
  assert "Traceback" not in text and "***" not in text and "Fatal" not in text, text
  return line


# One process: everything is an identity.


def test_alone_there_is_nothing_to_exchange():
  sharding = NamedSharding(Mesh(np.array(processes.devices(2)), ("runs",)), PartitionSpec("runs"))
  tree = {"a": np.arange(4.0, dtype=np.float32), "b": np.ones((2, 3), bool)}
  placed = processes.place(tree, sharding)
  assert placed["a"].sharding == sharding
  for name, leaf in processes.to_host(placed).items():
    assert type(leaf) is np.ndarray
    np.testing.assert_array_equal(leaf, tree[name])
  assert (processes.count(), processes.is_first(), processes.on_this_machine()) == (1, True, 1)
  np.testing.assert_array_equal(processes.all_gather(np.pi), [np.pi])
  assert processes.broadcast(lambda: "made", str.encode, bytes.decode) == "made"
  assert processes.devices(1) == jax.devices()[:1]
  with pytest.raises(ZeroDivisionError), processes.fail_together():
    _ = 1 / 0
  processes.shutdown()


@pytest.mark.parametrize("saved", [
    ([], None),
    ([Checkpoint({"state": {"a.b": np.float32([[1, np.nan]]), "c": np.array([True])}, "d": {}},
                 {"runs": [["c=0.5", 0]], "seconds": 0.1})],
     Checkpoint({"x": np.int32([-1, 2])}, {"step": 3})),
    ([], Checkpoint({"x": np.uint32([7])}, {}))], ids=["none", "both", "running"])
def test_checkpoints_for_another_process(saved):
  found, running_state = checkpoints.unpack(checkpoints.pack(saved))
  for mine, expected in zip([*found, running_state], [*saved[0], saved[1]], strict=True):
    if expected is None:
      assert mine is None
      continue
    assert mine.record == expected.record
    assert jax.tree.structure(mine.arrays) == jax.tree.structure(expected.arrays)
    for a, b in zip(*map(jax.tree.leaves, (mine.arrays, expected.arrays)), strict=True):
      assert a.dtype == b.dtype
      np.testing.assert_array_equal(a, b)


def told(config, **environment) -> dict:
  manifest = jobs.describe(jobs.prepare(config))
  return {**manifest, "environment": {**manifest["environment"], **environment}}


@pytest.mark.parametrize("other, word", [
    ({"config": {}}, "configuration"), ({"seeds": [5]}, "configuration"),
    ({"dataset": {"checksum": "x"}}, "data")], ids=["config", "seeds", "data"])
def test_what_must_be_the_same(monkeypatch, other, word):
  import tiny
  manifest = told(tiny.mlp())
  seen = []
  monkeypatch.setattr(processes, "all_gather", lambda mine: seen.append(mine) or mine[None])
  jobs.check_same(manifest)
  jobs.check_same({**manifest, **other})
  monkeypatch.setattr(processes, "all_gather", lambda mine: np.stack(seen))
  with pytest.raises(ValueError, match=f"process 1 has other {word} than process 0"):
    jobs.check_same(manifest)


# Mistakes in the flags.


@pytest.mark.parametrize("flags, words", [
    (["--process_id=1"], ["--process_id without --distributed", "leave"]),
    (["--num_processes=2"], ["--num_processes without --distributed"]),
    (["--distributed", "--num_processes=2", "--process_id=1"],
     ["--num_processes and --process_id alone", "--coordinator_address=HOST:PORT", "SLURM"]),
    (["--distributed", "--coordinator_address=node1:5", "--num_processes=2", "--process_id=2"],
     ["--process_id=2", "0 to 1"]),
    (["--distributed", "--coordinator_address=node1", "--num_processes=2", "--process_id=0"],
     ["--coordinator_address=node1", "HOST:PORT"]),
    (["--distributed", "--num_processes=0"], ["--num_processes=0", "positive"]),
    (["--distribute"], ["unknown flag --distribute", "did you mean '--distributed'?"]),
], ids=["id", "number", "no-address", "id-too-large", "no-port", "none", "typo"])
def test_mistakes_in_the_flags(monkeypatch, capsys, tmp_path, flags, words):
  (tmp_path / "tiny.py").write_text(TINY)
  status, _, errors = call(monkeypatch, capsys, f"--config={tmp_path / 'tiny.py'}",
                           f"--workdir={tmp_path / 'w'}", *flags)
  assert_mistake(status, errors, *words)
  assert not (tmp_path / "w").exists()


# What JAX's runtime prints before it aborts, jaxlib 0.10.1, shortened at "...".

FATAL = ("F1125 client.h:80] Terminating process because the JAX distributed service detected "
         "fatal errors. This most likely indicates that another task died; ... absl::Status: ")
BROKEN = FATAL + (
    "UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was "
    "preempted/died/restarted unexpectedly or ...\nAdditional GRPC error information from remote "
    "target coordination_service while calling /xla.coordination.CoordinationService/PollForError:"
    "\n*** Check failure stack trace: ***\n")
SILENT = FATAL + (
    "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1,3\nThe tasks "
    "have crashed. Check ...\n\nRPC: /xla.coordination.CoordinationService/PollForError\n")
NOBODY = FATAL + ("DEADLINE_EXCEEDED: Deadline Exceeded\n\nRPC: "
                  "/xla.coordination.CoordinationService/RegisterTask\n*** Check failure ...\n")
TWICE = ("E1125 coordination_service.cc:517] 1 unexpectedly tried to connect with a different "
         "incarnation. It has likely restarted.\n") + FATAL + "ABORTED: 1 unexpectedly ...\n"


@pytest.mark.parametrize("output, status, words", [
    (BROKEN, 1, ["process 0 of 4 is gone", "the same command again"]),
    (SILENT, 1, ["process 1, 3 of 4", "heartbeats", "the same command again"]),
    (NOBODY, 2, ["4 processes did not meet at node1:5", "Deadline Exceeded", "0 to 3"]),
    (TWICE, 1, ["a process id that is taken"]),
    (FATAL + "INTERNAL: new\n", 1, ["one process of 4 is gone (INTERNAL: new)"]),
], ids=["first", "others", "start", "twice", "unknown"])
def test_what_an_abort_is_explained_by(output, status, words):
  text, found = joining.explanation(f"before\n{output}", Meeting("node1:5", 4, 2), 4)
  assert found == status
  for word in words:
    assert word in text
  assert "\n" not in text


def test_another_abort_is_not_explained():
  assert joining.explanation("free(): invalid pointer", Meeting(None, None, None), 2) is None


# Aborts, in a thread of C++ as that of JAX's runtime.

ABORT = """
import ctypes, os, sys, time
from dcnn.cli import aborts, streams

def explain(output):
  if "known" in output:
    print(f"explained: {output.strip()}", file=sys.stderr)
    os._exit(3)

with streams.forgiving_streams():
  aborts.watch(explain)
  print("Python goes on printing")
  os.write(2, f"{sys.argv[1]} to C\\n".encode())
  c = ctypes.CDLL(None)
  c.pthread_create(ctypes.byref(ctypes.c_ulong()), None, c.abort, None)
  time.sleep(60)  # in one piece: Python's report reads the stacks of threads that run
"""


@posix
@pytest.mark.parametrize("reason, status, words", [
    ("known", 3, ["explained: known to C"]),
    ("new", -signal.SIGABRT, ["most recent call first", "new to C"])],
    ids=["explained", "not-explained"])
def test_an_abort_waits_until_it_is_explained(reason, status, words):
  aborted = subprocess.run(
      [sys.executable, "-c", ABORT, reason], capture_output=True, text=True, timeout=MINUTE)
  assert aborted.returncode == status, aborted
  assert aborted.stdout == "Python goes on printing\n"
  for word in words:
    assert word in aborted.stderr


# Real processes.

STREAMED = "from dcnn.sweeps import streaming\nstreaming.DATA_SHARE = 0.0"


@posix
def test_two_processes_train_what_one_does(monkeypatch, capsys, tmp_path):
  """This one has two devices, the others have one each."""
  experiment = written(tmp_path, ONE_PROGRAM)
  with Company(experiment, tmp_path / "two") as two:
    status, _, errors = call(
        monkeypatch, capsys, f"--config={experiment}", f"--workdir={tmp_path / 'one'}")
    assert (status, errors) == (0, "")
    two.finish()
  assert "report:" in two.said(0) and two.said(1) == ""
  assert_same(tmp_path / "one", tmp_path / "two")


@posix
@pytest.mark.nightly
@pytest.mark.parametrize("number, devices, arms, before, more", [
    (2, 1, 6, "", ()), (3, 1, 6, "", ()), (2, 2, 6, "", ()), (3, 2, 2, "", ()), (2, 1, 1, "", ()),
    (2, 1, 6, STREAMED, ()), (2, 2, 2, "", ("--config.devices_per_run=2",))],
    ids=["2", "3", "2x2", "3x2-few", "2-one-run", "2-streamed", "2x2-shared"])
def test_any_number_of_processes_trains_the_same_schnet(
    tmp_path, number, devices, arms, before, more):
  """Bit for bit with one process of as many devices; and tuned before.

  A single run has one device there and two here, and XLA rounds a program for one otherwise.
  """
  all_arms = ("{}", "{'activation.c': 1.0}", "{'labels': 'min_max'}", "{'activation.c': 1e30}",
              "{'activation.name': 'silu'}", "{'activation.name': 'silu', 'labels': 'min_max'}")
  experiment = written(tmp_path, f"({', '.join(all_arms[:arms])},)")
  ask = ("--config.model.name=SchNet", "--config.tuning.learning_rates=0.001,0.01",
         "--config.tuning.seeds=100,101", *more)
  with Company(experiment, tmp_path / "one", 1, devices=number * devices, before=before,
               arguments=lambda process: ask) as one:
    with Company(experiment, tmp_path / "many", number, devices=devices, before=before,
                 arguments=lambda process: ask) as many:
      many.finish()
    one.finish()
  same = assert_same_to_rounding if arms == 1 else assert_same
  same(tmp_path / "one", tmp_path / "many")


@posix
@pytest.mark.nightly
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_the_sweep_goes_on(tmp_path, victim):
  """In every phase; then with the same command, and in the end with one process."""
  experiment = written(tmp_path, TWO_PROGRAMS, 4000)
  with Company(experiment, tmp_path / "straight") as straight:
    straight.finish()
  other = 1 - victim
  for phase in ("compiling", "training", "training", "evaluating"):
    with Company(experiment, tmp_path / "killed") as company:
      company.wait_for_phase(phase)
      company.processes[victim].kill()
      killed = time.monotonic()
      assert company.processes[other].wait(timeout=MINUTE) == 1, company.said(other)
      print(f"{phase}: {time.monotonic() - killed:.1f} s, {company.said(other)}")
      line = the_error(company.said(other))
      assert f"process {victim} of 2 is gone" in line and "the same command again" in line
  with Company(experiment, tmp_path / "killed", 1, devices=2) as company:
    company.finish()
  assert_same(tmp_path / "straight", tmp_path / "killed")


@posix
@pytest.mark.nightly
def test_one_of_three_is_named(tmp_path):
  experiment = written(tmp_path, ONE_PROGRAM, 40_000)
  with Company(experiment, tmp_path / "w", 3) as company:
    company.wait_for_phase("training")
    company.processes[2].kill()
    for other in (0, 1):
      assert company.processes[other].wait(timeout=MINUTE) == 1
      assert "process 2 of 3 is gone" in the_error(company.said(other))


@posix
@pytest.mark.nightly
def test_a_process_that_hangs_counts_as_gone(tmp_path):
  experiment = written(tmp_path, ONE_PROGRAM, 40_000)
  with Company(experiment, tmp_path / "w") as company:
    company.wait_for_phase("training")
    company.processes[1].send_signal(signal.SIGSTOP)
    assert company.processes[0].wait(timeout=MINUTE) == 1
    assert "process 1 of 2 is gone (it stopped" in the_error(company.said(0))


@posix
@pytest.mark.nightly
@pytest.mark.parametrize("signalled", [(0,), (1,), (0, 1)], ids=["first", "other", "both"])
def test_a_signal_to_any_stops_all(tmp_path, signalled):
  experiment = written(tmp_path, TWO_PROGRAMS, 4000)
  with Company(experiment, tmp_path / "stopped") as company:
    company.wait_for_phase("training")
    for process in signalled:
      company.processes[process].terminate()
    assert company.statuses() == [143, 143], list(map(company.said, (0, 1)))
    assert company.said(1) == ""
  with Company(experiment, tmp_path / "stopped") as company:
    company.finish()
    assert "continuing" in company.said(0)
  with Company(experiment, tmp_path / "straight") as straight:
    straight.finish()
  assert_same(tmp_path / "straight", tmp_path / "stopped")


@posix
@pytest.mark.nightly
@pytest.mark.parametrize("environment", [
    lambda process: {
        "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process), "SLURM_LOCALID": str(process),
        "JAX_COORDINATOR_PORT": "PORT"},
    lambda process: {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(process), "OMPI_COMM_WORLD_LOCAL_RANK": str(process),
        "JAX_COORDINATOR_PORT": "PORT"}], ids=["slurm", "open-mpi"])
def test_what_a_scheduler_says_is_found_out(tmp_path, environment):
  with Company(written(tmp_path, ONE_PROGRAM), tmp_path / "w", environment=environment) as company:
    company.finish()
  assert "3 runs" in company.said(0) and company.said(1) == ""


@posix
@pytest.mark.nightly
def test_processes_may_be_late(tmp_path):
  """The first exchange of JAX's CPU collectives gives up after half a minute; later ones wait."""
  late = "from dcnn import jobs as r\nfrom dcnn.base import processes as p\nimport time\n" + (
      "prepare = r.prepare\n"
      "r.prepare = lambda config: (time.sleep(40 * (not p.is_first())), prepare(config))[1]")
  with Company(written(tmp_path, ONE_PROGRAM), tmp_path / "w", before=late) as company:
    company.finish()


SHORT = "from dcnn.cli import joining\njoining.MEETING_SECONDS = 5"
STARTED = "import jax\njax.devices()"


@posix
@pytest.mark.nightly
@pytest.mark.parametrize("number, arguments, before, words", [
    (2, lambda process: ["--config.seeds=3"] * process, "",
     ["process 1 has other configuration than process 0", "the same command"]),
    (2, lambda process: ["--config.steps=0"], "", ["steps"]),
    (2, lambda process: ["--coordinator_address=nowhere.invalid:12345"], SHORT,
     ["2 processes did not meet at nowhere.invalid:12345 within 5 s", "port be free"]),
    (2, lambda process: ["--process_id=0"], SHORT, ["did not meet", "an id of its own"]),
    (2, lambda process: [f"--num_processes={2 + process}"], SHORT, ["give the same number to all"]),
    (2, lambda process: [], STARTED, ["JAX has been started already"]),
    (1, lambda process: ["--distributed"], "", ["found no SLURM", "srun", "--process_id=I"]),
], ids=["configs", "config", "address", "ids", "numbers", "started", "alone"])
def test_mistakes(tmp_path, number, arguments, before, words):
  """Told once where all notice; exit status 2, and nothing is written."""
  experiment = written(tmp_path, ONE_PROGRAM)
  with Company(experiment, tmp_path / "w", number, arguments=arguments, before=before) as company:
    statuses = company.statuses()
    said = [company.said(process) for process in range(number)]
  told = [the_error(text) for text in said if "error" in text]
  assert told and set(statuses) <= {1, 2} and 2 in statuses, (statuses, said)
  assert any(all(word in line for word in words) for line in told), said
  assert not (tmp_path / "w").exists()


@posix
@pytest.mark.nightly
@pytest.mark.parametrize("where, words", [
    ("refused", ["holds work of config.chunk=5, and 10 is"]),
    ("file", ["is a file, expected a directory"])], ids=["refused", "file"])
def test_a_directory_that_the_first_refuses(tmp_path, where, words):
  experiment, workdir = written(tmp_path, ONE_PROGRAM), tmp_path / "w"
  if where == "file":
    workdir.write_text("")
  else:
    with Company(written(tmp_path, ONE_PROGRAM, 20), workdir, 1, devices=2) as one:
      one.finish()
    experiment = written(tmp_path, ONE_PROGRAM, 40)
  with Company(experiment, workdir) as company:
    assert company.statuses() == [2, 2]
    assert company.said(1) == ""
    line = the_error(company.said(0))
    for word in words:
      assert word in line
