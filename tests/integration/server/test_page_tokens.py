"""A page token is bound to every filter of its list; with another filter the list would skip rows."""

import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from generated.tidemark.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    alert_service_pb2,
    alert_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    limit_service_pb2,
    limit_service_pb2_grpc,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from server.calls import paging
from tests.support.server.running import Running

STUBS: dict[Any, Any] = {
    account_service_pb2: account_service_pb2_grpc.AccountServiceStub,
    alert_service_pb2: alert_service_pb2_grpc.AlertServiceStub,
    audit_service_pb2: audit_service_pb2_grpc.AuditServiceStub,
    limit_service_pb2: limit_service_pb2_grpc.LimitServiceStub,
    webhook_service_pb2: webhook_service_pb2_grpc.WebhookServiceStub,
}


def lists() -> Iterator[tuple[Any, MethodDescriptor]]:
    """Every method that lists, with its stub."""
    for module, stub in STUBS.items():
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if "page_token" in method.input_type.fields_by_name:
                    yield stub, method


LISTS = {method.name: (stub, method) for stub, method in lists()}


# A list of one customer's, and one of many customers': some filters are of one of these only.
FORMS = {"ListCustomerAlerts": ({"customer_ids", "alert_ids", "statuses"}, {"customer_id"})}
TWO_FORMS = [(name, left_out) for name, forms in FORMS.items() for left_out in forms]


def put(request: Message, field: FieldDescriptor, number: int) -> None:
    """Gives a field a value; other numbers give other values."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(request, field.name)["key"] = str(number)
        return
    if field.type == FieldDescriptor.TYPE_MESSAGE and field.is_repeated:
        getattr(request, field.name).add(key="key", value=str(number))
        return
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(request, field.name).seconds = 1_700_000_000 + number + (1_000 if "end" in field.name else 0)
        return
    value: Any = {
        FieldDescriptor.CPPTYPE_STRING: f"id-{number}",
        FieldDescriptor.CPPTYPE_BOOL: number == 1,
        FieldDescriptor.CPPTYPE_ENUM: number,
    }[field.cpp_type]
    if field.is_repeated:
        getattr(request, field.name).append(value)
    else:
        setattr(request, field.name, value)


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the tokens of the pages that were read are bound to."""
    found: list[str] = []
    real = paging.Page

    def page(size: int, after: Any, digest: str) -> paging.Page:
        found.append(digest)
        return real(size, after, digest)

    monkeypatch.setattr(paging, "Page", page)
    return found


async def test_a_page_token_is_bound_to_every_filter_of_its_list(api: Running, digests: list[str]) -> None:
    seen: dict[str, str] = {}
    alike: list[str] = []
    for name, left_out in itertools.chain(((name, set[str]()) for name in LISTS if name not in FORMS), TWO_FORMS):
        stub, method = LISTS[name]
        kind = message_factory.GetMessageClass(method.input_type)
        no_filters = {"page_size", "page_token", "include_total_size", "max_answer_bytes", *left_out}
        filters = [field for field in method.input_type.fields if field.name not in no_filters]
        call = getattr(stub(api.channel), name)

        async def digest_of(request: Message, call: Any = call) -> str:
            digests.clear()
            try:
                await call(request)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                    raise
            [digest] = digests
            return digest

        for numbers in itertools.chain([(1,) * len(filters)], _one_other(len(filters))):
            request = kind()
            for field, number in zip(filters, numbers, strict=True):
                put(request, field, number)
            what = f"{name} with {numbers} of {[field.name for field in filters]}"
            digest = await digest_of(request)
            if digest in seen:
                alike.append(f"{what} is bound to the same as {seen[digest]}")
            seen[digest] = what
    assert not alike, "\n".join(alike)
    assert len(LISTS) > 15


def _one_other(count: int) -> Iterator[tuple[int, ...]]:
    """(2, 1, 1), (1, 2, 1) …"""
    return (tuple(2 if place == other else 1 for place in range(count)) for other in range(count))
