"""Times as files contain them: texts with and without a zone, and numbers since 1970 of every unit."""

from __future__ import annotations

import email.utils
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # times are UTC without a zone here, which is faster
_MICROSECOND = timedelta(microseconds=1)
# A number below the bound is in this unit: seconds until the year 5138, milliseconds until then from March 1973, and
# so on. The number is divided by the second entry, or multiplied by the third, for microseconds.
_UNITS = (
    (10**11, "seconds", 1_000_000, 1),
    (10**14, "milliseconds", 1_000, 1),
    (10**17, "microseconds", 1, 1),
    (10**20, "nanoseconds", 1, 1_000),
)
_DATE_DIGITS = (8, 14)  # of a date or a time without signs, such as 20260301
_FORMATS = ("%d/%b/%Y:%H:%M:%S %z", "%d %b %Y %H:%M:%S", "%b %d %Y %H:%M:%S")
_ZERO = timedelta()


class TimeReader:
    """Reads times. zone: of those without one; None: UTC. shift: added to each.

    A local time that a change of the clocks skips or repeats is read with the offset before the change: of two times
    it is the first, and one that does not exist is as long after the change as it says.

    forms: how often each form occurred, by its name. repeated, skipped: such local times.
    """

    def __init__(self, zone: ZoneInfo | None = None, shift: timedelta = _ZERO) -> None:
        self._zone = zone
        self._shift = shift
        self._forms = {"with a zone": 0, "without a zone": 0, **{unit: 0 for _, unit, _, _ in _UNITS}}
        self.repeated = 0
        self.skipped = 0

    @property
    def forms(self) -> Counter[str]:
        """The forms that occurred."""
        return Counter({form: count for form, count in self._forms.items() if count})

    def read(self, value: Any) -> datetime:
        """The time of a text, or of a datetime or date, in UTC without a zone. Raises ValueError, OverflowError."""
        if type(value) is str:
            if value.isdecimal():
                return self._since_1970(value)
            try:
                time = datetime.fromisoformat(value)
            except ValueError:
                return self._other(value)
        elif isinstance(value, datetime):
            time = value
        elif isinstance(value, date):
            time = datetime(value.year, value.month, value.day)  # noqa: DTZ001  # the zone follows
        else:
            raise ValueError(value)
        return self._in_utc(time)

    def _in_utc(self, time: datetime) -> datetime:
        zone = time.tzinfo
        if zone is UTC:
            self._forms["with a zone"] += 1
            time = time.replace(tzinfo=None)
        elif zone is not None:
            self._forms["with a zone"] += 1
            time = time.astimezone(UTC).replace(tzinfo=None)
        else:
            self._forms["without a zone"] += 1
            if self._zone is not None:
                time -= self._offset(time, self._zone)
        return time + self._shift if self._shift else time

    def _offset(self, time: datetime, zone: ZoneInfo) -> timedelta:
        before, after = zone.utcoffset(time), zone.utcoffset(time.replace(fold=1))
        assert before is not None
        assert after is not None
        if before > after:
            self.repeated += 1
        elif before < after:
            self.skipped += 1
        return before

    def _since_1970(self, text: str) -> datetime:
        if len(text) in _DATE_DIGITS and "19" <= text[:2] <= "21" and text[4:8] <= "1231":
            raise ValueError(text)  # a date without signs, or a time in 1970 or after 2500: it could be both
        return self._of_number(Decimal(text))

    def _of_number(self, number: Decimal) -> datetime:
        if not number.is_finite() or number.adjusted() > 20:
            raise ValueError(number)
        for below, unit, factor, divisor in _UNITS:
            if abs(number) < below:
                self._forms[unit] += 1
                return EPOCH + int(number * factor / divisor) * _MICROSECOND + self._shift
        raise ValueError(number)

    def _other(self, text: str) -> datetime:
        try:
            return self._of_number(Decimal(text))
        except InvalidOperation:
            pass
        for zone in (" UTC", " GMT", " Z"):
            if text.endswith(zone) and text[:4].isdecimal():
                return self._in_utc(datetime.fromisoformat(text.removesuffix(zone).strip()).replace(tzinfo=UTC))
        if text[4:5] == text[7:8] == "/":
            return self._in_utc(datetime.fromisoformat(text.replace("/", "-", 2)))
        for form in _FORMATS:
            try:
                return self._in_utc(datetime.strptime(text, form))  # noqa: DTZ007  # the zone follows
            except ValueError:
                continue
        return self._in_utc(email.utils.parsedate_to_datetime(text))
