"""What the service says, in the demo's words: crossings in acknowledgements and in the bodies of webhooks."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cli.client.times import to_datetime
from demo.world import DAYS, EVER, PERCENT, Crossing, short
from generated.tidemark.v1.notification_pb2 import Transition
from generated.tidemark.v1.threshold_pb2 import TransitionKind
from generated.tidemark.v1.usage_pb2 import BalanceReading, Gauge

Group = tuple[tuple[str, str], ...]

_OF_ONE = ("invoice_id", "balance_id", "segment_number")  # what says of which single thing a gauge is
# What is measured where the alert does not ask for a unit.
_WITHOUT_UNIT = {"DAYS_LEFT": DAYS, "USED_PERCENT": PERCENT}


def crossing_of_transition(transition: Transition) -> Crossing:
    """What an acknowledgement says of a threshold."""
    gauge = transition.gauge
    customer, subscription, measured, group, start = gauge_identity(gauge)
    return Crossing(
        alert=transition.alert_name,
        customer=customer,
        subscription=subscription,
        measured=measured,
        group=group,
        period_start=start,
        kind=TransitionKind.Name(transition.kind).removeprefix("TRANSITION_KIND_"),
        level=short(Decimal(transition.level)),
        event_id=transition.event_id,
    )


def gauge_identity(gauge: Gauge) -> tuple[str, str, str, Group, datetime]:
    """Customer, subscription, what is measured, group and period's start of a gauge."""
    of_one = gauge.invoices if gauge.HasField("invoices") else gauge.balances
    named = ((key, str(getattr(of_one, key, "") or "")) for key in _OF_ONE)
    group = _group((value.key, value.value) for value in gauge.group) + tuple(one for one in named if one[1])
    start = to_datetime(gauge.billing_period.start_time) if gauge.HasField("billing_period") else EVER
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


def crossings_of_body(body: bytes) -> list[Crossing]:
    """What the body of a webhook says, threshold by threshold; raises KeyError or ValueError if it cannot be read."""
    data: Mapping[str, Any] = json.loads(body)["data"]
    gauge: Mapping[str, Any] = data["gauge"]
    if data.get("omitted"):
        raise ValueError(f"{data['omitted']} transitions were left out")
    period = gauge.get("period")
    measured = gauge.get("currency") or gauge.get("metric_id")
    return [
        Crossing(
            alert=data["alert_name"],
            customer=gauge["customer_id"],
            subscription=gauge.get("subscription_id", ""),
            measured=measured or _WITHOUT_UNIT[gauge["reading"]],
            group=_group((value["key"], value["value"]) for value in gauge.get("group", ()))
            + tuple((key, str(gauge[key])) for key in _OF_ONE if key in gauge),
            period_start=datetime.fromisoformat(period["start_time"]).astimezone(UTC) if period else EVER,
            kind=transition["kind"],
            level=short(Decimal(transition["level"])),
            event_id=transition.get("event_id", ""),
        )
        for transition in data["transitions"]
    ]


def sequence_of_body(body: bytes) -> int:
    """How many notifications of this alert on this gauge there are up to this one; raises as crossings_of_body."""
    return int(json.loads(body)["data"]["sequence"])


def _group(pairs: Iterable[tuple[str, str]]) -> Group:
    return tuple(sorted(pairs))
