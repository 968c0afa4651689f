"""Docstrings of dcnn for Sphinx: plain text, in which * and | are signs of mathematics."""

import re

import jax
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment

from dcnn import activations

_BEFORE_NAPOLEON = 400
_FORMULA = "    "  # begins the lines of formulae and code; sections are set in by two blanks
_SIGN = re.compile(r"(?<!\\)([*|])")


def setup(app: Sphinx) -> dict[str, bool]:
  """Connects this module with the build."""
  app.connect("builder-inited", unwrap)
  app.connect("autodoc-process-docstring", escape, priority=_BEFORE_NAPOLEON)
  app.connect("autodoc-skip-member", skip)
  app.connect("doctree-read", drop_aliases)
  app.connect("missing-reference", within_dcnn)
  for field in PyObject.doc_field_types:
    if field.name == "variable":
      field.label = "Attributes"  # as the docstrings call them
  return {"parallel_read_safe": True}


def unwrap(app: Sphinx) -> None:
  """Unwraps functions with a rule for their derivative, which autodoc takes for data."""
  for name, value in vars(activations).copy().items():
    if isinstance(value, jax.custom_jvp):
      setattr(activations, name, value.__wrapped__)


def escape(app: Sphinx, what: str, name: str, item: object, options, lines: list[str]) -> None:
  """Escapes the signs that reStructuredText reads, but in code, in formulae and in examples."""
  found, example, formula = [], False, False
  for line in lines:
    example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
    is_set_off = line.startswith(_FORMULA)
    if is_set_off and not formula and found and not found[-1]:
      found += ["::", ""]
      formula = True
    formula = formula and (is_set_off or not line)
    found.append(line if example or formula else _escaped(line))
  lines[:] = found


def _escaped(line: str) -> str:
  return "".join(part if part.startswith("`") else _SIGN.sub(r"\\\1", part)
                 for part in re.split(r"(``?[^`]+``?)", line))


def skip(app: Sphinx, what: str, name: str, item: object, is_skipped: bool, options) -> bool | None:
  """Fields of records stand in the list of attributes of their class."""
  return True if type(item).__name__ == "_tuplegetter" else None


def drop_aliases(app: Sphinx, document: nodes.document) -> None:
  """Removes what autodoc adds to a name of a type: jaxtyping's types are long, and cut wrongly."""
  for paragraph in list(document.findall(nodes.paragraph)):
    if paragraph.astext().startswith("alias of "):
      paragraph.parent.remove(paragraph)


def within_dcnn(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, words: nodes.Element
) -> nodes.reference | None:
  """Finds `labels.fit` and the like, as docstrings name what is in another module of dcnn."""
  target = node.get("reftarget", "")
  if node.get("refdomain") != "py" or target.startswith("dcnn."):
    return None
  node["reftarget"] = f"dcnn.{target}"
  domain = env.get_domain("py")
  found = domain.resolve_xref(
      env, node.get("refdoc", ""), app.builder, node["reftype"], node["reftarget"], node, words)
  node["reftarget"] = target
  return found
