"""The service config for clients, as gRPC itself applies it: what is repeated, and what is not."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from tidemark_client.v1.alert_service_pb2 import (
    CreateAlertRequest,
    CreateAlertResponse,
    GetAlertRequest,
    GetAlertResponse,
)

CONFIG = (Path(__file__).parents[3] / "deploy" / "grpc-service-config.json").read_text()
FAILURES = 2  # of each method, before it answers


@pytest.fixture
async def calls() -> AsyncIterator[tuple[Counter[str], AlertServiceStub]]:
    """A server whose methods fail with UNAVAILABLE at first: how often each was called, and a stub for it."""
    counts: Counter[str] = Counter()

    async def answer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        name = dict(context.invocation_metadata() or ())["method"]
        counts[str(name)] += 1
        if counts[str(name)] <= FAILURES:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return b""

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    handlers = grpc.method_handlers_generic_handler(
        "tidemark.v1.AlertService", {"GetAlert": handler, "CreateAlert": handler}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.service_config", CONFIG)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield counts, AlertServiceStub(channel)
    await server.stop(0)


async def test_reading_call_is_repeated_after_unavailable(calls: tuple[Counter[str], AlertServiceStub]) -> None:
    counts, stub = calls
    answer = await stub.GetAlert(GetAlertRequest(), metadata=(("method", "GetAlert"),))
    assert answer == GetAlertResponse()
    assert counts["GetAlert"] == FAILURES + 1


async def test_creating_call_is_not_repeated(calls: tuple[Counter[str], AlertServiceStub]) -> None:
    counts, stub = calls
    for number in range(1, FAILURES + 1):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.CreateAlert(CreateAlertRequest(), metadata=(("method", "CreateAlert"),))
        assert counts["CreateAlert"] == number
    answer = await stub.CreateAlert(CreateAlertRequest(), metadata=(("method", "CreateAlert"),))
    assert answer == CreateAlertResponse()
