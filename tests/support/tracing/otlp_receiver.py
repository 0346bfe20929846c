"""A receiver of traces over OTLP/gRPC: what stands behind the exporters of Tidemark's processes in a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.support.waiting import within


@dataclass(frozen=True)
class ReceivedSpan:
    """A span that a process has exported. Ids are hexadecimal; parent_id: empty for none. failed: its status."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    events: tuple[str, ...]
    failed: bool


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that come in. endpoint: for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[ReceivedSpan] = []

    async def Export(  # noqa: N802 (gRPC's name)
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> Any:
        """The one method of the service."""
        for of_resource in request.resource_spans:
            resource = {one.key: _value(one.value) for one in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans += [
                    ReceivedSpan(
                        service=resource["service.name"],
                        name=span.name,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                        attributes={one.key: _value(one.value) for one in span.attributes},
                        events=tuple(event.name for event in span.events),
                        failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    )
                    for span in of_scope.spans
                ]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of_trace(self, trace_id: str) -> list[ReceivedSpan]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    async def named(self, trace_id: str, *names: str) -> list[ReceivedSpan]:
        """Waits until a trace has a span of each of these names; returns the first of each."""
        async with within(f"spans {names} of {trace_id}"):
            while True:
                found = {span.name: span for span in reversed(self.of_trace(trace_id))}
                if found.keys() >= set(names):
                    return [found[name] for name in names]
                await asyncio.sleep(0.02)

    async def number(self, trace_id: str, name: str, number: int) -> list[ReceivedSpan]:
        """Waits until a trace has so many spans of a name; returns them, in the order in which they came."""
        async with within(f"{number} spans {name!r} of {trace_id}"):
            while len(found := [one for one in self.of_trace(trace_id) if one.name == name]) < number:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return found

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process that exports its traces to this receiver, soon after they end."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_BSP_SCHEDULE_DELAY": "50",  # milliseconds
        }


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[OtlpReceiver]:
    """A receiver on a free port of 127.0.0.1."""
    receiver = OtlpReceiver()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(0)


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
