"""The trace that a call belongs to, by the header `traceparent` of its metadata (W3C Trace Context)."""

import re

from server.calls.context import Context

METADATA_KEY = "traceparent"

# Version 00: trace id, id of the caller's span, flags. The last bit of the flags says that the trace is recorded.
_RECORDED = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")


def trace_id_of(context: Context) -> str | None:
    """The id of the call's trace, if that trace is recorded somewhere; otherwise None."""
    for key, value in context.invocation_metadata() or ():
        if key == METADATA_KEY and isinstance(value, str) and (found := _RECORDED.fullmatch(value)):
            return found[1]
    return None
