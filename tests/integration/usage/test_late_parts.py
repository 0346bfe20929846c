"""On a cluster, usage is exact although parts of a commit show late at workers, or stay in doubt for a while."""

from collections.abc import Awaitable
from typing import NoReturn

import grpc
import pytest

from engine.ingest.commit_transactions import CommitTransactions
from engine.rules.preparing import NotAtNode
from generated.tidemark.v1 import customer_pb2
from tests.support.postgres.late_parts import LateParts, late
from tests.support.postgres.nodes import workers
from tests.support.server.running import reason_of
from tests.support.usage.caller import Caller, on_plan, usage_alert

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


async def test_new_alert_counts_usage_whose_commit_is_in_doubt(
    late: LateParts, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_coordinator(*_: object) -> NoReturn:
        raise NotAtNode

    await caller.send(caller.event("a"))
    monkeypatch.setattr(CommitTransactions, "prepare", at_coordinator)
    with late.lost():  # a new metric lies on the coordinator, so it takes part in the commit
        await caller.send(caller.event("b"), caller.event("c", metric="new"))
    # Citus ends what is in doubt once a minute, perhaps just now.
    assert await _refusal(caller.create(usage_alert("100"))) in ("", _UNAVAILABLE)
    late.recover()
    await caller.create(usage_alert("100"))
    assert await caller.rows(_TOTAL) == [(2,)]
