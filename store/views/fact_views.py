"""The values of alerts on balances and plans for one customer at one time, as answers show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from evaluator.alerts import AlertRule
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_values import FactValue, balance_values, days_left, gauge_of, measure_takes, reads_as_zero
from evaluator.balances import BalanceReading
from evaluator.gauges import Gauge
from runtime.turns import Slices
from store.balances import holdings
from store.postgres.database import Connection, driver


@dataclass(frozen=True)
class FactView:
    """The values of one alert. values: of gauges with data. others: of gauges that had data before.

    no_data: the customer has never had anything that the alert measures. of_nothing: the value of a gauge that no
    balance belongs to any more, because all of them were voided or left the selection.
    """

    values: dict[Gauge, Decimal]
    others: dict[Gauge, Decimal | None]
    no_data: bool
    of_nothing: Decimal | None = None


async def read(
    connection: Connection,
    organization_id: int,
    customer_id: str,
    plan_end: datetime | None,
    rules: Sequence[AlertRule],
    now: datetime,
) -> dict[str, FactView]:
    """The values of each of those alerts for a customer, by alert id. The transaction must be a snapshot."""
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
            active = _shown(balance_values(rule, customer_id, own, now))
            others = _shown(balance_values(rule, customer_id, own, now, own))
            values = {gauge: value for gauge, value in active.items() if value is not None}
            no_data = not values
            if reads_as_zero(measure.balances):
                no_data = not any(measure_takes(measure, holding) for holding in own)
            of_nothing = ZERO if measure.balances.reading is BalanceReading.REMAINING else None
            found[rule.alert_id] = FactView(values, others, no_data, of_nothing)
    return found


def _shown(values: dict[Gauge, FactValue]) -> dict[Gauge, Decimal | None]:
    """The numbers that thresholds are compared with; None where there is no data."""
    return {
        gauge: None if value.value is None else gauge.measure.shown(value.value, value.scale)
        for gauge, value in values.items()
    }
