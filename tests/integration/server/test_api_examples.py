"""The examples of docs/api, run against a real server.

TIDEMARK_RECORD_EXAMPLES=1 writes the answers into the examples instead of comparing them.
"""

import asyncio
import os
from dataclasses import replace

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from proto.documents.contract import SERVICES
from proto.documents.examples import Step, save, session
from tests.support.contract.calls import answers_of, error_json
from tests.support.contract.names import Names
from tests.support.server.running import Running

RECORD = bool(os.environ.get("TIDEMARK_RECORD_EXAMPLES"))
TIMEOUT = 60.0  # seconds until background work shows in an answer


async def outcome(api: Running, step: Step, names: Names) -> Step:
    """The step with what the server answers."""
    request = names.of_server(step.request)
    try:
        answers = await answers_of(api.channel, step.method, request, max(len(step.answers), 1))
    except grpc.aio.AioRpcError as error:
        return replace(step, answers=[], error=names.of_examples(error_json(error)))
    return replace(step, answers=names.of_examples(answers), error=None)


def reads(step: Step) -> bool:
    """Whether the call may be repeated until background work shows in its answer."""
    return step.method.name.startswith(("Explain", "Get", "List", "Summarize", "Watch"))


async def run(api: Running, step: Step, names: Names) -> tuple[Step, Names]:
    """The step with the server's outcome, and the names after it.

    A read is repeated until it is as documented; when it is recorded, until background work has ended.
    """
    end = asyncio.get_running_loop().time() + TIMEOUT
    expected = None if RECORD else step
    while True:
        seen = names.copy()
        found = await outcome(api, step, seen)
        if found == expected or not reads(step) or asyncio.get_running_loop().time() > end:
            return found, seen
        if RECORD:
            expected = found
        await asyncio.sleep(2 if RECORD else 0.02)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_examples_of_a_service_are_what_a_server_answers(service: ServiceDescriptor, api: Running) -> None:
    names, found = Names(), []
    for step in session(service):
        actual, names = await run(api, step, names)
        if not RECORD:
            assert (actual.answers, actual.error) == (step.answers, step.error), (
                f"{step.method.name}: run with TIDEMARK_RECORD_EXAMPLES=1 if it is right"
            )
        found.append(actual)
    if RECORD:
        save(service, found)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_method_has_an_example(service: ServiceDescriptor) -> None:
    shown = {step.method.name for step in session(service) if step.error is None}
    assert [method.name for method in service.methods if method.name not in shown] == []
