"""Damaged data files, and a program that loads them under limits of memory and time.

`python tests/fuzzing.py KIND EXAMPLES` makes and loads that many files of a kind. Each must load or
be refused in one line that names it, within 5 seconds and 1 GB; otherwise the program fails and
prints the example.
"""

import contextlib
import io
import pathlib
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile

import hypothesis
import numpy as np
from hypothesis import strategies as st
from test_data import water, xyz_text

from dcnn import data

MEMORY = 1_000_000_000  # bytes
SECONDS = 5.0


# What limits there are.


class TooSlow(BaseException):
  """No `Exception`, because readers catch those of parsers."""


@contextlib.contextmanager
def limited_memory(extra: int = MEMORY):
  """Lets this process have so many bytes more than now: what asks for more gets a MemoryError."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
  before, most = resource.getrlimit(resource.RLIMIT_AS)
  resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, most))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_AS, (before, most))


@contextlib.contextmanager
def limited_time(seconds: float = SECONDS):
  """Raises `TooSlow` in what takes longer, endless loops of Python included."""
  def stop(*_):
    raise TooSlow
  before = signal.signal(signal.SIGALRM, stop)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  started = time.monotonic()
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
  if time.monotonic() - started > seconds:
    raise TooSlow


def check(path: pathlib.Path, load=data.load, seconds: float = SECONDS) -> bool:
  """Whether the file loads; fails unless it does or is refused as it should be."""
  with limited_memory(), limited_time(seconds), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
      load(path)
    except (ValueError, OSError) as error:
      assert str(path) in str(error) and "\n" not in str(error), error
      assert len(str(error)) < 1000 + len(str(path)), error
      assert not _wants_memory(error), error
      return False
  return True


def _wants_memory(error: BaseException | None) -> bool:
  """Whether an allocation failed on the way; the parser of Python says so of deep nesting, too."""
  while error is not None:
    places = [place.filename for place in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, MemoryError) and not places[-1].endswith("ast.py"):
      return True
    error = error.__cause__ or error.__context__
  return False


# Bytes overwritten, removed and inserted.


def npz_bytes(compressed: bool) -> bytes:
  """A sound archive of three frames."""
  buffer = io.BytesIO()
  (np.savez_compressed if compressed else np.savez)(buffer, **water(3))
  return buffer.getvalue()


@st.composite
def mutated(draw, contents: bytes) -> bytes:
  """The bytes with up to four changes."""
  changes = draw(st.lists(
      st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=6)), min_size=1, max_size=4))
  for place, removed, inserted in changes:
    start = int(place * len(contents))
    contents = contents[:start] + inserted + contents[start + removed:]
  return contents


# Archives that are sound as such, of arrays that are not.

DESCRIPTIONS = (
    "<f8", ">f8", "<f4", "<f2", "<f16", "<c16", "|O", "|b1", "|u1", "<i8", "<u8", "|V8", "|V0",
    "|S4", "|S0", "<U3", "<U0", "<M8[s]", "<m8[ns]", "<M8[x]", "T", "object", "", "f" * 1000, 3,
    None, (), [], ("<f8", (3,)), ("<f8", (10**9,)), "(2,3)f8", "<f8,<f8", [("a", "<f8")],
    [("a", "<f8", (3,)), ("b", "|O")], [("a", "<f8", (2**31,))], [("", "<f8"), ("", "<f8")],
    {"names": ["a"], "formats": ["<f8"], "offsets": [2**30]}, "S2147483647", "U536870911")
SIZES = st.sampled_from((0, 1, 2, 3, 4, 9, -1, -3, 1000, 2**31, 2**62, 10**30, True, 3.0, None))
SHAPES = st.one_of(
    st.lists(SIZES, max_size=4).map(tuple), st.just((1,) * 40), st.just([3, 3]), st.just("x"))
HEADER_TEXTS = (
    "", "{", "{}", "None", "[1]", "{'shape': (3,)}", "(" * 5000, "-" * 9000 + "1", "[" * 150 + "]" *
    150, "{'descr': '<f8', 'fortran_order': False, 'shape': (3L, 3), }", "9" * 5000, "\xff" * 10,
    "\x00" * 64, "__import__('os').getcwd()", "{" + "'a': 1, " * 1000 + "}")


@st.composite
def npy(draw, array: np.ndarray) -> bytes:
  """One array in NumPy's format, with a header that may say other things."""
  header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
  header |= draw(st.fixed_dictionaries({}, optional={
      "descr": st.sampled_from(DESCRIPTIONS), "fortran_order": st.sampled_from((True, 1, None)),
      "shape": SHAPES, "extra": st.just(0)}))
  text = draw(st.sampled_from((repr(header),) * 9 + HEADER_TEXTS)).encode("latin1")
  major, minor = draw(st.sampled_from([(1, 0)] * 6 + [(2, 0), (3, 0), (0, 0), (255, 255)]))
  length = len(text) + draw(st.sampled_from((0, 0, 0, 0, 0, 1, -1, 60_000)))
  size = min(max(length, 0), 2**16 - 1).to_bytes(2 if major == 1 else 4, "little")
  body = array.tobytes() * draw(st.sampled_from((1, 1, 1, 0, 2, 3, 1000)))
  body = body[:len(body) - draw(st.sampled_from((0, 0, 0, 1, 8)))]
  magic = draw(st.sampled_from((b"\x93NUMPY",) * 9 + (b"", b"\x93NUMPX", b"\x80\x04.")))
  return magic + bytes([major, minor]) + size + text + body


