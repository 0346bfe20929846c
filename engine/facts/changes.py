"""Changes of facts: what the billing system posts of balances and invoices is evaluated when it is stored.

Customers, their plans, subscriptions and limits: `engine.puts`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from engine.facts.changed_customer import evaluate_noted_facts
from engine.facts.due_timers import catch_up
from engine.facts.fact_gauges import evaluate_readings
from engine.facts.readings import Covered, read_all, read_touched
from engine.recharges.evaluating import evaluate_recharges
from engine.rules.transaction import Transaction, Transactions
from evaluator.changed_facts import ChangedFacts
from evaluator.routing_facts import CustomerFacts
from store.balances import wallet_timers, wallets
from store.erasures.jobs import CustomerBeingErased
from store.identity.organizations import Organization
from store.postgres.database import Connection
from store.rules import routing_facts

Result = TypeVar("Result")
Change = Callable[[Connection], Awaitable[tuple[Result, ChangedFacts]]]


class FactChanges:
    """Evaluates what a changed balance or invoice touches."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def apply(
        self, connection: Connection, organization: Organization, customer_id: str, change: Change[Result]
    ) -> Result:
        """Runs `change` under the customer's wallet, evaluates what it touched, and returns its result.

        connection: a transaction that has done nothing yet. The caller may roll it back, because only the transaction
        keeps what this does. A customer that is not known yet is registered with defaults.
        """
        transaction = await self._transactions.begin(connection, organization)
        organization_id = transaction.organization_id
        customer, registered = await _customer(transaction, customer_id)
        if not registered:
            await evaluate_noted_facts(transaction, [customer_id], only_free=False)
        wallet = (await wallets.lock(connection, organization_id, [customer_id]))[customer_id]
        await catch_up(transaction, {customer: wallet})
        result, touched = await change(connection)
        covered = Covered(customer, transaction.router.fact_rules(customer), wallet.moment(transaction.now))
        if registered:
            found = await read_all(transaction, [covered])
        else:
            found = await read_touched(transaction, covered, touched)
        await evaluate_readings(transaction, found.gauges)
        await wallet_timers.set_earlier_timers(connection, organization_id, found.by_wallet([covered]))
        if touched.recharge_policies:  # a first policy is noted in the wallet, which was read before
            wallet = replace(wallet, has_recharge_policy=True)
        await evaluate_recharges(transaction, {customer: wallet}, {customer_id: touched.balance_ids})
        return result


async def _customer(transaction: Transaction, customer_id: str) -> tuple[CustomerFacts, bool]:
    """The customer, and whether this transaction has registered it."""
    connection, organization_id = transaction.driver, transaction.organization_id
    found = await routing_facts.customers(connection, organization_id, [customer_id])
    if found:
        if found[0].being_erased:
            raise CustomerBeingErased(customer_id)
        return found[0], False
    made = await routing_facts.register_customers(
        connection, organization_id, [customer_id], transaction.epoch, transaction.now
    )
    if made:
        return made[0], True
    # Another transaction has just registered it.
    return (await routing_facts.customers(connection, organization_id, [customer_id]))[0], False
