"""The groups of stored gauges: which gauges of some measure have been evaluated, whatever counts on them now."""

from collections.abc import Sequence
from datetime import datetime

from evaluator.gauges import Group
from evaluator.watched_gauges import CustomerMeasure
from store.postgres.database import DriverConnection
from store.postgres.distributed import Forms

_STORED = """
SELECT i.position, g.group_values
FROM unnest(%(customer_ids)s::text[], %(starts)s::timestamptz[]) WITH ORDINALITY
    AS i (customer_id, period_start, position)
JOIN gauge g ON g.organization_id = %(organization_id)s AND g.customer_id = i.customer_id COLLATE "C"
WHERE g.measure = %(measure)s AND g.subscription_id IS NULL AND g.period_start = i.period_start
    {shards}
"""
_THOSE_STORED = Forms.naming_shards(_STORED, "g.customer_id = ANY(%(customer_ids)s)")


async def groups(
    connection: DriverConnection,
    organization_id: int,
    targets: Sequence[CustomerMeasure],
    keys: Sequence[str],
    now: datetime,
) -> dict[int, set[Group]]:
    """For each customer (by its index in targets) the groups of those keys whose gauges of the current period exist.

    The targets have one measure, of customers.
    """
    if not targets:
        return {}
    cursor = await connection.execute(
        _THOSE_STORED.on(connection),
        {
            "organization_id": organization_id,
            "customer_ids": [target.customer_id for target in targets],
            "starts": [target.cycle.period_at(now).start for target in targets],
            "measure": targets[0].measure.key,
        },
    )
    found: dict[int, set[Group]] = {}
    for position, pairs in await cursor.fetchall():
        group = tuple((key, value) for key, value in pairs)
        if [key for key, _ in group] == list(keys):
            found.setdefault(position - 1, set()).add(group)
    return found
