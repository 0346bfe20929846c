"""The draw order within one commit, and the times at which timers of customers are due."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from runtime.clock import ManualClock
from store.balances import wallet_timers, wallets
from store.postgres.database import Database
from tests.support.balances.holder import CREDIT, SEAT, Holder, alert
from tests.support.databases import Template
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller

pytestmark = shares_server


DAY, HOUR = timedelta(days=1), timedelta(hours=1)


async def spend(holder: Holder, *costs: tuple[str, datetime], **properties: str) -> None:
    """Sends events with those costs and times in one batch."""
    caller, before = holder.caller, await holder.caller.event_count()
    events = [
        caller.event(f"{before}-{number}", "1", holder.customer, cost=cost, at=at, **properties)
        for number, (cost, at) in enumerate(costs)
    ]
    answer = await caller.send(*events)
    assert answer.accepted == len(costs)


async def test_correction_refills_a_balance_for_later_usage_of_the_same_commit(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("c1", "10", priority=1)
    await acme.put("c2", "5", priority=2)
    await spend(acme, ("12", now))
    assert await acme.remaining() == {"c1": 0, "c2": 3}
    # A correction refills first the balance that was drawn on last; later usage draws in the draw order again.
    await spend(acme, ("-4", now), ("1", now), ("2", now))
    assert await acme.remaining() == {"c1": 0, "c2": 4}
    await spend(acme, ("4", now))
    assert await acme.remaining() == {"c1": 0, "c2": 0}
    assert await acme.overage() == {}
    for costs in (("1", "-6", "2"), ("-6", "1", "2"), ("1", "2", "-6")):
        await spend(acme, *((cost, now) for cost in costs))
        assert sum((await acme.remaining()).values()) == 3, costs
        assert await acme.overage() in ({}, {"USD": Decimal(0)}), costs
        await spend(acme, ("3", now))


async def test_events_of_one_commit_draw_on_the_segments_of_their_own_times(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    spans = [("10", now - 2 * DAY, now - DAY), ("20", now - DAY, now - HOUR), ("40", now - HOUR, None)]
    await acme.put("c1", spans=spans)
    times = [now - DAY, now, now - HOUR, now - 2 * DAY, now - HOUR - timedelta.resolution, now - DAY]
    await spend(acme, *((str(2**number), time) for number, time in enumerate(times)))
    drawn = [Decimal(part.drawn or "0") for _, part in sorted((await acme.segments()).items())]
    assert drawn == [8, 20, 6]  # the events in the second segment cost 49
    assert await acme.overage() == {"USD": Decimal(29)}


async def test_events_of_one_seat_draw_on_the_segments_of_their_own_times(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    spans = [("10", now - 2 * DAY, now - DAY), ("20", now - DAY, now)]
    await acme.put("s1", spans=[*spans, ("40", now, None)], kind=SEAT, seat=("seat", "ann"))
    for order in ((now - 2 * DAY, now, now - DAY), (now, now - DAY, now - 2 * DAY), (now - DAY, now - 2 * DAY, now)):
        await spend(acme, *(("1", time) for time in order), seat="ann")
    assert [Decimal(part.drawn) for _, part in sorted((await acme.segments()).items())] == [3, 3, 3]
    assert await acme.overage() == {}


async def test_balance_of_one_metric_does_not_hide_the_balances_of_other_metrics(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("of tokens", "100", priority=1, draw_down_metric_ids=["tokens"])
    await acme.put("of all", "10", priority=2)
    await spend(acme, ("5", now))
    assert await acme.remaining() == {"of tokens": 100, "of all": 5}
    await acme.spend("t1", "7", metric="tokens")
    assert await acme.remaining() == {"of tokens": 93, "of all": 5}
    assert await acme.overage() == {}


async def test_priority_takes_precedence_over_an_earlier_end(caller: Caller, clock: ManualClock) -> None:
    """Ingest reads no more segments than it needs: the ones that it reads are the first in the draw order."""
    acme, now = Holder(caller), clock.now()
    for number in range(4):
        await acme.put(f"soon {number}", spans=[("10", now - DAY, now + (number + 1) * DAY)], priority=5)
    await acme.put("late", "10", priority=1)
    await acme.put("first", "3", priority=-1)
    await spend(acme, ("5", now))
    assert await acme.remaining() == {"first": 0, "late": 8, **{f"soon {number}": 10 for number in range(4)}}
    await spend(acme, ("10", now))
    assert (await acme.remaining())["soon 0"] == 8


async def due(caller: Caller) -> dict[str, datetime | None]:
    """The due time of each customer."""
    rows = await caller.rows("SELECT customer_id, due_time FROM wallet WHERE organization_id = %(organization_id)s")
    return dict(rows)


async def test_later_timer_does_not_replace_an_earlier_one(caller: Caller, clock: ManualClock) -> None:
    acme, beta, now = Holder(caller), Holder(caller, "beta"), clock.now()
    await caller.create(alert("5", low_remaining_commit_balance_reached={}))
    await caller.create(alert("5", low_remaining_contract_credit_balance_reached={}))
    await acme.put("c1", spans=[("10", now, now + 2 * HOUR)])
    assert await due(caller) == {"acme": now + 2 * HOUR}
    await acme.put("k1", spans=[("10", now, now + 5 * HOUR)], kind=CREDIT)
    await beta.put("c1", spans=[("10", now, now + 3 * HOUR)])
    assert await due(caller) == {"acme": now + 2 * HOUR, "beta": now + 3 * HOUR}
    await acme.put("k2", spans=[("10", now, now + HOUR)], kind=CREDIT)
    assert await due(caller) == {"acme": now + HOUR, "beta": now + 3 * HOUR}
    # A balance without an end, and usage, leave the due time as well.
    await acme.put("k3", "10", kind=CREDIT)
    await acme.spend("e1", "1")
    assert (await due(caller))["acme"] == now + HOUR


@pytest.fixture
async def own_database(template: Template) -> AsyncIterator[Database]:
    """A database of this test's own, so that its organizations have the ids 1 and 2."""
    made = Database(template.fresh_database(), pool_size=1)
    yield made
    await made.close()


