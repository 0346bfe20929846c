"""Creation of alerts, one or many in one change; and the keys that no two alerts of an organization can share."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alert_commands import NewAlert
from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definitions import (
    DEFAULT_CURRENCY,
    MAX_SPEND_ALERTS,
    AlertDefinition,
    Condition,
    DefinitionState,
    natural_key,
)
from store.alerts import history as alert_history
from store.alerts.backfills import FROM_THE_BEGINNING
from store.alerts.change import Begun, Change, ItemRefused, ItemsAlike
from store.alerts.history import ChangeKind
from store.alerts.rows import columns_of
from store.erasures import jobs as erasures
from store.erasures.jobs import CustomerBeingErased
from store.ids import random_id
from store.tables.accounts import customer, subscription
from store.tables.alerts import alert

ALERT_ID_PREFIX = "alt_"
WRITTEN_AT_ONCE = 100  # rows of one statement: the event loop serves other calls between two


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


async def create(change: Change, new: NewAlert) -> AlertDefinition:
    """Saves an alert, whose backfill is still to run if it is active.

    Raises AlertConflict, TooManyAlerts and CustomerBeingErased.
    """
    try:
        [created] = await create_many(change, [new])
    except ItemRefused as refused:
        raise refused.cause from None
    return created


async def create_many(change: Change, new: Sequence[NewAlert]) -> list[AlertDefinition]:
    """Saves several alerts, in the order of `new`.

    Raises ItemRefused with what `create` raises, or with ItemsAlike if two of the alerts have the same key.
    """
    begun = await change.begin()
    await _refuse_erased(change, new)
    conditions = await _with_currencies(change, new)
    made = [_first_version(one, condition, begun) for one, condition in zip(new, conditions, strict=True)]
    refuse_alike(dict(enumerate(made)))
    saved = set[str]()
    # ON CONFLICT without a target covers both unique indexes.
    statement = insert(alert).on_conflict_do_nothing().returning(alert.c.alert_id)
    for start in range(0, len(made), WRITTEN_AT_ONCE):
        rows = [
            {"organization_id": change.organization_id, **columns_of(definition)}
            for definition in made[start : start + WRITTEN_AT_ONCE]
        ]
        saved.update((await change.connection.execute(statement, rows)).scalars())
    for index, definition in enumerate(made):
        if definition.alert_id not in saved:
            raise ItemRefused(index, await conflict_of(change.connection, change.organization_id, definition))
    await _refuse_too_many(change, made)
    created = [(ChangeKind.CREATED, definition) for definition in made]
    await alert_history.record_many(change.connection, change.organization_id, created, change.author, begun.now)
    return made


async def _refuse_erased(change: Change, new: Sequence[NewAlert]) -> None:
    """Refuses alerts on customers that are being erased. Raises ItemRefused with CustomerBeingErased."""
    named = {one.scope.customer_id for one in new if one.scope.customer_id is not None}
    erased = await erasures.being_erased(change.connection, change.organization_id, named)
    for index, one in enumerate(new):
        if one.scope.customer_id is not None and one.scope.customer_id in erased:
            raise ItemRefused(index, CustomerBeingErased(one.scope.customer_id))


def refuse_alike(definitions: Mapping[int, AlertDefinition]) -> None:
    """Refuses two definitions of one change that have the same key. Raises ItemRefused with ItemsAlike.

    definitions: by the index of their item.
    """
    first: dict[tuple[UniqueBy, str], int] = {}
    for index, definition in definitions.items():
        for key, value in _keys(definition):
            if (other := first.setdefault((key, value), index)) != index:
                raise ItemRefused(index, ItemsAlike(other, key))


async def conflict_of(
    connection: AsyncConnection, organization_id: int, definition: AlertDefinition
) -> AlertConflict:
    """The conflict that kept a definition from being saved. The caller must hold the organization's lock."""
    found = await find_conflict(connection, organization_id, definition)
    if found is None:
        raise RuntimeError(f"{definition.alert_id} was not saved, but no other alert has its keys")
    return found


async def find_conflict(
    connection: AsyncConnection, organization_id: int, definition: AlertDefinition, moved: Collection[str] = ()
) -> AlertConflict | None:
    """The stored alert that has a key of the definition already; None if there is none.

    moved: the ids of alerts that give up their natural keys in the same change.
    """
    has_key: dict[UniqueBy, ColumnElement[bool]] = {
        UniqueBy.UNIQUENESS_KEY: and_(
            alert.c.uniqueness_key_held, alert.c.uniqueness_key == definition.uniqueness_key
        ),
        UniqueBy.NATURAL_KEY: and_(alert.c.natural_key == definition.natural_key, alert.c.alert_id.not_in(moved)),
    }
    for key, _ in _keys(definition):
        other = await connection.scalar(
            select(alert.c.alert_id).where(
                alert.c.organization_id == organization_id, alert.c.alert_id != definition.alert_id, has_key[key]
            )
        )
        if other is not None:
            return AlertConflict(key, other, definition.uniqueness_key)
    return None


