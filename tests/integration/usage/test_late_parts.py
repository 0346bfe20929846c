"""On a cluster, usage is exact although parts of a commit show late at workers, or stay in doubt for a while."""

from collections.abc import Awaitable
from dataclasses import replace

import grpc
import pytest

from generated.tidemark.v1 import customer_pb2
from tests.support.postgres.late_parts import LateParts, late
from tests.support.postgres.nodes import workers
from tests.support.server.running import reason_of
from tests.support.usage.caller import Caller, beside, on_plan, settings, usage_alert

__all__ = ["late"]

pytestmark = pytest.mark.skipif(
    not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
)

_TOTAL = "SELECT sum(value) FROM gauge WHERE organization_id = %(organization_id)s"
_UNAVAILABLE = "UNAVAILABLE ERROR_REASON_DATABASE_UNAVAILABLE"


async def _refusal(call: Awaitable[object]) -> str:
    """Why a call is refused; empty if it is not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {reason_of(error)}"
    return ""


async def test_facts_whose_change_is_in_doubt_are_not_cached_as_they_were(late: LateParts, caller: Caller) -> None:
    await caller.create(usage_alert("10", "100", scope=on_plan("small")))
    await caller.put_customer(customer_pb2.Customer(customer_id="bob"))
    await caller.send(caller.event("a", "1", "bob"))
    with late.lost():
        put = caller.put_customer(customer_pb2.Customer(customer_id="bob", plan_id="small"))
        assert await _refusal(put) in ("", _UNAVAILABLE)
    assert await _refusal(caller.send(caller.event("b", "50", "bob"))) in ("", _UNAVAILABLE)
    late.recover()
    await caller.send(caller.event("b", "50", "bob"))
    await caller.send(caller.event("c", "50", "bob"))
    assert await caller.rows(_TOTAL) == [(101,)]


async def test_new_alert_counts_usage_whose_commit_is_in_doubt(late: LateParts, caller: Caller) -> None:
    await caller.send(caller.event("a"))
    # At the coordinator, where a new metric lies: so it takes part in the commit.
    async with beside(caller, replace(settings(), database_nodes=None)) as other:
        with late.lost():
            await other.send(caller.event("b"), caller.event("c", metric="new"))
    assert await _refusal(caller.create(usage_alert("100"))) == _UNAVAILABLE
    late.recover()
    await caller.create(usage_alert("100"))
    assert await caller.rows(_TOTAL) == [(2,)]
