"""Creation of alerts, one or many in one change; and the keys that no two alerts of an organization can share."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

import orjson
from sqlalchemy import ARRAY, ColumnElement, and_, any_, cast, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alert_commands import NewAlert
from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definition_json import version_json
from evaluator.definitions import DEFAULT_CURRENCY, AlertDefinition, DefinitionState, natural_key
from store.alerts.backfills import FROM_THE_BEGINNING
from store.alerts.change import Begun, Change, ItemRefused, ItemsAlike
from store.alerts.history import Author, ChangeKind
from store.alerts.rows import columns_of
from store.erasures import jobs as erasures
from store.erasures.jobs import CustomerBeingErased
from store.ids import random_id
from store.postgres.database import driver
from store.tables.accounts import customer, subscription
from store.tables.alerts import alert
from store.tables.base import Identifier

ALERT_ID_PREFIX = "alt_"
_NOT_BEGUN = Begun(0, datetime.min.replace(tzinfo=UTC))


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
    """The subscription, or the plan, has the most alerts of that type already that it can have."""

    def __init__(self, scope: ScopeKind, maximum: int) -> None:
        super().__init__(scope, maximum)
        self.scope = scope
        self.maximum = maximum


@dataclass(frozen=True, slots=True)
class Draft:
    """A new alert, with all of its row that is known before the lock.

    definition: without epoch, times, and the currency that comes from the scope. row: the columns that all versions
    of it need, and its entry in the history, as JSON.
    """

    definition: AlertDefinition
    author: Author
    row: bytes

    @property
    def lacks_currency(self) -> bool:
        """Whether the condition's currency comes from the scope."""
        condition = self.definition.condition
        return condition.condition_type is ConditionType.COST_EXCEEDED and condition.currency is None

    def with_currency(self, currency: str) -> "Draft":
        """The draft of the alert with a currency."""
        condition = replace(self.definition.condition, currency=currency)
        key = natural_key(self.definition.scope, condition)
        return _draft_of(replace(self.definition, condition=condition, natural_key=key), self.author)

    def begun(self, begun: Begun) -> AlertDefinition:
        """The definition that the change creates."""
        return replace(
            self.definition,
            changed_epoch=begun.epoch,
            watching_epoch=begun.epoch,
            watching_time=begun.now,
            create_time=begun.now,
            update_time=begun.now,
            create_epoch=begun.epoch,
        )


def draft(new: NewAlert, author: Author) -> Draft:
    """The draft of a new alert, by which it can be created once."""
    return _draft_of(_first_version(new), author)


def _draft_of(definition: AlertDefinition, author: Author) -> Draft:
    columns = columns_of(definition)
    row = {name: columns[name] for name in _OF_ROW}
    row["key_id"] = author.key_id
    row["document"] = version_json(definition)
    return Draft(definition, author, orjson.dumps(row))


async def create(change: Change, new: NewAlert) -> AlertDefinition:
    """Saves an alert, whose backfill is still to run if it is active.

    Raises AlertConflict, TooManyAlerts and CustomerBeingErased.
    """
    try:
        [created] = await create_many(change, [draft(new, change.author)])
    except ItemRefused as refused:
        raise refused.cause from None
    return created


async def create_many(change: Change, drafts: Sequence[Draft]) -> list[AlertDefinition]:
    """Saves several alerts, in their order, all or none.

    Raises ItemRefused with what `create` raises, or with ItemsAlike if two of the alerts have the same key.
    """
    begun = await change.begin()
    drafts = await _with_currencies(change.connection, change.organization_id, drafts)
    refuse_alike({index: one.definition for index, one in enumerate(drafts)})
    saved = await _save(change.connection, change.organization_id, drafts, begun)
    if len(saved) < len(drafts):
        refused = {index: one for index, one in enumerate(drafts) if one.definition.alert_id not in saved}
        index = min(refused)
        raise ItemRefused(index, (await _refusals(change.connection, change.organization_id, refused))[index])
    maximum = change.max_spend_alerts
    over = await _above_maximum(change.connection, change.organization_id, drafts, maximum)
    if over:
        raise ItemRefused(min(over), TooManyAlerts(drafts[min(over)].definition.scope.kind, maximum))
    return [one.begun(begun) for one in drafts]


async def create_each(
    connection: AsyncConnection, organization_id: int, drafts: Sequence[Draft], begun: Begun, max_spend_alerts: int
) -> list[AlertDefinition | Exception]:
    """Saves those of several alerts that can be saved, each as if the ones before it had been created before it.

    Returns, for each, the alert or what `create` raises. Raises TooManyAlerts if that concerns any of several alerts,
    of which some may be saved: roll back, and create them one by one.
    """
    drafts = await _with_currencies(connection, organization_id, drafts)
    saved = await _save(connection, organization_id, drafts, begun)
    refused = {index: one for index, one in enumerate(drafts) if one.definition.alert_id not in saved}
    refusals = await _refusals(connection, organization_id, refused) if refused else {}
    made = [one for index, one in enumerate(drafts) if index not in refused]
    over = await _above_maximum(connection, organization_id, made, max_spend_alerts)
    if over:
        raise TooManyAlerts(made[min(over)].definition.scope.kind, max_spend_alerts)
    return [refusals[index] if index in refusals else one.begun(begun) for index, one in enumerate(drafts)]


