"""The bodies of claimed deliveries, of notifications and of operator events, each with its trace.

Statements of their own, since the notifications may be stored on other nodes than the queue: joins with the list of
what is wanted, which a cluster can send to its nodes. With SETTINGS of the queue each of them is looked up in the
primary key; no other index fits all three columns, so that late statistics change nothing.
"""

from collections.abc import Collection, Sequence
from typing import LiteralString

from store.postgres.database import DriverConnection

# Up to so many deliveries, the statement names their customers once more: a cluster then asks only the nodes of
# these. Of more it asks about all nodes anyway, and PostgreSQL would sort the list of customers for each delivery.
NAMED = 16

# The ids are sent as text with tabs between them, which no id contains: the driver would write arrays value by value.
_OF_NOTIFICATIONS: LiteralString = """
SELECT n.organization_id, n.notification_id, n.body, n.trace_context
FROM unnest(string_to_array(%(organizations)s, E'\t')::bigint[], string_to_array(%(customers)s, E'\t'),
            string_to_array(%(notifications)s, E'\t')) AS wanted (organization_id, customer_id, notification_id)
JOIN notification n ON n.organization_id = wanted.organization_id AND n.customer_id = wanted.customer_id
    AND n.notification_id = wanted.notification_id
"""
_OF_NAMED: LiteralString = _OF_NOTIFICATIONS + "WHERE n.customer_id = ANY (string_to_array(%(customers)s, E'\t'))"

# Operator events have no notification. Test events are among them.
_OF_OPERATOR_EVENTS = """
SELECT e.organization_id, e.event_id, e.body, e.trace_context
FROM unnest(string_to_array(%(organizations)s, E'\t')::bigint[], string_to_array(%(notifications)s, E'\t'))
    AS wanted (organization_id, event_id)
JOIN operator_event e ON e.organization_id = wanted.organization_id AND e.event_id = wanted.event_id
"""

Key = tuple[int, str, str]  # organization_id, customer_id, notification_id


Body = tuple[str, str]  # the body, and `TraceContext.stored` or an empty text


async def bodies(connection: DriverConnection, keys: Collection[Key]) -> dict[tuple[int, str], Body]:
    """The bodies of notifications and operator events, by organization and id; without those that are missing."""
    ordered = sorted(keys)
    of_customers = [key for key in ordered if key[1]]  # the customer of an operator event is empty
    found = dict[tuple[int, str], Body]()
    if of_customers:
        statement = _OF_NAMED if len(of_customers) <= NAMED else _OF_NOTIFICATIONS
        found = await _read(connection, statement, of_customers)
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