async def test_due_timers_are_returned_longest_overdue_first(own_database: Database, clock: ManualClock) -> None:
    now = clock.now()
    async with own_database.transaction() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO organization (name, create_time) VALUES ('a', now()), ('b', now())"
        )
        for organization_id, minutes in ((1, (3, 9, 1, -5)), (2, (2, 8, 7, 0))):
            ids = [f"c{number}" for number in minutes]
            await wallets.lock(connection, organization_id, ids)
            read = {
                f"c{number}": wallet_timers.ReadTimes(now, now - number * timedelta(minutes=1)) for number in minutes
            }
            await wallet_timers.set_timers(connection, organization_id, read)
        found = await wallet_timers.due_timers(connection, now, 4)
        assert [(one.organization, one.customer_id) for one in found] == [
            *(("a", "c9"), ("b", "c8"), ("b", "c7"), ("a", "c3"))
        ]
        assert len(await wallet_timers.due_timers(connection, now, 100)) == 7
        assert await wallet_timers.next_due_time(connection) == now - timedelta(minutes=9)
        # Only the due wallets of one organization are claimed.
        claimed = await wallet_timers.claim_due(connection, 1, ["c3", "c-5", "c2"], now)
        assert set(claimed) == {"c3"}


async def test_read_time_of_a_wallet_does_not_move_back(database: Database, clock: ManualClock) -> None:
    now = clock.now()
    async with database.transaction() as connection:
        await connection.exec_driver_sql("INSERT INTO organization (name, create_time) VALUES ('a', now())")
        await wallets.lock(connection, 1, ["acme"])
        for note, moment in (
            (wallet_timers.set_timers, HOUR),
            (wallet_timers.set_earlier_timers, -HOUR),
            (wallet_timers.set_timers, -DAY),
        ):
            await note(connection, 1, {"acme": wallet_timers.ReadTimes(now + moment, None)})
            held = (await wallets.lock(connection, 1, ["acme"]))["acme"]
            assert held.read_time == now + HOUR
            assert (held.moment(now), held.moment(now + DAY)) == (now + HOUR, now + DAY)
