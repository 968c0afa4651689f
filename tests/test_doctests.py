"""The examples in the docstrings of the science run, and each public function has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import dcnn
from dcnn import activations, data, derivatives, labels, stats

# What a notebook imports; the machine below has no examples.
SCIENCE = (
    "activations", "labels", "derivatives", "losses", "optimizers", "stats", "data", "models")
NEEDS_AN_EXTRA = {"generate"}


def science_modules():
  names = [module.name for module in pkgutil.walk_packages(dcnn.__path__, "dcnn.")
           if module.name.split(".")[1] in SCIENCE]
  return [importlib.import_module(name) for name in names]


def docstrings():
  """Docstrings with examples, by the name of what they stand on."""
  found = {}
  for module in science_modules():
    objects = {"": module} | {
        name: value for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")}
    for name, value in objects.items():
      members = vars(value).items() if inspect.isclass(value) else ()
      for full, text in [(name, value.__doc__)] + [
          (f"{name}.{member}", getattr(item, "__doc__", None)) for member, item in members]:
        if isinstance(text, str) and ">>>" in text:
          found[f"{module.__name__}.{full}"] = (text, vars(module))
  return found


EXAMPLES = docstrings()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_run(name):
  text, names = EXAMPLES[name]
  test = doctest.DocTestParser().get_doctest(inspect.cleandoc(text), dict(names), name, None, None)
  report: list[str] = []
  runner = doctest.DocTestRunner(
      optionflags=doctest.ELLIPSIS, verbose=False)
  assert runner.run(test, out=report.append).failed == 0, "".join(report)


@pytest.mark.parametrize("module", [activations, data, derivatives, labels, stats],
                         ids=lambda module: module.__name__)
def test_public_functions_have_an_example(module):
  names = getattr(module, "__all__", None) or [
      name for name, value in vars(module).items()
      if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")]
  functions = [name for name in names
               if callable(getattr(module, name)) and not inspect.isclass(getattr(module, name))]
  lacking = [name for name in functions
             if ">>>" not in (getattr(module, name).__doc__ or "") and name not in NEEDS_AN_EXTRA]
  assert functions and not lacking
