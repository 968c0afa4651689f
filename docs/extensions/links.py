"""Links of pages that lead out of `docs/`, and what stands in for other packages' inventories.

The same files are read in the repository, where links are paths: README.md is the manual of the
site, and files of the source are shown in the repository or, where there is no public one, offered
as downloads.
"""

import os
import pathlib
import re
import zlib

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
MANUAL = "manual"
_LINK = re.compile(r"(!?)\[((?:[^\]\\]|\\.)*)\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")
_INVENTORY = b"# Sphinx inventory version 2\n# Project: none\n# Version: 0\n" \
             b"# The remainder of this file is compressed using zlib.\n"


def setup(app: Sphinx) -> dict[str, bool]:
  """Connects this module with the build."""
  app.add_config_value("repository", "", "env", str)
  app.connect("config-inited", write_empty_inventory)
  app.connect("source-read", read)
  return {"parallel_read_safe": True}


def write_empty_inventory(app: Sphinx, config: Config) -> None:
  """Writes the inventory that names no object, for builds without a connection."""
  target = DOCS / "_generated" / "none.inv"
  target.parent.mkdir(exist_ok=True)
  target.write_bytes(_INVENTORY + zlib.compress(b""))


def read(app: Sphinx, page: str, source: list[str]) -> None:
  """Turns the links of a page into links of the site; the manual is the README.

  Args:
    app: The build.
    page: The name of the page.
    source: Its text, which is replaced.
  """
  text, folder = source[0], (DOCS / page).parent
  if page == MANUAL:
    text, folder = (ROOT / "README.md").read_text(), ROOT
    text = text.replace("# dcnn\n", f"{source[0].rstrip()}\n", 1)
  repository = app.config.repository
  source[0] = _LINK.sub(
      lambda match: _on_site(match, folder, (DOCS / page).parent, repository), text)


def _on_site(
    match: re.Match[str], folder: pathlib.Path, page: pathlib.Path, repository: str) -> str:
  """One link, written in a file in `folder`, for a page that lies in the folder `page`."""
  image, words, path, anchor = match.groups(default="")
  target = (folder / path).resolve()
  inside = target.is_relative_to(DOCS)
  if image or (inside and target.suffix != ".md"):
    return f"{image}[{words}]({os.path.relpath(target, page)})"
  if target == ROOT / "README.md":
    return f"[{words}](/{MANUAL}.md{anchor})"
  if inside:
    return f"[{words}](/{target.relative_to(DOCS)}{anchor})"
  if repository:
    kind = "tree" if target.is_dir() else "blob"
    return (f"[{words}](https://github.com/{repository}/{kind}/main/"
            f"{target.relative_to(ROOT)}{anchor})")
  return words if target.is_dir() else f"{{download}}`{words} <{os.path.relpath(target, page)}>`"
