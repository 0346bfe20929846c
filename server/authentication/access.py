"""Access: which role each method needs, as the contract says, and what a caller may not do."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    error_reason_pb2,
    limit_service_pb2,
    role_pb2,
    webhook_service_pb2,
)
from server.calls.errors import PermissionDenied
from store.identity.callers import Caller
from store.identity.roles import Role, allows

_FILES = (alert_service_pb2, account_service_pb2, audit_service_pb2, limit_service_pb2, webhook_service_pb2)


@dataclass(frozen=True, slots=True)
class Access:
    """What a method needs. The other fields: see the options of their names in `tidemark/v1/role.proto`."""

    role: Role
    customer_fields: tuple[str, ...]
    open_to_customers: bool = False


def _of_contract() -> Mapping[str, Access]:
    found = {}
    for file in _FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                options = method.GetOptions().Extensions
                role = role_pb2.Role.Name(options[role_pb2.required_role]).removeprefix("ROLE_")
                fields = tuple(options[role_pb2.customer_fields])
                is_open = options[role_pb2.open_to_customers]
                found[f"/{service.full_name}/{method.name}"] = Access(Role(role), fields, is_open)
    return found


# By the name of the method on the wire. A method that is not here does not exist, and is answered as such; but for
# envoy.service.auth.v3.Authorization/Check, which does the work of one of two methods and checks its access itself.
ACCESS = _of_contract()


def check_role(caller: Caller, method: str) -> None:
    """Raises PermissionDenied if the caller may not call the method, whatever the request contains."""
    access = ACCESS.get(method)
    if access is None:
        return
    if not allows(caller.roles, access.role):
        raise PermissionDenied(
            error_reason_pb2.ERROR_REASON_ROLE_MISSING,
            f"{_name(method)} needs the role {access.role}, and the API key {caller.key_id} has"
            f" {_listed(caller.roles)}: use another key, or give this one the role (`tidemark keys update`)",
            metadata={
                "key_id": caller.key_id,
                "required_role": access.role,
                "roles": ",".join(sorted(caller.roles)),
            },
        )
    if caller.customer_id and not access.customer_fields and not access.open_to_customers:
        raise _other_customer(caller, f"{_name(method)} cannot be called with a key that is limited to one customer")


def check_customer(caller: Caller, method: str, request: Message) -> None:
    """Raises PermissionDenied if the caller is limited to one customer, and the request asks for more."""
    access = ACCESS.get(method)
    if access is None or not caller.customer_id or access.open_to_customers:
        return
    named = [value for name in access.customer_fields for value in _values(_of_path(request, name))]
    if not named or any(value != caller.customer_id for value in named):
        raise _other_customer(
            caller, f"set {' or '.join(access.customer_fields)} to {caller.customer_id!r}, and to nothing else"
        )


def refusal_of_stream(caller: Caller, before: Caller, method: str) -> PermissionDenied | None:
    """Why a stream of the method may not go on with a key that has changed since the stream began; None if it may."""
    try:
        check_role(caller, method)
    except PermissionDenied as error:
        return error
    if caller.customer_id not in ("", before.customer_id):
        return _other_customer(caller, "open the stream again")
    return None


def _of_path(request: Message, path: str) -> Any:
    """The value of a field, which may be in a message of the request: "usage.customer_id"."""
    return functools.reduce(getattr, path.split("."), request)


def _values(value: Any) -> Iterable[str]:
    """The values of a field that names customers; none if it is empty."""
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(value)


def _other_customer(caller: Caller, what: str) -> PermissionDenied:
    return PermissionDenied(
        error_reason_pb2.ERROR_REASON_OTHER_CUSTOMER,
        f"the API key {caller.key_id} is limited to the customer {caller.customer_id!r}: {what}",
        metadata={"key_id": caller.key_id, "customer_id": caller.customer_id},
    )


def _name(method: str) -> str:
    return method.rsplit("/", 1)[-1]


def _listed(roles: Iterable[Role]) -> str:
    return ", ".join(sorted(roles)) or "no role that this version knows"
