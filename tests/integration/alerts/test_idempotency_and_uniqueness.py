"""Repeated requests, uniqueness keys, and alerts of which a subscription can have only one."""

import asyncio

import grpc
import pytest
from sqlalchemy import select

from generated.tidemark.v1 import alert_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from store.tables.accounts import organization
from tests.support.alerts.client import Client, outcomes, refused
from tests.support.server.running import running
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server

SPEND = 'display_name: "spend" scope { all_customers {} } spend_threshold_reached {} thresholds { value: "10" } '
CALLS = 'display_name: "calls" usage_exceeded { metric_id: "calls" } thresholds { value: "10" } '
COST = 'display_name: "cost" cost_exceeded {} thresholds { value: "10" } '
PRO = 'scope { subscription { customer_id: "acme" subscription_id: "pro" } } '
GOLD = 'scope { plan { plan_id: "gold" } } '


def key(name: str) -> str:
    return f'uniqueness_key: "{name}" '


@own_server
async def test_a_repeated_request_id_returns_the_first_answer_after_a_restart_too(
    ours: Client, database: Database, clock: ManualClock, api_keys: tuple[str, str]
) -> None:
    created = await ours.create(SPEND + key("k"), request_id="r")
    assert await ours.create(SPEND + key("k"), request_id="r") == created
    await ours.archive(created.alert_id, release=True)
    async with running(database, clock) as server:
        assert await Client(server.channel, api_keys[0]).create(SPEND + key("k"), request_id="r") == created
    assert len((await ours.list()).alerts) == 1


async def test_a_repeated_request_is_answered_as_a_replay(ours: Client) -> None:
    first = await ours.creation(SPEND, request_id="r")
    again = await ours.creation(SPEND, request_id="r")
    assert (first.replayed, again.replayed, again.alert) == (False, True, first.alert)


async def test_a_request_that_is_only_validated_gets_the_same_answer_and_creates_nothing(ours: Client) -> None:
    checked = await ours.creation(SPEND + key("k"), request_id="r", validate_only=True)
    assert not (await ours.list()).alerts
    created = await ours.creation(SPEND + key("k"), request_id="r")
    assert not created.replayed
    for answer in (checked, created):
        assert answer.alert.alert_id
        answer.alert.ClearField("alert_id")
    assert checked == created
    async with refused() as refusal:
        await ours.creation(SPEND + key("k"), validate_only=True)
    assert refusal.reason == "ERROR_REASON_UNIQUENESS_KEY_TAKEN"
    assert (await ours.creation(SPEND + key("k"), request_id="r", validate_only=True)).replayed


async def test_a_request_id_with_another_request_is_refused(ours: Client) -> None:
    await ours.create(SPEND, request_id="r")
    for other in (SPEND + key("k"), SPEND.replace("10", "11")):
        async with refused() as answer:
            await ours.create(other, request_id="r")
        assert (answer.code, answer.reason) == (
            grpc.StatusCode.ALREADY_EXISTS,
            "ERROR_REASON_REQUEST_ID_REUSED",
        )
        assert answer.metadata == {"request_id": "r"}


async def test_the_request_id_of_a_refused_request_stays_free(ours: Client) -> None:
    holder = await ours.create(SPEND + key("k"))
    async with refused():
        await ours.create(SPEND + key("k"), request_id="r")
    await ours.archive(holder.alert_id, release=True)
    assert (await ours.create(SPEND + key("k"), request_id="r")).alert_id != holder.alert_id


async def test_concurrent_tries_of_one_request_create_one_alert(ours: Client) -> None:
    created = await asyncio.gather(*(ours.create(SPEND, request_id="r") for _ in range(6)))
    assert len({alert.alert_id for alert in created}) == 1
    assert len((await ours.list()).alerts) == 1


@pytest.mark.parametrize(
    ("alert", "reason"),
    [
        (SPEND + key("k"), "ERROR_REASON_UNIQUENESS_KEY_TAKEN"),
        (CALLS + PRO, "ERROR_REASON_ALERT_EXISTS"),
        (COST + GOLD, "ERROR_REASON_ALERT_EXISTS"),
    ],
)
async def test_one_of_concurrent_creates_succeeds_and_the_others_show_its_id(
    ours: Client, alert: str, reason: str
) -> None:
    created, others = await outcomes(ours.create(alert) for _ in range(6))
    assert (len(created), len(others)) == (1, 5)
    for other in others:
        assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, reason)
        assert other.metadata["alert_id"] == created[0].alert_id


