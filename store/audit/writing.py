"""Writes entries of the audit log, in the transaction of the change.

Such a transaction writes one row, whatever it changes. The number of an entry is assigned after the commit
(`store.audit.numbering`): a number that is taken inside the transaction can become visible after a higher one, and a
reader of the log would miss it.
"""

import base64
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import orjson

from store.audit.entries import MAX_ACTOR_ID, MAX_TEXT, Cause, NewEntry
from store.postgres.database import DriverConnection
from store.postgres.distributed import require_coordinator

ROW_BYTES = 1_000_000  # of the entries in one row, about

# The columns of an entry in the JSON of a row, with their types. The states are in base64.
COLUMNS = {
    "actor_kind": "text",
    "actor_id": "text",
    "actor_name": "text",
    "actor_identity": "text",
    "roles": "text[]",
    "method": "text",
    "peer": "text",
    "client_identity": "text",
    "user_agent": "text",
    "request_id": "text",
    "resource_type": "text",
    "resource_id": "text",
    "customer_id": "text",
    "before_state": "text",
    "after_state": "text",
    "hidden_fields": "text[]",
    "abridged": "boolean",
}

_WRITE = "INSERT INTO audit_pending (organization_id, create_time, entries) VALUES (%s, %s, %s)"


async def write(
    connection: DriverConnection, organization_id: int, entries: Sequence[NewEntry], now: datetime
) -> None:
    """Writes entries, in their order. now: when the changes were made. Takes no lock, and waits for nothing.

    Raises NeedsCoordinator at a worker.
    """
    require_coordinator(connection)
    for text in _rows(entries):
        await connection.execute(_WRITE, (organization_id, now, text))


def _rows(entries: Sequence[NewEntry]) -> Iterator[str]:
    """The entries as JSON arrays of a limited size."""
    causes = dict[int, dict[str, Any]]()  # many entries of one call have one cause
    row, size = list[bytes](), 0
    for entry in entries:
        cause = causes.get(id(entry.cause))
        if cause is None:
            cause = causes[id(entry.cause)] = _cause(entry.cause)
        encoded = orjson.dumps(cause | _changed(entry))
        if row and size + len(encoded) > ROW_BYTES:
            yield _array(row)
            row, size = [], 0
        row.append(encoded)
        size += len(encoded)
    if row:
        yield _array(row)


def _array(encoded: Sequence[bytes]) -> str:
    return (b"[" + b",".join(encoded) + b"]").decode()


def _cause(cause: Cause) -> dict[str, Any]:
    actor = cause.actor
    return {
        "actor_kind": actor.kind.value,
        "actor_id": _printable(actor.actor_id, MAX_ACTOR_ID),
        "actor_name": _printable(actor.name),
        "actor_identity": _printable(actor.identity, 10 * MAX_TEXT),
        "roles": list(actor.roles),
        "method": cause.method,
        "peer": _printable(cause.peer),
        "client_identity": _printable(cause.client_identity, 10 * MAX_TEXT),
        "user_agent": _printable(cause.user_agent),
        "request_id": _printable(cause.request_id),
    }


def _changed(entry: NewEntry) -> dict[str, Any]:
    changed = entry.changed
    return {
        "resource_type": changed.resource_type.value,
        "resource_id": changed.resource_id,
        "customer_id": changed.customer_id or None,
        "before_state": _encoded(changed.before),
        "after_state": _encoded(changed.after),
        "hidden_fields": list(changed.hidden_fields),
        "abridged": changed.abridged,
    }


def _encoded(state: bytes | None) -> str | None:
    return None if state is None else base64.b64encode(state).decode()


def _printable(text: str, limit: int = MAX_TEXT) -> str:
    """The text without what PostgreSQL cannot store: an entry that cannot be numbered would stop the log."""
    if len(text) > limit:
        text = text[:limit]
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)
