"""Fixtures of the usage tests: a server, a caller of it, and its backfills held back."""

from tests.support.usage.backfill_workers import workers
from tests.support.usage.fixtures import (
    caller,
    caller_of_own_server,
    caller_of_shared_server,
    own_pool,
    shared_database_url,
    shared_pool,
    shared_server,
)
from tests.support.usage.held_backfills import held_backfills

__all__ = [
    "caller",
    "caller_of_own_server",
    "caller_of_shared_server",
    "held_backfills",
    "own_pool",
    "shared_database_url",
    "shared_pool",
    "shared_server",
    "workers",
]
