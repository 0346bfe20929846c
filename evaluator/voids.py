"""Voids: which counted events a caller takes back, and what becomes of each."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class EventKey(NamedTuple):
    """Names one counted event.

    event_time: any time in its calendar month (UTC); None: the one event of that id in all months that are kept.
    """

    customer_id: str
    event_id: str
    event_time: datetime | None


class VoidOutcome(StrEnum):
    """What became of an event that was to be voided."""

    VOIDED = "VOIDED"
    ALREADY_VOIDED = "ALREADY_VOIDED"  # it is stored no more, because it was voided before
    NOT_FOUND = "NOT_FOUND"
    TOO_OLD = "TOO_OLD"  # every period that it counts in is out of grace
    AMBIGUOUS = "AMBIGUOUS"  # several months have an event of that id, and the key does not say which
