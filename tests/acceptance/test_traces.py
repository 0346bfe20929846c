"""A trace goes from a call through its commit, both processes and a restart to the receiver of the webhook."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from cli.client.connection import Address, Metadata
from generated.tidemark.v1.access_pb2 import QuantityAccess
from generated.tidemark.v1.account_service_pb2 import PutLimitRequest
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest, EvaluateUsageRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.limit_pb2 import Limit
from generated.tidemark.v1.scope_pb2 import CustomerScope
from generated.tidemark.v1.usage_pb2 import UsageBatch, UsageEvent
from generated.tidemark.v1.webhook_service_pb2 import (
    ListEndpointsRequest,
    SendTestEventRequest,
    UpdateEndpointRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.tracing.context import TraceContext, of_texts
from tests.reference.alerts import Alert
from tests.reference.thresholds import Threshold
from tests.support.notifier.receiver import Arrival, Receiver, status
from tests.support.processes import results
from tests.support.processes.programs import DEADLINE, Program, Programs
from tests.support.processes.results import for_all_customers
from tests.support.tracing.contexts import context, metadata
from tests.support.tracing.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.support.waiting import within
from tests.support.webhooks.endpoints import create_endpoint

ALERT = for_all_customers("calls", ("usage", "calls"), "10")
CALL = "tidemark.v1.AlertService/EvaluateUsageBatch"
STREAM = "tidemark.v1.AlertService/EvaluateUsage"


@pytest.fixture
async def collector() -> AsyncIterator[OtlpReceiver]:
    """What the processes export their traces to."""
    async with otlp_receiver() as receiver:
        yield receiver


async def send(server: Program, customer: str, trace: TraceContext | None) -> None:
    """Sends usage that reaches the threshold, by a unary call in a trace."""
    await send_with(server, customer, metadata(trace) if trace else ())


async def send_with(server: Program, customer: str, sent: Metadata) -> None:
    """The same with any metadata."""
    event = UsageEvent(event_id=customer, customer_id=customer, metric_id="calls", quantity="20")
    event.event_time.FromDatetime(datetime.now(UTC))
    async with server.address.channel() as channel:
        request = EvaluateUsageBatchRequest(batch=UsageBatch(events=[event]))
        answer = await AlertServiceStub(channel).EvaluateUsageBatch(request, metadata=sent, timeout=DEADLINE)
    assert len(answer.outcome.transitions) == 1


async def stream(server: Program, customers: list[str], trace: TraceContext) -> None:
    """Sends usage of customers over one stream, a batch for each."""

    async def requests() -> AsyncIterator[EvaluateUsageRequest]:
        for customer in customers:
            event = UsageEvent(event_id=customer, customer_id=customer, metric_id="calls", quantity="20")
            event.event_time.FromDatetime(datetime.now(UTC))
            yield EvaluateUsageRequest(batch=UsageBatch(events=[event]))

    async with server.address.channel() as channel:
        answers = AlertServiceStub(channel).EvaluateUsage(requests(), metadata=metadata(trace), timeout=DEADLINE)
        assert len([answer async for answer in answers]) == len(customers)


async def prepare(address: Address, receiver: Receiver) -> str:
    """Creates the alert and an endpoint; returns the endpoint's secret."""
    await results.create(address, ALERT)
    async with address.channel() as channel:
        return await create_endpoint(channel, receiver.url)


def trace_of(arrival: Arrival) -> TraceContext | None:
    """The trace that a webhook belongs to."""
    return of_texts(arrival.headers.get("traceparent", ""), arrival.headers.get("tracestate", ""))


def customer_of(arrival: Arrival) -> str:
    """The customer that a webhook is about."""
    return str(json.loads(arrival.body)["data"]["customer_id"])


