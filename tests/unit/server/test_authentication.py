"""Loopback addresses, and the organization that a call acts for."""

import pytest

from server.authentication.api_keys import is_loopback
from server.calls import current_call
from server.calls.current_call import current_organization
from store.identity.callers import Caller
from store.identity.organizations import Organization


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_an_address_of_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "", "*"])
def test_an_address_that_other_machines_reach_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_a_call_without_a_caller_has_no_organization() -> None:
    current_call.begin(current_call.Call("/x/Y", "r"))
    with pytest.raises(RuntimeError, match="without an identity"):
        current_organization()
    current_call.begin(current_call.Call("/x/Y", "r", Caller(Organization(7, "acme"))))
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
def test_only_health_and_reflection_need_no_key(method: str, infrastructure: bool) -> None:
    assert current_call.Call(method, "r").is_infrastructure == infrastructure
