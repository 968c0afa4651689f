"""What the package must never do: run data as code, open connections, start other programs."""

import ast
import os
import pathlib
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from test_data import saved, water

from dcnn import data
from dcnn.base import version
from dcnn.results import report

ROOT = pathlib.Path(__file__).parents[1]
MODULES = {str(path.relative_to(ROOT)): ast.parse(path.read_text())
           for path in sorted((ROOT / "dcnn").rglob("*.py"))}

FORBIDDEN_IMPORTS = {
    "cloudpickle", "code", "ctypes", "dill", "ftplib", "http", "joblib", "marshal", "pdb", "pickle",
    "pty", "requests", "shelve", "smtplib", "socket", "socketserver", "ssl", "telnetlib", "urllib",
    "urllib3", "webbrowser", "xmlrpc", "yaml"}
FORBIDDEN_NAMES = {"__import__", "compile", "eval", "exec", "execfile"}
FORBIDDEN_CALLS = {
    "builtins.compile", "builtins.eval", "builtins.exec", "os.popen", "os.system",
    "tempfile.mktemp", "importlib.import_module", "pandas.read_pickle", "torch.load"}
FORBIDDEN_PREFIXES = ("os.exec", "os.spawn", "os.posix_spawn", "os.fork")


def imports(tree: ast.AST) -> Iterator[str]:
  """Full names of what is imported, inside functions too."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
  """Calls and the dotted names called."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Call):
      yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str | None, str]:
  return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def offences(tree: ast.AST) -> list[str]:
  """Imports and calls that no module may have."""
  found = [name for name in imports(tree) if name.partition(".")[0] in FORBIDDEN_IMPORTS]
  for name, call in calls(tree):
    if name in FORBIDDEN_NAMES | FORBIDDEN_CALLS or name.startswith(FORBIDDEN_PREFIXES):
      found.append(name)
    if keywords(call).get("shell", "False") != "False":
      found.append(f"shell in {name}")
    if name in ("np.load", "numpy.load") and keywords(call).get("allow_pickle") != "False":
      found.append(f"{name} without allow_pickle=False")
    if keywords(call).get("allow_pickle", "False") != "False":
      found.append(f"allow_pickle in {name}")
    if name.endswith("Template"):
      found.append(f"{name} does not escape")
    if name.endswith("Environment") and keywords(call).get("autoescape", "False") == "False":
      found.append(f"{name} without autoescape")
  return found


@pytest.mark.parametrize("module", MODULES)
def test_no_module_has_what_runs_data_or_connects(module):
  assert offences(MODULES[module]) == []


@pytest.mark.parametrize("text", [
    "import pickle", "from urllib.request import urlopen", "import http.client as h",
    "def f():\n  import socket", "eval('1')", "exec(x)", "__import__('x')", "os.system('ls')",
    "os.execvp('a', b)", "run(x, shell=True)", "run(x, shell=flag)", "np.load(path)",
    "np.load(path, allow_pickle=True)", "np.savez(path, allow_pickle=maybe)",
    "jinja2.Template(x)", "jinja2.Environment()", "jinja2.Environment(autoescape=False)"])
def test_the_walk_finds(text):
  assert offences(ast.parse(text))


def importers(package: str) -> list[str]:
  return [module for module, tree in MODULES.items()
          if package in {name.partition(".")[0] for name in imports(tree)}]


def test_one_function_starts_a_program_git_with_fixed_arguments():
  assert importers("subprocess") == ["dcnn/base/version.py", "dcnn/cli/runtime.py"]
  (function,) = [node for node in ast.walk(MODULES["dcnn/base/version.py"])
                 if isinstance(node, ast.FunctionDef)
                 and any("subprocess" in name for name, _ in calls(node))]
  assert function.name == version._describe_checkout.__name__
  assert not function.args.args
  ((name, call),) = [(name, call) for name, call in calls(function) if "subprocess" in name]
  assert name == "subprocess.run" and float(keywords(call)["timeout"]) <= 10
  command = call.args[0]
  assert isinstance(command, ast.List)
  variable = [ast.unparse(word) for word in command.elts if not isinstance(word, ast.Constant)]
  assert ast.unparse(command.elts[0]) == "'git'" and variable == ["str(_checkout())"]


