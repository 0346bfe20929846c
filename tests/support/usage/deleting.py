"""Deletions of metrics, plans, subscriptions and limits for tests."""

from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import (
    limit_pb2,
    metric_pb2,
)
from tests.support.facts.refusals import assert_refused
from tests.support.server.running import metadata_of, reason_of
from tests.support.usage.caller import Caller

NOT_FOUND = grpc.StatusCode.NOT_FOUND


async def delete(caller: Caller, noun: str, **fields: Any) -> None:
    request = getattr(messages, f"Delete{noun}Request")(**fields)
    await getattr(caller.accounts, f"Delete{noun}")(request, metadata=caller.metadata)


async def get(caller: Caller, noun: str, **ids: str) -> Any:
    request = getattr(messages, f"Get{noun}Request")(**ids)
    answer = await getattr(caller.accounts, f"Get{noun}")(request, metadata=caller.metadata)
    return getattr(answer, noun.lower())


async def assert_used(caller: Caller, noun: str, by: str, by_id: str = "", **ids: str) -> None:
    """The deletion is refused, also with validate_only, and changes nothing."""
    before = await get(caller, noun, **ids)
    for validate_only in (True, False):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await delete(caller, noun, **ids, validate_only=validate_only)
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason_of(raised.value) == "ERROR_REASON_IN_USE"
        expected = {**ids, "used_by": by} | ({"used_by_id": by_id} if by_id else {})
        assert metadata_of(raised.value) == expected
    assert await get(caller, noun, **ids) == before


async def assert_gone(caller: Caller, noun: str, **ids: str) -> None:
    """The deletion is made: once, and again with allow_missing."""
    await delete(caller, noun, **ids, validate_only=True)
    await get(caller, noun, **ids)
    await delete(caller, noun, **ids)
    await assert_refused(get(caller, noun, **ids), NOT_FOUND, f"{noun.upper()}_NOT_FOUND")
    await assert_refused(delete(caller, noun, **ids), NOT_FOUND, f"{noun.upper()}_NOT_FOUND")
    await delete(caller, noun, **ids, allow_missing=True)


async def put_limit(caller: Caller, limit_id: str, amount: str, **of: str) -> None:
    limit = limit_pb2.Limit(limit_id=limit_id, amount=amount)
    if "plan" in of:
        limit.plan.plan_id = of["plan"]
    else:
        limit.customer.customer_id = of["customer"]
    limit.quantity.metric_id = of.get("metric", "calls")
    await caller.accounts.PutLimit(messages.PutLimitRequest(limit=limit), metadata=caller.metadata)


async def forget_events(caller: Caller) -> None:
    """Removes the stored events of the organization, as their retention does."""
    await caller.rows("DELETE FROM event WHERE organization_id = %(organization_id)s RETURNING 1")


SUM, MAX = metric_pb2.AGGREGATION_SUM, metric_pb2.AGGREGATION_MAX


async def only_alert(caller: Caller) -> str:
    [[alert_id]] = await caller.rows("SELECT alert_id FROM alert WHERE organization_id = %(organization_id)s")
    return str(alert_id)
