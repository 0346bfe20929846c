"""What requests for series have in common."""

from server.calls.validation import Violations

DEFAULT_POINTS, MOST_POINTS = 120, 500


def read_point_count(violations: Violations, count: int) -> int:
    """How many points an answer has at most."""
    if count < 0:
        violations.add("point_count", f"{count} is negative: leave it unset, or give 1 to {MOST_POINTS}")
    return min(count, MOST_POINTS) or DEFAULT_POINTS
