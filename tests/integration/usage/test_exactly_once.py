"""An event counts exactly once: repeated in a batch, on other streams and servers, concurrently, and in conflicts."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import (
    Caller,
    Outcome,
    Refusal,
    ShortTransition,
    beside,
    ingest_held,
    on_customer,
    refusals,
    settings,
    shortened,
    spend_alert,
    usage_alert,
    values,
    waiting_for_locks,
)

pytestmark = shares_server


@pytest.fixture(scope="module", params=[True, False], ids=["native", "python"])
def native_decoder(request: pytest.FixtureRequest) -> bool:
    """Both ways to decode usage. The second server of a test decodes natively."""
    return bool(request.param)


def counts(answer: Outcome) -> tuple[int, int, int]:
    """How many events were accepted, duplicates and rejected."""
    return answer.accepted, answer.duplicates, len(answer.rejected)


async def test_event_repeated_in_one_batch_counts_once(caller: Caller) -> None:
    await caller.create(usage_alert("100"))
    event = caller.event("e1", "5")
    answer = await caller.send(event, caller.event("e2", "7"), event, event, gauges=True)
    assert counts(answer) == (2, 2, 0)
    assert values(answer.gauges) == {("acme", "calls"): 12}
    assert await caller.event_count() == 2


async def test_same_event_id_of_two_customers_counts_for_both(caller: Caller) -> None:
    await caller.create(usage_alert("100"))
    answer = await caller.send(caller.event("e1", "5"), caller.event("e1", "7", "beta"), gauges=True)
    assert counts(answer) == (2, 0, 0)
    assert values(answer.gauges) == {("acme", "calls"): 5, ("beta", "calls"): 7}


async def test_resent_batch_counts_nothing_and_notifies_nothing(caller: Caller) -> None:
    await caller.create(usage_alert("10"))
    events = [caller.event(f"e{number}", "3") for number in range(5)]
    first = await caller.send(*events)
    assert shortened(first.transitions) == [ShortTransition("REACHED", "10", "9", "12", "e3")]
    again = await caller.send(*events, gauges=True)
    assert counts(again) == (0, 5, 0)
    assert not again.transitions
    assert not again.gauges
    assert len(await caller.notifications()) == 1
    after = await caller.send(caller.event("e9", "1"), gauges=True)
    assert values(after.gauges) == {("acme", "calls"): 16}


async def test_new_events_of_a_resent_batch_count_and_reach_thresholds(caller: Caller) -> None:
    await caller.create(usage_alert("10"))
    await caller.send(caller.event("e1", "4"), caller.event("e2", "4"))
    answer = await caller.send(*(caller.event(event_id, "4") for event_id in ("e1", "e3", "e2", "e4")), gauges=True)
    assert counts(answer) == (2, 2, 0)
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "8", "12", "e3")]
    assert values(answer.gauges) == {("acme", "calls"): 16}


async def test_large_resent_batch_counts_only_its_new_events(caller: Caller) -> None:
    await caller.create(usage_alert("1000000"))
    customers = [f"c{number}" for number in range(50)]
    old = [caller.event(f"e{number}", "2", customers[number % 50]) for number in range(5_000)]
    assert counts(await caller.send(*old)) == (5_000, 0, 0)
    new = [caller.event(f"n{number}", "3", customers[number]) for number in range(50)]
    mixed = [event for number in range(50) for event in (new[number], *old[number * 99 : (number + 1) * 99])]
    answer = await caller.send(*mixed, gauges=True)
    assert counts(answer) == (50, 4_950, 0)
    assert values(answer.gauges) == {(customer, "calls"): 203 for customer in customers}
    assert await caller.event_count() == 5_050


async def test_large_batch_with_a_few_stored_events_counts_the_others(caller: Caller) -> None:
    await caller.create(usage_alert("4995"))
    customers = [f"c{number}" for number in range(50)]
    events = [caller.event(f"e{number}", "1", customers[number % 50]) for number in range(5_000)]
    stored = [events[number] for number in (0, 2_222, 4_999)]
    assert counts(await caller.send(*stored)) == (3, 0, 0)
    conflict = caller.event("e1", "7", customers[1])
    assert counts(await caller.send(conflict)) == (1, 0, 0)
    answer = await caller.send(*events, gauges=True)
    assert counts(answer) == (4_996, 3, 1)
    assert values(answer.gauges) == {(customer, "calls"): 106 if customer == "c1" else 100 for customer in customers}
    assert await caller.event_count() == 5_000
    assert counts(await caller.send(*events)) == (0, 4_999, 1)


async def test_resend_on_another_stream_or_server_counts_nothing(caller: Caller) -> None:
    await caller.create(usage_alert("100"))
    events = [caller.event(f"e{number}") for number in range(3)]
    request = alert_service_pb2.EvaluateUsageRequest(batch=usage_pb2.UsageBatch(events=events, include_gauges=True))
    for expected in ((3, 0, 0), (0, 3, 0)):
        stream = caller.stream()
        await stream.write(request)
        answer = await stream.read()
        assert isinstance(answer, alert_service_pb2.EvaluateUsageResponse)
        assert counts(answer.outcome) == expected
        stream.cancel()
    async with beside(caller) as other:
        assert counts(await other.send(*events)) == (0, 3, 0)
        answer = await other.send(other.event("e9"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 4}


async def test_concurrent_retries_count_once(caller: Caller) -> None:
    await caller.create(usage_alert("5"))
    events = [caller.event(f"e{number}", "2", customer) for customer in ("acme", "beta") for number in range(4)]
    async with beside(caller) as other:
        async with ingest_held(caller):
            tries = [asyncio.create_task(one.send(*events)) for one in (caller, other, caller, other)]
            await waiting_for_locks(caller, 2)
        answers = await asyncio.gather(*tries)
    assert sum(answer.accepted for answer in answers) == 8
    assert sum(answer.duplicates for answer in answers) == 24
    assert sum(len(answer.transitions) for answer in answers) == 2
    assert [(one.customer_id, one.transitions) for one in await caller.notifications()] == [
        (customer, [ShortTransition("REACHED", "5", "4", "6", "e2")]) for customer in ("acme", "beta")
    ]
    answer = await caller.send(caller.event("e9"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 9}


async def test_retry_counts_when_the_open_first_attempt_rolls_back(caller: Caller) -> None:
    await caller.create(usage_alert("5"))
    await caller.send(caller.event("e0"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        await connection.execute(
            "INSERT INTO event (organization_id, customer_id, event_id, event_time, ingest_time, metric_id, quantity)"
            " VALUES (%s, 'acme', 'e1', %s, %s, 'calls', 9)",
            (organization_id, caller.clock.now(), caller.clock.now()),
        )
        retry = asyncio.create_task(caller.send(caller.event("e1", "9"), gauges=True))
        await waiting_for_locks(caller)
        await connection.rollback()
    answer = await retry
    assert counts(answer) == (1, 0, 0)
    assert values(answer.gauges) == {("acme", "calls"): 10}


CHANGES: dict[str, dict[str, str]] = {
    "quantity": {"quantity": "6"},
    "metric_id": {"metric": "tokens"},
    "subscription_id": {"subscription": "other"},
    "no subscription_id": {"subscription": ""},
    "cost": {"cost": "1.26"},
    "no cost": {"cost": "", "currency": ""},
    "currency": {"currency": "EUR"},
    "a property's value": {"region": "us"},
    "another property": {"zone": "a"},
    "event_time": {},
}


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in two batches"])
async def test_same_event_id_with_different_content_is_rejected(caller: Caller, changed: str, together: bool) -> None:
    await caller.create(usage_alert("100"))
    original = {"quantity": "5", "subscription": "pro", "cost": "1.25", "currency": "USD", "region": "eu"}
    time = caller.clock.now() - timedelta(hours=1)
    first = caller.event("e1", at=time, **original)
    other = caller.event("e1", at=time, **(original | CHANGES[changed]))
    if changed == "event_time":
        other.event_time.CopyFrom(to_timestamp(time + timedelta(microseconds=1)))
    neighbours = [caller.event(f"n{number}") for number in range(2)]
    if together:
        answer = await caller.send(first, neighbours[0], other, neighbours[1], gauges=True)
        assert refusals(answer) == [Refusal(2, "ALREADY_EXISTS", "EVENT_CONFLICT")]
        assert answer.rejected[0].event_id == "e1"
        assert counts(answer) == (3, 0, 1)
    else:
        await caller.send(first)
        answer = await caller.send(neighbours[0], other, neighbours[1], gauges=True)
        assert refusals(answer) == [Refusal(1, "ALREADY_EXISTS", "EVENT_CONFLICT")]
        assert counts(answer) == (2, 0, 1)
    assert values(answer.gauges) == {("acme", "calls"): 7}
    assert await caller.event_count() == 3
    assert counts(await caller.send(first)) == (0, 1, 0)


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in two batches"])
async def test_same_content_in_another_notation_is_a_duplicate(caller: Caller, together: bool) -> None:
    time = caller.clock.now()
    first = caller.event("e1", "5", cost="1.5", at=time, b="2", a="1")
    same = [
        caller.event("e1", "5.0", cost="1.500", at=time, a="1", b="2"),
        caller.event("e1", "005", cost="1.5", currency="USD", at=time, a="1", b="2"),
        usage_pb2.UsageEvent.FromString(first.SerializeToString()),
    ]
    same[2].event_time.nanos += 999  # times are kept to the microsecond
    if together:
        assert counts(await caller.send(first, *same)) == (1, 3, 0)
        assert counts(await caller.send(*reversed(same))) == (0, 3, 0)
    else:
        await caller.send(first)
        assert [counts(await caller.send(one)) for one in same] == [(0, 1, 0)] * 3
    assert await caller.event_count() == 1


async def test_event_without_currency_conflicts_with_the_same_event_in_another_currency(caller: Caller) -> None:
    await caller.create(spend_alert("100"))
    silent, euros = caller.event("e1", cost="5"), caller.event("e1", cost="5", currency="EUR")
    assert refusals(await caller.send(silent, euros)) == [Refusal(1, "ALREADY_EXISTS", "EVENT_CONFLICT")]
    assert refusals(await caller.send(euros)) == [Refusal(0, "ALREADY_EXISTS", "EVENT_CONFLICT")]
    answer = await caller.send(caller.event("e2", cost="1"), gauges=True)
    assert values(answer.gauges) == {("acme", "USD"): 6}


async def test_resend_is_a_duplicate_beside_a_conflict_with_the_same_event_id(caller: Caller) -> None:
    """Also when they share a commit: each event is compared with the stored one."""
    await caller.send(caller.event("e1", "5"), caller.event("e2", "5"))
    wrong, right = caller.event("e1", "6"), caller.event("e1", "5")
    answer = await caller.send(wrong, right, wrong, caller.event("e3"), caller.event("e2", "5"))
    assert refusals(answer) == [Refusal(at, "ALREADY_EXISTS", "EVENT_CONFLICT") for at in (0, 2)]
    assert counts(answer) == (1, 2, 2)
    async with ingest_held(caller):
        blocking = asyncio.create_task(caller.send(caller.event("e4")))
        await waiting_for_locks(caller)
        both = [asyncio.create_task(caller.send(event)) for event in (wrong, right)]
    assert [counts(answer) for answer in await asyncio.gather(blocking, *both)] == [(1, 0, 0), (0, 0, 1), (0, 1, 0)]


@own_server
async def test_event_identity_holds_within_one_calendar_month(caller: Caller, clock: ManualClock) -> None:
    """The documented limit of an identity: events of different months are in different partitions."""
    clock.set(datetime(2026, 4, 1, 0, 5, tzinfo=UTC))
    await caller.create(usage_alert("100"))
    march = datetime(2026, 3, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    april = datetime(2026, 4, 1, tzinfo=UTC)
    first, earlier, other_month = (
        caller.event("e1", "5", at=time) for time in (march, march - timedelta(days=30), april)
    )
    await caller.send(first)
    assert refusals(await caller.send(earlier)) == [Refusal(0, "ALREADY_EXISTS", "EVENT_CONFLICT")]
    assert counts(await caller.send(other_month)) == (1, 0, 0)
    assert [counts(await caller.send(one)) for one in (first, other_month)] == [(0, 1, 0)] * 2
    assert await caller.event_count() == 2


async def test_customer_registered_beside_a_duplicate_is_covered_by_later_alerts(caller: Caller) -> None:
    async with beside(caller, settings(ingest_writers=1)) as one_writer:
        await one_writer.send(caller.event("e1"))
        answer = await one_writer.send(
            caller.event("e1"),
            caller.event("e1", "50", "beta", subscription="beta-pro", metric="tokens"),
            gauges=True,
        )
        assert counts(answer) == (1, 1, 0)
        alert = await caller.create(usage_alert("10", metric="tokens", scope=on_customer("beta")))
        assert (await caller.state(alert.alert_id, "beta")).gauges[0].gauge.value == "50"
        [notification] = await caller.notifications()
        assert notification.transitions == [ShortTransition("REACHED", "10", "50", "50", "")]
        for table, name in (("customer", "beta"), ("subscription", "beta-pro"), ("metric", "tokens")):
            query = f"SELECT 1 FROM {table} WHERE organization_id = %(organization_id)s AND {table}_id = %(name)s"
            assert len(await caller.rows(query, name=name)) == 1, f"the {table} was not created"
