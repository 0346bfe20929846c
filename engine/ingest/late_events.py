"""Late events: an event counts in its own period until the grace after the period's end is over."""

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
