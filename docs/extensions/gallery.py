"""The gallery of activations, drawn from the table of activations itself."""

import inspect
import math
import pathlib
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from matplotlib.figure import Figure
from sphinx.application import Sphinx

from dcnn import activations
from dcnn.activations import ACTIVATIONS, Activation
from dcnn.results.palette import PALETTE

DOCS = pathlib.Path(__file__).parents[1]
PAGE, FOLDER = "activations", "_generated/activations"
CONSTANTS = (0.1, 0.25, 0.5, 0.75, 1.0)  # of IReLU
TITLES = ("value", "first derivative", "second derivative")
SERIES = ("sky", "green", "blue", "purple", "vermillion")
_REACH, _HIGHEST = 3.0, 3.2  # of the axes
# An even number of points, so that none lies at the kinks at 0.
POINTS = np.linspace(-_REACH, _REACH, 602, dtype=np.float32)


def setup(app: Sphinx) -> dict[str, bool]:
  """Connects this module with the build."""
  app.connect("builder-inited", draw_all)
  app.connect("source-read", add_sections)
  return {"parallel_read_safe": True}


def draw_all(app: Sphinx) -> None:
  """Draws every activation on light and on dark paper."""
  (DOCS / FOLDER).mkdir(parents=True, exist_ok=True)
  for name in ACTIVATIONS:
    drawn = curves(name)
    for shade, paper in enumerate(("light", "dark")):
      draw(drawn, shade).savefig(
          DOCS / FOLDER / f"{name}_{paper}.svg", transparent=True, metadata={"Date": None})


def add_sections(app: Sphinx, page: str, source: list[str]) -> None:
  """Adds a section for each entry of the table to the page of the gallery."""
  if page == PAGE:
    source[0] += "".join(section(name, record) for name, record in ACTIVATIONS.items())


def curves(name: str) -> dict[str, np.ndarray]:
  """Values, first and second derivatives (3, points) of what is drawn of an activation.

  That is itself, or, of IReLU, itself with several constants, by what the legend calls them.
  """
  function = ACTIVATIONS[name].function
  if name != "irelu":
    return {"": derivatives(function)}
  return {f"c = {c:g}": derivatives(partial(function, c=c)) for c in CONSTANTS}


def derivatives(function: Callable[[jax.Array], jax.Array]) -> np.ndarray:
  """A function, its first and its second derivative (3, points) at all points."""
  first = jax.grad(function)
  return np.stack([jax.vmap(each)(POINTS) for each in (function, first, jax.grad(first))])


def draw(drawn: dict[str, np.ndarray], shade: int) -> Figure:
  """Values, first and second derivatives side by side.

  Args:
    drawn: The curves, as `curves` gives them; a single one has no legend.
    shade: 0 for light paper, 1 for dark.
  """
  ink, soft, rule = (PALETTE[name][shade] for name in ("ink", "soft", "rule"))
  colours = SERIES if len(drawn) > 1 else ("blue",)
  figure = Figure(figsize=(6.6, 2.1), layout="constrained")
  for order, (ax, title) in enumerate(zip(figure.subplots(1, 3), TITLES, strict=True)):
    for (label, each), colour in zip(drawn.items(), colours, strict=True):
      ax.plot(POINTS, each[order], color=PALETTE[colour][shade], label=label)
    low, high = ax.get_ylim()
    ax.set(xlim=(-_REACH, _REACH), ylim=(max(low, -_HIGHEST), min(high, _HIGHEST)))
    ax.set_title(title, color=ink, fontsize=10)
    ax.grid(color=rule, linewidth=0.7)
    ax.tick_params(color=soft, labelcolor=soft, labelsize=8.5)
    ax.spines[:].set_color(rule)
  if len(drawn) > 1:
    figure.axes[0].legend(frameon=False, labelcolor=ink, fontsize=8)
  return figure


def section(name: str, record: Activation) -> str:
  """The section of an activation: what its docstring says first, its facts and its curves."""
  return f"""
## {name}

{plain(activations.meaning(name))}

{facts(record)} See {{py:func}}`~dcnn.activations.{record.function.__name__}`.

```{{image}} {FOLDER}/{name}_light.svg
:class: only-light
:alt: {name}, its first and its second derivative
```
```{{image}} {FOLDER}/{name}_dark.svg
:class: only-dark
:alt: {name}, its first and its second derivative
```
"""


def plain(text: str) -> str:
  """Text of a docstring, in which signs of mathematics mean themselves, as Markdown."""
  return text.replace("*", r"\*").replace("_", r"\_").replace("|", r"\|")


def facts(record: Activation) -> str:
  """How smooth it is, and the gain of the weights that read it, at the default parameters."""
  order = record.order_at()
  smooth = {
      None: "its smoothness is not known",
      0.0: "it is continuous, and its first derivative jumps",
      1.0: "its first derivative is continuous, and the second jumps",
      math.inf: "all derivatives are continuous",
  }.get(order, f"its derivatives are continuous up to that of order {order:g}")
  defaults = inspect.signature(record.function).parameters
  at = ", ".join(f"`{name} = {defaults[name].default}`" for name in record.parameters)
  sentence = f"At {at}, {smooth}" if at else f"{smooth[0].upper()}{smooth[1:]}"
  return f"{sentence}; the gain that preserves variance is {float(record.gain()):.4g}."
