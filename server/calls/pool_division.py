"""How the connection pool of one process is divided between calls, usage, and background work."""

from typing import NamedTuple


class Seats(NamedTuple):
    """Connections that calls, and transactions of usage, may use at the same time; background work uses the rest."""

    calls: int
    ingest: int


def reserved(seats: int) -> int:
    """How many of these seats heavy organizations leave to the others (`FairSemaphore`)."""
    return 1 if seats >= 4 else 0  # of fewer, each is needed


def divide(pool_size: int, writers: int) -> Seats:
    """Divides a pool of 4 or more connections.

    Each part has at least one. Timers, backfills, feeds, upkeep and the lookup of API keys share the rest. Calls
    cannot use up the whole pool, because they wait at their gate without a connection.
    writers: transactions of usage that one organization may run at the same time.
    """
    background = max(1, pool_size // 4)
    ingest = max(1, min(max(pool_size // 3, writers), pool_size - background - 1))
    return Seats(calls=max(1, pool_size - background - ingest), ingest=ingest)
