"""Alert definitions: create, get and list, and the reads of the registry of rules.

`store.alerts.changes` changes them.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from psycopg.rows import dict_row
from sqlalchemy import ARRAY, ColumnElement, and_, any_, cast, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alert_commands import NewAlert
from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.balances import Unit
from evaluator.definitions import (
    DEFAULT_CURRENCY,
    MAX_SPEND_ALERTS,
    AlertDefinition,
    Condition,
    DefinitionState,
    natural_key,
)
from runtime.clock import Clock
from runtime.turns import Slices
from store.alerts import history as alert_history
from store.alerts.backfills import FROM_THE_BEGINNING
from store.alerts.history import Author, ChangeKind
from store.alerts.rows import columns_of, definition_of
from store.identity import organizations
from store.ids import random_id
from store.postgres.database import driver
from store.tables.accounts import customer, subscription
from store.tables.alerts import alert
from store.tables.base import Identifier

ALERT_ID_PREFIX = "alt_"
DECODED_AT_ONCE = 50  # rows that the driver decodes without a pause

# The columns by name: a prepared `SELECT *` fails once a migration has added one.
_CHANGED_SINCE = (
    f"SELECT {', '.join(column.name for column in alert.c)} FROM alert"
    " WHERE organization_id = %s AND changed_epoch > %s"
).encode()


class UniqueBy(StrEnum):
    """The key that two alerts of an organization cannot have at the same time."""

    UNIQUENESS_KEY = "UNIQUENESS_KEY"
    NATURAL_KEY = "NATURAL_KEY"


class AlertConflict(Exception):
    """The alert `alert_id` has the key already that the new or changed alert needs.

    uniqueness_key: of the new or changed alert.
    """

    def __init__(self, key: UniqueBy, alert_id: str, uniqueness_key: str | None) -> None:
        super().__init__(f"{alert_id} has the same {key}")
        self.key = key
        self.alert_id = alert_id
        self.uniqueness_key = uniqueness_key


class TooManyAlerts(Exception):
    """The subscription, or the plan, has MAX_SPEND_ALERTS alerts of that type already."""

    def __init__(self, scope: ScopeKind) -> None:
        super().__init__(scope)
        self.scope = scope


@dataclass(frozen=True)
class Filters:
    """Which alerts to list: those that match every field that is set. An empty tuple is not set."""

    customer_id: str | None = None
    plan_id: str | None = None
    subscription_id: str | None = None
    uniqueness_key: str | None = None
    condition_types: tuple[str, ...] = ()
    states: tuple[DefinitionState, ...] = ()


async def create(
    connection: AsyncConnection, organization_id: int, new: NewAlert, author: Author, clock: Clock
) -> AlertDefinition:
    """Saves an active alert, whose backfill is still to run. Locks the organization until the transaction ends.

    Raises AlertConflict and TooManyAlerts.
    """
    epoch = await organizations.begin_change(connection, organization_id)
    # Read the clock under the lock: the alert did not watch the events that came in while this waited for it.
    now = clock.now()
    condition = await _with_currency(connection, organization_id, new.scope, new.condition)
    definition = _first_version(new, condition, epoch, now)
    values = {"organization_id": organization_id, **columns_of(definition)}
    # ON CONFLICT without a target covers both unique indexes.
    statement = insert(alert).values(values).on_conflict_do_nothing().returning(alert.c.alert_id)
    if await connection.scalar(statement) is None:
        raise await conflict_of(connection, organization_id, definition)
    if condition.condition_type in (ConditionType.COST_EXCEEDED, ConditionType.SPEND_EXCEEDED):
        alike = await _count_alike(connection, organization_id, definition)
        if alike > MAX_SPEND_ALERTS:
            raise TooManyAlerts(new.scope.kind)
    await alert_history.record(connection, organization_id, ChangeKind.CREATED, definition, author, now)
    return definition


def _first_version(new: NewAlert, condition: Condition, epoch: int, now: datetime) -> AlertDefinition:
    return AlertDefinition(
        alert_id=random_id(ALERT_ID_PREFIX),
        display_name=new.display_name,
        state=DefinitionState.ACTIVE,
        scope=new.scope,
        condition=condition,
        thresholds=new.thresholds,
        uniqueness_key=new.uniqueness_key,
        uniqueness_key_held=new.uniqueness_key is not None,
        natural_key=natural_key(new.scope, condition),
        evaluate_on_create=new.evaluate_on_create,
        version=1,
        changed_epoch=epoch,
        watching_epoch=epoch,
        watching_time=now,
        backfill_after=FROM_THE_BEGINNING,
        create_time=now,
        update_time=now,
        create_epoch=epoch,
    )


async def get(connection: AsyncConnection, organization_id: int, alert_id: str) -> AlertDefinition | None:
    """The alert of that id, archived or not; None when the organization has none."""
    found = await connection.execute(
        select(alert).where(alert.c.organization_id == organization_id, alert.c.alert_id == alert_id)
    )
    row = found.mappings().one_or_none()
    return None if row is None else definition_of(row)


async def get_many(
    connection: AsyncConnection, organization_id: int, alert_ids: Collection[str]
) -> dict[str, AlertDefinition]:
    """The alerts with these ids, by id; ids of no alert are left out."""
    found = await connection.execute(
        select(alert).where(
            alert.c.organization_id == organization_id,
            alert.c.alert_id == any_(cast(list(alert_ids), ARRAY(Identifier))),
        )
    )
    return {row["alert_id"]: definition_of(row) for row in found.mappings()}


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    filters: Filters,
    *,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[AlertDefinition]:
    """Up to `limit` alerts, oldest first; `after` is the create_time and id of the last one seen."""
    statement = (
        select(alert)
        .where(alert.c.organization_id == organization_id, *_matches(filters))
        .order_by(alert.c.create_time, alert.c.alert_id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tuple_(alert.c.create_time, alert.c.alert_id) > tuple_(*after))
    return [definition_of(row) for row in (await connection.execute(statement)).mappings()]


async def changed_since(connection: AsyncConnection, organization_id: int, epoch: int) -> list[AlertDefinition]:
    """The alerts in any state whose last change is newer than `epoch`; epoch 0: all alerts."""
    found, slices = list[AlertDefinition](), Slices(organization_id)
    # SQLAlchemy would decode all rows without a pause. With very many alerts that would block the event loop.
    async with (await driver(connection)).cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_CHANGED_SINCE, (organization_id, epoch))
        while rows := await cursor.fetchmany(DECODED_AT_ONCE):
            await slices.begin()
            for row in rows:
                found.append(definition_of(row))
                await slices.pause()
    return found


async def active_of_unit(connection: AsyncConnection, organization_id: int, unit: Unit) -> list[AlertDefinition]:
    """The active alerts that measure a metric, or something in a currency."""
    name, value = ("currency", unit.currency) if unit.metric_id is None else ("metric_id", unit.metric_id)
    rows = await connection.execute(
        select(alert).where(
            alert.c.organization_id == organization_id,
            alert.c.state == DefinitionState.ACTIVE,
            alert.c.condition[name].astext == value,
        )
    )
    return [definition_of(row) for row in rows.mappings()]


def _matches(filters: Filters) -> list[ColumnElement[bool]]:
    wanted = [
        (alert.c.customer_id, filters.customer_id),
        (alert.c.plan_id, filters.plan_id),
        (alert.c.subscription_id, filters.subscription_id),
        (alert.c.uniqueness_key, filters.uniqueness_key),
    ]
    conditions = [column == value for column, value in wanted if value is not None]
    if filters.condition_types:
        conditions.append(alert.c.condition_type.in_(filters.condition_types))
    if filters.states:
        conditions.append(alert.c.state.in_(filters.states))
    return conditions


async def _with_currency(
    connection: AsyncConnection, organization_id: int, scope: Scope, condition: Condition
) -> Condition:
    """The condition with a currency: its own, or else its subscription's, its customer's, or USD.

    The currency is fixed here: if it followed the customer, thresholds in dollars would be compared with euros.
    """
    if condition.condition_type is not ConditionType.COST_EXCEEDED or condition.currency is not None:
        return condition
    currency: str | None = None
    if scope.kind is ScopeKind.SUBSCRIPTION:
        currency = await connection.scalar(
            select(subscription.c.currency).where(
                subscription.c.organization_id == organization_id,
                subscription.c.customer_id == scope.customer_id,
                subscription.c.subscription_id == scope.subscription_id,
            )
        )
    if currency is None and scope.customer_id is not None:
        currency = await connection.scalar(
            select(customer.c.currency).where(
                customer.c.organization_id == organization_id, customer.c.customer_id == scope.customer_id
            )
        )
    return replace(condition, currency=currency or DEFAULT_CURRENCY)


async def conflict_of(
    connection: AsyncConnection, organization_id: int, definition: AlertDefinition
) -> AlertConflict:
    """The conflict that kept a definition from being saved. The caller must hold the organization's lock."""
    keys = (
        (
            UniqueBy.UNIQUENESS_KEY,
            and_(alert.c.uniqueness_key_held, alert.c.uniqueness_key == definition.uniqueness_key),
        ),
        (UniqueBy.NATURAL_KEY, alert.c.natural_key == definition.natural_key),
    )
    for key, is_equal in keys:
        other = await connection.scalar(
            select(alert.c.alert_id).where(
                alert.c.organization_id == organization_id, alert.c.alert_id != definition.alert_id, is_equal
            )
        )
        if other is not None:
            return AlertConflict(key, other, definition.uniqueness_key)
    raise RuntimeError(f"{definition.alert_id} was not saved, but no other alert has its keys")


async def _count_alike(connection: AsyncConnection, organization_id: int, definition: AlertDefinition) -> int:
    """How many alerts of the same type and scope are not archived."""
    scope = definition.scope
    found = await connection.scalar(
        select(func.count())
        .select_from(alert)
        .where(
            alert.c.organization_id == organization_id,
            alert.c.condition_type == definition.condition.condition_type,
            alert.c.scope == scope.kind,
            alert.c.plan_id.is_not_distinct_from(scope.plan_id),
            alert.c.customer_id.is_not_distinct_from(scope.customer_id),
            alert.c.subscription_id.is_not_distinct_from(scope.subscription_id),
            alert.c.state != DefinitionState.ARCHIVED,
        )
    )
    return int(found or 0)