async def test_concurrent_creates_of_different_alerts_all_succeed(ours: Client) -> None:
    created, others = await outcomes(ours.create(SPEND + key(str(number))) for number in range(8))
    assert (len(created), others) == (8, [])


@own_server
async def test_a_refused_create_does_not_raise_the_epoch(ours: Client, database: Database) -> None:
    async def epochs() -> list[int]:
        async with database.transaction() as connection:
            return list((await connection.scalars(select(organization.c.epoch))).all())

    await ours.create(SPEND + key("k"))
    before = await epochs()
    async with refused():
        await ours.create(SPEND + key("k"))
    assert await epochs() == before


async def test_a_uniqueness_key_is_taken_until_it_is_released(ours: Client) -> None:
    first = await ours.create(SPEND + key("k"))
    archived = await ours.archive(first.alert_id)
    assert (archived.state, archived.uniqueness_key_released) == (alert_pb2.ALERT_STATE_ARCHIVED, False)
    assert archived.HasField("archive_time")
    async with refused() as answer:
        await ours.create(SPEND + key("k"))
    assert answer.metadata == {"uniqueness_key": "k", "alert_id": first.alert_id}

    released = await ours.archive(first.alert_id, release=True)
    assert released.uniqueness_key_released
    assert (released.archive_time, released.uniqueness_key) == (archived.archive_time, "k")
    assert released.etag != archived.etag
    second = await ours.create(SPEND + key("k"))

    # Archiving the first once more must not take the key from the second.
    assert await ours.archive(first.alert_id, release=True) == released
    async with refused() as answer:
        await ours.create(SPEND + key("k"))
    assert answer.metadata["alert_id"] == second.alert_id


async def test_an_equal_alert_can_be_created_after_the_first_is_archived(ours: Client) -> None:
    first = await ours.create(CALLS + PRO)
    await ours.archive(first.alert_id)
    second = await ours.create(CALLS + PRO)
    assert second.alert_id != first.alert_id


async def test_a_subscription_and_a_plan_have_one_usage_alert_for_each_metric(ours: Client) -> None:
    team = PRO.replace("pro", "team")
    for alert in (CALLS + PRO, CALLS + team, CALLS + GOLD, (CALLS + PRO).replace('"calls"', '"tokens"')):
        await ours.create(alert)
    async with refused() as answer:
        await ours.create(CALLS + GOLD)
    assert answer.reason == "ERROR_REASON_ALERT_EXISTS"


async def test_a_subscription_has_one_cost_alert_and_one_for_each_grouping(ours: Client) -> None:
    grouped = COST.replace("{}", '{ grouping_keys: ["model", "zone"] currency: "USD" }', 1)
    swapped = COST.replace("{}", '{ grouping_keys: ["zone", "model"] currency: "USD" }', 1)
    await ours.create(COST + PRO)
    await ours.create(grouped + PRO)
    for alert in (COST.replace("{}", '{ currency: "EUR" }', 1) + PRO, swapped + PRO):
        async with refused() as answer:
            await ours.create(alert)
        assert answer.reason == "ERROR_REASON_ALERT_EXISTS"


async def test_a_subscription_has_at_most_fifty_spend_alerts(ours: Client) -> None:
    def spend(number: int, scope: str) -> str:
        return f'display_name: "n" spend_exceeded {{ currency: "unit-{number}" }} thresholds {{ value: "1" }} {scope}'

    created = [await ours.create(spend(number, PRO)) for number in range(50)]
    async with refused() as answer:
        await ours.create(spend(50, PRO))
    assert (answer.code, answer.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "ERROR_REASON_TOO_MANY_ALERTS",
    )
    await ours.create(spend(50, GOLD))
    await ours.archive(created[0].alert_id)
    await ours.create(spend(50, PRO))
