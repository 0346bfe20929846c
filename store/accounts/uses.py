"""What uses a metric, a plan or a subscription, so that it cannot be deleted."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, ColumnElement, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import DefinitionState
from store.postgres.database import driver
from store.postgres.distributed import on_cluster
from store.tables import event_key
from store.tables.accounts import customer, subscription
from store.tables.alerts import alert
from store.tables.balances import balance
from store.tables.plans import usage_limit


class UserKind(StrEnum):
    """What uses a fact."""

    ALERT = "ALERT"
    BALANCE = "BALANCE"
    CUSTOMER = "CUSTOMER"
    LIMIT = "LIMIT"
    SUBSCRIPTION = "SUBSCRIPTION"
    USAGE = "USAGE"


@dataclass(frozen=True)
class User:
    """One of those that use a fact. user_id: None for usage."""

    kind: UserKind
    user_id: str | None = None


class FactInUse(Exception):
    """The fact cannot be deleted. ids: of the fact, by the names of their fields."""

    def __init__(self, ids: Mapping[str, str], user: User) -> None:
        super().__init__(ids, user)
        self.ids = ids
        self.user = user


async def of_metric(
    connection: AsyncConnection, organization_id: int, metric_id: str, *, since: int = -1
) -> User | None:
    """An alert that is not archived, a limit, or a balance of the metric; None if there is none.

    since: leaves out alerts and limits that did not change after this epoch.
    """
    measures = alert.c.condition["metric_id"].astext == metric_id
    return (
        await _alert(connection, organization_id, measures, alert.c.changed_epoch > since)
        or await _first(
            connection,
            UserKind.LIMIT,
            usage_limit.c.limit_id,
            usage_limit.c.organization_id == organization_id,
            usage_limit.c.metric_id == metric_id,
            usage_limit.c.deleted.is_(False),
        )
        or await _first(
            connection,
            UserKind.BALANCE,
            balance.c.balance_id,
            balance.c.organization_id == organization_id,
            balance.c.metric_id == metric_id,
            balance.c.void_time.is_(None),
        )
    )


async def of_subscription(
    connection: AsyncConnection, organization_id: int, customer_id: str, subscription_id: str, *, since: int = -1
) -> User | None:
    """An alert on the subscription that is not archived; None if there is none. since: see `of_metric`."""
    return await _alert(
        connection,
        organization_id,
        alert.c.customer_id == customer_id,
        alert.c.subscription_id == subscription_id,
        alert.c.changed_epoch > since,
    )


async def of_plan(connection: AsyncConnection, organization_id: int, plan_id: str) -> User | None:
    """A customer or subscription on the plan, an alert on it that is not archived, or a limit; None without any."""
    return (
        await _first(
            connection,
            UserKind.CUSTOMER,
            customer.c.customer_id,
            customer.c.organization_id == organization_id,
            customer.c.plan_id == plan_id,
        )
        or await _first(
            connection,
            UserKind.SUBSCRIPTION,
            subscription.c.subscription_id,
            subscription.c.organization_id == organization_id,
            subscription.c.plan_id == plan_id,
        )
        or await _alert(connection, organization_id, alert.c.plan_id == plan_id)
        or await _first(
            connection,
            UserKind.LIMIT,
            usage_limit.c.limit_id,
            usage_limit.c.organization_id == organization_id,
            usage_limit.c.plan_id == plan_id,
            usage_limit.c.deleted.is_(False),
        )
    )


_OF_SUBSCRIPTION = text(f"""
SELECT 1 FROM event e
WHERE {event_key.of_customer(":organization_id", ":customer_id")} AND e.subscription_id = :subscription_id
LIMIT 1
""")

# Customer by customer: no index has the events of an organization together. Every event has registered its customer.
_OF_METRIC = text(f"""
SELECT 1 FROM customer c, LATERAL (
    SELECT 1 FROM event e
    WHERE {event_key.of_customer("c.organization_id", "c.customer_id")} AND e.metric_id = :metric_id
    LIMIT 1
) AS e
WHERE c.organization_id = :organization_id
LIMIT 1
""")
_OF_METRIC_JOINED = text("""
SELECT 1 FROM customer c JOIN event e ON e.organization_id = c.organization_id AND e.customer_id = c.customer_id
WHERE c.organization_id = :organization_id AND e.metric_id = :metric_id
LIMIT 1
""")


async def subscription_by_usage(
    connection: AsyncConnection, organization_id: int, *, customer_id: str, subscription_id: str
) -> bool:
    """Whether an event of the subscription is stored. Reads events of the customer until it finds one."""
    found = await connection.scalar(
        _OF_SUBSCRIPTION,
        {"organization_id": organization_id, "customer_id": customer_id, "subscription_id": subscription_id},
    )
    return found is not None


async def metric_by_usage(connection: AsyncConnection, organization_id: int, metric_id: str) -> bool:
    """Whether an event of the metric is stored. Reads events of the organization until it finds one."""
    parameters = {"organization_id": organization_id, "metric_id": metric_id}
    statement = _OF_METRIC_JOINED if on_cluster(await driver(connection)) else _OF_METRIC
    return await connection.scalar(statement, parameters) is not None


async def _alert(connection: AsyncConnection, organization_id: int, *conditions: ColumnElement[bool]) -> User | None:
    """The first such alert by its display name."""
    active = alert.c.organization_id == organization_id, alert.c.state != DefinitionState.ARCHIVED.value
    by_name = alert.c.name, alert.c.alert_id
    found = await connection.scalar(select(alert.c.alert_id).where(*active, *conditions).order_by(*by_name).limit(1))
    return None if found is None else User(UserKind.ALERT, found)


async def _first(
    connection: AsyncConnection, kind: UserKind, column: Column[Any], *conditions: ColumnElement[bool]
) -> User | None:
    """The first such fact by its id."""
    found = await connection.scalar(select(column).where(*conditions).order_by(column).limit(1))
    return None if found is None else User(kind, found)
