"""Opaque tokens that callers send back: page tokens and resume tokens.

A token is a JSON array in URL-safe base64 without padding. One of its values is a digest of the organization, the
method and the filters, so that a list or a stream refuses the tokens of another one. The digest is
not a signature: a caller can forge a token of its own list, and gains nothing by it.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable

import orjson

from server.calls.current_call import current_organization

_DIGEST_BYTES = 12


def digest_of(method: str, filters: Iterable[object]) -> str:
    """The digest of a list or stream of the current organization, in hexadecimal."""
    bound_to = [current_organization().organization_id, method, *filters]
    return hashlib.sha256(orjson.dumps(bound_to)).digest()[:_DIGEST_BYTES].hex()


def encode(*values: str | int) -> str:
    """The token of these values."""
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def decode(token: str, max_length: int) -> list[object] | None:
    """The values of a token of at most `max_length` characters, of any type; None for a text that is no token."""
    if len(token) > max_length:
        return None
    padded = token + "=" * (-len(token) % 4)
    try:
        values = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None
    return values if isinstance(values, list) else None
