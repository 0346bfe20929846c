"""Due timers: what time alone has changed of customers' facts is evaluated before anything that comes later.

The transaction that holds a customer's wallet does this first, whether it is for a timer, an event or a changed fact.
So each timer is processed once, and in the order of the times.
"""

from collections.abc import Mapping
from datetime import datetime

from engine.facts.fact_gauges import evaluate_readings
from engine.facts.readings import Covered, read_at_times
from engine.rules.transaction import Transaction
from evaluator.routing_facts import CustomerFacts
from store.balances import wallet_timers
from store.balances.wallet_timers import ReadTimes
from store.balances.wallets import Wallet


async def catch_up(
    transaction: Transaction,
    held: Mapping[CustomerFacts, Wallet],
    until: Mapping[CustomerFacts, datetime] | None = None,
) -> None:
    """Evaluates customers at each time that was due, one after the other, up to now.

    held: customers and their locked wallets; those that are not due are left alone. The facts are read as of the due
    time, however late that is. until: by customer, an earlier time than now.
    """
    router, now, until = transaction.router, transaction.now, until or {}
    due = {customer: wallet.due_time for customer, wallet in held.items()}
    read: dict[str, ReadTimes] = {}
    while covered := [
        Covered(customer, router.fact_rules(customer), time)
        for customer, time in due.items()
        if time is not None and time <= until.get(customer, now)
    ]:
        found = await read_at_times(transaction, covered)
        await evaluate_readings(transaction, found.gauges)
        read.update(found.by_wallet(covered))
        due = {item.customer: read[item.customer.customer_id].due_time for item in covered}
    await wallet_timers.set_timers(transaction.connection, transaction.organization_id, read)