def test_one_module_fetches_what_the_table_of_published_sets_says_and_checks_it():
  assert importers("pooch") == ["dcnn/data/fetching.py"]
  retrieving = [call for name, call in calls(MODULES["dcnn/data/fetching.py"])
                if name == "pooch.retrieve"]
  assert [ast.unparse(argument) for argument in retrieving[0].args[:2]] == [
      "mirror.url", "mirror.checksum"] and len(retrieving) == 1
  assert importers("tarfile") == ["dcnn/data/fetching.py", "dcnn/data/qm9.py"]
  assert not [name for module in importers("tarfile") for name, _ in calls(MODULES[module])
              if name.endswith((".extract", ".extractall"))]


def test_the_command_tries_jax_in_a_process_of_fixed_arguments():
  (call,) = [call for name, call in calls(MODULES["dcnn/cli/runtime.py"])
             if name.startswith("subprocess.")]
  program, *rest = call.args[0].elts
  assert ast.unparse(program) == "sys.executable"
  assert all(isinstance(word, ast.Constant) for word in rest)


def test_one_function_runs_a_file_the_one_of_config():
  assert importers("runpy") == ["dcnn/cli/arguments.py"]
  (function,) = [node for node in ast.walk(MODULES["dcnn/cli/arguments.py"])
                 if isinstance(node, ast.FunctionDef)
                 and any("runpy" in name for name, _ in calls(node))]
  assert function.name == "load_config"


HOSTILE = "\x1b[2J\u202e\n\x00<script>`|[x](javascript:1)\ud800"


def test_templates_escape_whatever_they_show():
  """No template can forget it: both environments do it to every expression."""
  for environment in (report._page(), report._markdown()):
    shown = environment.from_string("{{ text }}|{{ 3 }}").render(text=HOSTILE)
    assert shown.replace("\n", "").isprintable() and "<script" not in shown
  assert report._page().autoescape is True
  assert "\\|" in shown and "\\[x\\]" in shown and "\\`" in shown and "\n" not in shown


def test_one_function_prints_and_one_makes_text_for_live_views():
  found = {}
  for module, tree in MODULES.items():
    for function in ast.walk(tree):
      if isinstance(function, ast.FunctionDef):
        for name, call in calls(function):
          if name in ("print", "Text", "sys.stdout.write", "sys.stderr.write"):
            found.setdefault((module, name), set()).add(function.name)
          if name == "console.print":
            assert ast.unparse(call.args[0]).startswith("_text("), module
  raw = found.pop(("dcnn/cli/aborts.py", "sys.stderr.write"))  # what libraries wrote, as it came
  assert raw == {"watch", "wait"}
  display = "dcnn/jobs/display.py"
  assert found == {(display, "print"): {"say"}, (display, "Text"): {"_text"}}


TEMPLATES = ROOT / "dcnn" / "results" / "templates"


def test_unescaped_templates():
  texts = {path.name: path.read_text() for path in TEMPLATES.glob("*.j2")}
  assert len(texts) == 3
  for text in texts.values():
    assert "autoescape" not in text and "| safe" not in text
  scripts = [part for text in texts.values() for part in re.findall("<script.*", text)]
  assert scripts == ["<script>{{ script }}</script>"]


def test_the_script_of_the_page_only_moves_what_is_there():
  """It makes no elements out of text, reads and sends nothing, and ends where the page ends it."""
  (path,) = TEMPLATES.glob("*.js")
  assert not re.findall(
      r"HTML|\bwrite|eval|Function|import|fetch|Request|Socket|Beacon|http|location|cookie|torage|"
      r"setTimeout|\.on\w+ *=|</|<!--", path.read_text())


# Files that would run code.


class Trap:
  """Creates a file when unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (os.system, (f"touch {self.path}",))


# Imports read marshalled code, which is no event of interest; the names are those of Python's list.
WATCH = """
import sys
from dcnn import data
WATCHED = ("pickle.", "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn",
           "os.spawn", "os.fork", "os.remove", "os.rename", "ftplib.", "urllib.", "http.",
           "shutil.", "webbrowser.")
seen = []
def watch(event, arguments):
  writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
  if event.startswith(WATCHED) or writes:
    seen.append((event, arguments))
sys.addaudithook(watch)
for path in sys.argv[1:]:
  try:
    data.load(path)
    print("loaded", path)
  except (ValueError, OSError) as error:
    print("refused", error)
