"""Text for people: what is shown of names and numbers, and which word a misspelt one may mean."""

import difflib
from collections.abc import Iterable


def visible_text(text: str) -> str:
  """Text in which nothing is hidden: what does not print, but for line breaks, as its escape.

  Control characters, ANSI sequences, marks that turn the direction of writing and halves of
  surrogate pairs would otherwise reach a terminal or a page out of the files of others.
  """
  return "".join(
      mark if mark.isprintable() or mark == "\n"
      else mark.encode("unicode_escape", "surrogatepass").decode() for mark in text)


def one_line(text: str) -> str:
  """Visible text in a line, its white space drawn together."""
  return visible_text(" ".join(text.split()))


def suggestion(name: str, known: Iterable[str]) -> str:
  """A question that names the known word closest to a misspelt one: `did you mean 'tanh'? `.

  Args:
    name: what was given.
    known: the words that are accepted there.

  Returns:
    The question with a space behind it, or nothing where no word is close.
  """
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f"did you mean {close[0]!r}? " if close else ""
