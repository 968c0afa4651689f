"""Draws how GridACE multiplies: the surroundings of an atom as a function on the sphere.

  python docs/figures/grid_ace.py

writes grid_ace.svg beside it. The atom is the oxygen of embedded ethanol. Its neighbours make the
function A(n), here with the smooth cutoff as the filter of each degree; a product of three such
functions is taken at the 26 points of a grid, and its projection on degrees 0 and 1 is exact: what
is drawn of it comes from these 26 numbers alone.
"""

import pathlib

import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot as plt  # noqa: E402  (after the backend)

from dcnn import data  # noqa: E402
from dcnn.models import radial, sphere  # noqa: E402

DEGREE, KEPT, CUTOFF = 2, 1, 5.0
OXYGEN = 8


def main() -> None:
  """Draws the three panels."""
  positions, others = _surroundings()
  at = sphere.grid(3 * DEGREE + KEPT)
  longitude, latitude = np.meshgrid(np.linspace(-np.pi, np.pi, 181), np.linspace(-1, 1, 91) * 1.57)
  everywhere = np.stack([np.cos(latitude) * np.cos(longitude),
                         np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=-1)
  coefficients = _coefficients(positions)
  around = _values(everywhere, coefficients)
  on_grid = _values(at.points, coefficients) ** 3
  kept = np.asarray(sphere.project(jnp.asarray(on_grid[:, None, None]), at, KEPT))[:, 0, 0]
  figure, axes = plt.subplots(
      1, 3, figsize=(9.6, 2.5), subplot_kw={"projection": "mollweide"}, layout="constrained")
  panels = (
      ("A(n): the neighbours, degrees 0 to 2", around),
      ("A(n)³, taken at the 26 points of the grid", around**3),
      ("its degrees 0 and 1, from these 26 numbers", _values(everywhere, kept)))
  for axis, (title, values) in zip(axes, panels, strict=True):
    largest = np.max(np.abs(values))
    axis.pcolormesh(longitude, latitude, values, vmin=-largest, vmax=largest, cmap="RdBu_r",
                    shading="gouraud", rasterized=True)
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
  for axis, points, style in (
      (axes[0], others, {"s": 46, "facecolor": "none", "edgecolor": "black", "linewidth": 1.2}),
      (axes[1], at.points, {"s": 9, "color": "black"})):
    axis.scatter(np.arctan2(points[:, 1], points[:, 0]), np.arcsin(points[:, 2]), **style)
  plt.rcParams["svg.hashsalt"] = "dcnn"  # the same file each time
  figure.savefig(pathlib.Path(__file__).with_suffix(".svg"), dpi=110,
                 metadata={"Date": None})


def _surroundings() -> tuple[np.ndarray, np.ndarray]:
  """Vectors to the atoms around the oxygen, and their directions."""
  systems = data.load("ethanol").systems
  centre = int(np.flatnonzero(systems.species[0] == OXYGEN)[0])
  vectors = np.delete(systems.positions[0] - systems.positions[0, centre], centre, axis=0)
  return vectors, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _coefficients(vectors: np.ndarray) -> np.ndarray:
  """The coefficients of A, the sum over neighbours of cutoff times harmonics."""
  distance = np.linalg.norm(vectors, axis=1)
  factor = np.asarray(radial.smooth_cutoff(jnp.asarray(distance), CUTOFF))
  harmonics = np.concatenate(sphere.harmonics(vectors / distance[:, None], DEGREE), axis=-1)
  return factor @ harmonics


def _values(points: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
  """A function on the sphere at some points."""
  degree = round(len(coefficients) ** 0.5) - 1
  return np.concatenate(sphere.harmonics(points, degree), axis=-1) @ coefficients


if __name__ == "__main__":
  main()
