"""Alerts of an organization, written to the store without a server."""

from decimal import Decimal

import pytest

from evaluator.alert_commands import NewAlert
from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definitions import AlertDefinition, Condition
from evaluator.thresholds import Threshold
from runtime.clock import Clock
from store.alerts import changes, creation
from store.alerts.change import Begun, Change
from store.alerts.changes import Edit
from store.alerts.drafts import draft
from store.alerts.history import Author
from store.identity import organizations
from store.postgres.database import Connection, Database, driver
from store.rules import routing_facts

NEW_ALERT = NewAlert(
    display_name="tokens",
    scope=Scope(ScopeKind.ALL_CUSTOMERS),
    condition=Condition(ConditionType.USAGE_THRESHOLD_REACHED, metric_id="tokens"),
    thresholds=(Threshold(Decimal(10)),),
    uniqueness_key=None,
    evaluate_on_create=True,
)


@pytest.fixture
async def organization_id(database: Database, clock: Clock) -> int:
    """An organization with the customer `acme`."""
    now = clock.now()
    async with database.transaction() as connection:
        organization_id = await organizations.get_or_create(connection, "ours", now)
        epoch = await organizations.begin_change(connection, organization_id)
        await routing_facts.register_customers(await driver(connection), organization_id, ["acme"], epoch, now)
    return organization_id


async def begin(connection: Connection, organization_id: int, clock: Clock) -> Change:
    """A change of definitions, in a transaction of its own."""
    epoch = await organizations.begin_change(connection, organization_id)
    return Change(connection, organization_id, Author(), Begun(epoch, clock.now()))


async def create(connection: Connection, organization_id: int, clock: Clock, new: NewAlert) -> AlertDefinition:
    """Creates an alert in a transaction."""
    [created] = await creation.create_many(await begin(connection, organization_id, clock), [draft(new, Author())])
    return created


async def create_alert(
    database: Database, organization_id: int, clock: Clock, new: NewAlert = NEW_ALERT
) -> AlertDefinition:
    """Creates an alert."""
    async with database.transaction() as connection:
        return await create(connection, organization_id, clock, new)


async def edit(connection: Connection, organization_id: int, clock: Clock, wanted: Edit) -> AlertDefinition:
    """Edits an alert in a transaction."""
    [edited] = await changes.edit_many(await begin(connection, organization_id, clock), [wanted])
    return edited
