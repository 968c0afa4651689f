"""Counts what a compiled training step launches, from its text and from a trace of the device."""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

import jax

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?:\([^=]*?\)|\S+) ([\w\-]+)\(")
_CALLED = re.compile(r"\b(?:to_apply|calls|body)=%?([\w.\-]+)")
# What moves no data, and launches nothing.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
         "opt-barrier", "partition-id", "replica-id"}


def launches_per_turn(text: str) -> int:
  """The number of operations that one turn of a program's largest loop launches, after fusion.

  Args:
    text: The text of the compiled program.

  Returns:
    The number of fusions, products, copies and whatever else is not free, in the loop's body and
    in what it calls; an inner loop counts as one turn. 0 if there is no loop.
  """
  computations = _computations(text)
  bodies = {name for lines in computations.values() for line in lines
            if " while(" in line for name in re.findall(r"\bbody=%?([\w.\-]+)", line)}
  return max((_launches(computations, name) for name in bodies), default=0)


def _computations(text: str) -> dict[str, list[str]]:
  found: dict[str, list[str]] = {}
  current: list[str] = []
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current = found.setdefault(header[1], [])
    elif line.startswith(" "):
      current.append(line)
  return found


def _launches(computations: dict[str, list[str]], name: str) -> int:
  total = 0
  for line in computations.get(name, ()):
    instruction = _INSTRUCTION.match(line)
    if not instruction or instruction[1] in _FREE:
      continue
    inner = _CALLED.search(line) if instruction[1] in ("call", "while") else None
    total += _launches(computations, inner[1]) if inner else 1
  return total


def trace(run: Callable[[], Any], steps: int) -> dict[str, Any]:
  """What the device does in `steps` training steps, from JAX's profiler.

  Args:
    run: Takes the steps, and waits for them.
    steps: The number of steps that it takes.

  Returns:
    `kernels_per_step`, their number; `busy_ms_per_step`, the sum of their times;
    `span_ms_per_step`, the time from the start of the first to the end of the last; `largest`, the
    milliseconds and calls of a step by the name of the kernel. Empty where the profiler sees no
    device.
  """
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run()
    file, = pathlib.Path(folder).rglob("*.xplane.pb")
    profile = jax.profiler.ProfileData.from_file(str(file))
  events = [event for plane in profile.planes if plane.name.startswith("/device:")
            for line in plane.lines if line.name.startswith("Stream") for event in line.events]
  if not events:
    return {}
  seconds: collections.Counter[str] = collections.Counter()
  calls: collections.Counter[str] = collections.Counter()
  for event in events:
    seconds[event.name] += event.duration_ns * 1e-9
    calls[event.name] += 1
  span = max(event.end_ns for event in events) - min(event.start_ns for event in events)
  return {
      "kernels_per_step": len(events) / steps,
      "busy_ms_per_step": 1e3 * sum(seconds.values()) / steps,
      "span_ms_per_step": 1e-6 * span / steps,
      "largest": {name: [1e3 * each / steps, calls[name] / steps]
                  for name, each in seconds.most_common(25)}}
