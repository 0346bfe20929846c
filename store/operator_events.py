"""Operator events: what happened to an endpoint, kept for the API and sent to the endpoints that subscribe to it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.notifications import format_time
from store.endpoint_health import Notice
from store.evaluations import OUTBOX_CHANNEL
from store.ids import random_id
from store.tables.notifications import outbox
from store.tables.webhooks import operator_event

EVENT_ID_PREFIX = "evt_"
NO_CUSTOMER = ""  # customer_id of their outbox rows and deliveries: an id of a customer is never empty

# An endpoint gets these only when its event_types name them.
PREFIXES = ("endpoint.", "delivery.")


@dataclass(frozen=True)
class OperatorEvent:
    """One operator event before it is written."""

    organization_id: int
    endpoint_id: str  # whom it is about
    notice: Notice


def is_operator_event(event_type: str) -> bool:
    """Whether events of that type are about endpoints, not about customers."""
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
    await connection.execute(insert(operator_event), rows)
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
    return [str(row["event_id"]) for row in rows]


def body_of(event_id: str, event: OperatorEvent, now: datetime) -> str:
    """The JSON that is posted, byte for byte."""
    return json.dumps(
        {
            "id": event_id,
            "type": event.notice.event_type,
            "timestamp": format_time(now),
            "data": {"endpoint_id": event.endpoint_id}
            | {
                name: format_time(value) if isinstance(value, datetime) else value
                for name, value in event.notice.data.items()
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
