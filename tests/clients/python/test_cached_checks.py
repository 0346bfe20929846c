"""Cached checks against a scripted server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from tidemark_client import AsyncClient, CheckOptions
from tidemark_client.v1 import (
    DECISION_OUTCOME_ALLOWED,
    DECISION_OUTCOME_DENIED,
    BatchCheckUsageRequest,
    BatchCheckUsageResponse,
)

Context = grpc.aio.ServicerContext[BatchCheckUsageRequest, BatchCheckUsageResponse]


@asynccontextmanager
async def checking(calls: list[list[str]]) -> AsyncIterator[AsyncClient]:
    """A client of a server that allows the usage of every customer whose name begins with "good"."""

    async def check(request: BatchCheckUsageRequest, context: Context) -> BatchCheckUsageResponse:
        calls.append(list(request.customer_ids))
        response = BatchCheckUsageResponse()
        response.update_time.FromSeconds(1_000)
        response.valid_until_time.FromSeconds(1_060)
        for customer_id in request.customer_ids:
            decision = response.customers.add(customer_id=customer_id).checks.add().decision
            is_good = customer_id.startswith("good")
            decision.outcome = DECISION_OUTCOME_ALLOWED if is_good else DECISION_OUTCOME_DENIED
        return response

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        check, BatchCheckUsageRequest.FromString, BatchCheckUsageResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tidemark.v1.LimitService", {"BatchCheckUsage": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            yield client
    finally:
        await server.stop(0)


async def test_answers_that_a_small_cache_forgets_at_once_reach_their_callers() -> None:
    names = ["good-1", "bad-1", "good-2", "bad-2", "good-3"]
    for fail_open in (False, True):
        calls: list[list[str]] = []
        async with checking(calls) as client:
            options = CheckOptions(fail_open=fail_open, most_cached=1, check_seconds=30.0)
            checks = client.cached_checks("calls", options)
            answers = await asyncio.gather(*map(checks.may_use, names))
        assert answers == [name.startswith("good") for name in names]
        assert calls == [names]
