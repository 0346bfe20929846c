"""Fixtures: a server and a caller of it, as the tests of the hot path have them."""

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
