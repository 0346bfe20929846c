"""Writes notifications, each with its rows in the outbox and in the feed, in the transaction of the evaluation."""

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from store.postgres.channels import OUTBOX_CHANNEL
from store.postgres.database import DriverConnection
from store.postgres.distributed import announce_after_commit, on_cluster
from store.postgres.json_rows import json_rows

NOTIFICATIONS_AT_ONCE = 200  # notifications that one statement writes

_NO_TRACES: Mapping[str, str] = {}


class NewNotification(Protocol):
    """A notification to be stored. If it is not about one gauge, gauge_id is unset and sequence is 0."""

    @property
    def customer_id(self) -> str: ...

    @property
    def notification_id(self) -> str: ...

    @property
    def alert_id(self) -> str: ...

    @property
    def gauge_id(self) -> UUID | None: ...

    @property
    def sequence(self) -> int: ...

    @property
    def event_type(self) -> str: ...

    @property
    def condition_type(self) -> str: ...

    def body(self) -> str:
        """The JSON that webhooks, the stream and the history carry byte for byte."""


# Inserts notifications, their outbox rows and their rows of feed_pending. The id of a notification is a digest of
# alert, gauge and sequence: if two transactions record the same one, the second fails here, and the customer is not
# notified twice.
_INPUT = """
    FROM json_to_recordset(%(notifications)s::json) AS i (
        customer_id text, notification_id text, alert_id text, gauge_id uuid, sequence bigint, event_type text,
        condition_type text, body text, trace_context text
    )
"""
_WRITE = f"""
    INSERT INTO notification (
        organization_id, customer_id, notification_id, alert_id, gauge_id, sequence, event_type, condition_type,
        create_time, body, trace_context
    )
    SELECT %(organization_id)s, i.customer_id, i.notification_id, i.alert_id, i.gauge_id, i.sequence, i.event_type,
           i.condition_type, %(now)s, i.body, coalesce(i.trace_context, '')
    {_INPUT}
"""
_WRITE_NOTIFICATIONS = f"""
WITH written AS (
    {_WRITE}
    RETURNING customer_id, notification_id, event_type, condition_type
), pending AS (
    INSERT INTO feed_pending (organization_id, customer_id, notification_id)
    SELECT %(organization_id)s, customer_id, notification_id FROM written
)
INSERT INTO outbox (organization_id, customer_id, notification_id, event_type, condition_type, create_time)
SELECT %(organization_id)s, customer_id, notification_id, event_type, condition_type, %(now)s FROM written
""".encode()
# On a cluster, Citus accepts no statement that inserts into several distributed tables, and the places of the
# notifications go by their sequence (`cluster_placing`).
_WRITE_EACH = (
    _WRITE.encode(),
    f"""
    INSERT INTO feed_pending (organization_id, customer_id, notification_id, sequence)
    SELECT %(organization_id)s, i.customer_id, i.notification_id, i.sequence {_INPUT}
    """.encode(),
    f"""
    INSERT INTO outbox (organization_id, customer_id, notification_id, event_type, condition_type, create_time)
    SELECT %(organization_id)s, i.customer_id, i.notification_id, i.event_type, i.condition_type, %(now)s {_INPUT}
    """.encode(),
)


async def write_notifications(
    connection: DriverConnection,
    organization_id: int,
    notifications: Sequence[NewNotification],
    now: datetime,
    traces: Mapping[str, str] = _NO_TRACES,
) -> None:
    """Stores notifications and hands them to the notifier and the feed, which wake when this transaction commits.

    traces: `TraceContext.stored` of those that have one, by notification id; their webhooks belong to that trace.

    The notifications of one gauge must be in the order of their sequence. The transaction must hold its lock.
    """
    for start in range(0, len(notifications), NOTIFICATIONS_AT_ONCE):
        part = notifications[start : start + NOTIFICATIONS_AT_ONCE]
        rows = await json_rows(map(functools.partial(_row, traces), part), organization_id)
        parameters = {"organization_id": organization_id, "now": now, "notifications": rows}
        for statement in _WRITE_EACH if on_cluster(connection) else (_WRITE_NOTIFICATIONS,):
            await connection.execute(statement, parameters)
    if not announce_after_commit(connection, organization_id):
        await connection.execute("SELECT pg_notify(%s, %s)", (OUTBOX_CHANNEL, str(organization_id)))


def _row(traces: Mapping[str, str], item: NewNotification) -> dict[str, Any]:
    row = {
        "customer_id": item.customer_id,
        "notification_id": item.notification_id,
        "alert_id": item.alert_id,
        "gauge_id": item.gauge_id,
        "sequence": item.sequence,
        "event_type": item.event_type,
        "condition_type": item.condition_type,
        "body": item.body(),
    }
    if traces and (trace := traces.get(item.notification_id)) is not None:
        row["trace_context"] = trace
    return row