async def logged(program: Program, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    """Waits for a line of a log in JSON."""
    async with within("a log line"):
        while True:
            for line in program.said().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    if wanted(found := json.loads(line)):
                        return dict(found)
            await asyncio.sleep(0.02)


async def test_a_trace_goes_from_a_call_through_both_processes_and_a_restart_to_the_receiver(
    programs: Programs, receiver: Receiver, collector: OtlpReceiver
) -> None:
    programs.variables.update(collector.variables)
    server = await programs.serve()
    await prepare(server.address, receiver)
    receiver.answer(status(500))
    caller = context(1, state="vendor=value")
    await send(server, "acme", caller)
    # No notifier has run yet: the trace is in the database. The first one gets an error, and ends.
    first = await programs.notify("notifier-1")
    await receiver.arrived(1)
    assert await first.stop() == 0
    second = await programs.notify("notifier-2")
    failed, arrived = await receiver.arrived(2)

    spans = await collector.named(caller.trace_id, CALL, "commit", "evaluate", "POST")
    call, commit, evaluation, attempt = spans
    assert [span.service for span in spans] == [*["tidemark-server"] * 3, "tidemark-notifier"]
    assert [span.parent_id for span in spans] == [caller.span_id, call.span_id, commit.span_id, evaluation.span_id]
    assert commit.links == ((caller.trace_id, call.span_id),)
    assert (attempt.failed, attempt.attributes["http.response.status_code"]) == (True, 500)
    assert trace_of(failed) == TraceContext(caller.trace_id, attempt.span_id, 1, caller.state)
    attempts = await collector.number(caller.trace_id, "POST", 2)
    assert trace_of(arrived) == TraceContext(caller.trace_id, attempts[1].span_id, 1, caller.state)
    assert (attempts[1].failed, attempts[1].attributes["http.request.resend_count"]) == (False, 1)
    assert call.attributes["rpc.response.status_code"] == "OK"
    assert "url.full" not in attempt.attributes  # it may carry a token
    for program in (server, second):
        assert await program.stop() == 0
        assert program.complaints() == []


async def test_each_webhook_of_two_servers_belongs_to_the_call_that_caused_it(
    programs: Programs, receiver: Receiver, collector: OtlpReceiver
) -> None:
    programs.variables.update(collector.variables)
    one, other, _ = await asyncio.gather(programs.serve("one"), programs.serve("other"), programs.notify())
    await prepare(one.address, receiver)
    callers = {f"customer-{number}": context(number + 1) for number in range(20)}
    async with asyncio.TaskGroup() as group:
        for number, (customer, caller) in enumerate(callers.items()):
            group.create_task(send((one, other)[number % 2], customer, caller))
    for arrival in await receiver.arrived(len(callers)):
        trace = trace_of(arrival)
        assert trace is not None
        assert trace.trace_id == callers[customer_of(arrival)].trace_id
        await collector.named(trace.trace_id, CALL, "POST")
    commits = [span for span in collector.spans if span.name == "commit"]
    assert {trace_id for commit in commits for trace_id, _ in commit.links} == {
        caller.trace_id for caller in callers.values()
    }


async def test_webhooks_of_a_stream_belong_to_the_trace_of_its_metadata(
    programs: Programs, receiver: Receiver, collector: OtlpReceiver
) -> None:
    programs.variables.update(collector.variables)
    server, _ = await asyncio.gather(programs.serve(workers=2), programs.notify())
    await prepare(server.address, receiver)
    customers = [f"customer-{number}" for number in range(5)]
    await stream(server, customers, context(1))
    arrivals = await receiver.arrived(len(customers))
    assert {customer_of(arrival) for arrival in arrivals} == set(customers)
    for arrival in arrivals:
        trace = trace_of(arrival)
        assert trace is not None
        assert trace.trace_id == context(1).trace_id
    [call] = await collector.named(context(1).trace_id, STREAM)
    assert call.parent_id == context(1).span_id
    assert len([span for span in collector.spans if span.name == STREAM]) == 1


async def test_a_call_without_a_trace_begins_one(
    programs: Programs, receiver: Receiver, collector: OtlpReceiver
) -> None:
    programs.variables.update(collector.variables)
    server, _ = await asyncio.gather(programs.serve(), programs.notify())
    await prepare(server.address, receiver)
    await send(server, "acme", None)
    trace = trace_of((await receiver.arrived(1))[0])
    assert trace is not None
    [call] = await collector.named(trace.trace_id, CALL)
    assert call.parent_id == ""


async def test_a_trace_that_its_caller_does_not_sample_is_passed_on_and_not_recorded(
    programs: Programs, receiver: Receiver, collector: OtlpReceiver
) -> None:
    programs.variables.update(collector.variables)
    server, notifier = await asyncio.gather(programs.serve(), programs.notify())
    await prepare(server.address, receiver)
    await send(server, "acme", context(1, sampled=False))
    trace = trace_of((await receiver.arrived(1))[0])
    assert trace is not None
    assert (trace.trace_id, trace.is_sampled) == (context(1).trace_id, False)
    assert await server.stop() == 0
    assert await notifier.stop() == 0
    assert collector.of_trace(context(1).trace_id) == []


async def test_a_traceparent_passes_through_unchanged_or_is_ignored_while_tracing_is_off(
    programs: Programs, receiver: Receiver
) -> None:
    server, _ = await asyncio.gather(programs.serve(), programs.notify())
    secret = await prepare(server.address, receiver)
    passed = {
        "sampled": context(1, state="vendor=value,other=1"),
        "unsampled": context(2, sampled=False),
    }
    for customer, trace in passed.items():
        await send(server, customer, trace)
    malformed = ["", "00-x", f"00-{'0' * 32}-{'1' * 16}-01", "ff" + context(1).traceparent[2:]]
    await send(server, "none", None)
    for number, text in enumerate(malformed):
        await send_with(server, f"malformed {number}", (("traceparent", text),))
    arrivals = {customer_of(arrival): arrival for arrival in await receiver.arrived(3 + len(malformed))}
    for customer, arrival in arrivals.items():
        arrival.verify(secret)
        assert trace_of(arrival) == passed.get(customer)
        if customer not in passed:
            assert not arrival.headers.keys() & {"traceparent", "tracestate"}
    # A test event belongs to the call that asks for it, and an endpoint's own header gives way to a trace only.
    async with server.address.channel() as channel:
        webhooks = WebhookServiceStub(channel)
        [endpoint] = (await webhooks.ListEndpoints(ListEndpointsRequest(), timeout=DEADLINE)).endpoints
        endpoint.headers["Traceparent"] = "own"
        update = UpdateEndpointRequest(endpoint=endpoint, update_mask=FieldMask(paths=["headers"]))
        await webhooks.UpdateEndpoint(update, timeout=DEADLINE)
        before = len(receiver.arrivals)
        for sent, header in ((metadata(context(4)), context(4).traceparent), ((), "own")):
            request = SendTestEventRequest(endpoint_id=endpoint.endpoint_id)
            await webhooks.SendTestEvent(request, metadata=sent, timeout=DEADLINE)
            before += 1
            assert (await receiver.arrived(before))[-1].headers["traceparent"] == header


async def test_processes_work_and_end_soon_while_the_receiver_of_traces_is_away(
    programs: Programs, receiver: Receiver
) -> None:
    programs.variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1"
    server, notifier = await asyncio.gather(programs.serve(), programs.notify())
    await prepare(server.address, receiver)
    await send(server, "acme", context(1))
    await receiver.arrived(1)
    for program in (server, notifier):
        assert await program.stop() == 0


async def test_log_lines_of_both_processes_name_the_trace(programs: Programs, receiver: Receiver) -> None:
    programs.variables.update({"TIDEMARK_LOG_FORMAT": "json", "TIDEMARK_LOG_LEVEL": "debug"})
    server, notifier = await asyncio.gather(programs.serve(), programs.notify())
    await prepare(server.address, receiver)
    await send(server, "acme", context(6))
    [arrival] = await receiver.arrived(1)
    call = await logged(
        server, lambda line: line.get("action") == "call" and str(line["method"]).endswith("EvaluateUsageBatch")
    )
    attempt = await logged(notifier, lambda line: line.get("action") == "attempt")
    assert call["trace_id"] == attempt["trace_id"] == context(6).trace_id
    assert (call["organization"], len(str(call["request_id"]))) == ("default", 24)
    assert call["organization_id"] == attempt["organization_id"]
    assert attempt["notification_id"] == arrival.webhook_id
    assert str(attempt["delivery_id"]).startswith("whd_")
    assert str(attempt["endpoint_id"]).startswith("whe_")


async def test_webhooks_of_a_changed_limit_belong_to_the_call_that_changed_it(
    programs: Programs, receiver: Receiver, collector: OtlpReceiver
) -> None:
    programs.variables.update(collector.variables)
    server, _ = await asyncio.gather(programs.serve(), programs.notify())
    await prepare(server.address, receiver)
    percentage = Alert("share", ("usage", "calls"), False, ("all",), (), (Threshold(percent=Fraction(50)),))
    await results.create(server.address, percentage)
    async with server.address.channel() as channel:
        accounts = AccountServiceStub(channel)
        await send(server, "acme", None)
        [before] = await receiver.arrived(1)
        limit = Limit(
            limit_id="calls",
            customer=CustomerScope(customer_id="acme"),
            quantity=QuantityAccess(metric_id="calls"),
            amount="30",
        )
        await accounts.PutLimit(PutLimitRequest(limit=limit), metadata=metadata(context(9)), timeout=DEADLINE)
    arrived = (await receiver.arrived(2))[1]
    trace = trace_of(arrived)
    assert trace is not None
    assert trace.trace_id == context(9).trace_id
    assert trace_of(before) != trace
    [call, attempt] = await collector.named(context(9).trace_id, "tidemark.v1.AccountService/PutLimit", "POST")
    assert (call.parent_id, attempt.parent_id) == (context(9).span_id, call.span_id)
