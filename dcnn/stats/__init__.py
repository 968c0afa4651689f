"""Comparison of arms over paired seeds: intervals, tests, failure rates and verdicts.

Errors of trained networks spread by factors, so all means and intervals are taken of their
logarithms. Arms share their seeds, so an arm is compared with its baseline seed by seed. A failed
run has the error inf or nan: it enters no mean, but it is counted, and it ranks worst. An exact run
has the error 0, whose logarithm is not finite either: a single one would make every geometric mean
0. It enters no mean, but it is counted, and it ranks best. Where all finished runs are exact, their
mean is 0. Two exact runs are equal: their ratio is 1.
"""

from dcnn.stats.calibration import (
    FEWEST_MEMBERS,
    Calibration,
    Ensemble,
    calibrate,
    ensemble,
    miscalibration,
)
from dcnn.stats.comparison import ArmSummary, Contrast, compare, joint_p, verdict
from dcnn.stats.factorial import Factorial, factorial
from dcnn.stats.intervals import CONFIDENCE, Interval, geometric_mean, wilson
from dcnn.stats.looks import look_level, look_number
from dcnn.stats.permutation import (
    SIGNIFICANCE,
    fewest_seeds,
    holm,
    log_ratios,
    max_t,
    paired_p,
    signed_scores,
    smallest_p,
)
from dcnn.stats.power import detectable_ratio, power, seeds_needed
from dcnn.stats.strata import combined_p, combined_ratio

__all__ = [
    "CONFIDENCE",
    "FEWEST_MEMBERS",
    "SIGNIFICANCE",
    "ArmSummary",
    "Calibration",
    "Contrast",
    "Ensemble",
    "Factorial",
    "Interval",
    "calibrate",
    "combined_p",
    "combined_ratio",
    "compare",
    "detectable_ratio",
    "ensemble",
    "factorial",
    "fewest_seeds",
    "geometric_mean",
    "holm",
    "joint_p",
    "log_ratios",
    "look_level",
    "look_number",
    "max_t",
    "miscalibration",
    "paired_p",
    "power",
    "seeds_needed",
    "signed_scores",
    "smallest_p",
    "verdict",
    "wilson",
]
