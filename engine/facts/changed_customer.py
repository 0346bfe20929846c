"""A changed customer: what is re-evaluated when a customer, its plan, or one of its subscriptions changes.

Alerts on facts are evaluated in the transaction of the change (`evaluate_facts_of_changed`), alerts on usage after
its commit (`evaluate_usage_of_changed`): to recount usage may take long, and the change keeps all ingest of the
organization waiting.
"""

import functools
import logging
from collections.abc import Iterable
from typing import NamedTuple

from engine.facts.due_timers import catch_up
from engine.facts.fact_gauges import evaluate_readings
from engine.facts.one_alert import evaluate_alert
from engine.facts.readings import Covered, read_all
from engine.rules.transaction import Transaction, Transactions
from evaluator.alerts import AlertRule, GroupSelector
from evaluator.gauges import Measure
from runtime.actions import LogAction
from store.alerts import backfills
from store.balances import wallets
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable
from store.postgres.retries import repeated
from store.rules import routing_facts

logger = logging.getLogger(__name__)


class _Measured(NamedTuple):
    """What decides which gauges of a customer an alert watches; alerts that are alike in it share them."""

    measure: Measure
    groups: tuple[GroupSelector, ...]
    plan_id: str | None
    subscription_id: str | None


async def evaluate_facts_of_changed(transaction: Transaction, customer_id: str) -> None:
    """Evaluates alerts on facts for a customer that is new, or that other alerts cover than before."""
    organization_id = transaction.organization_id
    wallet = (await wallets.lock(transaction.connection, organization_id, [customer_id]))[customer_id]
    customer = (await routing_facts.customers(transaction.driver, organization_id, [customer_id]))[0]
    await catch_up(transaction, {customer: wallet})
    covered = [Covered(customer, transaction.router.fact_rules(customer), wallet.moment(transaction.now))]
    found = await read_all(transaction, covered)
    await evaluate_readings(transaction, found.gauges)
    await wallets.set_timers(transaction.connection, organization_id, found.by_wallet(covered))


async def evaluate_usage_of_changed(
    transactions: Transactions, organization: Organization, customer_id: str, *, subscriptions_only: bool
) -> None:
    """Evaluates alerts on usage for a customer whose change is committed, or for its subscriptions only.

    An event that comes before this is done evaluates its gauges itself, and so does the next event if this process
    ends here. Each alert has a transaction of its own: two of them in one would lock gauges out of order.
    """

    async def find() -> list[str]:
        async with transactions.open(organization) as transaction:
            return await _concerned(transaction, customer_id, subscriptions_only)

    async def evaluate(alert_id: str) -> None:
        async with transactions.open(organization) as transaction:
            rule = await transaction.rule(alert_id)
            if rule is not None:
                await evaluate_alert(transaction, rule, [customer_id])

    for alert_id in await repeated(find):
        try:
            await repeated(functools.partial(evaluate, alert_id))
        except DatabaseUnavailable:
            raise
        except Exception:
            # The change is committed, and the other alerts do not wait for this one.
            logger.exception(
                "alert %s could not be evaluated for a customer that was changed; the customer's next event does so",
                alert_id,
                extra={"action": LogAction.BACKFILL_FAILED, "alert_id": alert_id},
            )


async def _concerned(transaction: Transaction, customer_id: str, subscriptions_only: bool) -> list[str]:
    """The ids of alerts that together watch all gauges of the customer's usage; one of each set of like alerts."""
    connection, organization_id = transaction.driver, transaction.organization_id
    if not await backfills.has_usage(transaction.connection, organization_id, customer_id):
        return []
    customers = await routing_facts.customers(connection, organization_id, [customer_id])
    subscriptions = await routing_facts.subscriptions_of(connection, organization_id, [customer_id])
    plans = {(False, one.plan_id) for one in customers} | {(True, one.plan_id) for one in subscriptions}
    rules = [
        rule
        for customer in customers
        for rule in transaction.router.usage_rules(customer, [one.plan_id for one in subscriptions])
        if rule.measure.per_subscription or rule.measure.contract_fields or not subscriptions_only
    ]
    return _one_of_each(rules, plans)


def _one_of_each(rules: Iterable[AlertRule], plans: set[tuple[bool, str | None]]) -> list[str]:
    """The id of one alert of each set that watches the same gauges.

    plans: those of the customer (False) and of its subscriptions (True).
    """
    found: dict[_Measured, str] = {}
    for rule in rules:
        scope = rule.scope
        if scope.plan_id is None or (rule.measure.per_subscription, scope.plan_id) in plans:
            measured = _Measured(rule.measure, rule.groups, scope.plan_id, scope.subscription_id)
            found.setdefault(measured, rule.alert_id)
    return list(found.values())
