"""The choice of learning rates: validation score against rate, a small panel for each arm."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcnn.base.text import number_text, one_line
from dcnn.results import text
from dcnn.results.facts import Scores
from dcnn.results.plots.log_axes import set_log_axis
from dcnn.results.plots.style import WIDTH, light_shade, with_style
from dcnn.results.plots.titles import set_titles

_COLUMNS = 3
_LONGEST_NAME = 20


@with_style
def tuning_plot(arms: Sequence[Scores]) -> Figure:
  """Draws the score against the learning rate for each arm; the chosen rate is a filled diamond.

  A rate at which a run failed is a cross at the top; one at which training was stopped early is a
  hollow square, apart from the line, because its score is of fewer steps.

  Args:
    arms: The arms, at least one.

  Returns:
    A figure with three panels in a row, on the same axes.

  Raises:
    ValueError: If there is no arm.
  """
  if not arms:
    raise ValueError("expected at least one arm, got none")
  rows = -(-len(arms) // _COLUMNS)
  figure = Figure(figsize=(WIDTH, 0.7 + 1.25 * rows), layout="constrained")
  grid = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True, sharey=True)
  for ax, each in zip(grid.flat, arms, strict=False):
    _draw_scores(ax, each)
  for ax in grid.flat[len(arms):]:
    ax.set_axis_off()
  scores = np.concatenate([each.scores for each in arms])
  set_log_axis(grid[0, 0].yaxis, scores[np.isfinite(scores) & (scores > 0)])
  rates = np.unique(np.concatenate([each.rates for each in arms]))
  set_log_axis(grid[0, 0].xaxis, rates)
  shown = dict.fromkeys(rates[[0, len(rates) // 2, -1]].tolist())  # for all there is no room
  grid[0, 0].set_xticks(list(shown), [f"{rate:g}" for rate in shown])
  for ax in grid.flat:
    ax.tick_params(labelsize=7.5)
  figure.supxlabel("learning rate", fontsize=9)
  figure.supylabel("validation score", fontsize=9)
  return figure


def _draw_scores(ax: Axes, each: Scores) -> None:
  shown = np.isfinite(each.scores) & (each.scores > 0)
  whole, short = shown & ~each.stopped, shown & each.stopped
  (line,) = ax.plot(
      each.rates[whole], each.scores[whole], "o-", color=light_shade("blue"), linewidth=1.3,
      markersize=3.4)
  (squares,) = ax.plot(
      each.rates[short], each.scores[short], "s", color=light_shade("soft"), markersize=3.4,
      markerfacecolor=light_shade("paper"))
  best = shown & (each.rates == each.chosen)
  (diamond,) = ax.plot(
      each.rates[best], each.scores[best], "D", color=light_shade("vermillion"), markersize=5)
  failed = ~np.isfinite(each.scores)
  (crosses,) = ax.plot(
      each.rates[failed], np.full(np.sum(failed), 0.93), "x", color=light_shade("soft"),
      markersize=4, transform=ax.get_xaxis_transform())
  titles = [f"{each.arm}, learning rate {rate:g}: score {number_text(score)}"
            for rate, score in zip(each.rates, each.scores, strict=True)]
  for marks, of in ((line, whole), (squares, short), (diamond, best), (crosses, failed)):
    set_titles(marks, list(itertools.compress(titles, of)))
  ax.set_title(text.shorten(one_line(each.arm), _LONGEST_NAME), loc="left", fontsize=7.5, pad=3)
  ax.grid(True)
