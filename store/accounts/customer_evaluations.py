"""Customer evaluations: which customers still have to be evaluated on a change of their facts, limits or alerts.

The transaction of the change notes the customer, and the transaction that completes its evaluation removes the note.
So an evaluation is not lost if a process ends between the two. In the order of all locks, notes come after
organizations and before everything else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from store.postgres.database import Connection, DriverConnection, driver
from store.postgres.distributed import on_cluster
from store.postgres.pipelines import fetched_each
from store.tables import event_key

# How long only the call that made the change evaluates its customer, before any process may do so.
OWN_TIME = timedelta(seconds=5)

# Notes customers, for a statement that selects (customer_id, facts, usage, subscriptions, limit_units) in place of
# {changed}. It needs the parameters organization_id, epoch, now and due_time. A customer that is noted already has to
# be evaluated on both changes.
NOTE = """
INSERT INTO customer_evaluation AS e (
    organization_id, customer_id, facts, usage, subscriptions, limit_units, epoch, change_time, due_time
)
SELECT %(organization_id)s, c.customer_id, bool_or(c.facts), bool_or(c.usage), bool_or(c.subscriptions),
       coalesce(array_agg(DISTINCT c.limit_unit) FILTER (WHERE c.limit_unit IS NOT NULL), '{{}}'),
       %(epoch)s, %(now)s, %(due_time)s
FROM ({changed}) AS c (customer_id, facts, usage, subscriptions, limit_unit)
GROUP BY c.customer_id
ON CONFLICT (organization_id, customer_id) DO UPDATE SET
    facts = e.facts OR excluded.facts, usage = e.usage OR excluded.usage,
    subscriptions = e.subscriptions OR excluded.subscriptions,
    limit_units = ARRAY(SELECT DISTINCT unnest(e.limit_units || excluded.limit_units)),
    epoch = excluded.epoch, change_time = excluded.change_time, due_time = excluded.due_time
"""

_NOTE_ENABLED = """
INSERT INTO customer_evaluation AS e (
    organization_id, customer_id, facts, usage, subscriptions, limit_units, alert_ids, epoch, change_time, due_time
)
SELECT %(organization_id)s, %(customer_id)s, false, false, false, '{}', ARRAY[%(alert_id)s], %(epoch)s, %(now)s,
    %(due_time)s::timestamptz
ON CONFLICT (organization_id, customer_id) DO UPDATE SET
    alert_ids = ARRAY(SELECT DISTINCT unnest(e.alert_ids || excluded.alert_ids)),
    epoch = excluded.epoch, change_time = excluded.change_time, due_time = excluded.due_time
