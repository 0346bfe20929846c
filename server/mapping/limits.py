"""The windows and enforcements of limits as messages of the contract, and the checks of what callers send."""

from evaluator.enforced_limits import Enforcement
from evaluator.limit_windows import (
    BILLING_PERIOD,
    LEAST_ROLLING_MINUTES,
    MOST_ROLLING_MINUTES,
    LimitWindow,
    WindowKind,
)
from generated.tidemark.v1 import limit_pb2, limit_window_pb2
from server.calls.validation import Violations

_ENFORCEMENTS = {
    Enforcement.NONE: limit_pb2.LIMIT_ENFORCEMENT_NONE,
    Enforcement.SOFT: limit_pb2.LIMIT_ENFORCEMENT_SOFT,
    Enforcement.HARD: limit_pb2.LIMIT_ENFORCEMENT_HARD,
}
_UNITS = {
    WindowKind.HOUR: limit_window_pb2.CALENDAR_UNIT_HOUR,
    WindowKind.DAY: limit_window_pb2.CALENDAR_UNIT_DAY,
    WindowKind.WEEK: limit_window_pb2.CALENDAR_UNIT_WEEK,
    WindowKind.MONTH: limit_window_pb2.CALENDAR_UNIT_MONTH,
}
_SECONDS_OF_MINUTE = 60


def read_enforcement(violations: Violations, path: str, number: limit_pb2.LimitEnforcement.ValueType) -> Enforcement:
    """The enforcement that was sent; NONE when none was."""
    if number == limit_pb2.LIMIT_ENFORCEMENT_UNSPECIFIED:
        return Enforcement.NONE
    for enforcement, known in _ENFORCEMENTS.items():
        if known == number:
            return enforcement
    violations.add(path, f"there is no enforcement {number}")
    return Enforcement.NONE


def read_window(violations: Violations, path: str, limit: limit_pb2.Limit) -> LimitWindow:
    """The window that was sent; the billing period when none was."""
    if not limit.HasField("window"):
        return BILLING_PERIOD
    sent = limit.window
    match sent.WhichOneof("kind"):
        case "calendar":
            return _read_calendar(violations, f"{path}.calendar.unit", sent.calendar.unit)
        case "rolling":
            return _read_rolling(violations, f"{path}.rolling.duration", sent.rolling)
        case None:
            violations.add(f"{path}.kind", "one of billing_period, calendar and rolling is required")
    return BILLING_PERIOD


def _read_calendar(violations: Violations, path: str, number: limit_window_pb2.CalendarUnit.ValueType) -> LimitWindow:
    for kind, known in _UNITS.items():
        if known == number:
            return LimitWindow(kind)
    violations.add(path, f"there is no unit {number}" if number else "it is required")
    return BILLING_PERIOD


def _read_rolling(violations: Violations, path: str, sent: limit_window_pb2.RollingWindow) -> LimitWindow:
    if not sent.HasField("duration"):
        violations.add(path, "it is required")
        return BILLING_PERIOD
    minutes, rest = divmod(sent.duration.seconds, _SECONDS_OF_MINUTE)
    if rest or sent.duration.nanos:
        violations.add(path, "it is not a number of whole minutes")
        return BILLING_PERIOD
    if not LEAST_ROLLING_MINUTES <= minutes <= MOST_ROLLING_MINUTES:
        violations.add(path, f"it is {minutes} minutes; from 1 minute to 31 days are possible")
        return BILLING_PERIOD
    return LimitWindow(WindowKind.ROLLING, minutes)


def enforcement_value(enforcement: Enforcement) -> limit_pb2.LimitEnforcement.ValueType:
    """The value of the contract for an enforcement."""
    return _ENFORCEMENTS[enforcement]


def window_message(window: LimitWindow) -> limit_window_pb2.LimitWindow:
    """The message for a window."""
    message = limit_window_pb2.LimitWindow()
    if window.minutes is not None:
        message.rolling.duration.seconds = window.minutes * _SECONDS_OF_MINUTE
    elif window.kind in _UNITS:
        message.calendar.unit = _UNITS[window.kind]
    else:
        message.billing_period.SetInParent()
    return message
