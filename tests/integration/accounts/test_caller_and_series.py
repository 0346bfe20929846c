"""GetCaller, the prefix of ListCustomers, GetBalanceSeries, and GetActivity."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
import pytest

from engine.activity import KEPT, UsageActivity, interval_of, last_complete
from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import balance_pb2, customer_pb2, role_pb2
from generated.tidemark.v1.alert_service_pb2 import GetActivityRequest
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.identity import keys
from store.identity.keys import CreatedKey, KeySettings
from store.identity.roles import Role
from store.postgres.database import Database
from store.usage import activity
from tests.support.server.running import reason_of
from tests.support.server.sharing import own_server
from tests.support.usage.caller import Caller, spend_alert, until, usage_alert


async def another_key(caller: Caller, settings: KeySettings) -> CreatedKey:
    """Another key of the caller's organization."""
    database = Database(caller.database_url, pool_size=1)
    try:
        async with database.transaction() as connection:
            return await keys.create_key(connection, caller.organization, caller.clock.now(), settings)
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("settings", "roles", "customer"),
    [
        (KeySettings(display_name="Ann"), [role_pb2.ROLE_ADMIN], ""),
        (
            KeySettings(roles=frozenset({Role.READER, Role.INGESTER})),
            [role_pb2.ROLE_READER, role_pb2.ROLE_INGESTER],
            "",
        ),
        (KeySettings(roles=frozenset({Role.READER}), customer_id="acme"), [role_pb2.ROLE_READER], "acme"),
    ],
)
async def test_a_caller_hears_who_it_is(
    caller: Caller, settings: KeySettings, roles: list[int], customer: str
) -> None:
    created = await another_key(caller, settings)
    metadata = (("authorization", f"Bearer {created.key}"),)
    answer = await caller.accounts.GetCaller(messages.GetCallerRequest(), metadata=metadata)
    assert answer.organization == caller.organization
    assert (list(answer.roles), answer.customer_id) == (roles, customer)
    assert (answer.key_id, answer.key_display_name) == (created.key_id, settings.display_name)


async def test_a_key_that_only_sends_usage_is_refused(caller: Caller) -> None:
    created = await another_key(caller, KeySettings(roles=frozenset({Role.INGESTER})))
    metadata = (("authorization", f"Bearer {created.key}"),)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.accounts.GetCaller(messages.GetCallerRequest(), metadata=metadata)
    assert reason_of(caught.value) == "ERROR_REASON_ROLE_MISSING"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a", ["a", "a%", "ab", "a_c", "a\U0010ffffz", "aé"]),
        ("a%", ["a%"]),
        ("a_", ["a_c"]),
        ("a\U0010ffff", ["a\U0010ffffz"]),
        ("B", ["B"]),
        ("x", []),
        ("aé", ["aé"]),
    ],
)
async def test_customers_are_listed_by_the_beginning_of_their_ids(
    caller: Caller, prefix: str, expected: list[str]
) -> None:
    for customer_id in ("a", "a%", "ab", "a_c", "aé", "a\U0010ffffz", "B", "b"):
        await caller.put_customer(customer_pb2.Customer(customer_id=customer_id))
    found, token = [], ""
    while True:
        request = messages.ListCustomersRequest(
            customer_id_prefix=prefix, page_size=2, page_token=token, include_total_size=True
        )
        answer = await caller.accounts.ListCustomers(request, metadata=caller.metadata)
        found += [one.customer_id for one in answer.customers]
        assert answer.total_size == len(expected)
        token = answer.next_page_token
        if not token:
            break
    assert found == sorted(expected, key=str.encode)


