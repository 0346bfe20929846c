"""No call leaves a cycle of objects behind, however it ends: without the garbage collector, nothing of it stays."""

import contextlib
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import usage_pb2
from proto.documents.contract import SERVICES
from proto.documents.examples import session
from runtime.clock import ManualClock
from server import services
from server.calls.current_call import Call
from server.calls.errors import ApiError
from server.interceptors import outcome
from server.limits import DEFAULT_SERVER_LIMITS
from server.parts import Parts
from store.identity import keys
from store.postgres.database import Database
from tests.support.contract.calls import answers_of
from tests.support.contract.names import Names
from tests.support.databases import NOON
from tests.support.processes.programs import until
from tests.support.server.odd_service import NAME, OddService
from tests.support.server.running import Running, running
from tests.support.waiting import within

CALLS = 5  # of each kind
ALERTS, HEALTH = "/tidemark.v1.AlertService", "/grpc.health.v1.Health"
TEXT = b"\n\x01x"  # a StringValue, and a message with a short text in its first field
BROKEN = b"\xff\xff\xff"
CONTEXT = "grpc._cython.cygrpc._ServicerContext"
OURS = tuple(str(Path(services.__file__).parents[1] / folder) for folder in ("engine", "server", "store"))
SOON_CUT = replace(DEFAULT_SERVER_LIMITS, revocation_interval=0.02, revocation_grace=0.02)


@pytest.fixture
def odd_service() -> OddService:
    """The handlers of the odd service."""
    return OddService()


@pytest.fixture
async def server(database: Database, clock: ManualClock, odd_service: OddService) -> AsyncIterator[Running]:
    """A server with the services of the API and the odd one; it cuts the streams of a revoked key soon."""

    def add_services(server: grpc.aio.Server, parts: Parts) -> tuple[str, ...]:
        return (*services.register(server, parts), *odd_service.register(server, parts))

    async with running(database, clock, add_services, server_limits=SOON_CUT) as server:
        yield server


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Nothing searches for cycles while the test runs, and no log record has a traceback: pytest would keep it."""
    logging.disable()
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


def kept() -> Counter[str]:
    """What calls use and should not leave behind: gRPC's context, their errors, frames of this service."""
    found = Counter[str]()
    for one in gc.get_objects():
        kind = type(one)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name == CONTEXT or issubclass(kind, Call | ApiError):
            found[name] += 1
        elif kind is TracebackType and one.tb_frame.f_code.co_filename.startswith(OURS):
            found["traceback"] += 1
    return found


async def until_nothing_is_kept(before: Counter[str]) -> None:
    """Waits until no more is kept than before. A cycle stays for ever."""
    try:
        await until(lambda: not kept() - before, "the end of all that the calls have used")
    except AssertionError as error:
        error.add_note(f"there are more: {dict(kept() - before)}")
        raise


async def one_unary(server: Running, path: str, request: bytes = b"", **more: Any) -> None:
    channel: Any = server.channel
    await channel.unary_unary(path)(request, **more)


async def one_stream(server: Running, path: str, *requests: bytes, **more: Any) -> None:
    """Sends the requests, and reads all answers."""
    channel: Any = server.channel
    async for _ in channel.stream_stream(path)(iter(requests), **more):
        pass


