"""Made-up results that look like those of the main job, for the tests of what shows them."""

import numpy as np

from dcnn.base.measures import Measures, Metric, Picture
from dcnn.results.records import Point, Result, Row, Table
from dcnn.tasks import forcefield

HOSTILE = '<script>alert("x")</script>|$\\frac{1}{2}$ *a_b* `c`'
MEASURES = forcefield.measures()
UNITS = {metric.name: metric.unit for metric in MEASURES.metrics}
CONSTANT = {"energy_loss": 0.143, "force_loss": 0.878}


def arms():
  """Arm names of the main job with typical test errors: energy in eV, force in eV/A."""
  table = {"c=0.5": (0.032, 0.102), "standardize": (0.018, 0.052)}
  for c, factor in ((0.1, 1.75), (0.25, 1.25), (0.75, 0.93), (1.0, 0.9)):
    for labels, (energy, force) in (("", (0.032, 0.102)), (",standardize", (0.018, 0.052))):
      table[f"c={c}{labels}"] = (energy * factor, force * factor)
      table[f"c={c},init_matched{labels}"] = (energy * factor**0.1, force * factor**0.1)
  return table | {
      "min_max": (0.021, 0.057), "robust": (0.0182, 0.0525), "identity": (0.19, 0.61),
      "mean_shift": (0.0195, 0.056), "mean/power_of_ten": (0.02, 0.0555), HOSTILE: (0.03, 0.1)}


def tables():
  """The three comparisons of the main job."""
  names = list(arms())
  power = [name for name in names if name.startswith("c=") and "standardize" not in name]
  standard = [name for name in names if "standardize" in name]
  return (
      Table("IReLU constant, power-of-ten labels", "c=0.5", tuple(power)),
      Table("IReLU constant, standardised labels", "standardize", tuple(standard)),
      Table("Label scaling at c = 0.5", "c=0.5", (
          "min_max", "standardize", "robust", "identity", "mean_shift", "mean/power_of_ten",
          HOSTILE)))


def listed(measures):
  """Measures as config.json holds them."""
  return {**measures._asdict(), "metrics": [each._asdict() for each in measures.metrics],
          "pictures": [{**each._asdict(), "axes": list(each.axes)} for each in measures.pictures]}


def result(seeds=10, chunks=20, frames=400):
  """All runs of the main job; some of one arm diverge."""
  rng = np.random.default_rng(0)
  rows, history = [], []
  paired = rng.normal(0, 0.06, seeds)
  for arm, typical in arms().items():
    for seed in range(seeds):
      diverged = arm == "c=1.0" and seed % 3 == 0 and seed > 0
      shift = paired[seed] + rng.normal(0, 0.05)
      final = {name: value * np.exp(shift + rng.normal(0, 0.03))
               for name, value in zip(CONSTANT, typical, strict=True)}
      rows += run_rows(arm, seed, final, "diverged@900" if diverged else "finished")
      history += run_history(arm, seed, final, chunks, rng, diverged)
  return Result(config(seeds), tuple(rows), tuple(history), tables(), predictions(frames, rng))


def run_rows(arm, seed, final, status):
  rows = []
  for split, easier in (("train", 0.8), ("valid", 0.98), ("test", 1.0)):
    values = {name: value * easier for name, value in final.items()}
    values |= {"energy_rmse": 1.3 * values["energy_loss"], "force_rmse": 1.5 * values["force_loss"]}
    values |= {f"{kind}_skill": 1 - values[f"{kind}_loss"] / CONSTANT[f"{kind}_loss"]
               for kind in ("energy", "force")}
    values["efwt"] = float(np.exp(-values["force_loss"] / 0.03))
    rows += [
        Row("ablations", arm, seed, split, name, unit, float(values[name]), 4000, status,
            "forces" if status != "finished" else "")
        for name, unit in UNITS.items()]
  return rows


