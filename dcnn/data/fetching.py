"""Fetches published files, once: from the first place that gives the right one, into a cache.

The one module of `dcnn.data` that opens connections. What it fetches is checked against the
checksums of `named` before it gets its name, so that nothing half-written or foreign stays in the
cache.
"""

import contextlib
import hashlib
import io
import logging
import os
import pathlib
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import filelock

from dcnn.base import files
from dcnn.base.version import __version__
from dcnn.data.named import File, Mirror
from dcnn.data.raw import short_text

VARIABLE = "DCNN_DATA"  # the environment variable that says where the cache is
TIMEOUT = 30.0  # seconds, of a connection or of an answer
CHUNK = 1 << 18  # bytes
TELL_EVERY = 10.0  # seconds

_log = logging.getLogger(__name__)


def cache() -> pathlib.Path:
  """The folder that fetched files are kept in: `DCNN_DATA`, or `dcnn/data` of the user's caches.

  Raises:
    ModuleNotFoundError: Without the extra `data`.
  """
  chosen = os.environ.get(VARIABLE)
  return pathlib.Path(chosen).expanduser() if chosen else _pooch().os_cache("dcnn") / "data"


def fetch(file: File) -> pathlib.Path:
  """The path of a published file in the cache, into which it is fetched if it is not there yet.

  The places are asked in their order; the next one is taken where one refuses, gives another file
  or ends early. Processes that want the same file wait for the one that fetches it. Logs what it
  fetches.

  Args:
    file: The file.

  Raises:
    OSError: If no place gives the file, with the reason of each, and with the path at which the
      user may put it; or if the cache cannot be written.
    ModuleNotFoundError: Without the extra `data`.
  """
  _pooch()
  path = cache() / file.name
  kept = _kept(file, path)
  if kept is not None:  # perhaps in a cache of a whole group, in which nobody else may write
    return kept
  path.parent.mkdir(parents=True, exist_ok=True)
  with filelock.FileLock(path.with_name(f"{path.name}.lock")):
    kept = _kept(file, path) or _kept_in_archive(file, path)
    if kept is not None:
      return kept
    failures = [f"{path} is another file"] if path.exists() else []
    for mirror in file.mirrors:
      try:
        return _fetch_from(mirror, path)
      except (ValueError, OSError) as error:
        if getattr(error, "errno", None) is not None:
          raise  # of this machine: a full disk, a folder that is not ours
        failures.append(f"{mirror.url} ({_reason(error, mirror)})")
  raise OSError(f"cannot fetch {path.name}: {'; '.join(failures)}. Try again later, or get it by "
                f"other means and put {_by_hand(file, path)}")


def matches(path: pathlib.Path, checksum: str) -> bool:
  """Whether a file has a checksum, `sha256:HEX` or `md5:HEX`."""
  algorithm, _, expected = checksum.partition(":")
  with path.open("rb") as file:
    # MD5 tells here that a file is whole and the one that was published, and nothing of intent.
    made = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
  return made.hexdigest() == expected


def _pooch() -> Any:
  """The package that fetches, or the way to have it."""
  try:
    import pooch
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "data by name need pooch: pip install 'dcnn[data]'", name="pooch") from error
  pooch.get_logger().setLevel(logging.WARNING)  # we tell it in our own words
  return pooch


def _kept(file: File, path: pathlib.Path) -> pathlib.Path | None:
  """The file in the cache, by itself or out of an archive; None where there is neither."""
  if path.is_file() and any(
      matches(path, mirror.checksum) for mirror in file.mirrors if not mirror.archive):
    return path
  extracted = _extracted(path)
  return extracted if extracted.is_file() else None


def _kept_in_archive(file: File, path: pathlib.Path) -> pathlib.Path | None:
  """The file out of an archive that is in the cache; None where there is none."""
  for mirror in file.mirrors:
    archive = path.with_name(mirror.archive or path.name)
    if mirror.archive and archive.is_file() and matches(archive, mirror.checksum):
      return _extract(archive, mirror.member, _extracted(path))
  return None


def _extracted(path: pathlib.Path) -> pathlib.Path:
  """Where a file out of an archive is kept: we alone write there, after the archive was checked."""
  return path.parent / "extracted" / path.name


def _fetch_from(mirror: Mirror, path: pathlib.Path) -> pathlib.Path:
  """The file from one place; an archive is kept, too, for the other files in it."""
  pooch = _pooch()
  target = path.with_name(mirror.archive or path.name)
  size = f" ({mirror.size / 1e6:,.0f} MB)" if mirror.size else ""
  _log.info("fetching %s%s from %s to %s", target.name, size, mirror.url, target.parent)
  downloader = pooch.HTTPDownloader(
      progressbar=_Told(target.name), chunk_size=CHUNK, timeout=TIMEOUT,
      headers={"User-Agent": f"dcnn/{__version__}"})
  with _lock_of_archive(mirror, target):
    pooch.retrieve(
        mirror.url, mirror.checksum, target.name, str(target.parent), downloader=downloader)
  if not mirror.archive:
    return target
  return _extract(target, mirror.member, _extracted(path))


@contextlib.contextmanager
def _lock_of_archive(mirror: Mirror, target: pathlib.Path) -> Iterator[None]:
  """Processes that want different files of an archive wait for each other."""
  if not mirror.archive:
    yield
    return
  with filelock.FileLock(target.with_name(f"{target.name}.lock")):
    yield


def _extract(archive: pathlib.Path, member: str, path: pathlib.Path) -> pathlib.Path:
  """One file out of an archive, under a path of our own, whatever the archive says of paths."""
  _log.info("extracting %s from %s", path.name, archive)
  path.parent.mkdir(exist_ok=True)
  with tarfile.open(archive) as opened:
    for entry in opened:
      content = opened.extractfile(entry) if entry.name == member and entry.isfile() else None
      if isinstance(content, io.BufferedIOBase):
        files.write_stream(path, content)
        return path
  raise AssertionError(f"{archive} has the checksum of an archive with {member}")


def _reason(error: Exception, mirror: Mirror) -> str:
  """Why a place did not give the file, in a few words."""
  response = getattr(error, "response", None)
  if response is not None:
    return f"{response.status_code} {response.reason}".strip()
  if type(error) is ValueError:  # pooch's word on a checksum
    return f"another file: its checksum is not {mirror.checksum}"
  kinds = {kind.__name__ for kind in type(error).__mro__}  # those of requests, never imported here
  if kinds & {"ChunkedEncodingError", "ContentDecodingError"}:
    return "it ended early"
  if "Timeout" in kinds:
    return f"no answer within {TIMEOUT:.0f} s"
  return "no connection" if "ConnectionError" in kinds else short_text(error)


def _by_hand(file: File, path: pathlib.Path) -> str:
  """What the user may put where: the file itself, or an archive that has it."""
  places = dict.fromkeys(
      f"{mirror.archive or path.name} ({mirror.checksum}) at "
      f"{path.with_name(mirror.archive or path.name)}" for mirror in file.mirrors)
  return ", or ".join(places)


class _Told:
  """A progress bar of pooch that logs how far a download has come, now and then."""

  total = 0

  def __init__(self, name: str) -> None:
    self._name, self._done, self._told = name, 0, time.monotonic()

  def update(self, size: int) -> None:
    self._done += size
    if time.monotonic() - self._told > TELL_EVERY:
      self._told = time.monotonic()
      of = f" of {self.total / 1e6:,.0f}" if self.total else ""
      _log.info("%s: %.0f%s MB", self._name, self._done / 1e6, of)

  def reset(self) -> None:
    self._done = 0

  def close(self) -> None:
    pass
