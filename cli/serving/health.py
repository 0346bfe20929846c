"""The command `tidemark health`: whether a server or a notifier serves, as an exit code for probes and scripts."""

import asyncio
import http.client
import urllib.error
import urllib.request
from typing import Any

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.client.connection import Address
from cli.connection.options import call_problem, server_options
from cli.console import Problem, print_result

DEFAULT_TIMEOUT = 3.0  # seconds; less than the usual time-out of a probe


@click.command()
@click.option(
    "--service", default="", help="Name of one gRPC service, or `liveness`. Default: the server as a whole."
)
@click.option("--url", help="Ask this URL instead, such as http://127.0.0.1:9464/readyz of a notifier.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60.0),
    default=DEFAULT_TIMEOUT,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@server_options
def health(service: str, url: str | None, timeout: float, address: Address) -> None:
    """Ask a server whether it serves (grpc.health.v1). Ends with 0 if it does, and with 1 otherwise.

    It needs no API key. A server that asks for client certificates needs one also for this, with
    --client-certificate and --client-key.
    """
    if url is not None:
        _ask_url(url, timeout)
        return
    try:
        status = asyncio.run(_status(address, service, timeout))
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise Problem(
                f"{address.server} has no service {service!r}", ["without --service, the whole server answers"]
            ) from None
        problem = call_problem(error, address)
        raise Problem(problem.message, problem.hints) from None
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    if status != health_pb2.HealthCheckResponse.SERVING:
        raise Problem(f"{address.server} is {name}")
    print_result(name)


async def _status(address: Address, service: str, timeout: float) -> int:
    async with address.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # it has no types
        answer: health_pb2.HealthCheckResponse = await stub.Check(
            health_pb2.HealthCheckRequest(service=service), timeout=timeout
        )
    return answer.status


def _ask_url(url: str, timeout: float) -> None:
    """Prints the first line of a successful answer. Raises a Problem for any other."""
    if not url.startswith(("http://", "https://")):
        raise click.UsageError("--url begins with http:// or https://.")
    # A proxy that the environment names for other programs is no way to a process on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            print_result(answer.readline(100).decode(errors="replace").strip())
    except urllib.error.HTTPError as error:
        raise Problem(f"{url} answered {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Problem(f"{url} does not answer: {reason}") from None
