"""The style of all figures: settings of Matplotlib, colours, and files.

Nothing here touches pyplot or a display, or follows the user's settings of Matplotlib.
"""

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from dcnn.base.text import visible_text
from dcnn.results import text
from dcnn.results.palette import PALETTE
from dcnn.results.plots.titles import with_titles

SERIES = ("blue", "vermillion", "green", "orange", "purple", "sky", "wine", "olive")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
WIDTH = 5.0  # inches of a panel: text of nine points can be read on a page 400 pixels wide
_LONGEST_NAME = 34
_LONGEST_OF_TWO = 28  # characters of a label, of two beside each other in a legend
_DPI = 160
_DIGITS = 6  # of positions, which are fractions of the figure: a thousandth of a pixel

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": PALETTE["soft"][0],
    "axes.labelcolor": PALETTE["ink"][0],
    "axes.titlecolor": PALETTE["ink"][0],
    "axes.facecolor": PALETTE["paper"][0],
    "axes.axisbelow": True,
    "figure.facecolor": PALETTE["paper"][0],
    "savefig.facecolor": PALETTE["paper"][0],
    "text.color": PALETTE["ink"][0],
    "text.parse_math": False,  # names of arms are text, whatever they contain
    "xtick.color": PALETTE["soft"][0],
    "ytick.color": PALETTE["soft"][0],
    "xtick.labelcolor": PALETTE["ink"][0],
    "ytick.labelcolor": PALETTE["ink"][0],
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": PALETTE["rule"][0],
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "dcnn",  # equal figures, equal bytes
}


_Arguments = ParamSpec("_Arguments")


@contextlib.contextmanager
def _settings() -> Iterator[None]:
  """Within this context Matplotlib has its own settings and ours, whatever the user's are."""
  shipped: dict[Any, Any] = {
      key: value for key, value in matplotlib.rcParamsDefault.items()
      if key != "backend"}  # which no context gives back, and nothing here asks for
  with matplotlib.rc_context({**shipped, **_STYLE}), warnings.catch_warnings():
    # Text in SVG is text: the reader's fonts have what the one that measures it here has not.
    warnings.filterwarnings("ignore", "Glyph .* missing from")
    yield


def with_style(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
  """Makes a function that draws use the style of this module."""

  @functools.wraps(draw)
  def draw_with_style(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
    with _settings():
      figure = draw(*args, **kwargs)
      for label in figure.findobj(Text):
        label.set_text(visible_text(label.get_text()))  # SVG has no control characters
      engine = figure.get_layout_engine()
      if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")  # once is enough: writing files need not repeat it
        _round_positions(figure)
    return figure

  return draw_with_style


def _round_positions(figure: Figure) -> None:
  """Rounds where parts and axes lie, so that equal figures are equal to the last digit.

  The solver of constrained layouts takes its variables in the order of their addresses.
  """
  for part in figure.subfigs:
    part.bbox_relative.set_points(np.round(part.bbox_relative.get_points(), _DIGITS))
  for ax in figure.axes:
    corners = ax.get_position(original=True).get_points()
    ax.set_position(Bbox(np.round(corners, _DIGITS)))


class Shown(Figure):
  """A figure that a notebook shows as the value of a cell, also where pyplot was never imported."""

  def _repr_svg_(self) -> str:
    return svg(self).decode()


def svg(figure: Figure) -> bytes:
  """The figure as an SVG file; equal figures give equal bytes."""
  file = io.BytesIO()
  with _settings():
    FigureCanvasSVG(figure)
    figure.savefig(file, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None})
  return file.getvalue()


def beside(contents: Sequence[bytes]) -> bytes:
  """SVG files side by side in one, two in a row, which are as wide as a text.

  Args:
    contents: The SVG files, as `svg` returned them, at least one.
  """
  if len(contents) == 1:
    return contents[0]
  elements, rows = list(map(_element, contents)), []
  sizes = [tuple(map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', element)[0]))
           for element in elements]
  width, height = 0.0, 0.0
  for row in range(0, len(elements), _IN_A_ROW):
    left = 0.0
    for element, size in list(zip(elements, sizes, strict=True))[row:row + _IN_A_ROW]:
      element = _SIZE.sub("", element)
      rows.append(element.replace(
          "<svg", f'<svg x="{left:g}" y="{height:g}" width="{size[0]:g}" height="{size[1]:g}"', 1))
      left += size[0]
    width = max(width, left)
    height += max(tall for _, tall in sizes[row:row + _IN_A_ROW])
  return (f'<?xml version="1.0" encoding="utf-8" standalone="no"?>\n'
          f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
          f'width="{width:g}pt" height="{height:g}pt" version="1.1">\n'
          f"{''.join(rows)}\n</svg>\n").encode()


def inline(content: bytes) -> str:
  """An SVG file made fit to stand inside an HTML page.

  Colours of `PALETTE` become the CSS variables `--ink`, `--soft`, ...; the marks have their titles;
  names of groups, which several figures would share, and the fixed size are gone. One that is wider
  than a panel is of the class `wide`.

  Args:
    content: The SVG file, as `svg` returned it.

  Returns:
    The `svg` element.
  """
  element = _element(content)
  wide = float(re.findall(r'viewBox="0 0 ([\d.]+) ', element)[0]) > 72 * WIDTH + 1
  for name, (shade, _) in PALETTE.items():
    element = element.replace(shade, f"var(--{name})")
  element = with_titles(element)
  element = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", element, flags=re.DOTALL)
  element = re.sub(r'<g id="[^"]*"', "<g", element)
  element = _SIZE.sub("", element)
  if wide:
    element = element.replace("<svg", '<svg class="wide"', 1)
  return element


_IN_A_ROW = 2
_SIZE = re.compile(r' (width|height)="[\d.]+pt"')


def _element(content: bytes) -> str:
  element = content.decode()
  return element[element.index("<svg"):]


def light_shade(colour: str) -> str:
  """The shade of a colour of `PALETTE` on light paper."""
  return PALETTE[colour][0]


def legend_columns(labels: Sequence[str]) -> int:
  """How many columns of such labels a panel has room for."""
  return 2 if max(map(len, labels), default=0) <= _LONGEST_OF_TWO else 1


def arm_label(name: str) -> str:
  """The name of an arm without its middle where it is too long for a label."""
  return text.shorten(name, _LONGEST_NAME)  # here, because ticks get their text after `with_style`
