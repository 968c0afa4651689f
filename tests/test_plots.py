"""Figures: what they show, that labels do not overlap, and that they do not touch global state."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
from xml.etree import ElementTree

import daily
import jaxtyping
import matplotlib
import matplotlib.style
import numpy as np
import pytest
import synthetic_results
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dcnn.results import palette, plots, storage
from dcnn.results.facts import Scores
from dcnn.results.plots import titles
from dcnn.stats import Interval

NAN, INF = float("nan"), float("inf")


def strip(arm, errors, verdict="undecided"):
  errors = np.array(errors, float)
  finite = errors[np.isfinite(errors)]
  with np.errstate(divide="ignore"):
    centre = float(np.exp(np.log(finite).mean())) if finite.size else NAN
  return plots.Strip(arm, errors, Interval(centre, centre / 1.1, centre * 1.1), verdict)


def panel(arms=4, seeds=6, constant=NAN, name="arm_{}", scale=10.0):
  rng = np.random.default_rng(0)
  strips = [strip(name.format(i), scale * rng.lognormal(0.1 * i, 0.1, seeds),
                  "baseline" if i == 0 else list(palette.VERDICT_COLOURS)[1 + i % 4])
            for i in range(arms)]
  half = arms // 2
  return plots.StripPanel(
      "force_loss", "meV/Å", [("First", strips[:half]), ("Second", strips[half:])], constant)


def curves(arms=3, seeds=4, points=5, failed=0):
  rng = np.random.default_rng(0)
  steps = np.arange(1, points + 1) * 100
  made = []
  for i in range(arms):
    errors = 50 * rng.lognormal(0.1 * i, 0.1, (seeds, points)) / steps**0.5
    errors[:failed, points // 2:] = NAN
    made.append(plots.Curve(f"arm_{i}", steps, errors, failed))
  return plots.CurvePanel("force_loss", "meV/Å", made)


def parity(shift=0.01, **changes):
  true = np.random.default_rng(0).normal(size=30)
  return plots.Parity("width", "m", true, true + shift)._replace(**changes)


def field(points=(7, 5), **changes):
  x, t = (np.linspace(0, 1, count) for count in points)
  true = np.sin(2 * np.pi * (x[None] - t[:, None]))
  return plots.Field("speed", "m/s", true, true + 0.01, x, t, ("x (m)", "t (s)"))._replace(
      **changes)


def effects(largest=2, others=1, points=5):
  steps = np.arange(1, points + 1) * 100
  ratios = [plots.Ratio(f"arm_{i}", steps, *(
      (1 + 0.2 * i) * factor * np.ones(points) for factor in (1.0, 0.9, 1.1)))
            for i in range(1, 1 + largest + others)]
  return plots.EffectPanel("First", "force_loss", "base", ratios[:largest], ratios[largest:])


def heat_map(**changes):
  errors = np.array([[1.0, 2.0, 4.0], [1.0, 3.0, NAN]])
  return plots.HeatMap("First", "force_loss", "meV/Å", ("labels", "activation.c"), ("x", "y"),
                       ("0.1", "0.5", "1.0"), errors)._replace(**changes)


def scores(arm, worst=3.0, stopped=(False, False, False)):
  rates = np.array([1e-3, 3e-3, 1e-2])
  return Scores(arm, rates, np.array([2.0, 1.0, worst]), np.array(stopped), 3e-3)


FIGURES = {
    "strips": lambda: plots.strip_plot(panel(constant=15.0)),
    "curves": lambda: plots.learning_curves(curves(failed=1)),
    "effects": lambda: plots.effect_plot(effects()),
    "map": lambda: plots.heat_map(heat_map()),
    "tuning": lambda: plots.tuning_plot([scores("a"), scores("b", INF)]),
    "parity": lambda: plots.prediction_plot(parity(unit="eV/A")),
    "field": lambda: plots.prediction_plot(field())}


def texts(figure):
  return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def boxes(figure, labels):
  renderer = FigureCanvasAgg(figure).get_renderer()
  return [label.get_window_extent(renderer) for label in labels if label.get_text()]


# Strip plot.


def test_every_run_is_a_dot_and_every_failure_is_noted():
  strips = [strip("good", [1.0, 2.0, 3.0], "baseline"), strip("bad", [4.0, INF, NAN])]
  figure = plots.strip_plot(plots.StripPanel("m", "meV", [("T", strips)], NAN))
  dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
  np.testing.assert_array_equal(np.concatenate([line.get_xdata() for line in dots]), [1, 2, 3, 4])
  assert "2 of 3 failed" in texts(figure)


def test_an_arm_without_a_finished_run_keeps_its_row():
  strips = [strip("good", [1.0, 2.0], "baseline"), strip("bad", [INF, INF])]
  figure = plots.strip_plot(plots.StripPanel("m", "meV", [("T", strips)], NAN))
  assert "bad" in texts(figure) and "2 of 2 failed" in texts(figure)


@pytest.mark.parametrize("name", ["arm_{}", "c=0.{},init_matched,standardize", "long" * 60 + "{}"],
                         ids=["short", "usual", "long"])
@pytest.mark.parametrize("arms", [2, 35])
def test_labels_of_arms_neither_overlap_nor_leave_the_figure(name, arms):
  figure = plots.strip_plot(panel(arms, name=name))
  found = sorted(boxes(figure, figure.axes[0].get_yticklabels()), key=lambda box: box.y0)
  assert len(found) == arms
  assert all(low.y1 <= high.y0 for low, high in zip(found, found[1:], strict=False))
  assert min(box.x0 for box in found) >= 0
  assert max(box.x1 for box in found) <= figure.axes[0].get_window_extent().x0


def test_hostile_names_are_plain_text():
  figure = plots.strip_plot(panel(name=r"$\frac{{1}}$<b>&{}"))
  assert r"$\frac{1}$<b>&1" in texts(figure)
  ElementTree.fromstring(plots.svg(figure))


@pytest.mark.parametrize(("constant", "drawn"), [(15.0, True), (1e4, False), (NAN, False)],
                         ids=["near", "far", "unknown"])
def test_constant_predictor_is_drawn_where_it_is_near(constant, drawn):
  figure = plots.strip_plot(panel(constant=constant))
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  assert ("constant predictor" in labels) == drawn
  assert figure.axes[0].get_xlim()[1] < 1e3


@pytest.mark.parametrize("spread", [1.02, 1.3, 3.0, 30.0, 1e3, 1e7])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 7e3])
def test_log_axes_have_readable_ticks(scale, spread):
  strips = [strip("a", [scale, spread * scale], "baseline")]
  figure = plots.strip_plot(plots.StripPanel("m", "meV", [("T", strips)], NAN))
  ax = figure.axes[0]
  low, high = ax.get_xlim()
  ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
  assert 3 <= len(ticks) <= 10
  found = boxes(figure, [tick.label1 for tick in ax.xaxis.get_major_ticks()])
  assert all(left.x1 < right.x0 for left, right in zip(found, found[1:], strict=False))


# Effects, maps and learning rates.


def test_effects_are_lines_of_ratios_with_intervals_for_the_largest():
  figure = plots.effect_plot(effects(largest=2, others=1))
  lines = sorted(float(line.get_ydata()[0]) for line in figure.axes[0].lines)
  np.testing.assert_allclose(lines, [1.0, 1.2, 1.4, 1.6])  # the baseline and three arms
  shown = texts(figure)
  assert {"arm_1", "arm_2", "1 more"} <= set(shown) and "arm_3" not in shown


def test_a_map_has_the_error_of_every_combination():
  shown = texts(plots.heat_map(heat_map()))
  assert shown.count("1.00") == 2 and {"2.00", "4.00", "3.00", "failed"} <= set(shown)
  assert {"labels", "activation.c", "x", "y", "0.1", "0.5", "1.0"} <= set(shown)


@pytest.mark.parametrize(("worst", "stopped", "expected"), [
    (INF, (False, False, False), {"o": [1e-3, 3e-3], "s": [], "D": [3e-3], "x": [1e-2]}),
    (3.0, (True, False, False), {"o": [3e-3, 1e-2], "s": [1e-3], "D": [3e-3], "x": []}),
    (INF, (False, False, True), {"o": [1e-3, 3e-3], "s": [], "D": [3e-3], "x": [1e-2]})],
    ids=["failed", "stopped", "failed and stopped"])
def test_chosen_failed_and_stopped_rates_are_told_apart(worst, stopped, expected):
  ax = plots.tuning_plot([scores("a", worst, stopped)]).axes[0]
  by_marker = {line.get_marker(): line.get_xdata().tolist() for line in ax.lines}
  assert by_marker == expected


@pytest.mark.parametrize("number", [1, 2, 3])
def test_panels_stand_beside_each_other_in_a_file(number):
  contents = [plots.svg(plots.tuning_plot([scores(f"arm {i}")])) for i in range(number)]
  root = ElementTree.fromstring(plots.beside(contents))
  text = "".join(root.itertext())
  assert all(f"arm {i}" in text for i in range(number))
  width, height = (float(root.get(name).removesuffix("pt")) for name in ("width", "height"))
  single = ElementTree.fromstring(contents[0])
  assert width == pytest.approx(min(number, 2) * float(single.get("width").removesuffix("pt")))
  assert height == pytest.approx(-(-number // 2) * float(single.get("height").removesuffix("pt")))


# Learning curves.


def test_a_failed_run_counts_as_infinitely_bad_in_the_median():
  errors = np.array([[1.0, NAN], [2.0, 2.0], [3.0, 3.0]])
  curve = plots.Curve("a", np.array([1, 2]), errors, 1)
  figure = plots.learning_curves(plots.CurvePanel("m", "meV", [curve]))
  np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [2.0, 3.0])
  assert "a (baseline, 1 of 3 failed)" in texts(figure)


def test_a_curve_ends_where_half_of_the_runs_have_failed():
  curve = plots.Curve("a", np.array([1, 2]), np.array([[1.0, NAN], [2.0, NAN]]), 2)
  figure = plots.learning_curves(plots.CurvePanel("m", "meV", [curve]))
  np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [1.5, NAN])


@pytest.mark.parametrize(("arms", "rows"), [(1, 1), (7, 1), (8, 2), (35, 6)])
def test_many_arms_take_more_rows_each_with_the_baseline(arms, rows):
  figure = plots.learning_curves(curves(arms))
  assert len(figure.axes) == rows
  assert sum("arm_0 (baseline)" == text for text in texts(figure)) == rows
  assert {f"arm_{i}" for i in range(1, arms)} <= set(texts(figure))


# Predictions.


@pytest.mark.parametrize(("unit", "shift", "words"), [
    ("eV/A", 0.02, ["MAE 20.0 meV/Å\nRMSE 20.0 meV/Å", "reference (eV/Å)", "error (meV/Å)"]),
    ("eV", 0.01, ["MAE 10.0 meV\nRMSE 10.0 meV", "reference (eV)", "predicted (eV)"]),
    ("m", 25.0, ["MAE 25.0 m\nRMSE 25.0 m", "error (m)"]),
    ("1", 0.25, ["30 values\nMAE 0.250\nRMSE 0.250", "reference", "error"])],
    ids=["per length", "small", "large", "none"])
def test_parity_states_errors_with_units(unit, shift, words):
  shown = texts(plots.prediction_plot(parity(shift, unit=unit)))
  for word in words:
    assert any(word == text or "\n" in word and word in text for text in shown)


def meshes(figure):
  return [found for found in figure.findobj(matplotlib.collections.QuadMesh)
          if found.get_array().ndim == 2 and found.get_array().shape[1] > 1]


def test_a_field_is_drawn_as_reference_prediction_and_error():
  panel = field()
  reference, prediction, error = meshes(plots.prediction_plot(panel))
  np.testing.assert_array_equal(reference.get_array(), panel.true)
  np.testing.assert_array_equal(prediction.get_array(), panel.predicted)
  np.testing.assert_allclose(error.get_array(), 10.0)  # in thousandths
  assert reference.get_clim() == prediction.get_clim() == (
      min(panel.true.min(), panel.predicted.min()), max(panel.true.max(), panel.predicted.max()))
  assert error.get_clim() == (-error.get_clim()[1], pytest.approx(10.0))
  assert reference.get_cmap().name == prediction.get_cmap().name != error.get_cmap().name


def test_cells_of_a_field_lie_around_its_coordinates():
  panel = field((3, 2), horizontal=np.array([0.0, 1.0, 4.0]), vertical=np.array([5.0, 6.0]))
  corners = meshes(plots.prediction_plot(panel))[0].get_coordinates()
  np.testing.assert_array_equal(corners[0, :, 0], [-0.5, 0.5, 2.5, 5.5])
  np.testing.assert_array_equal(corners[:, 0, 1], [4.5, 5.5, 6.5])


@pytest.mark.parametrize("true", [np.zeros((5, 7)), np.full((5, 7), NAN), np.full((5, 7), 1e9)],
                         ids=["zero", "unknown", "huge"])
@pytest.mark.filterwarnings("error")
def test_fields_without_a_range(true):
  ElementTree.fromstring(plots.svg(plots.prediction_plot(field(true=true, predicted=true))))


def lightness(name):
  colours = matplotlib.colormaps[name](np.linspace(0, 1, 65))
  return np.array([luminance(matplotlib.colors.to_hex(colour)) for colour in colours])


def test_colours_of_fields_can_be_read_by_their_lightness():
  """So with any kind of colour vision, and in print."""
  assert np.all(np.diff(lightness(plots.pictures.VALUE_COLOURS)) > 0)
  errors = lightness(plots.pictures.ERROR_COLOURS)
  assert errors.argmax() == 32 and np.all(np.diff(errors[:33]) > 0) and np.all(
      np.diff(errors[32:]) < 0)


# Titles.


def titled(name="arm_{}"):
  one = panel(name=name)
  groups = [(title, [each._replace(titles=[f"{each.arm}, seed {seed}" for seed in range(6)])
                     for each in strips]) for title, strips in one.groups]
  return one._replace(groups=groups)


@pytest.mark.parametrize("name", ["arm_{}", "<script>\"'&{}</title>", "#1d2329 $x${}\ny"],
                         ids=["usual", "markup", "colour"])
def test_each_dot_of_a_page_has_a_title_and_a_file_is_as_without(name):
  content = plots.svg(plots.strip_plot(titled(name)))
  assert plots.without_titles(content) == plots.svg(plots.strip_plot(panel(name=name)))
  root = ElementTree.fromstring(plots.inline(content))
  titles = [mark[0].text for mark in root.iter("{http://www.w3.org/2000/svg}use") if len(mark)]
  assert titles == [" ".join(f"{name.format(arm)}, seed {seed}".split())
                    for arm in range(4) for seed in range(6)]


def test_runs_that_failed_are_told_at_their_count():
  strips = [strip("a", [1.0, INF, INF], "baseline")._replace(titles=["zero", "one", "two"])]
  text = plots.inline(plots.svg(plots.strip_plot(plots.StripPanel("m", "1", [("T", strips)], NAN))))
  assert "<title>one; two</title>" in text and "<title>zero</title>" in text


def test_rates_are_told_with_the_whole_name_of_the_arm():
  text = plots.inline(plots.svg(plots.tuning_plot([scores("c=0.5,init_matched,standardize", INF)])))
  for rate, score in (("0.001", "2.00"), ("0.003", "1.00"), ("0.01", "inf")):
    title = f"c=0.5,init_matched,standardize, learning rate {rate}: score {score}"
    assert text.count(f"<title>{title}</title>") == (2 if rate == "0.003" else 1)  # it is chosen


def test_titles_that_do_not_go_with_the_marks_are_refused():
  figure = plots.strip_plot(panel())
  figure.axes[0].lines[-1].set_marker("o")
  titles.set_titles(figure.axes[0].lines[-1], ["one", "two", "three"])
  with pytest.raises(ValueError, match="argument"):
    plots.inline(plots.svg(figure))


# All figures.


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_equal_figures_give_equal_bytes(draw):
  assert plots.svg(draw()) == plots.svg(draw())


@pytest.mark.parametrize("draw", [draw for name, draw in FIGURES.items() if name != "map"],
                         ids=[name for name in FIGURES if name != "map"])
def test_every_axis_has_a_label_with_a_unit_or_says_what_has_none(draw):
  figure = draw()
  labels = [label for ax in figure.axes for label in (ax.get_xlabel(), ax.get_ylabel()) if label]
  labels += [label for label in (figure.get_supxlabel(), figure.get_supylabel()) if label]
  assert labels
  assert all(re.search(r"\((meV/Å|mm?|s|m?m/s|eV/Å)\)$|(step|baseline|rate|score)$", label)
             for label in labels)


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_inline_figures_take_their_colours_from_the_page(draw):
  text = plots.inline(plots.svg(draw()))
  ElementTree.fromstring(text)
  assert text.startswith("<svg") and "var(--ink)" in text
  fixed = draw is FIGURES["map"]  # its cells have the colours of a map, and text that goes with it
  assert fixed or not re.findall(r"#[0-9a-f]{6}\b", text)
  assert "<g id" not in text and "<style" not in text
  assert not re.match(r"<svg[^>]* (width|height)=", text)


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_global_settings_stay_as_they_are(draw):
  before = dict(matplotlib.rcParams)
  plots.svg(draw())
  assert dict(matplotlib.rcParams) == before


def luminance(colour):
  channels = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
  linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055)**2.4)
  return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("shade", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_the_paper(shade):
  """Contrast as in the Web Content Accessibility Guidelines: text 4.5, marks at least 2."""
  paper = luminance(palette.PALETTE["paper"][shade])
  for name, shades in palette.PALETTE.items():
    light, dark = sorted((paper, luminance(shades[shade])), reverse=True)
    least = {"ink": 7, "soft": 4.5, "rule": 1.1, "paper": 1}.get(name, 2)
    assert (light + 0.05) / (dark + 0.05) >= least, name


# The user's settings of matplotlib.

USERS = {
    "tex": {"text.usetex": True}, "font": {"font.family": "Comic Sans MS", "font.size": 30},
    "serif": {"font.family": "serif", "mathtext.fontset": "stix"},
    "bold": {"font.weight": "bold", "axes.labelweight": "bold", "font.style": "italic"},
    "saving": {"savefig.bbox": "tight", "savefig.dpi": 7, "savefig.transparent": True,
               "savefig.pad_inches": 3},
    "axes": {"axes.grid": True, "axes.spines.left": False, "axes.formatter.use_locale": True,
             "axes.xmargin": 0.4, "axes.unicode_minus": False},
    "svg": {"svg.fonttype": "path", "svg.hashsalt": None, "svg.image_inline": False},
    "paths": {"path.simplify": False, "path.sketch": (1, 100, 2)},
    "lines": {"lines.linewidth": 9, "lines.linestyle": ":", "patch.linewidth": 4},
    "layout": {"figure.autolayout": True, "figure.dpi": 31, "figure.constrained_layout.use": True},
    "dark": "dark_background", "ggplot": "ggplot", "classic": "classic"}


@pytest.mark.parametrize("name", daily.only(("tex", "classic"), USERS))
def test_figures_do_not_follow_the_users_settings(name):
  settings = USERS[name]
  plain = {name: plots.svg(draw()) for name, draw in FIGURES.items()}
  with matplotlib.rc_context():
    if isinstance(settings, str):
      matplotlib.style.use(settings)
    else:
      matplotlib.rcParams.update(settings)
    before = dict(matplotlib.rcParams)
    assert {name: plots.svg(draw()) for name, draw in FIGURES.items()} == plain
    assert dict(matplotlib.rcParams) == before


DRAWING = """
import sys
sys.path.insert(0, sys.argv[1])
from dcnn.results import load, report, summary
figures = report.load_figures()
result = load(sys.argv[2])
drawn, failed = figures.drawings(result, summary.compare(result))
assert not failed and {"errors", "learning_curves_1", "parity"} <= set(drawn), (failed, [*drawn])
sys.stdout.buffer.write(b"".join(drawing.file for drawing in drawn.values()))
"""


@pytest.fixture(scope="module")
def plain_drawing(tmp_path_factory):
  """Files of a result, and its figures as a process draws them that has no settings."""
  folder = tmp_path_factory.mktemp("plain")
  result = synthetic_results.result(seeds=2, chunks=2, frames=5)
  storage.save(dataclasses.replace(result, tables=result.tables[2:]), folder / "out")
  return folder / "out", drawn_by_a_process(folder / "out", folder, {})


def drawn_by_a_process(directory, folder, environment):
  told = subprocess.run(
      [sys.executable, "-c", DRAWING, str(pathlib.Path(plots.__file__).parents[3]), directory],
      cwd=folder, env={**os.environ, **environment}, capture_output=True, timeout=120)
  assert told.returncode == 0, told.stderr.decode()[-2000:]
  return told.stdout


SURROUNDINGS = {
    "working folder": (
        {}, "text.usetex: True\nfont.family: Comic Sans MS\nbackend: TkAgg\nnonsense: 3\n"),
    "no such backend": ({"MPLBACKEND": "bogus"}, ""), "backend": ({"MPLBACKEND": "TkAgg"}, ""),
    "config folder": ({"MPLCONFIGDIR": "CONFIG"}, ""),
    "variable": ({"MATPLOTLIBRC": "CONFIG"}, ""),
    "date": ({"SOURCE_DATE_EPOCH": "1"}, "savefig.dpi: 3\n")}


@pytest.mark.parametrize("name", daily.only(("working folder",), SURROUNDINGS))
def test_figures_of_a_process_do_not_follow_its_surroundings(plain_drawing, tmp_path, name):
  environment, settings = SURROUNDINGS[name]
  (tmp_path / "matplotlibrc").write_text(settings)
  (tmp_path / "config").mkdir()
  (tmp_path / "config" / "matplotlibrc").write_text("text.usetex: True\nlines.linewidth: 9\n")
  if not settings:
    (tmp_path / "matplotlibrc").unlink()
  environment = {name: value.replace("CONFIG", str(tmp_path / "config"))
                 for name, value in environment.items()}
  directory, plain = plain_drawing
  assert drawn_by_a_process(directory, tmp_path, environment) == plain


# Exact runs.


@pytest.mark.parametrize(
    "errors", [[0.0, 0.0], [0.0, 2.0], [0.0, INF]], ids=["all", "some", "finished"])
@pytest.mark.filterwarnings("error")
def test_exact_runs_stand_at_a_tick_of_their_own(errors):
  strips = [strip("a", [1.0, 2.0], "baseline"), strip("b", errors)._replace(
      interval=Interval(0.0, 0.0, 0.0))]
  figure = plots.strip_plot(plots.StripPanel("m", "meV", [("T", strips)], NAN))
  plots.svg(figure)
  ax = figure.axes[0]
  (zero,) = [tick.get_loc() for tick in ax.xaxis.get_major_ticks()
             if tick.label1.get_text() == "0"]
  assert ax.get_xlim()[0] < zero < 1 / 1.1
  dots = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() == "o"])
  assert np.sum(dots == zero) == errors.count(0.0)


@pytest.mark.parametrize("arms", [1, 3])
@pytest.mark.parametrize("scale", [0.0, NAN], ids=["exact", "failed"])
@pytest.mark.filterwarnings("error")
def test_figures_without_a_positive_error(arms, scale):
  panels = [curves(arms)]
  panels = [each._replace(curves=[curve._replace(errors=scale * curve.errors)
                                  for curve in each.curves]) for each in panels]
  plots.svg(plots.learning_curves(panels[0]))
  strips = [strip(f"{i}", [scale] * 3, "baseline")._replace(interval=Interval(*[scale] * 3))
            for i in range(arms)]
  plots.svg(plots.strip_plot(plots.StripPanel("m", "meV", [("T", strips)], scale)))


@pytest.mark.parametrize("name", ["\x1b[2J{}", "\u202e{}", "a\nb{}", "\x00{}"],
                         ids=["escape", "bidi", "newline", "nul"])
def test_what_does_not_print_is_no_part_of_a_figure(name):
  content = plots.svg(plots.strip_plot(panel(name=name)))
  ElementTree.fromstring(content)
  assert content.decode().replace("\n", "").isprintable()


# Bad input.


@pytest.mark.parametrize(("call", "message"), [
    (lambda: plots.strip_plot(plots.StripPanel("m", "meV", [], NAN)), "at least one group"),
    (lambda: plots.learning_curves(plots.CurvePanel("m", "meV", [])), "at least one curve"),
    (lambda: plots.learning_curves(curves(), arms_per_row=9), "from 1 to 8, got 9"),
    (lambda: plots.effect_plot(effects(largest=0)), "1 to 8 largest effects, got 0"),
    (lambda: plots.effect_plot(effects(largest=9)), "1 to 8 largest effects, got 9"),
    (lambda: plots.heat_map(heat_map(errors=np.ones((0, 0)))), "at least one combination"),
    (lambda: plots.tuning_plot([]), "at least one arm"),
    (lambda: plots.prediction_plot(parity(true=np.ones(0), predicted=np.ones(0))),
     "of width, at least one")],
    ids=["strips", "curves", "rows", "no effects", "effects", "map", "tuning", "empty"])
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.parametrize("panel", [
    lambda: parity(predicted=np.ones(2)), lambda: field(predicted=np.ones((7, 5)))],
    ids=["parity", "field"])
def test_pairs_must_match(panel):
  # The shape checker of the tests sees it first.
  with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="predicted"):
    plots.prediction_plot(panel())
