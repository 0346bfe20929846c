"""What the queue enforces when rows are claimed: pauses, rates, breakers, shares, turns; what operators hear."""

import asyncio
import dataclasses
import json
from collections import Counter
from datetime import timedelta

from sqlalchemy import select, text

from store.deliveries import claims as delivery_claims
from store.deliveries.claims import Claim, ClaimRequest
from store.deliveries.results import AttemptRecord
from store.endpoints.rows import EndpointState
from store.postgres.database import Database
from store.tables.webhooks import operator_event
from tests.support.notifier.delivery_queue import (
    claim,
    counters_match,
    delivered,
    failed,
    fan_out,
    record,
)
from tests.support.notifier.endpoint_rows import change, row_of
from tests.support.notifier.house import House
from webhooks.deliveries import AttemptOutcome, DeliveryStatus
from webhooks.health import BREAKER_THRESHOLD, HealthSignal


def throttled(claimed: Claim, retry_after: timedelta | None = None) -> AttemptRecord:
    return dataclasses.replace(
        failed(claimed),
        outcome=AttemptOutcome.THROTTLED,
        http_status=429,
        signal=HealthSignal.THROTTLED,
        retry_after=retry_after,
    )


async def test_back_pressure_makes_the_endpoint_wait_and_costs_no_step_of_the_schedule(house: House) -> None:
    created = await house.endpoint("https://example.com/hook")
    await house.notify(6)
    await fan_out(house)
    first, *others = await claim(house)
    await record(house, [throttled(first, timedelta(hours=1)), *map(delivered, others)])
    assert await claim(house) == [], "the endpoint waits, not only the delivery"
    waiting = await house.deliveries()
    throttled_one = next(item for item in waiting if item.delivery_id == first.delivery_id)
    assert (throttled_one.status, throttled_one.attempt_count) == (DeliveryStatus.PENDING, 1)
    [attempt] = await house.attempts(first.delivery_id)
    assert attempt.http_status == 429

    await change(house, created.endpoint.endpoint_id, not_before="now() - interval '1 second'")
    again = await claim(house)
    assert len(again) == 3
    step_of = {one.delivery_id: (one.attempt_count, one.schedule_step) for one in again}
    assert step_of[first.delivery_id] == (1, 0)
    assert await counters_match(house)


async def test_the_pause_of_one_endpoint_is_no_pause_of_another(house: House) -> None:
    paused = await house.endpoint("https://paused.example.com/")
    other = await house.endpoint("https://other.example.com/")
    await house.notify(3)
    await fan_out(house)
    await change(house, paused.endpoint.endpoint_id, not_before="now() + interval '1 hour'")
    assert {one.endpoint_id for one in await claim(house)} == {other.endpoint.endpoint_id}


