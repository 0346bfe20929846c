"""Counted groups: which groups of some keys the stored events of customers have, and what each of them counts.

One pass over a customer's events counts all of its groups, before any gauge is locked.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from evaluator.aggregation import Aggregation, Tally
from evaluator.gauges import Group
from evaluator.watched_gauges import CustomerMeasure
from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster
from store.postgres.pipelines import fetched_each
from store.tables import event_key
from store.usage.recounts import (
    EVENTS,
    StatementKind,
    conditions,
    further_columns,
    group_value,
    parameters_of,
    tally_columns,
)


class CountedGroup(NamedTuple):
    """A group that stored events have, and what they count. events: their number."""

    group: Group
    tally: Tally
    events: int


# Each column of the input is one text: the driver converts arrays value by value.
_COUNTED = """
SELECT i.position, r.*
FROM (
    SELECT u.*, %(name)s::text AS name FROM unnest(
        string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(subscription_ids)s, E'\t', ''),
        string_to_array(%(starts)s, E'\t')::timestamptz[], string_to_array(%(ends)s, E'\t')::timestamptz[]
    ) WITH ORDINALITY AS u (customer_id, subscription_id, period_start, period_end, position)
) AS i, LATERAL (
    SELECT {tally}{group_values}
    FROM {source} e WHERE {conditions}{grouped}
    {group_by}
) AS r
"""
_FIRST_GROUP_COLUMN = 5  # of the inner SELECT

# On a cluster; see `store.usage.recounts`.
_COUNTED_JOINED = """
SELECT i.position, {tally}{group_values}
FROM (
    SELECT u.*, %(name)s::text AS name FROM unnest(
        string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(subscription_ids)s, E'\t', ''),
        string_to_array(%(starts)s, E'\t')::timestamptz[], string_to_array(%(ends)s, E'\t')::timestamptz[]
    ) WITH ORDINALITY AS u (customer_id, subscription_id, period_start, period_end, position)
) AS i JOIN {source} e ON {conditions}{grouped}
WHERE e.customer_id = ANY(%(all_customer_ids)s::text[])
GROUP BY e.customer_id, i.position{further}
"""

# Customers of which more than some number of events are stored. Reads the index of at most one event more of each.
_LARGE = f"""
SELECT i.customer_id FROM string_to_table(%(customer_ids)s, E'\t') AS i (customer_id)
WHERE EXISTS (
    SELECT 1 FROM event e
    WHERE {event_key.of_customer("%(organization_id)s", "i.customer_id")}
    OFFSET %(events)s LIMIT 1
)
"""
# On a cluster, a statement for each customer, which goes to its shard.
_IS_LARGE = f"""
SELECT e.customer_id FROM event e
WHERE {event_key.of_customer("%(organization_id)s", "%(customer_id)s")} OFFSET %(events)s LIMIT 1
""".encode()


async def large_customers(
    connection: DriverConnection, organization_id: int, customer_ids: Sequence[str], events: int
) -> set[str]:
    """Those of the customers of which more than so many events are stored."""
    if on_cluster(connection):
        each = ({"organization_id": organization_id, "customer_id": one, "events": events} for one in customer_ids)
        return {customer_id for (customer_id,) in await fetched_each(connection, _IS_LARGE, each)}
    parameters = {"organization_id": organization_id, "customer_ids": "\t".join(customer_ids), "events": events}
    cursor = await connection.execute(_LARGE, parameters)
    return {customer_id for (customer_id,) in await cursor.fetchall()}


async def counted_groups(
    connection: DriverConnection,
    organization_id: int,
    targets: Sequence[CustomerMeasure],
    keys: Sequence[str],
    now: datetime,
    source: str = EVENTS,
) -> dict[int, list[CountedGroup]]:
    """For each target (by its index) the groups of those keys that its stored events of the current period have.

    source: EVENTS or HELD, for open reservations instead.

    Without keys that is the one empty group, for each target that has any event. The targets have one measure, and so
    one kind of statement. Of UNIQUE_COUNT only the groups are right, and not what they count.
    """
    if not targets:
        return {}
    kind = _kind(targets[0], keys)
    numbers = range(len(keys))
    query = (_COUNTED_JOINED if on_cluster(connection) else _COUNTED).format(
        source=source,
        tally=tally_columns(kind),
        group_values="".join(f", {group_value(number)}" for number in numbers),
        conditions=conditions(kind),
        grouped="".join(f" AND e.properties ? %(key{number})s::text" for number in numbers),
        group_by="GROUP BY " + ", ".join(str(_FIRST_GROUP_COLUMN + number) for number in numbers)
        if keys
        else "HAVING count(*) > 0",
        further=further_columns(keys),
    )
    periods = [target.cycle.period_at(now) for target in targets]
    cursor = await connection.execute(
        query.encode(),
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([target.customer_id for target in targets]),
            "all_customer_ids": sorted({target.customer_id for target in targets}),
            "subscription_ids": "\t".join([target.subscription_id or "" for target in targets]),
            "starts": "\t".join([period.start.isoformat() for period in periods]),
            "ends": "\t".join([period.end.isoformat() for period in periods]),
            "name": targets[0].measure.currency or targets[0].measure.metric_id,
            **parameters_of(kind),
        },
    )
    found: dict[int, list[CountedGroup]] = {}
    for position, value, events, latest, latest_id, *values in await cursor.fetchall():
        group = tuple(zip(keys, values, strict=True))
        counted = CountedGroup(group, Tally(Decimal(value), latest, latest_id), events)
        found.setdefault(position - 1, []).append(counted)
    return found


def _kind(target: CustomerMeasure, keys: Sequence[str]) -> StatementKind:
    measure, aggregation = target.measure, target.aggregation
    return StatementKind(
        aggregation=Aggregation.COUNT if aggregation is Aggregation.UNIQUE_COUNT else aggregation,
        of_cost=measure.of_cost,
        unique_property=None,
        of_subscription=target.subscription_id is not None,
        keys=tuple(keys),
        prices=measure.prices,
        contract_fields=measure.contract_fields,
        raw_events=target.raw_events,
    )
