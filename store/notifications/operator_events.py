"""Operator events: notices about endpoints and evaluations, for the API and the endpoints that subscribe to them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.tracing.current import current_trace
from store.ids import random_id
from store.postgres.channels import OUTBOX_CHANNEL
from store.postgres.database import driver
from store.postgres.distributed import require_coordinator
from store.tables.notifications import outbox
from store.tables.webhooks import operator_event
from webhooks.operator_events import EVENT_ID_PREFIX, OperatorEvent, body_of

NO_CUSTOMER = ""  # the customer_id of their outbox rows and deliveries; the id of a customer is never empty


async def add(connection: AsyncConnection, events: Sequence[OperatorEvent], now: datetime) -> list[str]:
    """Writes the events and their outbox rows; returns the ids of the events."""
    if not events:
        return []
    rows = []
    for event in events:
        event_id = random_id(EVENT_ID_PREFIX)
        rows.append(
            {
                "organization_id": event.organization_id,
                "event_id": event_id,
                "event_type": event.notice.event_type,
                "endpoint_id": event.endpoint_id,
                "body": body_of(event_id, event, now),
                "create_time": now,
            }
        )
    await write(connection, rows, now)
    return [str(row["event_id"]) for row in rows]


async def write(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Writes those rows of operator_event that do not exist, and their outbox rows. They get the current trace.

    Raises NeedsCoordinator at a worker.
    """
    if not rows:
        return
    require_coordinator(await driver(connection))
    if (trace := current_trace()) is not None:
        rows = [{**row, "trace_context": trace.stored} for row in rows]
    statement = insert(operator_event).on_conflict_do_nothing().returning(operator_event.c.event_id)
    written = set((await connection.execute(statement, rows)).scalars())
    rows = [row for row in rows if row["event_id"] in written]
    if not rows:
        return
    await connection.execute(
        insert(outbox),
        [
            {
                "organization_id": row["organization_id"],
                "customer_id": NO_CUSTOMER,
                "notification_id": row["event_id"],
                "event_type": row["event_type"],
                "condition_type": "",
                "create_time": now,
            }
            for row in rows
        ],
    )
    await connection.execute(text(f"NOTIFY {OUTBOX_CHANNEL}"))
