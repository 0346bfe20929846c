"""The windows of limits in the columns window_kind and window_minutes: both are unset for the billing period."""

import functools

from evaluator.limit_windows import BILLING_PERIOD, LimitWindow, WindowKind


@functools.lru_cache(maxsize=1024)
def window_of(kind: str | None, minutes: int | None) -> LimitWindow:
    """The window in the columns; equal ones are one object."""
    return BILLING_PERIOD if kind is None else LimitWindow(WindowKind(kind), minutes)


def columns_of(window: LimitWindow) -> dict[str, str | int | None]:
    """The columns of a window."""
    return {
        "window_kind": None if window == BILLING_PERIOD else window.kind.value,
        "window_minutes": window.minutes,
    }
