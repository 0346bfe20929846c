"""Containment: an event that cannot be recorded is rejected by index and does not affect other events and streams."""

import asyncio
from datetime import timedelta

import pytest

from engine.ingest import containment
from engine.limits import BackfillLimits, EngineLimits, IngestLimits
from evaluator.alerts import AlertRule
from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from store.alerts import active_rules
from store.postgres.database import DriverConnection
from tests.support.usage.caller import (
    Caller,
    Refusal,
    everything,
    on_customer,
    refusals,
    shortened,
    until,
    usage_alert,
    values,
)
from tests.support.usage.failed_evaluations import operator_events
from tests.support.usage.refusing import refusing
from tests.support.usage.writers import customers_of_writers

Request = alert_service_pb2.EvaluateUsageRequest


def internal(*places: int) -> list[Refusal]:
    """The rejections of events that could not be recorded."""
    return [Refusal(at, "INTERNAL", "INTERNAL") for at in places]


async def test_notification_that_cannot_be_stored_rejects_only_its_crossing_event(caller: Caller) -> None:
    bad = await caller.create(usage_alert("10", scope=on_customer("bad")))
    await caller.create(usage_alert("10", scope=on_customer("good")))
    sent = [
        caller.event("b1", "4", "bad"),
        caller.event("g1", "4", "good"),
        caller.event("b2", "7", "bad"),  # would reach the threshold
        caller.event("b3", "5", "bad"),  # does not reach it, since the event before is rejected
        caller.event("g2", "6", "good"),
        caller.event("b4", "-1", "bad"),
    ]
    async with refusing(caller, "notification", f"alert_id = '{bad.alert_id}'"):
        answer = await caller.send(*sent, gauges=True)
        assert refusals(answer) == internal(2)
        assert "secret" not in str(answer)
        assert answer.accepted == 5
        assert values(answer.gauges) == {("bad", "calls"): 8, ("good", "calls"): 10}
        assert [one.gauge.customer_id for one in answer.transitions] == ["good"]
        assert [one.customer_id for one in await caller.notifications()] == ["good"]
        # The event fails as long as the fault lasts, and is reported once an hour.
        assert refusals(await caller.send(sent[2])) == internal(0)
    answer = await caller.send(*sent, gauges=True)
    assert (answer.accepted, answer.duplicates, len(answer.rejected)) == (1, 5, 0)
    assert values(answer.gauges) == {("bad", "calls"): 15}
    assert sorted(one.customer_id for one in await caller.notifications()) == ["bad", "good"]
    [reported] = await operator_events(caller)
    assert reported["data"] == {"alert_id": bad.alert_id, "customer_id": "bad", "event_id": "b2"}


async def test_failed_evaluation_is_reported_again_after_an_hour(caller: Caller) -> None:
    bad = await caller.create(usage_alert("1"))
    async with refusing(caller, "notification", f"alert_id = '{bad.alert_id}'"):
        for hours in (0, 0, 1):
            caller.clock.advance(timedelta(hours=hours))  # type: ignore[attr-defined]
            assert refusals(await caller.send(caller.event("e1"))) == internal(0)
    assert len(await operator_events(caller)) == 2


