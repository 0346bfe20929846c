"""Usage events: the COPY that stores them, the slower way that finds duplicates, and recounts of a gauge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
import psycopg
from psycopg.types.json import Jsonb

from evaluator.aggregation import Aggregation, Tally
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge
from store.database import Row

Connection = psycopg.AsyncConnection[Row]

_COLUMNS = (
    "organization_id, customer_id, event_id, event_time, ingest_time,"
    " subscription_id, metric_id, quantity, cost, currency, properties"
)
_COPY = f"COPY event ({_COLUMNS}) FROM STDIN (NULL '')"

# The inserted rows come back; those that do not were there before. A retry that races its first try waits here
# for it to commit or to roll back.
_INSERT = f"""
INSERT INTO event ({_COLUMNS})
SELECT %(organization_id)s, i.customer_id, i.event_id, i.event_time, %(ingest_time)s,
       i.subscription_id, i.metric_id, i.quantity, i.cost, i.currency, i.properties
FROM unnest(
    %(customer_ids)s::text[], %(event_ids)s::text[], %(event_times)s::timestamptz[], %(subscription_ids)s::text[],
    %(metric_ids)s::text[], %(quantities)s::numeric[], %(costs)s::numeric[], %(currencies)s::text[],
    %(properties)s::jsonb[]
) AS i (customer_id, event_id, event_time, subscription_id, metric_id, quantity, cost, currency, properties)
ON CONFLICT DO NOTHING
RETURNING customer_id, event_id
"""

# A stored event of the same identity lies in the same month: others are not looked for. One that named no currency
# was stored with the one that its customer had then.
_ALIKE = """
SELECT i.position
FROM unnest(
    %(customer_ids)s::text[], %(event_ids)s::text[], %(event_times)s::timestamptz[], %(subscription_ids)s::text[],
    %(metric_ids)s::text[], %(quantities)s::numeric[], %(costs)s::numeric[], %(currencies)s::text[],
    %(properties)s::jsonb[]
) WITH ORDINALITY AS i (
    customer_id, event_id, event_time, subscription_id, metric_id, quantity, cost, currency, properties, position
)
JOIN event e ON e.organization_id = %(organization_id)s
    AND e.customer_id = i.customer_id COLLATE "C" AND e.event_id = i.event_id COLLATE "C"
    AND e.event_time >= date_trunc('month', i.event_time, 'UTC')
    AND e.event_time < date_trunc('month', i.event_time, 'UTC') + interval '1 month'
WHERE (e.event_time, e.subscription_id, e.metric_id, e.quantity, e.cost, e.currency, e.properties)
    IS NOT DISTINCT FROM
    (
        i.event_time, i.subscription_id, i.metric_id, i.quantity, i.cost,
        CASE WHEN i.cost IS NULL THEN NULL ELSE coalesce(i.currency, e.currency) END, i.properties
    )
