"""The contract states the role of each method, and which fields limit it to a customer."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from generated.tidemark.v1 import account_service_pb2, alert_service_pb2, error_reason_pb2
from generated.tidemark.v1.error_reason_pb2 import ErrorReason
from proto.documents.contract import METHODS
from server.authentication.access import ACCESS, check_customer, check_role, refusal_of_stream
from server.calls.errors import PermissionDenied
from store.identity.callers import Caller
from store.identity.organizations import Organization
from store.identity.roles import Role, allows

READS = ("BatchCheck", "Check", "Explain", "Get", "List", "Preview", "Summarize", "Watch")
ROLES_OF = {"EvaluateUsage": Role.INGESTER, "EvaluateUsageBatch": Role.INGESTER}
ROLES_OF |= dict.fromkeys(("ReserveUsage", "SettleReservation", "EnforceUsage"), Role.INGESTER)
ROLES_OF |= dict.fromkeys(("ReleaseReservation", "ExtendReservation"), Role.INGESTER)
ROLES_OF |= dict.fromkeys(("DeleteCustomer", "RotateSecret"), Role.ADMIN)  # cannot be taken back
# They show the changes of all callers, and from where each came.
ROLES_OF |= dict.fromkeys(("GetAuditEntry", "ListAuditEntries", "WatchAuditEntries"), Role.ADMIN)


def wire_name(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def caller(*roles: Role, customer_id: str = "") -> Caller:
    return Caller(Organization(1, "acme"), "key_1", frozenset(roles), customer_id)


def reason_of(raised: "pytest.ExceptionInfo[PermissionDenied]") -> ErrorReason.ValueType:
    return raised.value.reason


def naming_customers(message: Descriptor, path: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """The fields of a message, and of messages in it, that name customers, each with its path."""
    for field in message.fields:
        if field.name in ("customer_id", "customer_ids"):
            yield path + field.name, field
        elif field.message_type is not None and field.message_type.file.package == "tidemark.v1":
            yield from naming_customers(field.message_type, f"{path}{field.name}.")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method_states_the_role_that_it_needs(method: MethodDescriptor) -> None:
    reads = method.name.startswith(READS)
    expected = ROLES_OF.get(method.name, Role.READER if reads else Role.EDITOR)
    assert ACCESS[wire_name(method)].role is expected


def test_every_method_of_the_contract_has_access_and_no_other() -> None:
    assert ACCESS.keys() == {wire_name(method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_customer_fields_are_all_the_fields_that_name_customers_in_methods_that_read_one(
    method: MethodDescriptor,
) -> None:
    fields = ACCESS[wire_name(method)].customer_fields
    if not fields:
        return
    assert ACCESS[wire_name(method)].role is Role.READER
    named = dict(naming_customers(method.input_type))
    assert list(named) == list(fields)
    assert all(field.type == FieldDescriptor.TYPE_STRING for field in named.values())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_that_is_open_to_keys_of_one_customer_has_a_request_that_can_name_nothing(
    method: MethodDescriptor,
) -> None:
    access = ACCESS[wire_name(method)]
    if access.open_to_customers:
        assert not method.input_type.fields
        assert not access.customer_fields
        assert access.role is Role.READER
        check_role(caller(Role.READER, customer_id="acme"), wire_name(method))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("held", [*Role, None], ids=lambda role: str(role))
@pytest.mark.parametrize("customer_id", ["", "acme"], ids=["all customers", "one customer"])
def test_each_method_refuses_each_key_without_its_role(
    method: MethodDescriptor, held: Role | None, customer_id: str
) -> None:
    name, needed = wire_name(method), ACCESS[wire_name(method)].role
    held_roles = [] if held is None else [held]
    if allows(held_roles, needed):
        return
    with pytest.raises(PermissionDenied) as raised:
        check_role(caller(*held_roles, customer_id=customer_id), name)
    assert reason_of(raised) == error_reason_pb2.ERROR_REASON_ROLE_MISSING
    assert raised.value.metadata["required_role"] == needed


def test_the_methods_that_are_open_to_keys_of_one_customer_are_these() -> None:
    assert [name for name, access in ACCESS.items() if access.open_to_customers] == [
        "/tidemark.v1.AccountService/GetCaller"
    ]


def test_roles_include_what_the_contract_says() -> None:
    includes = {held: {one for one in Role if allows([held], one)} for held in Role}
    assert includes == {
        Role.READER: {Role.READER},
        Role.INGESTER: {Role.INGESTER},
        Role.EDITOR: {Role.READER, Role.EDITOR},
        Role.ADMIN: set(Role),
    }
    assert not allows([], Role.READER)
    assert allows([Role.INGESTER, Role.READER], Role.READER)


def test_caller_without_the_role_is_refused_with_the_role_that_is_missing() -> None:
    with pytest.raises(PermissionDenied, match="CreateAlert needs the role EDITOR") as raised:
        check_role(caller(Role.READER, Role.INGESTER), "/tidemark.v1.AlertService/CreateAlert")
    assert reason_of(raised) == error_reason_pb2.ERROR_REASON_ROLE_MISSING
    assert raised.value.metadata == {"key_id": "key_1", "required_role": "EDITOR", "roles": "INGESTER,READER"}
    check_role(caller(Role.EDITOR), "/tidemark.v1.AlertService/CreateAlert")
    check_role(caller(), "/tidemark.v1.AlertService/NoSuchMethod")  # which is answered as unknown


LIST = "/tidemark.v1.AlertService/ListCustomerAlerts"


@pytest.mark.parametrize(
    ("customer_id", "customer_ids", "allowed"),
    [
        ("bob", [], True),
        ("", ["bob"], True),
        ("bob", ["bob", "bob"], True),
        ("", [], False),
        ("ann", [], False),
        ("bob", ["ann"], False),
        ("", ["bob", "ann"], False),
        ("Bob", [], False),
    ],
)
def test_key_of_one_customer_reads_only_that_customer(
    customer_id: str, customer_ids: list[str], allowed: bool
) -> None:
    request = alert_service_pb2.ListCustomerAlertsRequest(customer_id=customer_id, customer_ids=customer_ids)
    limited = caller(Role.READER, customer_id="bob")
    check_customer(caller(Role.READER), LIST, request)
    if allowed:
        check_customer(limited, LIST, request)
        return
    with pytest.raises(PermissionDenied, match="is limited to the customer 'bob'") as raised:
        check_customer(limited, LIST, request)
    assert reason_of(raised) == error_reason_pb2.ERROR_REASON_OTHER_CUSTOMER


def test_key_of_one_customer_finds_a_customer_only_by_its_id() -> None:
    limited, method = caller(Role.READER, customer_id="bob"), "/tidemark.v1.AccountService/GetCustomer"
    check_customer(limited, method, account_service_pb2.GetCustomerRequest(customer_id="bob"))
    with pytest.raises(PermissionDenied):
        check_customer(limited, method, account_service_pb2.GetCustomerRequest(alias="other"))


def test_key_of_one_customer_may_not_call_methods_without_customer_fields() -> None:
    for method, access in ACCESS.items():
        if access.role is Role.READER and not (access.customer_fields or access.open_to_customers):
            with pytest.raises(PermissionDenied, match="limited to one customer"):
                check_role(caller(Role.READER, customer_id="bob"), method)


def test_stream_ends_when_its_key_may_no_longer_call_it() -> None:
    watch = "/tidemark.v1.AlertService/WatchNotifications"
    before = caller(Role.READER)
    assert refusal_of_stream(caller(Role.EDITOR), before, watch) is None
    lowered = refusal_of_stream(caller(Role.INGESTER), before, watch)
    assert lowered is not None
    assert lowered.reason == error_reason_pb2.ERROR_REASON_ROLE_MISSING
    limited = refusal_of_stream(caller(Role.READER, customer_id="bob"), before, watch)
    assert limited is not None
    assert limited.reason == error_reason_pb2.ERROR_REASON_OTHER_CUSTOMER
    of_bob = caller(Role.READER, customer_id="bob")
    assert refusal_of_stream(of_bob, of_bob, watch) is None
    assert refusal_of_stream(before, of_bob, watch) is None, "a wider key goes on"
