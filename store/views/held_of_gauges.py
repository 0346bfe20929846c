"""What open reservations hold of the gauges of one customer, read when the gauges are shown."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from evaluator.aggregation import Aggregation
from evaluator.amounts import ZERO
from evaluator.gauges import Gauge
from store.postgres.database import Connection, DriverConnection, driver
from store.rules import routing_facts
from store.usage.recounts import Recount, held_amounts
from store.views.customer_alerts import CustomerAlert, GaugeState

# With more of either, nothing is read of what is beyond: each measure is one pass over the open reservations.
MOST_RESERVATIONS = 10_000  # of the customer
MOST_GAUGES = 1_000
MOST_PASSES = 100

# How many open reservations a customer has, up to one more than are read.
_COUNT = """
SELECT count(*) FROM (
    SELECT FROM reservation
    WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s AND state = 'OPEN'
    LIMIT %(most)s + 1
) AS found
"""


async def with_held(
    connection: Connection, organization_id: int, customer_id: str, alerts: Sequence[CustomerAlert]
) -> list[CustomerAlert]:
    """The alerts with what is held of their gauges of usage and cost, as far as it is read."""
    wanted = _wanted(item for alert in alerts for item in alert.gauges)
    if not wanted:
        return list(alerts)
    raw = await driver(connection)
    found = await _read(raw, organization_id, customer_id, wanted)
    if not found:
        return list(alerts)
    return [
        replace(alert, gauges=tuple(replace(item, held=found.get(item.gauge)) for item in alert.gauges))
        for alert in alerts
    ]


def _wanted(states: Iterable[GaugeState]) -> list[Gauge]:
    """The gauges to be read, each once: the first ones of as many as may be read."""
    wanted, passes = dict[Gauge, None](), set[object]()
    for item in states:
        gauge = item.gauge
        if gauge.measure.of_facts or len(wanted) == MOST_GAUGES:
            continue
        passes.add((gauge.measure, gauge.subscription_id, gauge.period, tuple(key for key, _ in gauge.group)))
        if len(passes) > MOST_PASSES:
            break
        wanted[gauge] = None
    return list(wanted)


async def _read(
    raw: DriverConnection, organization_id: int, customer_id: str, wanted: Sequence[Gauge]
) -> dict[Gauge, Decimal]:
    parameters = {"organization_id": organization_id, "customer_id": customer_id, "most": MOST_RESERVATIONS}
    cursor = await raw.execute(_COUNT, parameters)
    row = await cursor.fetchone()
    number = 0 if row is None else row[0]
    if number > MOST_RESERVATIONS:
        return {}
    metric_ids = {gauge.measure.metric_id for gauge in wanted if gauge.measure.metric_id is not None}
    metrics = {one.metric_id: one for one in await routing_facts.metrics(raw, organization_id, sorted(metric_ids))}
    recounts = []
    for gauge in wanted:
        metric = metrics.get(gauge.measure.metric_id or "")
        aggregation = Aggregation.SUM if metric is None else metric.aggregation
        if aggregation.additive:
            recounts.append(Recount(gauge, aggregation, None, (), None if metric is None else metric.raw_events))
    if not number:
        return {one.gauge: ZERO for one in recounts}
    held = await held_amounts(raw, organization_id, recounts)
    return {one.gauge: amount for one, (amount, _) in zip(recounts, held, strict=True)}