EXTRAS = {
    "provenance": st.sampled_from((
        '{"method": 3}', "[" * 100_000, '{"versions": [], "method": "m"}', "{" * 9, "null",
        '{"method": "' + "m" * 10**5 + '", "sampling": "\\n\\n", "seed": 0, "versions": {}}')),
    "e_unit": st.sampled_from(("eV", "kcal/mol", "\n" * 100, "x" * 10**5)),
    "r_unit": st.sampled_from(("Ang", "bohr", "")),
}


@st.composite
def npz_structure(draw) -> bytes:
  """An archive of such arrays, in the convention of MD17 or of dcnn."""
  names = draw(st.sampled_from((
      {name: name for name in water(3)},
      {"positions": "R", "species": "z", "energy": "E", "forces": "F"})))
  changed = draw(st.sets(st.sampled_from(tuple(names)), max_size=2))
  members = []
  for name, array in water(3).items():
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = draw(npy(array)) if name in changed else buffer.getvalue()
    members.append((names[name], content))
  for name, text in draw(st.fixed_dictionaries({}, optional=EXTRAS)).items():
    buffer = io.BytesIO()
    np.save(buffer, np.array(text))
    members.append((name, buffer.getvalue()))
  if draw(st.booleans()):
    members += draw(st.lists(st.sampled_from(members), max_size=2))  # names twice
  ending = draw(st.sampled_from((".npy", ".npy", ".npy", "", ".NPY", ".npy/")))
  archive = io.BytesIO()
  kind = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)))
  with warnings.catch_warnings(), zipfile.ZipFile(archive, "w", kind) as file:
    warnings.simplefilter("ignore")  # of names twice
    for name, content in members:
      file.writestr(name + ending, content)
  return archive.getvalue()


# Extended XYZ of wrong words in right places.

WORDS = (
    "", "0", "-1", "1.5", "nan", "inf", "1e999", "9" * 400, "9" * 5000, "9" * 10, "٣", "三", "T",
    "F", "H", "Qq", "X", "é", "\x00", "\x0b", "\x1c", "\x85", "\u2028", "\ufeff", '"', "'", "{",
    "[", "]", "=", "==", "\\", ",", "_JSON", '"_JSON [1"', '"_JSON ' + "[" * 5000 + '"', "energy=",
    "energy=5", "energy=T", 'energy="1 2"', "energy=1e400", "energy=nan", "energy=_JSON", "pbc=T",
    'pbc="F F F"', "Lattice=1", 'Lattice="1 0 0 0 1 0 0 0 1"', 'Lattice="9 0 0 0 9 0 0 0 9"',
    'Lattice="9 0 0 0 9 0 0 1e-9 1e-9"', 'Lattice="9 0 0 0 1e9 0 0 0 1e-3"', 'pbc="T F T"',
    'virial="1 2"', "Properties=",
    "Properties=species:S:1", "Properties=pos:R:3:forces:R:3:species:S:0",
    "Properties=species:S:1:pos:R:2:forces:R:4", "Properties=Z:I:1:pos:R:3:forces:R:3",
    "Properties=species:S:0:pos:R:0:forces:R:0", "Properties=species:S:1:pos:R:99999999999",
    "Properties=species:R:1:pos:S:3:forces:L:3", "Properties=" + "a:R:1:" * 1000 + "pos:R:3")


@st.composite
def xyz_structure(draw) -> bytes:
  """Lines and words exchanged, repeated, removed and replaced."""
  lines = [line.split(" ") for line in xyz_text(water(3)).split("\n")]
  for _ in range(draw(st.integers(1, 4))):
    line = draw(st.integers(0, len(lines) - 1))
    word = draw(st.integers(0, len(lines[line]) - 1))
    kind = draw(st.sampled_from(("replace", "insert", "remove", "repeat line", "remove line")))
    if kind == "replace":
      lines[line][word] = draw(st.sampled_from(WORDS))
    elif kind == "insert":
      lines[line].insert(word, draw(st.sampled_from(WORDS)))
    elif kind == "remove" and len(lines[line]) > 1:
      del lines[line][word]
    elif kind == "repeat line":
      lines[line:line] = [lines[line]] * draw(st.sampled_from((1, 1, 5000)))
    elif kind == "remove line" and len(lines) > 1:
      del lines[line]
  end = draw(st.sampled_from(("\n", "\n", "\r\n", "\r", "\n\n")))
  return end.join(map(" ".join, lines)).encode(draw(st.sampled_from(("utf-8", "utf-16"))))


KINDS = {
    "npz_bytes": ("w.npz", st.booleans().map(npz_bytes).flatmap(mutated)),
    "npz_structure": ("w.npz", npz_structure()),
    "xyz_bytes": ("w.xyz", mutated(xyz_text(water(3)).encode())),
    "xyz_structure": ("w.xyz", xyz_structure()),
}


def main(kind: str, examples: int) -> None:
  """Loads that many files of a kind."""
  name, contents = KINDS[kind]
  loaded = 0

  @hypothesis.settings(
      max_examples=examples, deadline=None, database=None, print_blob=True,
      phases=[hypothesis.Phase.generate],  # a shorter example of what takes 5 s takes minutes
      suppress_health_check=list(hypothesis.HealthCheck))
  @hypothesis.given(contents)
  def run(content: bytes) -> None:
    nonlocal loaded
    path.write_bytes(content)
    loaded += check(path)

  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, name)
    path.write_bytes(xyz_text(water(3)).encode() if name == "w.xyz" else npz_bytes(False))
    assert check(path)  # which imports all that is needed
    run()
  print(f"{kind}: {examples} files, of which {loaded} are sound")


if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]))
