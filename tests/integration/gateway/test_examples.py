"""The examples of docs/api over HTTP: a real server answers each call as it does over gRPC."""

import asyncio
import json

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

from proto.documents.contract import SERVICES, bindings
from proto.documents.examples import Step, session
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.contract.calls import answers_of
from tests.support.contract.names import Names
from tests.support.gateway.bindings import carries, http_request
from tests.support.gateway.http import HttpServer, serving_http

TIMEOUT = 60.0  # seconds until background work shows in an answer
PAUSE = 0.02  # seconds


async def outcome(server: HttpServer, step: Step, names: Names) -> Step:
    """The step with what the server answers over HTTP; over gRPC, where a stream of requests has no route."""
    request = names.of_server(step.request)
    message = ParseDict(request, GetMessageClass(step.method.input_type)())
    chosen = [one for one in bindings(step.method) if carries(step.method, one, message)]
    if not bindings(step.method):
        count = max(len(step.answers), 1)
        found = await answers_of(server.server.channel, step.method, request, count)
        return Step(step.method, step.request, names.of_examples(found), None)
    if not chosen:  # a required id is missing, which has no path
        return step
    sent = http_request(step.method, chosen[0], message)
    async with server.client.opening(sent.verb, sent.target, json=sent.body) as response:
        if response.status != 200:
            return Step(step.method, step.request, [], names.of_examples(shown(await response.json())))
        if not step.method.server_streaming:
            return Step(step.method, step.request, names.of_examples([await response.json()]), None)
        lines = [json.loads(await response.content.readline()) for _ in step.answers]
        return Step(step.method, step.request, names.of_examples(lines), None)


def shown(body: dict[str, dict[str, object]]) -> dict[str, object]:
    """What the examples show of an error."""
    error = body["error"]
    details: list[dict[str, object]] = error["details"]  # type: ignore[assignment]
    info = next(one for one in details if str(one["@type"]).endswith("ErrorInfo"))
    metadata: dict[str, str] = info.get("metadata", {})  # type: ignore[assignment]
    found = {"code": error["status"], "reason": info["reason"], "metadata": dict(sorted(metadata.items()))}
    for bad in details:
        if str(bad["@type"]).endswith("BadRequest"):
            found["fields"] = [one["field"] for one in bad["fieldViolations"]]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_examples_are_answered_over_http_as_over_grpc(
    service: ServiceDescriptor, database: Database, clock: ManualClock
) -> None:
    names = Names()
    async with serving_http(database, clock) as server:
        for step in session(service):
            end = asyncio.get_running_loop().time() + TIMEOUT
            while True:
                seen = names.copy()
                found = await outcome(server, step, seen)
                if (
                    found == step
                    or asyncio.get_running_loop().time() > end
                    or not step.method.name.startswith(("Explain", "Get", "List", "Summarize", "Watch"))
                ):
                    break
                await asyncio.sleep(PAUSE)
            names = seen
            assert (found.answers, found.error) == (step.answers, step.error), step.method.name