# Columns whose values do not depend on the change, with their types.
_OF_ROW = {
    "alert_id": "text",
    "name": "text",
    "state": "text",
    "scope": "text",
    "plan_id": "text",
    "customer_id": "text",
    "subscription_id": "text",
    "condition_type": "text",
    "condition": "jsonb",
    "thresholds": "jsonb",
    "uniqueness_key": "text",
    "uniqueness_key_held": "boolean",
    "natural_key": "text",
    "evaluate_on_create": "boolean",
    "version": "bigint",
    "visit_after": "text",
    "labels": "jsonb",
}

# Inserts alerts and the history of those that are saved; returns their ids. Left out are those whose key another
# alert has (ON CONFLICT without a target covers both unique indexes), and those of customers that are being erased.
# One JSON text for all rows: the statement is the same for every number of rows, so it is planned once.
_SAVE = f"""
WITH wanted AS (
    SELECT * FROM json_to_recordset(%(rows)s::json) AS wanted (
        {", ".join(f"{name} {kind}" for name, kind in _OF_ROW.items())}, key_id text, document jsonb
    )
), saved AS (
    INSERT INTO alert (
        organization_id, {", ".join(_OF_ROW)}, changed_epoch, watching_epoch, create_epoch, watching_time,
        create_time, update_time
    )
    SELECT %(organization_id)s, {", ".join(_OF_ROW)}, %(epoch)s, %(epoch)s, %(epoch)s, %(now)s, %(now)s, %(now)s
    FROM wanted
    WHERE customer_id IS NULL OR NOT EXISTS (
        SELECT FROM erasure_job
        WHERE erasure_job.organization_id = %(organization_id)s AND erasure_job.customer_id = wanted.customer_id
    )
    ON CONFLICT DO NOTHING
    RETURNING alert_id
), noted AS (
    INSERT INTO alert_change (organization_id, alert_id, kind, version, key_id, definition, change_time)
    SELECT %(organization_id)s, alert_id, %(kind)s, version, key_id, document, %(now)s
    FROM wanted JOIN saved USING (alert_id)
)
SELECT alert_id FROM saved
""".encode()


async def _save(connection: AsyncConnection, organization_id: int, drafts: Sequence[Draft], begun: Begun) -> set[str]:
    """Inserts the alerts that can be inserted; returns their ids."""
    cursor = await (await driver(connection)).execute(
        _SAVE,
        {
            "rows": (b"[" + b",".join(one.row for one in drafts) + b"]").decode(),
            "organization_id": organization_id,
            "epoch": begun.epoch,
            "now": begun.now,
            "kind": ChangeKind.CREATED.value,
        },
    )
    return {row[0] for row in await cursor.fetchall()}


async def _refusals(
    connection: AsyncConnection, organization_id: int, refused: Mapping[int, Draft]
) -> dict[int, Exception]:
    """Why these alerts were not saved, in few queries for all. The transaction holds the organization's lock."""
    scopes = [one.definition.scope for one in refused.values()]
    named = {scope.customer_id for scope in scopes if scope.customer_id is not None}
    erased = await erasures.being_erased(connection, organization_id, named)
    holders = await _holders(connection, organization_id, [one.definition for one in refused.values()])
    found = dict[int, Exception]()
    for index, one in refused.items():
        definition = one.definition
        customer_id = definition.scope.customer_id
        if customer_id in erased and customer_id is not None:
            found[index] = CustomerBeingErased(customer_id)
            continue
        held = next((key for key in _keys(definition) if key in holders), None)
        if held is None:
            raise RuntimeError(f"{definition.alert_id} was not saved, but no other alert has its keys")
        found[index] = AlertConflict(held[0], holders[held], definition.uniqueness_key)
    return found


async def _holders(
    connection: AsyncConnection, organization_id: int, definitions: Sequence[AlertDefinition]
) -> dict[tuple[UniqueBy, str], str]:
    """The alerts that have keys of the definitions, by key."""
    keys = [key for definition in definitions for key in _keys(definition)]
    columns = {
        UniqueBy.UNIQUENESS_KEY: (alert.c.uniqueness_key, alert.c.uniqueness_key_held),
        UniqueBy.NATURAL_KEY: (alert.c.natural_key, alert.c.natural_key.is_not(None)),
    }
    found = dict[tuple[UniqueBy, str], str]()
    for kind, (column, is_held) in columns.items():
        values = [value for of, value in keys if of is kind]
        if values:
            rows = await connection.execute(
                select(column, alert.c.alert_id).where(
                    alert.c.organization_id == organization_id,
                    is_held,
                    column == any_(cast(values, ARRAY(Identifier))),
                )
            )
            found |= {(kind, value): alert_id for value, alert_id in rows}
    return found