"""


@dataclass(frozen=True)
class Note:
    """What has to be evaluated for a customer.

    facts: alerts on facts. usage: all alerts on usage; subscriptions: only those on usage of subscriptions.
    limit_units: keys of units; the alerts with percentages of limits in them. alert_ids: alerts that were enabled for
    the customer. epoch, change_time: of the last change.
    """

    customer_id: str
    facts: bool
    usage: bool
    subscriptions: bool
    limit_units: frozenset[str]
    alert_ids: frozenset[str]
    epoch: int
    change_time: datetime

    def only_facts(self) -> "Note":
        """The part of the note that is about alerts on facts."""
        return replace(self, usage=False, subscriptions=False, limit_units=frozenset(), alert_ids=frozenset())


async def note_enabled(
    connection: DriverConnection, organization_id: int, customer_id: str, alert_id: str, epoch: int, now: datetime
) -> None:
    """Notes that an alert, which was disabled for a customer, has to be evaluated for it.

    The transaction holds the organization's lock exclusively and has raised the epoch to this one.
    """
    parameters = {
        "organization_id": organization_id,
        "customer_id": customer_id,
        "alert_id": alert_id,
        "epoch": epoch,
        "now": now,
        "due_time": now + OWN_TIME,
    }
    await connection.execute(_NOTE_ENABLED, parameters)


_CLAIM = """
SELECT customer_id, facts, usage, subscriptions, limit_units, alert_ids, epoch, change_time FROM customer_evaluation
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
ORDER BY customer_id FOR UPDATE
"""


async def claim(
    connection: DriverConnection, organization_id: int, customer_ids: Sequence[str], *, only_free: bool
) -> list[Note]:
    """Holds the notes of those of the customers that have one, until the transaction ends.

    only_free: leaves out those that another transaction holds; otherwise waits for it. The organization's lock has to
    be held before: a change takes that lock first, too.
    """
    query = _CLAIM + ("SKIP LOCKED" if only_free else "")
    cursor = await connection.execute(query.encode(), {"organization_id": organization_id, "ids": list(customer_ids)})
    return [
        Note(customer_id, facts, usage, subscriptions, frozenset(units), frozenset(alert_ids), epoch, change_time)
        for customer_id, facts, usage, subscriptions, units, alert_ids, epoch, change_time in await cursor.fetchall()
    ]


async def remove(connection: DriverConnection, organization_id: int, notes: Sequence[Note]) -> None:
    """Removes notes that the transaction holds: their customers are evaluated."""
    if notes:
        await connection.execute(
            "DELETE FROM customer_evaluation WHERE organization_id = %s AND customer_id = ANY(%s)",
            (organization_id, [note.customer_id for note in notes]),
        )


async def facts_evaluated(connection: DriverConnection, organization_id: int, notes: Sequence[Note]) -> None:
    """Keeps notes that the transaction holds only for what they have beside alerts on facts."""
    if notes:
        await connection.execute(
            "UPDATE customer_evaluation SET facts = false WHERE organization_id = %s AND customer_id = ANY(%s)",
            (organization_id, [note.customer_id for note in notes]),
        )


async def put_off(connection: DriverConnection, organization_id: int, customer_id: str, until: datetime) -> None:
    """Lets no process but a call of a further change evaluate the customer before `until`."""
    await connection.execute(
        "UPDATE customer_evaluation SET due_time = %s WHERE organization_id = %s AND customer_id = %s",
        (until, organization_id, customer_id),
    )


# Customers that have usage: a search for each, which ends at the first event that it finds.
_HAVING_USAGE = f"""
SELECT c.customer_id FROM unnest(%(ids)s::text[]) AS c (customer_id), LATERAL (
    SELECT 1 FROM event e WHERE {event_key.of_customer("%(organization_id)s", "c.customer_id")}
    LIMIT 1
) AS e
"""
# On a cluster, a statement for each of them, which goes to its shard.
_HAS_USAGE = f"""
SELECT e.customer_id FROM event e WHERE {event_key.of_customer("%(organization_id)s", "%(customer_id)s")} LIMIT 1
"""


async def having_usage(connection: DriverConnection, organization_id: int, customer_ids: Sequence[str]) -> list[str]:
    """Those of the customers of which any event is stored."""
    if on_cluster(connection):
        each = [{"organization_id": organization_id, "customer_id": one} for one in customer_ids]
        return [customer_id for (customer_id,) in await fetched_each(connection, _HAS_USAGE.encode(), each)]
    parameters = {"organization_id": organization_id, "ids": list(customer_ids)}
    cursor = await connection.execute(_HAVING_USAGE, parameters)
    return [customer_id for (customer_id,) in await cursor.fetchall()]


# Organizations that have notes are found one after the other in the index, whatever the number of their notes.
_DUE = """
WITH RECURSIVE noted AS (
    (SELECT organization_id FROM customer_evaluation ORDER BY organization_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT e.organization_id FROM customer_evaluation e
        WHERE e.organization_id > n.organization_id ORDER BY e.organization_id LIMIT 1
    )
    FROM noted n WHERE n.organization_id IS NOT NULL
)
SELECT n.organization_id, o.name, e.customer_id
FROM noted n
JOIN organization o ON o.organization_id = n.organization_id
CROSS JOIN LATERAL (
    SELECT customer_id, due_time FROM customer_evaluation
    WHERE organization_id = n.organization_id AND due_time <= %(now)s
    ORDER BY due_time, customer_id LIMIT %(limit)s
) AS e
ORDER BY n.organization_id, e.due_time, e.customer_id
"""


async def due(connection: Connection, now: datetime, limit: int) -> Mapping[tuple[int, str], list[str]]:
    """The customers that any process may evaluate: up to `limit` of each organization (id and name), oldest first."""
    raw = await driver(connection)
    cursor = await raw.execute(_DUE, {"now": now, "limit": limit})
    found: dict[tuple[int, str], list[str]] = {}
    for organization_id, organization, customer_id in await cursor.fetchall():
        found.setdefault((organization_id, organization), []).append(customer_id)
    return found
