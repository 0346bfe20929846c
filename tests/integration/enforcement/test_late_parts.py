"""On a cluster, decisions are right although a commit shows at the coordinator before it shows at the workers."""

import asyncio

import pytest

from evaluator.enforcement.decisions import Outcome
from generated.tidemark.v1 import customer_pb2
from store.postgres.database import Database
from tests.support.enforcement.gateway import Gateway, put_limit
from tests.support.postgres.late_parts import LateParts, late
from tests.support.postgres.lock_waits import until_it_waits_for_a_lock
from tests.support.postgres.nodes import workers
from tests.support.usage.caller import Caller

__all__ = ["late"]

pytestmark = pytest.mark.skipif(
    not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
)


async def test_check_beside_a_put_waits_until_it_shows_and_keeps_no_older_fact(
    late: LateParts, caller: Caller, gateway: Gateway, own_pool: Database
) -> None:
    await put_limit(caller, "1", "of-plan", plan="small")
    await caller.put_customer(customer_pb2.Customer(customer_id="bob"))
    assert (await gateway.check("2", customer="bob")).outcome is Outcome.ALLOWED
    with late.held():
        put = asyncio.create_task(caller.put_customer(customer_pb2.Customer(customer_id="bob", plan_id="small")))
        await late.until_held(put)
        checking = asyncio.create_task(gateway.check("2", customer="bob"))
        await until_it_waits_for_a_lock(own_pool, checking)
    await put
    assert (await checking).outcome is Outcome.DENIED
    assert (await gateway.check("2", customer="bob")).outcome is Outcome.DENIED