async def test_an_endpoint_sets_its_own_share(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify(20)
    await fan_out(house)
    await change(house, max_in_flight=9)
    claims = await claim(house)
    assert len(claims) == 9
    await change(house, max_in_flight=2)
    await record(house, [delivered(one) for one in claims[:7]])
    assert await claim(house) == []
    await record(house, [delivered(claims[7])])
    assert len(await claim(house)) == 1


async def test_a_rate_is_a_bucket_that_all_notifiers_share(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify(20)
    await fan_out(house)
    # Slow enough that nothing comes in while the test runs.
    await change(house, max_in_flight=50, rate_per_second=3, token_time="now() - interval '1 hour'")
    claims = await asyncio.gather(*(claim(house) for _ in range(4)))
    await change(house, rate_per_second=0.001)
    assert 3 <= sum(map(len, claims)) <= 6
    assert await claim(house) == []
    await change(house, rate_per_second=0.001, tokens=0, token_time="now() - interval '1000 seconds'")
    assert len(await claim(house)) == 1
    assert await counters_match(house)


async def test_the_breaker_opens_lets_one_probe_through_and_brings_traffic_back_in_steps(house: House) -> None:
    created = await house.endpoint("https://example.com/hook")
    endpoint_id = created.endpoint.endpoint_id
    await house.notify(40)
    await fan_out(house)
    await change(house, max_in_flight=BREAKER_THRESHOLD + 2)
    *rest, late, later = await claim(house)
    await record(house, [failed(one) for one in rest])
    assert (await row_of(house, endpoint_id)).breaker_state == "OPEN"
    assert await claim(house) == []

    # The pause is over: one probe, however many claims are made, and none while older attempts are in flight.
    await change(house, endpoint_id, breaker_until="now() - interval '1 second'")
    assert await claim(house) == []
    await record(house, [failed(late), failed(later)])
    await change(house, endpoint_id, breaker_until="now() - interval '1 second'")
    probes = [one for claims in await asyncio.gather(*(claim(house) for _ in range(4))) for one in claims]
    assert len(probes) == 1
    assert await claim(house) == []
    await record(house, [failed(probes[0])])
    row = await row_of(house, endpoint_id)
    assert (row.breaker_state, row.breaker_openings) == ("OPEN", 2)
    assert await claim(house) == []

    await change(house, endpoint_id, breaker_until="now() - interval '1 second'")
    [probe] = await claim(house)
    await record(house, [delivered(probe)])
    sizes = []
    while True:
        claims = await claim(house)
        sizes.append(len(claims))
        if sum(sizes) >= 20:
            break
        await record(house, [delivered(one) for one in claims])
    assert sizes[0] == 2, "no herd when it closes"
    assert sorted(sizes) == sizes
    assert await counters_match(house)


async def test_each_result_of_a_batch_counts_in_the_order_of_the_attempts(house: House) -> None:
    created = await house.endpoint("https://example.com/hook")
    endpoint_id = created.endpoint.endpoint_id
    await house.notify(12)
    await fan_out(house)
    for results, failures in (
        ((delivered, delivered, delivered, failed), 1),  # a failure after successes that changed nothing
        ((failed, failed, delivered, failed), 1),
        ((delivered, delivered, failed, delivered), 0),
    ):
        records = [result(claimed) for result, claimed in zip(results, await claim(house), strict=True)]
        for number, one in enumerate(records):
            one.start_time += timedelta(milliseconds=number)
        await record(house, records[::-1])
        row = await row_of(house, endpoint_id)
        assert (row.breaker_failures, row.failure_count) == (failures, failures)
        assert (row.failing_since is None) == (failures == 0)


async def test_organizations_take_turns_however_many_endpoints_each_has(house: House) -> None:
    small = await House.build(house.database, house.clock, "small")
    for number in range(30):
        await house.endpoint(f"https://large.example.com/{number}")
    await small.endpoint("https://small.example.com/")
    await house.notify(5)
    await small.notify(5)
    for _ in range(2):
        await fan_out(house)
    served: Counter[int] = Counter()
    for _ in range(10):
        [one] = await claim(house, limit=1)
        served[one.organization_id] += 1
        await record(house, [delivered(one)])
    assert served == {house.organization_id: 5, small.organization_id: 5}


async def test_an_organization_that_has_enough_in_flight_is_passed_by(house: House) -> None:
    other = await House.build(house.database, house.clock, "other")
    await house.endpoint("https://one.example.com/")
    await other.endpoint("https://two.example.com/")
    await house.notify(3)
    await other.notify(3)
    await fan_out(house)
    async with house.database.transaction() as connection:
        request = ClaimRequest(100, timedelta(minutes=1), full_organizations=[house.organization_id])
        claims = await delivery_claims.claim(connection, request)
    assert {one.organization_id for one in claims} == {other.organization_id}


async def test_condition_filters_hold_when_deliveries_are_made(house: House) -> None:
    one = await house.endpoint("https://one.example.com/")
    two = await house.endpoint("https://two.example.com/")
    await change(house, one.endpoint.endpoint_id, condition_types=["spend_threshold_reached"])
    await change(house, two.endpoint.endpoint_id, condition_types=["usage_threshold_reached"])
    await house.notify()
    await fan_out(house)
    assert [item.endpoint_id for item in await house.deliveries()] == [one.endpoint.endpoint_id]


async def test_ten_concurrent_workers_disable_a_failing_endpoint_once(house: House, database_url: str) -> None:
    created = await house.endpoint("https://failing.example.com/")
    watching = await house.endpoint("https://watching.example.com/", ("endpoint.disabled", "endpoint.failing"))
    await house.endpoint("https://everything.example.com/")
    await change(house, created.endpoint.endpoint_id, max_in_flight=10)
    await house.notify(12)
    await fan_out(house)
    claims = [one for one in await claim(house) if one.endpoint_id == created.endpoint.endpoint_id]
    assert len(claims) == 10
    await change(
        house,
        created.endpoint.endpoint_id,
        failing_since="now() - interval '6 days'",
        failure_count=30,
        warned_percent=90,
    )

    async def worker(one: Claim) -> None:
        database = Database(database_url, pool_size=1)
        try:
            await record(House(database, house.clock, house.organization_id), [failed(one)])
        finally:
            await database.close()

    await asyncio.gather(*map(worker, claims))
    row = await row_of(house, created.endpoint.endpoint_id)
    assert (row.state, row.disable_reason) == (EndpointState.DISABLED, "FAILING")
    async with house.database.transaction() as connection:
        events = (await connection.execute(select(operator_event))).all()
    assert [event.event_type for event in events] == ["endpoint.disabled"]

    await fan_out(house)
    about = [item for item in await house.deliveries() if item.notification_id == events[0].event_id]
    assert [item.endpoint_id for item in about] == [watching.endpoint.endpoint_id], "no other endpoint wants it"
    [sent] = await claim_all(house, watching.endpoint.endpoint_id)
    assert sent.body is not None
    body = json.loads(sent.body)
    assert (body["id"], body["type"]) == (events[0].event_id, "endpoint.disabled")
    assert body["data"]["endpoint_id"] == created.endpoint.endpoint_id
    assert body["data"]["reason"] == "FAILING"
    states = Counter(item.status for item in await house.deliveries() if item.endpoint_id == row.endpoint_id)
    assert states == {DeliveryStatus.CANCELLED: 12}
    assert await counters_match(house)


async def claim_all(house: House, endpoint_id: str) -> list[Claim]:
    return [one for one in await claim(house) if one.endpoint_id == endpoint_id]


async def test_an_endpoint_gets_no_operator_event_about_itself(house: House) -> None:
    created = await house.endpoint("https://example.com/hook", ("alert.reached", "delivery.exhausted"))
    await house.notify()
    await fan_out(house)
    [claimed] = await claim(house)
    exhausted = dataclasses.replace(failed(claimed), status=DeliveryStatus.FAILED, delay=None)
    await record(house, [exhausted])
    assert (await row_of(house, created.endpoint.endpoint_id)).exhaustion_noted
    await fan_out(house)
    [only] = await house.deliveries()
    assert only.status is DeliveryStatus.FAILED


async def test_an_attempt_is_stored_with_its_address_and_its_secrets(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify()
    await fan_out(house)
    [claimed] = await claim(house)
    await record(house, [delivered(claimed)])
    async with house.database.transaction() as connection:
        row = (await connection.execute(text("SELECT remote_address, secret_sequences, trigger FROM attempt"))).one()
    assert (row.remote_address, row.secret_sequences, row.trigger) == ("203.0.113.9", [2, 1], "AUTOMATIC")


async def test_secrets_past_their_grace_sign_no_more(house: House) -> None:
    created = await house.endpoint("https://example.com/hook")
    await house.notify(2)
    await fan_out(house)
    async with house.database.transaction() as connection:
        for sequence, ends in ((2, "now() + interval '1 hour'"), (3, "now() - interval '1 second'"), (4, "NULL")):
            await connection.execute(
                text(
                    "INSERT INTO endpoint_secret"
                    " (organization_id, endpoint_id, sequence, secret, create_time, not_after)"
                    f" VALUES (:organization, :endpoint, {sequence}, 'whsec_{sequence}', now(), {ends})"
                ),
                {"organization": house.organization_id, "endpoint": created.endpoint.endpoint_id},
            )
    [one, _] = await claim(house)
    assert [secret.sequence for secret in one.endpoint.secrets] == [4, 2, 1]
