"""LimitService over the wire: unary calls, the stream, batches and watches on the real engine."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from runtime.clock import ManualClock
from store.monitoring import backlog
from store.monitoring.backlog import Backlog
from store.postgres.database import Database
from tests.support.enforcement.gateway import HARD, SOFT, put_limit
from tests.support.enforcement.limits import (
    Limits,
    message,
    named,
    next_of,
    remaining_of,
    reserve,
    time_of,
    usage,
    watched,
)
from tests.support.server.running import reason_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller
from tests.support.waiting import within

pytestmark = shares_server


@pytest.fixture
async def limits(caller: Caller) -> Limits:
    """LimitService, with a limit of 10 calls for acme."""
    await put_limit(caller, "10")
    return Limits(caller)


async def test_usage_is_checked_reserved_and_settled(limits: Limits) -> None:
    checked = await limits.call("CheckUsage", usage=usage("4"))
    assert checked["decision"]["outcome"] == "DECISION_OUTCOME_ALLOWED"
    assert checked["decision"]["reason"] == "DECISION_REASON_NONE"
    assert checked["decision"]["limit"]["limitId"] == "limit"
    assert checked["updateTime"]
    reserved = await limits.reserve("r-1", "4", ttl="90s")
    assert reserved["decision"]["grantedQuantity"] == "4"
    made = reserved["reservation"]
    assert (made["state"], made["usage"]["quantity"]) == ("RESERVATION_STATE_OPEN", "4")
    assert time_of(made["expireTime"]) - time_of(made["createTime"]) == timedelta(seconds=90)
    assert await limits.remaining() == "6"
    settled = await limits.call("SettleReservation", **named("r-1"), quantity="3")
    assert (settled["decision"]["grantedQuantity"], settled["reservation"]["settledQuantity"]) == ("3", "3")
    assert settled["reservation"]["state"] == "RESERVATION_STATE_SETTLED"
    assert await limits.remaining() == "7"
    assert await limits.call("SettleReservation", **named("r-1"), quantity="3") == {**settled, "replayed": True}
    again = await limits.reserve("r-1", "4", ttl="90s")
    assert (again["decision"], again["replayed"]) == (reserved["decision"], True)


async def test_denial_is_an_answer_that_names_the_limit(limits: Limits) -> None:
    await limits.reserve("r-1", "8")
    denied = await limits.reserve("r-2", "3")
    decision = denied["decision"]
    assert decision["outcome"] == "DECISION_OUTCOME_DENIED"
    assert (decision["reason"], decision["grantedQuantity"]) == ("DECISION_REASON_LIMIT", "0")
    limit = decision["limit"]
    assert (limit["limitId"], limit["customerId"], limit["quantity"]) == ("limit", "acme", {"metricId": "calls"})
    assert (limit["amount"], limit["counted"], limit["held"], limit["remaining"]) == ("10", "0", "8", "2")
    assert limit["enforcement"] == "LIMIT_ENFORCEMENT_HARD"
    assert limit["resetTime"] == limit["windowEndTime"]
    assert limit["window"] == {"billingPeriod": {}}
    assert decision["retryAfter"] == "1s"
    assert denied["reservation"]["state"] == "RESERVATION_STATE_DENIED"
    capped = await limits.reserve("r-3", "3", overagePolicy="USAGE_OVERAGE_POLICY_CAP")
    assert (capped["decision"]["outcome"], capped["decision"]["grantedQuantity"]) == ("DECISION_OUTCOME_CAPPED", "2")
    over = await limits.reserve("r-4", "3", overagePolicy="USAGE_OVERAGE_POLICY_OVERFLOW")
    assert over["decision"]["outcome"] == "DECISION_OUTCOME_ALLOWED"
    assert [one["limitId"] for one in over["decision"]["over"]] == ["limit"]


@own_server
async def test_a_reservation_whose_time_has_passed_is_refused_and_not_one_that_is_repeated(
    limits: Limits, clock: ManualClock
) -> None:
    now, soon = clock.now(), (clock.now() + timedelta(seconds=30)).isoformat()
    for passed in (now, now - timedelta(days=28)):
        refused = await limits.refused("ReserveUsage", **reserve("r-1", expireTime=passed.isoformat())["reserve"])
        assert refused == ("INVALID_ARGUMENT", "INVALID_FIELD")
    with pytest.raises(grpc.aio.AioRpcError, match=r"expire_time: .* is not ahead of .*, the time of the service"):
        await limits.reserve("r-1", expireTime=now.isoformat())
    assert await limits.refused("GetReservation", **named("r-1")) == ("NOT_FOUND", "RESERVATION_NOT_FOUND")
    first = await limits.reserve("r-1", expireTime=soon)
    clock.advance(timedelta(seconds=31))
    assert await limits.reserve("r-1", expireTime=soon) == {**first, "replayed": True}
    extension = {**named("r-1"), "expireTime": soon}
    assert await limits.refused("ExtendReservation", **extension) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    settled = await limits.call("SettleReservation", **named("r-1"))
    assert settled["reservation"]["state"] == "RESERVATION_STATE_SETTLED"


async def test_same_reservation_gets_its_first_answer_and_another_is_refused(limits: Limits) -> None:
    first = await limits.reserve("r-1", "8")
    denied = await limits.reserve("r-2", "8")
    await limits.call("ReleaseReservation", **named("r-1"))
    assert (await limits.reserve("r-1", "8"))["decision"] == first["decision"]
    assert (await limits.reserve("r-2", "8"))["decision"] == denied["decision"]
    assert await limits.refused("ReserveUsage", reservationId="r-1", usage=usage("7")) == (
        "ALREADY_EXISTS",
        "RESERVATION_CONFLICT",
    )


async def test_reservation_is_extended_released_read_and_listed(limits: Limits) -> None:
    for number in range(3):
        await limits.reserve(f"r-{number}", "1")
    extended = await limits.call("ExtendReservation", **named("r-1"), ttl="3600s")
    assert (await limits.call("GetReservation", **named("r-1"))) == extended
    released = await limits.call("ReleaseReservation", **named("r-0"))
    assert released["reservation"]["state"] == "RESERVATION_STATE_RELEASED"
    assert await limits.call("ReleaseReservation", **named("r-0")) == {**released, "replayed": True}
    again = {**named("r-1"), "expireTime": extended["reservation"]["expireTime"]}
    assert await limits.call("ExtendReservation", **again) == {**extended, "replayed": True}
    found, token = [], ""
    while True:
        page = await limits.call("ListReservations", customerId="acme", pageSize=2, pageToken=token)
        found += page["reservations"]
        if not (token := page.get("nextPageToken", "")):
            break
    assert [one["reservationId"] for one in found] == ["r-0", "r-1", "r-2"]
    assert found[1] == extended["reservation"]
    opened = await limits.call("ListReservations", customerId="acme", states=["RESERVATION_STATE_OPEN"])
    assert [one["reservationId"] for one in opened["reservations"]] == ["r-1", "r-2"]
    assert await limits.call("ListReservations", customerId="other") == {}


async def test_what_cannot_be_done_has_a_reason(limits: Limits) -> None:
    not_found = ("NOT_FOUND", "RESERVATION_NOT_FOUND")
    for method in ("GetReservation", "SettleReservation", "ReleaseReservation", "ExtendReservation"):
        assert await limits.refused(method, **named("none")) == not_found
    await limits.reserve("r-1")
    await limits.call("SettleReservation", **named("r-1"))
    ended = ("FAILED_PRECONDITION", "RESERVATION_ENDED")
    for method in ("ReleaseReservation", "ExtendReservation"):
        assert await limits.refused(method, **named("r-1")) == ended
    assert await limits.refused("SettleReservation", **named("r-1"), quantity="5") == ended
    await limits.reserve("r-2")
    assert await limits.refused("SettleReservation", **named("r-2"), cost="1") == (
        "FAILED_PRECONDITION",
        "RESERVATION_WITHOUT_COST",
    )
    await limits.reserve("e-1")
    await limits.caller.send(limits.caller.event("e-1", "1"), limits.caller.event("e-2", "1"))
    taken = ("ALREADY_EXISTS", "EVENT_CONFLICT")
    assert await limits.refused("SettleReservation", **named("e-1")) == taken
    shown = await limits.call("GetReservation", **named("e-1"))
    assert shown["reservation"]["state"] == "RESERVATION_STATE_RELEASED"
    assert await limits.refused("ReserveUsage", **reserve("e-2")["reserve"]) == taken
    for bad in ({"usage": usage("-1")}, {"usage": usage(), "overagePolicy": 9}, {}):
        assert await limits.refused("CheckUsage", **bad) == ("INVALID_ARGUMENT", "INVALID_FIELD")


async def test_batch_checks_each_usage_of_each_customer(limits: Limits) -> None:
    await put_limit(limits.caller, "5", "of-soft", customer="soft", enforcement=SOFT)
    await limits.reserve("r-1", "10")
    answer = await limits.call(
        "BatchCheckUsage",
        customerIds=["acme", "soft", "free"],
        usages=[{"metricId": "calls", "quantity": "6"}, {"metricId": "other", "quantity": "1"}],
    )
    assert [one["customerId"] for one in answer["customers"]] == ["acme", "soft", "free"]
    outcomes = [
        [check["decision"]["outcome"].rpartition("_")[2] for check in one["checks"]] for one in answer["customers"]
    ]
    assert outcomes == [["DENIED", "ALLOWED"], ["ALLOWED", "ALLOWED"], ["ALLOWED", "ALLOWED"]]
    assert [one["limitId"] for one in answer["customers"][1]["checks"][0]["decision"]["over"]] == ["of-soft"]
    assert "limit" not in answer["customers"][2]["checks"][0]["decision"]
    assert time_of(answer["validUntilTime"]) - time_of(answer["updateTime"]) == timedelta(seconds=5)
    for bad in (
        {"customerIds": [], "usages": [{"metricId": "calls", "quantity": "1"}]},
        {"customerIds": ["a", "a"], "usages": [{"metricId": "calls", "quantity": "1"}]},
        {"customerIds": ["a"], "usages": []},
        {"customerIds": [f"c{number}" for number in range(101)], "usages": [{"metricId": "calls", "quantity": "1"}]},
    ):
        assert await limits.refused("BatchCheckUsage", **bad) == ("INVALID_ARGUMENT", "INVALID_FIELD")


async def test_open_reservations_are_measured_and_those_whose_grace_has_ended(limits: Limits) -> None:
    database = Database(limits.caller.database_url)
    try:
        before = await backlog_of(database)
        for reservation_id in ("r-1", "r-2"):
            await limits.reserve(reservation_id, ttl="1s")
        await limits.call("SettleReservation", **named("r-2"))
        after = await backlog_of(database)
    finally:
        await database.close()
    assert after.reservations == before.reservations + 1
    assert after.next_expiry is not None


async def backlog_of(database: Database) -> Backlog:
    """What waits on the database."""
    async with database.transaction() as connection:
        return await backlog.read(connection)


async def test_event_settles_a_reservation_and_its_answer_says_which_limits_are_passed(limits: Limits) -> None:
    await limits.reserve("r-1", "4")
    event = limits.caller.event("e-1", "6")
    event.reservation_id = "r-1"
    settled = await limits.caller.send(event)
    assert settled.accepted == 1
    assert not settled.over_limits
    after = (await limits.call("GetReservation", **named("r-1")))["reservation"]
    assert after["state"] == "RESERVATION_STATE_SETTLED"
    assert await limits.remaining() == "4"
    passed = await limits.caller.send(*(limits.caller.event(f"e-{number}", "3") for number in (2, 3, 4)))
    assert passed.accepted == 3
    [over] = passed.over_limits
    assert (over.limit_id, over.counted, over.remaining) == ("limit", "15", "-5")
    assert over.reset_time == over.window_end_time


# --- the stream ---------------------------------------------------------------------------------------------


async def test_stream_decides_the_requests_of_a_message_in_their_order(limits: Limits) -> None:
    """And then reads its checks."""
    stream = limits.open("EnforceUsage")
    await stream.write(
        message(
            "b-1",
            reserve("r-1", "8"),
            {"check": {"usage": usage("6")}},
            reserve("r-2", "3"),
            {"settle": {**named("r-1"), "quantity": "5"}},
            reserve("r-3", "3"),
            {"extend": {**named("r-3"), "ttl": "300s"}},
            {"release": named("r-3")},
            {"release": named("none")},
            reserve("r-4", "x"),
            {},
        )
    )
    answer = await next_of(stream)
    assert answer["batchId"] == "b-1"
    await stream.write(message("b-2", reserve("r-5", "5")))
    results = answer["results"]
    assert [next(iter(one)) for one in results] == [
        *("reserve", "check", "reserve", "settle", "reserve", "extend", "release", "error", "error", "error")
    ]
    answers = [answer for one in results for answer in one.values() if "decision" in answer]
    outcomes = [answer["decision"]["outcome"].rpartition("_")[2] for answer in answers]
    assert outcomes == ["ALLOWED", "DENIED", "DENIED", "ALLOWED", "ALLOWED"]
    assert results[0]["reserve"]["reservation"]["reservationId"] == "r-1"
    assert "usage" not in results[0]["reserve"]["reservation"]
    reasons = [one["error"]["details"][0]["reason"].removeprefix("ERROR_REASON_") for one in results[7:]]
    assert reasons == ["RESERVATION_NOT_FOUND", "INVALID_FIELD", "INVALID_FIELD"]
    assert results[8]["error"]["details"][1]["fieldViolations"][0]["field"] == "requests[8].reserve.usage.quantity"
    second = await next_of(stream)
    assert (second["batchId"], second["results"][0]["reserve"]["decision"]["outcome"]) == (
        "b-2",
        "DECISION_OUTCOME_ALLOWED",
    )
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


@pytest.mark.parametrize(
    ("number", "reason"), [(0, "BATCH_EMPTY"), (1_001, "BATCH_TOO_LARGE")], ids=["empty", "too large"]
)
async def test_message_that_is_wrong_ends_the_stream_after_the_answers_before_it(
    limits: Limits, number: int, reason: str
) -> None:
    stream = limits.open("EnforceUsage")
    await stream.write(message("b-1", reserve("r-1")))
    await stream.write(message("b-2", *(reserve(f"r-{one}") for one in range(number))))
    assert (await next_of(stream))["batchId"] == "b-1"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await next_of(stream)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(raised.value) == f"ERROR_REASON_{reason}"


async def test_large_message_is_answered_in_full_and_then_in_short(limits: Limits) -> None:
    stream = limits.open("EnforceUsage")
    long = "ü" * 120
    names = [f"{long}-{number}" for number in range(1_000)]
    await stream.write(message("b-1", *(reserve(name, customer_id=name) for name in names)))
    async with within("an answer"):
        answer = await stream.read()
    assert len(answer.results) == 1_000
    assert answer.ByteSize() < 2 * 1024 * 1024
    outcomes = {one.reserve.decision.outcome for one in answer.results}
    assert len(outcomes) == 1
    named_in_full = [one.reserve.reservation.reservation_id for one in answer.results]
    assert named_in_full[0] == names[0]


# --- watches ------------------------------------------------------------------------------------------------


async def test_watch_shows_each_decision_and_then_those_that_change(limits: Limits) -> None:
    stream = limits.open("WatchDecisions", watched("acme", "free"))
    assert await remaining_of(stream) == {"acme": "10", "free": ""}
    await limits.reserve("r-1", "4")
    assert await remaining_of(stream) == {"acme": "6"}
    await limits.call("SettleReservation", **named("r-1"), quantity="1")
    assert await remaining_of(stream) == {"acme": "9"}
    await put_limit(limits.caller, "3", enforcement=HARD)
    assert await remaining_of(stream) == {"acme": "2"}
    await limits.reserve("r-2", "2")
    answer = await next_of(stream)
    [one] = answer["decisions"]
    assert one["decision"]["outcome"] == "DECISION_OUTCOME_DENIED"
    stream.cancel()


async def test_watch_of_too_much_is_refused(limits: Limits) -> None:
    many = watched(*(f"c-{number}" for number in range(1_000)))
    for number in range(10):
        many.usages.add(metric_id=f"m-{number}", quantity="1")
    stream = limits.open("WatchDecisions", many)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await next_of(stream)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_many_watchers_of_the_same_customers_see_the_same(limits: Limits) -> None:
    streams = [limits.open("WatchDecisions", watched("acme", f"c-{number}")) for number in range(4)]
    for stream in streams:
        assert (await remaining_of(stream))["acme"] == "10"
    await limits.reserve("r-1", "7")
    assert await asyncio.gather(*map(remaining_of, streams)) == [{"acme": "3"}] * 4
    for stream in streams:
        stream.cancel()