async def read_out(call: Any) -> None:
    """Reads until the stream ends."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def left(server: Running, path: str, *requests: bytes) -> None:
    """Reads one answer of a stream that has not ended, and leaves it."""
    channel: Any = server.channel
    call = channel.stream_stream(path)()
    for request in requests:
        await call.write(request)
    await call.read()
    call.cancel()


def batch(number: int, batch_id: str = "") -> bytes:
    event = usage_pb2.UsageEvent(event_id=f"e-{number}", customer_id="acme", metric_id="calls", quantity="1")
    event.event_time.FromDatetime(NOON)
    found = usage_pb2.UsageBatch(events=[event], batch_id=batch_id)
    return messages.EvaluateUsageBatchRequest(batch=found).SerializeToString()


# One kind of call each: what it does with its number, and how it ends for its client.
KINDS: dict[str, tuple[Callable[[Running, int], Awaitable[None]], str]] = {
    "a read": (lambda server, _: one_unary(server, f"{ALERTS}/ListAlerts"), "OK"),
    "usage": (lambda server, number: one_unary(server, f"{ALERTS}/EvaluateUsageBatch", batch(number)), "OK"),
    "a usage stream": (lambda server, number: one_stream(server, f"{ALERTS}/EvaluateUsage", batch(number)), "OK"),
    "a health check": (lambda server, _: one_unary(server, f"{HEALTH}/Check"), "OK"),
    "a field that is not valid": (lambda server, _: one_unary(server, f"{ALERTS}/GetAlert"), "INVALID_ARGUMENT"),
    "an unknown alert": (
        lambda server, _: one_unary(
            server,
            f"{ALERTS}/GetAlert",
            messages.GetAlertRequest(alert_id="0195f7a0-0000-7000-8000-000000000000").SerializeToString(),
        ),
        "NOT_FOUND",
    ),
    "an unknown key": (
        lambda server, _: one_unary(server, f"{ALERTS}/GetAlert", metadata=(("authorization", "Bearer none"),)),
        "UNAUTHENTICATED",
    ),
    "a stream with an unknown key": (
        lambda server, _: one_stream(server, f"{ALERTS}/EvaluateUsage", metadata=(("authorization", "Bearer none"),)),
        "UNAUTHENTICATED",
    ),
    "an unknown method": (lambda server, _: one_unary(server, "/x/y"), "UNIMPLEMENTED"),
    "an unknown method with streams": (lambda server, _: one_stream(server, "/x/y", TEXT), "UNIMPLEMENTED"),
    "bytes that cannot be decoded": (
        lambda server, _: one_unary(server, f"{ALERTS}/GetAlert", BROKEN),
        "INVALID_ARGUMENT",
    ),
    "a stream of bytes that cannot be decoded": (
        lambda server, _: one_stream(server, f"{ALERTS}/EvaluateUsage", BROKEN),
        "INVALID_ARGUMENT",
    ),
    "a refused stream": (
        lambda server, number: one_stream(server, f"{ALERTS}/EvaluateUsage", batch(number, "x" * 500)),
        "INVALID_ARGUMENT",
    ),
    "a call without a request": (lambda server, _: one_stream(server, f"{ALERTS}/GetAlert"), "INVALID_ARGUMENT"),
    "an unknown service of the health check": (
        lambda server, _: one_unary(server, f"{HEALTH}/Check", TEXT),
        "NOT_FOUND",
    ),
    "a refused stream of notifications": (
        lambda server, _: one_stream(
            server,
            f"{ALERTS}/WatchNotifications",
            messages.WatchNotificationsRequest(resume_token="none").SerializeToString(),
        ),
        "INVALID_ARGUMENT",
    ),
    "a handler that fails": (lambda server, _: one_unary(server, f"/{NAME}/Fail", TEXT), "INTERNAL"),
    "a stream whose handler fails": (lambda server, _: one_stream(server, f"/{NAME}/FailStream", TEXT), "INTERNAL"),
    "a lost database": (lambda server, _: one_unary(server, f"/{NAME}/LoseDatabase", TEXT), "UNAVAILABLE"),
    "a deadline": (lambda server, _: one_unary(server, f"/{NAME}/Hang", TEXT, timeout=0.05), "DEADLINE_EXCEEDED"),
    "a deadline during a statement": (
        lambda server, _: one_unary(server, f"/{NAME}/SleepInDatabase", TEXT, timeout=0.1),
        "DEADLINE_EXCEEDED",
    ),
    "a usage stream that is left": (
        lambda server, number: left(server, f"{ALERTS}/EvaluateUsage", batch(number)),
        "OK",
    ),
    "a stream of notifications that is left": (
        lambda server, _: left(server, f"{ALERTS}/WatchNotifications", b""),
        "OK",
    ),
    "a stream that is left while it writes": (lambda server, _: left(server, f"/{NAME}/Flood", TEXT), "OK"),
    "a stream that is left while its handler waits": (
        lambda server, _: left(server, f"/{NAME}/HangStream", TEXT),
        "OK",
    ),
}


async def ended(call: Awaitable[None]) -> str:
    """Makes the call, and returns how it ends."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("without_collector")
async def test_nothing_stays_of_a_call_after_its_end(server: Running, kind: str) -> None:
    make, end = KINDS[kind]
    assert await ended(make(server, 0)) == end  # what the first call caches may stay
    before = kept()
    for number in range(1, CALLS + 1):
        assert await ended(make(server, number)) == end
    await until_nothing_is_kept(before)


@pytest.mark.parametrize("method", ["HangStream", "Flood"])
@pytest.mark.usefixtures("without_collector")
async def test_nothing_stays_of_a_stream_that_is_cut(server: Running, database: Database, method: str) -> None:
    """HangStream waits when it is cut. Flood writes what its client does not read: the refusal follows the cut."""
    channel: Any = server.channel

    async def cut() -> None:
        async with database.transaction() as connection:
            key = await keys.create_key(connection, "acme", NOON)
        call = channel.stream_stream(f"/{NAME}/{method}")(metadata=(("authorization", f"Bearer {key.key}"),))
        await call.write(TEXT)
        await call.read()
        async with database.transaction() as connection:
            assert await keys.revoke_key(connection, key.key_id, NOON)
        async with within("the end of the stream"):
            assert await ended(read_out(call)) == "UNAUTHENTICATED"

    await cut()
    before = kept()
    for _ in range(CALLS):
        await cut()
    await until_nothing_is_kept(before)


@pytest.mark.usefixtures("without_collector")
async def test_an_exception_whose_tracebacks_stay_would_be_seen(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "free_after_call", lambda error: None)
    before = kept()
    for _ in range(CALLS):
        assert await ended(one_unary(server, f"{ALERTS}/GetAlert")) == "INVALID_ARGUMENT"
    await until(lambda: (kept() - before)[CONTEXT] == CALLS, "the end of the calls")
    assert (kept() - before)["traceback"] >= CALLS


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
@pytest.mark.usefixtures("without_collector")
async def test_nothing_stays_of_the_examples_of_a_service(server: Running, service: ServiceDescriptor) -> None:
    """Every method, with an answer, and most with a refusal."""
    before, names = kept(), Names()
    for step in session(service):
        with contextlib.suppress(grpc.aio.AioRpcError):
            answers = await answers_of(
                server.channel, step.method, names.of_server(step.request), max(len(step.answers), 1)
            )
            names.of_examples(answers)
    await until_nothing_is_kept(before)
