"""Quotas: how much of each thing one organization may have, or do in a second, on all servers together."""

from collections.abc import Mapping
from enum import StrEnum


class QuotaKind(StrEnum):
    """What a quota limits. The value is its name in the database and on the command line."""

    ALERTS = "alerts"  # without archived ones
    ENDPOINTS = "endpoints"
    STREAMS = "streams"  # open usage streams
    WATCHERS = "watchers"  # open streams of notifications, decisions and audit entries
    EVENTS_PER_SECOND = "events_per_second"
    BYTES_PER_SECOND = "bytes_per_second"  # of all requests, after their decompression


MAX_QUOTA = 10**12

# The quotas of an organization. A kind that is missing has the default; None: it is not limited.
Quotas = Mapping[QuotaKind, int | None]
