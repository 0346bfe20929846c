"""Versions of an alert in its history, and the gauges that it shows exactly at the start of a period."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from evaluator.alert_commands import AlertPatch
from evaluator.definitions import DefinitionState
from evaluator.exclusions import Excluded, ExclusionReason
from evaluator.thresholds import Threshold
from generated.tidemark.v1 import alert_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.alerts import alerts, exclusions
from store.alerts import changes as alert_changes
from store.alerts.changes import Edit
from store.alerts.exclusions import Groups, NewGroups
from store.postgres.database import Database, driver
from tests.support.alerts.stored import create_alert, edit
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller, usage_alert

pytestmark = shares_server


@own_server
async def test_each_change_in_the_history_shows_the_alert_as_of_that_change(
    caller: Caller, clock: ManualClock
) -> None:
    alert_id = (await caller.create(usage_alert("10"))).alert_id
    times = [clock.now()]
    # Functions, because a call begins when it is made and not when it is awaited.
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: caller.alerts.UpdateAlert(
            messages.UpdateAlertRequest(alert=alert_pb2.Alert(alert_id=alert_id, display_name="renamed")),
            metadata=caller.metadata,
        ),
        lambda: caller.alerts.DisableAlert(
            messages.DisableAlertRequest(alert_id=alert_id, customer_id="ann"), metadata=caller.metadata
        ),
        lambda: caller.alerts.ArchiveAlert(messages.ArchiveAlertRequest(alert_id=alert_id), metadata=caller.metadata),
    )
    for call in calls:
        clock.advance(timedelta(hours=1))
        times.append(clock.now())
        await call()
    answer = await caller.alerts.ListAlertChanges(
        messages.ListAlertChangesRequest(alert_id=alert_id), metadata=caller.metadata
    )
    changes = list(reversed(answer.changes))
    assert [change.alert.display_name for change in changes] == ["usage", "renamed", "renamed", "renamed"]
    assert [change.alert.etag for change in changes] == ["1", "2", "2", "3"]
    assert [(change.customer_id, change.subscription_id) for change in changes] == [
        ("", ""),
        ("", ""),
        ("ann", ""),
        ("", ""),
    ]
    for change, time in zip(changes, times, strict=True):
        assert change.change_time == change.alert.update_time == to_timestamp(time)
        assert change.alert.create_time == to_timestamp(times[0])
    assert [change.alert.HasField("archive_time") for change in changes] == [False, False, False, True]
    assert changes[-1].alert.archive_time == to_timestamp(times[-1])


@own_server
async def test_a_gauge_of_the_ended_period_is_not_shown_from_the_start_of_the_next(
    caller: Caller, clock: ManualClock
) -> None:
    alert_id = (await caller.create(usage_alert("100"))).alert_id

    async def shown() -> list[str]:
        return [one.gauge.value for one in (await caller.state(alert_id)).gauges]

    await caller.send(caller.event("e1", "7"))
    april = datetime(2026, 4, 1, tzinfo=UTC)
    clock.advance(april - clock.now() - timedelta(microseconds=1))
    assert await shown() == ["7"]
    clock.advance(timedelta(microseconds=1))
    assert await shown() == []
    await caller.send(caller.event("e2", "5"))
    assert await shown() == ["5"]
    await caller.send(caller.event("e3", "1", at=april - timedelta(microseconds=1)))
    assert await shown() == ["5"]


@own_server
async def test_a_disabled_alert_has_no_pending_backfill(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    created = await create_alert(database, organization_id, clock)
    assert created.backfill_after == ""
    async with database.transaction() as connection:
        off = await edit(connection, organization_id, clock, alert_changes.disabling(created.alert_id))
        assert (off.state, off.backfill_after) == (DefinitionState.DISABLED, None)
        assert await alerts.get(connection, organization_id, created.alert_id) == off


@own_server
async def test_an_edit_keeps_the_newest_retired_thresholds(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    most = alert_changes.MAX_RETIRED
    many, half = range(1_000, 1_000 + most), range(2_000, 2_000 + most // 2)
    alert_id = (await create_alert(database, organization_id, clock)).alert_id
    for levels in (many, half, [3_000], [4_000]):
        async with database.transaction() as connection:
            patch = AlertPatch(thresholds=tuple(Threshold(Decimal(level)) for level in levels))
            changed = await edit(connection, organization_id, clock, Edit(alert_id, patch))
    assert [one.threshold.value for one in changed.retired] == [*many[most // 2 :], *half, 3_000]


@own_server
async def test_the_count_of_groups_starts_anew_at_a_newer_watching_epoch(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    group = Groups("ann", "alt_1", None, datetime(2026, 3, 1, tzinfo=UTC))
    async with database.transaction() as connection:
        raw = await driver(connection)
        for epoch, number, total in ((4, 2, 2), (4, 3, 5), (6, 1, 1), (6, 1, 2)):
            counted = await exclusions.count(raw, organization_id, [NewGroups(group, epoch, number)])
            assert counted == {group: total}


@own_server
async def test_exclusions_made_since_an_epoch_include_those_of_that_epoch(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    async with database.transaction() as connection:
        raw = await driver(connection)
        for epoch, who in ((3, "ann"), (4, "bob"), (5, "cid")):
            excluded = [Excluded(who, "alt_1", None)]
            made = await exclusions.exclude(
                raw, organization_id, excluded, ExclusionReason.REQUESTED, epoch, clock.now()
            )
            assert made == set(excluded)
        found = await exclusions.made_since(raw, organization_id, 4)
        assert {one.customer_id for one in found} == {"bob", "cid"}