def run_history(arm, seed, final, chunks, rng, diverged):
  points = []
  for chunk in range(1, chunks + 1):
    step = 4000 * chunk // chunks
    for name, value in final.items():
      error = value * (1 + 8 * np.exp(-5 * chunk / chunks)) * np.exp(rng.normal(0, 0.05))
      error = float("nan") if diverged and step >= 900 else float(error)
      points.append(Point(arm, seed, step, "valid", name, error))
    points.append(Point(arm, seed, step, "train", "loss_force", error))
  return points


def config(seeds):
  return {
      "measures": listed(MEASURES),
      "config": {
          "experiment": "ablations",
          "question": "What do the constant of IReLU and the scaling of the labels do to the "
                      "errors of energies and forces?",
          "dataset": "ethanol", "seeds": list(range(seeds)), "steps": 4000, "batch_size": 10,
          "split": {"train": 900, "valid": 100, "test": 1000},
          "model": {"name": "schnet", "features": 64}},
      "environment": {
          "date": "2026-01-05T10:00:00+00:00", "device": "cpu", "cores": 2,
          "precision": "float32", "versions": {"python": "3.11.9", "jax": "0.10.1"},
          "git": {"commit": "0123456789abcdef", "dirty": False},
          "dataset_checksum": "ab" * 32},
      "command": "dcnn --config=experiments/ablations.py --workdir=/runs/<first>",
      "timing": {"compile_seconds": 14.2, "train_seconds": 231.7, "evaluate_seconds": 6.1,
                 "total_seconds": 255.3, "launches": 1, "groups": 1, "runs": 24 * seeds}}


def predictions(frames, rng):
  energy = -4209 + rng.normal(0, 0.2, frames)
  forces = rng.standard_t(6, 27 * frames)
  return {
      "energy_true": energy, "energy_predicted": energy + rng.normal(0, 0.02, frames),
      "forces_true": forces, "forces_predicted": forces + rng.normal(0, 0.06, 27 * frames),
      "arm": np.array("c=1.0,standardize"), "seed": np.array(4)}


def advection(seeds=10, arms=("tanh", "irelu")):
  """A made-up task of another kind: a field over x and t, a residual, and no unit of energy."""
  rng = np.random.default_rng(0)
  rows, history = [], []
  for arm, factor in zip(arms, (1.0, 0.5), strict=True):
    for seed in range(seeds):
      error = float(factor * 0.03 * np.exp(rng.normal(0, 0.1)))
      values = {"solution_error": error, "residual": 20 * error, "solution_skill": 1 - error / 0.6,
                "within": 1 - error, "largest": 3 * error}
      rows += [Row("advection", arm, seed, split, metric.name, metric.unit, values[metric.name],
                   500, "finished") for split in ("valid", "test") for metric in ADVECTION.metrics]
      history += [Point(arm, seed, step, "valid", metric, values[metric] * 1000 / step)
                  for step in (250, 500) for metric in ("solution_error", "residual")]
  config = {"measures": listed(ADVECTION), "config": {
      "experiment": "advection", "question": "Does a network solve the advection equation?"}}
  return Result(config, tuple(rows), tuple(history), (), field(rng, arms[0]))


def field(rng, arm, points=(30, 20)):
  x, t = np.linspace(0, 1, points[0]), np.linspace(0, 2, points[1])
  true = np.sin(2 * np.pi * (x[None] - t[:, None]))
  return {"x": x, "t": t, "u_true": true, "arm": np.array(arm), "seed": np.array(1),
          "u_predicted": true + 0.02 * rng.normal(size=true.shape)}


ADVECTION = Measures(
    (Metric("solution_error", "1", "error", True, "solution", "solutions",
            meaning="Root mean square error of the solution."),
     Metric("residual", "m/s", "error", True, "residual", "residuals",
            meaning="Root mean square of u_t + u_x."),
     Metric("largest", "1", "error"),
     Metric("solution_skill", "1", "skill", False, "solution", "solutions", "solution_error"),
     Metric("within", "1", "share", label="within 1 %", meaning="Share of the points within 1 %.")),
    watched="residual",
    pictures=(Picture("field", "solution u", "1",
                      {"true": "u_true", "predicted": "u_predicted", "horizontal": "x",
                       "vertical": "t"}, axes=("x", "t (s)")),),
    caption="The equation is u_t + u_x = 0.")
