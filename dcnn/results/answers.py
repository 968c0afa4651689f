"""What a table says of an error, in a sentence: the largest effects, and what cannot be told."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dcnn import stats
from dcnn.base.text import Unit
from dcnn.results import effects, planning, text
from dcnn.results.records import Result, Table
from dcnn.results.summary import Comparison


class Part(NamedTuple):
  """A piece of a sentence.

  Attributes:
    words: The text.
    kind: `arm` for the name of an arm, a verdict for one, and empty for the rest.
  """

  words: str
  kind: str = ""


def answer(
    asked: Table, summaries: Sequence[stats.ArmSummary], reach: str, unit: Unit
) -> list[Part]:
  """The sentence on one error of a table.

  Args:
    asked: The table.
    summaries: The statistics of its arms.
    reach: What the seeds at hand can find, in words; see `planning.reach`. It stands where an arm
      is undecided.
    unit: In which the error of a baseline is shown that stands alone.

  Returns:
    The pieces of the sentence, with the spaces between them.
  """
  if not any(np.isfinite(summary.error.centre) for summary in summaries):
    return [Part("No run finished.")]
  pairs = [(summary, summary.contrast) for summary in summaries if summary.contrast]
  if not pairs:
    (alone,) = (summary for summary in summaries if summary.arm == asked.baseline)
    error = text.quantity_text(str(text.error_text(alone.error, unit.factor)), unit.name)
    return [Part(asked.baseline, "arm"), Part(f": {error}. There is no other arm.")]
  sides = [[pair for pair in pairs if pair[1].verdict == side] for side in ("better", "worse")]
  sides = sorted(filter(None, sides), key=lambda side: -_size(_most(side)[1]))
  rest = [pair for pair in pairs if pair[1].verdict not in ("better", "worse")]
  parts: list[Part] = [] if sides else [
      *_nothing_decided(asked, rest), Part(_remark(rest, reach)), Part(".")]
  for number, side in enumerate(sides):
    parts += [Part("; ")] * (number > 0) + list(_effect(asked, side, first=number == 0))
  parts += [*_rest(rest, reach), Part(".")] if sides else []
  return [part for part in parts if part.words]


def _size(contrast: stats.Contrast) -> float:
  """How far a ratio is from 1; farthest where there is none, as runs failed or are exact."""
  with np.errstate(divide="ignore"):
    size = abs(np.log(contrast.ratio))
  return np.inf if np.isnan(size) else float(size)


def _most(
    side: Sequence[tuple[stats.ArmSummary, stats.Contrast]]
) -> tuple[stats.ArmSummary, stats.Contrast]:
  return max(side, key=lambda pair: _size(pair[1]))


def _effect(
    asked: Table, side: Sequence[tuple[stats.ArmSummary, stats.Contrast]], *, first: bool
) -> Iterator[Part]:
  """The largest effect on one side, and how far the others on that side reach."""
  summary, contrast = _most(side)
  yield Part(summary.arm, "arm")
  yield Part(": ")
  yield from _ratio(asked, summary, contrast, of_what=first)
  yield Part(", ")
  yield Part(contrast.verdict, contrast.verdict)
  others = [each for _, each in side if each is not contrast and np.isfinite(each.ratio)]
  if others:
    ratios = sorted(others, key=lambda each: each.ratio)
    ends = list(dict.fromkeys(
        text.ratio_text(stats.Interval(*each[:3])).centre for each in (ratios[0], ratios[-1])))
    are = "is 1 more arm" if len(others) == 1 else f"are {len(others)} more arms"
    yield Part(f", and so {are} ({' to '.join(ends)})")


def _ratio(
    asked: Table, summary: stats.ArmSummary, contrast: stats.Contrast, *, of_what: bool
) -> Iterator[Part]:
  ratio = text.ratio_text(stats.Interval(*contrast[:3]))
  if contrast.pairs == 0:
    yield Part(f"{summary.failed} of {summary.n} runs failed, and none is left to compare with ")
    yield Part(asked.baseline, "arm")
    return
  if np.isnan(contrast.ratio):
    yield Part("an error, where the runs of ")
    yield Part(asked.baseline, "arm")
    yield Part(" are exact")
    return
  yield Part(f"{ratio.centre} times")
  if of_what:
    yield Part(" the error of ")
    yield Part(asked.baseline, "arm")
  yield Part(f" {ratio.ends}" if ratio.ends else " (one pair)")


def _nothing_decided(
    asked: Table, rest: Sequence[tuple[stats.ArmSummary, stats.Contrast]]
) -> Iterator[Part]:
  """That no arm is better or worse: as none can differ much, or as none is shown to."""
  kinds = {contrast.verdict for _, contrast in rest}
  if kinds == {"equivalent"}:
    yield Part("No arm" if len(rest) > 1 else rest[0][0].arm, "" if len(rest) > 1 else "arm")
    yield Part(" differs from " if len(rest) > 1 else " does not differ from ")
    yield Part(asked.baseline, "arm")
    yield Part(" by more than 12 %")
    return
  summary, contrast = _most([pair for pair in rest if pair[1].verdict != "equivalent"])
  yield Part("No arm is shown to differ from ")
  yield Part(asked.baseline, "arm")
  yield Part("; farthest is ")
  yield Part(summary.arm, "arm")
  yield Part(": ")
  yield from _ratio(asked, summary, contrast, of_what=False)


def _rest(
    rest: Sequence[tuple[stats.ArmSummary, stats.Contrast]], reach: str
) -> Iterator[Part]:
  """How many arms are neither better nor worse, and why."""
  equivalent = sum(contrast.verdict == "equivalent" for _, contrast in rest)
  if equivalent:
    yield Part(f"; {equivalent} {'is' if equivalent == 1 else 'are'} ")
    yield Part("equivalent", "equivalent")
    yield Part(f" ({text.WITHIN})")
  yield Part(_remark(rest, reach))


def _remark(rest: Sequence[tuple[stats.ArmSummary, stats.Contrast]], reach: str) -> str:
  """How many arms are undecided, and what could decide them."""
  verdicts = [contrast.verdict for _, contrast in rest]
  count = len(verdicts) - verdicts.count("equivalent")
  if not count:
    return ""
  word = planning.TOO_FEW if planning.TOO_FEW in verdicts else "undecided"
  why = f" ({reach})" if reach else ""
  return f"; {count} undecided{why}" if word == "undecided" else f"; {planning.TOO_FEW}{why}"


def stories(result: Result, comparisons: Sequence[Comparison]) -> list[list[Part]]:
  """What becomes of the largest effect of each table during training, in a sentence.

  Args:
    result: The result of a sweep.
    comparisons: Its tables with their statistics.

  Returns:
    The pieces of a sentence for each table whose curves tell of an effect, on the error that is
    watched during training.
  """
  curves, found = effects.validation_curves(result), []
  for table, summaries in comparisons:
    metric = _watched(result, summaries)
    told = _story(effects.effects(result, curves, table, metric), summaries.get(metric, ()))
    if told:
      arm, words = told
      found.append([
          Part(f"{table.title}: the gap of "), Part(arm, "arm"), Part(" to "),
          Part(table.baseline, "arm"), Part(f" in {metric} {words}.")])
  return found


def _watched(result: Result, summaries: Mapping[str, Sequence[stats.ArmSummary]]) -> str:
  """The error that is watched, if arms are compared by it; else the last of those compared."""
  watched = result.measures.watched
  return watched if watched in summaries else next(reversed([*summaries]), "")


def _story(
    found: list[effects.Effect], summaries: Sequence[stats.ArmSummary]
) -> tuple[str, str] | None:
  """The arm with the largest effect of which there is a story, better or worse ones first."""
  decided = {summary.arm for summary in summaries
             if summary.contrast and summary.contrast.verdict in ("better", "worse")}
  order = effects.largest(found, len(found))
  for effect in sorted(order, key=lambda effect: effect.arm not in decided):
    words = effects.story(effect)
    if words:
      return effect.arm, words
  return None
