"""The windows of limits in the columns window_kind and window_minutes: both are unset for the billing period."""

import functools
from typing import TypedDict

from evaluator.limit_windows import BILLING_PERIOD, LimitWindow, WindowKind


@functools.lru_cache(maxsize=1024)
def window_of(kind: str | None, minutes: int | None) -> LimitWindow:
    """The window in the columns; equal ones are one object."""
    return BILLING_PERIOD if kind is None else LimitWindow(WindowKind(kind), minutes)


class WindowColumns(TypedDict):
    """The columns of a window."""

    window_kind: str | None
    window_minutes: int | None


def columns_of(window: LimitWindow) -> WindowColumns:
    """The columns of a window."""
    kind = None if window == BILLING_PERIOD else window.kind.value
    return WindowColumns(window_kind=kind, window_minutes=window.minutes)
