"""Checks of request fields. One error answers all violations of a request."""

import functools
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp

from evaluator.amounts import ZERO, AmountError, parse_decimal
from evaluator.periods import CycleError
from evaluator.periods import time_zone as find_time_zone
from generated.tidemark.v1 import error_reason_pb2
from server.calls.errors import FieldViolation, InvalidArgument

MAX_ID_LENGTH = 128  # characters
MAX_NAME_LENGTH = 256  # characters
MAX_CURRENCY_LENGTH = 64  # characters
MAX_AHEAD = timedelta(minutes=5)  # that a caller's clock may be ahead of the service's

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CURRENCY = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_CURRENCY_LENGTH}}}", re.ASCII)
_LOWER_CASE_ISO = re.compile(r"(?=.*[a-z])[A-Za-z]{3}", re.ASCII)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00Z
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_NANOS = 1_000_000_000


class Violations:
    """The violations of one request.

    A check returns a value of the right type also for a bad field, so that the rest of the request can be checked.
    The values may only be used after `raise_if_any`.
    """

    def __init__(self) -> None:
        self.found: list[FieldViolation] = []

    def add(self, path: str, description: str) -> None:
        """Adds a violation of the field at `path`; the description says what is wrong and what is valid."""
        self.found.append(FieldViolation(path, description))

    def raise_if_any(self) -> None:
        """Raises InvalidArgument with all violations; does nothing when there is none."""
        if self.found:
            raise self.error()

    def error(self) -> InvalidArgument:
        """The error with all violations, of which there is at least one."""
        first = self.found[0]
        more = f" (and {len(self.found) - 1} more)" if len(self.found) > 1 else ""
        return InvalidArgument(
            error_reason_pb2.ERROR_REASON_INVALID_FIELD,
            f"{first.path}: {first.description}{more}",
            violations=self.found,
        )

    def identifier(self, path: str, text: str, *, required: bool = True) -> str:
        """An id that the caller chose: 1–128 characters, no control characters, no space at its start or end."""
        if not text:
            if required:
                self.add(path, "it is required")
        elif (problem := id_problem(text)) is not None:
            self.add(path, problem)
        return text

    def text(self, path: str, text: str, *, max_length: int = MAX_NAME_LENGTH) -> str:
        """A text for people, possibly empty: no control characters, at most `max_length` characters."""
        if len(text) > max_length:
            self.add(path, f"it has {len(text)} characters; at most {max_length} are allowed")
        elif _CONTROL.search(text):
            self.add(path, "it contains control characters")
        return text

    def decimal(self, path: str, text: str) -> Decimal:
        """A required decimal in the grammar of the contract."""
        if not text:
            self.add(path, "it is required")
            return ZERO
        try:
            return parse_decimal(text)
        except AmountError as error:
            self.add(path, str(error))
            return ZERO

    def currency(self, path: str, text: str, *, default: str) -> str:
        """An ISO 4217 code or a pricing unit that the caller chose; `default` when it is empty."""
        if not text:
            return default
        if (problem := currency_problem(text)) is not None:
            self.add(path, problem)
        return text

    def time(self, path: str, time: Timestamp) -> datetime:
        """The time of a timestamp that is set, in microseconds, in the years 1 to 9999."""
        if (problem := time_problem(time.seconds, time.nanos)) is not None:
            self.add(path, problem)
            return EPOCH
        return to_datetime(time)

    def past_time(self, path: str, time: Timestamp, now: datetime) -> datetime:
        """The time of a timestamp that is set, at most 5 minutes in the future."""
        result = self.time(path, time)
        if result > now + MAX_AHEAD:
            self.add(path, f"it is more than {MAX_AHEAD.seconds // 60} minutes in the future")
        return result

    def time_zone(self, path: str, name: str, *, default: str = "UTC") -> str:
        """The name of an IANA time zone; `default` when it is empty."""
        if not name:
            return default
        try:
            find_time_zone(name)
        except CycleError as error:
            self.add(path, str(error))
            return default
        return name


def id_problem(text: str) -> str | None:
    """The problem of an id; None when it is valid."""
    if not text:
        return "it is empty"
    if len(text) > MAX_ID_LENGTH:
        return f"it has {len(text)} characters; an id has at most {MAX_ID_LENGTH}"
    if text != text.strip():
        return "it begins or ends with a space"
    if _CONTROL.search(text):
        return "it contains control characters"
    return None


def currency_problem(text: str) -> str | None:
    """The problem of a currency or pricing unit; None when it is valid."""
    if not _CURRENCY.fullmatch(text):
        return f"a currency has 1–{MAX_CURRENCY_LENGTH} letters, digits, dots, hyphens and underscores"
    # `usd` would be a pricing unit of its own, and usage in USD would never count for it.
    if _LOWER_CASE_ISO.fullmatch(text):
        return f"an ISO 4217 code is written in capitals: {text.upper()}"
    return None


def time_problem(seconds: int, nanos: int) -> str | None:
    """The problem of the two fields of a timestamp; None when they are valid."""
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        return f"its seconds are {seconds}; a time lies in the years 1 to 9999"
    if not 0 <= nanos < _NANOS:
        return f"its nanos are {nanos}; they lie between 0 and 999999999"
    return None


def to_datetime(time: Timestamp) -> datetime:
    """The time of a valid timestamp: aware, in UTC, rounded down to the microsecond."""
    return EPOCH + timedelta(seconds=time.seconds, microseconds=time.nanos // 1000)


@functools.lru_cache(maxsize=1_000)
def shared_timestamp(time: datetime) -> Timestamp:
    """The timestamp of a time that many answers have. It must be copied, and never changed."""
    return to_timestamp(time)


def to_timestamp(time: datetime) -> Timestamp:
    """The timestamp of an aware time."""
    since = time - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)
