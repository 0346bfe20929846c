"""Envoy, Istio and the service config end no stream, and repeat only what is safe to repeat."""

import json

from google.protobuf.descriptor import MethodDescriptor

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    limit_service_pb2,
    webhook_service_pb2,
)
from tests.support.deployment import (
    DEPLOY,
    ENVOY,
    GRPC,
    MONITORING,
    documents,
    envoy_cluster,
    kubernetes_objects,
)


def test_envoy_ends_no_stream_and_forwards_the_checked_certificate() -> None:
    [config] = documents(ENVOY)
    [listener] = config["static_resources"]["listeners"]
    [chain] = listener["filter_chains"]
    [manager] = [one["typed_config"] for one in chain["filters"]]
    assert manager["stream_idle_timeout"] == "0s"
    assert manager["forward_client_cert_details"] == "SANITIZE_SET"
    assert manager["set_current_client_cert_details"] == {"uri": True, "dns": True}
    [route] = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert (route["route"]["timeout"], route["route"]["idle_timeout"]) == ("0s", "0s")
    assert "retry_policy" not in route["route"]
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
    options = envoy_cluster()["typed_extension_protocol_options"][
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    ]
    assert "http2_protocol_options" in options["explicit_http_config"]
    services = [one["metadata"]["name"] for one in kubernetes_objects("Service")]
    [address] = [
        one["endpoint"]["address"]["socket_address"]
        for one in envoy_cluster()["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ]
    assert address["address"] in services
    assert address["port_value"] == GRPC


def test_istio_ends_no_stream_and_repeats_nothing() -> None:
    [virtual] = kubernetes_objects("VirtualService")
    [route] = virtual["spec"]["http"]
    assert route["timeout"] == "0s"
    assert route["retries"] == {"attempts": 0}
    [authentication] = kubernetes_objects("PeerAuthentication")
    assert authentication["spec"]["mtls"]["mode"] == "STRICT"
    assert authentication["spec"]["portLevelMtls"].keys() == {str(MONITORING)}
    services = {one["metadata"]["name"] for one in kubernetes_objects("Service")}
    assert set(virtual["spec"]["hosts"]) <= services


METHODS: list[MethodDescriptor] = [
    method
    for module in (account_service_pb2, alert_service_pb2, audit_service_pb2, limit_service_pb2, webhook_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]

# What happens once by an id in the request.
IDENTIFIED = {
    *("EvaluateUsageBatch", "ReserveUsage", "SettleReservation", "ReleaseReservation", "ExtendReservation"),
    "ReportRecharge",
}


def is_safe_to_repeat(method: MethodDescriptor) -> bool:
    """Whether a call that may have been carried out can be sent again, whatever it contains."""
    if method.client_streaming or method.server_streaming:
        return False
    reads_and_puts = ("BatchCheck", "Check", "Explain", "Get", "List", "Preview", "Put", "Summarize")
    return method.name.startswith(reads_and_puts) or method.name in IDENTIFIED


def test_service_config_repeats_exactly_the_methods_that_are_safe_to_repeat() -> None:
    found = json.loads((DEPLOY / "grpc-service-config.json").read_text())
    [config] = found["methodConfig"]
    names = [f"{one['service']}/{one['method']}" for one in config["name"]]
    named = set(names)
    assert len(names) == len(named), "gRPC refuses a config that names a method twice, and with it every call"
    safe = [method for method in METHODS if is_safe_to_repeat(method)]
    expected = {f"{method.containing_service.full_name}/{method.name}" for method in safe}
    assert (named - expected, expected - named) == (set(), set()), "change deploy/grpc-service-config.json"
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
