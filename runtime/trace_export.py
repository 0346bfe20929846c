"""Switches tracing on, by the standard OTEL_* variables. Without them, or without the extra, it stays off."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from runtime.actions import LogAction
from runtime.tracing import spans

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
LAST_EXPORT = 1.0  # seconds that the last spans may take when the process ends; their receiver may be away

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def exported_traces(service: str, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Records the spans of this process and exports them during the block, if `environment` says so.

    service: the name of the service where OTEL_SERVICE_NAME is not set. A configuration that cannot be used is
    logged, and tracing stays off: a service must not end for its traces.
    """
    if not _is_wanted(environment):
        yield
        return
    if problem := _problem(environment):
        logger.warning("traces are off: %s", problem, extra={"action": LogAction.TRACING})
        yield
        return
    try:
        # Only here: the core has no dependency on OpenTelemetry.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from runtime.tracing.recorder import OpenTelemetryRecorder
    except ImportError:
        logger.warning(
            "traces are off: install the extra, pip install 'tidemark[tracing]'", extra={"action": LogAction.TRACING}
        )
        yield
        return
    # `shutdown_on_exit` waits up to half a minute for a receiver that is away.
    provider = TracerProvider(resource=Resource.create(_resource(service, environment)), shutdown_on_exit=False)
    exporter = OTLPSpanExporter()
    processor = BatchSpanProcessor(exporter)
    provider.add_span_processor(processor)
    spans.use(OpenTelemetryRecorder(provider, _version()))
    endpoint = next(environment[name] for name in ENDPOINTS if environment.get(name))
    logger.info("traces are exported to %s", endpoint, extra={"action": LogAction.TRACING, "endpoint": endpoint})
    try:
        yield
    finally:
        spans.use(None)
        last = threading.Thread(target=processor.force_flush, name="last-spans", daemon=True)
        last.start()
        last.join(LAST_EXPORT)
        exporter.shutdown()  # ends an export that waits for its next try


def _resource(service: str, environment: Mapping[str, str]) -> dict[str, str | int]:
    """What every span says about its process, beside the variables."""
    attributes: dict[str, str | int] = {"service.version": _version(), "process.pid": os.getpid()}
    # An attribute given here would have precedence over the variables.
    if not environment.get("OTEL_SERVICE_NAME") and "service.name=" not in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        attributes["service.name"] = service
    return attributes


def _is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether there is a receiver, and tracing is not switched off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environment.get(name) for name in ENDPOINTS)


def _problem(environment: Mapping[str, str]) -> str:
    """Why traces cannot be exported as configured; empty if they can."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in ("", "otlp"):
        return f"OTEL_TRACES_EXPORTER is {exporter!r}; only otlp is supported"
    protocol = next((environment[name].strip().lower() for name in PROTOCOLS if environment.get(name)), "grpc")
    return "" if protocol == "grpc" else f"the protocol is {protocol!r}; only grpc is supported"


def _version() -> str:
    try:
        return version("tidemark")
    except PackageNotFoundError:
        return ""
