"""What comes at the wrong time, twice, or from others: reports, erasures, periods, clocks that differ."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import account_service_pb2, recharge_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.balances.recharging import EXPIRED, NO_COOLDOWN, PAID, REQUESTED, Recharging
from tests.support.balances.timing import timers_of, work_off
from tests.support.server.running import reason_of
from tests.support.usage.caller import Caller, beside, calling, until
from tests.support.usage.organizations import organization

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def low(caller: Caller, **fields: Any) -> Recharging:
    """Acme with 10 dollars, of which 90 are missing."""
    acme = Recharging(caller)
    await acme.put("prepaid", "10", allow_overage=True)
    await acme.put_policy(**fields)
    return acme


async def reason(call: Awaitable[object]) -> str:
    """The reason of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason_of(refused.value).removeprefix("ERROR_REASON_")


async def test_twenty_equal_reports_on_two_servers_add_the_amount_once(caller: Caller) -> None:
    acme = await low(caller)
    requested = await acme.open()
    async with beside(caller) as second:
        servers = [acme, Recharging(second)]
        answers = await asyncio.gather(*[servers[number % 2].paid(requested.recharge_id) for number in range(20)])
    assert sorted(one.replayed for one in answers) == [False] + [True] * 19
    assert await acme.remaining() == {"prepaid": 100}
    assert await acme.notified_recharges() == [("requested", requested.recharge_id)]


async def test_one_of_two_different_reports_is_taken(caller: Caller) -> None:
    acme = await low(caller, failure_cooldown=NO_COOLDOWN)
    requested = await acme.open()
    answers = await asyncio.gather(
        acme.paid(requested.recharge_id),
        acme.failed(requested.recharge_id),
        acme.paid(requested.recharge_id, amount="90"),  # not the same as without an amount
        return_exceptions=True,
    )
    taken = [one for one in answers if not isinstance(one, BaseException)]
    refused = [reason_of(one) for one in answers if isinstance(one, grpc.aio.AioRpcError)]
    assert (len(taken), refused) == (1, ["ERROR_REASON_RECHARGE_ENDED"] * 2)
    assert await acme.remaining() == {"prepaid": 100 if taken[0].recharge.state == PAID else 10}


async def test_a_recharge_of_another_organization_or_customer_is_unknown(caller: Caller, clock: ManualClock) -> None:
    acme = await low(caller)
    requested = await acme.open()
    other_customer = Recharging(caller, "globex")
    assert await reason(other_customer.paid(requested.recharge_id)) == "RECHARGE_NOT_FOUND"
    name, secret = await organization(caller.database_url, clock)
    stranger = Recharging(Caller(caller.server, clock, caller.database_url, name, secret))
    await stranger.put("prepaid", "10")
    assert await reason(stranger.paid(requested.recharge_id)) == "RECHARGE_NOT_FOUND"
    assert await reason(stranger.get(requested.recharge_id)) == "RECHARGE_NOT_FOUND"
    assert await stranger.recharges() == []
    assert await reason(stranger.get_policy()) == "RECHARGE_POLICY_NOT_FOUND"
    assert (await acme.open()).recharge_id == requested.recharge_id


async def test_a_recharge_counts_in_the_period_of_its_request_also_when_it_is_paid_in_the_next(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme = await low(caller, max_amount_per_period="120", report_timeout=30 * DAY)
    in_march = await acme.open()
    assert in_march.amount == "90"
    clock.advance(20 * DAY)  # to April
    await acme.paid(in_march.recharge_id)
    await acme.spend("e1", "100")
    in_april = await acme.open()
    assert in_april.amount == "100"  # the cap of April is whole
    await acme.paid(in_april.recharge_id)
    await acme.spend("e2", "100")
    assert (await acme.open()).amount == "20"
    await acme.paid((await acme.open()).recharge_id)
    await acme.spend("e3", "1")
    assert await acme.recharges(REQUESTED) == []
    policy = await acme.get_policy()
    assert policy.wait_reason == recharge_pb2.RECHARGE_WAIT_REASON_MAX_AMOUNT
    assert policy.wait_end_time.ToDatetime(UTC) == datetime(2026, 5, 1, tzinfo=UTC)


async def test_a_policy_that_changes_while_a_recharge_is_open_changes_only_the_next_one(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme = await low(caller, report_timeout=HOUR, failure_cooldown=NO_COOLDOWN)
    first = await acme.open()
    await acme.put_policy(below="15", level="500", report_timeout=DAY, failure_cooldown=NO_COOLDOWN)
    assert await acme.open() == first
    clock.advance(HOUR)
    await work_off(timers_of(database, clock), database, clock)
    assert (await acme.get(first.recharge_id)).state == EXPIRED
    second = await acme.open()
    assert (second.amount, second.attempt) == ("490", 2)
    assert second.expire_time.ToDatetime() - second.create_time.ToDatetime() == DAY
    await acme.paid(first.recharge_id)
    assert await acme.open() == second


async def test_a_report_during_or_after_an_erasure_adds_nothing(caller: Caller) -> None:
    """Nothing of the customer comes back."""
    acme = await low(caller)
    requested = await acme.open()
    await caller.accounts.DeleteCustomer(
        account_service_pb2.DeleteCustomerRequest(customer_id="acme"), metadata=caller.metadata
    )
    refused = set[str]()

    async def erased() -> bool:
        try:
            await acme.paid(requested.recharge_id)
        except grpc.aio.AioRpcError as error:
            refused.add(reason_of(error).removeprefix("ERROR_REASON_"))
        return "RECHARGE_NOT_FOUND" in refused and not await caller.rows(
            "SELECT 1 FROM customer WHERE organization_id = %(organization_id)s"
        )

    await until(erased)
    assert refused <= {"RECHARGE_NOT_FOUND", "CUSTOMER_BEING_ERASED"}
    for table in ("balance", "balance_segment", "recharge", "recharge_policy", "wallet", "notification"):
        mine = f"SELECT 1 FROM {table} WHERE organization_id = %(organization_id)s AND customer_id = 'acme'"
        assert await caller.rows(mine) == [], table


async def test_a_server_whose_clock_is_behind_requests_no_second_recharge(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    """What the faster clock has ended stays ended, and its cooldown holds on both servers."""
    acme = await low(caller, cooldown=HOUR)
    await acme.paid((await acme.open()).recharge_id)
    slow = ManualClock(clock.now() - timedelta(minutes=10))
    async with calling(caller.database_url, slow, caller.organization, caller.key) as behind:
        late = Recharging(behind)
        await late.spend("e1", "95", at=slow.now())
        assert await acme.recharges(REQUESTED) == []
        policy = await late.get_policy()
        assert policy.wait_end_time.ToDatetime(clock.now().tzinfo) == clock.now() + HOUR
        clock.advance(HOUR)
        await work_off(timers_of(database, clock), database, clock)
        requested = await acme.open()
        await late.spend("e2", "5", at=slow.now())
        await work_off(timers_of(database, slow), database, slow)
        assert (await acme.open()).recharge_id == requested.recharge_id
        await late.paid(requested.recharge_id)
    assert await acme.remaining() == {"prepaid": 95}
