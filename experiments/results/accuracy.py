"""What the kept results say of the accuracy of each network on rMD17 ethanol."""

from collections.abc import Mapping
from typing import Any

from dcnn import models
from experiments.results.reading import config, error

# By the recipe of `rmd17`; the page of results has the command of each.
PLACES = ("rmd17", "rmd17_painn", "rmd17_cgcnn", "rmd17_forcenet", "rmd17_dimenet", "rmd17_gemnet",
          "rmd17_ace", "rmd17_ace_degree3", "rmd17_ace_long")
SIZES = ("features", "blocks", "degree", "passed")  # the last two are of GridACE


def text() -> str:
  """How they were trained, and a table of what came out."""
  return f"{recipe()}\n\n{table()}\n\n{PUBLISHED}"


PUBLISHED = (
    "Published are, from 1,000 configurations, 16.9 meV/Å and 3.5 meV for SchNet and 10.0 meV/Å "
    "for PaiNN (both on MD17, whose labels are noisier), and 2.1 meV/Å and 0.4 meV for MACE.")


def recipe() -> str:
  """The training that all of them share."""
  (found,) = {(each["optimizer"]["name"], each["optimizer"]["learning_rate"],
               each["split"]["train"]) for each in map(_settings, PLACES)}
  name, rate, frames = found
  return (f"With the recipe that a search on validation data found ({name}, learning rate "
          f"{rate:g}, SiLU, standardised labels), the networks reach on rMD17 ethanol, from "
          f"{frames} configurations:")


def table() -> str:
  """A line for each network: its sizes, its training and its errors."""
  lines = [
      f"| | {', '.join(SIZES)} | steps | seeds | force_loss, meV/Å | energy_loss, meV |",
      "|---|---|---|---|---|---|"]
  for place in PLACES:
    settings = _settings(place)
    errors = (error(place, "base", metric) for metric in ("force_loss", "energy_loss"))
    lines.append(f"| {settings['model']['name']} | {_sizes(settings['model'])} | "
                 f"{settings['steps']:,} | {_seeds(settings)} | {' | '.join(errors)} |")
  return "\n".join(lines)


def _settings(place: str) -> Mapping[str, Any]:
  return config(place)["config"]


def _seeds(settings: Mapping[str, Any]) -> int:
  seeds = settings["seeds"]
  return seeds if isinstance(seeds, int) else len(seeds)


def _sizes(model: Mapping[str, Any]) -> str:
  """Those that the network has, its own where none are set."""
  own = models.resolve(model["name"]).defaults
  return ", ".join(str(own[name] if model.get(name) is None else model[name])
                   for name in SIZES if name in own)
