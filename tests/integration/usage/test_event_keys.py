"""The keys of events: partitions with the narrow key, and those that still have the key of texts, act alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from engine.upkeep import AHEAD, Upkeep
from evaluator.aggregation import Aggregation
from evaluator.balances import Unit
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge, Measure
from evaluator.periods import DEFAULT_CYCLE
from evaluator.voids import EventKey
from evaluator.watched_gauges import CustomerMeasure
from generated.tidemark.v1 import metric_pb2
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from store.accounts import customer_evaluations, uses
from store.balances.usage_classes import Division, usage_classes
from store.postgres import partitions
from store.postgres.database import Database, DriverConnection, driver
from store.usage import counted_groups, events, recounts, voids
from tests.support.postgres.only_one_server import has_old_keys, reads_plans
from tests.support.server.sharing import own_database
from tests.support.usage.caller import (
    Caller,
    Outcome,
    Refusal,
    beside,
    calling,
    ingest_held,
    on_customer,
    refusals,
    usage_alert,
    values,
    waiting_for_locks,
)
from tests.support.usage.event_keys import key_definitions, use_key_of_texts
from tests.support.usage.organizations import organization
from tests.support.usage.voiding import key, outcomes, void

pytestmark = own_database

FORMS = ("narrow key", pytest.param("key of texts", marks=has_old_keys))


@pytest.fixture
async def caller(database_url: str, clock: ManualClock) -> AsyncIterator[Caller]:
    """A caller of a server on a database of each test's own, because the tests change its partitions."""
    async with calling(database_url, clock, *await organization(database_url, clock)) as found:
        yield found


@pytest.fixture(params=FORMS)
async def keyed(request: pytest.FixtureRequest, caller: Caller) -> Caller:
    """A caller whose events are in partitions of that form."""
    if request.param == "key of texts":
        await use_key_of_texts(caller.database_url)
    return caller


def counts(answer: Outcome) -> tuple[int, int, int]:
    """How many events were accepted, duplicates and rejected."""
    return answer.accepted, answer.duplicates, len(answer.rejected)


async def test_duplicates_and_conflicts_are_found(keyed: Caller) -> None:
    await keyed.create(usage_alert("1000"))
    sent = [keyed.event(f"e{number}", "2", f"c{number % 3}") for number in range(30)]
    assert counts(await keyed.send(*sent)) == (30, 0, 0)
    assert counts(await keyed.send(*sent)) == (0, 30, 0)
    other_time = keyed.event("e0", "2", "c0", at=keyed.clock.now() - timedelta(days=10))
    answer = await keyed.send(keyed.event("new", "1", "c0"), keyed.event("e1", "3", "c1"), other_time, gauges=True)
    assert counts(answer) == (1, 0, 2)
    assert refusals(answer) == [Refusal(at, "ALREADY_EXISTS", "EVENT_CONFLICT") for at in (1, 2)]
    assert values(answer.gauges) == {("c0", "calls"): 21}
    async with beside(keyed) as after_a_restart:
        assert counts(await after_a_restart.send(*sent)) == (0, 30, 0)


async def test_servers_that_race_with_one_event_count_it_once(keyed: Caller) -> None:
    await keyed.create(usage_alert("1000"))
    sent = [keyed.event(f"e{number}", "2", customer) for customer in ("acme", "beta") for number in range(20)]
    async with beside(keyed) as other:
        async with ingest_held(keyed):
            tries = [asyncio.create_task(one.send(*order)) for one in (keyed, other) for order in (sent, sent[::-1])]
            await waiting_for_locks(keyed, 2)
        answers = await asyncio.gather(*tries)
    assert sum(answer.accepted for answer in answers) == 40
    assert sum(answer.duplicates for answer in answers) == 120
    last = await keyed.send(keyed.event("last", "1"), gauges=True)
    assert values(last.gauges) == {("acme", "calls"): 41}


async def test_voided_event_can_be_sent_again(keyed: Caller) -> None:
    await keyed.create(usage_alert("1000"))
    event = keyed.event("e1", "5")
    await keyed.send(event, keyed.event("e2", "7"))
    assert outcomes(await void(keyed, "e1", key("e2", at=keyed.clock.now()), "e9")) == [
        "VOIDED",
        "VOIDED",
        "NOT_FOUND",
    ]
    assert outcomes(await void(keyed, "e1")) == ["ALREADY_VOIDED"]
    answer = await keyed.send(event, gauges=True)
    assert counts(answer) == (1, 0, 0)
    assert values(answer.gauges) == {("acme", "calls"): 5}
    assert counts(await keyed.send(event)) == (0, 1, 0)


