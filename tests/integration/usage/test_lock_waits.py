"""Transactions of one organization that wait for a lock leave connections to other organizations."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from generated.tidemark.v1 import usage_pb2
from generated.tidemark.v1.account_service_pb2 import ListCustomersRequest, PutMetricRequest
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from runtime.clock import ManualClock
from tests.support.postgres.lock_waits import SESSIONS
from tests.support.usage.caller import Caller, calling, ingest_held, until, waiting_for_locks
from tests.support.usage.organizations import organization

POOL = 12  # connections of the server, by default


@pytest.fixture
async def stuck(database_url: str, clock: ManualClock) -> AsyncIterator[Caller]:
    """A caller of a server with a database of its own."""
    name, key = await organization(database_url, clock)
    async with calling(database_url, clock, name, key) as caller:
        yield caller


async def test_organization_waiting_for_a_lock_does_not_stop_other_organizations(
    stuck: Caller, clock: ManualClock
) -> None:
    _, key = await organization(stuck.database_url, clock)
    accounts = AccountServiceStub(stuck.server.channel)

    async def put(number: int) -> None:
        request = PutMetricRequest()
        request.metric.metric_id = f"metric-{number}"
        await accounts.PutMetric(request, timeout=60, metadata=(("authorization", f"Bearer {stuck.key}"),))

    async with ingest_held(stuck):
        # More changes than connections. Those that wait at the same time share a transaction.
        changes = [asyncio.create_task(put(number)) for number in range(2 * POOL)]
        await waiting_for_locks(stuck, 1)
        mine = (("authorization", f"Bearer {key}"),)
        for _ in range(20):
            await accounts.ListCustomers(ListCustomersRequest(), timeout=60, metadata=mine)
        request = EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=[stuck.event("e1")]))
        answer = await AlertServiceStub(stuck.server.channel).EvaluateUsageBatch(request, timeout=60, metadata=mine)
        assert answer.outcome.accepted == 1
    # The changes were repeated after their lock timeout, and none was lost.
    await asyncio.gather(*changes)
    [[number]] = await stuck.rows(
        "SELECT count(*) FROM metric WHERE organization_id = %(organization_id)s AND metric_id LIKE 'metric-%%'"
    )
    assert number == 2 * POOL


async def test_usage_is_accepted_once_when_its_lock_wait_outlasts_one_attempt(
    stuck: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await psycopg.AsyncConnection.connect(stuck.database_url, autocommit=True) as look:
        async with ingest_held(stuck):
            sending = asyncio.create_task(stuck.send(stuck.event("e1"), stuck.event("e2")))
            seen: set[object] = set()

            async def tried_twice() -> bool:
                cursor = await look.execute(
                    f"SELECT xact_start FROM {SESSIONS}"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                seen.update(await cursor.fetchall())
                return len(seen) >= 2

            await until(tried_twice)
        answer = await sending
    assert (answer.accepted, answer.duplicates) == (2, 0)
    assert await stuck.event_count() == 2
