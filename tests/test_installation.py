"""What is built from the source: the wheel and the source archive, and dcnn installed from them."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import dcnn
from dcnn.base import version

ROOT = pathlib.Path(__file__).parents[1]
HIDDEN = shutil.ignore_patterns("__pycache__", version.FILE)


def told(*command, **options) -> str:
  return subprocess.run(
      [*map(str, command)], check=True, capture_output=True, text=True, timeout=300,
      **options).stdout


def git(folder, *arguments) -> str:
  return told("git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@t", *arguments).strip()


def built(source, target) -> pathlib.Path:
  told(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", source / "dist", cwd=source)
  (path,) = (source / "dist").glob("*.whl" if target == "wheel" else "*.tar.gz")
  return path


def revision_in(wheel: pathlib.Path) -> str:
  with zipfile.ZipFile(wheel) as files:
    return files.read(f"dcnn/base/{version.FILE}").decode().strip()


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
  """The source, without git."""
  folder = tmp_path / "source"
  for name in ("dcnn", "experiments"):
    shutil.copytree(ROOT / name, folder / name, ignore=HIDDEN)
  for name in ("pyproject.toml", "hatch_build.py", "README.md"):
    shutil.copy(ROOT / name, folder / name)
  return folder


@pytest.fixture
def checkout(source) -> pathlib.Path:
  """The source as a commit of its own."""
  (source / ".gitignore").write_text("dist/\n")
  git(source, "init", "-q")
  git(source, "add", ".")
  git(source, "commit", "-qm", "all")
  return source


@pytest.fixture
def installed(checkout, tmp_path) -> pathlib.Path:
  """The wheel alone, unpacked as an installation would."""
  folder = tmp_path / "installed"
  with zipfile.ZipFile(built(checkout, "wheel")) as files:
    files.extractall(folder)
  return folder


def python(folder, *arguments) -> str:
  """Output of Python with dcnn from `folder`, in a folder without anything of it."""
  empty = folder.parent / "empty"
  empty.mkdir(exist_ok=True)
  return told(sys.executable, *arguments, cwd=empty,
              env={**os.environ, "PYTHONPATH": str(folder)}).strip()


def test_the_version_is_that_of_the_installation(installed):
  printed = python(installed, "-c", "import dcnn, importlib.metadata as m; "
                                    "print(dcnn.__file__, dcnn.__version__, m.version('dcnn'))")
  assert printed.split() == [
      str(installed / "dcnn" / "__init__.py"), dcnn.__version__, dcnn.__version__]
  assert python(installed, "-m", "dcnn", "--version") == f"dcnn {dcnn.__version__}"


def test_the_wheel_has_what_it_needs(installed):
  names = {path.relative_to(installed / "dcnn").as_posix()
           for path in (installed / "dcnn").rglob("*") if path.is_file()}
  here = {path.relative_to(ROOT / "dcnn").as_posix() for path in (ROOT / "dcnn").rglob("*")
          if path.is_file() and "__pycache__" not in path.parts} - {f"base/{version.FILE}"}
  experiments = {f"experiments/{path.name}" for path in (ROOT / "experiments").glob("*.py")}
  assert names == here | experiments | {f"base/{version.FILE}"}
  assert "py.typed" in names and "experiments/ablations.py" in names


def test_a_plain_installation_knows_the_revision_it_was_built_from(checkout, installed):
  assert python(installed, "-c", "from dcnn.base import version; print(version.revision())") == (
      git(checkout, "rev-parse", "--short=12", "HEAD"))


def test_changes_are_told_of_in_the_wheel(checkout):
  with (checkout / "dcnn" / "base" / "systems.py").open("a") as file:
    file.write("# changed\n")
  assert revision_in(built(checkout, "wheel")) == (
      f"{git(checkout, 'rev-parse', '--short=12', 'HEAD')}+changes")


def test_the_source_archive_passes_the_revision_on(checkout, tmp_path):
  with tarfile.open(built(checkout, "sdist")) as files:
    files.extractall(tmp_path / "unpacked", filter="data")
  (unpacked,) = (tmp_path / "unpacked").iterdir()
  assert revision_in(built(unpacked, "wheel")) == git(checkout, "rev-parse", "--short=12", "HEAD")


def test_a_build_without_git_says_nothing(source):
  with zipfile.ZipFile(built(source, "wheel")) as files:
    assert f"dcnn/base/{version.FILE}" not in files.namelist()
    assert "dcnn/experiments/ablations.py" in files.namelist()


def test_a_build_leaves_the_source_as_it_was(checkout):
  built(checkout, "wheel")
  assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.nightly
def test_the_wheel_alone_runs_the_main_job(installed, tmp_path):
  python(installed, "-m", "dcnn", "--config=ablations:smoke", "--workdir=results")
  assert (tmp_path / "empty" / "results" / "report.html").exists()


@pytest.mark.parametrize("package", ["jax", "jaxlib"])
def test_the_versions_that_are_refused_are_not_installed(package):
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  (required,) = [each for each in project["dependencies"] if each.startswith(f"{package}>")]
  assert re.findall(r"!=([\d.]+)", required) == list(dcnn._REFUSED)
