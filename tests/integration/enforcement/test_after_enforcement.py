"""What follows enforcement: operator events of refusals, and the deletion of what is old."""

import asyncio
import json
from datetime import timedelta

from engine.upkeep import Upkeep
from evaluator.enforcement.decisions import OveragePolicy
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.enforcement.gateway import Gateway, meters, put_limit
from tests.support.schemas import check_body
from tests.support.usage.caller import Caller, until

HOURLY = {"calendar": {"unit": "CALENDAR_UNIT_HOUR"}}
PARENT = "parent", "usage/calls", "BILLING_PERIOD"
ROLLING = {"rolling": {"duration": {"seconds": 600}}}


async def refusals(caller: Caller) -> list[tuple[str, str, str]]:
    rows = await caller.rows(
        "SELECT body FROM operator_event WHERE organization_id = %(organization_id)s AND event_type = 'limit.refused'"
        " ORDER BY create_time, event_id"
    )
    bodies = [json.loads(body) for (body,) in rows]
    for body in bodies:
        check_body(body)
    return [(one["data"]["limit_id"], one["data"]["counted"], one["data"]["held"]) for one in bodies]


async def test_a_refusal_is_reported_once_in_each_window(
    caller: Caller, gateway: Gateway, other: Gateway, clock: ManualClock
) -> None:
    await put_limit(caller, "10", "hourly", window=HOURLY)
    await put_limit(caller, "9", "rolling", window=ROLLING)
    await gateway.reserve("a", "8")
    await gateway.settle("a")
    await gateway.check("3")
    assert await refusals(caller) == []
    await asyncio.gather(*[(gateway, other)[n % 2].reserve(f"d{n}", "3") for n in range(10)])
    assert sorted(await refusals(caller)) == [("hourly", "8", "0"), ("rolling", "8", "0")]
    clock.advance(timedelta(minutes=9))
    await gateway.reserve("e", "3")
    assert len(await refusals(caller)) == 2
    clock.advance(timedelta(minutes=55))
    await gateway.reserve("f", "10", policy=OveragePolicy.CAP)
    assert (await refusals(caller))[2:] == [("rolling", "0", "0")]
    await gateway.reserve("g", "2")
    assert len(await refusals(caller)) == 4


async def test_old_reservations_and_meters_are_deleted(
    caller: Caller, gateway: Gateway, clock: ManualClock, own_pool: Database
) -> None:
    await put_limit(caller, "10", window=HOURLY)
    await put_limit(caller, "10", "rolling", window=ROLLING)
    await gateway.reserve("open", "1", seconds=86_400)
    await gateway.reserve("settled", "1")
    await gateway.settle("settled")
    await gateway.reserve("denied", "100")
    upkeep = Upkeep(own_pool, clock, timedelta(days=400), timedelta(days=400))
    clock.advance(timedelta(days=6))
    await until(lambda: expired(caller))  # by the server
    await upkeep.run_once()
    assert await names(caller) == ["denied", "open", "settled"]
    clock.advance(timedelta(days=2))
    await upkeep.run_once()
    assert await names(caller) == ["open"]
    assert len(await meters(caller)) == 2
    clock.advance(timedelta(days=60))
    await upkeep.run_once()
    assert await names(caller) == []
    assert await meters(caller) == {}
    assert await caller.rows("SELECT 1 FROM meter_minute WHERE organization_id = %(organization_id)s") == []


async def expired(caller: Caller) -> bool:
    return bool(
        await caller.rows(
            "SELECT 1 FROM reservation WHERE organization_id = %(organization_id)s AND state = 'EXPIRED'"
        )
    )


async def names(caller: Caller) -> list[str]:
    rows = await caller.rows(
        "SELECT reservation_id FROM reservation WHERE organization_id = %(organization_id)s ORDER BY 1"
    )
    return [name for (name,) in rows]
