"""Backfills that a test carries out step by step, and customers with many seats."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from engine.backfill.backfills import Backfills
from engine.limits import BackfillLimits, EngineLimits
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from generated.tidemark.v1 import (
    alert_pb2,
)
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.usage.caller import Caller

SEATS = [f"s{number:02}" for number in range(12)]
FEW_GAUGES = BackfillLimits(gauges_per_step=5)
OF_SEATS = [("seat", None)]
Worker = Callable[[], Awaitable[bool]]
Workers = Callable[..., Worker]


@pytest.fixture
async def workers(
    caller: Caller, clock: ManualClock, engine_limits: EngineLimits, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Workers]:
    """Makes backfills that take one step when they are called; those of the server do nothing.

    Each has a pool and rules of its own, like the backfills of another process.
    """
    run_once, databases = Backfills.run_once, list[Database]()

    async def never(_: Backfills) -> bool:
        return False

    monkeypatch.setattr(Backfills, "run_once", never)

    def make(limits: BackfillLimits = FEW_GAUGES) -> Worker:
        database = Database(caller.database_url, pool_size=2)
        databases.append(database)
        rules = RulesRegistry(max_groups=engine_limits.groups)
        made = Backfills(database, clock, Transactions(database, clock, timedelta(days=34), rules), limits=limits)
        return lambda: run_once(made)

    yield make
    for database in databases:
        await database.close()


async def finish(step: Worker) -> None:
    """Takes steps until none is left."""
    while await step():
        pass


async def progress(caller: Caller) -> list[str | None]:
    """How far each backfill is, as stored."""
    rows = await caller.rows(
        "SELECT visit_after FROM alert WHERE organization_id = %(organization_id)s ORDER BY create_time, alert_id"
    )
    return [row[0] for row in rows]


async def notified(caller: Caller, alert: alert_pb2.Alert) -> list[str]:
    """The customers of an alert's notifications with their groups, once for each notification."""
    return sorted(
        "/".join([one.customer_id, *(pair["value"] for pair in one.body["data"]["gauge"].get("group", ()))])
        for one in await caller.evaluations()
        if one.alert_id == alert.alert_id
    )


async def use_seats(caller: Caller, quantity: str = "5", prefix: str = "e") -> None:
    """One event of each seat."""
    await caller.send(*(caller.event(f"{prefix}-{seat}", quantity, seat=seat) for seat in SEATS))


OF_ACME = [f"acme/{seat}" for seat in SEATS]


async def use_seats_of(caller: Caller, customer: str) -> None:
    """One event of each seat of a customer."""
    await caller.send(*(caller.event(f"e-{seat}", "5", customer, seat=seat) for seat in SEATS))
