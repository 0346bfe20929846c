"""Alerts on balances in protobuf text format, and their values and notifications."""

from decimal import Decimal

from google.protobuf import text_format

from generated.tidemark.v1 import alert_pb2
from tests.support.balances.holder import Holder
from tests.support.usage.caller import BOTH

Values = dict[tuple[str, ...], Decimal]


def written(text: str, *levels: str, scope: str = "all_customers {}") -> alert_pb2.Alert:
    """The alert with that condition, with those thresholds, that notifies of both kinds."""
    alert = text_format.Parse(f'display_name: "balance" scope {{ {scope} }} {text}', alert_pb2.Alert())
    for level in levels:
        alert.thresholds.add(value=level, notify_on=BOTH)
    return alert


async def create(holder: Holder, text: str, *levels: str, evaluate: bool | None = None, scope: str = "") -> str:
    """Creates such an alert, waits for its first evaluation, and returns its id."""
    created = await holder.caller.create(written(text, *levels, scope=scope or "all_customers {}"), evaluate=evaluate)
    return created.alert_id


async def values(holder: Holder, alert_id: str) -> Values:
    """The gauge values of the alert for the customer, by group values, or by balance and segment."""
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


async def notified_kinds(holder: Holder, alert_id: str) -> list[str]:
    """The kinds of transitions that an alert notified of the customer, oldest first."""
    return [
        crossing.kind
        for one in await holder.caller.notifications()
        if (one.customer_id, one.alert_id) == (holder.customer, alert_id)
        for crossing in one.transitions
    ]
