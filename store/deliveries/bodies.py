"""The bodies of claimed deliveries, of notifications and of operator events, each with its trace."""

from collections.abc import Collection, Sequence
from typing import LiteralString

from store.postgres.database import DriverConnection

# A statement of its own, since the notifications may be stored on other nodes than the queue. The ids are sent as
# text with tabs between them, which no id contains: the driver would write arrays value by value.
_OF_NOTIFICATIONS = """
SELECT wanted.organization_id, wanted.notification_id, found.body, found.trace_context
FROM unnest(string_to_array(%(organizations)s, E'\t')::bigint[], string_to_array(%(customers)s, E'\t'),
            string_to_array(%(notifications)s, E'\t')) AS wanted (organization_id, customer_id, notification_id)
CROSS JOIN LATERAL (
    SELECT body, trace_context
    FROM notification
    WHERE notification.organization_id = wanted.organization_id
      AND notification.customer_id = coalesce(wanted.customer_id, '')  -- of a single empty one the array is empty
      AND notification.notification_id BETWEEN wanted.notification_id AND wanted.notification_id
    ORDER BY notification.notification_id
    LIMIT 1
) AS found
"""

# Operator events have no notification. Test events are among them.
_OF_OPERATOR_EVENTS = """
SELECT wanted.organization_id, wanted.event_id, found.body, found.trace_context
FROM unnest(string_to_array(%(organizations)s, E'\t')::bigint[], string_to_array(%(notifications)s, E'\t'))
    AS wanted (organization_id, event_id)
CROSS JOIN LATERAL (
    SELECT body, trace_context
    FROM operator_event
    WHERE operator_event.organization_id = wanted.organization_id
      AND operator_event.event_id BETWEEN wanted.event_id AND wanted.event_id
    ORDER BY operator_event.event_id
    LIMIT 1
) AS found
"""

Key = tuple[int, str, str]  # organization_id, customer_id, notification_id


Body = tuple[str, str]  # the body, and `TraceContext.stored` or an empty text


async def bodies(connection: DriverConnection, keys: Collection[Key]) -> dict[tuple[int, str], Body]:
    """The bodies of notifications and operator events, by organization and id; without those that are missing."""
    ordered = sorted(keys)
    found = await _read(connection, _OF_NOTIFICATIONS, ordered)
    others = [key for key in ordered if (key[0], key[2]) not in found]
    return found | await _read(connection, _OF_OPERATOR_EVENTS, others) if others else found


async def _read(
    connection: DriverConnection, statement: LiteralString, keys: Sequence[Key]
) -> dict[tuple[int, str], Body]:
    cursor = await connection.execute(
        statement,
        {
            "organizations": "\t".join(str(organization_id) for organization_id, _, _ in keys),
            "customers": "\t".join(customer_id for _, customer_id, _ in keys),
            "notifications": "\t".join(notification_id for _, _, notification_id in keys),
        },
    )
    return {
        (organization_id, notification_id): (body, trace)
        async for organization_id, notification_id, body, trace in cursor
    }
