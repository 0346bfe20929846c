"""Fixtures of the tests of quotas: a server, and a caller of it."""

from tests.support.usage.fixtures import (
    caller,
    caller_of_own_server,
    caller_of_shared_server,
    own_pool,
    shared_database_url,
    shared_pool,
    shared_server,
)

__all__ = [
    "caller",
    "caller_of_own_server",
    "caller_of_shared_server",
    "own_pool",
    "shared_database_url",
    "shared_pool",
    "shared_server",
]
