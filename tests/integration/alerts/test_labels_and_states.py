"""Labels of alerts, and states that an update writes."""

import grpc
import pytest

from evaluator.definitions import DefinitionState
from generated.tidemark.v1 import alert_change_pb2, alert_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.alerts.client import Client, refused
from tests.support.server.running import running
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server


SPEND = 'display_name: "spend" scope { all_customers {} } spend_threshold_reached {} thresholds { value: "10" } '
TEAM = 'labels { key: "team" value: "billing" } '
TIER = 'labels { key: "tier" value: "gold" } '
ACTIVE, DISABLED, ARCHIVED = (
    alert_pb2.ALERT_STATE_ACTIVE,
    alert_pb2.ALERT_STATE_DISABLED,
    alert_pb2.ALERT_STATE_ARCHIVED,
)


def kinds(changes: list[alert_change_pb2.AlertChange]) -> list[str]:
    names = alert_change_pb2.AlertChangeKind
    return [names.Name(one.kind).removeprefix("ALERT_CHANGE_KIND_") for one in changes]


@own_server
async def test_labels_are_kept_over_a_restart_and_in_the_history(
    ours: Client, database: Database, clock: ManualClock, api_keys: tuple[str, str]
) -> None:
    created = await ours.create(SPEND + TEAM + TIER)
    assert dict(created.labels) == {"team": "billing", "tier": "gold"}
    changed = (await ours.update(f'alert_id: "{created.alert_id}" {TEAM}', "labels")).alert
    assert (dict(changed.labels), changed.version) == ({"team": "billing"}, 2)
    cleared = (await ours.update(f'alert_id: "{created.alert_id}"', "labels")).alert
    assert (dict(cleared.labels), cleared.version) == ({}, 3)
    async with running(database, clock) as server:
        after = Client(server.channel, api_keys[0])
        assert (await after.get(created.alert_id)).labels == {}
        history = [dict(one.alert.labels) for one in await after.changes(created.alert_id)]
    assert history == [{}, {"team": "billing"}, {"team": "billing", "tier": "gold"}]


async def test_a_change_of_labels_evaluates_nothing_again(ours: Client) -> None:
    created = await ours.create(SPEND)
    await ours.settled(created.alert_id)
    changed = (await ours.update(f'alert_id: "{created.alert_id}" {TEAM}')).alert
    assert (changed.version, changed.evaluation_status) == (2, alert_pb2.EVALUATION_STATUS_DONE)
    assert (await ours.update(f'alert_id: "{created.alert_id}" {TEAM}')).alert == changed


@pytest.mark.parametrize(
    ("labels", "path"),
    [
        ('labels { key: "Team" value: "x" }', "alert.labels['Team']"),
        ('labels { key: "" value: "x" }', "alert.labels['']"),
        ('labels { key: "-team" value: "x" }', "alert.labels['-team']"),
        ('labels { key: "team" value: "a\\tb" }', "alert.labels['team']"),
        (f'labels {{ key: "team" value: "{"x" * 257}" }}', "alert.labels['team']"),
        (f'labels {{ key: "{"k" * 64}" value: "" }}', f"alert.labels['{'k' * 63}']"),
        ("".join(f'labels {{ key: "k{number}" value: "" }}' for number in range(65)), "alert.labels"),
    ],
)
async def test_bad_labels_are_refused(ours: Client, labels: str, path: str) -> None:
    created = await ours.create(SPEND)
    async with refused() as creation:
        await ours.create(SPEND + labels)
    async with refused() as update:
        await ours.update(f'alert_id: "{created.alert_id}" {labels}')
    for refusal in (creation, update):
        assert (refusal.code, refusal.paths) == (grpc.StatusCode.INVALID_ARGUMENT, [path])


async def test_an_update_of_the_state_is_what_enable_disable_and_archive_do(ours: Client) -> None:
    created = await ours.create(SPEND)
    at = f'alert_id: "{created.alert_id}" '
    off = (await ours.update(at + "state: ALERT_STATE_DISABLED")).alert
    assert (off.state, off.version) == (DISABLED, 2)
    assert (await ours.update(at + "state: ALERT_STATE_DISABLED", "state")).alert == off
    on = (await ours.update(at + 'display_name: "other" state: ALERT_STATE_ACTIVE')).alert
    assert (on.state, on.version, on.display_name) == (ACTIVE, 3, "other")
    ended = (await ours.update(at + "state: ALERT_STATE_ARCHIVED", "state")).alert
    assert (ended.state, ended.version, ended.HasField("archive_time")) == (ARCHIVED, 4, True)
    assert (await ours.update(at + "state: ALERT_STATE_ARCHIVED", "state")).alert == ended
    assert await ours.archive(created.alert_id) == ended
    for text in ("state: ALERT_STATE_ACTIVE", 'state: ALERT_STATE_ARCHIVED display_name: "third"', ""):
        async with refused() as refusal:
            await ours.update(at + text)
        assert refusal.reason == "ERROR_REASON_ALERT_ARCHIVED"
    assert kinds(await ours.changes(created.alert_id)) == ["ARCHIVED", "UPDATED", "DISABLED", "CREATED"]


