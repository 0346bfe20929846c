"""Requests that are only validated (AIP-163): all checks are made, the answer is the same, and nothing changes."""

import contextlib
from collections.abc import AsyncIterator

from store.postgres.database import Connection, Database


class _RolledBack(Exception):
    """Ends a transaction whose changes are not wanted."""


@contextlib.asynccontextmanager
async def transaction_of(database: Database, validate_only: bool) -> AsyncIterator[Connection]:
    """The transaction of a request that changes something. With `validate_only` it is rolled back at its end.

    The change is really made and then undone, because a second set of checks could disagree with the first. What
    happens outside of the transaction (to wake a background task, to keep rules that were read in it) must be left
    out by the caller.
    """
    with contextlib.suppress(_RolledBack):
        async with database.transaction() as connection:
            yield connection
            if validate_only:
                raise _RolledBack
