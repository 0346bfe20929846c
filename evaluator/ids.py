"""Ids, a prefix that names the kind and lower-case base32; and digests, the same wherever they are computed."""

import base64
import hashlib

ID_BYTES = 16  # 128 bits, which are 26 characters


def id_of(prefix: str, data: bytes) -> str:
    """The id that stands for these bytes, such as `ntf_` and 26 characters for 16 bytes."""
    return prefix + base64.b32encode(data).decode().rstrip("=").lower()


def digest_id(prefix: str, *parts: object, size: int = ID_BYTES) -> str:
    """The id that follows from `parts`, always the same one; size: bytes. Their texts hold no line breaks."""
    return id_of(prefix, digest_of("\n".join(map(str, parts)), size))


def digest_of(text: str, size: int = ID_BYTES) -> bytes:
    """A digest of so many bytes, which identifies the text."""
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
