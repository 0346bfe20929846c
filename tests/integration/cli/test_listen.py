"""`tidemark listen` as a developer uses it: beside a server and a notifier, until Ctrl-C."""

import asyncio
import json
import re
import signal
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result
from standardwebhooks import Webhook

from cli.listen.endpoint import is_left_behind, labels_of_this_process
from cli.listen.labels import PROCESS_LABEL
from cli.main import tidemark
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.event_type_pb2 import EVENT_TYPE_ALERT_REACHED
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    ListEndpointsRequest,
    SendTestEventRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import SystemClock
from store.postgres.database import Database
from tests.support.notifier.house import House, configuration, running_notifier
from tests.support.processes.forked import started
from tests.support.server.running import running
from webhooks.deliveries import DeliveryStatus

TIMEOUT = 60.0  # seconds for anything to happen


async def _line(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT):
        return json.loads(await process.stdout.readline())


async def test_listen_adds_an_endpoint_gives_its_answers_and_deletes_the_endpoint(database: Database) -> None:
    house = await House.build(database, SystemClock())
    settings = configuration(LISTEN="127.0.0.1:0", PROPAGATION_DELAY_SECONDS="0")
    async with running(database, house.clock, configuration=settings) as server, running_notifier(house):
        webhooks = WebhookServiceStub(server.channel)
        # Of a process that was killed: no process has such a number.
        killed = Endpoint(url="https://example.com/", labels={**labels_of_this_process(), PROCESS_LABEL: "999999999"})
        left_behind = await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=killed))
        process = await started(
            *("listen", "--json", "--server", f"127.0.0.1:{server.port}"),
            *("--answer", "500", "--answer", "200"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            said = ""
            async with asyncio.timeout(TIMEOUT):
                while "Ctrl-C ends it" not in said:
                    line = (await process.stderr.readline()).decode()
                    assert line, said  # at its end a stream gives empty lines, and never waits
                    said += line
            [endpoint] = (await webhooks.ListEndpoints(ListEndpointsRequest())).endpoints
            assert endpoint.endpoint_id in said
            assert f"deleted the endpoint {left_behind.endpoint.endpoint_id} of an earlier run" in said
            assert not is_left_behind(endpoint.labels)
            sent = await webhooks.SendTestEvent(SendTestEventRequest(endpoint_id=endpoint.endpoint_id))
            first = await _line(process)
            assert (first["verified"], first["type"], first["answer"]) == ("v1", "endpoint.test", 500)
            await house.attempted(1)
            await house.make_due()
            second = await _line(process)
            assert (second["webhook_id"], second["count"]) == (sent.delivery.notification_id, 2)
            assert (second["answer"], second["body"]["data"]) == (
                200,
                {"test": True, "endpoint_id": endpoint.endpoint_id},
            )
            await house.settled(DeliveryStatus.DELIVERED, 1)
            await webhooks.SendTestEvent(
                SendTestEventRequest(endpoint_id=endpoint.endpoint_id, event_type=EVENT_TYPE_ALERT_REACHED)
            )
            third = await _line(process)
            assert (third["verified"], third["type"], third["body"]["data"]["test"]) == ("v1", "alert.reached", True)
            process.send_signal(signal.SIGHUP)  # its terminal was closed
            async with asyncio.timeout(TIMEOUT):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert not (await webhooks.ListEndpoints(ListEndpointsRequest())).endpoints


async def test_a_test_event_is_triggered_forwarded_with_its_signature_and_answered_as_the_program_answers(
    database: Database,
) -> None:
    house = await House.build(database, SystemClock())
    settings = configuration(LISTEN="127.0.0.1:0", PROPAGATION_DELAY_SECONDS="0")
    received: list[tuple[str, dict[str, str], bytes]] = []

    async def take(request: web.Request) -> web.Response:
        received.append((request.path, {k.lower(): v for k, v in request.headers.items()}, await request.read()))
        return web.Response(status=204 if len(received) == 1 else 418)

    application = web.Application()
    application.router.add_post("/{path:.*}", take)
    program = TestServer(application)
    async with (
        running(database, house.clock, configuration=settings) as server,
        running_notifier(house),
        program,
    ):
        address = f"127.0.0.1:{server.port}"
        process = await started(
            *("listen", "--print-json", "--server", address),
            *("--forward-to", f"{program.host}:{program.port}/hooks", "--events", "alert.reached,alert.resolved"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            said = ""
            async with asyncio.timeout(TIMEOUT):
                while "Ctrl-C ends it" not in said:
                    line = (await process.stderr.readline()).decode()
                    assert line, said
                    said += line
            secret = re.findall(r"whsec_\S+", said)[0]

            async def trigger(*arguments: str) -> Result:
                command = ["trigger", *arguments, "--server", address, "--wait", "60"]
                return await asyncio.to_thread(CliRunner().invoke, tidemark, command)

            taken = await trigger("alert.reached")
            assert (taken.exit_code, taken.stdout[:13]) == (0, "delivered 204")
            refused = await trigger("EVENT_TYPE_ALERT_RESOLVED", "--all")
            assert (refused.exit_code, "not taken 418" in refused.stdout) == (1, True)
            unknown = await trigger("alert.reach")
            assert (unknown.exit_code, "did you mean alert.reached" in unknown.stderr) == (2, True)
            first, second = await _line(process), await _line(process)
            assert [first["type"], second["type"]] == ["alert.reached", "alert.resolved"]
            assert (first["verified"], first["answer"], second["answer"]) == ("v1", 204, 418)
            assert first["forwarded"].startswith("204 in ")
            path, headers, body = received[0]
            assert path == "/hooks"
            Webhook(secret).verify(body, headers)  # the same bytes and signature, as a receiver checks them
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(TIMEOUT):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        none = await trigger("alert.reached")
        assert (none.exit_code, "no endpoint that is enabled" in none.stderr) == (1, True)
