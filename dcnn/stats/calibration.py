"""How well the spread of an ensemble tells its error."""

from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.special when it is first used
from jaxtyping import Float

FEWEST_MEMBERS = 3  # of an ensemble whose spread says anything


class Calibration(NamedTuple):
  """What the spread of an ensemble is worth as an uncertainty.

  Attributes:
    factor: What the spread is to be multiplied by; nan where there is no spread.
    before: Miscalibration of the spread on test data, 0 to 0.5.
    after: The same of the spread times `factor`.
    error: Root mean square of the errors of the ensemble's mean on test data, in their unit.
    spread: Root mean square of the spread there, in the same unit.
  """

  factor: float
  before: float
  after: float
  error: float
  spread: float


class Ensemble(NamedTuple):
  """What an ensemble predicts of some quantities.

  Attributes:
    error: Mean of the members less the reference.
    spread: Standard deviation over the members, that of the population: divided by their number.
  """

  error: Float[np.ndarray, " values"]
  spread: Float[np.ndarray, " values"]


def ensemble(
    true: Float[np.ndarray, "*shape"], predicted: Float[np.ndarray, "members *shape"]
) -> Ensemble:
  """Errors of the mean of an ensemble, and its spread.

  Args:
    true: The reference, of any shape.
    predicted: The predictions of each member, in the same unit.

  >>> found = ensemble(np.array([0.0, 1.0]), np.array([[0.0, 2.0], [2.0, 2.0]]))
  >>> found.error.tolist(), found.spread.tolist()
  ([1.0, 1.0], [1.0, 0.0])
  """
  return Ensemble(np.ravel(predicted.mean(axis=0) - true), np.ravel(predicted.std(axis=0)))


def calibrate(valid: Ensemble, test: Ensemble, members: int) -> Calibration:
  """Fits one factor to validation data, and says what it is worth on test data.

  With the factor half of the validation errors lie within the central half of the interval that
  the spread gives. The interval of level p is that of Student's t with members - 1 degrees of
  freedom: if the reference were one more member, whose deviations are normal, the spread of n
  members times sqrt((n + 1) / (n - 1)) would be calibrated whatever n is, while intervals of the
  normal distribution would be too narrow for few members.

  Args:
    valid: Errors and spread on validation data.
    test: The same on test data.
    members: The number of members, at least `FEWEST_MEMBERS`.

  Returns:
    The factor, and the miscalibration on test data before and after it.

  Raises:
    ValueError: If there are too few members.

  >>> rng = np.random.default_rng(0)
  >>> draws = rng.normal(size=(2, 6, 4000))  # the sixth is the reference, and 2 times as far off
  >>> valid, test = (ensemble(2 * each[5], each[:5]) for each in draws)
  >>> found = calibrate(valid, test, 5)
  >>> found.before > 0.1 and found.after < 0.02
  True
  """
  if members < FEWEST_MEMBERS:
    raise ValueError(f"expected at least {FEWEST_MEMBERS} members, got {members}")
  factor = float(np.median(_scores(valid)) / scipy.special.stdtrit(members - 1, 0.75))
  if not 0 < factor < np.inf:
    factor = np.nan
  return Calibration(
      factor, miscalibration(test, members),
      miscalibration(test._replace(spread=factor * test.spread), members),
      *(float(np.sqrt(np.mean(np.square(each)))) for each in test))


def miscalibration(found: Ensemble, members: int) -> float:
  """The area between the share of errors within the interval of level p, and p.

  0 is perfect; 0.5 is the worst, where all errors or none lie within every interval.

  Args:
    found: Errors and spread.
    members: The number of members, which decides on Student's t; see `calibrate`.

  Returns:
    The area, for p from 0 to 1; nan where a spread is nan.

  References:
    K. Tran et al., Mach. Learn.: Sci. Technol. 1 (2020) 025006, for normal intervals.

  >>> always_right = Ensemble(np.zeros(10), np.ones(10))
  >>> miscalibration(always_right, 5)
  0.5
  """
  # An error lies within the intervals of all levels from this one on.
  levels = np.sort(2 * scipy.special.stdtr(members - 1, _scores(found)) - 1)
  # The area is the mean distance of sorted levels from uniform ones, piece by piece of width 1/n.
  half = 0.5 / len(levels)
  off = np.abs(levels - np.linspace(half, 1 - half, len(levels)))
  return float(np.sum(np.where(off < half, off**2 + half**2, 2 * half * off)))


def _scores(found: Ensemble) -> Float[np.ndarray, " values"]:
  """Errors in units of the spread; 0 where there is neither, inf where there is no spread."""
  error = np.abs(found.error)
  with np.errstate(divide="ignore"):
    return np.divide(error, found.spread, out=np.zeros_like(error), where=error != 0)
