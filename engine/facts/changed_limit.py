"""A changed limit: alerts with thresholds in percent of it are re-evaluated for the customers that it limits."""

from engine.facts.one_alert import evaluate_alert
from engine.rules.transaction import Transactions
from evaluator.alert_index import WideAlerts
from evaluator.alerts import AlertRule
from evaluator.balances import Unit
from evaluator.routing import Router
from store.alerts import alerts, backfills
from store.identity.organizations import Organization
from store.limits import effective_limits
from store.limits.limits import LimitSubject
from store.postgres.database import Connection, driver


async def evaluate_changed_limit(
    transactions: Transactions, connection: Connection, organization: Organization, epoch: int, subject: LimitSubject
) -> None:
    """Evaluates a customer whose limit changes; begins backfills of the alerts where the limit is a plan's.

    In the transaction that changes the limit, which has raised the epoch to this one.
    """
    organization_id = organization.organization_id
    unit = Unit(subject.currency, subject.metric_id)
    active = await alerts.active_of_unit(connection, organization_id, unit)
    rules = [rule for definition in active if (rule := definition.active_rule()) is not None]
    concerned = [rule for rule in rules if _concerns(subject, rule)]
    if not concerned:
        return
    if subject.customer_id is None:
        await backfills.begin(connection, organization_id, [rule.alert_id for rule in concerned])
        return
    plans = await effective_limits.of_plans(await driver(connection), organization_id)
    # A router of its own, because this transaction may roll back. It knows all alerts of the unit, and so all that
    # watch the same gauges as these.
    router = Router(epoch, WideAlerts(rule for rule in rules if rule.scope.customer_id is None), plans)
    transaction = await transactions.with_router(connection, organization, router)
    for rule in concerned:
        await evaluate_alert(transaction, rule, [subject.customer_id])


def _concerns(subject: LimitSubject, rule: AlertRule) -> bool:
    """Whether an alert of the limit's unit may have a gauge that is compared with the limit."""
    if not rule.has_percentages or rule.group_keys != tuple(key for key, _ in subject.groups):
        return False
    if subject.customer_id is not None:
        return rule.scope.customer_id in (None, subject.customer_id)
    return rule.scope.plan_id in (None, subject.plan_id)
