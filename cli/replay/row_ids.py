"""Ids of rows that have none: a digest of what a row says and of its place, as `evaluator.ids` writes digests."""

from hashlib import blake2b
from itertools import product

PREFIX = "row_"
_BYTES = 15  # 120 bits, which are eight groups of 15, or 24 characters
_SIGNS = "abcdefghijklmnopqrstuvwxyz234567"
_THREE = ["".join(signs) for signs in product(_SIGNS, repeat=3)]  # the characters of each group of 15 bits
_MASK = (1 << 15) - 1


def row_id(text: str) -> str:
    """The id that follows from a text, always the same one."""
    # base64.b32encode is written in Python, and takes several times as long.
    bits = int.from_bytes(blake2b(text.encode(), digest_size=_BYTES).digest())
    three, mask = _THREE, _MASK
    return (
        f"{PREFIX}{three[bits >> 105]}{three[bits >> 90 & mask]}{three[bits >> 75 & mask]}{three[bits >> 60 & mask]}"
        f"{three[bits >> 45 & mask]}{three[bits >> 30 & mask]}{three[bits >> 15 & mask]}{three[bits & mask]}"
    )
