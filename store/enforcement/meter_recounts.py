"""Recounts of meters: what they count, computed anew from the stored events of their customers and those below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from evaluator.aggregation import Aggregation
from evaluator.amounts import ZERO
from evaluator.enforcement.meters import Meter
from evaluator.raw_events import RawEvents
from evaluator.routing_facts import MOST_LEVELS
from store.customers import levels
from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster
from store.usage.recounts import StatementKind, conditions, parameters_of, tally_columns

# The meters as rows with their positions.
_METERS = """unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t'),
    string_to_array(%(subscription_ids)s, E'\t', ''), string_to_array(%(names)s, E'\t'),
    string_to_array(%(starts)s, E'\t')::timestamptz[], string_to_array(%(ends)s, E'\t')::timestamptz[],
    string_to_array(%(groups)s, E'\t')::jsonb[], string_to_array(%(counts)s, E'\t')
) WITH ORDINALITY AS {name} (
    holder_id, meter_id, subscription_id, name, period_start, period_end, group_values, counts, position
)"""

# The meters are rows `w` of `wanted`; `below` has, for each of their customers, itself and all whose usage counts
# there. Usage below a customer that is being erased does not count above it: see `Router.chain`.
WANTED = f"""
WITH RECURSIVE wanted AS MATERIALIZED (
    SELECT * FROM {_METERS.format(name="i")}
), below (root, customer_id, level) AS (
    SELECT DISTINCT holder_id COLLATE "C", holder_id COLLATE "C", 1 FROM wanted
    UNION ALL
    SELECT b.root, c.customer_id, b.level + 1
    FROM below b JOIN customer c ON c.organization_id = %(organization_id)s AND c.parent_customer_id = b.customer_id
    WHERE b.level < {MOST_LEVELS} AND NOT EXISTS (
        SELECT FROM erasure_job j WHERE j.organization_id = %(organization_id)s AND j.customer_id = c.customer_id
    )
)"""

# The rows `i`: each meter with each customer whose usage it counts. A subscription is of one customer.
COUNTED = """(
    SELECT w.*, b.customer_id FROM wanted w JOIN below b ON b.root = w.holder_id
    WHERE w.subscription_id IS NULL OR b.level = 1
) AS i"""
# The same rows on a cluster, where `below` comes as parameters (`parameters_of_below`). Citus takes the columns of
# these functions for text, unless they are in subqueries.
COUNTED_BELOW = f"""(
    SELECT w.*, b.customer_id
    FROM (SELECT * FROM {_METERS.format(name="m")}) AS w
    JOIN (
        SELECT * FROM unnest(%(roots)s::text[], %(below_ids)s::text[], %(levels)s::integer[])
            AS c (root, customer_id, level)
    ) AS b ON b.root = w.holder_id
    WHERE w.subscription_id IS NULL OR b.level = 1
) AS i"""

# Sums of the events that each meter counts. The subquery, which is not made a join, takes the events of each customer
# by their key.
_COUNT = f"""
{WANTED}
SELECT i.position, s.minute, sum(s.total) FROM {COUNTED} CROSS JOIN LATERAL (
    SELECT {{minute}} AS minute, {{tally}} FROM event e WHERE {{conditions}} GROUP BY 1
) AS s (minute, total)
GROUP BY 1, 2
"""
# The same sums for each customer.
_COUNT_BELOW = f"""
SELECT i.position, {{minute}}, {{tally}} FROM {COUNTED_BELOW} JOIN event e ON {{conditions}}
WHERE e.customer_id = ANY(%(below_ids)s)
GROUP BY e.customer_id, 1, 2
"""


@dataclass(frozen=True, slots=True)
class MeterRecount:
    """A meter to be counted. start, end: of the events that it counts. aggregation, raw_events: of its metric."""

    meter: Meter
    aggregation: Aggregation
    raw_events: RawEvents | None
    start: datetime
    end: datetime

    @property
    def _kind(self) -> tuple[StatementKind, bool, bool]:
        meter = self.meter
        kind = StatementKind(
            aggregation=self.aggregation,
            of_cost=meter.unit.currency is not None,
            unique_property=None,
            of_subscription=meter.subscription_id is not None,
            keys=(),
            prices=(),
            contract_fields=(),
            raw_events=self.raw_events,
        )
        return kind, meter.window.is_rolling, bool(meter.group)


@dataclass(frozen=True, slots=True)
class Recounted:
    """What a meter counts. minutes: the parts of it, of a rolling window."""

    counted: Decimal
    minutes: Mapping[datetime, Decimal]


async def recount(
    connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount]
) -> list[Recounted]:
    """What each meter counts of the stored events. Must run under `exact_arithmetic`.

    The transaction must hold the wallets of the meters' customers: no other one stores events that they count. Costs
    a look-up in the events for each customer below, and their events of the months of the window.
    """
    below = await parameters_of_below(connection, organization_id, wanted) if on_cluster(connection) else None
    totals, minutes = [ZERO] * len(wanted), [dict[datetime, Decimal]() for _ in wanted]
    by_kind: dict[tuple[StatementKind, bool, bool], list[int]] = {}
    for index, one in enumerate(wanted):
        by_kind.setdefault(one._kind, []).append(index)
    for (kind, is_rolling, has_group), indexes in by_kind.items():
        of_group = " AND e.properties @> i.group_values" if has_group else ""
        statement = (_COUNT if below is None else _COUNT_BELOW).format(
            minute="date_trunc('minute', e.event_time, 'UTC')" if is_rolling else "NULL::timestamptz",
            tally=tally_columns(kind),
            conditions=conditions(kind) + of_group,
        )
        parameters = parameters_of_meters(organization_id, [wanted[index] for index in indexes])
        parameters |= parameters_of(kind) if below is None else {**parameters_of(kind), **below}
        cursor = await connection.execute(statement.encode(), parameters)
        for position, minute, total, *_ in await cursor.fetchall():
            index, amount = indexes[position - 1], Decimal(total)
            totals[index] += amount
            if minute is not None:
                minutes[index][minute] = minutes[index].get(minute, ZERO) + amount
    return [Recounted(*one) for one in zip(totals, minutes, strict=True)]


async def parameters_of_below(
    connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount]
) -> dict[str, Any]:
    """The other parameters of COUNTED_BELOW. Reads them, level by level."""
    found = await levels.below(connection, organization_id, {one.meter.customer_id for one in wanted})
    return {
        "roots": [one.root for one in found],
        "below_ids": [one.customer_id for one in found],
        "levels": [one.level for one in found],
    }


def parameters_of_meters(organization_id: int, wanted: Sequence[MeterRecount]) -> dict[str, Any]:
    """The parameters of WANTED. counts: what each meter adds up, COST, QUANTITY, or EVENTS."""
    meters = [one.meter for one in wanted]
    return {
        "organization_id": organization_id,
        "customer_ids": "\t".join([meter.customer_id for meter in meters]),
        "meter_ids": "\t".join([meter.key for meter in meters]),
        "subscription_ids": "\t".join([meter.subscription_id or "" for meter in meters]),
        "names": "\t".join([meter.unit.currency or meter.unit.metric_id or "" for meter in meters]),
        "starts": "\t".join([one.start.isoformat() for one in wanted]),
        "ends": "\t".join([one.end.isoformat() for one in wanted]),
        "groups": "\t".join([orjson.dumps(dict(meter.group)).decode() for meter in meters]),
        "counts": "\t".join([_counts(one) for one in wanted]),
    }


def _counts(one: MeterRecount) -> str:
    if one.meter.unit.currency is not None:
        return "COST"
    return "EVENTS" if one.aggregation is Aggregation.COUNT else "QUANTITY"
