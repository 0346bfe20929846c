"""Alerts of an organization, written to the store without a server."""

from decimal import Decimal

import pytest

from evaluator.alert_commands import NewAlert
from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definitions import AlertDefinition, Condition
from evaluator.thresholds import Threshold
from runtime.clock import ManualClock
from store.alerts import creation
from store.alerts.change import Change
from store.alerts.history import Author
from store.identity import organizations
from store.postgres.database import Database, driver
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
async def organization_id(database: Database, clock: ManualClock) -> int:
    """An organization with the customer `acme`."""
    now = clock.now()
    async with database.transaction() as connection:
        organization_id = await organizations.get_or_create(connection, "ours", now)
        epoch = await organizations.begin_change(connection, organization_id)
        await routing_facts.register_customers(await driver(connection), organization_id, ["acme"], epoch, now)
    return organization_id


async def create_alert(
    database: Database, organization_id: int, clock: ManualClock, new: NewAlert = NEW_ALERT
) -> AlertDefinition:
    """Creates an alert."""
    async with database.transaction() as connection:
        return await creation.create(Change(connection, organization_id, Author(), clock), new)
