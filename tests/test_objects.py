"""Objects in a configuration: names, digests, and sweeps that run with them."""

import functools
import pathlib
import runpy

import pytest

from dcnn import labels
from dcnn.base import objects


def square(x):
  """A function to describe."""
  return x * FACTOR


FACTOR = 2


def defined(tmp_path: pathlib.Path, name: str, text: str):
  """An object of an experiment file, as the command line loads it."""
  path = tmp_path / f"{name}.py"
  path.write_text(text)
  return runpy.run_path(str(path), run_name="experiment")[name]


@pytest.mark.parametrize("value, name", [
    (square, "square"), (functools.partial(labels.power_of_ten, exponent=6),
                         "power_of_ten(exponent=6)"),
    (labels.rescale(-4209.0, 0.5), "LabelTransform(shift=-4209.0, scale=0.5)"),
    ((square, "std"), "square/std"), ("tanh", "tanh"), (labels.LabelTransform, "LabelTransform"),
], ids=["function", "partial", "record", "pair", "text", "class"])
def test_names(value, name):
  assert objects.name_of(value) == name


@pytest.mark.parametrize("value", [
    square, labels.rescale(1.0, 2.0), functools.partial(square, 3), labels.LabelTransform],
    ids=["function", "record", "partial", "class"])
def test_what_is_described_keeps_its_name(value):
  record = objects.describe(value)
  assert objects.name_of(record) == objects.name_of(value)
  assert objects.is_object(record) and record["digest"] == objects.digest(value)


CHANGES = {
    "body": ("def f(x):\n  return x\n", "def f(x):\n  return x + 1\n"),
    "default": ("def f(x, a=1):\n  return x * a\n", "def f(x, a=2):\n  return x * a\n"),
    "global": ("A = 1\ndef f(x):\n  return x * A\n", "A = 2\ndef f(x):\n  return x * A\n"),
    "global pair": ("A = (1, 2)\ndef f(x):\n  return x * A[0]\n",
                    "A = (1, 3)\ndef f(x):\n  return x * A[0]\n"),
    "global array": ("import numpy as np\nA = np.ones(2)\ndef f(x):\n  return x * A\n",
                     "import numpy as np\nA = np.ones(3)\ndef f(x):\n  return x * A\n"),
    "helper": ("def g(x):\n  return x\ndef f(x):\n  return g(x)\n",
               "def g(x):\n  return -x\ndef f(x):\n  return g(x)\n"),
    "helper of a helper": (
        "def h(x):\n  return x\ndef g(x):\n  return h(x)\ndef f(x):\n  return g(x)\n",
        "def h(x):\n  return -x\ndef g(x):\n  return h(x)\ndef f(x):\n  return g(x)\n"),
    "closure": ("def make(a):\n  def f(x):\n    return x * a\n  return f\nf = make(1)\n",
                "def make(a):\n  def f(x):\n    return x * a\n  return f\nf = make(2)\n"),
    "captured array": (
        "import numpy as np\ndef make(a):\n  return lambda x: x * a\nf = make(np.arange(3))\n",
        "import numpy as np\ndef make(a):\n  return lambda x: x * a\nf = make(np.arange(4))\n"),
    "method": ("class f:\n  def g(self):\n    return 1\n",
               "class f:\n  def g(self):\n    return 2\n"),
    "field": ("class f:\n  a: int = 1\n", "class f:\n  a: int = 2\n"),
    "base class": ("class B:\n  a = 1\nclass f(B):\n  pass\n",
                   "class B:\n  a = 2\nclass f(B):\n  pass\n"),
    "bound argument": (
        "import functools\ndef g(x, a):\n  return x\nf = functools.partial(g, a=1)\n",
        "import functools\ndef g(x, a):\n  return x\nf = functools.partial(g, a=2)\n"),
    "callable object": (
        "class C:\n  def __init__(self, a):\n    self.a = a\n  def __call__(self, x):\n"
        "    return x * self.a\nf = C(1)\n",
        "class C:\n  def __init__(self, a):\n    self.a = a\n  def __call__(self, x):\n"
        "    return x * self.a\nf = C(2)\n"),
    "method of a callable object": (
        "class C:\n  def __call__(self, x):\n    return x\nf = C()\n",
        "class C:\n  def __call__(self, x):\n    return -x\nf = C()\n"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_text_that_is_run_without_a_module_has_digests_too(kind):
  first, again, other = ({} for _ in range(3))
  for names, text in zip((first, again, other), CHANGES[kind][:1] * 2 + CHANGES[kind][1:],
                         strict=True):
    exec(text, names)
  assert objects.digest(first["f"]) == objects.digest(again["f"]) != objects.digest(other["f"])


def test_modules_that_a_function_uses_are_not_walked_through():
  names: dict = {}
  exec("import os\nimport jax.numpy as jnp\n\ndef f(x):\n  return jnp.sin(x), os.name\n", names)
  assert len(list(objects._parts(names["f"], set()))) < 10


@pytest.mark.parametrize("kind", CHANGES)
def test_what_changes_behaviour_changes_the_digest(tmp_path, kind):
  digests = []
  for number, text in enumerate(CHANGES[kind]):
    folder = tmp_path / str(number)
    folder.mkdir()
    digests.append([objects.digest(defined(folder, "f", text)) for _ in range(2)])
  (first, again), (other, _) = digests
  assert first == again, "the same file gives the same digest in another process"
  assert first != other


def test_what_does_not_change_behaviour_keeps_the_digest(tmp_path):
  """An object that stands elsewhere in the file, beside others, is the same."""
  before = objects.digest(defined(tmp_path, "f", "def f(x):\n  return x\n"))
  after = objects.digest(defined(tmp_path, "f", "B = 3\n\n\ndef f(x):\n  return x\n"))
  assert before == after


def test_a_function_that_refers_to_itself_has_a_digest(tmp_path):
  text = "def f(x):\n  return f(x - 1) if x else 0\n"
  assert len(objects.digest(defined(tmp_path, "f", text))) == 64
