"""Checked annotations, double precision on request, and slow tests only when asked for."""

import os

import hypothesis
import jax
import jaxtyping
import pytest

jaxtyping.install_import_hook("dcnn", "beartype.beartype")
os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)  # set by JAX; tests start processes
jax.config.update("jax_num_cpu_devices", 2)  # so that runs are spread, and odd numbers padded


# Examples of each property; --nightly takes the thorough profile.
hypothesis.settings.register_profile("quick", max_examples=200, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=2000, deadline=None)


def pytest_addoption(parser):
  parser.addoption("--nightly", action="store_true", help="run the tests marked nightly too")


def pytest_configure(config):
  hypothesis.settings.load_profile("thorough" if _is_nightly(config) else "quick")
  config.addinivalue_line("markers", "nightly: slow; runs with --nightly or -m nightly")


def pytest_collection_modifyitems(config, items):
  if _is_nightly(config):
    return
  for item in items:
    if item.get_closest_marker("nightly"):
      item.add_marker(pytest.mark.skip(reason="nightly: run with --nightly"))


def _is_nightly(config):
  return config.getoption("--nightly") or "nightly" in config.getoption("-m")


@pytest.fixture
def x64():
  """The test runs in float64."""
  with jax.enable_x64(True):
    yield
