"""Timestamps and durations as JSON writes them, to the nanosecond and without floats."""

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s", re.ASCII)
MAX_DURATION = 315_576_000_000  # seconds


def parse_timestamp(text: str) -> tuple[int, int]:
    """Seconds since 1970, and nanoseconds. Raises ValueError with what is wrong."""
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        raise ValueError("write a time such as 2026-01-31T12:00:00Z")
    date, time, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone in 'Zz' else zone}")
        passed = moment - _EPOCH
    except (ValueError, OverflowError) as error:
        raise ValueError(f"there is no such time: {error}") from None
    seconds = passed.days * 86_400 + passed.seconds
    if not -62_135_596_800 <= seconds <= 253_402_300_799:
        raise ValueError("times are of the years 1 to 9999 in UTC")
    return seconds, int((fraction or "").ljust(9, "0") or 0)


def write_timestamp(seconds: int, nanos: int) -> str:
    """A time with no fraction, or one of 3, 6 or 9 digits."""
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.replace(tzinfo=None).isoformat()}{_fraction(nanos)}Z"


def parse_duration(text: str) -> tuple[int, int]:
    """Seconds and nanoseconds, of one sign. Raises ValueError with what is wrong."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("write seconds such as 3600s or 1.5s")
    sign = -1 if found[1] else 1
    seconds = int(found[2])
    if seconds > MAX_DURATION:
        raise ValueError(f"it is more than {MAX_DURATION} seconds")
    return sign * seconds, sign * int((found[3] or "").ljust(9, "0") or 0)


def write_duration(seconds: int, nanos: int) -> str:
    """Seconds with no fraction, or one of 3, 6 or 9 digits."""
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos))}s"


def _fraction(nanos: int) -> str:
    if not nanos:
        return ""
    digits = f"{nanos:09d}"
    for length in (3, 6):
        if digits.endswith("0" * (9 - length)):
            return f".{digits[:length]}"
    return f".{digits}"
