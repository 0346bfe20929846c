"""Connections: how the pool of one process is divided between calls, usage, and what runs in the background."""

from typing import NamedTuple


class Seats(NamedTuple):
    """Connections that calls, and transactions of usage, may use at a time; the rest is for the background."""

    calls: int
    ingest: int


def divide(pool_size: int, writers: int) -> Seats:
    """Divides a pool of 4 or more connections.

    Each part has one at the least. Timers, visits, feeds, upkeep and the look-up of keys take turns in the rest, and
    never find all of the pool taken by calls: these wait at the gates, where they hold no connection.
    writers: transactions of usage that one organization may have side by side.
    """
    background = max(1, pool_size // 4)
    ingest = max(1, min(max(pool_size // 3, writers), pool_size - background - 1))
    return Seats(calls=max(1, pool_size - background - ingest), ingest=ingest)
