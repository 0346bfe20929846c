"""Usage classes: stored usage of one customer in one unit, added up by what decides which segments it draws on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from evaluator.balances import Unit
from evaluator.drawdown import UsageClass
from evaluator.events import UsageEvent
from evaluator.raw_events import RawEvents
from store.postgres.database import DriverConnection
from store.tables import event_key
from store.usage import metric_conditions


@dataclass(frozen=True)
class Division:
    """What divides usage into classes.

    event_times: where the set of active segments changes. ingest_times: where the set of balances changes; usage from
    before the first of them drew nothing. metric_ids: those that some balance is restricted to. seat_keys: the
    properties that name seats. raw_events: those that draw in the unit, if it is of a metric.
    """

    event_times: Sequence[datetime]
    ingest_times: Sequence[datetime]
    metric_ids: Sequence[str]
    seat_keys: Sequence[str]
    raw_events: RawEvents | None = None


# The classes, in the order in which the first event of each came.
_CLASSES = """
SELECT sum({amount}),
       coalesce(sum({amount}) FILTER (
           WHERE (e.event_id, e.event_time) IN (
               SELECT i.id COLLATE "C", i.time
               FROM unnest(%(event_ids)s::text[], %(times)s::timestamptz[]) AS i (id, time)
           )
       ), 0),
       min(e.event_time), min(e.ingest_time), CASE WHEN e.metric_id = ANY(%(metric_ids)s) THEN e.metric_id ELSE '' END
       {seats}
FROM event e
WHERE {of_customer} AND {of_unit}
    AND e.ingest_time >= %(since)s
GROUP BY width_bucket(e.event_time, %(event_times)s::timestamptz[]),
    width_bucket(e.ingest_time, %(ingest_times)s::timestamptz[]), 5{seat_numbers}
ORDER BY 4, 3
"""
_FIRST_SEAT_COLUMN = 6


async def usage_classes(
    connection: DriverConnection,
    organization_id: int,
    customer_id: str,
    unit: Unit,
    division: Division,
    voided: Sequence[UsageEvent],
) -> list[UsageClass]:
    """The classes of a customer's stored usage; voided: its events that are to be voided, still stored.

    Reads all kept events of the customer.
    """
    keys = range(len(division.seat_keys))
    raw_events = division.raw_events
    of_metric = metric_conditions.condition("%(unit)s", raw_events)
    if raw_events is not None:  # those from before the metric was created drew nothing
        of_metric += " AND (e.event_name IS NULL OR e.ingest_time >= %(raw_since)s)"
    statement = _CLASSES.format(
        of_customer=event_key.of_customer("%(organization_id)s", "%(customer_id)s"),
        amount=metric_conditions.amount(raw_events) if unit.currency is None else "e.cost",
        of_unit=of_metric if unit.currency is None else "e.currency = %(unit)s AND e.cost IS NOT NULL",
        seats="".join(f", e.properties ->> %(key{number})s::text" for number in keys),
        seat_numbers="".join(f", {_FIRST_SEAT_COLUMN + number}" for number in keys),
    )
    parameters = {
        "organization_id": organization_id,
        "customer_id": customer_id,
        "unit": unit.currency or unit.metric_id,
        "since": min(division.ingest_times),
        "event_times": sorted(set(division.event_times)),
        "ingest_times": sorted(set(division.ingest_times)),
        "metric_ids": list(division.metric_ids),
        "event_ids": [event.event_id for event in voided],
        "times": [event.event_time for event in voided],
        "raw_since": None if raw_events is None else raw_events.since_time,
        **metric_conditions.parameters(raw_events),
        **{f"key{number}": division.seat_keys[number] for number in keys},
    }
    cursor = await connection.execute(statement.encode(), parameters)
    found = []
    for amount, of_voided, event_time, ingest_time, metric_id, *values in await cursor.fetchall():
        seats = frozenset((key, value) for key, value in zip(division.seat_keys, values, strict=True) if value)
        found.append(UsageClass(Decimal(amount), Decimal(of_voided), event_time, ingest_time, metric_id, seats))
    return found
