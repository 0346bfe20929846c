"""Transitions as the demo compares them, read from acknowledgements and from the bodies of webhooks."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from cli.client.times import to_datetime
from demo.definitions import DAYS, PERCENT, decimal_text
from generated.tidemark.v1.gauge_pb2 import BalanceReading, Gauge
from generated.tidemark.v1.threshold_pb2 import TransitionKind
from generated.tidemark.v1.transition_pb2 import Transition

Group = tuple[tuple[str, str], ...]
# Customer, subscription, what is measured, group and start of the period: a gauge, whatever alerts watch it.
GaugeIdentity = tuple[str, str, str, Group, datetime]

NO_PERIOD = datetime.min.replace(tzinfo=UTC)  # the start of the period of a gauge that has none

_IDS = ("invoice_id", "balance_id", "segment_number")  # of the one invoice or balance that a gauge measures
# What is measured where the alert has no unit.
_WITHOUT_UNIT = {"DAYS_LEFT": DAYS, "USED_PERCENT": PERCENT}


class TransitionKey(NamedTuple):
    """One threshold reached or resolved on one gauge: what the expectation and the service must agree on.

    level: in its shortest form. event_id: empty where no event led to it.
    """

    alert: str
    customer: str
    subscription: str
    measured: str
    group: Group
    period_start: datetime
    kind: str
    level: str
    event_id: str


def transition_of_answer(transition: Transition) -> TransitionKey:
    """A transition of an acknowledgement."""
    gauge = transition.gauge
    customer, subscription, measured, group, start = gauge_identity(gauge)
    return TransitionKey(
        alert=transition.alert_display_name,
        customer=customer,
        subscription=subscription,
        measured=measured,
        group=group,
        period_start=start,
        kind=TransitionKind.Name(transition.kind).removeprefix("TRANSITION_KIND_"),
        level=decimal_text(Decimal(transition.level)),
        event_id=transition.event_id,
    )


def gauge_identity(gauge: Gauge) -> GaugeIdentity:
    """The identity of a gauge of an answer."""
    of_one = gauge.invoices if gauge.HasField("invoices") else gauge.balances
    named = ((key, str(getattr(of_one, key, "") or "")) for key in _IDS)
    group = _group((value.key, value.value) for value in gauge.group) + tuple(one for one in named if one[1])
    start = to_datetime(gauge.billing_period.start_time) if gauge.HasField("billing_period") else NO_PERIOD
    return gauge.customer_id, gauge.subscription_id, _measured(gauge), group, start


def _measured(gauge: Gauge) -> str:
    if gauge.HasField("cost"):
        return gauge.cost.currency
    if gauge.HasField("usage"):
        return gauge.usage.metric_id
    if gauge.HasField("invoices"):
        return gauge.invoices.currency
    if gauge.HasField("plan"):
        return DAYS
    unit = gauge.balances.spend.currency or gauge.balances.quantity.metric_id
    return unit or _WITHOUT_UNIT[BalanceReading.Name(gauge.balances.reading).removeprefix("BALANCE_READING_")]


def transitions_of_body(body: bytes) -> list[TransitionKey]:
    """The transitions in the body of a webhook; raises KeyError or ValueError if it cannot be read."""
    data: Mapping[str, Any] = json.loads(body)["data"]
    gauge: Mapping[str, Any] = data["gauge"]
    if data.get("omitted"):
        raise ValueError(f"{data['omitted']} transitions were left out")
    period = gauge.get("period")
    measured = gauge.get("currency") or gauge.get("metric_id")
    return [
        TransitionKey(
            alert=data["alert_display_name"],
            customer=gauge["customer_id"],
            subscription=gauge.get("subscription_id", ""),
            measured=measured or _WITHOUT_UNIT[gauge["reading"]],
            group=_group((value["key"], value["value"]) for value in gauge.get("group", ()))
            + tuple((key, str(gauge[key])) for key in _IDS if key in gauge),
            period_start=datetime.fromisoformat(period["start_time"]).astimezone(UTC) if period else NO_PERIOD,
            kind=transition["kind"],
            level=decimal_text(Decimal(transition["level"])),
            event_id=transition.get("event_id", ""),
        )
        for transition in data["transitions"]
    ]


def sequence_of_body(body: bytes) -> int:
    """The sequence number of a notification for its alert and gauge; raises as transitions_of_body."""
    return int(json.loads(body)["data"]["sequence"])


def _group(pairs: Iterable[tuple[str, str]]) -> Group:
    return tuple(sorted(pairs))
