"""The README's examples for notebooks run as they stand, and what it names exists."""

import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_python_examples_run(capsys, monkeypatch):
  pytest.importorskip("pandas", reason="one example reads results with pandas")
  monkeypatch.chdir(ROOT)
  names: dict = {}
  for example in re.findall(r"```python\n(.*?)```", README, flags=re.S):
    exec(compile(example, "README.md", "exec"), names)  # our own text, checked in beside this test
  printed = capsys.readouterr().out
  assert "| standardize " in printed and "| snake " in printed
  assert names["get_config"]().arms[2] == {"loss.force_weight": 100.0}
  assert names["energy"].shape == () and names["forces"].shape == (9, 3)
  assert names["virial"].shape == (3, 3)
  assert all(np.isfinite(names[name]).all() for name in ("energy", "forces", "virial"))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((\w[\w/.]*\.\w+)\)", README))))
def test_linked_files_exist(path):
  assert (ROOT / path).exists()


def test_nothing_is_left_to_fill_in():
  assert not re.search(r"^RESULTS$|TODO|FIXME", README, flags=re.M)
