"""Figures of a sweep: arrays in, Matplotlib figure out.

A function draws one panel, as wide as a narrow page, and `beside` puts the panels of a file side by
side. Values arrive in the unit they are shown in. `inline` makes the colours of `PALETTE` CSS
variables, so that a figure inside a page follows the page's colours, and it alone has titles that
show under the pointer.
"""

from dcnn.results.plots.curves import Curve, CurvePanel, learning_curves
from dcnn.results.plots.effects import EffectPanel, Ratio, effect_plot
from dcnn.results.plots.heat_maps import HeatMap, heat_map
from dcnn.results.plots.pictures import Field, Parity, prediction_plot
from dcnn.results.plots.strips import Strip, StripPanel, strip_plot
from dcnn.results.plots.style import beside, inline, svg
from dcnn.results.plots.titles import without_titles
from dcnn.results.plots.tuning import tuning_plot

__all__ = [
    "Curve", "CurvePanel", "EffectPanel", "Field", "HeatMap", "Parity", "Ratio", "Strip",
    "StripPanel", "beside", "effect_plot", "heat_map", "inline", "learning_curves",
    "prediction_plot", "strip_plot", "svg", "tuning_plot", "without_titles"]
