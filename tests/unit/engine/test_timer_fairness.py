"""Timers: an organization with many due timers does not delay those of another."""

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from engine.limits import TimerLimits
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from engine.timers import Timers
from runtime.clock import ManualClock
from store.balances.wallet_timers import DueTimer
from store.postgres.database import Database

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOISY, QUIET = 1, 2


class NoDatabase:
    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield None


def due(organization_id: int, number: int, minutes: int) -> DueTimer:
    return DueTimer(organization_id, str(organization_id), f"c{number}", NOW - timedelta(minutes=minutes))


async def test_timers_of_organizations_have_turns_when_one_has_many_due(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [due(NOISY, number, 100 - number) for number in range(20)] + [due(QUIET, number, 1) for number in range(3)]
    done: list[int] = []

    async def overdue(_: object, now: datetime, limit: int, others_than: Collection[int] = ()) -> list[DueTimer]:
        return [one for one in left if one.organization_id not in others_than][:limit]

    async def next_due(_: object) -> None:
        return None

    async def evaluate(_: Timers, part: Sequence[DueTimer]) -> int:
        done.extend(one.organization_id for one in part)
        for one in part:
            left.remove(one)
        return len(part)

    monkeypatch.setattr("store.balances.wallet_timers.due_timers", overdue)
    monkeypatch.setattr("store.balances.wallet_timers.next_due_time", next_due)
    monkeypatch.setattr(Timers, "_evaluate", evaluate)
    limits = TimerLimits(customers_at_once=2, sweep=4)
    database, clock = cast(Database, NoDatabase()), ManualClock(NOW)
    transactions = Transactions(database, clock, timedelta(days=34), RulesRegistry())
    await Timers(database, clock, transactions, limits=limits).sweep()
    assert done[:7] == [NOISY, NOISY, QUIET, QUIET, NOISY, NOISY, QUIET]
    assert not left
