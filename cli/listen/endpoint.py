"""The endpoint of a running `tidemark listen`. Its labels say which process it belongs to."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path

import grpc
from rich.markup import escape

from cli.client.connection import UNARY_TIMEOUT, Address
from cli.listen.labels import LISTEN_LABEL, PROCESS_LABEL
from cli.rich_console import standard_error
from generated.tidemark.v1 import webhook_service_pb2 as messages
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.event_type_pb2 import EventType
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from tidemark_client import WebhookVerifier

DISPLAY_NAME = "tidemark listen"  # of the endpoint, shown where endpoints are listed
PAGE = 1_000


def labels_of_this_process() -> dict[str, str]:
    """The labels of its endpoint: the machine, and the process."""
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())  # containers may share a name, and each counts anew
    except OSError:
        processes = ""
    named = f"{socket.gethostname()} {processes}".encode()
    return {LISTEN_LABEL: blake2b(named, digest_size=8).hexdigest(), PROCESS_LABEL: str(os.getpid())}


def runs(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def is_left_behind(labels: Mapping[str, str], is_running: Callable[[int], bool] = runs) -> bool:
    """Whether the endpoint with these labels is of a process of this machine that does not run any more."""
    process = labels.get(PROCESS_LABEL, "")
    return (
        labels.get(LISTEN_LABEL) == labels_of_this_process()[LISTEN_LABEL]
        and process.isascii()
        and process.isdecimal()
        and int(process) > 0
        and not is_running(int(process))
    )


@asynccontextmanager
async def endpoint(
    address: Address, url: str, event_types: list[EventType.ValueType], verifier: WebhookVerifier
) -> AsyncIterator[None]:
    """Adds an endpoint at the server while the block runs; `verifier` trusts its secret.

    Deletes those that earlier processes of this machine could not delete, because they were killed.
    """
    async with address.channel() as channel:
        webhooks = WebhookServiceStub(channel)
        await _clear_up(webhooks, address)
        created = await webhooks.CreateEndpoint(
            messages.CreateEndpointRequest(
                endpoint=Endpoint(
                    url=url, display_name=DISPLAY_NAME, event_types=event_types, labels=labels_of_this_process()
                )
            ),
            metadata=address.metadata,
            timeout=UNARY_TIMEOUT,
        )
        verifier.trust(created.secret)
        endpoint_id = created.endpoint.endpoint_id
        standard_error().print(
            f"endpoint [name]{endpoint_id}[/] at [name]{escape(address.server)}[/], secret {created.secret}"
        )
        try:
            yield
        finally:
            try:
                await _delete(webhooks, address, endpoint_id)
            except grpc.aio.AioRpcError as error:
                standard_error().print(
                    f"[warn]the endpoint {endpoint_id} is left behind[/]: {escape(error.details() or '')};"
                    " the next `tidemark listen` on this machine deletes it"
                )


async def _clear_up(webhooks: WebhookServiceStub, address: Address) -> None:
    """Deletes endpoints of processes of this machine that do not run any more."""
    request = messages.ListEndpointsRequest(page_size=PAGE)
    request.labels[LISTEN_LABEL] = labels_of_this_process()[LISTEN_LABEL]
    found = await webhooks.ListEndpoints(request, metadata=address.metadata, timeout=UNARY_TIMEOUT)
    for one in found.endpoints:
        if not is_left_behind(one.labels):
            continue
        try:
            await _delete(webhooks, address, one.endpoint_id)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # another process was faster
                raise
        standard_error().print(f"[quiet]deleted the endpoint {one.endpoint_id} of an earlier run that was killed[/]")


async def _delete(webhooks: WebhookServiceStub, address: Address, endpoint_id: str) -> None:
    await webhooks.DeleteEndpoint(
        messages.DeleteEndpointRequest(endpoint_id=endpoint_id), metadata=address.metadata, timeout=UNARY_TIMEOUT
    )
