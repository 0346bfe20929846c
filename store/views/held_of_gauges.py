"""What open reservations hold of the gauges of customers, read when the gauges are shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from evaluator.aggregation import Aggregation
from evaluator.amounts import ZERO
from evaluator.gauges import Gauge
from store.postgres.database import Connection, DriverConnection, driver
from store.postgres.distributed import Forms
from store.rules import routing_facts
from store.usage.recounts import Recount, held_amounts
from store.views.customer_alerts import CustomerAlert

# With more of these, nothing is read of what is beyond: each measure is one pass over the open reservations.
MOST_RESERVATIONS = 10_000  # of a customer
MOST_GAUGES = 1_000  # of a customer
MOST_PASSES = 100  # for a customer

# How many open reservations customers have, each up to one more than are read.
_COUNT_OF_EACH = """
SELECT i.customer_id, c.number
FROM unnest(%(customer_ids)s::text[]) AS i (customer_id) CROSS JOIN LATERAL (
    SELECT count(*) FROM (
        SELECT 1 FROM reservation
        WHERE organization_id = %(organization_id)s AND customer_id = i.customer_id COLLATE "C" AND state = 'OPEN'
        LIMIT %(most)s + 1
    ) AS found
) AS c (number)
"""
_COUNT_TOGETHER = """
SELECT customer_id, count(*) FROM reservation
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s) AND state = 'OPEN'
GROUP BY customer_id
"""
_COUNT = Forms(_COUNT_OF_EACH.encode(), _COUNT_TOGETHER.encode())


class Held(NamedTuple):
    """What open reservations hold of a gauge. number: of these reservations."""

    amount: Decimal
    number: int


NOTHING_HELD = Held(ZERO, 0)


async def with_held(
    connection: Connection, organization_id: int, alerts: Sequence[CustomerAlert]
) -> list[CustomerAlert]:
    """The alerts with what is held of their gauges of usage and cost, as far as it is read."""
    found = await read_held(connection, organization_id, [item.gauge for alert in alerts for item in alert.gauges])
    if not found:
        return list(alerts)
    return [
        replace(alert, gauges=tuple(replace(item, held=_amount(found.get(item.gauge))) for item in alert.gauges))
        for alert in alerts
    ]


async def read_held(connection: Connection, organization_id: int, gauges: Iterable[Gauge]) -> dict[Gauge, Held]:
    """What is held of gauges; without those of which it is not read, or of which nothing can be held."""
    wanted = _wanted(gauges)
    return await _read(await driver(connection), organization_id, wanted) if wanted else {}


def _amount(held: Held | None) -> Decimal | None:
    return None if held is None else held.amount


def _wanted(gauges: Iterable[Gauge]) -> dict[str, dict[Gauge, None]]:
    """The gauges to be read, by customer, each once: the first ones of as many as may be read."""
    wanted, passes = dict[str, dict[Gauge, None]](), dict[str, set[object]]()
    for gauge in gauges:
        if gauge.measure.of_facts:
            continue
        own, own_passes = wanted.setdefault(gauge.customer_id, {}), passes.setdefault(gauge.customer_id, set())
        one = gauge.measure, gauge.subscription_id, gauge.period, tuple(key for key, _ in gauge.group)
        if len(own) < MOST_GAUGES and (one in own_passes or len(own_passes) < MOST_PASSES):
            own_passes.add(one)
            own[gauge] = None
    return wanted


async def _read(
    raw: DriverConnection, organization_id: int, wanted: Mapping[str, Iterable[Gauge]]
) -> dict[Gauge, Held]:
    parameters = {"organization_id": organization_id, "customer_ids": list(wanted), "most": MOST_RESERVATIONS}
    cursor = await raw.execute(_COUNT.on(raw), parameters)
    numbers: dict[str, int] = {**dict.fromkeys(wanted, 0), **dict(await cursor.fetchall())}
    gauges = [gauge for one, own in wanted.items() if numbers[one] <= MOST_RESERVATIONS for gauge in own]
    metric_ids = {gauge.measure.metric_id for gauge in gauges if gauge.measure.metric_id is not None}
    metrics = {one.metric_id: one for one in await routing_facts.metrics(raw, organization_id, sorted(metric_ids))}
    found = dict[Gauge, Held]()
    recounts = []
    for gauge in gauges:
        metric = metrics.get(gauge.measure.metric_id or "")
        aggregation = Aggregation.SUM if metric is None else metric.aggregation
        if not aggregation.additive:
            continue
        found[gauge] = NOTHING_HELD
        if numbers[gauge.customer_id]:
            recounts.append(Recount(gauge, aggregation, None, (), None if metric is None else metric.raw_events))
    if recounts:
        held = await held_amounts(raw, organization_id, recounts)
        found.update((one.gauge, Held(*amount)) for one, amount in zip(recounts, held, strict=True))
    return found
