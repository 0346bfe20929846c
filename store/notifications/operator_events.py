"""Operator events: what happened to endpoints or evaluations, for the API and the endpoints that subscribe to it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.notifications import format_time
from store.ids import random_id
from store.tables.notifications import outbox
from store.tables.webhooks import operator_event
from store.usage.evaluations import OUTBOX_CHANNEL
from webhooks.health import Notice

EVENT_ID_PREFIX = "evt_"
NO_CUSTOMER = ""  # customer_id of their outbox rows and deliveries: an id of a customer is never empty

# An endpoint gets these only when its event_types name them.
PREFIXES = ("endpoint.", "delivery.", "evaluation.")


@dataclass(frozen=True)
class OperatorEvent:
    """One operator event before it is written."""

    organization_id: int
    endpoint_id: str  # whom it is about; empty: no endpoint
    notice: Notice


def is_operator_event(event_type: str) -> bool:
    """Whether events of that type are for operators only, and not about what customers use."""
    return event_type.startswith(PREFIXES)


async def add(connection: AsyncConnection, events: Sequence[OperatorEvent], now: datetime) -> list[str]:
    """Writes the events and their outbox rows in the caller's transaction; returns their ids."""
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
    """Writes rows of operator_event that are not there yet, and their outbox rows."""
    if not rows:
        return
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


def body_of(event_id: str, event: OperatorEvent, now: datetime) -> str:
    """The JSON that is posted, byte for byte."""
    return json.dumps(
        {
            "id": event_id,
            "type": event.notice.event_type,
            "timestamp": format_time(now),
            "data": ({"endpoint_id": event.endpoint_id} if event.endpoint_id else {})
            | {
                name: format_time(value) if isinstance(value, datetime) else value
                for name, value in event.notice.data.items()
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
