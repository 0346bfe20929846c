"""Recounts of meters: what they count, computed anew from the stored events."""

from collections.abc import Collection, Mapping, Sequence
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
from store.postgres.database import DriverConnection
from store.usage.recounts import StatementKind, conditions, parameters_of, tally_columns

# The customers and all that stand below them.
_BELOW = f"""
WITH RECURSIVE below AS (
    SELECT id COLLATE "C" AS root, id COLLATE "C" AS customer_id, 1 AS level
    FROM unnest(string_to_array(%(ids)s, E'\t')) AS i (id)
    UNION ALL
    SELECT b.root, c.customer_id, b.level + 1
    FROM below b JOIN customer c ON c.organization_id = %(organization_id)s
        AND c.parent_customer_id = b.customer_id
    WHERE b.level < {MOST_LEVELS}
)
SELECT root, customer_id FROM below
"""

# Sums of the events of rows, each with a meter and one of the customers whose usage it counts.
_COUNT = """
SELECT i.position, {minute}, {tally}
FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(subscription_ids)s, E'\t', ''),
    string_to_array(%(names)s, E'\t'), string_to_array(%(starts)s, E'\t')::timestamptz[],
    string_to_array(%(ends)s, E'\t')::timestamptz[], string_to_array(%(groups)s, E'\t')::jsonb[]
) WITH ORDINALITY AS i (customer_id, subscription_id, name, period_start, period_end, group_values, position)
JOIN event e ON {conditions}{of_group}
GROUP BY 1, 2
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


async def customers_below(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str]
) -> dict[str, list[str]]:
    """By customer: itself and all that stand below it."""
    found: dict[str, list[str]] = {}
    cursor = await connection.execute(
        _BELOW, {"organization_id": organization_id, "ids": "\t".join(sorted(customer_ids))}
    )
    for root, customer_id in await cursor.fetchall():
        found.setdefault(root, []).append(customer_id)
    return found


async def recount(
    connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount]
) -> list[Recounted]:
    """What each meter counts of the stored events. Must run under `exact_arithmetic`.

    The transaction must hold the wallets of the meters' customers: no other one stores events that they count.
    """
    below = await customers_below(connection, organization_id, {one.meter.customer_id for one in wanted})
    totals, minutes = [ZERO] * len(wanted), [dict[datetime, Decimal]() for _ in wanted]
    by_kind: dict[tuple[StatementKind, bool, bool], list[tuple[int, str]]] = {}
    for index, one in enumerate(wanted):
        rows = by_kind.setdefault(one._kind, [])
        # A subscription is of one customer.
        counted = below[one.meter.customer_id] if one.meter.subscription_id is None else [one.meter.customer_id]
        rows += [(index, customer_id) for customer_id in counted]
    for (kind, is_rolling, has_group), rows in by_kind.items():
        statement = _COUNT.format(
            minute="date_trunc('minute', e.event_time, 'UTC')" if is_rolling else "NULL::timestamptz",
            tally=tally_columns(kind),
            conditions=conditions(kind),
            of_group=" AND e.properties @> i.group_values" if has_group else "",
        )
        parameters = _parameters(organization_id, wanted, rows) | parameters_of(kind)
        cursor = await connection.execute(statement.encode(), parameters)
        for position, minute, total, *_ in await cursor.fetchall():
            index, amount = rows[position - 1][0], Decimal(total)
            totals[index] += amount
            if minute is not None:
                minutes[index][minute] = minutes[index].get(minute, ZERO) + amount
    return [Recounted(*one) for one in zip(totals, minutes, strict=True)]


def _parameters(
    organization_id: int, wanted: Sequence[MeterRecount], rows: Sequence[tuple[int, str]]
) -> dict[str, Any]:
    meters = [wanted[index].meter for index, _ in rows]
    return {
        "organization_id": organization_id,
        "customer_ids": "\t".join([customer_id for _, customer_id in rows]),
        "subscription_ids": "\t".join([meter.subscription_id or "" for meter in meters]),
        "names": "\t".join([meter.unit.currency or meter.unit.metric_id or "" for meter in meters]),
        "starts": "\t".join([wanted[index].start.isoformat() for index, _ in rows]),
        "ends": "\t".join([wanted[index].end.isoformat() for index, _ in rows]),
        "groups": "\t".join([orjson.dumps(dict(meter.group)).decode() for meter in meters]),
    }
