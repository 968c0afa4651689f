"""Checked annotations, double precision on request, and slow tests only when asked for."""

import os
import shutil
import tempfile

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
  _share_compiled_programs(config)
  hypothesis.settings.load_profile("thorough" if _is_nightly(config) else "quick")
  config.addinivalue_line("markers", "nightly: slow; runs with --nightly or -m nightly")
  config.addinivalue_line("markers", "two_devices: needs two devices, as every CPU has here")


def _share_compiled_programs(config):
  """Equal programs are compiled once in a session, whichever test or process asks for them.

  Most of the time of these tests is XLA's. The processes that tests start, and those of xdist,
  inherit the folder; a folder that the caller names is used instead, and stays.
  """
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="dcnn-tests-compiled-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")
  # With a limit JAX locks the folder, so that nobody reads what is half written.
  os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(10**9))
  for name, of_text in (("compilation_cache_dir", str), ("compilation_cache_max_size", int),
                        ("persistent_cache_min_compile_time_secs", float)):
    jax.config.update(f"jax_{name}", of_text(os.environ[f"JAX_{name.upper()}"]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """Whole files go to a worker, because what a module shares is made by each worker anew."""
  from xdist.scheduler import LoadFileScheduling

  return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(config, items):
  if _is_nightly(config):
    return
  for item in items:
    if item.get_closest_marker("nightly"):
      item.add_marker(pytest.mark.skip(reason="nightly: run with --nightly"))


def pytest_runtest_setup(item):
  if item.get_closest_marker("two_devices") and jax.local_device_count() < 2:
    pytest.skip("two_devices: JAX has one here")


def _is_nightly(config):
  return config.getoption("--nightly") or "nightly" in config.getoption("-m")


@pytest.fixture
def x64():
  """The test runs in float64."""
  with jax.enable_x64(True):
    yield
