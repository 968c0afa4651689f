"""What `sphinx-build -W` fails for beside Sphinx's own warnings."""

import ast
import importlib
import inspect
import resource

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

# Seconds of processor time for the cells of a page; the time on a clock, which depends on what else
# the machine does, is then less than that where it does nothing else.
LIMIT = 60.0
MODULES = (
    "dcnn", "dcnn.activations", "dcnn.labels", "dcnn.derivatives", "dcnn.losses",
    "dcnn.optimizers", "dcnn.stats", "dcnn.data", "dcnn.models", "dcnn.models.layers",
    "dcnn.models.normalisers", "dcnn.configs", "dcnn.tasks.base", "dcnn.tasks.forcefield",
    "dcnn.tasks.forcefield_metrics", "dcnn.tasks.advection", "dcnn.results", "dcnn.use",
    "dcnn.use.calculator", "dcnn.use.predicting", "dcnn.use.exporting", "dcnn.base")

logger = logging.getLogger(__name__)
_started: dict[str, float] = {}  # processor time of all ended processes when a page was begun


def setup(app: Sphinx) -> dict[str, bool]:
  """Connects this module with the build."""
  app.connect("env-check-consistency", check_names)
  app.connect("source-read", begin)
  app.connect("doctree-read", check_seconds)
  return {"parallel_read_safe": False}


def check_names(app: Sphinx, env: BuildEnvironment) -> None:
  """Warns of public names that no page of the reference explains."""
  explained = env.get_domain("py").data["objects"]
  for module in MODULES:
    for name in sorted(public_names(module)):
      if f"{module}.{name}" not in explained:
        logger.warning("%s.%s is public and stands on no page of docs/api", module, name)


def public_names(module: str) -> set[str]:
  """What `__all__` lists, or else what a module defines under names without an underscore."""
  loaded = importlib.import_module(module)
  if hasattr(loaded, "__all__"):
    return {name for name in loaded.__all__ if not name.startswith("_")}
  names: set[str] = set()
  for node in ast.parse(inspect.getsource(loaded)).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      names.add(node.name)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      names |= {each.id for target in targets for each in ast.walk(target)
                if isinstance(each, ast.Name)}
  return {name for name in names if not name.startswith("_")}


def begin(app: Sphinx, page: str, source: list[str]) -> None:
  """Notes when a page is begun; its cells are run in a process that ends with it."""
  _started[page] = _processor_time()


def check_seconds(app: Sphinx, document: nodes.document) -> None:
  """Tells how long the cells of a page took, and warns of those that took too long."""
  page = app.env.docname
  ran = app.env.nb_metadata[page].get("exec_data")
  if ran:
    seconds = _processor_time() - _started[page]
    logger.info("%s: %.1f s of processor time, %.1f s on the clock", page, seconds, ran["runtime"])
    if seconds > LIMIT:
      logger.warning("%s takes %.0f s of processor time; the limit is %.0f s", page, seconds, LIMIT)


def _processor_time() -> float:
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime
