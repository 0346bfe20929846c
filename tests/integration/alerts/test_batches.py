"""Batches: all or none, one lock and one epoch, errors that name the request, and answers of bounded size."""

import asyncio

import grpc
import pytest
from sqlalchemy import func, select

from generated.tidemark.v1 import alert_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import ManualClock
from server.calls.answer_size import DEFAULT_ANSWER_BYTES
from store.postgres.database import Database
from store.tables.accounts import organization
from store.tables.alerts import alert, alert_change
from tests.support.alerts.client import Client, refused, update_request
from tests.support.server.running import running
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server


GOLD = 'scope { plan { plan_id: "gold" } } '


def spend(name: str, more: str = "") -> str:
    return (
        f'display_name: "{name}" scope {{ all_customers {{}} }} spend_threshold_reached {{}}'
        f' thresholds {{ value: "10" }} {more}'
    )


def key(name: str) -> str:
    return f'uniqueness_key: "{name}" '


def archiving(*alert_ids: str) -> list[messages.ArchiveAlertRequest]:
    return [messages.ArchiveAlertRequest(alert_id=alert_id) for alert_id in alert_ids]


async def epoch(database: Database) -> int:
    """The epoch of the organization `ours`."""
    async with database.transaction() as connection:
        found = await connection.scalar(select(organization.c.epoch).where(organization.c.name == "ours"))
    return int(found or 0)


async def rows(database: Database) -> tuple[int, int]:
    """How many alerts are stored, and how many changes."""
    async with database.transaction() as connection:
        counts = [await connection.scalar(select(func.count()).select_from(table)) for table in (alert, alert_change)]
    return int(counts[0] or 0), int(counts[1] or 0)


@own_server
async def test_a_batch_creates_its_alerts_in_order_and_raises_the_epoch_once(
    ours: Client, theirs: Client, database: Database
) -> None:
    before = await epoch(database)
    created = (await ours.batch_create(*(spend(f"n{number}", key(f"k{number}")) for number in range(250)))).alerts
    assert await epoch(database) == before + 1
    assert [one.display_name for one in created] == [f"n{number}" for number in range(250)]
    assert {one.version for one in created} == {1}
    await ours.settled(created[0].alert_id, created[-1].alert_id)
    assert [one.display_name for one in (await ours.list(uniqueness_key="k249")).alerts] == ["n249"]
    assert not (await theirs.list()).alerts
    assert await rows(database) == (250, 250)


@own_server
async def test_a_batch_changes_its_alerts_and_raises_the_epoch_once(ours: Client, database: Database) -> None:
    created = (await ours.batch_create(*(spend(f"n{number}", key(f"k{number}")) for number in range(150)))).alerts
    before = await epoch(database)
    answer = await ours.batch_update(
        *(update_request(f'alert_id: "{one.alert_id}" display_name: "other"') for one in created[:120]),
        update_request(key("k130") + "state: ALERT_STATE_DISABLED"),
        update_request(spend("new", key("new")), allow_missing=True),
    )
    assert await epoch(database) == before + 1
    assert [one.version for one in answer.alerts] == [2] * 121 + [1]
    assert {one.display_name for one in answer.alerts[:120]} == {"other"}
    assert answer.alerts[120].state == alert_pb2.ALERT_STATE_DISABLED
    assert await rows(database) == (151, 150 + 122)
    # What is as it is to be takes no lock: the epoch stays.
    await ours.batch_update(update_request(spend("new", key("new")), allow_missing=True))
    assert await epoch(database) == before + 1


@own_server
async def test_a_batch_archives_its_alerts_and_raises_the_epoch_once(ours: Client, database: Database) -> None:
    created = (await ours.batch_create(*(spend(f"n{number}", key(f"k{number}")) for number in range(30)))).alerts
    before = await epoch(database)
    ids = [one.alert_id for one in created]
    released = messages.ArchiveAlertRequest(alert_id=ids[0], release_uniqueness_key=True)
    answer = await ours.batch_archive(released, *archiving(*ids[1:]))
    assert await epoch(database) == before + 1
    assert {one.state for one in answer.alerts} == {alert_pb2.ALERT_STATE_ARCHIVED}
    assert [one.alert_id for one in answer.alerts] == ids
    assert [one.uniqueness_key_released for one in answer.alerts] == [True] + [False] * 29
    assert list((await ours.batch_archive(*archiving(*ids))).alerts) == list(answer.alerts)
    assert await epoch(database) == before + 1


@own_server
@pytest.mark.parametrize(
    ("wrong", "reason", "path"),
    [
        (spend(""), "INVALID_FIELD", "requests[2].alert.display_name"),
        (spend("n", key("taken")), "UNIQUENESS_KEY_TAKEN", "requests[2]"),
        (spend("n", key("k0")), "INVALID_FIELD", "requests[2].alert.uniqueness_key"),
    ],
)
async def test_a_create_that_cannot_be_done_leaves_nothing_of_its_batch(
    ours: Client, database: Database, wrong: str, reason: str, path: str
) -> None:
    await ours.create(spend("holder", key("taken")))
    before = await epoch(database), await rows(database)
    async with refused() as refusal:
        await ours.batch_create(spend("a", key("k0")), spend("b"), wrong, spend("c"))
    assert (refusal.reason, refusal.paths) == (f"ERROR_REASON_{reason}", [path])
    assert refusal.metadata["index"] == "2"
    assert (await epoch(database), await rows(database)) == before


async def test_all_requests_of_a_batch_that_are_invalid_are_named(ours: Client) -> None:
    async with refused() as refusal:
        await ours.batch_create(spend("a"), spend(""), spend("b").replace("10", "x"), spend("c"))
    assert refusal.paths == ["requests[1].alert.display_name", "requests[2].alert.thresholds[0].value"]
    assert refusal.metadata["index"] == "1"


async def test_alerts_of_which_only_one_may_exist_cannot_be_in_one_batch(ours: Client) -> None:
    cost = f'display_name: "c" {GOLD} cost_exceeded {{}} thresholds {{ value: "10" }}'
    dollars = cost.replace("cost_exceeded {}", 'cost_exceeded { currency: "USD" }')
    async with refused() as refusal:
        await ours.batch_create(cost, spend("a"), dollars)
    assert (refusal.paths, refusal.metadata) == (["requests[2].alert"], {"index": "2"})
    await ours.create(cost)
    async with refused() as refusal:
        await ours.batch_create(spend("a"), dollars)
    assert (refusal.reason, refusal.paths) == ("ERROR_REASON_ALERT_EXISTS", ["requests[1]"])


@own_server
async def test_a_batch_counts_the_spend_alerts_of_a_plan_together(ours: Client, database: Database) -> None:
    def priced(number: int) -> str:
        return f'display_name: "p" {GOLD} spend_exceeded {{ currency: "unit-{number}" }} thresholds {{ value: "10" }}'

    await ours.batch_create(*(priced(number) for number in range(49)))
    async with refused() as refusal:
        await ours.batch_create(spend("a"), priced(49), priced(50))
    assert refusal.reason == "ERROR_REASON_TOO_MANY_ALERTS"
    assert refusal.metadata == {"limit": "50", "index": "2"}
    await ours.batch_create(spend("a"), priced(49))
    assert await rows(database) == (51, 51)


@own_server
@pytest.mark.parametrize("wrong", ["unknown", "etag", "archived", "repeated", "invalid"])
async def test_an_update_that_cannot_be_done_leaves_nothing_of_its_batch(
    ours: Client, database: Database, wrong: str
) -> None:
    first, second, gone = (await ours.batch_create(spend("a"), spend("b"), spend("c"))).alerts
    await ours.archive(gone.alert_id)
    requests = {
        "unknown": ('alert_id: "alt_none" display_name: "n"', "ALERT_NOT_FOUND", "requests[1]"),
        "etag": (f'alert_id: "{second.alert_id}" etag: "7" display_name: "n"', "ETAG_MISMATCH", "requests[1]"),
        "archived": (f'alert_id: "{gone.alert_id}" display_name: "n"', "ALERT_ARCHIVED", "requests[1]"),
        "repeated": (
            f'alert_id: "{first.alert_id}" display_name: "n"',
            "INVALID_FIELD",
            "requests[1].alert.alert_id",
        ),
        "invalid": (
            f'alert_id: "{second.alert_id}" thresholds {{ value: "x" }}',
            "INVALID_FIELD",
            "requests[1].alert.thresholds[0].value",
        ),
    }
    text, reason, path = requests[wrong]
    before = await epoch(database), await rows(database)
    async with refused() as refusal:
        await ours.batch_update(
            update_request(f'alert_id: "{first.alert_id}" display_name: "other"'),
            update_request(text),
            update_request(spend("new", key("new")), allow_missing=True),
        )
    assert (refusal.reason, refusal.paths) == (f"ERROR_REASON_{reason}", [path])
    assert refusal.metadata["index"] == "1"
    assert (await epoch(database), await rows(database)) == before
    assert (await ours.get(first.alert_id)).display_name == "a"


@own_server
async def test_one_alert_cannot_be_declared_twice_in_a_batch(ours: Client, database: Database) -> None:
    declared = update_request(spend("a", key("k")), allow_missing=True)
    before = await epoch(database), await rows(database)
    async with refused() as refusal:
        await ours.batch_update(declared, declared)
    assert (refusal.paths, refusal.metadata["index"]) == (["requests[1].alert.uniqueness_key"], "1")
    assert (await epoch(database), await rows(database)) == before
    await ours.batch_update(declared)
    async with refused() as refusal:
        await ours.batch_update(declared, declared)
    assert (refusal.paths, refusal.metadata["index"]) == (["requests[1].alert.alert_id"], "1")


async def test_an_update_into_the_measure_of_another_alert_leaves_nothing_of_its_batch(ours: Client) -> None:
    def priced(price: str) -> str:
        filters = (
            f'price_filters {{ field: PRICE_FIELD_PRICE_ID operator: FILTER_OPERATOR_INCLUDES values: "{price}" }}'
        )
        return f'spend_exceeded {{ currency: "USD" {filters} }}'

    made = await ours.batch_create(
        *(f'display_name: "n" {GOLD} {priced(price)} thresholds {{ value: "1" }}' for price in ("p1", "p2", "p3"))
    )
    first, second, third = (one.alert_id for one in made.alerts)
    path = "spend_exceeded.price_filters"
    async with refused() as refusal:
        await ours.batch_update(
            update_request(f'alert_id: "{third}" display_name: "other"'),
            update_request(f'alert_id: "{first}" {priced("p2")}', path),
        )
    assert (refusal.reason, refusal.metadata) == ("ERROR_REASON_ALERT_EXISTS", {"alert_id": second, "index": "1"})
    async with refused() as refusal:
        await ours.batch_update(
            update_request(f'alert_id: "{first}" {priced("p4")}', path),
            update_request(f'alert_id: "{second}" {priced("p4")}', path),
        )
    assert (refusal.paths, refusal.metadata) == (["requests[1].alert"], {"index": "1"})
    assert {(await ours.get(one)).version for one in (first, second, third)} == {1}


@own_server
async def test_an_archiving_that_cannot_be_done_leaves_nothing_of_its_batch(
    ours: Client, theirs: Client, database: Database
) -> None:
    kept, foreign = await ours.create(spend("a")), await theirs.create(spend("b"))
    before = await epoch(database), await rows(database)
    for alert_id, reason in ((foreign.alert_id, "ALERT_NOT_FOUND"), (kept.alert_id, "INVALID_FIELD")):
        async with refused() as refusal:
            await ours.batch_archive(*archiving(kept.alert_id, alert_id))
        assert (refusal.reason, refusal.metadata["index"]) == (f"ERROR_REASON_{reason}", "1")
    assert (await epoch(database), await rows(database)) == before


