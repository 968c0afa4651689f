"""Titles of marks: what a page tells of a dot or a line under the pointer.

Matplotlib writes no titles into an SVG file, but it does write the identifier that an artist has.
So the titles travel there, as hexadecimal digits, which need no escaping, until the figure becomes
an element of a page, which shows them, or a file, which has none.
"""

import collections
import json
import re
from collections.abc import Sequence

from markupsafe import escape
from matplotlib.lines import Line2D
from matplotlib.text import Text

from dcnn.base.text import one_line

_GROUP = r'<g id="(line2d|text)_'  # of a line or a text, as Matplotlib names it
_TITLED = re.compile(_GROUP + r'titled_([0-9a-f]+)">(.*?)</g>', flags=re.DOTALL)
_MARK = re.compile(r"(<use [^>]*)/>")


def set_titles(artist: Line2D | Text, titles: Sequence[str]) -> None:
  """Gives an artist its titles.

  Args:
    artist: A line or a text.
    titles: One for the whole artist, or one for each mark of a line, in their order; none leaves
      the artist as it is.
  """
  if titles:
    kind = "text" if isinstance(artist, Text) else "line2d"
    artist.set_gid(f"{kind}_titled_{json.dumps(list(titles)).encode().hex()}")


def with_titles(element: str) -> str:
  """An SVG element with `title` elements, which a browser shows under the pointer.

  Args:
    element: The element, as Matplotlib wrote it.

  Raises:
    ValueError: If a line has several titles, but not as many as marks.
  """
  return _TITLED.sub(_with_titles, element)


def _with_titles(group: re.Match[str]) -> str:
  _, digits, content = group.groups()
  titles = [f"<title>{escape(one_line(title))}</title>"
            for title in json.loads(bytes.fromhex(digits))]
  if len(titles) == 1:
    return f"<g>{titles[0]}{content}</g>"
  parts = _MARK.split(content)  # every second one is a mark
  parts[1::2] = [
      f"{mark}>{title}</use>" for mark, title in zip(parts[1::2], titles, strict=True)]
  return f"<g>{''.join(parts)}</g>"


def without_titles(content: bytes) -> bytes:
  """An SVG file as it would be if no artist had titles.

  Args:
    content: The file, as Matplotlib wrote it.
  """
  counts: collections.Counter[str] = collections.Counter()

  def number(found: re.Match[str]) -> str:
    counts[found[1]] += 1
    return f'<g id="{found[1]}_{counts[found[1]]}"'

  return re.sub(_GROUP + r'\w+"', number, content.decode()).encode()
