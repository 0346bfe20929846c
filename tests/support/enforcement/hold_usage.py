"""Usage of a story as the engine and as the reference model have it, and decisions as the model shows them."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from evaluator.amounts import format_decimal
from evaluator.enforcement.decisions import Decision, LimitState
from evaluator.enforcement.usage import Usage
from evaluator.events import UsageEvent
from tests.reference.gauges import Event
from tests.reference.holds import Answer, Shown
from tests.support.enforcement.hold_story import Use


def usage_of(use: Use, now: datetime) -> Usage:
    """What is asked for."""
    return Usage(
        use.customer,
        use.metric,
        Decimal(int(use.quantity)),
        decimal(use.cost),
        None if use.cost is None else "USD",
        use.subscription,
        properties(use),
        None if use.before is None else now - use.before,
    )


def usage_event_of(event_id: str, use: Use, now: datetime) -> UsageEvent:
    """What happened."""
    return UsageEvent(
        event_id,
        use.customer,
        now - (use.before or timedelta()),
        use.metric,
        Decimal(int(use.quantity)),
        use.subscription,
        decimal(use.cost),
        None if use.cost is None else "USD",
        properties(use),
    )


def event_of(event_id: str, use: Use, now: datetime) -> Event:
    """Either of them in the model."""
    groups = tuple(sorted(properties(use).items()))
    time = now - (use.before or timedelta())
    return Event(event_id, use.customer, time, use.metric, use.quantity, use.subscription, use.cost, "USD", groups)


def shown_decision(decision: Decision) -> Answer:
    """A decision as the model shows it."""
    refused_by: Shown | str | None = None
    if decision.credit is not None:
        refused_by = decision.credit.unit.key
    elif decision.limit is not None:
        refused_by = shown(decision.limit)
    assert (decision.reason is None) == (refused_by is None)
    return Answer(
        decision.outcome.value,
        Fraction(decision.granted_quantity),
        None if decision.granted_cost is None else Fraction(decision.granted_cost),
        refused_by,
        frozenset(map(shown, decision.over)),
    )


def shown(state: LimitState) -> Shown:
    """A limit as the model shows it."""
    assert state.remaining == state.limit.amount - state.counted - state.held
    return Shown(state.limit.limit_id, Fraction(state.counted), Fraction(state.held))


def properties(use: Use) -> dict[str, str]:
    """The properties of usage."""
    return {} if use.region is None else {"region": use.region}


def decimal(amount: Fraction | None) -> Decimal | None:
    """An amount of a story: a multiple of a quarter."""
    return None if amount is None else Decimal(amount.numerator) / Decimal(amount.denominator)


def text(amount: Fraction) -> str:
    """An amount as callers write it."""
    return format_decimal(decimal(amount) or Decimal(0))