async def test_the_mask_star_keeps_a_state_that_is_unset(ours: Client) -> None:
    created = await ours.create(SPEND + TEAM)
    at = f'alert_id: "{created.alert_id}" '
    await ours.update(at + "state: ALERT_STATE_DISABLED")
    changed = (await ours.update(at + SPEND, "*")).alert
    assert (changed.state, dict(changed.labels)) == (DISABLED, {})
    async with refused() as refusal:
        await ours.update(at + "state: 9", "state")
    assert refusal.paths == ["alert.state"]


async def test_an_alert_that_is_created_disabled_is_evaluated_once_it_is_enabled(
    ours: Client, clock: ManualClock
) -> None:
    usage = SPEND.replace("spend_threshold_reached {}", 'usage_threshold_reached { metric_id: "calls" }')
    created = await ours.create(usage + "state: ALERT_STATE_DISABLED")
    assert (created.state, created.evaluation_status) == (DISABLED, alert_pb2.EVALUATION_STATUS_DONE)
    answer = await ours.use(clock.now(), 'event_id: "e1" customer_id: "acme" metric_id: "calls" quantity: "15"')
    assert not answer.transitions
    await ours.update(f'alert_id: "{created.alert_id}" state: ALERT_STATE_ACTIVE')
    await ours.settled(created.alert_id)
    [gauge] = (await ours.customer_alert(created.alert_id, "acme")).gauges
    assert [one.in_alarm for one in gauge.thresholds] == [True]
    async with refused() as refusal:
        await ours.create(usage + "state: ALERT_STATE_ARCHIVED")
    assert refusal.paths == ["alert.state"]


async def test_changes_that_are_only_validated_answer_the_same_and_change_nothing(ours: Client) -> None:
    created = await ours.create(SPEND + 'uniqueness_key: "k"')
    await ours.settled(created.alert_id)
    before = await ours.get(created.alert_id)
    at = f'alert_id: "{created.alert_id}" '
    checked = (await ours.update(at + 'display_name: "n" state: ALERT_STATE_ARCHIVED', validate_only=True)).alert
    assert (checked.display_name, checked.state, checked.version) == ("n", ARCHIVED, 2)
    assert (await ours.disable(created.alert_id, validate_only=True)).state == DISABLED
    await ours.disable(created.alert_id, "acme", validate_only=True)
    assert (await ours.archive(created.alert_id, release=True, validate_only=True)).uniqueness_key_released
    missing = await ours.update(SPEND + 'uniqueness_key: "new"', allow_missing=True, validate_only=True)
    assert missing.created
    assert await ours.get(created.alert_id) == before
    assert len(await ours.changes(created.alert_id)) == len((await ours.list()).alerts) == 1
    await ours.disable(created.alert_id)
    assert (await ours.enable(created.alert_id, validate_only=True)).state == ACTIVE
    assert (await ours.get(created.alert_id)).state == DISABLED
    await ours.archive(created.alert_id)
    assert (await ours.release(created.alert_id, validate_only=True)).uniqueness_key_released
    assert not (await ours.get(created.alert_id)).uniqueness_key_released


async def test_a_reset_that_is_only_validated_keeps_the_state(ours: Client, clock: ManualClock) -> None:
    usage = SPEND.replace("spend_threshold_reached {}", 'usage_threshold_reached { metric_id: "calls" }')
    created = await ours.create(usage)
    await ours.use(clock.now(), 'event_id: "e1" customer_id: "acme" metric_id: "calls" quantity: "15"')
    await ours.settled(created.alert_id)
    before = await ours.customer_alert(created.alert_id, "acme")
    assert [one.sequence for one in before.gauges] == [1]
    checked = await ours.reset(created.alert_id, "acme", validate_only=True)
    assert [one.sequence for one in checked.gauges] == [2]
    assert await ours.customer_alert(created.alert_id, "acme") == before
    done = await ours.reset(created.alert_id, "acme")
    assert [one.sequence for one in done.gauges] == [2]
    assert len(await ours.changes(created.alert_id)) == 2


def test_every_state_of_a_definition_has_a_value_in_the_contract() -> None:
    assert {f"ALERT_STATE_{state}" for state in DefinitionState} == set(alert_pb2.AlertState.keys()) - {
        "ALERT_STATE_UNSPECIFIED"
    }