async def test_events_of_two_organizations_do_not_meet(keyed: Caller) -> None:
    """Also where customer ids and event ids are the same."""
    event = keyed.event("e1", "5")
    await keyed.send(event)
    [[organization_id]] = await keyed.rows("SELECT %(organization_id)s")
    one = UsageEvent("e1", "acme", keyed.clock.now(), "calls", Decimal(5), None, None, None, {})
    database = Database(keyed.database_url, pool_size=1)
    async with database.raw_transaction() as connection:
        # The second one shares the lower bits of its number with the first one.
        for other in (organization_id + 1, organization_id + 2**19):
            assert await events.insert(connection, other, keyed.clock.now(), [one]) == {("acme", "e1")}
            assert await events.insert(connection, other, keyed.clock.now(), [one]) == set()
    await database.close()


async def test_alert_counts_what_was_stored_before_it(keyed: Caller) -> None:
    await keyed.put_metric("users", metric_pb2.AGGREGATION_UNIQUE_COUNT, "user")
    for number in range(6):
        region = ("eu", "us")[number % 2]
        await keyed.send(
            keyed.event(f"e{number}", "2", region=region),
            keyed.event(f"u{number}", "1", metric="users", user=f"u{number % 4}"),
        )
    wide = await keyed.create(usage_alert("100"))
    grouped = await keyed.create(usage_alert("100", groups=[("region", None)]))
    users = await keyed.create(usage_alert("100", metric="users", scope=on_customer()))
    assert [one.gauge.value for one in (await keyed.state(wide.alert_id)).gauges] == ["12"]
    assert [one.gauge.value for one in (await keyed.state(grouped.alert_id)).gauges] == ["6", "6"]
    assert [one.gauge.value for one in (await keyed.state(users.alert_id)).gauges] == ["4"]


async def test_the_same_id_counts_in_each_month_and_is_known_after_another_month_was_dropped(
    keyed: Caller, clock: ManualClock
) -> None:
    clock.set(datetime(2026, 4, 2, tzinfo=UTC))
    await keyed.create(usage_alert("1000"))
    march, april = datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    first, second = keyed.event("e1", "5", at=march), keyed.event("e1", "5", at=april)
    answer = await keyed.send(first, keyed.event("e2", "1", at=march))
    assert refusals(answer) == []
    assert counts(await keyed.send(second)) == (1, 0, 0)
    assert counts(await keyed.send(first)) == counts(await keyed.send(second)) == (0, 1, 0)
    assert outcomes(await void(keyed, "e1")) == ["AMBIGUOUS"]
    database = Database(keyed.database_url, pool_size=1)
    async with database.transaction() as connection:
        await partitions.maintain(connection, april, april + AHEAD, april)
        assert min(await partitions.existing_months(connection)) == april
    await database.close()
    assert counts(await keyed.send(second)) == (0, 1, 0)
    assert outcomes(await void(keyed, "e1")) == ["VOIDED"]


async def test_an_event_whose_key_belongs_to_another_one_is_refused_and_its_neighbours_count(caller: Caller) -> None:
    """A stricter index stands for two ids that have one hash by chance: event ids of one length are the same."""
    await caller.create(usage_alert("1000"))
    partition = f"event_{caller.clock.now():%Y_%m}"
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        await connection.execute(
            f"CREATE UNIQUE INDEX by_length ON {partition} (customer_id, length(event_id))".encode()
        )
    await caller.send(caller.event("e1", "5"))
    answer = await caller.send(
        caller.event("n" * 3, "1"), caller.event("e2", "7"), caller.event("e1", "5"), gauges=True
    )
    assert counts(answer) == (1, 1, 1)
    assert [one.event_id for one in answer.rejected] == ["e2"]
    assert values(answer.gauges) == {("acme", "calls"): 6}


async def test_partitions_made_by_upkeep_and_by_the_migration_have_the_same_key(database: Database) -> None:
    async with database.raw_transaction() as connection:
        made = set((await key_definitions(connection)).values())
    assert len(made) == 1
    upkeep = Upkeep(
        database,
        ManualClock(datetime(2027, 3, 1, tzinfo=UTC)),
        Configuration().retention,
        Configuration().notification_retention,
    )
    await upkeep.run_once()
    async with database.raw_transaction() as connection:
        assert set((await key_definitions(connection)).values()) == made


Statement = Callable[[DriverConnection, int], Awaitable[object]]

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
PERIOD = DEFAULT_CYCLE.period_at(NOW)
ONE = UsageEvent("e1", "acme", NOW, "calls", Decimal(1), None, None, None, {})
CALLS = Measure(metric_id="calls")