async def test_a_batch_has_1_to_1000_requests_without_ids_of_their_own(ours: Client) -> None:
    for calls in (
        lambda: ours.batch_create(),
        lambda: ours.batch_update(),
        lambda: ours.batch_archive(),
        lambda: ours.batch_archive(*archiving(*(f"alt_{number}" for number in range(1_001)))),
    ):
        async with refused() as refusal:
            await calls()
        assert (refusal.code, refusal.paths) == (grpc.StatusCode.INVALID_ARGUMENT, ["requests"])
    async with refused() as refusal:
        await ours.batch_archive(messages.ArchiveAlertRequest(alert_id="alt_1", validate_only=True))
    assert refusal.paths == ["requests[0].validate_only"]


@own_server
async def test_a_repeated_batch_gets_the_first_answer_after_a_restart_too(
    ours: Client, database: Database, clock: ManualClock, api_keys: tuple[str, str]
) -> None:
    first = await ours.batch_create(spend("a"), spend("b"), request_id="r")
    before = await rows(database)
    async with running(database, clock) as server:
        again = await Client(server.channel, api_keys[0]).batch_create(spend("a"), spend("b"), request_id="r")
    assert (again.replayed, list(again.alerts)) == (True, list(first.alerts))
    async with refused() as refusal:
        await ours.batch_create(spend("a"), request_id="r")
    assert refusal.reason == "ERROR_REASON_REQUEST_ID_REUSED"
    assert await rows(database) == before


@own_server
async def test_a_batch_that_is_only_validated_changes_nothing(ours: Client, database: Database) -> None:
    kept = await ours.create(spend("kept"))
    before = await epoch(database), await rows(database)
    checked = await ours.batch_create(spend("a"), spend("b"), validate_only=True)
    assert [one.display_name for one in checked.alerts] == ["a", "b"]
    renamed = update_request(f'alert_id: "{kept.alert_id}" display_name: "other"')
    assert [one.version for one in (await ours.batch_update(renamed, validate_only=True)).alerts] == [2]
    ended = (await ours.batch_archive(*archiving(kept.alert_id), validate_only=True)).alerts
    assert [one.state for one in ended] == [alert_pb2.ALERT_STATE_ARCHIVED]
    async with refused() as refusal:
        await ours.batch_create(spend("a"), spend(""), validate_only=True)
    assert refusal.paths == ["requests[1].alert.display_name"]
    assert (await epoch(database), await rows(database)) == before


async def test_alerts_of_a_batch_take_over_what_others_of_it_measured(ours: Client) -> None:
    def measuring(name: str, *items: str, state: str = "ACTIVE") -> messages.UpdateAlertRequest:
        prices = " ".join(
            f'price_filters {{ field: PRICE_FIELD_ITEM_ID operator: FILTER_OPERATOR_INCLUDES values: "{item}" }}'
            for item in items
        )
        alert = f'display_name: "{name}" {key(name)} {GOLD} state: ALERT_STATE_{state} thresholds {{ value: "1" }}'
        return update_request(f'{alert} spend_exceeded {{ currency: "USD" {prices} }}', allow_missing=True)

    await ours.batch_update(measuring("a", "1"), measuring("b", "2"), measuring("c", "3"), measuring("d", "4"))
    swapped = await ours.batch_update(measuring("a", "2"), measuring("b", "1"))
    found = [one.spend_exceeded.price_filters[0].values for one in swapped.alerts]
    assert found == [["2"], ["1"]]
    await ours.batch_update(measuring("a", "3"), measuring("c", "3", state="ARCHIVED"))
    async with refused() as refusal:
        await ours.batch_update(measuring("a", "1"), measuring("b", "4"))
    assert (refusal.reason, refusal.metadata["index"]) == ("ERROR_REASON_ALERT_EXISTS", "1")


async def test_the_warnings_of_a_batch_name_the_request(ours: Client) -> None:
    odd = 'display_name: "n" scope { all_customers {} } usage_threshold_reached { metric_id: "odd" }'
    answer = await ours.batch_create(spend("a"), odd + ' thresholds { value: "1" }')
    assert [one.field for one in answer.warnings] == ["requests[1].alert.usage_threshold_reached.metric_id"]
    changed = await ours.batch_update(
        update_request(f'alert_id: "{answer.alerts[1].alert_id}" thresholds {{ value: "2" }}')
    )
    assert [one.field for one in changed.warnings] == ["requests[0].alert.usage_threshold_reached.metric_id"]
    assert changed.omitted_warning_count == 0


