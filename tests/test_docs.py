"""What the documentation site is made of; `.ci/checks.py` builds the whole of it."""

import pathlib
from types import SimpleNamespace

import pytest

from dcnn import stats

pytest.importorskip("sphinx", reason="the extra docs is not installed")
pytest.importorskip("jupytext", reason="the extra docs is not installed")
DOCS = pathlib.Path(__file__).parents[1] / "docs"
TUTORIAL = "# One\n\n```{code-cell}\n1 + 1\n```\n"


@pytest.fixture
def extension(monkeypatch):
  """Gives an extension of the site by its name."""
  monkeypatch.syspath_prepend(DOCS / "extensions")
  return pytest.importorskip


def build(repository=""):
  return SimpleNamespace(config=SimpleNamespace(repository=repository))


def test_a_badge_needs_a_public_repository(extension):
  notebooks = extension("notebooks")
  for repository, badges in (("", 0), ("owner/name", 1)):
    source = [TUTORIAL]
    notebooks.add_links(build(repository), "tutorials/one", source)
    assert source[0].startswith("# One\n\n<p") and '"../notebooks/one.ipynb"' in source[0]
    assert source[0].count("github/owner/name/blob/gh-pages/notebooks/one.ipynb") == badges
  source = [TUTORIAL]
  notebooks.add_links(build(), "activations", source)
  assert source == [TUTORIAL]


@pytest.mark.parametrize("link, at_home, in_public", [
    ("[a](../README.md#set-up)", "[a](/manual.md#set-up)", "[a](/manual.md#set-up)"),
    ("[a](tour.md)", "[a](/tour.md)", "[a](/tour.md)"),
    ("[a](../dcnn/labels.py)", "{download}`a <../dcnn/labels.py>`",
     "[a](https://github.com/o/r/blob/main/dcnn/labels.py)"),
    ("[a](../dcnn/data)", "a", "[a](https://github.com/o/r/tree/main/dcnn/data)"),
    ("![a](figures/grid_ace.svg)", "![a](figures/grid_ace.svg)", "![a](figures/grid_ace.svg)"),
    ("[a](https://x.org/y)", "[a](https://x.org/y)", "[a](https://x.org/y)")])
def test_links_of_the_repository_are_links_of_the_site(extension, link, at_home, in_public):
  for repository, wanted in (("", at_home), ("o/r", in_public)):
    source = [link]
    extension("links").read(build(repository), "extending", source)
    assert source == [wanted]


def test_public_names_are_those_of_all_or_those_defined(extension):
  public_names = extension("checks").public_names
  assert public_names("dcnn.stats") == set(stats.__all__)
  found = public_names("dcnn.labels")
  assert {"LabelTransform", "SCHEMES", "Scheme", "fit"} <= found
  assert not {"_ELEMENTS", "Array", "np", "known_forces"} & found
