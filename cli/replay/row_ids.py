"""Ids of rows that have none: a digest of what a row says and of its place, as `evaluator.ids` writes digests."""

from hashlib import blake2b
from itertools import product

PREFIX = "row_"
_BYTES = 15  # 120 bits, which are eight groups of 15, or 24 characters
_SIGNS = "abcdefghijklmnopqrstuvwxyz234567"
_THREE = ["".join(signs) for signs in product(_SIGNS, repeat=3)]  # the characters of each group of 15 bits
_MASK, _HALF = (1 << 15) - 1, (1 << 60) - 1


def row_id(text: str) -> str:
    """The id that follows from a text, always the same one."""
    # base64.b32encode is written in Python, and takes several times as long.
    digest = blake2b(text.encode(), digest_size=_BYTES).digest()
    # The halves of 60 bits: a number of 120 takes longer to be shifted.
    high, low = int.from_bytes(digest[:8]) >> 4, int.from_bytes(digest[7:]) & _HALF
    three, mask = _THREE, _MASK
    return (
        f"{PREFIX}{three[high >> 45]}{three[high >> 30 & mask]}{three[high >> 15 & mask]}{three[high & mask]}"
        f"{three[low >> 45]}{three[low >> 30 & mask]}{three[low >> 15 & mask]}{three[low & mask]}"
    )