async def test_the_alerts_of_a_large_answer_are_abridged_at_its_end(ours: Client) -> None:
    codes = "".join(f'thresholds {{ value: "{number + 1}" code: "{number:0120}" }} ' for number in range(20))
    ids = list[str]()
    for part in range(3):
        texts = (
            f'display_name: "{"n" * 250}" scope {{ all_customers {{}} }} spend_threshold_reached {{}} {codes}'
            for _ in range(330)
        )
        ids += [one.alert_id for one in (await ours.batch_create(*texts, request_id=f"r{part}")).alerts]
    answer = await ours.batch_archive(*archiving(*ids))
    assert [one.alert_id for one in answer.alerts] == ids
    whole = len(ids) - answer.abridged_alert_count
    assert 0 < whole < len(ids)
    assert all(len(one.thresholds) == 20 for one in answer.alerts[:whole])
    assert not any(one.thresholds or one.display_name for one in answer.alerts[whole:])
    assert {one.state for one in answer.alerts} == {alert_pb2.ALERT_STATE_ARCHIVED}
    assert answer.ByteSize() <= DEFAULT_ANSWER_BYTES


async def test_an_answer_has_no_more_bytes_than_other_answers_when_keys_and_unknown_ids_are_long(
    ours: Client,
) -> None:
    wide = "\N{GRINNING FACE}"  # four bytes
    alerts = [
        f'display_name: "{wide * 256}" uniqueness_key: "{number:04}{wide * 124}" thresholds {{ value: "1" }}'
        f' scope {{ plan {{ plan_id: "{number:04}{wide * 124}" }} }}'
        f' usage_threshold_reached {{ metric_id: "{number:04}{wide * 124}" }}'
        for number in range(1_000)
    ]
    answer = await ours.batch_create(*alerts, validate_only=True)
    assert answer.abridged_alert_count > 500
    assert answer.omitted_warning_count > 500
    assert answer.ByteSize() <= DEFAULT_ANSWER_BYTES


@own_server
async def test_of_concurrent_batches_with_one_key_one_creates_its_alerts(ours: Client, database: Database) -> None:
    batches = (
        ours.batch_create(spend(f"a{number}"), spend(f"b{number}", key("shared")), spend(f"c{number}"))
        for number in range(6)
    )
    answers = await asyncio.gather(*batches, return_exceptions=True)
    lost = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
    assert {one.code() for one in lost} == {grpc.StatusCode.ALREADY_EXISTS}
    assert len(lost) == 5
    assert await rows(database) == (3, 3)


async def test_concurrent_batches_of_the_same_alerts_in_other_orders_are_all_made(ours: Client) -> None:
    ids = [one.alert_id for one in (await ours.batch_create(*(spend(f"n{number}") for number in range(20)))).alerts]

    async def rename(number: int) -> None:
        order = ids if number % 2 else ids[::-1]
        await ours.batch_update(*(update_request(f'alert_id: "{one}" display_name: "v{number}"') for one in order))

    await asyncio.gather(*(rename(number) for number in range(6)))
    assert len({(await ours.get(one)).display_name for one in ids}) == 1


async def test_usage_that_streams_during_a_batch_is_evaluated_against_all_of_its_alerts(
    ours: Client, clock: ManualClock
) -> None:
    usage = 'scope { all_customers {} } usage_threshold_reached { metric_id: "calls" } thresholds { value: "5" }'
    event = 'event_id: "e{}" customer_id: "acme" metric_id: "calls" quantity: "1"'

    async def send() -> None:
        for number in range(20):
            await ours.use(clock.now(), event.format(number))

    made, _ = await asyncio.gather(
        ours.batch_create(*(f'display_name: "n{number}" {usage}' for number in range(40))), send()
    )
    ids = [one.alert_id for one in made.alerts]
    await ours.settled(*ids)
    for alert_id in ids:
        [gauge] = (await ours.customer_alert(alert_id, "acme")).gauges
        assert (gauge.gauge.value, gauge.sequence) == ("20", 1)
