"""Usage over the wire with the native decoder, which a server uses where it is compiled, and without it."""

from typing import Any

import pytest

from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from server import process
from server.alerts import usage_requests
from server.alerts.usage_reading import Reader
from server.alerts.usage_requests import HAS_NATIVE_DECODER, EncodedEvents
from tests.support.server.running import status_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import (
    Caller,
    Outcome,
    beside,
    everything,
    refusals,
    settings,
    usage_alert,
    values,
)

pytestmark = [
    shares_server,
    pytest.mark.skipif(not HAS_NATIVE_DECODER, reason="the native decoder is not compiled"),
]


async def not_used(*_: Any) -> Any:
    raise AssertionError("this way of reading is not expected")


async def streamed(caller: Caller, *events: usage_pb2.UsageEvent) -> Outcome:
    """The outcome of a batch that is sent on a stream."""
    stream = caller.stream()
    batch = usage_pb2.UsageBatch(batch_id="b1", events=events, include_gauges=True)
    await stream.write(alert_service_pb2.EvaluateUsageRequest(batch=batch))
    [answer], error = await everything(stream)
    assert error is None
    assert answer.outcome.batch_id == "b1"
    return answer.outcome


@own_server
async def test_default_server_reads_usage_natively(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "_read_messages", not_used)
    await caller.create(usage_alert("10"))
    await caller.send(caller.event("e1", "4"))
    outcome = await streamed(caller, caller.event("e1", "4"), caller.event("e2", "7.50"))
    assert (outcome.accepted, outcome.duplicates) == (1, 1)
    assert values(outcome.gauges) == {("acme", "calls"): 11.5}
    assert [transition.event_id for transition in outcome.transitions] == ["e2"]


async def test_server_reads_usage_in_python_when_the_native_decoder_is_switched_off(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EncodedEvents, "read", not_used)
    async with beside(caller, settings(native=False)) as other:
        await other.send(other.event("e1", "4"))
        outcome = await streamed(other, other.event("e1", "4"), other.event("e2", "7"))
    assert (outcome.accepted, outcome.duplicates) == (1, 1)


async def test_server_logs_a_compiled_module_that_it_cannot_use_and_reads_usage_in_python(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(EncodedEvents, "read", not_used)
    monkeypatch.setattr(usage_requests, "HAS_NATIVE_DECODER", False)
    monkeypatch.setattr(process, "DECODER_PROBLEM", "the decoder is of yesterday")
    async with beside(caller, settings()) as other:
        outcome = await streamed(other, other.event("e1", "4"))
    assert outcome.accepted == 1
    assert "the decoder is of yesterday; Python does its work" in caplog.messages


@pytest.mark.parametrize("size", [3, 700])
async def test_batch_with_bad_events_gets_the_same_answer_with_and_without_the_native_decoder(
    caller: Caller, size: int
) -> None:
    batches = []
    for name in ("native", "python"):
        events = [caller.event(f"e{number}", customer=name) for number in range(size)]
        events[1].quantity = "many"
        events[-1].event_time.Clear()
        batches.append(events)
    async with beside(caller, settings(native=False)) as other:
        answers = [await caller.send(*batches[0]), await other.send(*batches[1])]
    assert [(one.at, one.reason) for one in refusals(answers[0])] == [
        (1, "EVENT_INVALID"),
        (size - 1, "EVENT_TOO_OLD"),
    ]
    assert answers[0] == answers[1]
    assert answers[0].accepted == size - 2


async def test_rejections_of_stored_events_name_the_events_that_the_native_decoder_read(caller: Caller) -> None:
    await caller.send(caller.event("e1", "5"), caller.event("e2", "5"))
    answer = await caller.send(caller.event("e3"), caller.event("e2", "6"), caller.event("e1", "6"))
    assert [(one.index, one.event_id) for one in answer.rejected] == [(1, "e2"), (2, "e1")]
    bad = caller.event("e4", "x")
    answer = await caller.send(bad, caller.event("e2", "6"), caller.event("e5"))
    assert [(one.index, one.event_id) for one in answer.rejected] == [(0, "e4"), (1, "e2")]


async def test_malformed_request_ends_the_stream_with_the_same_error_with_and_without_the_native_decoder(
    caller: Caller,
) -> None:
    errors = []
    async with beside(caller, settings(native=False)) as other:
        for one in (caller, other):
            method: Any = one.server.channel.stream_stream("/tidemark.v1.AlertService/EvaluateUsage")
            stream = method(metadata=one.metadata)
            await stream.write(b"\x0a\x7f")
            _, error = await everything(stream)
            assert error is not None
            errors.append(status_of(error))
    assert errors[0] == errors[1]
    assert errors[0].code == 3
