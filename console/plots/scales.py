"""Round numbers and round times for axes."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

_STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))
_HOURS = (1, 2, 3, 6, 12)
_DAYS = (1, 2, 5, 7, 14, 30, 61, 91, 182, 365)
_MOST_TIMES = 9
_MONTHS_ONLY = timedelta(days=550)  # longer axes show months and years instead of days


def round_ticks(low: Decimal, high: Decimal, most: int = 5) -> list[Decimal]:
    """Round numbers between two numbers, at equal distances, at most so many."""
    if high <= low:
        return []
    raw = (high - low) / most
    power = Decimal(1).scaleb(raw.adjusted())
    step = next(power * factor for factor in _STEPS if power * factor >= raw)
    first = (low / step).to_integral_value(rounding="ROUND_CEILING")
    found = []
    while first * step <= high:
        found.append(first * step + 0)  # no negative zero
        first += 1
    return found


def time_ticks(start: datetime, end: datetime, zone: str) -> list[tuple[datetime, str]]:
    """Beginnings of hours or days in a zone, with their texts."""
    length = end - start
    local = start.astimezone(ZoneInfo(zone))
    if length <= timedelta(days=3):
        hours = next((one for one in _HOURS if length / timedelta(hours=one) <= _MOST_TIMES), _HOURS[-1])
        first = local.replace(minute=0, second=0, microsecond=0)
        found = [first + timedelta(hours=hour) for hour in range(0, 24 * 4, hours)]
        texts = [f"{one:%H:%M}" if one.hour else f"{one.day} {one:%b}" for one in found]
    else:
        fitting = (one for one in _DAYS if length / timedelta(days=one) <= _MOST_TIMES)
        days = next(fitting, -(-length // timedelta(days=_MOST_TIMES)))
        first = local.replace(hour=0, minute=0, second=0, microsecond=0)
        found = [first + timedelta(days=day) for day in range(0, days * (_MOST_TIMES + 2), days)]
        texts = [f"{one:%b} {one.year}" if length > _MONTHS_ONLY else f"{one.day} {one:%b}" for one in found]
    pairs = [(one.astimezone(UTC), text) for one, text in zip(found, texts, strict=True)]
    return [(time, text) for time, text in pairs if start <= time <= end]
