"""The statements of the queue: fan-out, claims, results, leases; fairness and shares over several notifiers."""

import asyncio
import dataclasses
import random
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update

from store.deliveries import claims as delivery_claims
from store.deliveries import leases, outbox
from store.deliveries.claims import Claim, ClaimRequest
from store.deliveries.pending_work import pending_work
from store.endpoints.rows import DEFAULT_MAX_IN_FLIGHT
from store.postgres.database import Database
from store.tables.notifications import outbox as outbox_table
from store.tables.webhooks import attempt, delivery, endpoint
from tests.support.notifier.delivery_queue import (
    ALL_TOKENS,
    LEASE,
    claim,
    counters_match,
    delivered,
    failed,
    fan_out,
    record,
    release_expired,
)
from tests.support.notifier.house import House, body_of, configuration
from tests.support.postgres.nodes import workers
from tests.support.webhooks.attempts import write_results
from webhooks.deliveries import DeliveryStatus
from webhooks.secret_box import SecretBox, secret_context


def signed_with(claim: Claim) -> list[str | None]:
    """The secrets of a claim in their text form, the newest first."""
    box = SecretBox(configuration().secret_keys or [("unused", bytes(32))])
    return [
        secret.plain
        if secret.sealed is None
        else box.open(
            secret.sealed, secret_context(claim.organization_id, claim.endpoint_id, secret.sequence)
        ).decode()
        for secret in claim.endpoint.secrets
    ]


async def test_a_claim_carries_what_the_attempt_needs(house: House) -> None:
    created = await house.endpoint("https://example.com/hook")
    [notification_id] = await house.notify()
    assert await fan_out(house) == outbox.FanOut(taken=1, created=1)
    [claimed] = await claim(house)
    assert claimed.endpoint.url == "https://example.com/hook"
    assert signed_with(claimed) == [created.secret]
    assert claimed.body == body_of(notification_id)
    assert claimed.notification_id == notification_id
    assert claimed.attempt_count == 0
    assert claimed.age >= timedelta(0)
    assert created.secret not in repr(claimed)
    assert created.secret not in repr(created)


