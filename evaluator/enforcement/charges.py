"""Charges: what a usage takes of the limits of its customer, of its plan, and of the customer's ancestors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from evaluator.balances import Unit
from evaluator.enforced_limits import EnforcedLimits, MetLimit, met_by
from evaluator.enforcement.decisions import LimitCharge
from evaluator.enforcement.meters import Meter
from evaluator.enforcement.usage import Usage
from evaluator.periods import BillingCycle


@dataclass(frozen=True, slots=True)
class Holder:
    """A customer, or a subscription of it, whose limits a usage meets.

    own: its own limits; plan: those of its plan. level: 0 for the customer of the usage and its subscription, 1 for
    the customer's parent and so on.
    """

    customer_id: str
    subscription_id: str | None
    own: EnforcedLimits
    plan: EnforcedLimits
    cycle: BillingCycle
    level: int


def charges(
    usage: Usage, amounts: Sequence[tuple[Unit, Decimal]], time: datetime, holders: Sequence[Holder]
) -> Iterator[LimitCharge]:
    """What a usage at `time` takes of each limit that it meets. amounts: see `metered`."""
    for holder in holders:
        for unit, amount in amounts:
            for met in met_by(holder.own, holder.plan, unit, usage.properties):
                yield LimitCharge(met.limit, _meter(holder, met, time), amount, holder.level)


def _meter(holder: Holder, met: MetLimit, time: datetime) -> Meter:
    limit = met.limit
    span = None if limit.window.is_rolling else limit.window.span_at(time, holder.cycle)
    return Meter(holder.customer_id, holder.subscription_id, limit.unit, met.group, limit.window, span)
