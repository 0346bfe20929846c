"""Which headers of a webhook request are Tidemark's own: refused when an endpoint is saved, never sent from a row."""

# In lower case. What the connection, the message or its signature needs. Accept is not among them: an endpoint may
# say which answers its receiver should give.
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
    """Whether an endpoint may not set the header of that name, in upper or lower case.

    Authorization is not reserved: credentials, which are stored encrypted, are what it is set with.
    """
    lower = name.lower()
    return lower in RESERVED or lower.startswith(RESERVED_PREFIXES)
