"""The statements of store/alerts, without a server: its background tasks would change the rows under test."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from evaluator.definitions import DefinitionState
from runtime.clock import ManualClock
from store.alerts import active_rules, alerts
from store.alerts import changes as alert_changes
from store.identity import organizations
from store.postgres.database import Database, driver
from store.rules.rule_changes import RuleChanges, changes_since
from store.tables.alerts import alert
from store.views.customer_alerts import CustomerAlertStatus
from store.views.customer_views import CustomerView
from tests.support.alerts.stored import NEW_ALERT, create_alert, edit


async def test_a_definition_is_read_as_it_was_created(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    created = await create_alert(database, organization_id, clock, replace(NEW_ALERT, uniqueness_key="k"))
    async with database.transaction() as connection:
        assert await alerts.get(connection, organization_id, created.alert_id) == created
    assert (created.watching_time, created.backfill_after, created.uniqueness_key_held) == (clock.now(), "", True)
    assert created.changed_epoch == created.watching_epoch > 0


async def test_changes_after_an_epoch_name_the_alerts_of_one_organization(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    async with database.transaction() as connection:
        other = await organizations.get_or_create(connection, "theirs", clock.now())
    first = await create_alert(database, organization_id, clock)
    second = await create_alert(database, organization_id, clock)
    await create_alert(database, other, clock)
    async with database.transaction() as connection:
        ended = await edit(connection, organization_id, clock, alert_changes.archiving(first.alert_id))
    async with database.transaction() as connection:
        raw = await driver(connection)
        everything, newer, none = [
            await changes_since(raw, organization_id, epoch, 10)
            for epoch in (0, second.changed_epoch, ended.changed_epoch)
        ]
        assert await changes_since(raw, organization_id, 0, 1) is None
        rules = await active_rules.rules_with_ids(raw, organization_id, [first.alert_id, second.alert_id])
    assert everything == RuleChanges(wide_alerts={first.alert_id, second.alert_id}, customers={"acme"})
    assert newer == RuleChanges(wide_alerts={first.alert_id})
    assert none == RuleChanges()
    assert rules == {second.alert_id: second.active_rule()}


@pytest.mark.parametrize(
    ("visit_after", "status"),
    [
        ("", CustomerAlertStatus.EVALUATING),
        ("acm", CustomerAlertStatus.EVALUATING),
        ("acme", CustomerAlertStatus.OK),
        (None, CustomerAlertStatus.OK),
    ],
)
async def test_a_customer_is_evaluating_until_the_backfill_has_passed_it(
    database: Database,
    organization_id: int,
    clock: ManualClock,
    visit_after: str | None,
    status: CustomerAlertStatus,
) -> None:
    created = await create_alert(database, organization_id, clock)
    async with database.transaction() as connection:
        await connection.execute(
            update(alert).where(alert.c.alert_id == created.alert_id).values(visit_after=visit_after)
        )
    async with database.transaction() as connection:
        view = await CustomerView.open(connection, organization_id, "acme", clock.now())
        found = await view.get(created.alert_id)
    assert found is not None
    assert found.status is status


async def test_a_disabled_alert_has_neither_status_nor_gauges(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    created = await create_alert(database, organization_id, clock)
    async with database.transaction() as connection:
        await connection.execute(update(alert).values(state=DefinitionState.DISABLED))
    async with database.transaction() as connection:
        view = await CustomerView.open(connection, organization_id, "acme", clock.now())
        found = await view.get(created.alert_id)
    assert found is not None
    assert (found.status, found.gauges) == (None, ())


async def test_a_customer_view_reads_one_snapshot(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    created = await create_alert(database, organization_id, clock)
    async with database.transaction() as connection:
        view = await CustomerView.open(connection, organization_id, "acme", clock.now())
        async with database.transaction() as other:
            await edit(other, organization_id, clock, alert_changes.archiving(created.alert_id))
        found = await view.get(created.alert_id)
        listed = await view.list_page((), after=None, limit=10)
    assert found is not None
    assert found.definition == created
    assert (listed.alerts, listed.following) == ([found], None)
