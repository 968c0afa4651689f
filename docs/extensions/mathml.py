"""Formulae as MathML, which browsers draw themselves: pages need no script from elsewhere."""

from docutils import nodes
from latex2mathml import converter
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def setup(app: Sphinx) -> dict[str, bool]:
  """Makes the renderer known as `mathml`."""
  app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
  return {"parallel_read_safe": True}


def write_inline(writer: HTML5Translator, node: nodes.math) -> None:
  """A formula within a line."""
  writer.body.append(converter.convert(node.astext()))
  raise nodes.SkipNode


def write_block(writer: HTML5Translator, node: nodes.math_block) -> None:
  """A formula on a line of its own."""
  formula = converter.convert(node.astext(), display="block")
  writer.body.append(f'<div class="formula">{formula}</div>')
  raise nodes.SkipNode