"""


class DuplicateEvents(Exception):
    """At least one of the events to be copied is stored already; nothing of the transaction can be kept."""


def copy_text(organization_id: int, ingest_time: datetime, events: Sequence[UsageEvent]) -> bytes:
    """The events as rows of COPY's text format, in key order (see `_in_key_order`).

    Ids hold no control characters, so that a backslash is all there is to escape.
    """
    head, ingested = f"{organization_id}\t", ingest_time.isoformat()
    # All at once: one by one, writing the time would take longer than the rest of the row.
    times = orjson.dumps([event.event_time for event in events]).decode()[2:-2].split('","')
    lines = [
        f"{head}{customer_id}\t{event_id}\t{time}\t{ingested}\t{subscription_id or ''}\t{metric_id}\t{quantity}"
        f"\t{'' if cost is None else cost}\t{currency or ''}"
        f"\t{orjson.dumps(properties).decode() if properties else ''}\n"
        for time, (event_id, customer_id, _, metric_id, quantity, subscription_id, cost, currency, properties) in zip(
            times, events, strict=True
        )
    ]
    months = [time[:7] for time in times]
    # A tab is less than any character of an id: rows of one month are ordered as their keys are.
    if months.count(months[0]) == len(months):
        lines.sort()
    else:
        lines = [line for _, line in sorted(zip(months, lines, strict=True))]
    text = "".join(lines)
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return text.encode()


async def copy(connection: Connection, rows: bytes) -> None:
    """Stores events that are all expected to be new. Raises DuplicateEvents when one is not."""
    try:
        async with connection.cursor() as cursor, cursor.copy(_COPY) as copying:
            await copying.write(rows)
    except psycopg.errors.UniqueViolation as error:
        raise DuplicateEvents from error
    except psycopg.errors.InternalError as error:  # what Citus makes of a violation inside COPY
        raise DuplicateEvents from error


def _in_key_order(events: Sequence[UsageEvent]) -> list[UsageEvent]:
    """The events in the order in which they have to be stored, so that two transactions that hold events in common
    wait for each other instead of deadlocking.

    By month before all else: COPY keeps rows back for each partition, and hands them over partition by partition.
    """
    return sorted(
        events,
        key=lambda event: (event.event_time.year, event.event_time.month, event.customer_id, event.event_id),
    )


async def insert(
    connection: Connection, organization_id: int, ingest_time: datetime, events: Sequence[UsageEvent]
) -> set[tuple[str, str]]:
    """Stores those of the events (distinct) that are new; returns their identities."""
    parameters = {**_parameters(organization_id, _in_key_order(events)), "ingest_time": ingest_time}
    cursor = await connection.execute(_INSERT, parameters)
    return {(row[0], row[1]) for row in await cursor.fetchall()}


async def stored_alike(connection: Connection, organization_id: int, events: Sequence[UsageEvent]) -> set[int]:
    """Which of the events, by their places, are stored with the same content."""
    cursor = await connection.execute(_ALIKE, _parameters(organization_id, events))
    return {row[0] - 1 for row in await cursor.fetchall()}


def _parameters(organization_id: int, events: Sequence[UsageEvent]) -> dict[str, Any]:
    return {
        "organization_id": organization_id,
        "customer_ids": [event.customer_id for event in events],
        "event_ids": [event.event_id for event in events],
        "event_times": [event.event_time for event in events],
        "subscription_ids": [event.subscription_id for event in events],
        "metric_ids": [event.metric_id for event in events],
        "quantities": [event.quantity for event in events],
        "costs": [event.cost for event in events],
        "currencies": [event.currency for event in events],
        "properties": [Jsonb(dict(event.properties)) if event.properties else None for event in events],
    }


@dataclass(frozen=True)
class Recount:
    """A gauge to be counted anew from the stored events, but for those (`leaving_out`) that are yet to be counted."""

    gauge: Gauge
    aggregation: Aggregation
    unique_property: str | None
    leaving_out: Sequence[str]


_AGGREGATES: Mapping[Aggregation, str] = {
    Aggregation.SUM: "coalesce(sum({amount}), 0)",
    Aggregation.COUNT: "count(*) FILTER (WHERE e.quantity >= 0) - count(*) FILTER (WHERE e.quantity < 0)",
    Aggregation.MAX: "coalesce(max({amount}), 0)",
    Aggregation.LATEST: "coalesce((array_agg({amount} ORDER BY e.event_time DESC, e.ingest_time DESC))[1], 0)",
    Aggregation.UNIQUE_COUNT: "count(DISTINCT {property})",
}


async def recount(
    connection: Connection, organization_id: int, recounts: Sequence[Recount]
) -> list[tuple[Tally, int]]:
    """The tally of each gauge over the events stored in its period, and how many those are.

    The gauges' rows have to be locked: then no other transaction can be about to add an event that this one
    already sees, or miss one that it does not.
    """
    results: list[tuple[Tally, int]] = [(Tally(), 0)] * len(recounts)
    alike: dict[tuple[Aggregation, bool, str | None, bool, bool], list[int]] = {}
    for index, item in enumerate(recounts):
        gauge = item.gauge
        kind = (
            item.aggregation,
            gauge.measure.of_cost,
            item.unique_property if item.aggregation is Aggregation.UNIQUE_COUNT else None,
            gauge.subscription_id is not None,
            bool(gauge.group),
        )
        alike.setdefault(kind, []).append(index)
    for (aggregation, of_cost, unique_property, of_subscription, grouped), indexes in alike.items():
        query = _recount_query(aggregation, of_cost, of_subscription, grouped)
        gauges = [recounts[index].gauge for index in indexes]
        cursor = await connection.execute(
            query,
            {
                "organization_id": organization_id,
                "property": unique_property or "",
                "customer_ids": [gauge.customer_id for gauge in gauges],
                "subscription_ids": [gauge.subscription_id for gauge in gauges],
                "names": [gauge.measure.currency or gauge.measure.metric_id for gauge in gauges],
                "groups": [Jsonb(dict(gauge.group)) for gauge in gauges],
                "starts": [gauge.period.start for gauge in gauges],
                "ends": [gauge.period.end for gauge in gauges],
                "left_out": [Jsonb(list(recounts[index].leaving_out)) for index in indexes],
            },
        )
        for position, value, events, latest in await cursor.fetchall():
            results[indexes[position - 1]] = Tally(Decimal(value), latest), events
    return results


async def recount_values(connection: Connection, organization_id: int, item: Recount) -> None:
    """Remembers the values that the stored events brought to a UNIQUE_COUNT gauge, as `recount` counts them."""
    gauge = item.gauge
    conditions = _recount_conditions(item.aggregation, False, gauge.subscription_id is not None, bool(gauge.group))
    query = f"""
