"""Ids that Tidemark creates: a prefix that names the type, and 26 characters of lower-case base32."""

import base64
import hashlib
import secrets

_ID_BYTES = 16  # 128 bits, which are 26 characters


def random_id(prefix: str) -> str:
    """A new id with that prefix, such as `whe_`."""
    return prefix + _base32(secrets.token_bytes(_ID_BYTES))


def digest_id(prefix: str, *parts: str) -> str:
    """The id that is a digest of `parts`: equal parts give equal ids. Parts must not contain control characters."""
    return prefix + _base32(hashlib.sha256("\x1f".join(parts).encode()).digest()[:_ID_BYTES])


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
