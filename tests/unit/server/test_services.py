"""Each RPC of the contract is served by exactly one part, and each part's errors have an answer of the API."""

import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from generated.envoy.service.auth.v3 import external_authorization_pb2
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    limit_service_pb2,
    webhook_service_pb2,
)
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from runtime.fair_semaphore import FairSemaphore
from server import services
from server.alerts.usage_requests import EncodedRequest
from server.calls import errors
from server.calls.errors import ApiError, ErrorTable
from server.parts import Parts, build_parts
from server.services import (
    ACCOUNT_SERVICE,
    ALERT_SERVICE,
    AUDIT_SERVICE,
    EXTERNAL_AUTHORIZATION,
    LIMIT_SERVICE,
    WEBHOOK_SERVICE,
)
from store.postgres.database import Database

SERVICES: dict[str, tuple[type[Any], ServiceDescriptor]] = {
    ALERT_SERVICE: (services.AlertService, alert_service_pb2.DESCRIPTOR.services_by_name["AlertService"]),
    ACCOUNT_SERVICE: (services.AccountService, account_service_pb2.DESCRIPTOR.services_by_name["AccountService"]),
    AUDIT_SERVICE: (services.AuditService, audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]),
    EXTERNAL_AUTHORIZATION: (
        services.Authorization,
        external_authorization_pb2.DESCRIPTOR.services_by_name["Authorization"],
    ),
    LIMIT_SERVICE: (services.LimitService, limit_service_pb2.DESCRIPTOR.services_by_name["LimitService"]),
    WEBHOOK_SERVICE: (services.WebhookService, webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"]),
}
CONFIGURATION = Configuration(secret_keys=(("test", b"tidemark tests and nothing else!"),))


@pytest.fixture
async def parts() -> Parts:
    """Parts that are not started; the constructors use no database."""
    return build_parts(CONFIGURATION, cast(Database, None), SystemClock(), FairSemaphore(1), FairSemaphore(1))


@pytest.mark.parametrize("name", SERVICES)
async def test_every_rpc_is_served_by_one_handler_of_its_own_name(name: str, parts: Parts) -> None:
    service_class, descriptor = SERVICES[name]
    service = service_class(parts)
    assert {method.name for method in descriptor.methods} == set(vars(service))
    for method in descriptor.methods:
        handler = getattr(service, method.name)
        assert inspect.ismethod(handler), f"{method.name} is served by {handler}"
        assert handler.__name__ == method.name
        assert handler.__self__ is not service
        request = next(iter(typing.get_type_hints(handler.__func__).values()))
        sent = typing.get_args(request)[0] if method.client_streaming else request
        if isinstance(sent, types.UnionType):  # a message, or what the native decoder makes in place of it
            sent, instead = typing.get_args(sent)
            assert instead is EncodedRequest
        assert sent.DESCRIPTOR is method.input_type
        assert inspect.isasyncgenfunction(handler) == method.server_streaming


@pytest.mark.parametrize("name", SERVICES)
async def test_every_handler_of_a_part_serves_an_rpc(name: str, parts: Parts) -> None:
    """Otherwise an RPC could have a second handler that is never called."""
    service_class, descriptor = SERVICES[name]
    owners = {handler.__self__ for handler in vars(service_class(parts)).values()}
    handlers = [attribute for owner in owners for attribute in dir(owner) if attribute[0].isupper()]
    assert sorted(handlers) == sorted(method.name for method in descriptor.methods)


TABLES: Mapping[str, ErrorTable] = services.error_tables(CONFIGURATION)
ENTRIES = [
    pytest.param(name, exception, id=f"{name}-{exception.__name__}") for name in TABLES for exception in TABLES[name]
]


@pytest.mark.parametrize(("name", "exception"), ENTRIES)
def test_an_entry_of_an_error_table_maps_the_exception_that_its_function_takes(
    name: str, exception: type[Exception]
) -> None:
    hints = typing.get_type_hints(TABLES[name][exception])
    assert issubclass(hints.pop("return"), ApiError)
    assert list(hints.values()) == [exception]


def test_an_exception_that_the_table_does_not_name_is_internal(caplog: pytest.LogCaptureFixture) -> None:
    """This includes a subclass of a named exception: it can mean something else."""
    [exception, *_] = TABLES[ALERT_SERVICE]
    unknown = type("Unknown", (exception,), {})("alt_1")
    for error in (unknown, KeyError("secret detail"), Exception()):
        assert errors.mapped(error, TABLES[ALERT_SERVICE]).code is grpc.StatusCode.INTERNAL
    assert "secret detail" in caplog.text
    assert errors.mapped(exception("alt_1"), TABLES[ALERT_SERVICE]).code is grpc.StatusCode.NOT_FOUND
    assert errors.mapped(exception("alt_1"), TABLES[WEBHOOK_SERVICE]).code is grpc.StatusCode.INTERNAL