assert not seen, seen
"""


def trapped_npz(folder):
  bait = np.array([Trap(folder / "touched")] * 5, object)
  return saved(folder / "x.npz", water() | {"energy": bait})


def trapped_provenance(folder):
  bait = np.array([Trap(folder / "touched")], object)
  return saved(folder / "x.npz", water() | {"provenance": bait})


def trapped_npy(folder):
  np.save(folder / "x.npy", np.array([Trap(folder / "touched")], object), allow_pickle=True)
  return (folder / "x.npy").rename(folder / "x.npz")


def plain_pickle(name):
  def make(folder):
    (folder / name).write_bytes(pickle.dumps(Trap(folder / "touched")))
    return folder / name
  return make


def old_trajectory(folder):
  """ASE's first trajectories were pickles after a magic word."""
  (folder / "x.traj").write_bytes(b"PickleTrajectory" + pickle.dumps(Trap(folder / "touched")))
  return folder / "x.traj"


def database_of_a_server(folder):
  (folder / "x.mysql").write_bytes(b"mysql://user:secret@localhost/x")
  return folder / "x.mysql"


TRAPS = (
    trapped_npz, trapped_provenance, trapped_npy, plain_pickle("x.pkl"), plain_pickle("x.npz"),
    plain_pickle("x.xyz"), plain_pickle("x.traj"), plain_pickle("x.db"), old_trajectory,
    database_of_a_server)


def test_loading_malicious_data_does_nothing_else(tmp_path):
  """Python's own audit of a process: no pickle, no connection, no program, no file written."""
  paths = []
  for i, make in enumerate(TRAPS):
    (tmp_path / str(i)).mkdir()
    paths.append(str(make(tmp_path / str(i))))
  sound = str(saved(tmp_path / "sound.npz", water()))
  told = subprocess.run(
      [sys.executable, "-B", "-c", WATCH, *paths, sound], cwd=tmp_path,
      env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
  assert told.returncode == 0, told.stderr[-2000:]
  lines = told.stdout.splitlines()
  assert [line.split(":")[0] for line in lines] == [
      *(f"refused {path}" for path in paths), f"loaded {sound}"]
  assert not list(tmp_path.rglob("touched"))


@pytest.mark.parametrize("code", [
    "import pickle; pickle.loads(pickle.dumps(sys.exit))", "import os; os.system('true')",
    "import subprocess; subprocess.run(['true'])",
    "import socket; socket.socket().connect_ex(('127.0.0.1', 9))", "open('written', 'w')"],
    ids=["pickle", "system", "subprocess", "socket", "file"])
def test_the_audit_sees(code, tmp_path):
  text = WATCH.replace("from dcnn import data", "").replace("    data.load(path)", f"    {code}")
  told = subprocess.run([sys.executable, "-c", text, "x"], cwd=tmp_path, capture_output=True,
                        text=True, timeout=60)
  assert told.returncode == 1 and "AssertionError: [(" in told.stderr


def test_the_trap_is_real(tmp_path):
  pickle.loads(pickle.dumps(Trap(tmp_path / "touched")))
  assert (tmp_path / "touched").exists()


# Files that are written.


def test_generated_data_are_written_whole_under_no_guessable_name(tmp_path):
  """A link under the name that `save` used to write to first is left alone."""
  target = tmp_path / "target"
  target.write_bytes(b"mine")
  (tmp_path / "w.npz.part").symlink_to(target)
  data.save(water(), tmp_path / "w.npz")
  assert target.read_bytes() == b"mine" and (tmp_path / "w.npz.part").is_symlink()
  assert {path.name for path in tmp_path.iterdir()} == {"target", "w.npz.part", "w.npz"}
  assert len(data.load(tmp_path / "w.npz")) == 5


def test_data_are_written_by_the_one_function_that_is_safe():
  for module, tree in MODULES.items():
    if module.startswith("dcnn/data/"):
      writing = [name for name, call in calls(tree)
                 if name.endswith((".write_bytes", ".write_text", ".rename", ".replace"))
                 and not name.startswith("dataclasses.") and "_replace" not in name
                 or name == "open" and len(call.args) > 1 and ast.unparse(call.args[1]) != "'rb'"]
      assert writing == [], module