async def test_a_balance_has_the_course_of_its_ledger(database: Database, clock: ManualClock, caller: Caller) -> None:
    start = clock.now() - timedelta(days=30)
    segment = balance_pb2.BalanceSegment(amount="100", start_time=to_timestamp(start))
    balance = balance_pb2.Balance(
        balance_id="b", customer_id="acme", kind=balance_pb2.BALANCE_KIND_COMMIT, draw_down=True, segments=[segment]
    )
    balance.spend.currency = "USD"
    await caller.accounts.PutBalance(messages.PutBalanceRequest(balance=balance), metadata=caller.metadata)
    await caller.create(spend_alert("1000"))
    for number, cost in enumerate(("10", "20", "-5", "90")):
        clock.advance(timedelta(hours=6))
        await caller.send(caller.event(f"e{number}", cost=cost))
    clock.advance(timedelta(hours=6))
    request = messages.GetBalanceSeriesRequest(customer_id="acme", balance_id="b")
    answer = await caller.accounts.GetBalanceSeries(request, metadata=caller.metadata)
    seen: list[Decimal] = []
    for point in answer.points:
        value = Decimal(point.value)
        if not seen or seen[-1] != value:
            seen.append(value)
    assert seen == [Decimal(0), Decimal(100), Decimal(90), Decimal(70), Decimal(75), Decimal(0)]
    assert answer.drawn == "100", "what the balance could not give is overage"
    assert answer.balance.remaining == "0"
    assert answer.points[-1].point_time == to_timestamp(clock.now())
    assert not answer.is_truncated
    later = messages.GetBalanceSeriesRequest(customer_id="acme", balance_id="b", point_count=3)
    later.start_time.CopyFrom(to_timestamp(clock.now() - timedelta(hours=10)))
    answer = await caller.accounts.GetBalanceSeries(later, metadata=caller.metadata)
    assert len(answer.points) <= 3
    assert (answer.points[0].value, answer.points[-1].value, answer.drawn) == ("75", "0", "75")
    missing = messages.GetBalanceSeriesRequest(customer_id="acme", balance_id="other")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.accounts.GetBalanceSeries(missing, metadata=caller.metadata)
    assert reason_of(caught.value) == "ERROR_REASON_BALANCE_NOT_FOUND"


@own_server
async def test_activity_counts_usage_and_notifications(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert("3"))
    await caller.send(caller.event("e1"), caller.event("e2"), caller.event("e2"))
    await caller.send(caller.event("e3"), caller.event("e4"))
    start = interval_of(clock.now())
    clock.advance(timedelta(seconds=30))

    async def counted() -> bool:
        answer = await caller.alerts.GetActivity(GetActivityRequest(), metadata=caller.metadata)
        found = {one.start_time.ToDatetime(tzinfo=UTC): one for one in answer.activity.usage}
        assert len(found) == 60
        return found[start].event_count == 4

    await until(counted)
    answer = await caller.alerts.GetActivity(GetActivityRequest(), metadata=caller.metadata)
    [interval] = [one for one in answer.activity.usage if one.event_count]
    assert interval.transition_count == 1
    assert interval.wait.ToTimedelta() > timedelta()
    hours = answer.activity.notifications
    assert len(hours) == 24
    assert [one.reached_count for one in hours if one.reached_count] == [1]
    assert answer.activity.waiting_delivery_count == 0


async def test_what_several_processes_count_is_added_and_forgotten(database: Database) -> None:
    clock = ManualClock(datetime(2026, 3, 15, 12, 0, 5, tzinfo=UTC))
    first, second = UsageActivity(database, clock), UsageActivity(database, clock)
    start = interval_of(clock.now())
    first.add(7, 100, 2, 1.0)
    first.add(7, 50, 1, 0.5)
    second.add(7, 10, 0, 0.1)
    second.add(8, 1, 0, 0.1)
    await first.write_ended()
    clock.advance(timedelta(seconds=10))
    for one in (first, second):
        await one.write_ended()
        await one.write_ended()
    async with database.transaction() as connection:
        found = await activity.read(connection, 7, start, start + timedelta(seconds=10))
    assert (found[start].events, found[start].transitions) == (160, 3)
    assert last_complete(clock.now()) == start
    clock.advance(KEPT + timedelta(minutes=1))
    third = UsageActivity(database, clock)
    third.add(8, 1, 0, 0.1)
    clock.advance(timedelta(seconds=10))
    await third.write_ended()
    async with database.transaction() as connection:
        assert not await activity.read(connection, 7, start, start + timedelta(seconds=10))
