#!/usr/bin/env python3
"""All checks, in fresh virtual environments, so that a missing install step shows.

The oldest Python runs everything, and builds the documentation, whose tutorials are run then; each
other one that is found runs the main job as it is installed and the tests of what computes; the
lowest versions that pyproject.toml allows train, save and go on. Types are checked also against the
newest libraries there are, for whatever Python.
Tests run one after another, because they use all cores; the whole suite comes last.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MINORS = (11, 12, 13, 14)
SELECTION = [f"tests/test_{name}.py" for name in ("models", "primitives", "engine", "sweeps")]
NEWEST = ("jax", "flax", "optax", "orbax-checkpoint", "chex")
table: list[tuple[str, str, str, float]] = []


def main() -> int:
  """Runs all, prints the table of what ran, and returns the exit status."""
  pythons = interpreters()
  if not pythons:
    print("no Python of 3.11 or later that can make virtual environments was found")
    return 1
  oldest = next(iter(pythons))
  with tempfile.TemporaryDirectory() as folder:
    base = pathlib.Path(folder)
    constraints = base / "lowest.txt"
    constraints.write_text("\n".join(lowest()))
    wanted = {
        "lowest": (oldest, [".", "-c", str(constraints)]),
        **{name: (name, [".[test]"]) for name in reversed(pythons) if name != oldest},
        oldest: (oldest, ["-e", ".[test,docs]"])}
    with concurrent.futures.ThreadPoolExecutor(2) as threads:  # of a download and an unpacking
      ready = {
          name: threads.submit(install, name, pythons[python], base / name, arguments)
          for name, (python, arguments) in reversed(wanted.items())}
      newest = threads.submit(
          run, "newest", "download", pip_target(pythons[oldest], base / "newest"), quiet=True)
    usable = [name for name in wanted if ready[name].result()]
    for name in usable:
      if name == oldest:
        check_source(base / name, base / "newest" if newest.result() else None)
        run(name, "documentation", [base / name / "bin/sphinx-build", "-W", "--keep-going", "-q",
                                    "docs", base / "docs"])
        # Of its own, because in the suite one worker would wait for its blocks.
        run(name, "README", [base / name / "bin/python", "-m", "pytest", "-q", "--nightly",
                             "tests/test_readme.py"])
        run(name, "whole suite", [base / name / "bin/python", "-m", "pytest", "-q", "-n", "2"])
      else:
        check_installed(name, base / name)
  return tell()


def interpreters() -> dict[str, str]:
  """Programs of the Pythons found in PATH and in pyenv's folder, by their version, oldest first."""
  pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv")
  found = {}
  for minor in MINORS:
    name = f"python3.{minor}"
    programs = [shutil.which(name), *sorted(pyenv.glob(f"versions/*/bin/{name}"))]
    if sys.version_info[:2] == (3, minor):
      programs.insert(0, sys.executable)
    usable = [str(program) for program in programs if program and is_usable(str(program), minor)]
    if usable:
      found[f"3.{minor}"] = usable[0]
  return found


def is_usable(program: str, minor: int) -> bool:
  """Whether it starts, is what its name says (pyenv's need not be), and has venv."""
  code = f"import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, {minor}))"
  try:
    return subprocess.run([program, "-c", code], capture_output=True, timeout=60).returncode == 0
  except (OSError, subprocess.SubprocessError):
    return False


def lowest() -> list[str]:
  """The lowest version that is allowed of each dependency, exactly."""
  found = []
  for requirement in PROJECT["project"]["dependencies"]:
    name, version = re.fullmatch(r"([\w-]+)>=([\d.]+).*", requirement).groups()
    found.append(f"{name}=={version}")
  return found


def install(name: str, python: str, folder: pathlib.Path, arguments: Sequence[str]) -> bool:
  """Makes an environment; returns whether it is ready."""
  return run(name, "install", [python, "-m", "venv", folder], quiet=True, row=False) and run(
      name, "install", [folder / "bin/python", "-m", "pip", "install", "-q", *arguments],
      quiet=True)


def pip_target(python: str, folder: pathlib.Path) -> list[str]:
  """The command that puts the newest libraries into a folder, whatever Python they want."""
  return [python, "-m", "pip", "install", "-q", "--target", str(folder), "--no-deps",
          "--ignore-requires-python", "--only-binary=:all:", *NEWEST]


def check_source(environment: pathlib.Path, newest: pathlib.Path | None) -> None:
  """What is checked of the source without running it."""
  programs, name = environment / "bin", environment.name
  run(name, "ruff", [programs / "ruff", "check", "."])
  run(name, "lint-imports", [programs / "lint-imports"])
  python = programs / "python"
  run(name, "pyright", [programs / "pyright", "--pythonpath", python])
  if newest is not None:
    settings, root = newest.with_suffix(".json"), os.path.relpath(ROOT, newest.parent)
    settings.write_text(json.dumps(PROJECT["tool"]["pyright"] | {
        "include": [f"{root}/dcnn"],  # it takes relative paths alone
        "extraPaths": [newest.name, root], "pythonVersion": f"3.{MINORS[-1]}"}))
    run("newest", "pyright", [programs / "pyright", "--pythonpath", python, "-p", settings])


def check_installed(name: str, environment: pathlib.Path) -> None:
  """Runs the main job, and goes on with it, in an empty folder; then the selection of tests."""
  programs = environment / "bin"
  with tempfile.TemporaryDirectory() as empty:
    command = [programs / "dcnn", "--config=ablations:smoke", "--workdir=results"]
    if run(name, "main job, smoke", command, cwd=empty):
      run(name, "continued", [*command, "--config.seeds=4"], cwd=empty)
  if (programs / "pytest").exists():  # the lowest versions have none
    run(name, "selection", [programs / "pytest", "-q", "-n", "2", *SELECTION])


def run(
    name: str, what: str, command: Sequence, *, cwd: str | pathlib.Path = ROOT,
    quiet: bool = False, row: bool = True,
) -> bool:
  """Runs a command, which prints unless it is quiet and goes well, and returns whether it did."""
  started = time.monotonic()
  if not quiet:
    print(f"\n--- {name}: {what}", flush=True)
  done = subprocess.run(
      [str(word) for word in command], cwd=cwd, text=True,
      **({"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if quiet else {}))
  failed = done.returncode != 0
  if failed and quiet:
    print(f"\n--- {name}: {what}\n{done.stdout}", flush=True)
  if row or failed:
    table.append((name, what, "FAILED" if failed else "passed", time.monotonic() - started))
  return not failed


def tell() -> int:
  """Prints what ran; returns the exit status."""
  print(f"\n{'Python':<8} {'what':<18} {'result':<8} {'seconds':>7}")
  for name, what, result, seconds in table:
    print(f"{name:<8} {what:<18} {result:<8} {seconds:>7.0f}")
  return int(any(result != "passed" for _, _, result, _ in table))


if __name__ == "__main__":
  sys.exit(main())
