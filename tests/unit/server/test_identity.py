"""Which addresses only this machine reaches, and whose call it is."""

import pytest

from server.calls import call as calls
from server.calls.identity import current_organization, is_loopback
from store.identity.callers import Caller
from store.identity.organizations import Organization


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "", "*"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_a_call_without_an_identity_has_no_organization() -> None:
    calls.begin(calls.Call("/x/Y", "r"))
    with pytest.raises(RuntimeError, match="without an identity"):
        current_organization()
    calls.begin(calls.Call("/x/Y", "r", Caller(Organization(7, "acme"))))
    assert current_organization() == Organization(7, "acme")


@pytest.mark.parametrize(
    ("method", "infrastructure"),
    [
        ("/grpc.health.v1.Health/Check", True),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", True),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True),
        ("/tidemark.v1.AlertService/GetAlert", False),
        ("/grpc.healthy/Check", False),
        ("grpc.health.v1.Health/Check", False),
    ],
)
def test_only_health_and_reflection_need_no_identity(method: str, infrastructure: bool) -> None:
    assert calls.Call(method, "r").is_infrastructure == infrastructure
