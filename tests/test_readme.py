"""The README's examples for notebooks run as they stand, and what it names exists."""

import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.nightly
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


PAGES = [ROOT / "README.md", ROOT / "BUILD_NOTES.md", *sorted(
    page for page in (ROOT / "docs").rglob("*.md") if "_generated" not in page.parts)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists(), link
    if anchor:
      headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.M)
      assert anchor in [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-")
                        for head in headings], link


def test_nothing_is_left_to_fill_in():
  assert not re.search(r"^RESULTS$|TODO|FIXME", README, flags=re.M)
