"""Writes notifications, each with its rows in the outbox and in the feed, in the transaction of the evaluation."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

import orjson

from runtime.turns import Slices
from store.postgres.channels import OUTBOX_CHANNEL
from store.postgres.database import DriverConnection

# Notifications that one statement writes. The driver converts each value by itself: thousands at once would delay
# all other tasks of the process.
NOTIFICATIONS_AT_ONCE = 200


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
# notified twice. The bodies come as one JSON text: in an array of texts, each of their quotes is escaped.
_WRITE_NOTIFICATIONS = """
WITH written AS (
    INSERT INTO notification (
        organization_id, customer_id, notification_id, alert_id, gauge_id, sequence, event_type, condition_type,
        create_time, body
    )
    SELECT %(organization_id)s, i.customer_id, i.notification_id, i.alert_id, i.gauge_id, i.sequence, i.event_type,
           i.condition_type, %(now)s, i.body
    FROM ROWS FROM (
        unnest(
            %(customer_ids)s::text[], %(notification_ids)s::text[], %(alert_ids)s::text[], %(gauge_ids)s::uuid[],
            %(sequences)s::bigint[], %(event_types)s::text[], %(condition_types)s::text[]
        ),
        json_array_elements_text(%(bodies)s::json)
    ) AS i (customer_id, notification_id, alert_id, gauge_id, sequence, event_type, condition_type, body)
    RETURNING customer_id, notification_id, event_type, condition_type
), pending AS (
    INSERT INTO feed_pending (organization_id, customer_id, notification_id)
    SELECT %(organization_id)s, customer_id, notification_id FROM written
)
INSERT INTO outbox (organization_id, customer_id, notification_id, event_type, condition_type, create_time)
SELECT %(organization_id)s, customer_id, notification_id, event_type, condition_type, %(now)s FROM written
"""


async def write_notifications(
    connection: DriverConnection, organization_id: int, notifications: Sequence[NewNotification], now: datetime
) -> None:
    """Stores notifications and hands them to the notifier and the feed, which wake when this transaction commits.

    The notifications of one gauge must be in the order of their sequence. The transaction must hold its lock.
    """
    for start in range(0, len(notifications), NOTIFICATIONS_AT_ONCE):
        part = notifications[start : start + NOTIFICATIONS_AT_ONCE]
        await _write_part(connection, organization_id, part, now)
    await connection.execute("SELECT pg_notify(%s, %s)", (OUTBOX_CHANNEL, str(organization_id)))


async def _write_part(
    connection: DriverConnection, organization_id: int, notifications: Sequence[NewNotification], now: datetime
) -> None:
    bodies, slices = list[str](), Slices(organization_id)
    for item in notifications:
        bodies.append(item.body())
        await slices.pause()
    await connection.execute(
        _WRITE_NOTIFICATIONS,
        {
            "organization_id": organization_id,
            "now": now,
            "customer_ids": [item.customer_id for item in notifications],
            "notification_ids": [item.notification_id for item in notifications],
            "alert_ids": [item.alert_id for item in notifications],
            "gauge_ids": [item.gauge_id for item in notifications],
            "sequences": [item.sequence for item in notifications],
            "event_types": [item.event_type for item in notifications],
            "condition_types": [item.condition_type for item in notifications],
            "bodies": orjson.dumps(bodies).decode(),
        },
    )
