"""Gives each call a request id: the caller's `x-request-id`, or a new one. Logs, errors and trailers contain it."""

import re
import secrets

from runtime.forwarding import Forwarding
from server.calls import current_call
from server.calls.context import Context
from server.calls.forwarded import SOCKET, forwarded_by
from server.interceptors.wrapping import Before

METADATA_KEY = "x-request-id"
USER_AGENT_KEY = "user-agent"

# Printable ASCII without spaces: the id is sent back as metadata and written to the log.
_ACCEPTED = re.compile(r"[!-~]{1,128}")


class RequestId(Before):
    """Uses the caller's request id if it has 1–128 printable characters, and a random one otherwise.

    Of a call that the front of this process forwards, it also notes the caller.
    """

    def __init__(self, forwarding: Forwarding | None = None) -> None:
        """forwarding: the socket of the front; None: there is none."""
        self._forwarding = forwarding

    def before(self, method: str, context: Context) -> None:
        """Begins the call with its id and sends the id back."""
        # The peer is read now: when the call is over, grpc.aio can read memory that is freed, and the process ends.
        call = current_call.Call(method, secrets.token_hex(12), peer=context.peer())
        for key, value in context.invocation_metadata() or ():
            if key == METADATA_KEY and isinstance(value, str) and _ACCEPTED.fullmatch(value):
                call.request_id = value
            elif key == USER_AGENT_KEY and isinstance(value, str):
                call.user_agent = value
        if call.peer.startswith(SOCKET):
            call.forwarded = forwarded_by(context.invocation_metadata() or (), self._forwarding)
            if call.forwarded is not None:
                call.peer, call.user_agent = call.forwarded.peer, call.forwarded.user_agent
        current_call.begin(call)
        # Trailing, not initial, metadata: gRPC sends it with the status, so there is no operation that can fail.
        context.set_trailing_metadata(((METADATA_KEY, call.request_id),))
