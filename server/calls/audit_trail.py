"""The audit log of the current call: a handler records each change in the transaction that makes it."""

from datetime import datetime

from server.calls.current_call import current_cause, current_organization
from store.audit import writing
from store.audit.entries import Changed, NewEntry
from store.postgres.database import Connection, driver


async def record(connection: Connection, now: datetime, *changes: Changed) -> None:
    """Records changes by the current call. now: when they were made.

    Call it once in a transaction, after everything else: it is one statement. Nothing is recorded without changes.
    """
    if not changes:
        return
    cause = current_cause()
    entries = [NewEntry(cause, one) for one in changes]
    await writing.write(await driver(connection), current_organization().organization_id, entries, now)
