#!/usr/bin/env python3
"""Prints measures of the source, which BUILD_NOTES.md quotes: `python3 .ci/measures.py`."""

import ast
import collections
import io
import pathlib
import re
import statistics
import tokenize

ROOT = pathlib.Path(__file__).resolve().parents[1]
# An entry that hangs on the line above it, instead of saying what the value is.
FRAGMENT = re.compile(
    r"(of|to|for|in|on|with|by|from|that|which|whose|where|as|at|up|likewise|under|after|before"
    r"|between|see)\b")
ARRAY = re.compile(r"(^|\W)(Array|ndarray)\b")
AXES = re.compile(r"\b(Float|Int|Bool|Shaped|Num|Key)\[")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
  """Reads all modules of the package and prints a line for each measure."""
  texts = {path: path.read_text() for path in sorted((ROOT / "dcnn").rglob("*.py"))}
  trees = [ast.parse(text) for text in texts.values()]
  uses = collections.Counter(name for text in texts.values() for name in names(text))
  functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
  top = [node for tree in trees for node in tree.body if isinstance(node, FUNCTIONS)]
  lengths = [length(node) for node in functions]
  once = [node for node in top if uses[node.name] == 2]  # its definition and one caller
  described = [entry for tree in trees for node in ast.walk(tree)
               if isinstance(node, (*FUNCTIONS, ast.ClassDef)) for entry in entries(node)]
  arrays = [text for node in functions for text in annotations(node)
            if ARRAY.search(text) and not text.startswith(("Callable", "Mapping", "dict"))]
  entries_of_package = [path for path in (ROOT / "dcnn").iterdir() if path.name != "__pycache__"]
  print(f"entries in dcnn/: {len(entries_of_package)}")
  print(f"functions: {len(functions)}; lines of a body: median {statistics.median(lengths):g}, "
        f"longest {max(lengths)}")
  print(f"with a single caller: {len(once) / len(functions):.0%}")
  print(f"entries of Args and Attributes: {len(described)}, of them fragments: "
        f"{sum(bool(FRAGMENT.match(text)) for text in described)}")
  print(f"array arguments: {len(arrays)}, with named axes: "
        f"{sum(bool(AXES.search(text)) for text in arrays) / len(arrays):.0%}")
  print(f"lines of doctests: {sum(text.count('>>> ') for text in texts.values())}")
  print(f"lines of main: {len(texts[ROOT / 'dcnn' / 'cli' / 'main.py'].splitlines())}")


def names(text: str) -> list[str]:
  """All names in a module, those inside f-strings included."""
  found = []
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type == tokenize.NAME:
      found.append(token.string)
    elif token.type == tokenize.STRING and token.string[:1] in "fF":
      found += re.findall(r"[A-Za-z_]\w*", token.string)
  return found


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
  """Lines of a function's body without its docstring."""
  body = node.body[1:] if ast.get_docstring(node) is not None else node.body
  return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def entries(node: ast.AST) -> list[str]:
  """What a docstring says of each argument or attribute."""
  section = re.search(r"^(?:Args|Attributes):\n((?:  .*\n?|\n)+)", ast.get_docstring(node) or "",
                      re.MULTILINE)
  return re.findall(r"^  (?=\S)[\w, *]+: (.*)", section[1], re.MULTILINE) if section else []


def annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
  """The annotations of a function's arguments, as text."""
  arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
  return [ast.unparse(each.annotation) for each in arguments if each.annotation is not None]


if __name__ == "__main__":
  main()
