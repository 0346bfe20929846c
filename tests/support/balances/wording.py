"""Alerts on balances in text format, and what tests read of them."""

from decimal import Decimal

from google.protobuf import text_format

from generated.tidemark.v1 import alert_pb2
from tests.support.balances.holder import Holder
from tests.support.usage.caller import BOTH

Values = dict[tuple[str, ...], Decimal]


def written(text: str, *lines: str, scope: str = "all_customers {}") -> alert_pb2.Alert:
    """The alert with that condition, with those thresholds, that notifies of both kinds."""
    alert = text_format.Parse(f'name: "balance" scope {{ {scope} }} {text}', alert_pb2.Alert())
    for line in lines:
        alert.thresholds.add(value=line, notify_on=BOTH)
    return alert


async def create(holder: Holder, text: str, *lines: str, evaluate: bool | None = None, scope: str = "") -> str:
    """Creates such an alert, waits for its first evaluation, and returns its id."""
    created = await holder.caller.create(written(text, *lines, scope=scope or "all_customers {}"), evaluate=evaluate)
    return created.alert_id


async def values(holder: Holder, alert_id: str) -> Values:
    """What the alert reads of the customer, by the values of the gauge's group, or by balance and segment."""
    state = await holder.caller.state(alert_id, holder.customer)
    found: Values = {}
    for one in state.gauges:
        of = one.gauge.balances
        segment = (of.balance_id, str(of.segment_number)) if of.segment_number else (of.balance_id,)
        place = segment if of.balance_id else tuple(each.value for each in one.gauge.group)
        assert place not in found
        if one.gauge.value:
            found[place] = Decimal(one.gauge.value)
    return found


async def kinds_told(holder: Holder, alert_id: str) -> list[str]:
    """The kinds of transitions that an alert notified of the customer, oldest first."""
    return [
        crossing.kind
        for one in await holder.caller.notifications()
        if (one.customer_id, one.alert_id) == (holder.customer, alert_id)
        for crossing in one.crossings
    ]
