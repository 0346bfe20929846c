"""The call that the running code serves: its method, its request id, and its caller."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from server.calls.once import Once
from store.alerts.history import Author
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

    @property
    def is_infrastructure(self) -> bool:
        """Whether the method belongs to health or reflection and not to the API."""
        return is_infrastructure(self.method)

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


def current_organization() -> Organization:
    """The organization that the current call acts for. Every statement of a handler is limited to it."""
    return _caller().organization


def current_author() -> Author:
    """The author that the history notes for a change by the current call: its API key."""
    return Author(_caller().key_id)


def _caller() -> Caller:
    caller = get().caller
    if caller is None:
        raise RuntimeError("the method is served without an identity")
    return caller
