"""Operator events about alerts whose evaluation cannot be recorded: at most one for each alert in an hour.

The id of an event is a digest of alert and hour: all replicas compute the same id, and the database keeps the first.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.ids import digest_id
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


def event_id(organization_id: int, alert_id: str | None, now: datetime) -> str:
    """The id of the operator event of that alert in that hour; None: of no certain alert."""
    return digest_id(EVENT_ID_PREFIX, organization_id, alert_id or "", window(now))


async def add(
    connection: AsyncConnection, organization_id: int, failures: Sequence[EvaluationFailure], now: datetime
) -> None:
    """Writes an operator event for each failure, unless its alert has one in this window."""
    rows = []
    for failure in failures:
        own_id = event_id(organization_id, failure.alert_id, now)
        rows.append(
            {
                "organization_id": organization_id,
                "event_id": own_id,
                "event_type": OperatorEventType.EVALUATION_FAILED,
                "endpoint_id": "",
                "body": body_of(own_id, OperatorEvent(organization_id, "", notice_of(failure)), now),
                "create_time": now,
            }
        )
    # Sorted: two replicas that write events about the same alerts wait for each other and do not deadlock.
    await write(connection, sorted(rows, key=lambda row: str(row["event_id"])), now)