def refuse_alike(definitions: Mapping[int, AlertDefinition]) -> None:
    """Refuses two definitions of one change that have the same key. Raises ItemRefused with ItemsAlike.

    definitions: by the index of their item.
    """
    first: dict[tuple[UniqueBy, str], int] = {}
    for index, definition in definitions.items():
        for key, value in _keys(definition):
            if (other := first.setdefault((key, value), index)) != index:
                raise ItemRefused(index, ItemsAlike(other, key))


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


def _first_version(new: NewAlert) -> AlertDefinition:
    """The definition as far as it is known before the change begins."""
    return AlertDefinition(
        alert_id=random_id(ALERT_ID_PREFIX),
        display_name=new.display_name,
        state=new.state,
        scope=new.scope,
        condition=new.condition,
        thresholds=new.thresholds,
        uniqueness_key=new.uniqueness_key,
        uniqueness_key_held=new.uniqueness_key is not None,
        natural_key=natural_key(new.scope, new.condition),
        evaluate_on_create=new.evaluate_on_create,
        version=1,
        changed_epoch=_NOT_BEGUN.epoch,
        watching_epoch=_NOT_BEGUN.epoch,
        watching_time=_NOT_BEGUN.now,
        backfill_after=FROM_THE_BEGINNING if new.state is DefinitionState.ACTIVE else None,
        create_time=_NOT_BEGUN.now,
        update_time=_NOT_BEGUN.now,
        create_epoch=_NOT_BEGUN.epoch,
        labels=new.labels,
    )


async def _with_currencies(
    connection: AsyncConnection, organization_id: int, drafts: Sequence[Draft]
) -> Sequence[Draft]:
    """The drafts with a currency: their own, or else their subscription's, their customer's, or USD.

    The currency is fixed here: if it followed the customer, thresholds in dollars would be compared with euros.
    """
    scopes = [one.definition.scope for one in drafts if one.lacks_currency]
    if not scopes:
        return drafts
    pairs = {(scope.customer_id, scope.subscription_id) for scope in scopes if scope.subscription_id is not None}
    customer_ids = {scope.customer_id for scope in scopes if scope.customer_id is not None}
    of_subscriptions, of_customers = dict[tuple[str, str], str | None](), dict[str, str | None]()
    if pairs:
        rows = await connection.execute(
            select(subscription.c.customer_id, subscription.c.subscription_id, subscription.c.currency).where(
                subscription.c.organization_id == organization_id,
                tuple_(subscription.c.customer_id, subscription.c.subscription_id).in_(pairs),
            )
        )
        of_subscriptions = {(row.customer_id, row.subscription_id): row.currency for row in rows}
    if customer_ids:
        rows = await connection.execute(
            select(customer.c.customer_id, customer.c.currency).where(
                customer.c.organization_id == organization_id, customer.c.customer_id.in_(customer_ids)
            )
        )
        of_customers = {row.customer_id: row.currency for row in rows}

    def currency_of(scope: Scope) -> str:
        own = of_subscriptions.get((scope.customer_id or "", scope.subscription_id or ""))
        return own or of_customers.get(scope.customer_id or "") or DEFAULT_CURRENCY

    return [one.with_currency(currency_of(one.definition.scope)) if one.lacks_currency else one for one in drafts]


async def _above_maximum(
    connection: AsyncConnection, organization_id: int, made: Sequence[Draft], maximum: int
) -> list[int]:
    """The indexes of the last alerts on cost that exceed the maximum of a subscription or plan."""
    on_cost = {
        _target(one.definition): index
        for index, one in enumerate(made)
        if one.definition.condition.condition_type in (ConditionType.COST_EXCEEDED, ConditionType.SPEND_EXCEEDED)
    }
    if not on_cost:
        return []
    columns = [func.coalesce(column, "") for column in _TARGET]
    scopes = [made[index].definition.scope for index in on_cost.values()]
    rows = await connection.execute(
        select(*(column.label(f"target_{number}") for number, column in enumerate(columns)))
        .where(
            alert.c.organization_id == organization_id,
            alert.c.state != DefinitionState.ARCHIVED,
            # These two have indexes.
            or_(
                alert.c.customer_id.in_({scope.customer_id for scope in scopes if scope.customer_id is not None}),
                alert.c.plan_id.in_({scope.plan_id for scope in scopes if scope.plan_id is not None}),
            ),
            tuple_(*columns).in_(list(on_cost)),
        )
        .group_by(*columns)
        .having(func.count() > maximum)
    )
    return [on_cost[tuple(row)] for row in rows]


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