async def test_failing_alert_on_many_customers_costs_few_commits(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = counted_commits(monkeypatch)
    bad = await caller.create(usage_alert("10"))
    customers = [f"c{number}" for number in range(150)]
    writers = len(customers_of_writers(caller.database_url, customers))
    sent = [caller.event(f"e{turn}", "6", customer) for turn in range(3) for customer in customers]
    async with refusing(caller, "notification", f"alert_id = '{bad.alert_id}'"):
        answer = await caller.send(*sent)
    # The first event of each customer counts; each other one would reach the threshold.
    assert refusals(answer) == internal(*range(150, 450))
    assert answer.accepted == 150
    assert len(commits) <= 2 * writers
    assert (await caller.send(*sent)).accepted == 300
    assert len(await caller.notifications()) == 150


async def test_event_that_cannot_be_stored_is_found_by_bisection(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = counted_commits(monkeypatch)
    sent = [caller.event(f"e{number}", customer="acme") for number in range(1_000)]
    async with refusing(caller, "event", "event_id = 'e700'"):
        answer = await caller.send(*sent)
    assert refusals(answer) == internal(700)
    assert answer.accepted == 999
    assert len(commits) <= 22  # 2 · log2(1,000) and the first
    assert (await caller.send(*sent)).accepted == 1


@pytest.mark.parametrize("engine_limits", [EngineLimits(ingest=IngestLimits(containment_commits=40))])
@pytest.mark.parametrize("table", ["event", "gauge", "customer"])
async def test_customer_that_cannot_be_recorded_does_not_affect_other_customers(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """Its many events are between those of others: bisection by position would use up all commits."""
    commits = counted_commits(monkeypatch)
    await caller.create(usage_alert("1000"))
    sent = [caller.event(f"e{turn}", customer=f"c{number}") for turn in range(30) for number in range(10)]
    async with refusing(caller, table, "customer_id = 'c3'"):
        answer = await caller.send(*sent, gauges=True)
    assert refusals(answer) == internal(*range(3, 300, 10))
    assert answer.accepted == 270
    assert values(answer.gauges) == {(f"c{number}", "calls"): 30 for number in range(10) if number != 3}
    assert len(commits) <= 2 * 40  # by two writers
    answer = await caller.send(*sent, gauges=True)
    assert (answer.accepted, answer.duplicates) == (30, 270)
    assert await caller.event_count("c3") == 30


@pytest.mark.parametrize("engine_limits", [EngineLimits(ingest=IngestLimits(containment_commits=60))])
async def test_failing_customers_share_the_remaining_commits(caller: Caller) -> None:
    names = customers_of_writers(caller.database_url, (f"c{number}" for number in range(20)))[0][:3]
    spoilt, single, _ = names  # of one writer
    # Nine in ten events of `spoilt` cannot be stored, and one event of `single`.
    sent = [caller.event(f"e{number}", customer=name) for number in range(60) for name in names]
    of_spoilt = f"customer_id = '{spoilt}' AND right(event_id, 1) <> '0'"
    of_single = f"customer_id = '{single}' AND event_id = 'e33'"
    async with refusing(caller, "event", f"{of_spoilt} OR {of_single}"):
        answer = await caller.send(*sent)
    refused = {sent[one.at].customer_id: one.at for one in refusals(answer)}
    assert refused.keys() == {spoilt, single}
    assert [one.at for one in refusals(answer) if sent[one.at].customer_id == single] == [33 * 3 + 1]


async def test_log_has_one_traceback_when_many_events_fail_for_one_cause(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    async with refusing(caller, "event", "true"):
        answer = await caller.send(*(caller.event(f"e{number}") for number in range(5)))
    assert refusals(answer) == internal(*range(5))
    failed = [record for record in caplog.records if "could not be recorded" in record.message]
    assert len(failed) == 5
    assert [bool(record.exc_info) for record in failed] == [True, False, False, False, False]


async def test_events_of_a_customer_keep_their_order_when_the_commit_is_divided(caller: Caller) -> None:
    await caller.create(usage_alert("10"))
    quantities = ["6", "6", "-9", "9", "1", "-4", "2"]
    sent = [caller.event(f"e{number}", quantity) for number, quantity in enumerate(quantities)]
    async with refusing(caller, "event", "event_id = 'e4'"):
        answer = await caller.send(*sent, gauges=True)
    assert refusals(answer) == internal(4)
    assert [(one.event_id, one.value) for one in answer.transitions] == [
        ("e1", "12"),
        ("e2", "3"),
        ("e3", "12"),
        ("e5", "8"),
        ("e6", "10"),
    ]
    assert values(answer.gauges) == {("acme", "calls"): 10}


@pytest.mark.parametrize("engine_limits", [EngineLimits(ingest=IngestLimits(containment_commits=10))])
async def test_containment_stops_at_its_limit_of_commits(caller: Caller) -> None:
    async with refusing(caller, "event", "true"):
        answer = await caller.send(*(caller.event(f"e{number}") for number in range(100)))
    assert refusals(answer) == internal(*range(100))
    assert await caller.event_count() == 0


async def test_failing_alert_does_not_affect_other_streams(caller: Caller) -> None:
    bad = await caller.create(usage_alert("1", scope=on_customer("bad")))
    streams = [caller.stream() for _ in range(6)]

    async def use(number: int) -> None:
        customer = "bad" if number == 0 else f"c{number}"
        for turn in range(5):
            await streams[number].write(
                Request(batch=usage_pb2.UsageBatch(events=[caller.event(f"e{turn}", customer=customer)]))
            )

    async with refusing(caller, "notification", f"alert_id = '{bad.alert_id}'"):
        await asyncio.gather(*map(use, range(6)))
        ends = await asyncio.gather(*map(everything, streams))
    assert all(error is None for _, error in ends)
    accepted = [[answer.outcome.accepted for answer in answers if not answer.heartbeat] for answers, _ in ends]
    assert accepted == [[0] * 5] + [[1] * 5] * 5


async def test_failed_commit_keeps_cached_rules_and_forgets_the_customers_it_registered(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.create(usage_alert("100"))
    await caller.send(caller.event("e0", customer="known"))
    read: list[AlertRule] = []
    wide_rules = active_rules.wide_rules

    async def recorded(connection: DriverConnection, organization_id: int) -> list[AlertRule]:
        found = await wide_rules(connection, organization_id)
        read.extend(found)
        return found

    monkeypatch.setattr(active_rules, "wide_rules", recorded)
    new = caller.event("e1", customer="new", metric="fresh", subscription="s")
    async with refusing(caller, "event", "event_id = 'e1'"):
        assert refusals(await caller.send(new)) == internal(0)
        assert (await caller.send(caller.event("e1b", customer="known"))).accepted == 1
    assert (
        await caller.rows(
            "SELECT 1 FROM customer WHERE organization_id = %(organization_id)s AND customer_id = 'new'"
        )
        == []
    )
    assert (await caller.send(new)).accepted == 1
    for table in ("customer", "subscription"):
        query = f"SELECT 1 FROM {table} WHERE organization_id = %(organization_id)s AND customer_id = 'new'"
        assert len(await caller.rows(query)) == 1
    assert (
        len(
            await caller.rows(
                "SELECT 1 FROM metric WHERE organization_id = %(organization_id)s AND metric_id = 'fresh'"
            )
        )
        == 1
    )
    assert not read


def counted_commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets one element for each commit that containment tries."""
    commits: list[int] = []
    init = containment.Containment.__init__

    def counting(self: containment.Containment, attempt: object, batches: object, max_commits: int) -> None:
        async def one(parts: object) -> object:
            commits.append(1)
            return await attempt(parts)  # type: ignore[operator]

        init(self, one, batches, max_commits)  # type: ignore[arg-type]

    monkeypatch.setattr(containment.Containment, "__init__", counting)
    return commits


@pytest.mark.parametrize("engine_limits", [EngineLimits(backfills=BackfillLimits(customers_per_step=8))])
async def test_backfill_continues_past_a_customer_that_cannot_be_evaluated(caller: Caller) -> None:
    for number in range(20):
        await caller.send(caller.event("e", "5", f"c{number:02}"))
    async with refusing(caller, "notification", "customer_id = 'c05'"):
        alert = await caller.create_only(usage_alert("5"))

        async def others_have_notified() -> bool:
            return len(await caller.notifications()) == 19

        await until(others_have_notified)
        [reported] = await operator_events(caller)
        assert reported["data"] == {"alert_id": alert.alert_id, "customer_id": "c05"}
    # The next event of the customer evaluates what the backfill could not.
    answer = await caller.send(caller.event("later", "1", "c05"))
    assert [(one.level, one.value) for one in answer.transitions] == [("5", "5")]
    assert len(await caller.notifications()) == 20


async def test_other_customers_of_a_stream_do_not_wait_while_a_failed_commit_is_divided(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the same writer. Later events of the customer itself wait, and count after the earlier ones."""
    bad, other, *_ = customers_of_writers(caller.database_url, (f"c{number}" for number in range(20)))[0]
    await caller.create(usage_alert("10", scope=on_customer(bad)))
    dividing, may_divide, commit = asyncio.Event(), asyncio.Event(), containment.Containment.commit

    async def held(self: containment.Containment) -> containment.Contained:
        dividing.set()
        await may_divide.wait()
        return await commit(self)

    monkeypatch.setattr(containment.Containment, "commit", held)
    async with refusing(caller, "event", "event_id = 'poison'"):
        first = asyncio.create_task(
            caller.send(caller.event("b1", "4", bad), caller.event("poison", "5", bad), caller.event("b2", "5", bad))
        )
        await dividing.wait()
        later = asyncio.create_task(caller.send(caller.event("b3", "1", bad)))
        assert (await caller.send(caller.event("last", "1", other))).accepted == 1
        assert not first.done()
        assert not later.done()
        may_divide.set()
        answer = await first
        assert (answer.accepted, refusals(answer)) == (2, internal(1))
        assert [one.event_id for one in shortened((await later).transitions)] == ["b3"]
