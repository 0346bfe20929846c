"""Transactions that lock the same rows wait for each other and do not deadlock."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import psycopg

from evaluator.gauges import Gauge, Measure
from evaluator.periods import DEFAULT_CYCLE
from generated.tidemark.v1 import usage_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from store.usage import gauge_moves, gauges
from tests.support.postgres.only_one_server import order_across_shards
from tests.support.usage.caller import (
    DEADLINE,
    Caller,
    beside,
    ingest_held,
    settings,
    usage_alert,
    values,
    waiting_for_locks,
)


@order_across_shards
async def test_backfill_that_waits_for_a_gauge_holds_no_later_gauge(caller: Caller, clock: ManualClock) -> None:
    """A backfill with the last gauge would deadlock with a commit that holds the second and waits for the last."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    period, now = DEFAULT_CYCLE.period_at(clock.now()), clock.now()
    first, second, last = (
        Gauge(customer, None, Measure(metric_id="calls"), (), period) for customer in ("a", "b", "z")
    )
    database = Database(caller.database_url)

    async def move(*watched: Gauge) -> None:
        customer_ids, gauge_ids = [gauge.customer_id for gauge in watched], [gauge.gauge_hex for gauge in watched]
        moves = gauge_moves.Moves(customer_ids, gauge_ids, [Decimal(1)] * len(watched), [0] * len(watched))
        async with database.raw_transaction() as connection:
            await gauge_moves.move(connection, organization_id, moves, now, False)

    async def backfill(*watched: Gauge) -> dict[UUID, gauges.Locked]:
        async with database.raw_transaction() as connection:
            return await gauges.lock(connection, organization_id, watched, now)

    await move(first, second)
    async with database.raw_transaction() as holding:
        await holding.execute(
            "SELECT FROM gauge WHERE organization_id = %s AND customer_id = %s AND gauge_id = %s FOR UPDATE",
            (organization_id, first.customer_id, first.gauge_id),
        )
        backfilling = asyncio.create_task(backfill(first, second, last))
        await waiting_for_locks(caller)
        async with asyncio.timeout(DEADLINE):
            await move(second, last)
    locked = await backfilling
    await database.close()
    assert {key: item.value for key, item in locked.items()} == {
        first.gauge_id: 1,
        second.gauge_id: 2,
        last.gauge_id: 1,
    }


async def test_events_of_several_months_are_stored_in_one_order(caller: Caller) -> None:
    """COPY buffers rows for each partition: without a common order of months two retries would deadlock."""
    march = caller.clock.now()
    february = march - timedelta(days=30)
    one_writer = settings(ingest_writers=1)
    x, y, w, z = (
        caller.event("x", customer="c0", at=february),
        caller.event("y1", customer="c1", at=march),
        caller.event("y2", customer="c1", at=march),
        caller.event("z", customer="c2", at=february),
    )
    async with beside(caller, one_writer) as left, beside(caller, one_writer) as right:
        # Both servers have cached the customers, so that neither waits for the other to register one.
        for side in (left, right):
            await side.send(*(side.event("known", customer=f"c{number}") for number in range(3)))
        async with await holding_event(caller, "c1", "y2", march) as held:
            second = asyncio.create_task(right.send(y, w, z))
            await waiting_for_locks(caller)
            first = asyncio.create_task(left.send(x, y, z))
            await waiting_for_locks(caller, 2)
            await held.rollback()
        answers = await asyncio.gather(first, second)
    assert sum(answer.accepted for answer in answers) == 4
    assert sum(answer.duplicates for answer in answers) == 2


async def holding_event(
    caller: Caller, customer: str, event_id: str, time: datetime
) -> psycopg.AsyncConnection[tuple[object, ...]]:
    """A connection with an open transaction that has stored an event."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    connection = await psycopg.AsyncConnection.connect(caller.database_url)
    await connection.execute(
        "INSERT INTO event (organization_id, customer_id, event_id, event_time, ingest_time, metric_id, quantity)"
        " VALUES (%s, %s, %s, %s, %s, 'calls', 1)",
        (organization_id, customer, event_id, time, time),
    )
    return connection


async def test_batches_with_the_same_new_customers_in_different_orders_do_not_deadlock(caller: Caller) -> None:
    await caller.create(usage_alert("1000"))
    customers = [f"c{number:02d}" for number in range(30)]
    orders = (customers, customers[::-1], customers[10:] + customers[:10])

    def batch(number: int) -> list[usage_pb2.UsageEvent]:
        return [
            caller.event(f"e{number}", customer=customer, subscription=f"s-{customer}", metric=f"m{number}")
            for customer in orders[number]
        ]

    async with beside(caller) as other:
        async with ingest_held(caller):
            sending = [
                asyncio.create_task(one.send(*batch(number))) for number in range(3) for one in (caller, other)
            ]
            await waiting_for_locks(caller, 2)
        answers = await asyncio.gather(*sending)
    assert sum(answer.accepted for answer in answers) == sum(answer.duplicates for answer in answers) == 90
    answer = await caller.send(*(caller.event("last", "0", customer) for customer in customers), gauges=True)
    assert values(answer.gauges) == {(customer, "calls"): 0 for customer in customers}
