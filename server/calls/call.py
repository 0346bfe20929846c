"""The call that the running code serves: its method, its request id, and whose it is."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass

from store.identity.callers import Caller

# Services that load balancers and tools call: they need no identity, and a drain does not wait for them.
_INFRASTRUCTURE = ("/grpc.health.v1.", "/grpc.reflection.")


@dataclass(slots=True)
class Call:
    """One call of one method; the interceptors fill it in on its way to the handler."""

    method: str  # as on the wire: /package.Service/Method
    request_id: str
    caller: Caller | None = None  # unset until the caller is identified
    revoked: asyncio.Event | None = None  # of a stream of the API: set when its key has ended

    @property
    def is_infrastructure(self) -> bool:
        """Whether the method belongs to the machinery (health, reflection) and not to the API."""
        return is_infrastructure(self.method)


def is_infrastructure(method: str) -> bool:
    """Whether a method belongs to the machinery (health, reflection) and not to the API."""
    return method.startswith(_INFRASTRUCTURE)


_current: ContextVar[Call] = ContextVar("call")


def begin(call: Call) -> None:
    """Makes `call` the current one for the rest of this task; gRPC runs each call in a task of its own."""
    _current.set(call)


def current() -> Call:
    """The call this code serves; raises LookupError outside of one."""
    return _current.get()


def request_id() -> str:
    """The id of the current call; empty outside of one."""
    call = _current.get(None)
    return call.request_id if call else ""