def _keys(definition: AlertDefinition) -> list[tuple[UniqueBy, str]]:
    found = []
    if definition.uniqueness_key is not None and definition.uniqueness_key_held:
        found.append((UniqueBy.UNIQUENESS_KEY, definition.uniqueness_key))
    if definition.natural_key is not None:
        found.append((UniqueBy.NATURAL_KEY, definition.natural_key))
    return found


def _first_version(new: NewAlert, condition: Condition, begun: Begun) -> AlertDefinition:
    return AlertDefinition(
        alert_id=random_id(ALERT_ID_PREFIX),
        display_name=new.display_name,
        state=new.state,
        scope=new.scope,
        condition=condition,
        thresholds=new.thresholds,
        uniqueness_key=new.uniqueness_key,
        uniqueness_key_held=new.uniqueness_key is not None,
        natural_key=natural_key(new.scope, condition),
        evaluate_on_create=new.evaluate_on_create,
        version=1,
        changed_epoch=begun.epoch,
        watching_epoch=begun.epoch,
        watching_time=begun.now,
        backfill_after=FROM_THE_BEGINNING if new.state is DefinitionState.ACTIVE else None,
        create_time=begun.now,
        update_time=begun.now,
        create_epoch=begun.epoch,
        labels=new.labels,
    )


async def _with_currencies(change: Change, new: Sequence[NewAlert]) -> list[Condition]:
    """The conditions with a currency: their own, or else their subscription's, their customer's, or USD.

    The currency is fixed here: if it followed the customer, thresholds in dollars would be compared with euros.
    """
    scopes = [one.scope for one in new if _lacks_currency(one)]
    pairs = {(scope.customer_id, scope.subscription_id) for scope in scopes if scope.subscription_id is not None}
    customer_ids = {scope.customer_id for scope in scopes if scope.customer_id is not None}
    of_subscriptions, of_customers = dict[tuple[str, str], str | None](), dict[str, str | None]()
    if pairs:
        rows = await change.connection.execute(
            select(subscription.c.customer_id, subscription.c.subscription_id, subscription.c.currency).where(
                subscription.c.organization_id == change.organization_id,
                tuple_(subscription.c.customer_id, subscription.c.subscription_id).in_(pairs),
            )
        )
        of_subscriptions = {(row.customer_id, row.subscription_id): row.currency for row in rows}
    if customer_ids:
        rows = await change.connection.execute(
            select(customer.c.customer_id, customer.c.currency).where(
                customer.c.organization_id == change.organization_id,
                customer.c.customer_id.in_(customer_ids),
            )
        )
        of_customers = {row.customer_id: row.currency for row in rows}

    def currency_of(scope: Scope) -> str:
        own = of_subscriptions.get((scope.customer_id or "", scope.subscription_id or ""))
        return own or of_customers.get(scope.customer_id or "") or DEFAULT_CURRENCY

    return [
        replace(one.condition, currency=currency_of(one.scope)) if _lacks_currency(one) else one.condition
        for one in new
    ]


def _lacks_currency(new: NewAlert) -> bool:
    return new.condition.condition_type is ConditionType.COST_EXCEEDED and new.condition.currency is None


async def _refuse_too_many(change: Change, made: Sequence[AlertDefinition]) -> None:
    """Refuses alerts on cost above the maximum of a subscription or plan. Raises ItemRefused with TooManyAlerts."""
    on_cost = {
        _target(definition): index
        for index, definition in enumerate(made)
        if definition.condition.condition_type in (ConditionType.COST_EXCEEDED, ConditionType.SPEND_EXCEEDED)
    }
    if not on_cost:
        return
    columns = [func.coalesce(column, "") for column in _TARGET]
    rows = await change.connection.execute(
        select(*(column.label(f"target_{number}") for number, column in enumerate(columns)))
        .where(
            alert.c.organization_id == change.organization_id,
            alert.c.state != DefinitionState.ARCHIVED,
            tuple_(*columns).in_(list(on_cost)),
        )
        .group_by(*columns)
        .having(func.count() > MAX_SPEND_ALERTS)
    )
    over = [on_cost[tuple(row)] for row in rows]
    if over:
        index = min(over)
        raise ItemRefused(index, TooManyAlerts(made[index].scope.kind))


_TARGET = (alert.c.condition_type, alert.c.scope, alert.c.plan_id, alert.c.customer_id, alert.c.subscription_id)


def _target(definition: AlertDefinition) -> tuple[str, ...]:
    scope, condition_type = definition.scope, definition.condition.condition_type
    return (
        condition_type.value,
        scope.kind.value,
        scope.plan_id or "",
        scope.customer_id or "",
        scope.subscription_id or "",
    )
