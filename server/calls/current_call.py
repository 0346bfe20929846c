"""The call that the running code serves: its method, its request id, and its caller."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from runtime import log_fields
from runtime.tracing.context import TraceContext
from server.calls.forwarded import SOCKET, Forwarded
from server.calls.once import Once
from store.alerts.history import Author
from store.audit.entries import Actor, ActorKind, Cause
from store.identity.callers import Caller
from store.identity.organizations import Organization

# Services for load balancers and tools: their calls need no API key, and a drain does not wait for them.
_INFRASTRUCTURE = ("/grpc.health.v1.", "/grpc.reflection.")


class StreamOfKey(Protocol):
    """A stream of the API, which ends when its key does not allow it any more. refusal: why; None until then."""

    revoked: Once  # set together with the refusal
    refusal: Exception | None


@dataclass(slots=True)
class Call:
    """One call of one method. The interceptors set its fields before the handler runs."""

    method: str  # as on the wire: /package.Service/Method
    request_id: str
    caller: Caller | None = None  # unset until the caller is identified
    stream: StreamOfKey | None = None  # only for a stream of the API
    answer_bytes: int = 0  # that a request of the call asked for; 0: none did
    outcome: grpc.StatusCode = grpc.StatusCode.CANCELLED  # of the code of the call, when it has ended
    trace: TraceContext | None = None  # of what the call causes
    peer: str = ""  # as gRPC names it; of a call of the front: its caller
    forwarded: Forwarded | None = None  # of a call of the front
    user_agent: str = ""
    client_identity: str = ""  # the first one of the client certificate

    @property
    def is_unknown_socket(self) -> bool:
        """Whether the call comes through a socket of the machine, and not from the front of this process."""
        return self.forwarded is None and self.peer.startswith(SOCKET)

    @property
    def is_infrastructure(self) -> bool:
        """Whether the method belongs to health or reflection and not to the API."""
        return is_infrastructure(self.method)

    def log_fields(self) -> Mapping[str, Any]:
        """The fields of each log line of the call."""
        fields: dict[str, Any] = {"request_id": self.request_id}
        if self.caller is not None:
            organization = self.caller.organization
            fields |= {"organization": organization.name, "organization_id": organization.organization_id}
        if self.trace is not None:
            fields["trace_id"] = self.trace.trace_id
        return fields

    def allow_answer(self, size: int) -> None:
        """Allows answers of `size` bytes, which a request of this call asks for."""
        self.answer_bytes = max(self.answer_bytes, size)


def is_infrastructure(method: str) -> bool:
    """Whether a method belongs to health or reflection and not to the API."""
    return method.startswith(_INFRASTRUCTURE)


_current: ContextVar[Call] = ContextVar("call")


def begin(call: Call) -> None:
    """Makes `call` the current one for the rest of this task; gRPC runs each call in a task of its own."""
    _current.set(call)
    log_fields.begin(call)


def get() -> Call:
    """The current call. Raises LookupError outside of a call."""
    return _current.get()


def requested_answer_bytes() -> int:
    """The bytes that requests of the current call ask for in an answer; 0 if none does, or outside of a call."""
    call = _current.get(None)
    return call.answer_bytes if call else 0


def request_id() -> str:
    """The id of the current call; empty outside of a call."""
    call = _current.get(None)
    return call.request_id if call else ""


def organization_name() -> str:
    """The name of the current call's organization; empty while its caller is not known, or outside of a call."""
    call = _current.get(None)
    return call.caller.organization.name if call and call.caller else ""


def current_organization() -> Organization:
    """The organization that the current call acts for. Every statement of a handler is limited to it."""
    return _caller().organization


def current_author() -> Author:
    """The author that the history notes for a change by the current call: its API key."""
    return Author(_caller().key_id)


def only_customer() -> str:
    """The only customer that the API key of the current call may read; empty: all."""
    return _caller().customer_id


def current_cause() -> Cause:
    """Who makes the changes of the current call, by which method, and from where, for the audit log."""
    call, caller = get(), _caller()
    if not caller.key_id:
        actor = Actor(ActorKind.ANONYMOUS)
    else:
        kind = ActorKind.CERTIFICATE if caller.identity else ActorKind.API_KEY
        actor = Actor(
            kind,
            caller.key_id,
            caller.display_name,
            caller.identity,
            tuple(sorted(role.value for role in caller.roles)),
        )
    return Cause(actor, call.method, call.peer, call.client_identity, call.user_agent, call.request_id)


def current_caller() -> Caller:
    """The caller of the call."""
    return _caller()


def _caller() -> Caller:
    caller = get().caller
    if caller is None:
        raise RuntimeError("the method is served without an identity")
    return caller
