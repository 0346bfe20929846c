"""What alerts on balances and plans read of one customer at one moment, as answers show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.balance_values import FactValue, balance_values, days_left, gauge_of, measure_takes, reads_as_zero
from evaluator.gauges import Gauge
from runtime.turns import Slices
from store.balances import holdings
from store.postgres.database import Connection, driver


@dataclass(frozen=True)
class FactView:
    """What one alert reads. values: of the gauges that have something to measure. others: of those that had once.

    no_data: nothing that the customer ever held is what the alert measures.
    """

    values: dict[Gauge, Decimal]
    others: dict[Gauge, Decimal | None]
    no_data: bool


async def read(
    connection: Connection,
    organization_id: int,
    customer_id: str,
    plan_end: datetime | None,
    rules: Sequence[AlertRule],
    now: datetime,
) -> dict[str, FactView]:
    """What each of those alerts reads of a customer now, by alert id; the transaction must see one moment."""
    kinds = {kind for rule in rules if rule.measure.balances is not None for kind in rule.measure.balances.kinds}
    own = []
    if kinds:
        held = await holdings.of_kinds(await driver(connection), organization_id, [customer_id], kinds)
        own = held.get(customer_id, [])
    found = {}
    with exact_arithmetic():
        slices = Slices(organization_id)
        for rule in rules:
            await slices.pause()
            measure = rule.measure
            if measure.balances is None:
                gauge = gauge_of(customer_id, measure, ())
                ahead = plan_end is not None and now <= plan_end
                values = {gauge: days_left(plan_end, now)} if plan_end is not None and ahead else {}
                found[rule.alert_id] = FactView(values, {gauge: None}, not values)
                continue
            active = _values(balance_values(rule, customer_id, own, now))
            others = _values(balance_values(rule, customer_id, own, now, own))
            values = {gauge: value for gauge, value in active.items() if value is not None}
            nothing = not values
            if reads_as_zero(measure.balances):
                nothing = not any(measure_takes(measure, holding) for holding in own)
            found[rule.alert_id] = FactView(values, others, nothing)
    return found


def _values(read: dict[Gauge, FactValue]) -> dict[Gauge, Decimal | None]:
    return {
        gauge: None if reading.value is None else gauge.measure.shown(reading.value, reading.scale)
        for gauge, reading in read.items()
    }
