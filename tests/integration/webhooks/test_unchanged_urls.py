"""URLs with characters that a library could normalize are shown and requested exactly as given."""

import asyncio

from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    GetEndpointRequest,
    SendTestEventRequest,
    UpdateEndpointRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import SystemClock
from store.postgres.database import Database
from tests.support.notifier.house import House, configuration, running_notifier
from tests.support.notifier.wire import server
from tests.support.server.running import running

TARGETS = [
    "/hook?sig=ab%2Bc%2Fd%3D",
    "/user%40example.com",
    "/a%2fb//c/../d/%2e%2e?",
    "/x?a+b;c=%zz&d[]=%C3%B6",
]


async def test_a_url_is_shown_and_requested_exactly_as_given(database: Database) -> None:
    house = await House.build(database, SystemClock())
    lines: asyncio.Queue[str] = asyncio.Queue()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await lines.put(head.split(b"\r\n")[0].decode())
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    settings = configuration(LISTEN="127.0.0.1:0")
    async with (
        running(database, house.clock, configuration=settings) as api,
        server(talk) as port,
        running_notifier(house),
    ):
        webhooks = WebhookServiceStub(api.channel)
        base = f"http://127.0.0.1:{port}"
        created = await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=base)))
        endpoint_id = created.endpoint.endpoint_id
        for target in TARGETS:
            request = UpdateEndpointRequest(endpoint=Endpoint(endpoint_id=endpoint_id, url=base + target))
            request.update_mask.paths.append("url")
            await webhooks.UpdateEndpoint(request)
            shown = await webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=endpoint_id))
            assert shown.endpoint.url == base + target
            await webhooks.SendTestEvent(SendTestEventRequest(endpoint_id=endpoint_id))
            async with asyncio.timeout(30):
                assert await lines.get() == f"POST {target} HTTP/1.1"
