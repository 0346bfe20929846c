"""The wait that a receiver asks for with the header Retry-After."""

import email.utils
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

MAX_RETRY_AFTER = timedelta(hours=24)  # the longest wait that is honoured
LONGEST_NUMBER = 9  # digits of a Retry-After that are read; more would mean centuries


def asked_wait(headers: Sequence[str], dates: Sequence[str], now: datetime) -> timedelta | None:
    """The longest wait that the `Retry-After` headers of a response ask for; None when none of them can be read.

    `dates` are its `Date` headers. A Retry-After that is a date is counted from the Date, by the receiver's own
    clock: a receiver whose clock is wrong still means as many seconds as lie between the two.
    """
    sent = _http_date(dates[0]) if len(dates) == 1 else None
    waits = [parse_retry_after(header, now if sent is None else sent) for header in headers]
    return max((wait for wait in waits if wait is not None), default=None)


def parse_retry_after(header: str | None, now: datetime) -> timedelta | None:
    """The wait that a Retry-After header asks for, in seconds or as an HTTP date; None without a header.

    A date in the past asks for no wait. A header of neither form is ignored.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=int(text)) if len(text) <= LONGEST_NUMBER else MAX_RETRY_AFTER
    time = _http_date(text)
    return None if time is None else max(time - now, timedelta(0))


def _http_date(text: str) -> datetime | None:
    try:
        time = email.utils.parsedate_to_datetime(text.strip())
    except (ValueError, OverflowError):
        return None
    # RFC 5322 writes -0000 for a time in UTC whose own zone is unknown.
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
