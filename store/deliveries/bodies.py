"""The bodies of claimed deliveries, of notifications and of operator events, each with its trace.

Statements of their own, since the notifications may be stored on other nodes than the queue. On a cluster they are
joins with the list of what is wanted, which can be sent to the nodes. On one server they are lateral: with SETTINGS
of the queue only the primary key has the order that they ask for. A join would use the index by time when the
statistics are late, and read all notifications of an organization for each delivery (measured: 3 s for 200 bodies).
"""

from collections.abc import Collection, Sequence
from typing import LiteralString

from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster

# Up to so many deliveries, a cluster asks only the nodes of their customers, which the statement then names again. Of
# more it asks about all nodes anyway, and PostgreSQL would sort the list of customers for each delivery.
NAMED = 16

# The ids are sent as text with tabs between them, which no id contains: the driver would write arrays value by value.
_WANTED: LiteralString = """
FROM unnest(string_to_array(%(organizations)s, E'\t')::bigint[], string_to_array(%(customers)s, E'\t'),
            string_to_array(%(notifications)s, E'\t')) AS wanted (organization_id, customer_id, notification_id)
"""
_OF_NOTIFICATIONS: LiteralString = f"""
SELECT wanted.organization_id, wanted.notification_id, found.body, found.trace_context
{_WANTED}
CROSS JOIN LATERAL (
    SELECT body, trace_context
    FROM notification
    WHERE notification.organization_id = wanted.organization_id
      AND notification.customer_id = wanted.customer_id
      AND notification.notification_id BETWEEN wanted.notification_id AND wanted.notification_id
    ORDER BY notification.notification_id
    LIMIT 1
) AS found
"""
_ON_CLUSTER: LiteralString = f"""
SELECT n.organization_id, n.notification_id, n.body, n.trace_context
{_WANTED}
JOIN notification n ON n.organization_id = wanted.organization_id AND n.customer_id = wanted.customer_id
    AND n.notification_id = wanted.notification_id
"""
_OF_NAMED_ON_CLUSTER: LiteralString = (
    _ON_CLUSTER + "WHERE n.customer_id = ANY (string_to_array(%(customers)s, E'\t'))"
)

# Operator events have no notification. Test events are among them. They lie beside the queue on a cluster, too.
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
    if not keys:
        return {}
    ordered = sorted(keys)
    statement = _OF_NOTIFICATIONS
    if on_cluster(connection):
        statement = _OF_NAMED_ON_CLUSTER if len(ordered) <= NAMED else _ON_CLUSTER
    found = await _read(connection, statement, ordered)
    others = [key for key in ordered if (key[0], key[2]) not in found]
    return found | await _read(connection, _OF_OPERATOR_EVENTS, others) if others else found


async def _read(
    connection: DriverConnection, statement: LiteralString, keys: Sequence[Key]
) -> dict[tuple[int, str], Body]:
    cursor = await connection.execute(
        statement,
        {
            "organizations": "\t".join(str(organization_id) for organization_id, _, _ in keys),
            # A tab after each: the array of one empty text would be empty. A notification about an alert as a whole
            # has an empty customer. The row that the last tab adds has no organization.
            "customers": "".join(f"{customer_id}\t" for _, customer_id, _ in keys),
            "notifications": "\t".join(notification_id for _, _, notification_id in keys),
        },
    )
    return {
        (organization_id, notification_id): (body, trace)
        async for organization_id, notification_id, body, trace in cursor
    }