def _recount(aggregation: Aggregation) -> recounts.Recount:
    return recounts.Recount(Gauge("acme", None, CALLS, (), PERIOD), aggregation, "user", ())


def _target() -> CustomerMeasure:
    return CustomerMeasure(CALLS, "acme", None, DEFAULT_CYCLE, Aggregation.SUM, None, 0, NOW, {}, PERIOD)


def _division() -> Division:
    return Division([], [NOW], [], [])


STATEMENTS: dict[str, Statement] = {
    "insert": lambda raw, org: events.insert(raw, org, NOW, [ONE]),
    "compare": lambda raw, org: events.stored_alike(raw, org, [ONE]),
    "check": lambda raw, org: events.check_stored(raw, org, [ONE]),
    "lock for a void": lambda raw, org: voids.lock(
        raw, org, [EventKey("acme", "e1", NOW), EventKey("acme", "e1", None)]
    ),
    "void": lambda raw, org: voids.void(raw, org, [ONE], NOW, None),
    "recount": lambda raw, org: recounts.recount(raw, org, [_recount(Aggregation.SUM)]),
    "recount values": lambda raw, org: recounts.recount_values(raw, org, [_recount(Aggregation.UNIQUE_COUNT)]),
    "count groups": lambda raw, org: counted_groups.counted_groups(raw, org, [_target()], ("user",), NOW),
    "large customers": lambda raw, org: counted_groups.large_customers(raw, org, ["acme"], 10),
    "customers with usage": lambda raw, org: customer_evaluations.having_usage(raw, org, ["acme"]),
    "usage classes": lambda raw, org: usage_classes(raw, org, "acme", Unit(metric_id="calls"), _division(), [ONE]),
}


async def _sequential_reads(connection: DriverConnection) -> int:
    cursor = await connection.execute(
        "SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_xact_user_tables WHERE relname LIKE 'event\\_2%'"
    )
    [row] = await cursor.fetchall()
    return int(row[0])


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("form", FORMS)
async def test_statement_finds_events_through_the_key(
    database: Database, database_url: str, form: str, statement: str
) -> None:
    if form == "key of texts":
        await use_key_of_texts(database_url)
    async with database.raw_transaction() as connection:
        await events.insert(connection, 1, NOW, [ONE])
        await connection.execute("SET LOCAL enable_seqscan = off")
        await STATEMENTS[statement](connection, 1)
        assert await _sequential_reads(connection) == 0


@pytest.mark.parametrize("form", FORMS)
async def test_usage_of_facts_is_found_through_the_key(database: Database, database_url: str, form: str) -> None:
    if form == "key of texts":
        await use_key_of_texts(database_url)
    async with database.transaction() as connection:
        raw = await driver(connection)
        await raw.execute("SET LOCAL enable_seqscan = off")
        await events.insert(raw, 1, NOW, [ONE._replace(subscription_id="pro")])
        await raw.execute(
            "INSERT INTO customer (organization_id, customer_id, anchor_time, cadence, interval_count, time_zone,"
            " create_time, update_time, changed_epoch) VALUES (1, 'acme', now(), 'MONTH', 1, 'UTC', now(), now(), 1)"
        )
        for metric_id, used in (("calls", True), ("tokens", False)):
            assert await uses.metric_by_usage(connection, 1, metric_id) is used
        for name, used in (("pro", True), ("basic", False)):
            found = await uses.subscription_by_usage(connection, 1, customer_id="acme", subscription_id=name)
            assert found is used
        assert not await uses.metric_by_usage(connection, 2, "calls")
        assert await _sequential_reads(raw) == 0


@reads_plans
async def test_recount_of_a_customer_reads_the_rows_of_that_customer(database: Database) -> None:
    """Beside 10,000 events of others, with the statistics that PostgreSQL has after an ANALYZE."""
    async with database.raw_transaction() as connection:
        await connection.execute(
            "INSERT INTO event (organization_id, customer_id, event_id, event_time, ingest_time, metric_id, quantity)"
            " SELECT 1, 'c' || n %% 1000, 'e' || n, %s, %s, 'calls', 1 FROM generate_series(1, 10000) AS n",
            (NOW, NOW),
        )
        await connection.execute("ANALYZE event")
        [(tally, number)] = await recounts.recount(
            connection, 1, [recounts.Recount(Gauge("c7", None, CALLS, (), PERIOD), Aggregation.SUM, None, ())]
        )
        assert (tally.value, number) == (Decimal(10), 10)
        assert await _sequential_reads(connection) == 0
