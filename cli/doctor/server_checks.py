"""Checks of a running server: its health, over gRPC."""

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.doctor.findings import Check, Examined, Finding, ok, problem

TIMEOUT = 1.5  # seconds


async def health(examined: Examined) -> Sequence[Finding]:
    """Whether a server serves."""
    address = examined.address
    if address is None:
        return [ok("no server was named (--server, TIDEMARK_SERVER), so none was asked")]
    async with address.channel() as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(), timeout=TIMEOUT
            )
        except grpc.aio.AioRpcError as error:
            text = f"the server at {address.server} does not answer: {error.details() or error.code().name}"
            todo = "start it (tidemark serve), or check --server, and --tls for a server with TLS"
            return [problem(text, "its callers are not served", todo)]
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        why = "load balancers send it no calls: it starts, drains, or cannot use its database"
        return [problem(f"the server at {address.server} reports {status}", why, "read its log")]
    return [ok(f"the server at {address.server} reports {status}")]


CHECKS = (Check("server.health", "the health of a server, if one is named", health),)
