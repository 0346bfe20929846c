"""Many wide alerts: the work between two statements of a transaction, and that of a step of a backfill, is bounded.

A transaction is idle between two statements, and holds the organization's lock. All else that the process does goes
on meanwhile, so that a second of work can take ten. PostgreSQL ends transactions that are idle for five seconds.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from engine.evaluation import evaluation, gauge_evaluation
from engine.limits import BackfillLimits
from engine.rules.transaction import Transactions
from generated.tidemark.v1 import alert_pb2, alert_service_pb2
from store.alerts import active_rules
from tests.support.usage.backfill_workers import Workers, finish
from tests.support.usage.caller import DEADLINE, Caller, usage_alert

ALERTS, CUSTOMERS = 50, 30
MOST = 1_000  # pieces of work of one transaction between two statements; the data here are more


@dataclass
class Work:
    """Pieces of work, counted between the statements of each task; a task has one transaction at a time.

    longest: the most between two statements. steps: of each transaction that was opened for a backfill.
    """

    since: Counter[object] = field(default_factory=Counter)
    longest: int = 0
    steps: list[int] = field(default_factory=lambda: [0])

    def statement(self) -> None:
        """Notes that a statement is sent."""
        self.since[asyncio.current_task()] = 0

    def piece(self) -> None:
        """Notes a piece of work."""
        task = asyncio.current_task()
        self.since[task] += 1
        self.longest = max(self.longest, self.since[task])
        self.steps[-1] += 1


@contextmanager
def counted(owner: Any, name: str) -> Iterator[Work]:
    """Counts the calls of a function, and the statements between them."""
    work = Work()
    function: Callable[..., Any] = getattr(owner, name)
    open_transaction = Transactions.open
    execute = psycopg.AsyncCursor.execute

    def counting(*arguments: Any, **options: Any) -> Any:
        work.piece()
        return function(*arguments, **options)

    async def executing(*arguments: Any, **options: Any) -> Any:
        work.statement()
        return await execute(*arguments, **options)

    def opening(*arguments: Any, **options: Any) -> Any:
        work.steps.append(0)
        return open_transaction(*arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, counting)
        patched.setattr(psycopg.AsyncCursor, "execute", executing)
        patched.setattr(Transactions, "open", opening)
        yield work


async def create(caller: Caller, level: str, number: int = ALERTS) -> Sequence[alert_pb2.Alert]:
    """Creates alerts of all customers in one call, so that they have one epoch."""
    requests = [alert_service_pb2.CreateAlertRequest(alert=usage_alert(level)) for _ in range(number)]
    batch = alert_service_pb2.BatchCreateAlertsRequest(requests=requests)
    return (await caller.alerts.BatchCreateAlerts(batch, metadata=caller.metadata, timeout=DEADLINE)).alerts


async def notified(caller: Caller) -> Counter[tuple[str, str]]:
    """How many notifications there are, by alert and customer."""
    return Counter((one.alert_id, one.customer_id) for one in await caller.notifications())


def everything(alerts: Sequence[alert_pb2.Alert]) -> Counter[tuple[str, str]]:
    """A notification of each alert for each customer."""
    return Counter((alert.alert_id, f"c{number:02}") for alert in alerts for number in range(CUSTOMERS))


async def use(caller: Caller, name: str) -> None:
    """An event of each customer, all in one commit."""
    await caller.send(*(caller.event(f"{name}-{number}", "9", f"c{number:02}") for number in range(CUSTOMERS)))


async def test_step_of_a_backfill_evaluates_a_bounded_number_of_alerts(caller: Caller, workers: Workers) -> None:
    await use(caller, "first")
    alerts = await create(caller, "5")
    with counted(gauge_evaluation, "evaluate") as work:
        await finish(workers(BackfillLimits()))
    assert ALERTS < max(work.steps) <= MOST
    assert work.longest <= MOST
    assert await notified(caller) == everything(alerts)


async def test_gauge_with_more_alerts_than_a_step_takes_is_a_step(caller: Caller, workers: Workers) -> None:
    await use(caller, "first")
    alerts = await create(caller, "5")
    with counted(gauge_evaluation, "evaluate") as work:
        await finish(workers(BackfillLimits(evaluations_per_step=10)))
    assert max(work.steps) == ALERTS
    assert await notified(caller) == everything(alerts)


async def test_commit_sends_statements_between_a_bounded_number_of_evaluations(
    caller: Caller, workers: Workers
) -> None:
    await use(caller, "first")
    alerts = await create(caller, "15", 3 * ALERTS)  # a server has two writers
    with counted(gauge_evaluation, "evaluate") as work:
        await use(caller, "second")
    assert sum(work.steps) >= 3 * ALERTS * CUSTOMERS
    assert work.longest <= MOST
    assert await notified(caller) == everything(alerts)


async def test_what_a_gauge_with_very_many_alerts_finds_is_written_in_parts(
    caller: Caller, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "PART_EVALUATIONS", 10)
    await use(caller, "first")
    alerts = await create(caller, "15")
    with counted(gauge_evaluation, "evaluate") as work:
        await use(caller, "second")
    assert work.longest == gauge_evaluation.ALERTS_AT_ONCE  # it pauses after a number of alerts
    assert await notified(caller) == everything(alerts)
    await use(caller, "third")
    assert await notified(caller) == everything(alerts)


async def test_alerts_out_of_reach_are_not_evaluated_one_by_one(caller: Caller, workers: Workers) -> None:
    await use(caller, "first")
    alerts = [*await create(caller, "1000"), *await create(caller, "2000")]
    with counted(gauge_evaluation, "evaluate") as work:
        await finish(workers(BackfillLimits()))
        await use(caller, "second")
    assert sum(work.steps) == 0
    await caller.send(caller.event("third", "985", "c07"))
    assert await notified(caller) == Counter((one.alert_id, "c07") for one in alerts[:ALERTS])


async def test_reading_of_rules_sends_statements_between_parts(
    caller: Caller, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active_rules, "DECODED_BETWEEN_STATEMENTS", 100, raising=False)
    for _ in range(5):
        await create(caller, "1000")
    with counted(active_rules, "_rule") as work:
        assert await workers(BackfillLimits())()
    assert sum(work.steps) >= 250
    assert work.longest <= 100
