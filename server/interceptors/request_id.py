"""Names each call: the caller's `x-request-id`, or a new one, in log lines, errors and trailing metadata."""

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.calls import call as calls
from server.interceptors.around import Around, Context

METADATA_KEY = "x-request-id"

# Printable ASCII without blanks: it goes back as metadata and out in log lines.
_ACCEPTED = re.compile(r"[!-~]{1,128}")


class RequestId(Around):
    """Takes the caller's request id when it is 1–128 printable characters, and makes one up otherwise."""

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Begins the call under its id and sends the id back."""
        request_id = secrets.token_hex(12)
        for key, value in context.invocation_metadata() or ():
            if key == METADATA_KEY and isinstance(value, str) and _ACCEPTED.fullmatch(value):
                request_id = value
        calls.begin(calls.Call(method, request_id))
        # Trailing, not initial, metadata: sending it is no operation of its own, so it cannot fail.
        context.set_trailing_metadata(((METADATA_KEY, request_id),))
        yield
