"""Metering: usage that is asked for gets its time, its currency and its targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.enforcement.requests import CustomerBeingErased, UsageTooOld
from engine.meters.cells import Cells
from engine.meters.known_targets import KnownTargets
from evaluator.aggregation import Aggregation
from evaluator.enforcement.targets import Target
from evaluator.enforcement.usage import Usage
from evaluator.routing import Router


@dataclass(slots=True)  # not frozen: see `Usage`
class Metered:
    """Usage with all that its decision needs.

    usage: its event_time is set, and its currency where it has a cost. aggregation: of its metric. targets: what it
    moves at its event_time. timed: that time was named, so that the same usage will have it at any later time, too.
    """

    usage: Usage
    aggregation: Aggregation
    targets: Sequence[Target]
    timed: bool = False


def metered_of(router: Router, known: KnownTargets, usage: Usage, now: datetime, grace: timedelta) -> Metered:
    """Usage with all that its decision needs. The router must know what it names, except for its metric.

    grace: how long after its end a period still counts. Raises CustomerBeingErased and UsageTooOld.
    """
    customer_id, subscription_id = usage.customer_id, usage.subscription_id
    if router.being_erased and router.customer(customer_id).being_erased:
        raise CustomerBeingErased(customer_id)
    time, currency = usage.event_time, usage.currency
    timed = time is not None
    if time is None:
        time = now
    elif time <= now - grace and router.last_period_end(customer_id, subscription_id, time) <= now - grace:
        raise UsageTooOld(customer_id, time)
    if usage.cost is None:
        currency = None
    elif currency is None:
        currency = router.currency_of(customer_id, subscription_id)
    if time is not usage.event_time or currency != usage.currency:
        metric_id, quantity, cost, properties = usage.metric_id, usage.quantity, usage.cost, usage.properties
        usage = Usage(customer_id, metric_id, quantity, cost, currency, subscription_id, properties, time)
    targets = known.of(router, customer_id, subscription_id, usage.metric_id, currency)
    return Metered(usage, targets.aggregation, targets.of(usage.properties), timed)


def want_targets(cells: Cells, metered: Metered) -> None:
    """Needs the meters that the usage moves."""
    time = metered.usage.event_time
    assert time is not None
    for target in metered.targets:
        cells.want(target, time)
