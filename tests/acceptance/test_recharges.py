"""`kill -9` while a recharge is requested or reported: one request, and one payment into the balance."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

import grpc

from cli.client.connection import UNARY_TIMEOUT, Address
from generated.tidemark.v1 import access_pb2, account_service_pb2, balance_pb2, recharge_pb2, usage_pb2
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from server.calls.validation import to_timestamp
from tests.support.processes.programs import Program, Programs, session, until_counted

Answer = TypeVar("Answer")

WAITING_FOR_TABLE = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'recharge'::regclass"
WAITING_IN_COMMIT = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query = 'COMMIT'
"""
CONNECTED = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name ~ '^tidemark [^ ]+$'
"""
# Each COMMIT of a transaction that requests or closes a recharge waits for the session that holds the lock.
WAIT_IN_COMMIT = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER wait AFTER INSERT OR UPDATE ON recharge DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait();
"""
NOW = datetime.now(UTC)
USAGE = usage_pb2.UsageEvent(
    event_id="e-1",
    customer_id="acme",
    metric_id="calls",
    quantity="1",
    cost="35",
    currency="USD",
    event_time=to_timestamp(NOW),
)


@asynccontextmanager
async def holding(url: str, statement: str) -> AsyncIterator[None]:
    """Holds the lock that the statement takes, inside the block."""
    async with session(url, autocommit=False) as connection:
        await connection.execute(statement.encode())
        yield


class Client:
    """The billing system, which sends each call until it is answered."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def use(self) -> usage_pb2.UsageOutcome:
        """Sends the usage that lowers the balance."""
        async with self._address.channel() as channel:
            request = EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=[USAGE]))
            return (await AlertServiceStub(channel).EvaluateUsageBatch(request, timeout=UNARY_TIMEOUT)).outcome

    async def prepare(self) -> None:
        """Puts a balance of 50 and its policy: below 20, up to 100."""
        async with self._address.channel() as channel:
            stub = AccountServiceStub(channel)
            balance = balance_pb2.Balance(
                customer_id="acme",
                balance_id="prepaid",
                kind=balance_pb2.BALANCE_KIND_CREDIT_GRANT,
                spend=access_pb2.SpendAccess(currency="USD"),
                draw_down=True,
                segments=[balance_pb2.BalanceSegment(amount="50", start_time=to_timestamp(NOW.replace(year=2020)))],
            )
            await stub.PutBalance(account_service_pb2.PutBalanceRequest(balance=balance), timeout=UNARY_TIMEOUT)
            policy = recharge_pb2.RechargePolicy(
                customer_id="acme",
                balance_id="prepaid",
                below="20",
                up_to=recharge_pb2.RechargeUpTo(level="100"),
            )
            await stub.PutRechargePolicy(
                account_service_pb2.PutRechargePolicyRequest(recharge_policy=policy), timeout=UNARY_TIMEOUT
            )

    async def recharges(self) -> list[recharge_pb2.Recharge]:
        """All recharges."""
        async with self._address.channel() as channel:
            request = account_service_pb2.ListRechargesRequest()
            return list((await AccountServiceStub(channel).ListRecharges(request, timeout=UNARY_TIMEOUT)).recharges)

    async def pay(self, recharge_id: str) -> account_service_pb2.ReportRechargeResponse:
        """Reports a recharge as paid."""
        async with self._address.channel() as channel:
            request = account_service_pb2.ReportRechargeRequest(
                customer_id="acme", recharge_id=recharge_id, paid=recharge_pb2.RechargePaid()
            )
            return await AccountServiceStub(channel).ReportRecharge(request, timeout=UNARY_TIMEOUT)

    async def remaining(self) -> str:
        """What remains of the balance."""
        async with self._address.channel() as channel:
            request = account_service_pb2.GetBalanceRequest(customer_id="acme", balance_id="prepaid")
            return (await AccountServiceStub(channel).GetBalance(request, timeout=UNARY_TIMEOUT)).balance.remaining


async def killed_while(server: Program, url: str, lock: str, waiting: str, call: Awaitable[Answer]) -> None:
    """Makes a call, kills the server while its transaction waits for the lock, and starts the server again."""
    unanswered = asyncio.ensure_future(call)
    async with holding(url, lock):
        await until_counted(url, waiting, 1)
        await server.killed()
    await until_counted(url, CONNECTED, 0)
    await server.start()
    try:
        await unanswered
    except grpc.aio.AioRpcError:
        return
    raise AssertionError("the call of a killed server was answered")


async def test_a_server_killed_before_its_commit_requests_nothing(programs: Programs, database_url: str) -> None:
    server = await programs.serve()
    client = Client(server.address)
    await client.prepare()
    lock = "LOCK TABLE recharge IN EXCLUSIVE MODE"
    await killed_while(server, database_url, lock, WAITING_FOR_TABLE, client.use())
    assert (await client.recharges(), await client.remaining()) == ([], "50")
    assert (await client.use()).accepted == 1
    assert [one.amount for one in await client.recharges()] == ["85"]
    assert server.complaints() == []


async def test_a_recharge_is_requested_and_paid_once_by_servers_that_are_killed_before_they_answer(
    programs: Programs, database_url: str
) -> None:
    server = await programs.serve()
    client = Client(server.address)
    await client.prepare()
    async with session(database_url) as connection:
        await connection.execute(WAIT_IN_COMMIT.encode())
    lock = "SELECT pg_advisory_xact_lock(1)"
    await killed_while(server, database_url, lock, WAITING_IN_COMMIT, client.use())
    [requested] = await client.recharges()  # PostgreSQL completes the COMMIT although the server is gone
    assert (requested.amount, requested.remaining) == ("85", "15")
    assert (await client.use()).duplicates == 1
    assert await client.recharges() == [requested]
    await killed_while(server, database_url, lock, WAITING_IN_COMMIT, client.pay(requested.recharge_id))
    assert await client.remaining() == "100"
    answer = await client.pay(requested.recharge_id)
    assert (answer.replayed, answer.recharge.state) == (True, recharge_pb2.RECHARGE_STATE_PAID)
    assert await client.remaining() == "100"
    await until_counted(database_url, "SELECT count(*) FROM outbox", 1)
    assert server.complaints() == []
