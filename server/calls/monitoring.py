"""What the server measures of its calls; the duration has the name of OpenTelemetry's conventions for RPC."""

import time
from collections import Counter
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as reflection_v1alpha
from prometheus_client import Histogram

from generated.envoy.service.auth.v3 import external_authorization_pb2
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    limit_service_pb2,
    webhook_service_pb2,
)
from runtime.monitoring.busiest import BusiestOrganizations
from runtime.monitoring.instruments import Instruments

# The bounds that the convention advises, and three below them: most calls take less than 5 ms.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"  # no package has its descriptor
OTHER = "_OTHER"  # every method that does not exist: callers can invent any number of them

# The codes by which the convention tells a failure of the service from an answer to a bad call.
_ERRORS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


def _methods(*modules: Any) -> dict[str, str]:
    """The label of each method of the services in these modules, by its path on the wire."""
    return {
        f"/{service.full_name}/{method.name}": f"{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


class CallMonitoring:
    """The measurements of all calls of one server."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        instruments = instruments or Instruments()
        self._labels = {f"/{_REFLECTION_V1}": _REFLECTION_V1} | _methods(
            account_service_pb2,
            alert_service_pb2,
            audit_service_pb2,
            limit_service_pb2,
            webhook_service_pb2,
            external_authorization_pb2,
            health_pb2,
            reflection_v1alpha,
        )
        self._seconds = instruments.histogram(
            "rpc_server_call_duration_seconds",
            "Duration of a call, from its headers to its last message; of a stream, all of its time.",
            BUCKETS,
            labels=("rpc_system_name", "rpc_method", "rpc_response_status_code", "error_type"),
        )
        self._series: dict[tuple[str, grpc.StatusCode], Histogram] = {}
        self._in_flight = Counter[tuple[str, ...]]()
        self._organizations = BusiestOrganizations()
        instruments.gauge(
            "tidemark_server_calls_in_flight",
            "Calls that have begun and not ended, open streams among them.",
            lambda: self._in_flight,
            labels=("rpc_method",),
        )
        instruments.counter(
            "tidemark_organization_calls_total",
            "Calls and streams of the busiest organizations, when they end.",
            self._organizations.totals,
            labels=("organization",),
        )

    def begin(self, path: str, trace_id: str | None) -> "MeasuredCall":
        """Begins to measure a call. path: of the method, on the wire. trace_id: of its trace, if one is recorded."""
        method = self._labels.get(path, OTHER)
        self._in_flight[method,] += 1
        return MeasuredCall(self, method, trace_id)

    def end(self, call: "MeasuredCall", code: grpc.StatusCode, organization: str | None) -> None:
        """Counts a call that has ended; `MeasuredCall.end` calls it."""
        self._in_flight[call.method,] -= 1
        exemplar = {"trace_id": call.trace_id} if call.trace_id is not None else None
        self._of(call.method, code).observe(time.perf_counter() - call.began, exemplar)
        if organization is not None:
            self._organizations.add(organization, 1)

    def _of(self, method: str, code: grpc.StatusCode) -> Histogram:
        series = self._series.get((method, code))
        if series is None:
            error = code.name if code in _ERRORS else ""
            series = self._series[method, code] = self._seconds.labels("grpc", method, code.name, error)
        return series


class MeasuredCall:
    """A call in progress. method: its label. began: by `time.perf_counter`."""

    __slots__ = ("_monitoring", "began", "method", "trace_id")

    def __init__(self, monitoring: CallMonitoring, method: str, trace_id: str | None) -> None:
        self._monitoring = monitoring
        self.method = method
        self.trace_id = trace_id
        self.began = time.perf_counter()

    def end(self, code: grpc.StatusCode, organization: str | None) -> None:
        """Counts the call. organization: the name, if the caller is known."""
        self._monitoring.end(self, code, organization)
