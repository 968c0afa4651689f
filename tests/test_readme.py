"""The README's notebook example runs as it stands, and what it names exists."""

import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_notebook_example_runs(capsys):
  example, = re.findall(r"```python\n(.*?)```", README, flags=re.S)
  names: dict = {}
  exec(compile(example, "README.md", "exec"), names)  # our own text, checked in beside this test
  assert names["energy"].shape == (1000,) and names["forces"].shape == (1000, 9, 3)
  assert np.isfinite(names["forces"]).all()
  printed = capsys.readouterr().out
  assert "c=0.5" in printed and "c=1.0" in printed


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((\w[\w/.]*\.\w+)\)", README))))
def test_linked_files_exist(path):
  assert (ROOT / path).exists()


def test_nothing_is_left_to_fill_in():
  assert not re.search(r"^RESULTS$|TODO|FIXME", README, flags=re.M)
