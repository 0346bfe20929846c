"""Timers: each due time is evaluated once and as of itself, also after downtime, clock jumps and failures."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from engine import timers
from engine.facts import due_timers
from generated.tidemark.v1 import (
    account_service_pb2,
    billing_period_pb2,
    condition_pb2,
    customer_pb2,
    invoice_pb2,
)
from runtime.actions import LogAction
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.postgres.database import Database
from tests.support.balances.holder import Holder, alert
from tests.support.balances.timing import timers_of, work_off
from tests.support.usage.caller import DEADLINE, Caller, ShortTransition, calling, until
from tests.support.usage.organizations import organization

COMMITS = condition_pb2.LowRemainingCommitBalanceReachedCondition()
DAYS = condition_pb2.LowRemainingDaysForCommitSegmentReachedCondition()
PLAN = condition_pb2.LowRemainingDaysInPlanReachedCondition()
BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)


@pytest.fixture
async def caller(database_url: str, clock: ManualClock) -> AsyncIterator[Caller]:
    """A caller of a server with a database of its own: timers of other tests would run here."""
    name, key = await organization(database_url, clock)
    async with calling(database_url, clock, name, key) as caller:
        yield caller


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on that database."""
    database = Database(database_url, pool_size=4)
    yield database
    await database.close()


def in_berlin() -> customer_pb2.Customer:
    """A customer whose billing cycle is the month in Berlin."""
    cycle = billing_period_pb2.BillingCycle(
        anchor_time=to_timestamp(datetime(2026, 1, 1, tzinfo=BERLIN).astimezone(UTC)),
        cadence=billing_period_pb2.CADENCE_MONTH,
        time_zone="Europe/Berlin",
    )
    return customer_pb2.Customer(customer_id="acme", plan_id="pro", billing_cycle=cycle)


async def test_two_timers_evaluate_each_due_time_once(caller: Caller, clock: ManualClock, database: Database) -> None:
    now = clock.now()
    for number in range(30):
        await Holder(caller, f"c{number}").put("c", spans=[("50", now, now + HOUR)])
    await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    clock.set(now + HOUR)
    await asyncio.gather(*(work_off(timers_of(database, clock), database, clock) for _ in range(2)))
    for number in range(30):
        assert await Holder(caller, f"c{number}").notified() == [[ShortTransition("REACHED", "20", "50", "0", "")]]


async def test_restarted_server_evaluates_each_missed_time_and_logs_its_lateness(
    database_url: str, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    name, key = await organization(database_url, clock)
    now = clock.now()
    async with calling(database_url, clock, name, key) as caller:
        acme = Holder(caller)
        await acme.put("c", spans=[("50", now, now + HOUR), ("70", now + 2 * HOUR, now + 3 * HOUR)])
        await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    clock.set(now + 4 * HOUR)
    with caplog.at_level(logging.WARNING, "engine.timers"):
        async with calling(database_url, clock, name, key) as caller:
            assert await Holder(caller).notified(3) == [
                [ShortTransition("REACHED", "20", "50", "0", "")],
                [ShortTransition("RESOLVED", "20", "0", "70", "")],
                [ShortTransition("REACHED", "20", "70", "0", "")],
            ]
            stored = sorted(await caller.notifications(), key=lambda one: one.sequence)
            assert [one.body["data"]["transitions"][0]["event_time"] for one in stored] == [
                (now + step * HOUR).isoformat(timespec="microseconds").replace("+00:00", "Z") for step in (1, 2, 3)
            ]

            async def logged() -> bool:
                return any(record.__dict__.get("action") == LogAction.TIMERS_CAUGHT_UP for record in caplog.records)

            await until(logged)  # once no further timer is due, which is after the last notification
    [late] = [record for record in caplog.records if record.__dict__.get("action") == LogAction.TIMERS_CAUGHT_UP]
    assert record_field(late, "lateness") == 3 * 3600


def record_field(record: logging.LogRecord, name: str) -> object:
    """The value of a field of a log record."""
    return record.__dict__[name]


async def test_alert_created_after_a_missed_due_time_is_silent_about_what_it_finds_if_it_is_to_be(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    """A due time that no timer has evaluated yet must not make the reading newer than the alert."""
    acme, now = Holder(caller), clock.now()
    await acme.put("c", spans=[("50", now, now + HOUR), ("30", now + HOUR, now + 2 * HOUR)])
    early = await caller.create(alert("40", low_remaining_commit_balance_reached=COMMITS))
    clock.set(now + 3 * HOUR)
    silent = await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS), evaluate=False)
    loud = await caller.create(alert("10", low_remaining_commit_balance_reached=COMMITS))
    await work_off(timers_of(database, clock), database, clock)
    notified = {one.alert_id: one.transitions for one in await caller.notifications()}
    assert notified == {
        early.alert_id: [ShortTransition("REACHED", "40", "50", "30", "")],
        loud.alert_id: [ShortTransition("REACHED", "10", "0", "0", "")],
    }
    state = await caller.state(silent.alert_id, acme.customer)
    assert [one.silent for one in state.gauges[0].thresholds] == [True]


