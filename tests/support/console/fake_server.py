"""A console before a server that knows who has a key and has no alerts, and never answers anything else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc
from aiohttp import web

from console.access.api import Api
from console.access.sessions import Sessions
from console.application import Console, Settings
from generated.tidemark.v1 import account_service_pb2 as accounts
from generated.tidemark.v1.alert_service_pb2 import ListAlertsResponse
from generated.tidemark.v1.role_pb2 import ROLE_READER
from runtime.clock import SystemClock
from tests.support.console.stage import Visitor

KEY = "tmk_right"
EXPLAIN = "/explain"  # a page that needs no other answer


class _Server(grpc.GenericRpcHandler):
    def __init__(self, key: str | None) -> None:
        self._key = key

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """Serves every method."""
        answers = {
            "/tidemark.v1.AccountService/GetCaller": self._caller,
            "/tidemark.v1.AlertService/ListAlerts": self._no_alerts,
        }
        return grpc.unary_unary_rpc_method_handler(answers.get(details.method, self._nothing))

    async def _caller(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        said = dict(context.invocation_metadata() or ()).get("authorization")
        if said != (self._key and f"Bearer {self._key}"):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the key is unknown")
        return accounts.GetCallerResponse(organization="acme-inc", roles=[ROLE_READER]).SerializeToString()

    async def _no_alerts(self, request: bytes, context: Any) -> bytes:
        return ListAlertsResponse().SerializeToString()

    async def _nothing(self, request: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("it waits until the call is cancelled")


@asynccontextmanager
async def one_key(key: str | None) -> AsyncIterator[str]:
    """The target of a server that knows this key; None: one that needs none."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Server(key),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def visiting(target: str, *, allows_no_key: bool = False) -> AsyncIterator[Visitor]:
    """A visitor of a console for the server at `target`, which waits for calls for a moment only."""
    async with grpc.aio.insecure_channel(target) as channel:
        console = Console(Api(channel, 0.3), Settings(Sessions(), SystemClock(), allows_no_key))
        runner = web.AppRunner(console.application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
                yield Visitor(f"http://127.0.0.1:{runner.addresses[0][1]}", session)
        finally:
            await runner.cleanup()
