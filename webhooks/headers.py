"""The reserved headers of webhook requests: an endpoint cannot be saved with them, and its row never adds them."""

# In lower case: the headers that the connection, the message or its signature needs. Accept is not reserved: an
# endpoint may ask its receiver for a type of answer.
RESERVED = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
RESERVED_PREFIXES = ("webhook-", "proxy-")


def is_reserved(name: str) -> bool:
    """Whether an endpoint must not set the header of that name, in upper or lower case.

    Authorization is not reserved: the credentials of an endpoint, which are stored encrypted, set it.
    """
    lower = name.lower()
    return lower in RESERVED or lower.startswith(RESERVED_PREFIXES)
