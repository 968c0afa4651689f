"""The tutorials as notebooks: a file of each to download, and a badge that opens it in Colab."""

import pathlib
import re

import jupytext
import nbformat
from sphinx.application import Sphinx
from sphinx.config import Config

DOCS = pathlib.Path(__file__).parents[1]
FOLDER = "notebooks"  # of the built site
_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def setup(app: Sphinx) -> dict[str, bool]:
  """Connects this module with the build."""
  app.connect("config-inited", write)  # before Sphinx looks for the folder
  app.connect("source-read", add_links)
  return {"parallel_read_safe": True}


def write(app: Sphinx, config: Config) -> None:
  """Writes all tutorials as notebooks without outputs, where the build copies them from."""
  folder = DOCS / "_generated" / "files" / FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  for path in sorted((DOCS / "tutorials").glob("*.md")):
    if is_notebook(path.read_text()):
      notebook = jupytext.read(path, fmt="md:myst")
      for cell in notebook.cells:
        cell.source = re.sub(r"\]\((\w+)\.md\)", r"](\1.ipynb)", cell.source)
      notebook.cells.insert(1, _installation(config.repository))
      jupytext.write(notebook, folder / f"{path.stem}.ipynb")


def add_links(app: Sphinx, page: str, source: list[str]) -> None:
  """Puts the links to the notebook below the title of a tutorial."""
  if not (page.startswith("tutorials/") and is_notebook(source[0])):
    return
  file = f"{FOLDER}/{page.rpartition('/')[2]}.ipynb"
  links = f'<a href="../{file}" download>Download this page as a notebook</a>'
  if repository := app.config.repository:
    address = f"https://colab.research.google.com/github/{repository}/blob/gh-pages/{file}"
    links = f'<a href="{address}"><img src="{_BADGE}" alt="Open in Colab"></a> {links}'
  source[0] = re.sub(
      r"^(# .*)$", rf'\1\n\n<p class="notebook-links">{links}</p>', source[0], count=1, flags=re.M)


def is_notebook(text: str) -> bool:
  """Whether a page has cells that are run."""
  return "```{code-cell}" in text


def _installation(repository: str) -> nbformat.NotebookNode:
  """The cell that installs dcnn, or says that it must be installed."""
  if repository:
    return nbformat.v4.new_code_cell(
        f'%pip install -q "dcnn @ git+https://github.com/{repository}"')
  return nbformat.v4.new_markdown_cell(
      "This notebook needs dcnn in the environment of its kernel: `pip install .` in a clone of "
      "the repository.")