async def test_clock_that_jumps_a_year_notifies_every_transition_in_order(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme, now = Holder(caller), clock.now()
    months = [now + timedelta(days=30 * number) for number in range(13)]
    await acme.put("c", spans=[("50", start, start + timedelta(days=29)) for start in months])
    await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    clock.set(now + timedelta(days=365))
    await work_off(timers_of(database, clock), database, clock)
    notified = [one for crossed in await acme.notified() for one in crossed]
    assert [one.kind for one in notified] == ["REACHED", "RESOLVED"] * 12


async def test_clock_that_jumps_back_notifies_nothing_twice(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("c", spans=[("50", now, now + HOUR)])
    await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    for time in (now + HOUR, now - HOUR, now + HOUR, now + 2 * HOUR):
        clock.set(time)
        await work_off(timers_of(database, clock), database, clock)
    assert await acme.notified() == [[ShortTransition("REACHED", "20", "50", "0", "")]]


@pytest.mark.parametrize(
    ("end", "reached"),
    [
        # Ends after the changes of summer time: a day left is 86,400 s, and not a day of wall-clock time.
        (datetime(2026, 3, 29, 12, tzinfo=BERLIN), datetime(2026, 3, 28, 11, tzinfo=BERLIN)),
        (datetime(2026, 10, 25, 12, tzinfo=BERLIN), datetime(2026, 10, 24, 13, tzinfo=BERLIN)),
        (datetime(2026, 4, 1, tzinfo=BERLIN), datetime(2026, 3, 31, tzinfo=BERLIN)),
        (datetime(2028, 3, 1, tzinfo=BERLIN), datetime(2028, 2, 29, tzinfo=BERLIN)),
    ],
)
async def test_one_day_left_is_86400_seconds_before_the_end(
    caller: Caller, clock: ManualClock, database: Database, end: datetime, reached: datetime
) -> None:
    acme = Holder(caller)
    customer = in_berlin()
    customer.plan_end_time.CopyFrom(to_timestamp(end.astimezone(UTC)))
    clock.set(reached.astimezone(UTC) - timedelta(days=3))
    await caller.put_customer(customer)
    await acme.put("c", spans=[("50", clock.now(), end.astimezone(UTC))])
    segments = await caller.create(alert("1", low_remaining_days_for_commit_segment_reached=DAYS))
    plan = await caller.create(alert("1", low_remaining_days_in_plan_reached=PLAN))
    clock.set(reached.astimezone(UTC) - timedelta(microseconds=1))
    await work_off(timers_of(database, clock), database, clock)
    assert await acme.notified() == []
    clock.set(reached.astimezone(UTC))
    await work_off(timers_of(database, clock), database, clock)
    assert {one.alert_id for one in await caller.notifications()} == {segments.alert_id, plan.alert_id}
    assert {(one.kind, one.level, one.value) for crossed in await acme.notified() for one in crossed} == {
        ("REACHED", "1", "1")
    }


async def test_customer_whose_evaluation_fails_does_not_delay_other_customers(
    caller: Caller, clock: ManualClock, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, names = clock.now(), [f"c{number}" for number in range(8)]
    for name in names:
        await Holder(caller, name).put("c", spans=[("50", now, now + HOUR)])
    await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    catch_up = due_timers.catch_up

    async def failing(*arguments: object) -> None:
        due = arguments[1]
        assert isinstance(due, dict)
        if any(customer.customer_id == "c3" for customer in due):
            raise ValueError("this customer's evaluation fails")
        await catch_up(*arguments)  # type: ignore[arg-type]  # passed on unchanged

    with monkeypatch.context() as patched:
        patched.setattr(timers, "catch_up", failing)
        clock.set(now + HOUR)
        await timers_of(database, clock).sweep()

        async def all_but_one_notified() -> bool:
            return {one.customer_id for one in await caller.notifications()} == {*names} - {"c3"}

        await until(all_but_one_notified)
    await work_off(timers_of(database, clock), database, clock)
    assert len(await Holder(caller, "c3").notified()) == 1


async def test_cancelled_sweep_is_completed_by_the_next(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    now = clock.now()
    names = [f"c{number:03d}" for number in range(60)]
    for name in names:
        await Holder(caller, name).put("c", spans=[("50", now, now + HOUR)])
    await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    clock.set(now + HOUR)
    for _ in range(5):
        sweeping = asyncio.create_task(timers_of(database, clock).sweep())
        await asyncio.sleep(0.01)
        sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeping
    await work_off(timers_of(database, clock), database, clock)
    assert sorted(one.customer_id for one in await caller.notifications()) == names


async def test_sweep_skips_a_wallet_that_another_transaction_holds(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("c", spans=[("50", now, now + HOUR)])
    await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    async with database.raw_transaction() as connection:
        await connection.execute("SELECT 1 FROM wallet WHERE customer_id = 'acme' FOR UPDATE")
        clock.set(now + HOUR)
        async with asyncio.timeout(DEADLINE):
            assert 0 < await timers_of(database, clock).sweep() < 1
        assert await acme.notified() == []
    await work_off(timers_of(database, clock), database, clock)
    assert len(await acme.notified()) == 1


async def test_timers_of_5001_customers_due_in_one_second_are_evaluated(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("c", spans=[("50", now, now + HOUR)])
    await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    for table, key in (
        ("customer", "customer_id"),
        ("wallet", "customer_id"),
        ("balance", "customer_id"),
        ("balance_segment", "customer_id"),
    ):
        columns = ", ".join(
            row[0]
            for row in await caller.rows(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %(table)s"
                " AND column_name <> %(key)s AND is_generated = 'NEVER'",
                table=table,
                key=key,
            )
        )
        await caller.rows(
            f"INSERT INTO {table} ({key}, {columns})"
            f" SELECT 'c' || n, {columns} FROM {table}, generate_series(1, 5000) AS n"
            " WHERE organization_id = %(organization_id)s AND customer_id = 'acme' RETURNING 1"
        )
    clock.set(now + HOUR)
    await work_off(timers_of(database, clock), database, clock)
    [[notified]] = await caller.rows("SELECT count(*) FROM notification WHERE organization_id = %(organization_id)s")
    assert notified == 5001


async def test_month_of_invoices_is_in_the_time_zone_of_the_customer(caller: Caller, clock: ManualClock) -> None:
    """March ends in Berlin at 22:00 UTC, since summer time has begun."""
    await caller.put_customer(in_berlin())
    monthly = condition_pb2.MonthlyInvoiceTotalSpendThresholdReachedCondition()
    await caller.create(alert("100", monthly_invoice_total_spend_threshold_reached=monthly))

    async def put(invoice_id: str, total: str, end: datetime) -> None:
        invoice = invoice_pb2.Invoice(
            invoice_id=invoice_id,
            customer_id="acme",
            status=invoice_pb2.INVOICE_STATUS_ISSUED,
            currency="USD",
            total=total,
            period_start_time=to_timestamp(end - timedelta(days=20)),
            period_end_time=to_timestamp(end),
        )
        await caller.accounts.PutInvoice(
            account_service_pb2.PutInvoiceRequest(invoice=invoice), metadata=caller.metadata
        )

    last = datetime(2026, 4, 1, tzinfo=BERLIN).astimezone(UTC)
    assert last == datetime(2026, 3, 31, 22, tzinfo=UTC)
    await put("march", "60", last)
    await put("april", "60", last + timedelta(seconds=1))
    acme = Holder(caller)
    assert await acme.notified() == []
    await put("march too", "40", datetime(2026, 3, 1, 1, tzinfo=BERLIN).astimezone(UTC))
    assert [(one.kind, one.level, one.value) for crossed in await acme.notified() for one in crossed] == [
        ("REACHED", "100", "100")
    ]
