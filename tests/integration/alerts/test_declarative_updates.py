"""UpdateAlert by uniqueness key, which creates the alert if it is missing."""

import asyncio

import grpc
import pytest

from generated.tidemark.v1 import alert_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.alerts.client import Client, refused
from tests.support.server.running import running
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server

SPEND = 'display_name: "spend" scope { all_customers {} } spend_threshold_reached {} thresholds { value: "10" } '
KEY = 'uniqueness_key: "k" '


async def declare(client: Client, alert: str = SPEND + KEY, *paths: str) -> messages.UpdateAlertResponse:
    return await client.update(alert, *paths, allow_missing=True)


@own_server
async def test_a_missing_alert_is_created_and_the_same_call_again_changes_nothing(
    ours: Client, theirs: Client, database: Database, clock: ManualClock, api_keys: tuple[str, str]
) -> None:
    first = await declare(ours)
    assert (first.created, first.alert.version, first.alert.uniqueness_key) == (True, 1, "k")
    await ours.settled(first.alert.alert_id)
    async with running(database, clock) as server:
        again = await declare(Client(server.channel, api_keys[0]))
    assert (again.created, again.alert) == (False, await ours.get(first.alert.alert_id))
    assert again.alert.version == 1
    # Another organization has its own alert with this key.
    other = await declare(theirs)
    assert other.created
    assert other.alert.alert_id != first.alert.alert_id
    assert len((await ours.list()).alerts) == len((await theirs.list()).alerts) == 1


async def test_a_declared_alert_is_changed_by_the_next_declaration(ours: Client) -> None:
    created = (await declare(ours)).alert
    changed = (await declare(ours, SPEND.replace("10", "20") + KEY + 'labels { key: "a" value: "b" }', "*")).alert
    assert (changed.alert_id, changed.version) == (created.alert_id, 2)
    assert ([one.value for one in changed.thresholds], dict(changed.labels)) == (["20"], {"a": "b"})
    # Without a mask, what is unset stays; the key alone says which alert it is.
    renamed = (await ours.update(KEY + 'display_name: "renamed"')).alert
    assert (renamed.alert_id, renamed.display_name, dict(renamed.labels)) == (created.alert_id, "renamed", {"a": "b"})
    async with refused() as refusal:
        await declare(ours, SPEND.replace("all_customers {}", 'plan { plan_id: "gold" }') + KEY)
    assert refusal.paths == ["alert.scope"]


@pytest.mark.parametrize(
    "written",
    [
        "scope { all_customers {} } spend_threshold_reached { LISTS }"
        ' | group_values { key: "b" value: "x" } | group_values { key: "a" }',
        'scope { plan { plan_id: "gold" } } cost_exceeded { currency: "USD" LISTS }'
        ' | grouping_keys: "b" | grouping_keys: "a"',
        "scope { all_customers {} } low_credit_balance_reached { LISTS }"
        ' | credit_grant_type_filters: "b" | credit_grant_type_filters: "a"',
    ],
    ids=["group_values", "grouping_keys", "credit_grant_type_filters"],
)
async def test_a_declaration_may_repeat_the_lists_of_the_condition_in_any_order(ours: Client, written: str) -> None:
    alert, *items = written.split("|")
    start = KEY + 'display_name: "n" thresholds { value: "10" } '
    first = (await declare(ours, start + alert.replace("LISTS", " ".join(items)))).alert
    for paths in ((), ("*",)):
        again = (await declare(ours, start + alert.replace("LISTS", " ".join(items[::-1])), *paths)).alert
        assert (again.alert_id, again.version) == (first.alert_id, 1)
    with pytest.raises(grpc.aio.AioRpcError):
        await declare(ours, start + alert.replace("LISTS", items[0]))


async def test_of_concurrent_declarations_one_creates_and_the_others_update(ours: Client) -> None:
    answers = await asyncio.gather(*(declare(ours) for _ in range(8)))
    assert sorted(one.created for one in answers) == [False] * 7 + [True]
    assert len({one.alert.alert_id for one in answers}) == 1
    [alert] = (await ours.list()).alerts
    assert alert.version == 1
    assert len(await ours.changes(alert.alert_id)) == 1


async def test_a_missing_alert_is_not_found_without_allow_missing_or_with_an_id_or_an_etag(ours: Client) -> None:
    for call in (
        ours.update(SPEND + KEY),
        declare(ours, SPEND + KEY + 'etag: "1"'),
        declare(ours, SPEND + 'alert_id: "alt_none"'),
    ):
        async with refused() as refusal:
            await call
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_ALERT_NOT_FOUND")
        assert refusal.metadata in ({"uniqueness_key": "k"}, {"alert_id": "alt_none"})
    async with refused() as refusal:
        await declare(ours, SPEND)
    assert refusal.paths == ["alert.alert_id"]
    async with refused() as refusal:
        await declare(ours, KEY)
    assert refusal.paths == ["alert.display_name", "alert.condition", "alert.scope", "alert.thresholds"]
    assert not (await ours.list()).alerts


async def test_an_archived_alert_keeps_its_key_from_a_declaration_until_it_is_released(ours: Client) -> None:
    created = (await declare(ours)).alert
    gone = await ours.update(KEY + "state: ALERT_STATE_ARCHIVED", allow_missing=True)
    assert (gone.alert.state, gone.created) == (alert_pb2.ALERT_STATE_ARCHIVED, False)
    assert (await ours.update(KEY + "state: ALERT_STATE_ARCHIVED", allow_missing=True)).alert == gone.alert
    async with refused() as refusal:
        await declare(ours)
    assert refusal.reason == "ERROR_REASON_UNIQUENESS_KEY_TAKEN"
    assert refusal.metadata == {"uniqueness_key": "k", "alert_id": created.alert_id}
    async with refused() as refusal:
        await ours.update(SPEND + KEY)
    assert refusal.reason == "ERROR_REASON_ALERT_ARCHIVED"
    await ours.release(created.alert_id)
    again = await declare(ours)
    assert again.created
    assert again.alert.alert_id != created.alert_id


async def test_a_declaration_with_a_stale_etag_changes_nothing(ours: Client) -> None:
    created = (await declare(ours)).alert
    async with refused() as refusal:
        await declare(ours, SPEND.replace("10", "20") + KEY + 'etag: "7"')
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ERROR_REASON_ETAG_MISMATCH")
    assert (await ours.get(created.alert_id)).version == 1


async def test_an_unknown_state_policy_is_refused_whether_the_alert_exists_or_not(ours: Client) -> None:
    for _ in range(2):
        async with refused() as refusal:
            await ours.update(SPEND + KEY, allow_missing=True, state_policy=7)
        assert refusal.paths == ["state_policy"]
        await declare(ours)