async def test_no_statement_of_the_queue_is_compiled(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify()

    async def claim_all() -> list[Claim]:
        await outbox.fan_out(connection, 10)
        return await delivery_claims.claim(connection, ClaimRequest(10, LEASE))

    async with house.database.transaction() as connection:
        for work in (
            claim_all,
            lambda: leases.release_expired(connection),
            lambda: leases.release_orphaned(connection, ALL_TOKENS),
            lambda: write_results(connection, []),
        ):
            await connection.execute(text("SET LOCAL jit = on"))
            await work()
            assert await connection.scalar(text("SHOW jit")) == "off"


async def test_a_delivery_that_is_leased_or_not_due_is_not_claimed(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify(2)
    await fan_out(house)
    first, second = await claim(house)
    assert await claim(house) == []
    await record(house, [failed(first, timedelta(hours=1)), failed(second)])
    [again] = await claim(house)
    assert again.delivery_id == second.delivery_id
    assert again.attempt_count == 1
    assert await counters_match(house)


async def test_a_fan_out_that_fails_leaves_everything_as_it_was(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify(3)

    async def crash_in_the_middle() -> None:
        async with house.database.transaction() as connection:
            await outbox.fan_out(connection, 2)
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        await crash_in_the_middle()
    assert await house.deliveries() == []
    assert await fan_out(house) == outbox.FanOut(taken=3, created=3)
    assert len(await house.deliveries()) == 3


async def test_two_concurrent_fan_outs_share_the_outbox(house: House) -> None:
    for number in range(3):
        await house.endpoint(f"https://example.com/{number}")
    await house.notify(40)
    results = await asyncio.gather(*(fan_out(house, 10) for _ in range(4)))
    while (more := await fan_out(house)).taken:
        results.append(more)
    assert sum(result.taken for result in results) == 40
    assert len(await house.deliveries()) == 120


async def test_an_outbox_row_written_twice_makes_one_delivery(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify()
    async with house.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO outbox (organization_id, customer_id, notification_id, event_type, condition_type,"
                " create_time) SELECT organization_id, customer_id, notification_id, event_type, condition_type,"
                " create_time FROM outbox"
            )
        )
    await fan_out(house)
    assert len(await house.deliveries()) == 1


async def test_an_endpoint_has_no_more_in_flight_than_its_share(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify(20)
    await fan_out(house)
    claims = await claim(house)
    assert len(claims) == DEFAULT_MAX_IN_FLIGHT
    assert await claim(house) == []
    await record(house, [delivered(claims[0])])
    assert len(await claim(house)) == 1
    assert await counters_match(house)


async def test_a_flood_for_one_endpoint_does_not_delay_the_others(house: House) -> None:
    noisy = await house.endpoint("https://noisy.example.com/")
    await house.notify(2_000)
    await fan_out(house, 5_000)
    for number in range(30):
        await house.endpoint(f"https://quiet-{number}.example.com/")
    await house.notify()
    await fan_out(house)
    claims = await claim(house, limit=40)
    assert len({one.endpoint_id for one in claims}) == 31
    assert Counter(one.endpoint_id for one in claims)[noisy.endpoint.endpoint_id] == DEFAULT_MAX_IN_FLIGHT


async def test_the_endpoint_that_was_served_longest_ago_is_claimed_first(house: House) -> None:
    names = [(await house.endpoint(f"https://{name}.example.com/")).endpoint.endpoint_id for name in "abcd"]
    await house.notify(4)
    await fan_out(house)
    served = []
    for _ in range(8):
        [one] = await claim(house, limit=1)
        served.append(one.endpoint_id)
        await record(house, [delivered(one)])
    assert sorted(served[:4]) == sorted(names)
    assert served[4:] == served[:4]


async def test_a_lease_that_ran_out_is_taken_over_and_the_late_result_changes_nothing(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify()
    await fan_out(house)
    [paused] = await claim(house)
    assert await release_expired(house) == 0
    await house.expire_leases()
    assert await release_expired(house) == 1
    [successor] = await claim(house)
    assert successor.delivery_id == paused.delivery_id
    assert successor.attempt_count == 0

    assert await record(house, [delivered(paused)]) == []
    [unchanged] = await house.deliveries()
    assert (unchanged.status, unchanged.attempt_count) == (DeliveryStatus.PENDING, 0)
    assert await house.attempts(paused.delivery_id) == []
    assert await counters_match(house)

    assert len(await record(house, [delivered(successor)])) == 1
    [done] = await house.deliveries()
    assert (done.status, done.attempt_count) == (DeliveryStatus.DELIVERED, 1)
    assert await record(house, [delivered(paused)]) == []
    assert await counters_match(house)


async def test_a_claim_given_back_is_due_later_and_counts_no_attempt(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify(2)
    await fan_out(house)
    soon, late = await claim(house)
    async with house.database.transaction() as connection:
        assert await leases.release(connection, [soon], delay=timedelta(0)) == 1
        assert await leases.release(connection, [late], delay=timedelta(hours=1)) == 1
    [again] = await claim(house)
    assert (again.delivery_id, again.attempt_count) == (soon.delivery_id, 0)


async def test_a_notification_that_is_not_there_is_claimed_without_a_body(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify()
    await fan_out(house)
    async with house.database.transaction() as connection:
        await connection.execute(text("DELETE FROM notification"))
    [claimed] = await claim(house)
    assert claimed.body is None


async def test_pending_work_names_each_kind_of_work(house: House) -> None:
    async def waiting() -> tuple[bool | None, bool, bool]:
        async with house.database.transaction() as connection:
            found = await pending_work(connection)
        return found.outbox, found.due, found.expired

    # On a cluster, only a fan-out reads the outbox.
    empty, filled = (None, None) if workers() else (False, True)
    await house.endpoint("https://example.com/hook")
    assert await waiting() == (empty, False, False)
    await house.notify()
    assert await waiting() == (filled, False, False)
    await fan_out(house)
    assert await waiting() == (empty, True, False)
    [claimed] = await claim(house)
    assert await waiting() == (empty, False, False)
    await house.expire_leases()
    assert await waiting() == (empty, False, True)
    await release_expired(house)
    assert await waiting() == (empty, True, False)
    [claimed] = await claim(house)
    await record(house, [failed(claimed, timedelta(hours=1))])
    assert await waiting() == (empty, False, False)


async def test_one_refused_row_refuses_its_batch_and_leaves_no_trace(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify(2)
    await fan_out(house)
    good, bad = await claim(house)
    with pytest.raises(Exception, match="u0000"):
        await record(house, [delivered(good), dataclasses.replace(delivered(bad), response_excerpt="\0")])
    assert {item.status for item in await house.deliveries()} == {DeliveryStatus.PENDING}
    assert await counters_match(house)


async def test_five_notifiers_never_claim_twice_and_never_exceed_a_share(house: House, database_url: str) -> None:
    """Claims, results, lost leases and late results of five notifiers over six endpoints, in a random order."""
    for number in range(6):
        await house.endpoint(f"https://example.com/{number}")
    held: dict[str, Claim] = {}
    sent: Counter[str] = Counter()

    async def notifier(seed: int) -> None:
        database = Database(database_url, pool_size=4)
        mine = House(database, house.clock, house.organization_id)
        choice = random.Random(seed)
        idle = 0
        while idle < 20:
            await fan_out(mine, choice.randint(1, 20))
            claims = await claim(mine, choice.randint(1, 15))
            idle = 0 if claims else idle + 1
            for one in claims:
                assert one.delivery_id not in held, "claimed twice"
                held[one.delivery_id] = one
            assert max(Counter(one.endpoint_id for one in held.values()).values(), default=0) <= 4
            await asyncio.sleep(choice.uniform(0, 0.01))
            results, forgotten = [], []
            for one in claims:
                if choice.random() < 0.1:
                    forgotten.append(one)  # as if this notifier had died here
                else:
                    results.append(delivered(one) if choice.random() < 0.8 else failed(one))
                del held[one.delivery_id]
            written = await record(mine, results) if results else []
            assert len(written) == len(results)
            sent.update(one.claim.delivery_id for one in written if one.status is DeliveryStatus.DELIVERED)
            if forgotten:
                async with database.transaction() as connection:
                    await connection.execute(
                        update(delivery)
                        .where(delivery.c.delivery_id.in_([one.delivery_id for one in forgotten]))
                        .values(lease_expire_time=text("now() - interval '1 second'"))
                    )
                await release_expired(mine)
        await database.close()

    async def evaluator() -> None:
        for _ in range(20):
            await house.notify(3)
            await asyncio.sleep(0.005)

    await asyncio.gather(evaluator(), *(notifier(seed) for seed in range(5)))
    everything = await house.deliveries()
    assert len(everything) == 360
    assert {item.status for item in everything} == {DeliveryStatus.DELIVERED}
    assert set(sent.values()) == {1}
    assert len(sent) == 360
    assert set((await house.in_flight()).values()) == {0}
    async with house.database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(outbox_table)) == 0
        attempts = await connection.scalar(select(func.count()).select_from(attempt))
        assert attempts == sum(item.attempt_count for item in everything)
        assert await connection.scalar(select(func.max(endpoint.c.in_flight))) == 0


@pytest.mark.parametrize(
    ("delivery_due", "endpoint_values", "expected"),
    [
        ("0.5 seconds", {}, (False, 0.5)),
        ("5 seconds", {}, (False, None)),  # later than was asked about
        ("0 seconds", {}, (True, None)),  # due already
        ("0.2 seconds", {"not_before": "now() + interval '0.7 seconds'"}, (False, 0.7)),
        ("0.7 seconds", {"not_before": "now() + interval '0.2 seconds'"}, (False, 0.7)),
        ("0 seconds", {"not_before": "now() + interval '5 seconds'"}, (False, None)),
        ("0 seconds", {"breaker_state": "'OPEN'", "breaker_until": "now() + interval '0.6 seconds'"}, (False, 0.6)),
        ("0.5 seconds", {"breaker_until": "now() + interval '5 seconds'"}, (False, 0.5)),  # the breaker is closed
        ("0 seconds", {"rate_per_second": "2", "tokens": "0", "token_time": "now()"}, (False, 0.5)),
        ("0.5 seconds", {"in_flight": "4"}, (False, None)),  # a result comes first
        ("0.5 seconds", {"state": "'DISABLED'"}, (False, None)),
    ],
)
async def test_pending_work_gives_the_time_until_a_delivery_is_due(
    house: House, delivery_due: str, endpoint_values: dict[str, str], expected: tuple[bool, float | None]
) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify()
    await fan_out(house)
    async with house.database.transaction() as connection:
        # All in one transaction, and so at one time of PostgreSQL's clock.
        due = text(f"now() + interval '{delivery_due}'")
        await connection.execute(update(delivery).values(next_attempt_time=due))
        for name, value in endpoint_values.items():
            await connection.execute(text(f"UPDATE endpoint SET {name} = {value}"))
        found = await pending_work(connection, timedelta(seconds=1))
    assert (found.due, found.due_in and found.due_in.total_seconds()) == expected
