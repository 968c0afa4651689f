"""Published data by name: fetched once, from the first server that gives the right file."""

import hashlib
import http.server
import io
import json
import re
import sys
import tarfile
import threading

import commands
import numpy as np
import pytest
import tiny
from test_data import saved, water

from dcnn import configs, data
from dcnn.base import KCAL_PER_MOL
from dcnn.configs import forcefield
from dcnn.data import named, splitting

pytest.importorskip("pooch", reason="data by name need the extra `data`")


class Server:
  """Files by their path: bytes, or a function of the handler; counts who asks for what."""

  def __init__(self):
    self.files, self.asked = {}, []
    served = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_GET(self):
        served.asked.append(self.path)
        content = served.files[self.path]
        if callable(content):
          content(self)
        else:
          answer(self, content)

      def log_message(self, *arguments):
        pass

    self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    self.url = f"http://127.0.0.1:{self.http.server_port}"
    threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


def answer(handler, content, announced=None):
  handler.send_response(200)
  handler.send_header("Content-Length", str(announced or len(content)))
  handler.end_headers()
  handler.wfile.write(content)


def forbidden(handler):
  handler.send_error(403)


def half(content):
  """The first half, with the length of the whole; and without any length."""
  return lambda handler: answer(handler, content[:len(content) // 2], len(content))


def unannounced_half(content):
  def send(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(content[:len(content) // 2])
  return send


def sha256(content):
  return f"sha256:{hashlib.sha256(content).hexdigest()}"


def in_kcal(frames, seed=0):
  """Water with the keys and units of rMD17."""
  arrays, kcal = water(frames, seed), KCAL_PER_MOL
  return {"coords": arrays["positions"], "nuclear_charges": arrays["species"],
          "energies": arrays["energy"] / kcal, "forces": arrays["forces"] / kcal}


def numbers_file(numbers):
  return "".join(f"{number}\n" for number in numbers).encode()


def packed(contents):
  """A `.tar.bz2` of files by name."""
  made = io.BytesIO()
  with tarfile.open(fileobj=made, mode="w:bz2") as archive:
    for name, content in contents.items():
      entry = tarfile.TarInfo(name)
      entry.size = len(content)
      archive.addfile(entry, io.BytesIO(content))
  return made.getvalue()


TRAIN, TEST = np.arange(0, 60, 2), np.arange(1, 41, 2)


class Web:
  """Two servers with a set of sixty frames, `rmd17/water`, and its split."""

  def __init__(self, folder, first, second):
    self.first, self.second, self.cache = first, second, folder / "cache"
    self.content = saved(folder / "w.npz", in_kcal(60)).read_bytes()
    parts = {"w.npz": self.content, "train.csv": numbers_file(TRAIN),
             "test.csv": numbers_file(TEST)}
    archive = packed({f"all/{name}": content for name, content in parts.items()}
                     | {"../../escaped": b"x"})
    first.files = {f"/{name}": content for name, content in parts.items()}
    second.files = {"/all.tar.bz2": archive}

    def file(name):
      return named.File(f"rmd17/{name}", (
          named.Mirror(f"{first.url}/{name}", sha256(parts[name])),
          named.Mirror(f"{second.url}/all.tar.bz2", sha256(archive), len(archive), "all.tar.bz2",
                       f"all/{name}")))

    self.sets = {"rmd17/water": named.NamedSet(
        file("w.npz"), "kcal/mol/angstrom", "A Paper", "npz",
        (named.PublishedSplit(file("train.csv"), file("test.csv")),))}

  def kept(self):
    return sorted(str(path.relative_to(self.cache)) for path in self.cache.rglob("*")
                  if path.is_file() and path.suffix != ".lock")


@pytest.fixture(scope="module")
def servers():
  made = Server(), Server()
  yield made
  for server in made:
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def web(tmp_path, monkeypatch, servers):
  for server in servers:
    server.asked.clear()
  made = Web(tmp_path, *servers)
  monkeypatch.setenv("DCNN_DATA", str(made.cache))
  for module in (named, splitting):
    monkeypatch.setattr(module, "SETS", made.sets)
  return made


def test_a_set_is_fetched_once_and_read_in_its_units(web):
  found = data.load("rmd17/water")
  np.testing.assert_allclose(found.labels.forces, water(60)["forces"], atol=1e-9)
  assert "kcal/mol/angstrom, as rmd17/water is published" in found.summary
  assert found.source.startswith("rmd17/water (A Paper), w.npz: rMD17 archive")
  assert f"sha256:{found.checksum}" == sha256(web.content)
  again = data.load("rmd17/water")
  assert web.first.asked == ["/w.npz"] and web.second.asked == []
  assert again.checksum == found.checksum and web.kept() == ["rmd17/w.npz"]


def test_units_of_a_set_are_checked_all_the_same(web):
  web.sets["rmd17/water"] = web.sets["rmd17/water"]._replace(units="eV/angstrom")
  with pytest.raises(ValueError, match="Say.*data.units|kcal/mol/angstrom"):
    data.load("rmd17/water")


FAILURES = {
    "forbidden": (lambda content: forbidden, "403 Forbidden"),
    "another": (lambda content: content[:-1] + b"x", "another file: its checksum is not sha256:"),
    "half": (half, "it ended early"),
    "unannounced_half": (unannounced_half, "another file"),
}


@pytest.mark.parametrize("failure, reason", FAILURES.values(), ids=FAILURES)
def test_the_second_server_is_asked_where_the_first_fails(web, failure, reason):
  del reason
  web.first.files["/w.npz"] = failure(web.content)
  assert len(data.load("rmd17/water")) == 60
  assert web.first.asked == ["/w.npz"] and web.second.asked == ["/all.tar.bz2"]
  # The archive is kept for the other files in it, and its paths are never followed.
  assert web.kept() == ["rmd17/all.tar.bz2", "rmd17/extracted/w.npz"]
  assert not list(web.cache.parent.rglob("escaped"))
  data.load("rmd17/water")
  web.first.files["/train.csv"] = web.first.files["/test.csv"] = forbidden
  assert data.published_split("rmd17/water").train.tolist() == TRAIN.tolist()
  assert web.second.asked == ["/all.tar.bz2"]


@pytest.mark.parametrize("failure, reason", FAILURES.values(), ids=FAILURES)
def test_where_all_fail_one_line_says_why_and_what_can_be_done(web, failure, reason):
  web.first.files["/w.npz"] = failure(web.content)
  web.second.files["/all.tar.bz2"] = forbidden
  with pytest.raises(OSError) as error:
    data.load("rmd17/water")
  text = str(error.value)
  path = web.cache / "rmd17" / "w.npz"
  for part in (f"{web.first.url}/w.npz ({reason}", f"{web.second.url}/all.tar.bz2 (403 Forbidden)",
               f"put w.npz ({sha256(web.content)}) at {path}, or all.tar.bz2 (sha256:"):
    assert part in text
  assert "\n" not in text and web.kept() == []


def test_without_a_network(web):
  web.sets["rmd17/water"] = web.sets["rmd17/water"]._replace(file=named.File("rmd17/w.npz", (
      named.Mirror("http://127.0.0.1:1/w.npz", sha256(web.content)),)))
  with pytest.raises(OSError, match=r"127.0.0.1:1/w.npz \(no connection\)"):
    data.load("rmd17/water")


@pytest.mark.parametrize("name", ["w.npz", "all.tar.bz2"])
def test_what_was_put_there_by_hand_is_taken(web, name):
  (web.cache / "rmd17").mkdir(parents=True)
  content = (web.first if name == "w.npz" else web.second).files[f"/{name}"]
  (web.cache / "rmd17" / name).write_bytes(content)
  assert len(data.load("rmd17/water")) == 60
  assert web.first.asked == web.second.asked == []
  if name == "w.npz":  # a cache that nobody may write to can be read
    assert [path.name for path in web.cache.rglob("*")] == ["rmd17", "w.npz"]


def test_another_file_that_was_put_there_is_not_taken(web):
  (web.cache / "rmd17").mkdir(parents=True)
  (web.cache / "rmd17" / "w.npz").write_bytes(b"mine")
  web.first.files["/w.npz"] = web.second.files["/all.tar.bz2"] = forbidden
  with pytest.raises(OSError, match=r"rmd17/w.npz is another file; http"):
    data.load("rmd17/water")
  assert (web.cache / "rmd17" / "w.npz").read_bytes() == b"mine"


def test_a_local_file_of_the_name_comes_first(web, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "rmd17").mkdir()
  saved(tmp_path / "x.npz", water()).rename(tmp_path / "rmd17" / "water")
  assert len(data.load("rmd17/water", format="npz")) == 5 and web.first.asked == []


def test_processes_wait_for_the_one_that_fetches(web):
  gate = threading.Barrier(2)
  held = threading.Event()

  def slowly(handler):
    held.wait(10)
    answer(handler, web.content)

  web.first.files["/w.npz"] = slowly
  lengths = []

  def load():
    gate.wait(10)
    lengths.append(len(data.load("rmd17/water")))

  threads = [threading.Thread(target=load) for _ in range(2)]
  for thread in threads:
    thread.start()
  held.set()
  for thread in threads:
    thread.join(20)
  assert lengths == [60, 60] and web.first.asked == ["/w.npz"]


def test_without_pooch_the_extra_is_named(web, monkeypatch, capsys, tmp_path):
  monkeypatch.setitem(sys.modules, "pooch", None)
  (tmp_path / "exp.py").write_text(commands.TINY)
  status, _, errors = commands.call(
      monkeypatch, capsys, f"--config={tmp_path / 'exp.py'}", f"--workdir={tmp_path / 'run'}",
      "--config.dataset=rmd17/water")
  commands.assert_mistake(status, errors, "data by name need pooch", "pip install 'dcnn[data]'")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name, message", [
    ("rmd17/etanol", "unknown data set 'rmd17/etanol': did you mean 'rmd17/ethanol'"),
    ("rmd17", "unknown data set 'rmd17'.*known are rmd17/aspirin, rmd17/azobenzene"),
    ("qm8", "did you mean 'qm9'.*published are those of rmd17, md17, qm9"),
    ("md17/ethanol", r"\(it knows those of md17/aspirin, .* alone\): get it from https://www.sg"),
    ("md22/DHA", "dcnn knows no checksum of its file: get it from https://www.sgdml.org"),
    ("3bpa/300K", "get it from https://github.com/davkovacs/BOTNet-datasets and give the path"),
])
def test_names_that_are_not_there(name, message):
  with pytest.raises(ValueError, match=message):
    data.load(name)


def test_published_frames_are_those_of_the_files(web):
  published = data.published_split("rmd17/water")
  found = data.published_indices(published, train=20, valid=10, seed=1)
  assert sorted([*found.train, *found.valid]) == TRAIN.tolist()
  assert found.test.tolist() == TEST.tolist()
  smaller = data.published_indices(published, train=5, valid=10, test=4, seed=1)
  assert set(smaller.train) <= set(found.train) and smaller.test.tolist() == TEST[:4].tolist()


@pytest.mark.parametrize("sizes, message", [
    ({"train": 30, "valid": 1}, "need 31 frames, the published split has 30 for both"),
    ({"train": 1, "valid": 1, "test": 21}, "test=21: the published split has 20 test frames"),
])
def test_sizes_that_published_splits_do_not_have(sizes, message):
  with pytest.raises(ValueError, match=message):
    data.published_indices(data.Published(TRAIN, TEST), seed=0, **sizes)


def test_splits_that_are_not_published(web):
  with pytest.raises(ValueError, match="'ethanol' has no published split; rmd17/water have"):
    data.published_split("ethanol")
  with pytest.raises(ValueError, match="rmd17/water has the published splits 1 to 1, got 2"):
    data.published_split("rmd17/water", 2)


def test_a_run_with_the_published_split(web, monkeypatch, capsys, tmp_path):
  (tmp_path / "exp.py").write_text(commands.TINY)
  command = (f"--config={tmp_path / 'exp.py'}", f"--workdir={tmp_path / 'run'}",
             "--config.dataset=rmd17/water", "--config.split.method=published",
             "--config.split.test=None")
  status, output, errors = commands.call(monkeypatch, capsys, *command)
  assert status == 0, errors
  said = [line for line in output.splitlines() if line.startswith("fetching")]
  assert said[0] == f"fetching train.csv from {web.first.url}/train.csv to {web.cache / 'rmd17'}"
  assert len(said) == 3
  assert dict(json.loads((tmp_path / "run" / "config.json").read_text())["dataset"])["frames"] == 60


@pytest.mark.parametrize("overrides, message", [
    ({"split__per_seed": True}, "needs split.method=random"),
    ({"test_dataset": "x.npz", "split__test": None}, "test_dataset is given, and split.method=pub"),
    ({"data__drop_repeated": True}, "needs data.drop_repeated=False"),
    ({"split__method": "random", "split__published": 2}, "split.published is for"),
])
def test_settings_that_do_not_go_with_published_splits(overrides, message):
  with pytest.raises(ValueError, match=message):
    configs.validate(tiny.mlp(**{"split__method": "published"} | overrides))


def test_a_file_that_is_too_short_for_the_published_split(web, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "rmd17").mkdir()
  saved(tmp_path / "x.npz", water(40)).rename(tmp_path / "rmd17" / "water")
  config = tiny.mlp(dataset="rmd17/water", split__method="published", data__format="npz")
  with pytest.raises(ValueError, match="has frame 58 of a file with 40 frames"):
    forcefield._splits(config, forcefield.load(config), 0)


def test_every_published_set_is_whole():
  """Two places or more, of which no one is all; checksums and addresses as they are written."""
  for name, published in data.PUBLISHED.items():
    split_files = [file for split in published.splits for file in split]
    for file in (published.file, *split_files):
      assert file.name.startswith(name.partition("/")[0]), name
      assert len({mirror.url.split("/")[2] for mirror in file.mirrors}) >= 2, name
      for mirror in file.mirrors:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", mirror.checksum), name
        assert mirror.url.startswith(("https://", "http://")) and bool(mirror.archive) == bool(
            mirror.member), name
    assert published.units in data.UNITS