INSERT INTO unique_value (organization_id, customer_id, gauge_id, value)
SELECT DISTINCT %(organization_id)s::bigint, i.customer_id, i.gauge_id, e.properties ->> %(property)s
FROM event e, (VALUES (
    %(customer_id)s, %(gauge_id)s::uuid, %(subscription_id)s::text, %(name)s, %(group_values)s::jsonb,
    %(period_start)s::timestamptz, %(period_end)s::timestamptz, %(left_out)s::jsonb
)) AS i (customer_id, gauge_id, subscription_id, name, group_values, period_start, period_end, left_out)
WHERE {conditions}
ON CONFLICT DO NOTHING
"""
    await connection.execute(
        query.encode(),
        {
            "organization_id": organization_id,
            "property": item.unique_property or "",
            "customer_id": gauge.customer_id,
            "gauge_id": gauge.gauge_id,
            "subscription_id": gauge.subscription_id,
            "name": gauge.measure.metric_id,
            "group_values": Jsonb(dict(gauge.group)),
            "period_start": gauge.period.start,
            "period_end": gauge.period.end,
            "left_out": Jsonb(list(item.leaving_out)),
        },
    )


def _recount_query(aggregation: Aggregation, of_cost: bool, of_subscription: bool, grouped: bool) -> bytes:
    amount = "e.cost" if of_cost else "e.quantity"
    value = _AGGREGATES[aggregation].format(amount=amount, property="e.properties ->> %(property)s")
    conditions = _recount_conditions(aggregation, of_cost, of_subscription, grouped)
    return f"""
SELECT i.position, r.value, r.events, r.latest
FROM unnest(
    %(customer_ids)s::text[], %(subscription_ids)s::text[], %(names)s::text[], %(groups)s::jsonb[],
    %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(left_out)s::jsonb[]
) WITH ORDINALITY
    AS i (customer_id, subscription_id, name, group_values, period_start, period_end, left_out, position),
LATERAL (
    SELECT {value} AS value, count(*) AS events, max(e.event_time) AS latest
    FROM event e WHERE {conditions}
) AS r
""".encode()


def _recount_conditions(aggregation: Aggregation, of_cost: bool, of_subscription: bool, grouped: bool) -> str:
    """Which events `e` belong to the gauge `i`."""
    conditions = [
        "e.organization_id = %(organization_id)s",
        'e.customer_id = i.customer_id COLLATE "C"',
        "e.event_time >= i.period_start",
        "e.event_time < i.period_end",
        'e.currency = i.name COLLATE "C" AND e.cost IS NOT NULL' if of_cost else 'e.metric_id = i.name COLLATE "C"',
        "NOT i.left_out ? e.event_id",
    ]
    if of_subscription:
        conditions.append('e.subscription_id = i.subscription_id COLLATE "C"')
    if grouped:
        conditions.append("e.properties @> i.group_values")
    if aggregation is Aggregation.UNIQUE_COUNT:
        conditions.append("e.properties ? %(property)s")
    return " AND ".join(conditions)
