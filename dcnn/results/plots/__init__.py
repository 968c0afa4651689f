"""Figures of a sweep: arrays in, Matplotlib figure out.

Values arrive in the unit they are shown in. `inline` makes the colours of `PALETTE` CSS variables,
so that a figure inside a page follows the page's colours.
"""

from dcnn.results.plots.curves import Curve, CurvePanel, learning_curves
from dcnn.results.plots.pictures import Field, Parity, prediction_plot
from dcnn.results.plots.strips import Strip, StripPanel, strip_plot
from dcnn.results.plots.style import inline, svg

__all__ = [
    "Curve", "CurvePanel", "Field", "Parity", "Strip", "StripPanel", "inline", "learning_curves",
    "prediction_plot", "strip_plot", "svg"]
