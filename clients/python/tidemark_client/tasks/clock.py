"""The wall clock of programs that use this package."""

from datetime import datetime, timezone


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)
