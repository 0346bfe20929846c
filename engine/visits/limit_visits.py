"""What a changed limit asks for: the alerts that draw lines in percent of it look again at whom it limits."""

from datetime import datetime, timedelta

from engine.visits.visiting import visit_customers
from evaluator.alerts import AlertRule, ScopeKind
from evaluator.balances import Unit
from evaluator.limits import Limits
from evaluator.routing import Router
from store.alerts import alerts
from store.alerts import visits as visiting
from store.identity.organizations import Organization
from store.limits import effective as limit_facts
from store.limits.limits import LimitSubject
from store.postgres.database import Connection, driver


async def look_again(
    connection: Connection,
    organization: Organization,
    epoch: int,
    subject: LimitSubject,
    now: datetime,
    grace: timedelta,
) -> None:
    """Evaluates a customer on whom a limit was changed, and lets alerts visit everybody where it is a plan's.

    In the transaction that changed the limit, which holds the organization's lock since it raised the epoch to this.
    """
    organization_id = organization.organization_id
    unit = Unit(subject.currency, subject.metric_id)
    active = await alerts.active_of_unit(connection, organization_id, unit)
    rules = [rule for definition in active if (rule := definition.active_rule()) is not None]
    concerned = [rule for rule in rules if _concerns(subject, rule)]
    if not concerned:
        return
    if subject.customer_id is None:
        await visiting.begin(connection, organization_id, [rule.alert_id for rule in concerned])
        return
    plans = await limit_facts.of_plans_since(await driver(connection), organization_id, -1)
    # Nobody else may use it: the transaction may yet be undone. It knows all alerts of the unit, and so all that
    # watch any gauge that these look at.
    router = Router(epoch, rules, {plan_id: Limits(limits) for plan_id, limits in plans.items()})
    for rule in concerned:
        await visit_customers(connection, organization, router, rule, [subject.customer_id], now, grace)


def _concerns(subject: LimitSubject, rule: AlertRule) -> bool:
    """Whether an alert of the limit's unit may have a gauge that is compared with the limit."""
    if not rule.has_percentages or rule.group_keys != tuple(key for key, _ in subject.groups):
        return False
    if subject.customer_id is not None:
        return rule.scope.customer_id in (None, subject.customer_id)
    return rule.scope.kind is not ScopeKind.PLAN or rule.scope.plan_id == subject.plan_id
