"""Events that are not counted: those of periods whose grace is over, and those of customers that are being erased."""

from engine.rules.transaction import Transaction
from evaluator.events import UsageEvent


def without_too_late(transaction: Transaction, arrived: list[UsageEvent]) -> list[UsageEvent]:
    """The events whose period may still change, each with its currency; the same list when it is all of them."""
    oldest, router = transaction.now - transaction.grace, transaction.router
    if all(event.event_time > oldest and (event.cost is None or event.currency) for event in arrived):
        return arrived
    countable = []
    for event in arrived:
        who = event.customer_id, event.subscription_id
        if event.event_time <= oldest and router.last_period_end(*who, event.event_time) <= oldest:
            continue
        countable.append(router.with_currency(event))
    return countable


def without_erased(transaction: Transaction, arrived: list[UsageEvent]) -> list[UsageEvent]:
    """The events of customers that are not being erased; the same list when it is all of them."""
    known = transaction.router.known
    erased = {name for name in transaction.router.being_erased if name in known and known[name].facts.being_erased}
    return [event for event in arrived if event.customer_id not in erased] if erased else arrived
