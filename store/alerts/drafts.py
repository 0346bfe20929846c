"""Drafts of alerts: what is known of a new alert before its change begins, and the currency that it gets then."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import orjson
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alert_commands import NewAlert
from evaluator.alerts import ConditionType, Scope
from evaluator.definition_json import version_json
from evaluator.definitions import DEFAULT_CURRENCY, AlertDefinition, DefinitionState, natural_key
from evaluator.gauges import Measure
from store.alerts.backfills import FROM_THE_BEGINNING
from store.alerts.change import Begun
from store.alerts.history import Author
from store.alerts.quiet_at_creation import quiet_columns, simple_rule
from store.alerts.rows import columns_of
from store.ids import random_id
from store.tables.accounts import customer, subscription

ALERT_ID_PREFIX = "alt_"
_NOT_BEGUN = Begun(0, datetime.min.replace(tzinfo=UTC))

# Columns whose values do not depend on the change, with their types.
ROW_COLUMNS = {
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


@dataclass(frozen=True, slots=True)
class Draft:
    """A new alert, with all of its row that is known before the lock.

    definition: without epoch, times, and the currency that comes from the scope. row: the columns that all versions
    of it need, what decides whether it is quiet, and its entry in the history, as JSON. measure: if it may be quiet.
    """

    definition: AlertDefinition
    author: Author
    row: bytes
    measure: Measure | None

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

    def begun(self, begun: Begun, *, complete: bool) -> AlertDefinition:
        """The definition that the change creates. complete: it needs no backfill."""
        return replace(
            self.definition,
            backfill_after=None if complete else self.definition.backfill_after,
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
    row = {name: columns[name] for name in ROW_COLUMNS}
    rule = simple_rule(definition)
    row |= quiet_columns(rule)
    row["key_id"] = author.key_id
    row["document"] = version_json(definition)
    return Draft(definition, author, orjson.dumps(row), None if rule is None else rule.measure)


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


async def with_currencies(
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
