"""Operator events about alerts whose evaluation cannot be recorded: at most one for each alert in an hour.

The id of an event is a digest of alert and hour: all replicas compute the same id, and the database keeps the first.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from store.notifications.operator_events import write
from webhooks.operator_events import (
    EVENT_ID_PREFIX,
    EvaluationFailure,
    OperatorEvent,
    OperatorEventType,
    body_of,
    notice_of,
)

WINDOW = 3600  # seconds for which an alert has at most one event


def window(now: datetime) -> int:
    """The number of the window that contains `now`."""
    return int(now.timestamp()) // WINDOW


async def add(
    connection: AsyncConnection, organization_id: int, failures: Sequence[EvaluationFailure], now: datetime
) -> None:
    """Writes an operator event for each failure, unless its alert has one in this window."""
    rows = []
    for failure in failures:
        text = f"{organization_id}\n{failure.alert_id or ''}\n{window(now)}"
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        event_id = EVENT_ID_PREFIX + base64.b32encode(digest).decode().rstrip("=").lower()
        rows.append(
            {
                "organization_id": organization_id,
                "event_id": event_id,
                "event_type": OperatorEventType.EVALUATION_FAILED,
                "endpoint_id": "",
                "body": body_of(event_id, OperatorEvent(organization_id, "", notice_of(failure)), now),
                "create_time": now,
            }
        )
    # Sorted: two replicas that write events about the same alerts wait for each other and do not deadlock.
    await write(connection, sorted(rows, key=lambda row: str(row["event_id"])), now)
