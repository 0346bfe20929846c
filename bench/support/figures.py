"""Percentiles for the results of benchmarks."""

import math
from collections.abc import Sequence


def milliseconds(seconds: Sequence[float], share: float) -> float:
    """The smallest value, in milliseconds, that at least this share of all values does not exceed."""
    ordered = sorted(seconds)
    return round(1_000 * ordered[math.ceil(share * len(ordered)) - 1], 2)
