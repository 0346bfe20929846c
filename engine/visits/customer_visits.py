"""What a change of a customer or a subscription asks for: alerts on usage look at whom they cover now."""

import functools
import logging
from datetime import datetime, timedelta
from typing import NamedTuple

from engine.rules.rules import Rules
from engine.visits.visiting import visit_customers
from evaluator.alerts import AlertRule, GroupSelector, ScopeKind
from evaluator.gauges import Measure
from runtime.actions import LogAction
from store.alerts import visits as visiting
from store.identity import organizations
from store.identity.organizations import Organization
from store.postgres.database import Connection, Database, DatabaseUnavailable, driver
from store.postgres.retries import repeated
from store.usage import routing_facts as facts

logger = logging.getLogger(__name__)


class _Look(NamedTuple):
    """What one visit looks at; alerts that are alike in it look at the same gauges."""

    measure: Measure
    groups: tuple[GroupSelector, ...]
    kind: ScopeKind
    subscription_id: str | None


async def look_at_customer(
    database: Database,
    organization: Organization,
    rules: Rules,
    customer_id: str,
    now: datetime,
    grace: timedelta,
    *,
    subscriptions_only: bool = False,
) -> None:
    """Evaluates alerts on usage for a customer that has just been changed, or on its subscriptions only.

    After that change was committed: to count anew what was used may take a while, and the change keeps all of the
    organization's ingest waiting. An event that comes in between does the work in passing, and so does the next one
    if this process dies now. Each visit is a transaction of its own, since two would lock gauges in no order.
    """

    async def find() -> list[str]:
        async with database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, organization.organization_id)
            router = await rules.router(connection, epoch)
            return await _concerned(
                connection,
                organization.organization_id,
                list(router.alerts.values()),
                customer_id,
                subscriptions_only,
            )

    async def visit(alert_id: str) -> None:
        async with database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, organization.organization_id)
            router = await rules.router(connection, epoch)
            rule = router.alerts.get(alert_id)
            if rule is not None:
                await visit_customers(connection, organization, router, rule, [customer_id], now, grace)

    for alert_id in await repeated(find):
        try:
            await repeated(functools.partial(visit, alert_id))
        except DatabaseUnavailable:
            raise
        except Exception:
            # The change is committed, and the other alerts do not wait for this one.
            logger.exception(
                "alert %s could not look at a customer that was changed; the customer's next event makes it do so",
                alert_id,
                extra={"action": LogAction.VISIT_FAILED, "alert_id": alert_id},
            )


async def _concerned(
    connection: Connection, organization_id: int, rules: list[AlertRule], customer_id: str, subscriptions_only: bool
) -> list[str]:
    """One alert for each look that is worth taking."""
    rules = [
        rule
        for rule in rules
        if not rule.measure.of_facts
        and (rule.measure.per_subscription or not subscriptions_only)
        and rule.scope.customer_id in (None, customer_id)
    ]
    if not rules or not await visiting.has_usage(connection, organization_id, customer_id):
        return []
    raw = await driver(connection)
    plans = {(False, one.plan_id) for one in await facts.customers(raw, organization_id, [customer_id])}
    plans |= {(True, one.plan_id) for one in await facts.subscriptions_of(raw, organization_id, [customer_id])}
    looks: dict[_Look, str] = {}
    for rule in rules:
        scope = rule.scope
        if scope.kind is not ScopeKind.PLAN or (rule.measure.per_subscription, scope.plan_id) in plans:
            look = _Look(rule.measure, rule.groups, scope.kind, scope.subscription_id)
            looks.setdefault(look, rule.alert_id)
    return list(looks.values())
