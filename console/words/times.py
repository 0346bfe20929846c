"""Times and durations as people read them, always with their zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp

_STEPS = ((86_400, "day"), (3_600, "h"), (60, "min"), (1, "s"))


def at(time: Timestamp) -> datetime:
    """The time of a timestamp, in UTC."""
    return time.ToDatetime(tzinfo=UTC)


def shown(time: datetime, zone: str = "UTC") -> str:
    """29 Nov 2026, 19:30 UTC; the offset where the zone is another."""
    local = time.astimezone(ZoneInfo(zone))
    name = "UTC" if zone == "UTC" else local.tzname() or zone
    if name[:1] in "+-":
        name = f"UTC{name[:3]}:{name[3:]}" if len(name) > 3 else f"UTC{name}"
    return f"{local.day} {local:%b %Y, %H:%M} {name}"


def shown_exactly(time: datetime) -> str:
    """The time in ISO 8601, to the microsecond, for a title."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def day(time: datetime, zone: str = "UTC") -> str:
    """29 Nov."""
    local = time.astimezone(ZoneInfo(zone))
    return f"{local.day} {local:%b}"


def period(start: datetime, end: datetime, zone: str = "UTC") -> str:
    """1 Nov – 1 Dec 2026, UTC."""
    first, last = start.astimezone(ZoneInfo(zone)), end.astimezone(ZoneInfo(zone))
    has_hours = (first.hour, first.minute, last.hour, last.minute) != (0, 0, 0, 0)
    clock = " %H:%M" if has_hours else ""
    year = "" if first.year == last.year else f" {first.year}"
    begin = f"{first.day} {first:%b}{year}{first.strftime(clock)}"
    return f"{begin} – {last.day} {last:%b} {last.year}{last.strftime(clock)}"


def distance(time: datetime, now: datetime) -> str:
    """5 min ago, in 3 days."""
    seconds = int((now - time).total_seconds())
    words = duration(timedelta(seconds=abs(seconds)))
    if abs(seconds) < 1:
        return "now"
    return f"{words} ago" if seconds > 0 else f"in {words}"


def duration(length: timedelta) -> str:
    """The largest unit: 45 s, 5 min, 3 h, 2 days. Below a second in milliseconds."""
    seconds = length.total_seconds()
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    for size, unit in _STEPS:
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}" + ("s" if unit == "day" and number != 1 else "")
    return "0 s"
