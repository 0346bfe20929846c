"""Fixtures: the caller of usage tests, and the changes that wait at its server."""

from tests.support.change_groups import groups, organization_id
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
    "groups",
    "organization_id",
    "own_pool",
    "shared_database_url",
    "shared_pool",
    "shared_server",
]
